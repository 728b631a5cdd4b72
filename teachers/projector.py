"""The network of `contrast`: two small maps into one space, trained so that lips and sound of the same moment are close
there.

The picture side is a temporal network (three residual convolutions, receptive field of 11 frames). The sound side sees
one frame, because its embedding already contains the context: a linear map, and a small layer beside it. Both are
trained by InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4) in both directions over windows of five
frames, the window of a soft label: each window against those of other times and other clips. Noise added to the sound,
random scaling of the picture's columns (the amount of motion differs between faces), dropout, weight decay and early
stopping on held-out clips prevent overfitting to single speakers. NETWORKS of them, from seeds of their own, are
compared together: the mean of their cosines travels to other people better than one's.

It always computes on one core, so that a seed gives the same network on any machine. The weights are plain arrays,
which the store keeps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

log = logging.getLogger(__name__)

NETWORKS = 2  # that are trained, and compared together
MOST_NETWORKS = 16  # that a fit, which may come from anyone, can have
DIMS = 32  # of the shared space of each
WIDTH = 96  # of the picture side's hidden layers
HIDDEN = 128  # of the layer on the sound side
KERNELS = (5, 5, 3)  # frames that each convolution sees
DROPOUT = 0.2
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
SCALE = 10.0  # initial scale of the cosine in the loss; it is learned
FLOOR = 1e-3  # of a column's deviation, relative to all columns': constant columns are not amplified


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


class Projector:
    """The two maps, from the arrays that `learn` gave. (Those of earlier releases are one network, not stacked, and have
    no layer on the sound side.)"""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        """Raises ValueError if the arrays do not belong to this network."""
        try:
            if np.ndim(arrays["log_scale"]):
                count = len(arrays["log_scale"])
                if not 0 < count <= MOST_NETWORKS or any(len(a) != count for a in arrays.values()):
                    raise ValueError(f"{count} networks whose arrays differ in number")
                each = [{name: a[k] for name, a in arrays.items()} for k in range(count)]
            else:
                each = [arrays]
            self._nets = [_loaded(one) for one in each]
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            said = str(error).splitlines()[-1].strip()
            raise ValueError(f"the fit's network is not of this kind or is damaged: {said}") from error

    @property
    def dims(self) -> int:
        return DIMS * len(self._nets)

    def vsr(self, x: np.ndarray) -> np.ndarray:
        """Picture embedding [frames, Dv] in the shared space: [frames, networks * DIMS] f4 of length 1."""
        return self._run([net.picture for net in self._nets], x)

    def asr(self, y: np.ndarray) -> np.ndarray:
        """Sound embedding [frames, Da] in the shared space: [frames, networks * DIMS] f4 of length 1."""
        return self._run([net.sound for net in self._nets], y)

    @staticmethod
    def _run(sides, x: np.ndarray) -> np.ndarray:
        if len(x) == 0:
            return np.zeros((0, DIMS * len(sides)), np.float32)
        with torch.inference_mode():
            rows = torch.from_numpy(np.array(x, np.float32))[None]
            return (torch.cat([side(rows)[0] for side in sides], dim=1) / math.sqrt(len(sides))).numpy()


def _loaded(arrays: dict[str, np.ndarray]) -> _Network:
    with torch.device("meta"):  # no memory is allocated for lengths that may be wrong
        hidden = HIDDEN if "sound_hidden.weight" in arrays else 0
        net = _Network(len(arrays["vsr_mean"]), len(arrays["asr_mean"]), hidden)
    net.load_state_dict({name: torch.tensor(np.asarray(a, np.float32)) for name, a in arrays.items()}, assign=True)
    return net.eval()


def learn(examples: Sequence[Example], held_out: Sequence[Example], seed: int) -> Learned:
    """Train the two maps of NETWORKS networks on `examples`; `held_out` decides which step's weights are kept (the last
    step's, without held-out clips).

    The same examples and seed give the same arrays. Raises ValueError if fewer than two examples have five frames in a
    row.
    """
    usable = [e for e in examples if len(e.mask) >= WINDOW and e.mask.any()]
    if len(usable) < 2:
        raise ValueError(f"{len(usable)} clips have face and voice for long enough to learn from; two are needed")
    judged = [e for e in held_out if len(e.mask) >= WINDOW and e.mask.any()]
    clips, judges = _Clips(usable), _Clips(judged) if len(judged) > 1 else None
    with _one_core(), torch.random.fork_rng(devices=[]):
        each = [_learn(clips, judges, int(own)) for own in np.random.SeedSequence(seed).generate_state(NETWORKS)]
    arrays = {name: np.stack([one[0][name] for one in each]) for name in each[0][0]}
    return Learned(arrays, tuple(one[1] for one in each), float(np.mean([one[2] for one in each])))


def _learn(clips: _Clips, judges: _Clips | None, seed: int) -> tuple[dict[str, np.ndarray], int, float]:
    """One network: its arrays, the step at which they were taken, and the held-out loss."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    net = _Network(clips.vsr.shape[-1], clips.asr.shape[-1], HIDDEN)
    net.standardise(clips)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=WARMUP)
    order = _order(len(clips), draw)
    kept, loss_then, step_then = net.state_dict(), math.nan, 0
    for step in range(1, STEPS + 1):
        vsr, asr, mask = clips.batch(next(order), draw)
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


