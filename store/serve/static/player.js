// Plays one clip, or two side by side: the sound gives the time, pictures, words and the playhead follow.
// Keys: space plays and pauses, the arrows step by a frame, with shift by a second, Home and End go to the ends.

import { Clip, FACE_DETECTED, FACE_INTERPOLATED, FPS, HELD, VOICE_ACTIVE, json } from "./clip.js";
import { Plot, clock } from "./plot.js";

const AROUND = 6; // words shown before and after the one that is spoken

class Player {
  constructor(box) {
    const find = (name) => box.querySelector(name);
    this.box = box;
    this.screens = [...box.querySelectorAll(".screen")];
    const { sheet, columns } = box.dataset;
    this.clips = this.screens.map(
      (one) => new Clip(Number(one.dataset.row), Number(one.dataset.frames), Number(sheet), Number(columns)),
    );
    this.sounds = this.screens.map((one) => one.querySelector("audio"));
    this.heard = 0; // the clip whose sound is heard
    this.seconds = 0;
    this.rate = 1;
    this.playing = false;
    this.duration = Math.max(...this.clips.map((clip) => clip.duration));
    this.button = find(".play");
    this.faults = find(".lost");
    this.plot = new Plot(find(".plot"), find(".overview"), this.clips, (seconds) => this.seek(seconds));
    this.listen(find);
    const changed = () => {
      this.plot.draw();
      this.show();
    };
    this.clips.forEach((clip) => clip.load(changed));
    if (box.dataset.swaps) this.loadSwap(changed);
    changed();
  }

  listen(find) {
    this.button.addEventListener("click", () => this.toggle());
    find(".back").addEventListener("click", () => this.seek(this.seconds - 1 / FPS));
    find(".on").addEventListener("click", () => this.seek(this.seconds + 1 / FPS));
    find(".rate").addEventListener("change", (event) => this.setRate(Number(event.target.value)));
    for (const one of this.box.querySelectorAll("input[name=heard]")) {
      one.addEventListener("change", () => this.hear(Number(one.value)));
    }
    this.sounds.forEach((sound, k) => {
      if (!sound) return;
      sound.addEventListener("error", () => {
        this.clips[k].lost.add("The sound of this clip cannot be read; pictures play without it.");
        this.show();
      });
    });
    document.addEventListener("keydown", (event) => this.key(event));
  }

