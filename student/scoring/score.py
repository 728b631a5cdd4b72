"""Trials and scores of a detector: the trials of a split, their logits, and the teachers' own similarity.

A trial is lips of one clip with sound of one clip. Labelled clips are trials themselves. Each real clip also gives
trials with the sound of other clips (`made swap`) and with its own sound shifted by 5 frames or more (`made shift`),
drawn from a seed, so that a corpus of only real clips has negatives. Both are shorter than the clip. Each comes with a
twin, the same lips with their own sound, and is compared only with twins, so that length and pauses at the ends reveal
nothing (compared with whole clips, an untrained network reached AUC 0.98 on shifts). Trials lie inside the clips' spans
(`store.dataset.spans`). Trials longer than a window are scored in overlapping windows of exactly that length, and their
logits are averaged, so the length of a clip has no influence.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import nn

from concord.errors import ConcordError
from store import Reader
from store.dataset.spans import Spans
from store.layout import SAMPLES_PER_FRAME, VOICE_ACTIVE, evident, labelled
from store.similarity import best_offset, calibration_line, scores
from student.data.picture import SIDES
from student.models.output import Output
from student.scoring import shared

MIN_SHIFT, MAX_SHIFT = 5, 15  # frames
MIN_FRAMES = 10  # shorter trials are not informative
PROJECTED = ("vsr_projection", "asr_projection", "flags")
KEPT_FRAMES = 100_000  # of projections: about 13 MB with 32 columns
MADE = ("made swap", "made shift")  # names that no corpus uses for a method; "swap" might be one


class ScoreError(ConcordError, RuntimeError):
    """A detector gave a score that is not finite; one line that names the clip."""

    exit_code = 1


class Frames(Protocol):
    """The source of a trial's frames: a store, or clips without one."""

    def frames(self, i: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """As `store.Reader.frames`."""
        ...


@dataclass(frozen=True)
class Trial:
    """Lips of row `lips` from `lips_start` with sound of row `sound` from `sound_start`; label 0 real, 1 fake.

    Trials of the methods MADE are made pairs: forgeries with label 1, their twins with label 0.
    """

    id: str
    lips: int
    sound: int
    lips_start: int
    sound_start: int
    length: int
    label: int
    method: str

    @property
    def made(self) -> bool:
        """Whether it is a made pair, not a clip of the store."""
        return self.method in MADE


def trials(reader: Reader, rows: np.ndarray, spans: Spans, seed: int, swaps: int = 1, shifts: int = 1) -> list[Trial]:
    """Trials of the labelled clips among `rows`, with `swaps` and `shifts` made from each real one. Ids are unique.

    A clip whose span is shorter than MIN_FRAMES gives none.
    """
    clips = reader.clips
    labels, first, lengths = np.asarray(clips["label"]), spans.start.tolist(), spans.length.tolist()
    usable = [int(r) for r in rows if labels[r] in (0, 1) and lengths[r] >= MIN_FRAMES]
    real = [r for r in usable if labels[r] == 0]
    out = []
    for r in usable:
        name = str(clips["method"][r]) or ("fake" if labels[r] else "real")
        out.append(Trial(str(clips["id"][r]), r, r, first[r], first[r], lengths[r], int(labels[r]), name))
    for place, r in enumerate(real):
        identity = str(clips["id"][r])
        rng = np.random.default_rng([seed, r])
        # partners by rotation: no clip is its own partner, and every sound is used equally often
        steps = (1 + rng.permutation(len(real) - 1)[:swaps]).tolist() if len(real) > 1 else []
        for step in steps:
            other = real[(place + step) % len(real)]
            name, length = f"{identity}|swap|{clips['id'][other]}", min(lengths[r], lengths[other])
            out.append(Trial(name, r, other, first[r], first[other], length, 1, MADE[0]))
            out.append(Trial(name + "|own", r, r, first[r], first[r], length, 0, MADE[0]))
        sizes = np.arange(MIN_SHIFT, min(MAX_SHIFT, lengths[r] - MIN_FRAMES) + 1)
        for shift in rng.permutation(np.r_[sizes, -sizes])[:shifts].tolist():
            name, start, length = f"{identity}|shift|{shift:+d}", first[r] + max(0, shift), lengths[r] - abs(shift)
            out.append(Trial(name, r, r, start, start - shift, length, 1, MADE[1]))
            out.append(Trial(name + "|own", r, r, start, start, length, 0, MADE[1]))
    if len({t.id for t in out}) != len(out):
        raise ValueError("two clips of the store have the same id; remove one of them")
    return out


def windows(length: int, window: int) -> list[tuple[int, int]]:
    """Start and stop of the windows of a trial: as few as cover each frame if neighbours have at least half in common, all
    `window` long if the trial is long enough. Frames near the ends of a window have the least context; in the next one
    they lie in its middle (docs/results.md has what that gains)."""
    count = max(1, -(-2 * length // window) - 1)
    starts = np.linspace(0, max(0, length - window), count).round().astype(int).tolist()
    return [(a, min(a + window, length)) for a in starts]


@torch.no_grad()
def logits(
    model: nn.Module,
    reader: Frames,
    items: list[Trial],
    window: int,
    device: torch.device,
    *,
    batch_size: int = 16,
    picture: str = "mouth",
) -> np.ndarray:
    """Clip logit [n] f8 of each trial, positive = fake. The model is put into evaluation mode and restored afterwards;
    `picture` is the array it uses (`student.data.picture`)."""
    return fused(model, branches(model, reader, items, window, device, batch_size=batch_size, picture=picture))


def fused(model: nn.Module, parts: np.ndarray) -> np.ndarray:
    """Clip logit [n] f8 out of those of a student's branches [n, P]."""
    if parts.shape[1] == 1:
        return parts[:, 0]
    weights = cast(torch.Tensor, model.fusion).double().cpu().numpy()
    return np.asarray(parts @ weights)


@torch.no_grad()
def branches(
    model: nn.Module,
    reader: Frames,
    items: list[Trial],
    window: int,
    device: torch.device,
    *,
    batch_size: int = 16,
    picture: str = "mouth",
) -> np.ndarray:
    """The same of each branch of the student, [n, P] f8: one for most students, agreement and texture for others."""
    was_training = model.training
    model.eval()
    jobs = [(k, a, b) for k, item in enumerate(items) for a, b in windows(item.length, window)]
    if shared.has_two_streams(model) and picture == "mouth":
        pairs = [_job(items[k], a, b) for k, a, b in jobs]
        values = shared.clip_logits(model, reader, pairs, device, batch_size)
    else:
        parts = [jobs[first : first + batch_size] for first in range(0, len(jobs), batch_size)]
        each = [
            shared.parts_of(_output(model, reader, [(items[k], a, b) for k, a, b in part], device, picture))
            for part in parts
        ]
        values = np.concatenate(each) if each else np.zeros((0, 1))
    total, frames = np.zeros((len(items), values.shape[1])), np.zeros(len(items))
    for value, (k, a, b) in zip(values, jobs, strict=True):
        total[k] += value * (b - a)
        frames[k] += b - a
    model.train(was_training)
    return np.asarray(total / np.maximum(frames, 1)[:, None])


def _job(item: Trial, a: int, b: int) -> shared.Job:
    lips = shared.Cut(item.lips, item.lips_start + a, b - a)
    return shared.Job(lips, shared.Cut(item.sound, item.sound_start + a, b - a))


def forward(
    model: nn.Module, reader: Frames, batch: list[tuple[Trial, int, int]], device: torch.device, picture: str
) -> np.ndarray:
    """Clip logit [n] f8 of windows a to b of trials, by a forward pass of any student."""
    values: np.ndarray = _output(model, reader, batch, device, picture).clip_logits.double().cpu().numpy()
    return values


def _output(
    model: nn.Module, reader: Frames, batch: list[tuple[Trial, int, int]], device: torch.device, picture: str
) -> Output:
    longest = max(b - a for _, a, b in batch)
    seen = np.zeros((len(batch), longest, SIDES[picture], SIDES[picture]), np.uint8)
    audio = np.zeros((len(batch), longest * SAMPLES_PER_FRAME), np.int16)
    mask = np.zeros((len(batch), longest), bool)
    for n, (item, a, b) in enumerate(batch):
        seen[n, : b - a] = reader.frames(item.lips, item.lips_start + a, item.lips_start + b, [picture])[picture]
        sound = reader.frames(item.sound, item.sound_start + a, item.sound_start + b, ["audio"])["audio"]
        audio[n, : (b - a) * SAMPLES_PER_FRAME] = sound.reshape(-1)
        mask[n, : b - a] = True
    output: Output = model(*(torch.from_numpy(x).to(device) for x in (seen, audio, mask)))
    return output


def check_finite(items: Sequence[Trial], values: np.ndarray) -> None:
    """Raise ScoreError, which names the first trial, if a logit is not finite: no comparison with NaN is true, so it
    would count as "real"."""
    odd = np.flatnonzero(~np.isfinite(values))
    if len(odd):
        raise ScoreError(
            f"the detector answers {values[odd[0]]} for {items[odd[0]].id} (and for {len(odd) - 1} more of {len(items)}), so "
            "nothing was scored; train it again with a lower --lr"
        )


class Projections:
    """Projections and flags of whole clips, each read once while it is among the last KEPT_FRAMES that were used."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.frames = reader, 0
        self.kept: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()

    def of(self, row: int) -> dict[str, np.ndarray]:
        """vsr_projection and asr_projection [length, K], flags u1 [length] of a clip."""
        if row in self.kept:
            self.kept.move_to_end(row)
            return self.kept[row]
        read = self.reader.frames(row, 0, int(self.reader.clips["length"][row]), PROJECTED)
        self.kept[row] = read
        self.frames += len(read["flags"])
        while self.frames > KEPT_FRAMES and len(self.kept) > 1:
            self.frames -= len(self.kept.popitem(last=False)[1]["flags"])
        return read

    def pair(self, item: Trial) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Lips' and sound's projections [n, K] of a trial, and their flags u1 [n]."""
        lips, sound = self.of(item.lips), self.of(item.sound)
        a = slice(item.lips_start, item.lips_start + item.length)
        b = slice(item.sound_start, item.sound_start + item.length)
        return lips["vsr_projection"][a], sound["asr_projection"][b], lips["flags"][a], sound["flags"][b]


def teacher_scores(reader: Reader, items: list[Trial]) -> np.ndarray:
    """What the teachers say of each trial, f8 [4, n], from the stored projections only; all NaN if the store has no fit.

    The first is their clip similarity as the logit of "fake": minus the logit of the stored pair's probability, window
    "clip". The others are of the best constant offset within +-15 frames: minus the similarity there and minus its
    margin over other offsets, as scores of "fake", and that offset in frames; NaN if no offset has a frame with both
    face and voice.
    """
    fit = reader.fit
    out = np.full((4, len(items)), np.nan)
    if fit is None:
        return out
    stored, corpora = Projections(reader), reader.clips["corpus"]
    for k, item in enumerate(items):
        vsr, asr, seen, heard = stored.pair(item)
        slope, intercept = calibration_line(fit, "clip", str(corpora[item.lips]))
        out[0, k] = -(slope * float(scores(vsr, asr, fit, "clip", labelled(seen, heard))[0]) + intercept)
        face, voice = evident(seen), heard & VOICE_ACTIVE > 0
        if not (face.any() and voice.any()):
            continue
        try:
            found = best_offset(vsr, asr, fit, face, voice)
        except ValueError:  # no offset has frames with face and voice: unknown
            continue
        out[1:, k] = -found.best, -found.margin, found.frames
    return out


def headline(items: list[Trial]) -> np.ndarray:
    """The trials [n] bool of the overall figure: the clips if they have both classes, else the made pairs."""
    made = np.array([t.made for t in items], bool)
    labels = np.array([t.label for t in items])
    return ~made if len(np.unique(labels[~made])) == 2 else made


def of_method(items: list[Trial], method: str) -> np.ndarray:
    """The trials [n] bool of a method's figure: its forgeries against their twins or, for clips, all real clips."""
    return np.array([t.method == method or (method not in MADE and not t.made and t.label == 0) for t in items], bool)
