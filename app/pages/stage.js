"use strict";
// The picture: boxes over the grid of latent cells, and the pointer that makes, moves and resizes them.

const REACH = { mouse: 7, touch: 18, pen: 12 }; // pixels around an edge in which it can be taken
const SLACK = 3; // pixels that a press may wander and still be a click

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// Boxes are kept to five places: a thousandth of a latent cell, and a file that can be read.
function tidy(box) {
  return box.map((value) => Math.round(value * 1e5) / 1e5);
}

// A box moved by (dx, dy) as far as the frame allows, its size kept.
function moved(box, dx, dy) {
  const [x1, y1, x2, y2] = box;
  const x = clamp(dx, -x1, 1 - x2);
  const y = clamp(dy, -y1, 1 - y2);
  return tidy([x1 + x, y1 + y, x2 + x, y2 + y]);
}

// A box with its sides at `x` and `y` (indices into it, or null) dragged to a point, never smaller than a latent cell.
function resized(box, sides, point, least) {
  const result = [...box];
  sides.forEach((side, axis) => {
    if (side === null) return;
    const other = box[(side + 2) % 4];
    result[side] = side < 2 ? clamp(point[axis], 0, other - least[axis]) : clamp(point[axis], other + least[axis], 1);
  });
  return tidy(result);
}

// The box between two points, at least a latent cell in size.
function spanned(a, b, least) {
  const low = [0, 1].map((i) => clamp(Math.min(a[i], b[i]), 0, 1 - least[i]));
  const high = [0, 1].map((i) => clamp(Math.max(a[i], b[i]), low[i] + least[i], 1));
  return tidy([...low, ...high]);
}

class Stage {
  // actions: select(k), begin() before the first change of a drag, put(box) for each, end() after it
  constructor(canvas, rows, columns, colors, actions) {
    Object.assign(this, { canvas, rows, columns, colors, actions, drag: null });
    this.least = [1 / columns, 1 / rows];
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => this.release());
    canvas.addEventListener("pointercancel", () => this.release());
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  show(drawing, view) {
    this.drawing = drawing;
    this.view = view;
    this.paint();
  }

  // ---- The pointer ------------------------------------------------------------------------------------------------

  point(event) {
    const area = this.canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
    return [clamp(x, 0, 1), clamp(y, 0, 1)];
  }

  // What a press here would take: an edge of the active box, a box, or nothing.
  hit([x, y], pointer) {
    const { subjects } = this.drawing;
    const reach = (REACH[pointer] ?? REACH.mouse) / this.canvas.clientWidth;
    const [dx, dy] = [reach, (reach * this.canvas.clientWidth) / this.canvas.clientHeight];
    const own = boxAt(subjects[this.view.active], this.view.frame);
    if (own && x > own[0] - dx && x < own[2] + dx && y > own[1] - dy && y < own[3] + dy) {
      const side = (low, high, value, near) => {
        const [toLow, toHigh] = [Math.abs(value - own[low]), Math.abs(value - own[high])];
        if (Math.min(toLow, toHigh) > Math.min(near, (own[high] - own[low]) / 3)) return null;
        return toLow < toHigh ? low : high;
      };
      const sides = [side(0, 2, x, dx), side(1, 3, y, dy)];
      return { k: this.view.active, box: own, sides: sides.some((value) => value !== null) ? sides : null };
    }
    const inside = (box) => box && x > box[0] && x < box[2] && y > box[1] && y < box[3];
    const k = subjects.findIndex((subject) => inside(boxAt(subject, this.view.frame)));
    return k < 0 ? null : { k, box: boxAt(subjects[k], this.view.frame), sides: null };
  }

  press(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const start = this.point(event);
    const target = this.hit(start, event.pointerType);
    if (target) this.actions.select(target.k);
    this.drag = { start, target, pixel: [event.clientX, event.clientY], begun: false };
  }

  move(event) {
    const point = this.point(event);
    if (!this.drag) {
      this.canvas.style.cursor = this.cursor(this.hit(point, event.pointerType));
      return;
    }
    const { start, target, pixel } = this.drag;
    if (!this.drag.begun) {
      if (Math.hypot(event.clientX - pixel[0], event.clientY - pixel[1]) < SLACK) return;
      this.drag.begun = true;
      this.actions.begin();
    }
    if (!target) this.actions.put(spanned(start, point, this.least));
    else if (target.sides) this.actions.put(resized(target.box, target.sides, point, this.least));
    else this.actions.put(moved(target.box, point[0] - start[0], point[1] - start[1]));
  }

