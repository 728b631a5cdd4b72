"""A small store with something to learn: a hidden signal opens the mouth, shapes the sound and stands in both embeddings."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

import store
from store import layout, similarity

DIMS = 6
TEACHERS = {
    side: {"name": f"made-up-{side}:x", "sha256": side, "dim": DIMS} for side in ("asr", "vsr")
}  # no such teachers


def _signal(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Two smooth signals [frames, 2] in [0, 1]."""
    noise = rng.standard_normal((frames + 6, 2))
    smooth = sum(noise[k : k + frames] for k in range(4)) / 2
    return 1 / (1 + np.exp(-2 * smooth))


def _mouth(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """A dark ellipse on skin, as high as the first signal and as wide as the second: u1 [frames, 96, 96]."""
    y, x = np.mgrid[0:96, 0:96] - 47.5 - rng.uniform(-3, 3, (2, 1, 1))
    height, width = 3 + 22 * z[:, 0], 14 + 22 * z[:, 1]
    inside = (y / height[:, None, None]) ** 2 + (x / width[:, None, None]) ** 2 < 1
    skin = rng.uniform(120, 190) + 8 * rng.standard_normal((96, 96))
    return np.clip(np.where(inside, 45, skin) + 3 * rng.standard_normal(inside.shape), 0, 255).astype(np.uint8)


def _lips(z: np.ndarray) -> np.ndarray:
    """Points around that ellipse: f4 [frames, 40, 2]."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    size = np.stack([14 + 22 * z[:, 1], 3 + 22 * z[:, 0]], -1)[:, None]
    return (np.stack([np.cos(angle), np.sin(angle)], -1) * size).astype(np.float32)


def _sound(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """A tone whose level follows the first signal and whose pitch the second: i2 [640 * frames]."""
    t = np.arange(len(z) * 640)
    place = t / 640 - 0.5
    level, pitch = (np.interp(place, np.arange(len(z)), z[:, k]) for k in (0, 1))
    phase = 2 * np.pi * np.cumsum(300 * 2 ** (3 * pitch)) / layout.SAMPLE_RATE
    return (8000 * (0.03 + level) * np.sin(phase) + 60 * rng.standard_normal(len(t))).astype(np.int16)


def make_store(
    path: Path,
    splits: dict[str, int],
    *,
    frames: int | tuple[int, int] = 40,
    fakes: int = 0,
    groups: int = 4,
    fit: bool = True,
    seed: int = 0,
    shard_rows: int = 500,
    broken: int = 0,
    faces: bool = False,
    people: int = 0,
    fresh: bool = False,
) -> Path:
    """`splits` real clips each, `fakes` forgeries (sound of another signal) in every split, the last `broken` clips not done.

    `frames` is one length, or the least and the most. With `faces` the store has those, too: mouths in a frame of grey.
    With `people` that many are named, in turn in each split.
    A store that this process made before is copied, unless it must be `fresh`.
    """
    options = (tuple(splits.items()), frames, fakes, groups, fit, seed, shard_rows, broken, faces, people)
    if fresh or not isinstance(path, Path) or path.exists():
        return _fill(path, *options)
    return Path(shutil.copytree(_made(*options), path))


@cache
def _kept() -> tempfile.TemporaryDirectory:
    """A folder that goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="small-stores-")


@lru_cache(maxsize=16)
def _made(*options: object) -> Path:
    return _fill(Path(tempfile.mkdtemp(dir=_kept().name)) / "s.zarr", *options)


def _fill(
    path: Path,
    splits: tuple[tuple[str, int], ...],
    frames: int | tuple[int, int],
    fakes: int,
    groups: int,
    fit: bool,
    seed: int,
    shard_rows: int,
    broken: int,
    faces: bool,
    people: int,
) -> Path:
    rng = np.random.default_rng(seed)
    lengths, columns, arrays = [], [], []
    weights_v, weights_a = rng.standard_normal((2, DIMS)), rng.standard_normal((2, DIMS))
    for split, count in splits:
        for k in range(count + fakes):
            fake = k >= count
            length = frames if isinstance(frames, int) else int(rng.integers(frames[0], frames[1] + 1))
            lips, sound = _signal(rng, length), _signal(rng, length)
            if not fake:
                sound = lips
            name = f"{split or 'none'}{k:03d}{'f' if fake else 'r'}"
            columns.append(
                {
                    "id": name, "path": f"/nowhere/{name}.mp4", "corpus": "synthetic", "split": split,
                    "method": "other sound" if fake else "", "group": f"{split}-{k % groups}", "label": int(fake),
                    "audio_fake": int(fake), "video_fake": 0, "category": "RVFA" if fake else "RVRA",
                    "identities": f'["{split}-p{k % people}"]' if people else "[]",
                }
            )  # fmt: skip
            lengths.append(length)
            arrays.append(
                {
                    "mouth": _mouth(rng, lips),
                    "audio": _sound(rng, sound).reshape(length, 640),
                    "flags": np.full(length, 0b11101, np.uint8),
                    "lips": _lips(lips),
                    "fake": np.full(length, int(fake), np.int8),
                    "vsr": (lips @ weights_v + 0.15 * rng.standard_normal((length, DIMS))).astype(np.float32),
                    "asr": (sound @ weights_a + 0.15 * rng.standard_normal((length, DIMS))).astype(np.float32),
                }
            )
            if faces:
                arrays[-1]["face"] = np.pad(arrays[-1]["mouth"], ((0, 0), (8, 8), (8, 8)), constant_values=110)
    extra = layout.OPTIONAL_ARRAYS if faces else {}
    writer = store.create(path, {"asr": DIMS, "vsr": DIMS}, {"teachers": TEACHERS}, extra, shard_rows=shard_rows)
    offsets, row = [], 0
    for length in lengths:
        if row % shard_rows + length > shard_rows:
            row = -(-row // shard_rows) * shard_rows
        offsets.append(row)
        row += length
    table = {key: [c[key] for c in columns] for key in columns[0]}
    table |= {"offset": offsets, "capacity": lengths, "length": lengths, "duration": [n / 25 for n in lengths]}
    table["done"] = [int(k < len(lengths) - broken) for k in range(len(lengths))]
    writer.append_clips(table)
    writer.grow_rows(row)
    if fit:
        fitted = _fit(columns, arrays)
        writer.ensure_projections(fitted.dims)
        writer.write_fit(fitted.to_arrays())
        for a in arrays:
            a["vsr_projection"] = similarity.project_vsr(a["vsr"], fitted)
            a["asr_projection"] = similarity.project_asr(a["asr"], fitted)
            a["similarity"] = similarity.compare(a["vsr_projection"], a["asr_projection"], fitted, corpus="synthetic")
    for shard in range(writer.num_rows // shard_rows):
        block = writer.blank_shard()
        for offset, a in zip(offsets, arrays, strict=True):
            if offset // shard_rows == shard:
                for name, values in a.items():
                    block[name][offset % shard_rows : offset % shard_rows + len(values)] = values
        writer.write_shard(shard, block)
    writer.consolidate()
    return path


def _fit(columns: list[dict], arrays: list[dict]) -> similarity.Fit:
    real = [a for c, a in zip(columns, arrays, strict=True) if c["label"] == 0]
    moments = [similarity.Moments.of(a["vsr"], a["asr"]) for a in real]
    total = moments[0]
    for m in moments[1:]:
        total = total + m
    fit = similarity.fit_cca(total, 0, dims=2)
    v = [similarity.project_vsr(a["vsr"], fit) for a in real]
    s = [similarity.project_asr(a["asr"], fit) for a in real]
    maps = {}
    for window in similarity.WINDOWS:
        pairs = [(x[:30], y[:30]) for x, y in zip(v, s, strict=True)]
        swaps = [(x[:30], s[k - 1][:30]) for k, x in enumerate(v)]
        swaps = [(x[: min(len(x), len(y))], y[: min(len(x), len(y))]) for x, y in swaps]
        good, bad = (np.concatenate([similarity.scores(x, y, fit, window) for x, y in p]) for p in (pairs, swaps))
        maps[window] = similarity.fit_logistic(good, bad)
    return fit.calibrated("synthetic", maps)
