"use strict";
// A drawing: its keyframes, what lies between them, the latent cells under a box, and the file's form.
// It is {frames, prompt, subjects: [{words, keyframes: {frame: [x1, y1, x2, y2], or null = absent}}]}.

const MAX_FRAMES = 10000;
const MAX_SUBJECTS = 64;

// ---- Boxes --------------------------------------------------------------------------------------------------------

function keyTimes(subject) {
  return Object.keys(subject.keyframes).map(Number).sort((a, b) => a - b);
}

// Linear between keyframes and held outside them; an absence lasts until the next keyframe.
function boxAt(subject, frame, times = keyTimes(subject)) {
  if (!times.length) return null;
  const next = times.findIndex((time) => time > frame);
  const before = times[Math.max((next < 0 ? times.length : next) - 1, 0)];
  const after = times[next < 0 ? times.length - 1 : next];
  const [a, b] = [subject.keyframes[before], subject.keyframes[after]];
  if (!a || !b) return a;
  const weight = (frame - before) / Math.max(after - before, 1);
  return a.map((value, i) => value + weight * (b[i] - value));
}

function boxesOf(subject, frames) {
  const times = keyTimes(subject);
  return Array.from({ length: frames }, (_, frame) => boxAt(subject, frame, times));
}

// Cells [row, column] whose centre is inside, or the one under the box's centre; in float32, as the sampler counts.
function cellsOf(box, rows, columns) {
  const f = Math.fround;
  const [x1, y1, x2, y2] = box.map(f);
  const centre = (i, n) => f((i + 0.5) / n);
  const within = (low, high, n) => [...Array(n).keys()].filter((i) => low <= centre(i, n) && centre(i, n) < high);
  const under = (low, high, n) => [Math.min(Math.floor(f(f(f(low + high) / 2) * n)), n - 1)];
  let [ys, xs] = [within(y1, y2, rows), within(x1, x2, columns)];
  if (!ys.length || !xs.length) [ys, xs] = [under(y1, y2, rows), under(x1, x2, columns)];
  return ys.flatMap((y) => xs.map((x) => [y, x]));
}

// Few keyframes that say the same to a tolerance: from each, the farthest one that leads past all boxes in between.
function fewerKeyframes(subject, frames, tolerance) {
  const boxes = boxesOf(subject, frames);
  const near = (a, b) => (a && b ? a.every((value, i) => Math.abs(value - b[i]) <= tolerance) : a === b);
  const leads = (from, to) => {
    const line = { keyframes: { [from]: boxes[from], [to]: boxes[to] } };
    return boxes.slice(from, to).every((box, i) => near(box, boxAt(line, from + i)));
  };
  const kept = { 0: boxes[0] };
  for (let from = 0, to; from < frames - 1; from = to) {
    to = from + 1;
    while (to + 1 < frames && leads(from, to + 1)) to += 1;
    kept[to] = boxes[to];
  }
  return kept;
}

// ---- Words --------------------------------------------------------------------------------------------------------

