"use strict";
// What is seen of the drawing around the picture: words, subjects, rows of keyframes, what is missing, the command.

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// New children; the focus stays on the button with the same number.
function refill(parent, children) {
  const focused = [...parent.querySelectorAll("button")].indexOf(document.activeElement);
  parent.replaceChildren(...children);
  if (focused >= 0) parent.querySelectorAll("button")[focused]?.focus();
}

function colored(node, k) {
  node.style.setProperty("--color", data.colors[k % data.colors.length]);
  return node;
}

function render() {
  if (at("prompt").value !== drawing.prompt) at("prompt").value = drawing.prompt;
  renderWords();
  renderSubjects();
  const problems = problemsOf(drawing);
  const sentences = problems.map((text) => text[0].toUpperCase() + text.slice(1));
  const ready = data.served ? [] : ["Ready."]; // the button says so itself
  at("problems").replaceChildren(...(problems.length ? sentences : ready).map((text) => make("li", {}, text)));
  at("problems").classList.toggle("ready", !problems.length);
  at("save").disabled = problems.length > 0;
  at("text").value = problems.length ? "" : writeFile(drawing);
  at("undo").disabled = !log.past.length;
  at("redo").disabled = !log.future.length;
  const stretched = drawing.frames === data.frames ? "" : " --resample";
  at("command").textContent = `${data.command} --boxes ${FILE}${stretched}${flagsOf(choice())}`;
  if (data.served) {
    renderPress(problems.length > 0);
    keepSoon();
  }
  renderFrame();
}

function renderFrame() {
  const subject = drawing.subjects[view.active];
  const isKey = view.frame in subject.keyframes;
  at("slider").max = drawing.frames - 1;
  at("slider").value = view.frame;
  at("number").textContent = `${view.frame} / ${drawing.frames - 1}`;
  at("play").textContent = view.playing ? "Stop" : "Play";
  at("key").textContent = isKey ? "Remove keyframe" : "Set keyframe";
  at("absent").disabled = isKey && subject.keyframes[view.frame] === null;
  at("fewer").disabled = keyTimes(subject).length < 3;
  at("hint").textContent = hintOf(subject, isKey);
  at("canvas").setAttribute("aria-label", `Frame ${view.frame}: ${drawing.subjects.map(described).join("; ")}`);
  renderTracks();
  stage.show(drawing, view);
  if (data.served) renderFilms();
}

// What was chosen beside the prompt, as typed; what a command does anyway needs no flag.
function choice() {
  return Object.fromEntries(["method", "seed", "steps"].map((name) => [name, at(name).value.trim()]));
}

function flagsOf({ method, seed, steps }) {
  const typed = (text) => (/^[\w ]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const flags = [method !== "full" && `--method ${method}`, seed && seed !== "0" && `--seed ${typed(seed)}`];
  return [...flags, steps && `--steps ${typed(steps)}`].filter(Boolean).map((flag) => ` ${flag}`).join("");
}

function hintOf(subject, isKey) {
  if (!keyTimes(subject).length) return "Drag a box in the picture, go to another frame, and move it there.";
  if (!current()) return isKey ? "Absent from this frame until the next keyframe." : "Absent in this frame.";
  return isKey ? "A keyframe." : "Between keyframes: moving the box makes this frame one.";
}

function described(subject, k) {
  const box = boxAt(subject, view.frame);
  const where = box ? `box ${box.map((value) => value.toFixed(2)).join(" ")}` : "absent";
  return `${subject.words || `subject ${k + 1}`} ${where}`;
}

function renderWords() {
  const chosen = drawing.subjects.map((subject) => new Set(placesOf(drawing.prompt, subject.words).flat()));
  const nodes = piecesOf(drawing.prompt).map((piece, i) => {
    if (!isWord(piece)) return make("span", { className: "soft" }, piece.text);
    const pick = () => change((subject) => (subject.words = pickWord(drawing.prompt, subject.words, i)));
    const button = make("button", { onclick: pick, ariaPressed: String(chosen[view.active].has(i)) }, piece.text);
    const owner = chosen[view.active].has(i) ? view.active : chosen.findIndex((places) => places.has(i));
    return owner < 0 ? button : colored(button, owner);
  });
  refill(at("words"), nodes);
}

function renderSubjects() {
  const nodes = drawing.subjects.map((subject, k) => {
    const count = keyTimes(subject).length;
    const choose = make(
      "button",
      { className: "choose", onclick: () => select(k), ariaPressed: String(k === view.active) },
      colored(make("i", { className: "swatch" }), k),
      make("span", {}, subject.words || "words to be clicked"),
      make("em", {}, count === 1 ? "1 keyframe" : `${count} keyframes`),
    );
    const remove = make("button", { onclick: () => removeSubject(k), ariaLabel: `Remove subject ${k + 1}` }, "×");
    return make("div", { className: "subject" }, choose, remove);
  });
  refill(at("subjects"), nodes);
}

function renderTracks() {
  const place = (frame) => `${(100 * frame) / Math.max(drawing.frames - 1, 1)}%`;
  const nodes = drawing.subjects.map((subject, k) => {
    const track = colored(make("div", { className: k === view.active ? "track active" : "track" }), k);
    track.onclick = (event) => {
      select(k);
      const area = track.getBoundingClientRect();
      goTo(Math.round(((event.clientX - area.left) / area.width) * (drawing.frames - 1)));
    };
    const times = keyTimes(subject);
    times.forEach((time, i) => {
      if (!subject.keyframes[time]) return;
      const [from, to] = [i ? time : 0, times[i + 1] ?? drawing.frames - 1];
      const line = track.appendChild(make("i"));
      Object.assign(line.style, { left: place(from), width: place(to - from) });
    });
    for (const time of times) {
      const mark = track.appendChild(make("b", { title: `keyframe ${time}` }));
      mark.classList.toggle("absent", subject.keyframes[time] === null);
      mark.classList.toggle("here", time === view.frame && k === view.active);
      mark.style.left = place(time);
    }
    return track;
  });
  at("tracks").replaceChildren(...nodes);
}
