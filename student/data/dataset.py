"""Training batches from a Zarr store: windows, their mismatched pairs, soft labels from the stored projections.

Everything random is a function of (seed, epoch, position in the epoch) through counter-based generators, so a run can
continue anywhere without replay, and the content of a window depends neither on workers nor on ranks. Shards are
shuffled, then windows within a buffer. A share of the real clips' windows gets another clip's sound or its own shifted,
so that real clips alone are enough for training. All windows, mismatched or not, are cut by the same rule, as if each
had a partner and a shift, from equally long parts of the clips' spans (`store.dataset.spans`), so length, position and
padding reveal nothing. No teacher runs here: a soft label is a comparison of two stored projections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

import store
from store.dataset.pairs import NEIGHBOURS, finite, labels, padded
from store.layout import SAMPLES_PER_FRAME, VOICE_ACTIVE, StoreError, evident
from store.similarity import Fit, compare, unit_rows
from student.config import DataConfig
from student.data.augment import augment_mouth, augment_sound
from student.data.corpus import Corpus
from student.data.drawn import Drawn, of_forged, of_real, together
from student.data.order import GAP, SHIFT, SOFT_WINDOW, SWAP, At, Draw, Key, draw, epoch_order, partners
from student.data.picture import cut
from student.data.pseudo_fakes import Window, in_crop


class Windows(Dataset[dict[str, torch.Tensor]]):
    """Maps a Key to a batch of tensors. Opens the store at first use, in the process that uses it.

    picture u1 [B, T, side, side] (`student.data.picture`), audio i2 [B, 640 T] and the fields of `losses.Targets`; with
    `pseudo_share` the windows of `drawn.together`.
    The labels of pairs are the teachers' (`soft_labels`), or `in_sync` if the config says so. Without `soft_labels`
    nothing is compared. A value that is not finite raises StoreError, which names the clip and the array.
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
        self.projections = soft_labels and config.labels == "content"
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
            d = draw(self.corpus, self.real, self.config, At(self.seed, epoch, position), row)
            rng = np.random.default_rng([self.seed, epoch, position, 2])
            rows.append(self._window(d, rng))
        drawn = [part for row in rows for part in row.pop("drawn")]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        vsr, asr = batch.pop("vsr", None), batch.pop("asr", None)
        face, voice = batch.pop("face"), batch.pop("voice")
        batch["soft_mask"] = face[:, None] & voice[None, :]
        batch["lips_mask"], batch["sound_mask"] = face, voice
        batch["lips_rows"] = batch["sound_rows"] = np.zeros((*face.shape, 0), np.float32)
        if self.soft_labels and self.config.labels == "sync":
            batch["soft"] = in_sync(batch["clip"], batch["start"], self.config.window)
        elif self.soft_labels:
            fit = self.reader.fit
            assert fit is not None
            assert vsr is not None
            assert asr is not None
            corpora = [str(self.corpus.corpus[row]) for row in key.clips]
            batch["soft"] = soft_labels(vsr, asr, batch["soft_mask"], fit, corpora)
            of_lips, of_sound = unit_rows(vsr, fit), unit_rows(asr, fit)
            if of_lips is not None and of_sound is not None:
                batch["lips_rows"], batch["sound_rows"] = of_lips, of_sound
            odd = np.flatnonzero(~np.isfinite(batch["soft"]).all((1, 2)))
            if len(odd):
                clip = self.reader.clips["id"][key.clips[odd[0]]]
                raise StoreError(
                    f"clip {clip}: its soft labels are not finite though its projections are, so the fit of {self.path} is "
                    f"damaged (calibration of {corpora[odd[0]]}); precompute.py --refit rewrites it"
                )
        else:
            batch["soft"] = np.zeros(batch["soft_mask"].shape, np.float32)
            batch["soft_mask"][:] = False
        if self.config.pseudo_share:
            batch |= together(drawn, self.config.window)
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in batch.items()}

    def _window(self, d: Draw, rng: np.random.Generator) -> dict[str, Any]:
        """One window, padded to the full length with zeros."""
        lips_names, sound_names = [self.config.picture, "flags", "fake"], ["audio", "flags"]
        if self.config.pseudo_share:
            lips_names.append("lips")
        if self.projections:
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
            "picture": padded(picture, t),
            "audio": padded(audio, t * SAMPLES_PER_FRAME),
            "mask": np.arange(t) < d.length,
            "label": np.float32(label),
            "label_weight": np.float32(self._weight(d, label)),
            "frame_label": padded(frame_label.astype(np.float32), t, fill=-1),
            "clip": np.array([d.lips, d.sound]),
            "start": np.array([d.lips_start, d.sound_start]),
            "face": padded(evident(lips["flags"]), t),
            "voice": padded((sound["flags"] & VOICE_ACTIVE) > 0, t),
        }
        out["drawn"] = self._drawn(d, lips, rng) if self.config.pseudo_share else []
        if self.projections:
            for side, row, start, found in (
                ("vsr", d.lips, d.lips_start, lips),
                ("asr", d.sound, d.sound_start, sound),
            ):
                name = f"{side}_projection"
                out[side] = padded(finite(self.reader, name, row, start, found[name]), t)
        return out

    def _drawn(self, d: Draw, lips: dict[str, np.ndarray], rng: np.random.Generator) -> list[Drawn]:
        """Windows for the texture branch out of the pictures of this one, whatever its sound: a forged one as it is; of a
        real one the window and a pseudo-fake, as often as `pseudo_share` says, each time under another nuisance."""
        forged, face = self.corpus.pictured[d.lips], evident(lips["flags"])
        odd = np.flatnonzero(face & ~np.isfinite(lips["lips"]).all((1, 2)))
        if len(odd):
            raise StoreError(
                f"clip {self.reader.clips['id'][d.lips]}: frames/lips is not finite at frame {d.lips_start + odd[0]}, though a "
                "face was detected, so no pseudo-fake can be made; train with --pseudo-share 0, or precompute the clip again"
            )
        if forged == 1:
            return [of_forged(lips["mouth"], face, lips["fake"] != 0, rng)]
        if forged != 0:
            return []
        whole, rest = divmod(self.config.pseudo_share, 1)
        count = int(whole) + int(rng.random() < rest)
        window = Window(lips["mouth"], in_crop(lips["lips"]))
        return [part for _ in range(count) for part in of_real(window, face, self._other(d), rng)]

    def _other(self, d: Draw) -> Callable[[np.random.Generator], Window]:
        """Reads a window of a real clip that is stored near this one."""

        def read(rng: np.random.Generator) -> Window:
            near = int(np.searchsorted(self.real, d.lips) + rng.integers(-NEIGHBOURS, NEIGHBOURS + 1))
            row = int(self.real[near % len(self.real)]) if len(self.real) else d.lips
            start = int(self.corpus.start[row] + rng.integers(self.corpus.length[row] - d.length + 1))
            found = self.reader.frames(row, start, start + d.length, ["mouth", "lips"])
            return Window(found["mouth"], in_crop(found["lips"]))

        return read

    def _labels(self, d: Draw, fake: np.ndarray) -> tuple[int, np.ndarray]:
        """Label of the window and of its frames [length]: 0, 1 or -1."""
        if d.kind == SWAP or (d.kind == SHIFT and abs(d.shift) >= self.config.min_fake_shift):
            return 1, np.ones(d.length, np.int8)
        if d.kind == SHIFT:
            return -1, np.full(d.length, -1, np.int8)
        return labels(self.reader, d.lips, int(self.corpus.label[d.lips]), d.lips_start, fake)

    def _weight(self, d: Draw, label: int) -> float:
        return 0.0 if label < 0 else float(self.corpus.weight[d.lips]) * self.class_weight[label]


