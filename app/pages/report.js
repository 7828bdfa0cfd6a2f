"use strict";
// The videos, played and stopped together; the first one leads.

const { fps, frames } = JSON.parse(document.getElementById("data").textContent);
const videos = [...document.querySelectorAll("video")];
const [leader] = videos;
const [button, scrubber, number] = ["play", "scrubber", "number"].map((id) => document.getElementById(id));

const frameNow = () => Math.min(Math.floor(leader.currentTime * fps + 1e-3), frames - 1);

function show(frame) {
  scrubber.value = frame;
  number.textContent = `${frame} / ${frames - 1}`;
}

// To a frame's middle, so that rounding cannot show its neighbour.
function seek(frame) {
  for (const video of videos) video.currentTime = (frame + 0.5) / fps;
  show(frame);
}

function stop() {
  for (const video of videos) video.pause();
  button.textContent = "Play";
}

async function play() {
  button.textContent = "Stop";
  for (const video of videos) video.currentTime = leader.ended ? 0 : leader.currentTime;
  try {
    await Promise.all(videos.map((video) => video.play()));
    requestAnimationFrame(follow);
  } catch {
    stop(); // stopped before it had begun, or the browser cannot play it
  }
}

function follow() {
  if (leader.paused) return;
  show(frameNow());
  for (const video of videos) {
    if (Math.abs(video.currentTime - leader.currentTime) > 0.5 / fps) video.currentTime = leader.currentTime;
  }
  requestAnimationFrame(follow);
}

button.onclick = () => (leader.paused ? play() : stop());
leader.onended = play; // round and round, both from the start
scrubber.oninput = () => {
  stop();
  seek(Number(scrubber.value));
};
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.target.matches("button, summary")) return;
  event.preventDefault();
  button.click();
});