class _Network(nn.Module):
    """Picture [clips, frames, Dv] and sound [clips, frames, Da] to [clips, frames, DIMS] of length 1."""

    vsr_mean: torch.Tensor
    vsr_std: torch.Tensor
    asr_mean: torch.Tensor
    asr_std: torch.Tensor

    def __init__(self, vsr_columns: int, asr_columns: int, hidden: int) -> None:
        """`hidden`: columns of the layer on the sound side, 0 for none."""
        super().__init__()
        for side, columns in (("vsr", vsr_columns), ("asr", asr_columns)):
            self.register_buffer(f"{side}_mean", torch.zeros(columns))
            self.register_buffer(f"{side}_std", torch.ones(columns))
        self.picture_in = nn.Linear(vsr_columns, WIDTH)
        self.convolutions = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, kernel, padding=kernel // 2) for kernel in KERNELS)
        self.picture_out = nn.Linear(WIDTH, DIMS)
        self.sound_out = nn.Linear(asr_columns, DIMS)
        self.sound_hidden = nn.Linear(asr_columns, hidden) if hidden else None
        self.sound_more = nn.Linear(hidden, DIMS) if hidden else None
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))

    def standardise(self, clips: _Clips) -> None:
        """Measure each column's mean and deviation on the frames with face and voice."""
        mask = clips.mask
        for side, rows in (("vsr", clips.vsr[mask].double()), ("asr", clips.asr[:, 0][mask].double())):
            getattr(self, f"{side}_mean").copy_(rows.mean(0))
            std = rows.std(0, correction=0)
            getattr(self, f"{side}_std").copy_(std + FLOOR * (std.mean() + 1e-9))

    def picture(self, x: torch.Tensor) -> torch.Tensor:
        x = self._dropped((x - self.vsr_mean) / self.vsr_std, DROPOUT / 2)
        x = F.gelu(self.picture_in(x))
        for convolution in self.convolutions:
            x = x + F.gelu(convolution(self._dropped(x, DROPOUT).transpose(1, 2)).transpose(1, 2))
        return F.normalize(self.picture_out(self._dropped(x, DROPOUT)), dim=-1)

    def sound(self, y: torch.Tensor) -> torch.Tensor:
        y = self._dropped((y - self.asr_mean) / self.asr_std, DROPOUT)
        found = self.sound_out(y)
        if self.sound_hidden is not None and self.sound_more is not None:
            found = found + self.sound_more(F.gelu(self.sound_hidden(y)))
        return F.normalize(found, dim=-1)

    def _dropped(self, x: torch.Tensor, share: float) -> torch.Tensor:
        """Dropout of whole columns, the same in all frames of a clip: neighbouring frames would reveal a single dropped
        value, and drawing one for each frame takes a fifth of a step's time."""
        if not self.training:
            return x
        return x * (torch.rand(len(x), 1, x.shape[2]) >= share) / (1 - share)


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


def _judged(net: _Network, judges: _Clips) -> float:
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
