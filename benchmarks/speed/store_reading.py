"""Training windows per second from a store: the project's reader, zarr-python, zarrs, the least that reading takes, the
codec alone and a raw memory map.

    python -m benchmarks store_reading                      # 45,000 rows from the four clips that the project ships
    python -m benchmarks store_reading --store grid.zarr    # from a store that exists (done clips of 75 frames or more)
    python -m benchmarks store_reading --chunks 15,25,75    # compare inner chunk sizes

A window is 75 frames (3 s) of mouth, audio, flags, asr_projection, vsr_projection and similarity, at random places in random
clips, one process, files in the page cache. Ways take turns (A B A B ...) on the same windows; the table gives median and range
of windows a second, processor time a window (all threads), and the ratio of speeds to zarr-python round by round, which is what
counts: absolute figures depend on the machine and on what else it does. Mouth crops are
the lower middle of real GRID frames, moved and mirrored from one repeat to the next, sound is real; embeddings are noise, which
compresses worse than real ones do.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc, zstd

import store
from store import layout, similarity
from store.arrays.chunks import RESIDUE

NAMES = ("mouth", "audio", "flags", "asr_projection", "vsr_projection", "similarity")
WINDOW = 75
CLIPS = Path(__file__).parents[2] / "tests" / "data" / "grid" / "clips"

Place = tuple[int, int]  # clip, start frame
Read = Callable[[int, int], Any]  # (clip, start frame) -> window
Epoch = Callable[[Sequence[Place]], Iterable[tuple[Place, Any]]]  # windows with their places, in an order of its own


def real_rows(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Grey frames u1 [rows, height, width] and sound i2 [rows, 640] of the clips in a folder, 75 rows a clip."""
    import av

    frames, sounds = [], []
    for path in sorted(folder.glob("*.mp4")):
        with av.open(str(path)) as container:
            frames.append(np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])[:WINDOW])
        with av.open(str(path)) as container:
            resampler = av.AudioResampler("s16", "mono", layout.SAMPLE_RATE)
            parts = [o.to_ndarray()[0] for f in container.decode(audio=0) for o in resampler.resample(f)]
        sound = np.concatenate(parts)[: WINDOW * layout.SAMPLES_PER_FRAME]
        sounds.append(np.pad(sound, (0, WINDOW * layout.SAMPLES_PER_FRAME - len(sound))).reshape(WINDOW, -1))
    return np.concatenate(frames), np.concatenate(sounds)