def soft_labels(vsr: np.ndarray, asr: np.ndarray, mask: np.ndarray, fit: Fit, corpora: list[str]) -> np.ndarray:
    """Soft label f4 [B, B, T] of every lips row b with every sound row c, from projections [B, T, K] and mask [B, B, T].

    All pairs of one corpus are concatenated, separated by masked rows, and compared in one call; the calibration is
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


def in_sync(clip: np.ndarray, start: np.ndarray, frames: int) -> np.ndarray:
    """Label f4 [B, B, frames] of every lips row b with every sound row c without teachers: 1 if they are of one clip and
    the same moment, else 0.

    clip, start i8 [B, 2]: row of lips and of sound in the clips table, and the first frame of each. The label is hard: a
    shift of one frame counts as 0, as another clip does.
    """
    same = (clip[:, None, 0] == clip[None, :, 1]) & (start[:, None, 0] == start[None, :, 1])
    return np.repeat(same[..., None], frames, axis=2).astype(np.float32)


class Keys(Sampler[Key]):
    """The batches of one rank from `position` of `epoch` onwards; every rank has the same number.

    `micro` = windows of all ranks together. The rest of an epoch is used if it gives each rank at least two windows.
    """

    def __init__(self, corpus: Corpus, config: DataConfig, seed: int, rank: int, world: int) -> None:
        self.corpus, self.config, self.seed, self.rank, self.world = corpus, config, seed, rank, world
        self.epoch, self.position = 0, 0
        self.micro = config.batch_size * world
        self.windows = int((corpus.length[corpus.rows] // config.window).sum())

    def ends(self, position: int) -> list[int]:
        """Positions at which the micro-batches from `position` onwards end."""
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


def loader(windows: Windows, keys: Keys, num_workers: int, pin_memory: bool) -> DataLoader[dict[str, torch.Tensor]]:
    """Batches in the order of `keys`. Workers are spawned (a fork after the start of zarr's event loop hangs) and kept
    for the run."""
    return DataLoader(
        windows,
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        multiprocessing_context="spawn" if num_workers else None,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )
