"use strict";
// The runs: asked of the server that this page comes from, watched step by step, their videos side by side.
// The server holds all that there is to know of them; a page asks for what has changed, and may be closed at any time.

const runs = new Map(); // by number, as the server tells of them
const seen = { version: 0, run: null, gone: false, heard: false, kept: "", timer: null, keeping: null, reveal: null };
const films = new Map(); // by number of run: an address of its video, once it is here

const underWay = (run) => run.status === "waiting" || run.status === "running";
const shownRun = () => runs.get(seen.run);

// ---- Asking ---------------------------------------------------------------------------------------------------------

// The answer to a question, or to a wish with a body; {busy} or {error, about} where it is not granted.
async function ask(path, body, options = {}) {
  const headers = { "Content-Type": "application/json" };
  const wish = body === undefined ? {} : { method: "POST", headers, body: JSON.stringify(body), ...options };
  const answer = await fetch(path, wish);
  if (answer.status === 403) throw Error("another server"); // it was started anew, and has another address
  return answer.json();
}

async function poll() {
  clearTimeout(seen.timer);
  let pause = 2000;
  try {
    const state = await ask(`state?since=${seen.version}`);
    if (seen.gone) say("The server is there again.");
    Object.assign(seen, { gone: false, heard: true });
    at("preview").checked = state.preview;
    if (state.runs.length) take(state);
    if ([...runs.values()].some(underWay)) pause = 250;
  } catch {
    const kept = "Finished runs are in their folders, and one that was under way can be resumed in the terminal.";
    if (!seen.gone) say(`The server has ended. ${kept}`, true);
    seen.gone = true;
  }
  renderPress(problemsOf(drawing).length > 0);
  clearTimeout(seen.timer);
  seen.timer = setTimeout(poll, pause);
}

function take(state) {
  seen.version = state.version;
  for (const run of state.runs) {
    const before = runs.get(run.number);
    runs.set(run.number, run);
    if (!before) seen.run = run.number; // the newest is looked at
    const news = before ? before.status !== run.status : underWay(run);
    const what = { running: "begins", waiting: "waits" }[run.status] ?? `is ${run.status}`;
    if (news) say(`Run ${run.number} ${what}.`);
    if (news && run.status === "refused" && run.number === seen.run) slip(run.sentence, run.about);
  }
  renderRuns();
}

// A wish that a run under way may stand against; the user then says which of the two counts.
async function wish(path, body) {
  slip("");
  try {
    let answer = await ask(path, body);
    if (answer.busy && (await mayReplace())) answer = await ask(path, { ...body, replace: true });
    if (answer.error && !answer.busy) slip(answer.error, answer.about);
    if (answer.run) reveal();
  } catch {
    slip("the server does not answer");
  }
  poll();
}

function mayReplace() {
  at("busy").returnValue = "";
  at("busy").showModal();
  return new Promise((resolve) => {
    at("busy").onclose = () => resolve(at("busy").returnValue === "replace");
  });
}

function generate() {
  keep();
  wish("start", { drawing: writeFile(drawing), resample: drawing.frames !== data.frames, ...choice() });
}

// What is wrong, at the field that it is about.
function slip(sentence, about) {
  at("slip").textContent = sentence && sentence[0].toUpperCase() + sentence.slice(1);
  for (const name of ["method", "seed", "steps"]) {
    at(name).ariaInvalid = String(name === about);
    if (name === about) at(name).setAttribute("aria-describedby", "slip");
    else at(name).removeAttribute("aria-describedby");
  }
  if (about) at(about).focus();
}

// What is drawn but not asked for yet is kept by the server, for when this page is opened again.
function keepSoon() {
  clearTimeout(seen.keeping);
  seen.keeping = setTimeout(keep, 300);
}

const held = () => JSON.stringify({ drawing, choice: choice() });

function keep() {
  if (held() === seen.kept) return;
  seen.kept = held();
  ask("draft", JSON.parse(seen.kept), { keepalive: seen.kept.length < 60000 }).catch(() => {});
}

// ---- One run --------------------------------------------------------------------------------------------------------

function renderPress(missing) {
  at("generate").disabled = missing || seen.gone;
}

function reveal() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  seen.reveal = () => at("result").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}