def build(
    path: Path,
    rows: int,
    chunk_rows: int,
    lengths: tuple[int, ...] = (75, 88, 131),
    material: tuple[np.ndarray, np.ndarray] | None = None,
    fit: bool = False,
) -> store.Reader:
    """A store of at least `rows` rows in clips of mixed lengths, so that windows do not begin with a chunk.

    `material`: frames u1 [n, 288, 360] and sound i2 [m, 640] in place of the shipped clips'. With `fit` it can be trained on.
    """
    frames, sound = material or real_rows(CLIPS)
    shard_rows = layout.SHARD // chunk_rows * chunk_rows
    about = {"held_pictures": True}  # as in a store of today, whose reader does not look for them
    writer = store.create(path, {"asr": 384, "vsr": 80}, about, chunk_rows=chunk_rows, shard_rows=shard_rows)
    total, rng = writer.grow_rows(rows), np.random.default_rng(0)
    writer.ensure_projections(32)
    source = np.concatenate([np.arange(len(frames)), np.arange(len(frames))[::-1]])  # forth and back, without jumps
    offsets: list[int] = []
    used: list[int] = []
    for shard in range(total // shard_rows):
        arrays = writer.blank_shard([*NAMES, "lips", "fake"])
        arrays["fake"][:] = 0
        for at in range(0, shard_rows, 300):
            count = min(300, shard_rows - at)
            dy, dx = rng.integers(-10, 11, 2)
            rows_of = source[(at + np.arange(count)) % len(source)]
            crop = frames[rows_of, 180 + dy : 276 + dy, 132 + dx : 228 + dx]
            arrays["mouth"][at : at + count] = crop[..., ::-1] if rng.random() < 0.5 else crop
            arrays["audio"][at : at + count] = sound[rows_of % len(sound)]
        arrays["flags"][:] = layout.IN_USE | layout.AUDIO_PRESENT | layout.FACE_DETECTED
        arrays["flags"] |= np.repeat(rng.integers(0, 2, shard_rows // 25 + 1, "u1") * layout.VOICE_ACTIVE, 25)[
            :shard_rows
        ]
        for name in ("asr_projection", "vsr_projection", "lips"):
            arrays[name] = rng.normal(size=arrays[name].shape).astype("f2")
        arrays["similarity"] = rng.random(shard_rows).astype("f2")
        writer.write_shard(shard, arrays)
        at = 0
        while at + (length := lengths[len(used) % len(lengths)]) <= shard_rows:
            offsets.append(shard * shard_rows + at)
            used.append(length)
            at += length
    columns = {"offset": offsets, "capacity": used, "length": used, "done": [1] * len(used), "label": [0] * len(used)}
    names = {"id": [f"clip{k:05}" for k in range(len(used))], "corpus": ["made"] * len(used)}
    writer.append_clips({**names, **columns})
    if fit:
        writer.write_fit(_fit().to_arrays())
    writer.consolidate()
    return store.open(path)


def _fit() -> similarity.Fit:
    """A fit of noise, of the sizes of a real one: comparing costs what it does, and means nothing."""
    rng = np.random.default_rng(2)
    vsr, asr = (rng.normal(size=(1000, dim)).astype(np.float32) for dim in (80, 384))
    fit = similarity.fit_cca(similarity.Moments.of(vsr, asr), 0, dims=32)
    good, bad = rng.normal(1, 1, 500), rng.normal(0, 1, 500)
    return fit.calibrated("made", {window: similarity.fit_logistic(good, bad) for window in similarity.WINDOWS})


def one_by_one(read: Read) -> Epoch:
    """A way that can begin anywhere."""
    return lambda places: ((place, read(*place)) for place in places)


def our_reader(reader: store.Reader) -> Read:
    return lambda clip, start: reader.frames(clip, start, start + WINDOW, NAMES)


def zarr_python(reader: store.Reader, pipeline: str) -> Read:
    """Plain `zarr.open` with one of its codec pipelines."""
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        group = zarr.open_group(reader.path, mode="r")
        arrays: Any = {name: group[f"frames/{name}"] for name in NAMES}
    offsets = reader.clips["offset"].tolist()

    def read(clip: int, start: int) -> Any:
        at = offsets[clip] + start
        return {name: a[at : at + WINDOW] for name, a in arrays.items()}

    return read


def codec_alone(reader: store.Reader) -> Read:
    """The lower bound for reading: the chunks of a window decoded from memory, nothing checked and nothing put
    together."""
    offsets, stored = reader.clips["offset"].tolist(), {}
    for name in NAMES:
        array = reader.array(name)
        chunks = []
        for k in range(array.shape[0] // array.shard_rows):
            shard = array.shard(k)
            chunks += [c[:-4] for c in shard.chunks(0, len(shard.entries) - 1)]
        decode = zstd.decompress if name == "mouth" else blosc.decompress
        stored[name] = array.chunk_rows, chunks, decode, np.empty((array.chunk_rows, *array.shape[1:]), array.dtype)

    def read(clip: int, start: int) -> None:
        at = offsets[clip] + start
        for rows, chunks, decode, out in stored.values():
            for data in chunks[at // rows : (at + WINDOW - 1) // rows + 1]:
                decode(data, out)

    return read


def bare(reader: store.Reader) -> Read:
    """The least that reading takes: the stored bytes of a window's chunks, their checksums, and decoding into fresh memory;
    no errors, no windows across shards."""
    offsets, found = reader.clips["offset"].tolist(), {}
    for name in NAMES:
        array = reader.array(name)
        shards = [array.shard(k) for k in range(array.shape[0] // array.shard_rows)]
        decode = zstd.decompress if name == "mouth" else blosc.decompress
        found[name] = shards, array.shard_rows, array.chunk_rows, decode, array.shape[1:], array.dtype

    def read(clip: int, start: int) -> Any:
        window = {}
        for name, (shards, shard_rows, rows, decode, row, dtype) in found.items():
            number, at = divmod(offsets[clip] + start, shard_rows)
            entries = shards[number].entries[at // rows : (at + WINDOW - 1) // rows + 1]
            out = np.empty((len(entries), rows, *row), dtype)
            for k, (offset, length) in enumerate(entries):
                data = shards[number].read(offset, length)
                if google_crc32c.value(data) != RESIDUE:
                    raise ValueError(f"a chunk of {name} fails its checksum")
                decode(memoryview(data)[:-4], out[k])
            window[name] = out.reshape(-1, *row)[at % rows :][:WINDOW]
        return window

    return read


def memory_map(reader: store.Reader, folder: Path) -> Read:
    """Raw arrays in one file each, mapped: the bytes of a copy, 2 to 3 times the disk."""
    offsets, maps = reader.clips["offset"].tolist(), {}
    for name in NAMES:
        array = reader.array(name)
        out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", array.dtype, array.shape)
        for at in range(0, array.shape[0], array.shard_rows):
            out[at : at + array.shard_rows] = array.read(at, at + array.shard_rows)
        out.flush()
        maps[name] = out

    def read(clip: int, start: int) -> Any:
        at = offsets[clip] + start
        return {name: np.array(m[at : at + WINDOW]) for name, m in maps.items()}

    return read


def measure(ways: dict[str, Epoch], places: Sequence[Place], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(windows a second, processor microseconds a window) of each way and round; ways take turns, after one warming round."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, epoch in ways.items():
            began, busy = time.perf_counter(), time.process_time()
            for _ in epoch(places):
                pass
            if turn:
                speed = len(places) / (time.perf_counter() - began)
                figures[name].append((speed, (time.process_time() - busy) / len(places) * 1e6))
    return figures


def places_in(reader: store.Reader, count: int) -> list[tuple[int, int]]:
    """Random windows inside clips that are done and long enough."""
    rng, length = np.random.default_rng(1), reader.clips["length"]
    clips = np.flatnonzero((reader.clips["done"] == 1) & (length >= WINDOW))
    if not len(clips):
        raise click.ClickException(f"{reader.path} has no done clip of {WINDOW} frames or more")
    return [(int(i), int(rng.integers(0, length[i] - WINDOW + 1))) for i in rng.choice(clips, count)]


@click.command(epilog="Example: python -m benchmarks store_reading")
@click.option("--store", "path", type=click.Path(path_type=Path), help="Read this store instead of building one.")
@click.option("--rows", default=45_000, show_default=True, help="Rows of the store that is built.")
@click.option(
    "--chunks", default=str(layout.CHUNK), show_default=True, help="Inner chunk sizes to build, e.g. 15,25,75."
)
@click.option("--windows", default=300, show_default=True, help="Windows a round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds that count.")
def main(path: Path | None, rows: int, chunks: str, windows: int, rounds: int) -> None:
    """Print a table of windows a second, each way beside zarr-python."""
    click.echo(
        f"windows of {WINDOW} frames: {', '.join(NAMES)}; {platform.machine()}, {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}, zarr {zarr.__version__}; load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        for size in [0] if path else [int(n) for n in chunks.split(",")]:
            folder = Path(temporary) / str(size)
            folder.mkdir()
            reader = store.open(path) if path else build(folder / "s.zarr", rows, size)
            ways = {
                "zarr-python": zarr_python(reader, "zarr.core.codec_pipeline.BatchedCodecPipeline"),
                "zarrs": zarr_python(reader, "zarrs.ZarrsCodecPipeline"),
                "store.open": our_reader(reader),
                "bare": bare(reader),
                "codec alone": codec_alone(reader),
                "memory map": memory_map(reader, folder),
            }
            epochs = {name: one_by_one(read) for name, read in ways.items()}
            figures = measure(epochs, places_in(reader, windows), rounds)
            base = np.array(figures["zarr-python"])[:, 0]
            click.echo(
                f"\n{reader.num_rows} rows, chunks of {reader.array('mouth').chunk_rows}, {windows} windows x {rounds}"
            )
            click.echo(
                f"{'way':14}{'windows/s':>10}{'range':>16}{'CPU us/window':>16}{'x zarr-python':>16}{'of codec, CPU':>16}"
            )
            floor = np.array(figures["codec alone"])[:, 1]
            for name, values in figures.items():
                speed, busy = np.array(values).T
                span, ratio = f"{speed.min():.0f}-{speed.max():.0f}", np.median(speed / base)
                of_codec = np.median(floor / busy)
                click.echo(
                    f"{name:14}{np.median(speed):>10.0f}{span:>16}{np.median(busy):>16.0f}{ratio:>16.2f}{of_codec:>16.2f}"
                )
