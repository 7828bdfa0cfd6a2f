"use strict";
// What is drawn, its history, and all that a user can do to it. What is seen of it is in panels.js and stage.js.

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const FILE = "trajectory.json";

let drawing = data.drawing;
const view = { frame: 0, active: 0, playing: null };
const log = { past: [], future: [], kind: null };

// Boxes handed over frame by frame become keyframes that can be moved, where they lie on straight lines.
for (const subject of drawing.subjects) {
  if (keyTimes(subject).length) subject.keyframes = fewerKeyframes(subject, drawing.frames, 1e-6);
}
let saved = JSON.stringify(drawing);

// ---- Changes and their history --------------------------------------------------------------------------------------

// Before a change; changes of one kind that follow each other, such as typed letters, are undone together.
function remember(kind = null) {
  if (kind === null || kind !== log.kind) log.past.push(JSON.stringify(drawing));
  log.kind = kind;
  log.future = [];
}

function change(edit, kind = null) {
  remember(kind);
  edit(drawing.subjects[view.active]);
  say("");
  render();
}

function travel(from, to) {
  if (!from.length) return;
  to.push(JSON.stringify(drawing));
  restore(JSON.parse(from.pop()));
  log.kind = null;
}

function restore(another) {
  drawing = another;
  view.active = clamp(view.active, 0, drawing.subjects.length - 1);
  view.frame = clamp(view.frame, 0, drawing.frames - 1);
  render();
}

const undo = () => travel(log.past, log.future);
const redo = () => travel(log.future, log.past);

// ---- What a user does -----------------------------------------------------------------------------------------------

const current = () => boxAt(drawing.subjects[view.active], view.frame);

function put(box) {
  drawing.subjects[view.active].keyframes[view.frame] = box;
  render();
}

function changeBox(make) {
  const box = current();
  if (box) change((subject) => (subject.keyframes[view.frame] = make(box)));
}

function middleBox() {
  const side = (n) => [Math.floor(n / 3) / n, Math.max(Math.ceil((2 * n) / 3), 1) / n];
  const [[x1, x2], [y1, y2]] = [side(data.columns), side(data.rows)];
  return tidy([x1, y1, x2, y2]);
}

function toggleKeyframe() {
  change((subject) => {
    if (view.frame in subject.keyframes) delete subject.keyframes[view.frame];
    else subject.keyframes[view.frame] = keyTimes(subject).length ? boxAt(subject, view.frame) : middleBox();
  });
}

function makeAbsent() {
  change((subject) => (subject.keyframes[view.frame] = null));
}

function leaveOut() {
  const tolerance = 0.25 / Math.max(data.columns, data.rows);
  change((subject) => (subject.keyframes = fewerKeyframes(subject, drawing.frames, tolerance)));
}

function goTo(frame) {
  view.frame = clamp(frame, 0, drawing.frames - 1);
  renderFrame();
}

function select(k) {
  if (k < 0 || k >= drawing.subjects.length) return;
  view.active = k;
  render();
}

function addSubject() {
  if (drawing.subjects.length >= MAX_SUBJECTS) return;
  change(() => (view.active = drawing.subjects.push({ words: "", keyframes: {} }) - 1));
}

function removeSubject(k) {
  change(() => {
    drawing.subjects.splice(k, 1);
    if (!drawing.subjects.length) drawing.subjects.push({ words: "", keyframes: {} });
    view.active = clamp(view.active > k ? view.active - 1 : view.active, 0, drawing.subjects.length - 1);
  });
}

function play() {
  if (view.playing) clearInterval(view.playing);
  view.playing = view.playing ? null : setInterval(() => goTo((view.frame + 1) % drawing.frames), 1000 / data.fps);
  renderFrame();
}

