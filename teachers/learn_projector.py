"""Learns the networks of `contrast` (`teachers.projector`), so that lips and sound of the same moment are close.

They are trained by InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4) in both directions over windows of
five frames, the window of a soft label: each window against those of other times and other clips. Noise added to the
sound, random scaling of the picture's columns (the amount of motion differs between faces), mirrored faces, dropout,
weight decay and early stopping on held-out clips prevent overfitting to single speakers.

It always computes on one core, so that a seed gives the same networks on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from concord.text import counted
from teachers.projector import HIDDEN, Network

NETWORKS = 2  # each from a seed of its own
WINDOW = 5  # frames compared together in the loss: the window of a soft label
SEGMENT = 75  # frames of a clip in a step
BATCH = 16  # clips in a step
PICKS = 12  # windows of each clip in the loss
GUARD = 3  # windows of one clip closer than this count neither as a match nor as a mismatch
STEPS = 1200
CHECK = 75  # steps between evaluations on the held-out clips
PATIENCE = 4  # evaluations without improvement before it stops
RATE, DECAY, WARMUP = 2e-3, 1e-2, 0.1  # of AdamW; share of the steps in which the learning rate increases
NOISY = 0.75  # share of clips in a step with noise added to the sound
SPREAD = 0.15  # of the random scale of each picture column, and of the common scale of all columns
FLOOR = 1e-3  # of a column's deviation, relative to all columns': constant columns are not amplified

Mirror = tuple[np.ndarray, np.ndarray]  # columns i8 [Dv] and signs f4 [Dv] of a mirrored face: x[:, columns] * signs


@dataclass(frozen=True)
class Example:
    """One training clip, f2 or f4: vsr [frames, Dv]; asr [frames, Da] of the original sound; `noisy`, the same with
    added noise, each [frames, Da]; mask bool [frames] marks frames with face and voice."""

    vsr: np.ndarray
    asr: np.ndarray
    mask: np.ndarray
    noisy: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Learned:
    """Arrays of the networks by name, f4 [networks, ...]; the step at which those of each were taken; the mean of their
    held-out losses at that step, NaN without held-out clips."""

    arrays: dict[str, np.ndarray]
    steps: tuple[int, ...]
    loss: float


def learn(examples: Sequence[Example], held_out: Sequence[Example], seed: int, mirror: Mirror | None = None) -> Learned:
    """Train the two maps of NETWORKS networks on `examples`; `held_out` decides which step's weights are kept (the last
    step's, without held-out clips). With `mirror` half of the clips in a step are mirrored.

    The same examples and seed give the same arrays. Raises ValueError if fewer than two examples have five frames in a
    row.
    """
    usable = [e for e in examples if len(e.mask) >= WINDOW and e.mask.any()]
    if len(usable) < 2:
        raise ValueError(
            f"{counted(len(usable), 'clip has', 'clips have')} face and voice for long enough to learn from; two are needed"
        )
    judged = [e for e in held_out if len(e.mask) >= WINDOW and e.mask.any()]
    clips, judges = _Clips(usable), _Clips(judged) if len(judged) > 1 else None
    with _one_core(), torch.random.fork_rng(devices=[]):
        seeds = np.random.SeedSequence(seed).generate_state(NETWORKS).tolist()
        each = [_learn(clips, judges, own, mirror) for own in seeds]
    arrays = {name: np.stack([one[0][name] for one in each]) for name in each[0][0]}
    return Learned(arrays, tuple(one[1] for one in each), float(np.mean([one[2] for one in each])))


def _learn(
    clips: _Clips, judges: _Clips | None, seed: int, mirror: Mirror | None
) -> tuple[dict[str, np.ndarray], int, float]:
    """One network: its arrays, the step at which they were taken, and the held-out loss."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    net = Network(clips.vsr.shape[-1], clips.asr.shape[-1], HIDDEN)
    _standardise(net, clips)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=WARMUP)
    order = _order(len(clips), draw)
    kept, loss_then, step_then = net.state_dict(), math.nan, 0
    for step in range(1, STEPS + 1):
        vsr, asr, mask = clips.batch(next(order), draw)
        if mirror is not None:
            turned = vsr[:, :, mirror[0]] * torch.from_numpy(mirror[1])
            vsr = torch.where(torch.rand(len(vsr), 1, 1, generator=draw) < 0.5, turned, vsr)
        loss = info_nce(net.picture(_rescaled(vsr, draw)), net.sound(asr), mask, net.log_scale.exp(), draw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if judges is None:
            kept, step_then = net.state_dict(), step
        elif step % CHECK == 0:
            found = _judged(net, judges)
            if math.isnan(loss_then) or found < loss_then:
                kept, loss_then, step_then = {k: v.clone() for k, v in net.state_dict().items()}, found, step
            elif step - step_then >= PATIENCE * CHECK:
                break
    return {name: tensor.numpy().copy() for name, tensor in kept.items()}, step_then, loss_then


def _standardise(net: Network, clips: _Clips) -> None:
    """Measure each column's mean and deviation on the frames with face and voice."""
    for side, rows in (("vsr", clips.vsr[clips.mask].double()), ("asr", clips.asr[:, 0][clips.mask].double())):
        getattr(net, f"{side}_mean").copy_(rows.mean(0))
        std = rows.std(0, correction=0)
        getattr(net, f"{side}_std").copy_(std + FLOOR * (std.mean() + 1e-9))


def info_nce(
    picture: torch.Tensor, sound: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor, draw: torch.Generator
) -> torch.Tensor:
    """InfoNCE of PICKS windows drawn from each clip, picture and sound [clips, frames, DIMS] of length 1, mask [clips, frames].

    A window's own sound is compared with that of all other windows drawn, and the other way round; the score is the
    mean cosine of its WINDOW frames times `scale`. Windows of the same clip closer than GUARD frames are left out.
    """
    half = WINDOW // 2
    lot = torch.rand(mask.shape, generator=draw).masked_fill(~mask, -1.0)
    lot[:, :half] = lot[:, mask.shape[1] - half :] = -1.0
    value, middle = lot.topk(min(PICKS, mask.shape[1]), dim=1)
    drawn = value >= 0
    clip = torch.arange(len(mask))[:, None].expand_as(middle)[drawn]
    middle = middle[drawn]
    frames = middle[:, None] + torch.arange(-half, half + 1)
    left, right = picture[clip[:, None], frames].flatten(1), sound[clip[:, None], frames].flatten(1)
    agreement = left @ right.T * (scale / WINDOW)
    near = (clip[:, None] == clip) & ((middle[:, None] - middle).abs() < GUARD)
    near.fill_diagonal_(False)
    agreement = agreement.masked_fill(near, -1e4)
    own = torch.arange(len(clip))
    return (F.cross_entropy(agreement, own) + F.cross_entropy(agreement.T, own)) / 2


class _Clips:
    """Examples as padded tensors: vsr [clips, frames, Dv], asr [clips, 1 + noisy, frames, Da], mask [clips, frames].

    An example with fewer noisy sounds than others repeats what it has.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        frames = max(len(e.mask) for e in examples)
        sounds = 1 + max(len(e.noisy) for e in examples)
        dtype = np.result_type(examples[0].vsr, examples[0].asr)
        self.vsr = torch.zeros(
            len(examples), frames, examples[0].vsr.shape[1], dtype=torch.from_numpy(np.zeros(0, dtype)).dtype
        )
        self.asr = torch.zeros(len(examples), sounds, frames, examples[0].asr.shape[1], dtype=self.vsr.dtype)
        self.mask = torch.zeros(len(examples), frames, dtype=torch.bool)
        self.length = torch.tensor([len(e.mask) for e in examples])
        for i, e in enumerate(examples):
            n = len(e.mask)
            self.vsr[i, :n] = torch.from_numpy(e.vsr[:n])
            self.mask[i, : n - WINDOW // 2] = torch.from_numpy(
                e.mask[: n - WINDOW // 2]
            )  # a window must lie inside the clip
            have = [e.asr, *e.noisy]
            for k in range(sounds):
                own = k if k < len(have) else 1 + (k - 1) % max(len(e.noisy), 1) if e.noisy else 0
                self.asr[i, k, :n] = torch.from_numpy(have[own][:n])

    def __len__(self) -> int:
        return len(self.mask)

    def batch(self, chosen: torch.Tensor, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """SEGMENT frames of each chosen clip, from a random position, with the original sound or one of the noisy
        versions, f4."""
        room = (self.length[chosen] - SEGMENT).clamp(min=0)
        start = (torch.rand(len(chosen), generator=draw) * (room + 1)).long()
        frames = start[:, None] + torch.arange(min(SEGMENT, self.mask.shape[1]))
        sound = torch.zeros(len(chosen), dtype=torch.long)
        if self.asr.shape[1] > 1:
            noisy = torch.rand(len(chosen), generator=draw) < NOISY
            sound = torch.where(noisy, torch.randint(1, self.asr.shape[1], (len(chosen),), generator=draw), sound)
        rows = chosen[:, None]
        return self.vsr[rows, frames].float(), self.asr[rows, sound[:, None], frames].float(), self.mask[rows, frames]


def _order(clips: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
    """Clips of each step: all clips shuffled, again and again, BATCH at a time; the incomplete batch of a round is
    dropped."""
    size = min(BATCH, clips)
    while True:
        shuffled = torch.randperm(clips, generator=draw)
        yield from shuffled[: clips - clips % size].split(size)


def _rescaled(vsr: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Each clip's columns times random factors near 1: one for each column and one for all."""
    each = 1 + SPREAD * torch.randn(len(vsr), 1, vsr.shape[2], generator=draw)
    return vsr * each * torch.exp(SPREAD * torch.randn(len(vsr), 1, 1, generator=draw))


def _judged(net: Network, judges: _Clips) -> float:
    """Loss on held-out clips without noise and dropout, on the same windows each time."""
    draw = torch.Generator().manual_seed(0)
    net.eval()
    with torch.inference_mode():
        found = 0.0
        parts = torch.arange(len(judges)).split(64)
        for part in parts:
            picture, sound = net.picture(judges.vsr[part].float()), net.sound(judges.asr[part, 0].float())
            found += info_nce(picture, sound, judges.mask[part], net.log_scale.exp(), draw).item() * len(part)
    net.train()
    return found / len(judges)


@contextmanager
def _one_core() -> Iterator[None]:
    """Use one thread, so that the order of sums is fixed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
