// A clip's data: frames in parts, mouth crops in sheets, words. Numbers per frame are arrays by frame of the whole clip.

export const FPS = 25;
export const FACE_DETECTED = 1, FACE_INTERPOLATED = 2, AUDIO_PRESENT = 4, VOICE_ACTIVE = 8, HELD = 32;
const SIDE = 96; // pixels of a mouth crop
const SHEETS_KEPT = 24;

// What a flag says of frames, as a lane under the curve: name, and whether a frame (flags, fake) is in it.
export const LANES = [
  ["no face", (flags) => !(flags & (FACE_DETECTED | FACE_INTERPOLATED))],
  ["guessed", (flags) => (flags & FACE_INTERPOLATED) > 0],
  ["still", (flags) => (flags & HELD) > 0 && (flags & FACE_DETECTED) > 0],
  ["no voice", (flags) => !(flags & VOICE_ACTIVE)],
  ["no sound", (flags) => !(flags & AUDIO_PRESENT)],
  ["forged", (flags, fake) => fake === 1],
];

export async function json(address) {
  const answer = await fetch(address);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

export class Clip {
  // `sheet`: crops of a sheet, `columns` in a row of it.
  constructor(row, frames, sheet, columns) {
    Object.assign(this, { row, perSheet: sheet, columns });
    this.frames = frames;
    this.known = 0; // frames that are loaded
    this.similarity = new Array(frames).fill(null); // thousandths
    this.flags = new Array(frames).fill(null);
    this.fake = new Array(frames).fill(-1);
    this.peaks = new Array(frames).fill(0); // percent of full scale
    this.words = [];
    this.lost = new Set(); // sentences
    this.sheets = new Map(); // number: Image
  }

  get duration() {
    return this.frames / FPS;
  }

  // Loads words and all parts, one after the other; `changed` is called after each.
  async load(changed) {
    try {
      this.words = await json(`/clip/${this.row}/words.json`);
      while (this.known < this.frames) {
        this.take(await json(`/clip/${this.row}/frames.json?start=${this.known}`));
        changed();
      }
    } catch (error) {
      this.lost.add(error.message);
    }
    changed();
  }

  take(part) {
    for (const name of ["similarity", "flags", "fake", "peaks"]) {
      (part[name] || []).forEach((value, k) => (this[name][part.start + k] = value));
    }
    part.lost.forEach((text) => this.lost.add(text));
    this.known = part.stop;
  }

  // Frames that have something of a lane, as [first, after the last].
  runs(holds) {
    const found = [];
    for (let k = 0; k < this.known; k++) {
      if (this.flags[k] === null || !holds(this.flags[k], this.fake[k])) continue;
      const last = found[found.length - 1];
      if (last && last[1] === k) last[1] = k + 1;
      else found.push([k, k + 1]);
    }
    return found;
  }

  wordAt(seconds) {
    return this.words.findIndex((word) => word.start <= seconds && seconds < word.end);
  }

  // Draws the mouth of a frame; `again` is called when its sheet has come. Returns whether it is drawn.
  draw(canvas, frame, again) {
    const number = Math.floor(frame / this.perSheet), k = frame % this.perSheet;
    const image = this.sheet(number, again), next = (number + 1) * this.perSheet;
    if (k > this.perSheet / 2 && next < this.frames) this.sheet(number + 1, again);
    if (!image.complete || !image.naturalWidth) return false;
    const columns = Math.min(this.columns, this.frames - number * this.perSheet);
    const x = (k % columns) * SIDE, y = Math.floor(k / columns) * SIDE;
    canvas.getContext("2d").drawImage(image, x, y, SIDE, SIDE, 0, 0, SIDE, SIDE);
    return true;
  }

  sheet(number, again) {
    if (!this.sheets.has(number)) {
      if (this.sheets.size >= SHEETS_KEPT) this.sheets.delete(this.sheets.keys().next().value);
      const image = new Image();
      image.addEventListener("load", again);
      image.addEventListener("error", () => {
        this.lost.add("Mouth crops of this clip cannot be read; python -m store.inspect --verify says which.");
        again();
      });
      image.src = `/clip/${this.row}/mouth/${number}.jpg`;
      this.sheets.set(number, image);
    }
    return this.sheets.get(number);
  }
}
