"""Scoring with every window encoded once, for students whose two streams meet only in their head.

A forgery made from a clip and its twin show the same lips, windows of one clip have frames in common, and a sound is
heard with several lips. A plain forward pass encodes them again for each trial: with the default pairs every frame five
times, and its picture is nine tenths of the cost. Here each frame's picture goes through the trunk once (its first and
last neighbours in a window count as other pictures, as in a forward pass), each window of either stream through its
temporal layers once, and only the head runs for every trial. Results differ from a forward pass by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import nn

from store.layout import SAMPLES_PER_FRAME
from student.models.lite import Lite, even
from student.models.output import Output

if TYPE_CHECKING:
    from student.scoring.score import Frames

ROWS_AT_ONCE = 256  # frames in the trunk: limits the memory


class Cut(NamedTuple):
    """Frames `start` to `start + length` of the clip `row`."""

    row: int
    start: int
    length: int


class Job(NamedTuple):
    """A window to score: lips and sound of one length."""

    lips: Cut
    sound: Cut


def has_two_streams(model: nn.Module) -> TypeGuard[Lite]:
    """Whether the student can be scored here; `talknet` cannot, its streams attend to each other."""
    return isinstance(model, Lite)


def clip_logits(model: Lite, reader: Frames, jobs: Sequence[Job], device: torch.device, batch_size: int) -> np.ndarray:
    """Clip logits [n, P] f8 of each window, in evaluation mode (`parts_of`); at most `batch_size` different windows of lips
    at once."""
    found = np.zeros((len(jobs), 1 if model.texture is None else 2))
    batch: list[int] = []
    seen: set[Cut] = set()
    for k in sorted(range(len(jobs)), key=lambda k: jobs[k]):
        if jobs[k].lips not in seen and len(seen) == batch_size:
            found[batch] = _batch(model, reader, [jobs[b] for b in batch], device, batch_size)
            batch, seen = [], set()
        batch.append(k)
        seen.add(jobs[k].lips)
    if batch:
        found[batch] = _batch(model, reader, [jobs[b] for b in batch], device, batch_size)
    return found


def _batch(model: Lite, reader: Frames, jobs: list[Job], device: torch.device, batch_size: int) -> np.ndarray:
    lips, sounds = (list(dict.fromkeys(cuts)) for cuts in zip(*jobs, strict=True))
    longest = max(cut.length for cut in lips)
    pictures = _pictures(reader, lips, device)
    v = _lips(model, pictures, lips, longest, device)
    drawn = _drawn(model, pictures, lips, longest, device) if model.texture is not None else None
    parts = [sounds[k : k + batch_size] for k in range(0, len(sounds), batch_size)]
    a = torch.cat([_sounds(model, reader, part, longest, device) for part in parts])
    of_lips, of_sound = ({cut: k for k, cut in enumerate(cuts)} for cuts in (lips, sounds))
    found = []
    for first in range(0, len(jobs), batch_size):
        some = jobs[first : first + batch_size]
        mask = _mask([job.lips for job in some], longest, device)
        pair = v[[of_lips[job.lips] for job in some]], a[[of_sound[job.sound] for job in some]]
        at = [of_lips[job.lips] for job in some]
        texture = None if drawn is None else (drawn[0][at], drawn[1][at])
        output: Output = model.join(*pair, mask, texture)
        found.append(parts_of(output))
    return np.concatenate(found)


def parts_of(output: Output) -> np.ndarray:
    """Clip logits f8 [n, P]: of each branch of a student that has several, else its only one."""
    several = getattr(output, "parts", None)  # of students of one's own that lack the field too
    parts = output.clip_logits[:, None] if several is None else several
    values: np.ndarray = parts.double().cpu().numpy()
    return values


Pictures = dict[int, tuple[int, torch.Tensor]]  # by clip: its first frame that is used, and mouths u1 [n, 96, 96]


def _pictures(reader: Frames, cuts: list[Cut], device: torch.device) -> Pictures:
    """The pictures of all windows, each clip read once."""
    clips: dict[int, list[Cut]] = {}
    for cut in cuts:
        clips.setdefault(cut.row, []).append(cut)
    found = {}
    for row, of_clip in clips.items():
        start, stop = min(c.start for c in of_clip), max(c.start + c.length for c in of_clip)
        read = reader.frames(row, start, stop, ["mouth"])["mouth"]
        found[row] = (start, torch.from_numpy(read).to(device))
    return found


def _drawn(
    model: Lite, pictures: Pictures, cuts: list[Cut], longest: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The texture branch's logits [n, longest] of frames and [n] of windows."""
    assert model.texture is not None
    some = next(iter(pictures.values()))[1]
    mouth = some.new_zeros((len(cuts), longest, *some.shape[1:]))
    for own, cut in zip(mouth, cuts, strict=True):
        start, frames = pictures[cut.row]
        own[: cut.length] = frames[cut.start - start :][: cut.length]
    found: tuple[torch.Tensor, torch.Tensor] = model.texture(mouth, _mask(cuts, longest, device))
    return found


def _lips(model: Lite, pictures: Pictures, cuts: list[Cut], longest: int, device: torch.device) -> torch.Tensor:
    """Embeddings [n, longest, width] of windows of lips."""
    first, evened, count = {}, [], 0
    for row, (start, read) in pictures.items():
        first[row] = count - start  # place in `frames` of the clip's first frame
        evened.append(even(read))
        count += len(read)
    nothing = torch.zeros_like(evened[0][:1])  # where a window has no neighbour
    frames = torch.cat([*evened, nothing])
    keys = []
    for cut in cuts:
        near = model.visual.neighbours(cut.length)
        inside = (near >= 0) & (near < cut.length)
        keys.append(torch.where(inside, near + first[cut.row] + cut.start, count))
    unique, place = torch.unique(torch.cat(keys), dim=0, return_inverse=True)
    rows = torch.cat([model.visual.rows(_three(frames, part)) for part in unique.to(device).split(ROWS_AT_ONCE)])
    x = rows.new_zeros(len(cuts), longest, rows.shape[-1])
    mask = _mask(cuts, longest, device)
    x[mask] = rows[place.to(device)]
    found: torch.Tensor = model.visual.temporal(x, mask)
    return found


def _three(frames: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Frames and their neighbours [N, 3, 88, 88], channels last in memory as in a forward pass."""
    return torch.stack([frames[key[:, k]] for k in range(3)], -1).permute(0, 3, 1, 2)


def _sounds(model: Lite, reader: Frames, cuts: list[Cut], longest: int, device: torch.device) -> torch.Tensor:
    """Embeddings [n, longest, width] of windows of sound."""
    audio = np.zeros((len(cuts), longest * SAMPLES_PER_FRAME), np.int16)
    for n, (row, start, length) in enumerate(cuts):
        read = reader.frames(row, start, start + length, ["audio"])["audio"]
        audio[n, : length * SAMPLES_PER_FRAME] = read.reshape(-1)
    found: torch.Tensor = model.audio(torch.from_numpy(audio).to(device), _mask(cuts, longest, device))
    return found


def _mask(cuts: list[Cut], longest: int, device: torch.device) -> torch.Tensor:
    """True for the frames in use [n, longest]."""
    length = torch.tensor([cut.length for cut in cuts], device=device)
    return torch.arange(longest, device=device) < length[:, None]