function renderRuns() {
  const run = shownRun();
  at("result").hidden = !run;
  if (!run) return;
  renderChips(run);
  at("title").textContent = run.prompt;
  at("status").textContent = statusOf(run);
  at("status").classList.toggle("wrong", run.status === "refused");
  at("stop").hidden = !underWay(run);
  at("stop").disabled = run.stopping;
  at("resume").hidden = !run.resumable;
  const plain = run.method === "plain" || [...runs.values()].some((other) => isPlainOf(other, run));
  at("plain").hidden = run.status !== "done" || plain;
  const chosen = Object.entries(choice()).every(([name, value]) => run.asked[name].trim() === value);
  at("again").hidden = chosen && run.asked.drawing === writeFile(drawing);
  renderBar(run);
  refill(at("notes"), run.notes.map((note) => make("li", {}, note)));
  renderPictures(run);
  renderCharts(run);
  renderVideos(run);
  seen.reveal?.();
  seen.reveal = null;
}

// Only where something has changed: a button that is replaced while it is pressed would not be clicked.
function renderChips(run) {
  const key = JSON.stringify([...runs.values()].map((other) => [other.method, other.status, other === run]));
  if (at("runs").dataset.key === key) return;
  at("runs").dataset.key = key;
  const chips = [...runs.values()].map((other) => {
    const onclick = () => {
      seen.run = other.number;
      renderRuns();
    };
    const end = underWay(other) ? "…" : other.status === "done" ? "" : ` ${other.status}`;
    const words = `${other.number} ${other.method}, seed ${other.seed}`;
    return make("button", { onclick, ariaPressed: String(other === run) }, words, make("em", {}, end));
  });
  refill(at("runs"), chips);
}

function isPlainOf(other, run) {
  const same = ["group", "prompt", "seed", "steps"].every((name) => other[name] === run[name] || other[name] === null);
  return other.method === "plain" && same && (underWay(other) || other.status === "done");
}

function statusOf(run) {
  const step = `step ${run.step} of ${run.steps}`;
  if (run.status === "waiting") return "Waits for the run before it to stop.";
  if (run.status === "done") return `Done in ${run.seconds.toFixed(1)} s, ${run.steps} steps: ${run.folder}`;
  if (run.status === "stopped") return run.step ? `Stopped after ${step}: ${run.sentence}` : `Stopped: ${run.sentence}`;
  if (run.status === "refused") return run.sentence[0].toUpperCase() + run.sentence.slice(1);
  if (run.stopping) return "Stops after this step.";
  if (!run.step) return "Begins.";
  if (run.step === run.steps) return "Decodes the video and writes the files.";
  return `${step[0].toUpperCase()}${step.slice(1)}, about ${Math.max(1, Math.round(run.left))} s left`;
}

function renderBar(run) {
  const [bar, share] = [at("bar"), (part) => `${(100 * part) / (run.steps ?? 1)}%`];
  bar.hidden = !run.steps || run.status === "done";
  bar.ariaValueMax = String(run.steps ?? 0);
  bar.ariaValueNow = String(run.step);
  bar.ariaValueText = statusOf(run);
  bar.style.setProperty("--masked", share(run.masked ?? 0));
  at("done").style.width = share(run.step);
}

function renderPictures(run) {
  const pictures = run.status === "done" ? [] : [...run.pictures].sort((a, b) => a.frame - b.frame);
  const figures = [...at("pictures").children];
  if (figures.length !== pictures.length) {
    at("pictures").replaceChildren(...pictures.map(() => figureOf(make("img"))));
  }
  pictures.forEach((picture, i) => {
    const [pane, caption] = at("pictures").children[i].children;
    const image = pane.querySelector("img");
    if (image.src !== picture.source) image.src = picture.source;
    image.alt = `Clean estimate of frame ${picture.frame} after step ${picture.step}`;
    caption.textContent = `ẑ₀, frame ${picture.frame}, after step ${picture.step}`;
    pane.style.aspectRatio = `${run.width} / ${run.height}`;
    paintBoxes(pane, run, picture.frame);
  });
}

function figureOf(content) {
  return make("figure", {}, make("div", { className: "pane" }, content), make("figcaption"));
}

