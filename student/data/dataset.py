"""Training batches from a Zarr store alone: order, on-the-fly pairs, soft labels from the stored projections.

Everything random is a function of (seed, epoch, position in the epoch) through counter-based generators, so a run goes on
anywhere without replay, and what a window holds depends neither on workers nor on ranks. Shards are shuffled, then windows
within a buffer. A share of the real clips' windows gets another clip's sound or its own shifted: with those, real clips alone
teach. All windows, mismatched or not, are cut by the same rule, as if each had a partner and a shift, from equally long parts
of the clips' spans (`student.data.spans`): length, place and padding tell nothing. No teacher runs here: a soft label is a
comparison of two stored projections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

import store
from store.layout import FACE_DETECTED, SAMPLES_PER_FRAME, VOICE_ACTIVE, StoreError
from store.similarity import Fit, compare
from student.config import DataConfig
from student.data.augment import augment_mouth, augment_sound
from student.data.picture import cut
from student.data.spans import Spans

SOFT_WINDOW = 5
GAP = SOFT_WINDOW // 2 + 1  # empty rows between pairs that are compared in one call
NEIGHBOURS = (
    512  # windows: a partner is stored near, so that its chunks are read soon anyway, and often the same speaker
)
OWN, SWAP, SHIFT = range(3)
LABELS = (-1, 0, 1)  # unknown, real, fake: of clips and of frames


@dataclass(frozen=True)
class Draw:
    """One window: lips of clip `lips` from frame `lips_start`, sound of clip `sound` from `sound_start`, `length` frames."""

    lips: int
    sound: int
    lips_start: int
    sound_start: int
    length: int
    kind: int
    shift: int


class Key(NamedTuple):
    """One batch of one rank: clip rows and their positions in the epoch's order."""

    epoch: int
    positions: tuple[int, ...]
    clips: tuple[int, ...]


