"""The same clips in the formats of others, and how each gives the same windows: WebDataset, litdata, HDF5, a memory map.

Every way is written and read as its users do it, at its best where there is a choice. WebDataset and litdata keep clips
whole; raw arrays are taken from a sample's bytes without parsing. WebDataset cannot jump: it reads its files from end to
end and cuts the windows of an epoch from the clips as they pass, so it is asked for one window of every clip. HDF5 has the
store's chunks of 25 rows. What compresses with zstd does so at the store's level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import zstd

import store
from benchmarks.speed.store_reading import NAMES, WINDOW, Epoch, Place, memory_map, one_by_one

LEVEL = 9  # of zstd, as the store has it for pictures
CLIPS_A_FILE = 100  # of WebDataset: some 80 MB of raw arrays
CHUNK_BYTES = "64MB"  # of litdata: its own choice
NEEDS = {"WebDataset": "webdataset", "litdata": "litdata", "HDF5": "h5py"}
HOW = "pip install 'concord-av[benchmarks]'"

Window = dict[str, np.ndarray]


def ways() -> dict[str, Callable[[store.Reader, Path], Epoch] | str]:
    """Every way by name: a function that writes the reader's clips into a folder and returns how they are read, or one
    sentence on what to install."""
    made: dict[str, Callable[[store.Reader, Path], Epoch]] = {
        "numpy memmap": lambda reader, folder: one_by_one(memory_map(reader, folder)),
        "HDF5, raw": lambda reader, folder: hdf5(reader, folder, None),
        "HDF5, lzf": lambda reader, folder: hdf5(reader, folder, "lzf"),
        "HDF5, gzip": lambda reader, folder: hdf5(reader, folder, "gzip"),
        "WebDataset, raw": lambda reader, folder: webdataset(reader, folder, compress=False),
        "WebDataset, zstd": lambda reader, folder: webdataset(reader, folder, compress=True),
        "litdata": litdata,
    }
    found: dict[str, Callable[[store.Reader, Path], Epoch] | str] = {}
    for name, way in made.items():
        module = NEEDS.get(name.partition(",")[0])
        missing = module is not None and find_spec(module) is None
        found[name] = f"skipped: it needs {module}: {HOW}" if missing else way
    return found


def whole(reader: store.Reader) -> Iterator[tuple[int, Window]]:
    """Every clip that is done, with all its rows."""
    for i in np.flatnonzero(np.asarray(reader.clips["done"]) == 1).tolist():
        yield i, reader.frames(i, 0, int(reader.clips["length"][i]), NAMES)


def shapes(reader: store.Reader) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Type and shape of a row of each array."""
    return {name: (reader.array(name).dtype, reader.array(name).shape[1:]) for name in NAMES}


def part(arrays: dict[str, np.ndarray], start: int) -> Window:
    """A window of a clip's arrays, in memory of its own."""
    return {name: values[start : start + WINDOW].copy() for name, values in arrays.items()}


def hdf5(reader: store.Reader, folder: Path, compression: str | None) -> Epoch:
    """One dataset for each array, in chunks of the store's size."""
    import h5py

    path, rows = folder / "rows.h5", reader.array("mouth").chunk_rows
    with h5py.File(path, "w") as file:
        for name, (dtype, row) in shapes(reader).items():
            how: dict[str, Any] = {"compression": compression, "shuffle": dtype.itemsize > 1} if compression else {}
            chunks = (rows, *row) if compression else None
            data = file.create_dataset(name, (reader.num_rows, *row), dtype, chunks=chunks, **how)
            for at in range(0, reader.num_rows, reader.shard_rows):
                data[at : at + reader.shard_rows] = reader.array(name).read(at, at + reader.shard_rows)
    opened = h5py.File(path, "r")
    arrays = {name: opened[name] for name in NAMES}
    offsets = reader.clips["offset"].tolist()

    def read(clip: int, start: int) -> Window:
        at = offsets[clip] + start
        return {name: array[at : at + WINDOW] for name, array in arrays.items()}

    return one_by_one(read)


def webdataset(reader: store.Reader, folder: Path, compress: bool) -> Epoch:
    """Tar files of clips, a member for each array."""
    import webdataset as wds

    kinds = shapes(reader)
    with wds.ShardWriter(f"{folder}/%04d.tar", maxcount=CLIPS_A_FILE, maxsize=1e12, encoder=False, verbose=0) as sink:
        for i, arrays in whole(reader):
            parts = {name: np.ascontiguousarray(values).tobytes() for name, values in arrays.items()}
            packed = {f"{name}.raw": zstd.compress(data, LEVEL) if compress else data for name, data in parts.items()}
            sink.write({"__key__": f"{i:08}", **packed})
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]

    def epoch(places: Sequence[Place]) -> Iterator[tuple[Place, Window]]:
        starts = dict(places)
        assert len(starts) == len(places), "one window of a clip in an epoch"
        for sample in wds.WebDataset(urls, shardshuffle=False, empty_check=False):
            i = int(sample["__key__"])
            if i not in starts:
                continue
            arrays = {}
            for name, (dtype, row) in kinds.items():
                data = sample[f"{name}.raw"]
                arrays[name] = np.frombuffer(zstd.decompress(data) if compress else data, dtype).reshape(-1, *row)
            yield (i, starts[i]), part(arrays, starts[i])

    return epoch


def litdata(reader: store.Reader, folder: Path) -> Epoch:
    """litdata's chunks of whole clips, read by their number."""
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    writer, number = BinaryWriter(str(folder), chunk_bytes=CHUNK_BYTES), {}
    for k, (i, arrays) in enumerate(whole(reader)):
        writer[k] = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        number[i] = k
    writer.done()
    writer.merge(1)
    dataset = StreamingDataset(str(folder))
    return one_by_one(lambda clip, start: part(dataset[number[clip]], start))


def megabytes(folder: Path) -> float:
    """Size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def differences(expected: Iterable[tuple[Place, Window]], found: Iterable[tuple[Place, Window]]) -> list[str]:
    """The windows, and their arrays, that are not the same in both."""
    wanted, got = dict(expected), dict(found)
    if wanted.keys() != got.keys():
        return [f"{len(got)} windows instead of {len(wanted)}"]
    return [
        f"{name} of clip {clip} from frame {start}"
        for (clip, start), window in wanted.items()
        for name in NAMES
        if not np.array_equal(window[name].view("u1"), got[clip, start][name].view("u1"))
    ]