// The boxes of a frame, over a picture of it.
function paintBoxes(pane, run, frame) {
  pane.querySelector("svg")?.remove();
  if (!at("boxes").checked) return;
  const boxes = run.boxes.map((track, k) => [track[frame], data.colors[k % data.colors.length]]).filter(([box]) => box);
  const rects = boxes.map(([[x1, y1, x2, y2], color]) => {
    return `<rect x="${x1}" y="${y1}" width="${x2 - x1}" height="${y2 - y1}" stroke="${color}"/>`;
  });
  const square = 'viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true"';
  pane.insertAdjacentHTML("beforeend", `<svg ${square}>${rects.join("")}</svg>`);
}

function renderCharts(run) {
  const html = (run.charts ?? []).join("");
  at("grey").hidden = !run.masked || !html;
  if (at("charts").dataset.html === html) return;
  at("charts").dataset.html = html;
  at("charts").innerHTML = html;
}

// ---- Videos side by side --------------------------------------------------------------------------------------------

// The run's own video first, then those of the same boxes, the newest first.
function renderVideos(run) {
  const same = [...runs.values()].filter((other) => other.group === run.group && other.status === "done");
  const order = same.sort((a, b) => (b === run) - (a === run) || b.number - a.number);
  const key = order.map((other) => other.number).join();
  at("films").hidden = !order.length;
  if (at("videos").dataset.key === key) return;
  at("videos").dataset.key = key;
  at("videos").replaceChildren(...order.map(videoOf));
  renderFilms();
}

function videoOf(run) {
  const text = `${run.method}, seed ${run.seed}, ${run.steps} steps`;
  const video = make("video", { muted: true, playsInline: true, preload: "auto", ariaLabel: `${run.prompt}: ${text}` });
  const figure = figureOf(video);
  figure.run = run;
  figure.firstChild.style.aspectRatio = `${run.width} / ${run.height}`;
  const report = make("a", { href: `runs/${run.number}/report.html`, target: "_blank", rel: "noopener" }, "report");
  report.ariaLabel = `Report of run ${run.number}`;
  figure.lastChild.append(`${run.number}: ${text} · `, report);
  video.onloadeddata = renderFilms;
  filmOf(run).then((address) => (video.src = address), () => (video.title = "the file is not there any more"));
  return figure;
}

// Fetched whole, so that a browser can go to any frame of it.
function filmOf(run) {
  if (!films.has(run.number)) {
    const whole = (answer) => (answer.ok ? answer.blob() : Promise.reject());
    films.set(run.number, fetch(`runs/${run.number}/video.mp4`).then(whole).then((blob) => URL.createObjectURL(blob)));
  }
  return films.get(run.number);
}

// All videos at the frame of the picture above, each at that frame's middle, so that rounding shows no neighbour.
function renderFilms() {
  at("slider-all").max = drawing.frames - 1;
  at("slider-all").value = view.frame;
  at("number-all").textContent = `${view.frame} / ${drawing.frames - 1}`;
  at("play-all").textContent = view.playing ? "Stop" : "Play";
  for (const { run, firstChild } of at("videos").children) {
    const frame = Math.round((view.frame * (run.frames - 1)) / Math.max(drawing.frames - 1, 1));
    firstChild.firstChild.currentTime = (frame + 0.5) / run.fps;
    paintBoxes(firstChild, run, frame);
  }
}

// ---- Buttons --------------------------------------------------------------------------------------------------------

function listen() {
  at("generate").onclick = generate;
  at("stop").onclick = () => wish("stop", { run: seen.run });
  at("resume").onclick = () => wish("resume", { run: seen.run });
  at("plain").onclick = () => {
    const run = shownRun();
    wish("start", { ...run.asked, method: "plain", steps: String(run.steps) });
  };
  at("again").onclick = () => {
    const { asked } = shownRun();
    remember();
    for (const name of ["method", "seed", "steps"]) at(name).value = asked[name];
    restore(readFile(asked.drawing, data.frames));
    renderRuns();
  };
  at("preview").onchange = () => ask("preview", { on: at("preview").checked }).catch(() => {});
  at("boxes").onchange = () => {
    renderFilms();
    renderRuns();
  };
  at("play-all").onclick = () => play();
  at("slider-all").oninput = () => goTo(Number(at("slider-all").value));
  addEventListener("pagehide", keep);
  seen.kept = held();
  poll();
}
