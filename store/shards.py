"""Reading windows out of sharded Zarr arrays: one read (a bucket's: request) a window and array, each inner chunk decoded once.

zarr-python spends about a millisecond a call on planning; a training window needs six arrays. Here the metadata of an array is
parsed once, the index at the end of a shard is read once and kept with the open file, and chunks are decoded straight into the
answer by numcodecs. Nothing is guessed: index and chunks must match their CRC-32C, a chunk must decode to its exact size, and
one that is not there is an error. Shards are replaced whole: a file that is open stays what it was, and an object that was
replaced is opened again.

Format: Zarr v3 core, codec "sharding_indexed" (version 1.0). Arrays cut along the first axis alone, with the codecs that
`store.nodes` writes: bytes, then zstd or blosc or nothing, then crc32c or nothing.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd

from store.layout import StoreError
from store.place import Changed, Place

OPEN_FILES = 256  # shards kept open a reader; a process may usually have 1,024 files
ABSENT = (2**64 - 1, 2**64 - 1)  # (offset, length) of a chunk that is not in a shard
_RESIDUE = 0x48674BC7  # CRC-32C of any message followed by its own CRC-32C
_GAP = 1 << 16  # bytes between two wanted chunks that are read along rather than asked for apart


class Damage(Exception):
    """Rows that cannot be given: what is wrong, without the clip, which the caller knows."""


class Shard:
    """An open shard and its index; closed when the last one who uses it lets go."""

    def __init__(self, path: Place, num_chunks: int, index_first: bool, index_crc: bool):
        """Raises Damage for a file that is missing, too short, or whose index is broken."""
        length = 16 * num_chunks + (4 if index_crc else 0)
        try:
            self._opened = path.open(0 if index_first else length)
        except FileNotFoundError:
            raise Damage(f"{path} is missing") from None
        except OSError as e:
            raise Damage(f"{path} cannot be opened: {e.strerror}") from e
        self.path = path
        size = self._opened.size
        if size < length:
            raise Damage(f"{path} is cut short ({size} bytes, its index alone has {length})")
        index = self.read(0, length) if index_first else self._opened.tail
        if index_crc and google_crc32c.value(index) != _RESIDUE:
            raise Damage(f"{path}: the index fails its checksum, the file is cut short or overwritten")
        entries = np.frombuffer(index, "<u8", 2 * num_chunks).tolist()
        self.entries: list[tuple[int, int]] = list(zip(entries[::2], entries[1::2], strict=True))
        if any(entry != ABSENT and sum(entry) > size for entry in self.entries):
            raise Damage(f"{path}: the index points outside the file")

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file; raises Damage where they are not all there."""
        try:
            data = self._opened.read(offset, length)
        except OSError as e:
            raise Damage(f"{self.path} cannot be read: {e.strerror}") from e
        if len(data) != length:
            raise Damage(f"{self.path} is cut short")
        return data

    def chunks(self, first: int, last: int) -> list[bytes]:
        """Stored bytes of the chunks first..last (inclusive), by one read where they lie together, as writers leave them."""
        wanted = self.entries[first : last + 1]
        for k, entry in enumerate(wanted, first):
            if entry == ABSENT:
                raise Damage(f"{self.path}: chunk {k} is missing")
        start, stop = min(o for o, _ in wanted), max(o + n for o, n in wanted)
        if stop - start > sum(n for _, n in wanted) + _GAP:
            return [self.read(offset, length) for offset, length in wanted]
        data = self.read(start, stop - start)
        return [data[offset - start : offset - start + length] for offset, length in wanted]


class ShardCache:
    """The shards used last, of all arrays of a reader; safe for threads."""

    def __init__(self, size: int = OPEN_FILES):
        self._size, self._lock = size, threading.Lock()
        self._shards: OrderedDict[tuple[str, int], Shard] = OrderedDict()

    def get(self, key: tuple[str, int], opener: Callable[[], Shard]) -> Shard:
        """The shard under that key, opened by `opener` where it is not kept."""
        with self._lock:
            shard = self._shards.get(key)
            if shard is not None:
                self._shards.move_to_end(key)
                return shard
        shard = opener()
        with self._lock:
            self._shards[key] = shard
            while len(self._shards) > self._size:
                self._shards.popitem(last=False)
        return shard

    def drop(self, name: str) -> None:
        """Forget the shards of an array."""
        with self._lock:
            for key in [key for key in self._shards if key[0] == name]:
                del self._shards[key]