  async loadSwap(changed) {
    const [a, b] = this.clips;
    try {
      this.plot.swap = (await json(`/swap.json?a=${a.row}&b=${b.row}`)).similarity;
    } catch (error) {
      a.lost.add(error.message);
    }
    changed();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, summary")) return;
    if (event.key === " " && event.target.closest("button, a")) return; // they answer themselves
    const step = event.shiftKey ? 1 : 1 / FPS;
    const does = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.seek(this.seconds - step),
      ArrowRight: () => this.seek(this.seconds + step),
      Home: () => this.seek(0),
      End: () => this.seek(this.duration),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  // The sound that gives the time; null where there is none, or it is over, and the clock gives it.
  get sound() {
    const sound = this.sounds[this.heard];
    return sound && !sound.error && this.seconds < this.clips[this.heard].duration - 0.02 ? sound : null;
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (this.seconds >= this.duration - 0.5 / FPS) this.seek(0);
    this.playing = true;
    this.start();
    this.button.textContent = "Pause";
    this.box.classList.add("playing");
    requestAnimationFrame(() => this.tick());
  }

  // Makes the sound, or the clock, give the time from here on.
  start() {
    this.anchor = [performance.now(), this.seconds];
    const sound = this.sound;
    this.giving = sound;
    if (!sound) return;
    sound.currentTime = this.seconds;
    sound.playbackRate = this.rate;
    sound.play().catch(() => {
      if (this.giving !== sound || !this.playing || !sound.error) return; // a seek or a pause stopped it
      this.giving = null;
      this.anchor = [performance.now(), this.seconds];
    });
  }

  pause() {
    this.playing = false;
    this.sounds.forEach((sound) => sound && sound.pause());
    this.button.textContent = "Play";
    this.box.classList.remove("playing");
  }

  tick() {
    if (!this.playing) return;
    if (this.giving && (this.giving.ended || this.giving.error)) {
      if (this.giving.ended) this.seconds = this.clips[this.heard].duration; // the other clip may be longer
      this.giving = null;
      this.anchor = [performance.now(), this.seconds];
    }
    if (this.giving) this.seconds = this.giving.currentTime;
    else this.seconds = this.anchor[1] + ((performance.now() - this.anchor[0]) / 1000) * this.rate;
    if (this.seconds >= this.duration - 0.01) {
      this.seconds = this.duration;
      this.pause();
    }
    this.show();
    requestAnimationFrame(() => this.tick());
  }

  seek(seconds) {
    this.seconds = Math.min(this.duration, Math.max(0, seconds));
    this.sounds.forEach((sound) => sound && sound.pause());
    if (this.playing) this.start();
    this.show();
  }

  setRate(rate) {
    this.rate = rate;
    if (this.playing) this.seek(this.seconds);
  }

  hear(number) {
    this.heard = number;
    this.screens.forEach((one, k) => one.classList.toggle("heard", k === number));
    this.seek(this.seconds);
  }

  show() {
    this.plot.move(this.seconds);
    this.clips.forEach((clip, k) => this.showClip(clip, this.screens[k]));
    this.showFaults();
    const slider = this.plot.box;
    slider.setAttribute("aria-valuenow", this.seconds.toFixed(2));
    slider.setAttribute("aria-valuetext", clock(this.seconds));
  }

  showClip(clip, screen) {
    const frame = Math.min(clip.frames - 1, Math.floor(this.seconds * FPS + 1e-6));
    const canvas = screen.querySelector("canvas");
    if (canvas) clip.draw(canvas, frame, () => this.playing || this.show());
    const flags = clip.flags[frame], known = flags !== null && flags !== undefined;
    const badge = screen.querySelector(".badge");
    badge.textContent = this.seconds > clip.duration ? "over" : known ? state(flags) : "";
    badge.hidden = !badge.textContent;
    const readout = screen.querySelector(".readout");
    const value = clip.similarity[frame], kind = { 0: "real", 1: "forged" }[clip.fake[frame]];
    const agreement = value === null || value === undefined ? "no soft label" : `agreement ${(value / 1000).toFixed(2)}`;
    const said = [clock(Math.min(this.seconds, clip.duration)), `frame ${frame}`, agreement, kind];
    if (known && !(flags & VOICE_ACTIVE)) said.push("no voice");
    readout.textContent = said.filter(Boolean).join(" · ");
    this.caption(clip, screen.querySelector(".caption"));
  }

  // The words around the one that is spoken.
  caption(clip, line) {
    if (!clip.words.length) return;
    const now = clip.wordAt(this.seconds);
    let near = now;
    if (near < 0) near = clip.words.findLastIndex((word) => word.start <= this.seconds);
    const key = `${now} ${near}`;
    if (line.dataset.at === key) return;
    line.dataset.at = key;
    const few = clip.words.length <= 2 * AROUND + 1;
    const from = few ? 0 : Math.max(0, near - AROUND), to = few ? clip.words.length : Math.max(0, near) + AROUND + 1;
    const parts = clip.words.slice(from, to).flatMap((word, k) => {
      const shown = document.createElement(from + k === now ? "mark" : "span");
      shown.textContent = word.text;
      return [shown, " "];
    });
    line.replaceChildren(...parts);
  }

  showFaults() {
    const told = [...new Set(this.clips.flatMap((clip) => [...clip.lost]))];
    if (told.join("\n") === this.faults.dataset.told) return;
    this.faults.dataset.told = told.join("\n");
    this.faults.hidden = !told.length;
    this.faults.replaceChildren(
      ...told.map((text) => {
        const line = document.createElement("p");
        line.textContent = text;
        return line;
      }),
    );
  }
}

function state(flags) {
  if (!(flags & (FACE_DETECTED | FACE_INTERPOLATED))) return "no face";
  if (flags & HELD) return "still";
  return flags & FACE_INTERPOLATED ? "guessed" : "";
}

const box = document.querySelector(".player");
if (box) new Player(box);