// The pieces into which CLIP's tokenizer parts a text before all else: letters, single digits, other signs.
function piecesOf(text) {
  const pieces = text.normalize("NFC").matchAll(/'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/giu);
  return [...pieces].map((match) => ({ text: match[0], start: match.index, end: match.index + match[0].length }));
}

// Every place where the words' pieces stand in the prompt's: indices of pieces, a list for each place.
function placesOf(prompt, words) {
  const lower = (text) => piecesOf(text).map((piece) => piece.text.toLowerCase());
  const [all, wanted] = [lower(prompt), lower(words)];
  if (!wanted.length) return [];
  const starts = [...all.keys()].filter((start) => wanted.every((word, i) => all[start + i] === word));
  return starts.map((start) => wanted.map((_, i) => start + i));
}

function isWord(piece) {
  return /^[\p{L}\p{N}]/u.test(piece.text);
}

// The words after a click on a piece: beside the chosen ones it joins them, at their end it leaves, else it is alone.
function pickWord(prompt, words, clicked) {
  const pieces = piecesOf(prompt);
  const order = [...pieces.keys()].filter((i) => isWord(pieces[i]));
  const at = order.indexOf(clicked);
  const ranges = placesOf(prompt, words).map((place) => {
    const own = place.filter((i) => isWord(pieces[i])).map((i) => order.indexOf(i));
    return [Math.min(...own), Math.max(...own)];
  });
  const distance = ([first, last]) => Math.max(first - at, at - last, 0);
  let [first, last] = ranges.sort((a, b) => distance(a) - distance(b))[0] ?? [Infinity, -Infinity];
  if (at === first - 1) first = at;
  else if (at === last + 1) last = at;
  else if (at === first && at === last) return "";
  else if (at === first) first += 1;
  else if (at === last) last -= 1;
  else first = last = at;
  return prompt.normalize("NFC").slice(pieces[order[first]].start, pieces[order[last]].end);
}

// ---- What is still missing ----------------------------------------------------------------------------------------

function problemsOf(drawing) {
  const { prompt, subjects } = drawing;
  if (!piecesOf(prompt).length) return ["the prompt is empty; write what the video shows"];
  if (/\p{Surrogate}/u.test(prompt)) return ["the prompt holds half a character; write it again"];
  const problems = [];
  const owner = new Map();
  subjects.forEach(({ words, keyframes }, k) => {
    const name = words.trim() ? `the subject '${words}'` : `subject ${k + 1}`;
    const places = placesOf(prompt, words).flat();
    if (!words.trim()) problems.push(`${name} has no words yet; click its words in the prompt`);
    else if (!places.length) problems.push(`${name} is not in the prompt; click its words there`);
    const shared = places.find((i) => owner.has(i));
    if (shared !== undefined) {
      const [word, other] = [piecesOf(prompt)[shared].text, subjects[owner.get(shared)].words];
      problems.push(`the subjects '${other}' and '${words}' share the word '${word}'; each needs its own words`);
    }
    places.forEach((i) => owner.set(i, k));
    if (!Object.keys(keyframes).length) problems.push(`${name} has no box yet; drag one in the picture`);
  });
  return problems;
}

// ---- The file -----------------------------------------------------------------------------------------------------

// A track with a keyframe in every frame is written as boxes. The last frame is always named, so that the file says
// how long it is.
function writeFile(drawing) {
  const last = drawing.frames - 1;
  const tracks = drawing.subjects.map((subject) => ({ ...subject.keyframes }));
  if (!tracks.some((track) => last in track)) tracks[0][last] = boxAt(drawing.subjects[0], last);
  const row = (box) => (box ? `[${box.join(", ")}]` : "null");
  const entry = (track, k, gap) => {
    const times = keyTimes({ keyframes: track });
    const whole = times.length === drawing.frames;
    const rows = times.map((time) => `${gap}  ${whole ? "" : `"${time}": `}${row(track[time])}`).join(",\n");
    const path = whole ? `"boxes": [\n${rows}\n${gap}]` : `"keyframes": {\n${rows}\n${gap}}`;
    return `${gap}"subject": ${JSON.stringify(drawing.subjects[k].words)},\n${gap}${path}`;
  };
  const several = () => tracks.map((track, k) => `    {\n${entry(track, k, "      ")}\n    }`).join(",\n");
  const body = tracks.length === 1 ? entry(tracks[0], 0, "  ") : `  "subjects": [\n${several()}\n  ]`;
  return `{\n  "prompt": ${JSON.stringify(drawing.prompt)},\n${body}\n}\n`;
}

// The drawing that a file holds, over its own number of frames, or `frames` where it does not need more.
function readFile(text, frames) {
  let file;
  try {
    file = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    throw Error(`the file is not JSON: ${error.message}`);
  }
  if (!isObject(file)) throw Error("a trajectory is a JSON object with a prompt, subject and boxes");
  const several = "subjects" in file;
  checkKeys(file, several ? ["prompt", "subjects"] : ["prompt", "subject", "boxes", "keyframes"], "the file");
  const entries = several ? file.subjects : [file];
  if (!Array.isArray(entries) || !entries.length || entries.length > MAX_SUBJECTS) {
    throw Error(`'subjects' is a list of 1 to ${MAX_SUBJECTS} subjects`);
  }
  entries.forEach((entry, k) => {
    if (!isObject(entry)) throw Error(`entry ${k} of 'subjects' is an object with subject and boxes`);
    if (several) checkKeys(entry, ["subject", "boxes", "keyframes"], `entry ${k} of 'subjects'`);
  });
  const prompt = textOf(file, "prompt");
  const subjects = entries.map((entry) => ({ words: textOf(entry, "subject"), keyframes: keyframesOf(entry) }));
  const ends = subjects.map((subject) => Math.max(...keyTimes(subject)) + 1);
  const length = Math.max(...ends, entries.some((entry) => "boxes" in entry) ? 1 : frames);
  const short = entries.findIndex((entry, k) => "boxes" in entry && ends[k] !== length);
  if (short >= 0) {
    throw Error(`subject '${subjects[short].words}' has boxes for ${ends[short]} frames, but the video has ${length}`);
  }
  return { frames: length, prompt, subjects };
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkKeys(members, known, where) {
  const unknown = Object.keys(members).find((key) => !known.includes(key));
  if (unknown !== undefined) throw Error(`${where} has the unknown key '${unknown}'; known are ${known.join(", ")}`);
}

function textOf(members, key) {
  const value = members[key];
  if (typeof value !== "string" || !value.trim()) throw Error(`'${key}' is a text of at least one word`);
  if (/\p{Surrogate}/u.test(value)) throw Error(`'${key}' holds half a character, a lone surrogate`);
  return value;
}

function keyframesOf(entry) {
  const where = `subject '${entry.subject}'`;
  if ("boxes" in entry === "keyframes" in entry) {
    throw Error(`${where} needs either 'boxes', one for each frame, or 'keyframes'`);
  }
  const [kind, track] = "boxes" in entry ? ["frame", entry.boxes] : ["keyframe", entry.keyframes];
  if (kind === "frame" && !Array.isArray(track)) throw Error(`${where}: 'boxes' is a list of boxes`);
  if (kind === "keyframe" && !isObject(track)) {
    throw Error(`${where}: 'keyframes' is an object of frame numbers and boxes`);
  }
  const times = Object.keys(track);
  if (!times.length || times.length > MAX_FRAMES) {
    throw Error(`${where} has ${times.length} boxes; 1 to ${MAX_FRAMES} are possible`);
  }
  for (const time of times) {
    if (!/^(0|[1-9][0-9]{0,8})$/.test(time) || Number(time) >= MAX_FRAMES) {
      throw Error(`${where}: keyframe '${time}' is not a frame number from 0 to ${MAX_FRAMES - 1}`);
    }
    checkBox(track[time], `${where}, ${kind} ${time}`);
  }
  return { ...track };
}

function checkBox(box, where) {
  if (box === null) return;
  if (!Array.isArray(box) || box.length !== 4 || !box.every(Number.isFinite)) {
    throw Error(`${where}: a box is four numbers x1 y1 x2 y2 or null, not ${JSON.stringify(box)}`);
  }
  const shown = `the box [${box.join(", ")}]`;
  if (!box.every((value) => value >= 0 && value <= 1)) {
    throw Error(`${where}: ${shown} reaches outside the frame, whose coordinates go from 0 to 1`);
  }
  if (box[2] <= box[0] || box[3] <= box[1]) {
    throw Error(`${where}: ${shown} is empty, since x1 y1 x2 y2 need x1 < x2 and y1 < y2`);
  }
}