@dataclass(frozen=True)
class Corpus:
    """What the order and the draws need to know of the training clips; small, so that it travels to workers.

    rows i8 [n]: their rows in the clips table; of all clips of the store: start, length i8 (of their spans, in frames), shard
    i8, label i1, weight f4, corpus. Spans of `rows` are at least a window long.
    """

    rows: np.ndarray
    start: np.ndarray
    length: np.ndarray
    shard: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    corpus: np.ndarray

    @classmethod
    def of(cls, reader: store.Reader, rows: np.ndarray, weight: np.ndarray, spans: Spans, window: int) -> Corpus:
        """Of the clips `rows` those whose spans hold a window. Raises StoreError for a label that is none."""
        c = reader.clips
        odd = np.asarray(rows, np.int64)[~np.isin(np.asarray(c["label"])[rows], LABELS)]
        if len(odd):
            raise StoreError(
                f"clip {c['id'][odd[0]]}: its label is {c['label'][odd[0]]}, not 0 (real), 1 (fake) or -1 "
                "(unknown); mend the store"
            )
        names = np.array([str(x) for x in c["corpus"]])
        rows = np.asarray(rows, np.int64)
        offset, label = (np.asarray(c[k]).astype(np.int64) for k in ("offset", "label"))
        kept = rows[spans.length[rows] >= window]
        return cls(kept, spans.start, spans.length, offset // reader.shard_rows, label, weight, names)


def partners(corpus: Corpus, window: int) -> np.ndarray:
    """Rows of the training clips known to be real, whose sound may be swapped in: once for each of a clip's windows, so that
    swapped sound lies where own sound does."""
    real = corpus.rows[corpus.label[corpus.rows] == 0]
    return np.sort(np.repeat(real, corpus.length[real] // window))


def epoch_order(corpus: Corpus, config: DataConfig, seed: int, epoch: int) -> np.ndarray:
    """Clip rows i8 [windows] in the order of one epoch: one for each `window` frames of a clip's span."""
    rng = np.random.default_rng([seed, epoch])
    shard = corpus.shard[corpus.rows]
    shards = np.unique(shard)
    place = rng.permutation(len(shards))[np.searchsorted(shards, shard)]
    counts = corpus.length[corpus.rows] // config.window
    by_shard = np.argsort(place, kind="stable")
    windows = np.repeat(corpus.rows[by_shard], counts[by_shard])
    # shuffle across the border of two buffers too: which windows share a buffer differs by a random phase
    group = (np.arange(len(windows)) + rng.integers(config.buffer)) // config.buffer
    return windows[np.lexsort((rng.random(len(windows)), group))]


def draw(corpus: Corpus, real: np.ndarray, config: DataConfig, seed: int, epoch: int, position: int, row: int) -> Draw:
    """The window at `position`: a function of its arguments alone.

    Partner, shift and length are drawn for every window in the same way; only those that become mismatched use the first two.
    """
    rng = np.random.default_rng([seed, epoch, position, 1])
    whole = config.window
    most = min(config.max_shift, whole // 3)
    small = min(config.min_fake_shift - 1, most)
    if most >= config.min_fake_shift and rng.random() < 0.7:
        size = int(rng.integers(config.min_fake_shift, most + 1))
    else:
        size = int(rng.integers(1, small + 1)) if small else 0
    shift = size if rng.random() < 0.5 else -size
    partner, length = -1, whole - size
    for _ in range(4 if len(real) > 1 else 0):
        near = int(np.searchsorted(real, row) + rng.integers(-NEIGHBOURS, NEIGHBOURS + 1))
        partner = int(real[near % len(real)])
        if partner != row:
            break
    partner = -1 if partner == row else partner
    start = int(corpus.start[row] + rng.integers(corpus.length[row] - whole + 1)) + max(0, shift)
    aligned, other = rng.random() < 0.5, rng.random()
    chance, which = rng.random(), rng.random()
    mismatch = corpus.label[row] == 0 and chance < config.pair_share
    if mismatch and partner >= 0 and which < config.swap_share:
        first, room = int(corpus.start[partner]), int(corpus.length[partner]) - length
        # half of the swaps keep the place in the clip: scripted corpora have a common rhythm, which must not give them away
        sound_start = start if aligned and first <= start <= first + room else first + int(other * (room + 1))
        return Draw(row, partner, start, sound_start, length, SWAP, 0)
    if mismatch and size and config.swap_share < 1:
        return Draw(row, row, start, start - shift, length, SHIFT, shift)
    return Draw(row, row, start, start, length, OWN, 0)


def expected_shares(corpus: Corpus, config: DataConfig) -> tuple[float, float]:
    """About how many windows of an epoch count as real and as fake for detection; weights of clips included."""
    labels, weight = corpus.label[corpus.rows], corpus.weight[corpus.rows].astype(np.float64)
    counts = corpus.length[corpus.rows] // config.window * weight
    real, fake = counts[labels == 0].sum(), counts[labels == 1].sum()
    mismatched = real * config.pair_share
    small = (1 - config.swap_share) * 0.3 if (labels == 0).sum() > 1 else 0.3
    return float(real - mismatched), float(fake + mismatched * (1 - small))


def class_weights(real: float, fake: float) -> tuple[float, float]:
    """Weights under which real and fake windows count the same in the detection term, 1 on average."""
    if real <= 0 or fake <= 0:
        return 1.0, 1.0
    return (real + fake) / (2 * real), (real + fake) / (2 * fake)


class Windows(Dataset):
    """Maps a Key to a batch of tensors. Opens the store at first use, in whichever process that is.

    picture u1 [B, T, side, side] (`student.data.picture`), audio i2 [B, 640 T] and the fields of `losses.Targets`. Without
    `soft_labels` nothing is compared. All of it is finite: what is not raises StoreError naming clip and array.
    """

    def __init__(
        self,
        path: str,
        corpus: Corpus,
        config: DataConfig,
        seed: int,
        soft_labels: bool,
        class_weight: tuple[float, float],
    ) -> None:
        self.path, self.corpus, self.config, self.seed = path, corpus, config, seed
        self.soft_labels, self.class_weight = soft_labels, class_weight
        self.real = partners(corpus, config.window)
        self._reader: store.Reader | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    @property
    def reader(self) -> store.Reader:
        if self._reader is None:
            self._reader = store.open(self.path)
        return self._reader

    def __getitem__(self, key: Key) -> dict[str, torch.Tensor]:
        epoch = key.epoch
        rows = []
        for position, row in zip(key.positions, key.clips, strict=True):
            d = draw(self.corpus, self.real, self.config, self.seed, epoch, position, row)
            rng = np.random.default_rng([self.seed, epoch, position, 2])
            rows.append(self._window(d, rng))
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        vsr, asr = batch.pop("vsr", None), batch.pop("asr", None)
        face, voice = batch.pop("face"), batch.pop("voice")
        batch["soft_mask"] = face[:, None] & voice[None, :]
        if self.soft_labels:
            fit = self.reader.fit
            assert fit is not None
            assert vsr is not None
            assert asr is not None
            corpora = [str(self.corpus.corpus[row]) for row in key.clips]
            batch["soft"] = soft_labels(vsr, asr, batch["soft_mask"], fit, corpora)
            odd = np.flatnonzero(~np.isfinite(batch["soft"]).all((1, 2)))
            if len(odd):
                clip = self.reader.clips["id"][key.clips[odd[0]]]
                raise StoreError(
                    f"clip {clip}: its soft labels are not finite though its projections are, so the fit of {self.path} is "
                    f"damaged (calibration of {corpora[odd[0]]}); precompute.py --refit writes it anew"
                )
        else:
            batch["soft"] = np.zeros(batch["soft_mask"].shape, np.float32)
            batch["soft_mask"][:] = False
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in batch.items()}

    def _window(self, d: Draw, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One window, padded to the full length with zeros."""
        lips_names, sound_names = [self.config.picture, "flags", "fake"], ["audio", "flags"]
        if self.soft_labels:
            lips_names.append("vsr_projection")
            sound_names.append("asr_projection")
        lips = self.reader.frames(d.lips, d.lips_start, d.lips_start + d.length, lips_names)
        sound = self.reader.frames(d.sound, d.sound_start, d.sound_start + d.length, sound_names)
        audio = sound["audio"].reshape(-1)
        picture = cut(self.config.picture, lips[self.config.picture], rng if self.config.augment else None)
        if self.config.augment:
            picture = augment_mouth(picture, rng)
            audio = augment_sound(audio, rng)
        label, frame_label = self._labels(d, lips["fake"])
        t = self.config.window
        out: dict[str, Any] = {
            "picture": _padded(picture, t),
            "audio": _padded(audio, t * SAMPLES_PER_FRAME),
            "mask": np.arange(t) < d.length,
            "label": np.float32(label),
            "label_weight": np.float32(self._weight(d, label)),
            "frame_label": _padded(frame_label.astype(np.float32), t, fill=-1),
            "clip": np.array([d.lips, d.sound]),
            "start": np.array([d.lips_start, d.sound_start]),
            "face": _padded((lips["flags"] & FACE_DETECTED) > 0, t),
            "voice": _padded((sound["flags"] & VOICE_ACTIVE) > 0, t),
        }
        if self.soft_labels:
            out["vsr"] = _padded(self._finite(lips["vsr_projection"], "vsr_projection", d.lips, d.lips_start), t)
            out["asr"] = _padded(self._finite(sound["asr_projection"], "asr_projection", d.sound, d.sound_start), t)
        return out

    def _labels(self, d: Draw, fake: np.ndarray) -> tuple[int, np.ndarray]:
        """Label of the window and of its frames [length]: 0, 1 or -1."""
        if d.kind == SWAP or (d.kind == SHIFT and abs(d.shift) >= self.config.min_fake_shift):
            return 1, np.ones(d.length, np.int8)
        if d.kind == SHIFT:
            return -1, np.full(d.length, -1, np.int8)
        label = int(self.corpus.label[d.lips])
        odd = np.flatnonzero(~np.isin(fake, LABELS))
        if len(odd):
            raise StoreError(
                f"clip {self.reader.clips['id'][d.lips]}: frames/fake is {fake[odd[0]]} at frame {d.lips_start + odd[0]}, not "
                "0, 1 or -1; mend the store"
            )
        if label == 1 and (fake >= 0).all():
            return int(fake.any()), fake  # a partial forgery is real where it is
        return label, np.full(d.length, label, np.int8) if label < 1 else fake

    def _finite(self, x: np.ndarray, name: str, row: int, start: int) -> np.ndarray:
        """Frames of a clip from `start` as f4; one that is not finite would make every weight nan."""
        odd = np.flatnonzero(~np.isfinite(x).all(-1))
        if len(odd):
            raise StoreError(
                f"clip {self.reader.clips['id'][row]}: frames/{name} is not finite at frame {start + odd[0]}, so it has no "
                f"soft label there; precompute.py --store {self.path} --refit writes it anew"
            )
        return x.astype(np.float32)

    def _weight(self, d: Draw, label: int) -> float:
        return 0.0 if label < 0 else float(self.corpus.weight[d.lips]) * self.class_weight[label]


def soft_labels(vsr: np.ndarray, asr: np.ndarray, mask: np.ndarray, fit: Fit, corpora: list[str]) -> np.ndarray:
    """Soft label f4 [B, B, T] of every lips row b with every sound row c, from projections [B, T, K] and mask [B, B, T].

    All pairs of one corpus are laid one after another, kept apart by masked rows, and compared in one call; the calibration is
    that of the lips' corpus. Where the mask is off the value has no meaning.
    """
    b, t, k = vsr.shape
    out = np.zeros((b, b, t), np.float32)
    for corpus in sorted(set(corpora)):
        of = np.flatnonzero([name == corpus for name in corpora])
        lips, sound = np.zeros((2, len(of), b, t + GAP, k), np.float32)
        keep = np.zeros((len(of), b, t + GAP), bool)
        lips[:, :, :t], sound[:, :, :t], keep[:, :, :t] = vsr[of, None], asr[None], mask[of]
        flat = compare(lips.reshape(-1, k), sound.reshape(-1, k), fit, SOFT_WINDOW, keep.reshape(-1), corpus)
        out[of] = flat.reshape(len(of), b, t + GAP)[:, :, :t]
    return out


class Keys(Sampler):
    """The batches of one rank from `position` of `epoch` on; the same number on every rank.

    `micro` = windows that all ranks take together. The tail of an epoch is used where it gives each rank two windows.
    """

    def __init__(self, corpus: Corpus, config: DataConfig, seed: int, rank: int, world: int) -> None:
        self.corpus, self.config, self.seed, self.rank, self.world = corpus, config, seed, rank, world
        self.epoch, self.position = 0, 0
        self.micro = config.batch_size * world
        self.windows = int((corpus.length[corpus.rows] // config.window).sum())

    def ends(self, position: int) -> list[int]:
        """Positions at which the micro-batches from `position` on end."""
        full = list(range(position + self.micro, self.windows + 1, self.micro))
        last = full[-1] if full else position
        return [*full, self.windows] if self.windows - last >= 2 * self.world else full

    def __len__(self) -> int:
        return len(self.ends(self.position))

    def __iter__(self) -> Iterator[Key]:
        order = epoch_order(self.corpus, self.config, self.seed, self.epoch)
        begin = self.position
        for end in self.ends(self.position):
            mine = range(begin + self.rank, end, self.world)
            yield Key(self.epoch, tuple(mine), tuple(int(order[p]) for p in mine))
            begin = end


def loader(windows: Windows, keys: Keys, num_workers: int, pin_memory: bool) -> DataLoader:
    """Batches in the order of `keys`. Workers are spawned (a fork after zarr's loop has started hangs) and kept for the run."""
    return DataLoader(
        windows,
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        multiprocessing_context="spawn" if num_workers else None,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )


def _padded(x: np.ndarray, length: int, fill: float = 0) -> np.ndarray:
    """x [n, ...] with `fill` up to [length, ...]."""
    if len(x) == length:
        return x
    out = np.full((length, *x.shape[1:]), fill, x.dtype)
    out[: len(x)] = x
    return out
