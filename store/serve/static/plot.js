// The drawing under the player: sound, curves of agreement, flags and words of one or two clips on one time axis, and
// over long clips an overview. It is SVG, so that it follows the page's colours.

import { FPS, LANES } from "./clip.js";

const WAVE = 34, CURVE = 116, LANE = 15, WORD = 22, WORD_LANES = 3, GAP = 8;
const PIXELS_A_SECOND = 105; // words stay readable
const STEPS = [0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 7200];

export function svg(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

export function clock(seconds) {
  if (seconds < 60) return `${Number(seconds.toFixed(2))} s`;
  const whole = Math.floor(seconds), rest = String(whole % 60).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

export class Plot {
  // `swap`: agreement of the lips of the first with the sound of the second, thousandths by frame; null without.
  constructor(box, overview, clips, seek) {
    Object.assign(this, { box, overview, clips, seek, swap: null, first: 0 });
    this.duration = Math.max(...clips.map((clip) => clip.duration));
    for (const [element, at] of [[box, (x) => this.time(x)], [overview, (x) => this.whole(x)]]) {
      element.addEventListener("pointerdown", (event) => {
        element.setPointerCapture(event.pointerId);
        this.seek(at(event.clientX));
      });
      element.addEventListener("pointermove", (event) => event.buttons && this.seek(at(event.clientX)));
    }
    new ResizeObserver(() => this.draw()).observe(box);
  }

  // Seconds at a place on the screen.
  time(clientX) {
    const x = clientX - this.box.getBoundingClientRect().left;
    return this.first + (x - this.left) / this.scale;
  }

  whole(clientX) {
    const place = this.overview.getBoundingClientRect();
    return ((clientX - place.left) / place.width) * this.duration;
  }

  x(seconds) {
    return this.left + (seconds - this.first) * this.scale;
  }

  draw() {
    const width = Math.max(240, this.box.clientWidth);
    this.left = width < 520 ? 58 : 70;
    const room = Math.max(2.5, (width - this.left) / PIXELS_A_SECOND);
    this.span = this.duration < 1.4 * room ? this.duration : room;
    this.scale = (width - this.left - 6) / this.span;
    const drawing = svg("svg", { width, "aria-hidden": "true" });
    this.marks = [];
    let y = this.clips.length === 1 ? this.wave(drawing, 4) : 6;
    y = this.curves(drawing, y, width);
    this.clips.forEach((clip, k) => (y = this.lanes(drawing, clip, k, y)));
    this.head = svg("g", { class: "head" });
    this.head.append(svg("line", { x1: 0, x2: 0, y1: 2, y2: y - 2 }), svg("path", { d: "M-6 0H6L0 8Z" }));
    drawing.append(this.head);
    drawing.setAttribute("height", y);
    drawing.setAttribute("viewBox", `0 0 ${width} ${y}`);
    this.box.replaceChildren(drawing);
    this.drawOverview();
    if (this.now !== undefined) this.move(this.now);
  }

  // Frames of a clip that are in view.
  frames(clip) {
    const from = Math.max(0, Math.floor(this.first * FPS));
    return [from, Math.min(clip.known, Math.ceil((this.first + this.span) * FPS))];
  }

  wave(drawing, y) {
    const clip = this.clips[0], [from, to] = this.frames(clip), middle = y + WAVE / 2;
    const most = Math.max(1, ...clip.peaks.slice(from, to));
    let up = "", down = "";
    for (let k = from; k < to; k++) {
      const high = Math.max(0.6, (clip.peaks[k] / most) * (WAVE / 2)), x = this.x((k + 0.5) / FPS).toFixed(1);
      up += `L${x} ${(middle - high).toFixed(1)}`;
      down = `L${x} ${(middle + high).toFixed(1)}${down}`;
    }
    if (up) drawing.append(svg("path", { class: "wave", d: `M${up.slice(1)}${down}Z` }));
    drawing.append(svg("text", { class: "s", x: this.left - 8, y: middle + 4, "text-anchor": "end" }, "sound"));
    return y + WAVE + GAP;
  }

  curves(drawing, y, width) {
    const base = y + CURVE, end = this.x(this.first + this.span);
    Object.assign(this, { base, top: y });
    if (this.clips.length === 1) this.shade(drawing, this.clips[0], y);
    for (const [value, name] of [[1, "agree"], [0.5, ""], [0, "differ"]]) {
      const at = base - value * CURVE;
      drawing.append(svg("line", { class: value === 0.5 ? "half" : "axis", x1: this.left, x2: end, y1: at, y2: at }));
      drawing.append(svg("text", { class: "s", x: this.left - 8, y: at + 4, "text-anchor": "end" }, name));
    }
    const step = STEPS.find((s) => s * this.scale >= 56) || 7200;
    for (let k = Math.ceil(this.first / step - 1e-6); k * step <= this.first + this.span - 0.2 * step; k++) {
      const x = this.x(k * step), anchor = k === 0 ? "start" : "middle";
      drawing.append(svg("line", { class: "axis", x1: x, x2: x, y1: base, y2: base + 4 }));
      drawing.append(svg("text", { class: "s", x, y: base + 16, "text-anchor": anchor }, clock(k * step)));
    }
    if (this.swap) drawing.append(svg("path", { class: "curve swap", d: this.path(this.swap, this.frames(this.clips[0])) }));
    this.clips.forEach((clip, k) => this.curve(drawing, clip, k, y, width));
    return base + 26;
  }

  curve(drawing, clip, number, y, width) {
    const d = this.path(clip.similarity, this.frames(clip));
    if (this.clips.length === 2) {
      drawing.append(svg("path", { class: `curve c${number}`, d }));
      return;
    }
    for (const [name, at, high] of [["up", y - 3, CURVE / 2 + 3], ["down", y + CURVE / 2, CURVE / 2 + 3]]) {
      const cut = svg("clipPath", { id: name });
      cut.append(svg("rect", { x: 0, y: at, width, height: high }));
      drawing.append(cut, svg("path", { class: `curve ${name}`, "clip-path": `url(#${name})`, d }));
    }
  }

  path(values, [from, to]) {
    let d = "", open = false;
    for (let k = from; k < to; k++) {
      if (values[k] === null || values[k] === undefined) {
        open = false;
        continue;
      }
      const point = `${this.x((k + 0.5) / FPS).toFixed(1)} ${(this.base - (values[k] / 1000) * CURVE).toFixed(1)}`;
      d += open ? `L${point}` : `M${point}h.1`;
      open = true;
    }
    return d;
  }

  // Grey where there is no soft label.
  shade(drawing, clip, y) {
    const [from, to] = this.frames(clip);
    for (let k = from; k < to; k++) {
      if (clip.similarity[k] !== null) continue;
      const first = k;
      while (k < to && clip.similarity[k] === null) k++;
      const width = (k - first) * (this.scale / FPS);
      drawing.append(svg("rect", { class: "mute", x: this.x(first / FPS), y, width, height: CURVE }));
    }
  }

  // Flags and words of one clip.
  lanes(drawing, clip, number, y) {
    if (this.clips.length === 2) {
      drawing.append(svg("text", { class: `name n${number}`, x: 2, y: y + 13 }, "AB"[number]));
    }
    if (clip.words.length) y = this.words(drawing, clip, number, y);
    for (const [name, holds] of LANES) {
      const runs = clip.runs(holds);
      if (!runs.length) continue;
      drawing.append(svg("text", { class: "s", x: this.left - 8, y: y + 10, "text-anchor": "end" }, name));
      const kind = `lane ${name.replace(" ", "-")}`;
      for (const [a, b] of runs) {
        const x = Math.max(this.left, this.x(a / FPS)), end = Math.min(this.x(b / FPS), this.x(this.first + this.span));
        if (end > x) drawing.append(svg("rect", { class: kind, x, y: y + 2, width: Math.max(1.5, end - x), height: LANE - 5 }));
      }
      y += LANE;
    }
    return y + GAP;
  }

  words(drawing, clip, number, y) {
    const lanes = Math.min(WORD_LANES, clip.words.length);
    clip.words.forEach((word, k) => {
      if (word.end < this.first || word.start > this.first + this.span) return;
      const x = this.x(Math.max(word.start, this.first)), end = Math.min(this.x(word.end), this.x(this.first + this.span));
      const at = y + WORD * (k % lanes), group = svg("g", { class: `word w${number}` });
      group.append(svg("rect", { x, y: at, width: Math.max(4, end - x), height: WORD - 3, rx: 3 }));
      group.append(svg("text", { x: x + 5, y: at + 14 }, word.text));
      drawing.append(group);
      this.marks.push({ clip, k, group });
    });
    return y + WORD * lanes + 4;
  }

  drawOverview() {
    this.overview.hidden = this.span >= this.duration;
    if (this.overview.hidden) return;
    const width = this.box.clientWidth, drawing = svg("svg", { width, height: 34, viewBox: `0 0 ${width} 34` });
    const clip = this.clips[0], each = Math.max(1, clip.frames / width);
    let d = "";
    for (let from = 0; from < clip.known; from += each) {
      const some = clip.similarity.slice(Math.floor(from), Math.floor(from + each)).filter((v) => v !== null);
      if (!some.length) continue;
      const mean = some.reduce((a, b) => a + b, 0) / some.length;
      d += `M${((from / FPS / this.duration) * width).toFixed(1)} 32v${(-1 - (mean / 1000) * 28).toFixed(1)}`;
    }
    this.view = svg("rect", { class: "view", y: 1, height: 32, rx: 3 });
    this.dot = svg("line", { class: "dot", y1: 0, y2: 34 });
    drawing.append(svg("path", { class: "bars", d, "stroke-width": Math.max(1, width / clip.frames) }), this.view, this.dot);
    this.overview.replaceChildren(drawing);
  }

  // Moves the playhead; turns the page where it leaves the view.
  move(seconds) {
    this.now = seconds;
    if (!this.head) return;
    const last = Math.max(0, this.duration - this.span);
    if (seconds < this.first - 1e-6 || seconds > this.first + this.span + 1e-6) {
      this.first = Math.min(last, Math.floor(seconds / this.span) * this.span);
      this.draw();
      return;
    }
    this.head.setAttribute("transform", `translate(${this.x(seconds).toFixed(2)} 0)`);
    for (const { clip, k, group } of this.marks) {
      const word = clip.words[k];
      group.classList.toggle("now", word.start <= seconds && seconds < word.end);
    }
    if (!this.overview.hidden && this.view) {
      const scale = this.box.clientWidth / this.duration;
      this.view.setAttribute("x", this.first * scale);
      this.view.setAttribute("width", this.span * scale);
      for (const end of ["x1", "x2"]) this.dot.setAttribute(end, seconds * scale);
    }
  }
}