  release() {
    const begun = this.drag?.begun;
    this.drag = null;
    if (begun) this.actions.end();
  }

  cursor(target) {
    if (!target) return "crosshair";
    if (!target.sides) return "move";
    const [x, y] = target.sides;
    if (x === null) return "ns-resize";
    if (y === null) return "ew-resize";
    return (x === 0) === (y === 1) ? "nwse-resize" : "nesw-resize";
  }

  // ---- Painting ---------------------------------------------------------------------------------------------------

  paint() {
    const { canvas, drawing, view } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!drawing || !width) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    this.paintGrid(pen, width, height);
    if (!view.playing) this.paintPath(pen, width, height);
    const others = [...drawing.subjects.keys()].filter((k) => k !== view.active);
    for (const k of [...others, view.active]) this.paintSubject(pen, width, height, k);
  }

  paintGrid(pen, width, height) {
    pen.strokeStyle = "rgba(255, 255, 255, 0.08)";
    pen.lineWidth = 1;
    pen.beginPath();
    for (let i = 1; i < this.columns; i += 1) {
      const x = Math.round((i * width) / this.columns) - 0.5;
      pen.moveTo(x, 0);
      pen.lineTo(x, height);
    }
    for (let i = 1; i < this.rows; i += 1) {
      const y = Math.round((i * height) / this.rows) - 0.5;
      pen.moveTo(0, y);
      pen.lineTo(width, y);
    }
    pen.stroke();
  }

  // Where the active subject's middle goes, frame by frame.
  paintPath(pen, width, height) {
    const subject = this.drawing.subjects[this.view.active];
    pen.strokeStyle = pen.fillStyle = this.colors[this.view.active % this.colors.length];
    pen.globalAlpha = 0.55;
    pen.lineWidth = 1;
    pen.beginPath();
    let earlier = null;
    for (const box of boxesOf(subject, this.drawing.frames)) {
      if (box) {
        const [x, y] = [((box[0] + box[2]) / 2) * width, ((box[1] + box[3]) / 2) * height];
        if (earlier) pen.lineTo(x, y);
        else pen.moveTo(x, y);
        pen.fillRect(x - 2, y - 2, 4, 4);
      }
      earlier = box;
    }
    pen.stroke();
    pen.globalAlpha = 1;
  }

  paintSubject(pen, width, height, k) {
    const subject = this.drawing.subjects[k];
    const box = boxAt(subject, this.view.frame);
    if (!box) return;
    const active = k === this.view.active;
    pen.fillStyle = pen.strokeStyle = this.colors[k % this.colors.length];
    pen.globalAlpha = 0.2;
    const [w, h] = [width / this.columns, height / this.rows];
    for (const [row, column] of cellsOf(box, this.rows, this.columns)) pen.fillRect(column * w, row * h, w, h);
    pen.globalAlpha = 1;
    const [x, y] = [box[0] * width, box[1] * height];
    const [right, bottom] = [box[2] * width, box[3] * height];
    pen.lineWidth = active ? 2.5 : 1.5;
    pen.setLineDash(this.view.frame in subject.keyframes ? [] : [6, 4]); // dashed between keyframes
    pen.strokeRect(x, y, right - x, bottom - y);
    pen.setLineDash([]);
    if (active && !this.view.playing) {
      const places = [x, (x + right) / 2, right].flatMap((a) => [y, (y + bottom) / 2, bottom].map((b) => [a, b]));
      for (const [a, b] of places.filter((_, i) => i !== 4)) pen.fillRect(a - 4, b - 4, 8, 8);
    }
    this.paintName(pen, subject.words || `subject ${k + 1}`, x, y, width);
  }

  paintName(pen, words, x, y, width) {
    pen.font = "600 13px system-ui, sans-serif";
    const length = Math.min(pen.measureText(words).width + 10, width);
    const [left, top] = [clamp(x, 0, width - length), y > 26 ? y - 25 : y + 7];
    pen.fillRect(left, top, length, 19);
    pen.fillStyle = "#171a1f";
    pen.fillText(words, left + 5, top + 14, length - 10);
  }
}