async function load(chosen) {
  try {
    const loaded = readFile(await chosen.text(), data.frames);
    remember();
    Object.assign(view, { frame: 0, active: 0 });
    restore(loaded);
    saved = JSON.stringify(drawing);
    const note = loaded.frames === data.frames ? "" : `; its ${loaded.frames} frames are stretched to ${data.frames}`;
    say(`${chosen.name} is loaded${note}.`);
  } catch (error) {
    say(`${chosen.name}: ${error.message}.`, true);
  }
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([writeFile(drawing)], { type: "application/json" }));
  link.download = FILE;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  saved = JSON.stringify(drawing);
  say(`${FILE} is saved where the browser keeps downloads; the command expects it in its own folder.`);
}

function say(text, wrong = false) {
  at("message").textContent = text;
  at("message").classList.toggle("wrong", wrong);
}

async function copyCommand() {
  getSelection().selectAllChildren(at("command"));
  const copied = await navigator.clipboard.writeText(at("command").textContent).then(() => true, () => false);
  const done = copied || document.execCommand("copy");
  say(done ? "The command is copied." : "The command is selected; copy it with Ctrl+C.");
}

// ---- Keys and buttons -----------------------------------------------------------------------------------------------

const KEYS = {
  "[": () => goTo(view.frame - 1),
  "]": () => goTo(view.frame + 1),
  Home: () => goTo(0),
  End: () => goTo(drawing.frames - 1),
  k: toggleKeyframe,
  Delete: makeAbsent,
  Backspace: makeAbsent,
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function nudge([x, y], larger) {
  const [dx, dy] = [x / data.columns, y / data.rows];
  const sides = [x ? 2 : null, y ? 3 : null];
  changeBox((box) => (larger ? resized(box, sides, [box[2] + dx, box[3] + dy], stage.least) : moved(box, dx, dy)));
}

function actionFor(event) {
  const { key, target } = event;
  if (at("busy").open || target.matches("textarea, select, input:not([type=range], [type=checkbox])")) return null;
  const control = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph");
  if (control) {
    if (event.altKey) return null;
    if (key === "y" || (key.toLowerCase() === "z" && event.shiftKey)) return redo;
    return key.toLowerCase() === "z" ? undo : null;
  }
  if (key === " ") return target.matches("button, summary, a, [type=checkbox]") ? null : play;
  if (ARROWS[key]) return target.matches("input") ? null : () => nudge(ARROWS[key], event.shiftKey);
  if (/^[1-9]$/.test(key)) return () => select(Number(key) - 1);
  if (target.matches("input") && ["Home", "End"].includes(key)) return null;
  return KEYS[key.length === 1 ? key.toLowerCase() : key];
}

document.addEventListener("keydown", (event) => {
  const action = actionFor(event);
  if (!action) return;
  event.preventDefault();
  action();
});

for (const [id, action] of Object.entries({ undo, redo, save, play, add: addSubject, key: toggleKeyframe })) {
  at(id).onclick = action;
}
at("absent").onclick = makeAbsent;
at("fewer").onclick = leaveOut;
at("copy").onclick = copyCommand;
at("load").onclick = () => at("file").click();
at("file").onchange = () => {
  if (at("file").files.length) load(at("file").files[0]);
  at("file").value = ""; // so that the same file can be loaded again
};
at("slider").oninput = () => goTo(Number(at("slider").value));
for (const [name, value] of Object.entries(data.choice)) {
  at(name).value = value;
  at(name).oninput = render;
}
at("slider").onpointerup = () => at("canvas").focus({ preventScroll: true }); // arrows then move the box again
at("prompt").oninput = () => change(() => (drawing.prompt = at("prompt").value), "typing");
at("prompt").onblur = () => (log.kind = null);
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    if (kind === "drop") load(event.dataTransfer.files[0]);
  });
}
window.addEventListener("beforeunload", (event) => {
  if (!data.served && JSON.stringify(drawing) !== saved) event.preventDefault();
});

at("canvas").style.setProperty("--ratio", data.columns / data.rows);
const actions = { select, begin: remember, put, end: render };
const stage = new Stage(at("canvas"), data.rows, data.columns, data.colors, actions);
at("typed").open = !data.served;
at("save").classList.toggle("main", !data.served);
for (const node of document.querySelectorAll(".served")) node.hidden = !data.served || node.id === "result";
render();
if (data.served) listen();