class ShardedArray:
    """One array of `frames/`: shape [rows, ...], dtype, and `read` for a range of rows."""

    def __init__(self, folder: Place, cache: ShardCache, check: Callable[[str, bytes], None] = lambda key, data: None):
        """Parse the metadata, which `check` sees first; raises StoreError for an array that is not cut or coded the way this
        reader knows."""
        self.folder, self.name, self._cache = folder, folder.name, cache
        try:
            document = (folder / "zarr.json").read()
            check("zarr.json", document)
            meta = json.loads(document)
            self.shape: tuple[int, ...] = tuple(meta["shape"])
            self.dtype = np.dtype(meta["data_type"]).newbyteorder("<")
            shard = meta["chunk_grid"]["configuration"]["chunk_shape"]
            (codec,) = meta["codecs"]
            config = codec["configuration"]
            chunk = config["chunk_shape"]
            codecs = [(c["name"], c.get("configuration", {})) for c in config["codecs"]]
            index_codecs = [c["name"] for c in config["index_codecs"]]
            separator = meta["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
            known = codec["name"] == "sharding_indexed" and meta["chunk_key_encoding"]["name"] == "default"
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise StoreError(f"{folder}: the array's metadata cannot be read ({type(e).__name__}: {e})") from e
        names = [name for name, _ in codecs]
        self._crc = names[-1] == "crc32c"
        middle = names[1 : -1 if self._crc else None]
        self._decode = {(): _copy, ("zstd",): _zstd, ("blosc",): _blosc}.get(tuple(middle))
        if (
            not known
            or names[0] != "bytes"
            or self._decode is None
            or index_codecs not in (["bytes"], ["bytes", "crc32c"])
            or any(c.get("endian", "little") != "little" for _, c in codecs)
            or tuple(shard[1:]) != self.shape[1:]
            or tuple(chunk[1:]) != self.shape[1:]
            or self.shape[0] % shard[0]
        ):
            raise StoreError(
                f"{folder}: codecs {', '.join(names)} or chunks that this reader does not know; use zarr.open"
            )
        self.shard_rows, self.chunk_rows = int(shard[0]), int(chunk[0])
        self._chunks = self.shard_rows // self.chunk_rows
        self._index_first, self._index_crc = config.get("index_location", "end") == "start", len(index_codecs) == 2
        self._key = separator.join(["c", "{}"] + ["0"] * (len(self.shape) - 1))

    def shard_key(self, shard: int) -> str:
        """Key of a shard within the array."""
        return self._key.format(shard)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop, [stop - start, ...], a fresh array; raises Damage where any cannot be given as written."""
        try:
            return self._read(start, stop)
        except Changed:
            self._cache.drop(self.name)
            return self._read(start, stop)

    def _read(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        rows = self.chunk_rows
        scratch = None
        at = start
        while at < stop:
            number, within = divmod(at, self.shard_rows)
            end = min(stop, (number + 1) * self.shard_rows)
            shard = self.shard(number)
            first = within // rows
            begin = number * self.shard_rows + first * rows  # row at which the next chunk begins
            for k, data in enumerate(shard.chunks(first, (end - 1 - number * self.shard_rows) // rows), first):
                if start <= begin and begin + rows <= stop:
                    self._chunk(shard, k, data, out[begin - start : begin - start + rows])
                else:
                    if scratch is None:
                        scratch = np.empty((rows, *self.shape[1:]), self.dtype)
                    self._chunk(shard, k, data, scratch)
                    low, high = max(begin, start), min(begin + rows, stop)
                    out[low - start : high - start] = scratch[low - begin : high - begin]
                begin += rows
            at = end
        return out

    def shard(self, number: int) -> Shard:
        """An open shard, kept; raises Damage where it cannot be opened."""
        return self._cache.get((self.name, number), lambda: self.open_shard(number))

    def open_shard(self, number: int) -> Shard:
        """A shard as it is now; raises Damage where it cannot be opened."""
        return Shard(self.folder / self.shard_key(number), self._chunks, self._index_first, self._index_crc)

    def _chunk(self, shard: Shard, number: int, data: bytes, out: np.ndarray) -> None:
        if self._crc and google_crc32c.value(data) != _RESIDUE:
            raise Damage(f"{shard.path}: chunk {number} fails its checksum")
        try:
            self._decode(memoryview(data)[:-4] if self._crc else memoryview(data), out)  # type: ignore[misc]
        except (RuntimeError, ValueError, IndexError) as e:
            raise Damage(f"{shard.path}: chunk {number} cannot be decoded: {e}") from e


def _copy(data: memoryview, out: np.ndarray) -> None:
    _expect(len(data), out)
    out.reshape(-1).view("u1")[:] = np.frombuffer(data, "u1")


def _blosc(data: memoryview, out: np.ndarray) -> None:
    _expect(int.from_bytes(data[4:8], "little"), out)  # c-blosc header: decoded size in bytes 4..8
    blosc.decompress(data, out)


def _zstd(data: memoryview, out: np.ndarray) -> None:
    _expect(_zstd_size(data), out)
    zstd.decompress(data, out)


def _zstd_size(data: memoryview) -> int:
    """Decoded size that a zstd frame header states (RFC 8878, 3.1.1.1), -1 where it states none."""
    flags = data[4]
    single = flags >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0) if width else -1


def _expect(size: int, out: np.ndarray) -> None:
    if size != out.nbytes:
        raise ValueError(f"it holds {size} bytes, expected {out.nbytes}")
