"""Reads windows from sharded Zarr arrays: one request to a bucket per window and array, each inner chunk decoded once.

zarr-python spends about a millisecond per call on planning; a training window needs six arrays. Here the metadata of an
array is parsed once, the index at the end of a shard is read once and kept with the open file, and numcodecs decodes
chunks directly into the result. Nothing is guessed: index and chunks must match their CRC-32C, a chunk must decode to
its exact size, and a missing chunk is an error. Metadata, index and chunk headers may come from anyone
(`store.arrays.metadata`, `store.arrays.chunks`). Shards are replaced as a whole: an open file keeps its old content,
and a replaced object is opened again.

Format: Zarr v3 core, codec "sharding_indexed" (version 1.0). Arrays cut along the first axis alone, with the codecs that
`store.arrays.coding` writes: bytes, then zstd or blosc or nothing, then crc32c or nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial

import google_crc32c
import numpy as np

from concord import plain_json
from concord.errors import ConcordError
from store.arrays import chunks, metadata
from store.arrays.inventory import TAIL
from store.arrays.metadata import Metadata
from store.layout import StoreError
from store.place import Changed, Outside, Place

OPEN_FILES = 256  # shards kept open per reader; a process may usually open 1,024 files
ABSENT = (2**64 - 1, 2**64 - 1)  # (offset, length) of a chunk that is not in a shard
ROW_BYTES = 1 << 20  # of one frame in one array; a picture of 112 x 112 has 12,544


class Damage(ConcordError):
    """Rows that cannot be read: what is wrong, without the clip, which the caller knows."""


class Shard:
    """An open shard and its index; closed when nothing uses it any more."""

    def __init__(self, path: Place, num_chunks: int, meta: Metadata, is_known: Callable[[int, bytes], bool]):
        """`is_known` is called with the size and the last inventory.TAIL bytes of the file.

        Raises Damage for a file that is missing, too short, not known, or whose index is broken or lies.
        """
        length = 16 * num_chunks + (4 if meta.index_crc else 0)
        try:
            self._opened = path.open(max(length, TAIL))
        except FileNotFoundError:
            raise Damage(f"{path} is missing") from None
        except Outside as e:
            raise Damage(str(e)) from e
        except OSError as e:
            raise Damage(f"{path} cannot be opened: {e.strerror}") from e
        self.path = path
        size = whole = self._opened.size
        if size < length:
            raise Damage(f"{path} is cut short ({size} bytes, its index alone has {length})")
        index = self.read(0, length) if meta.index_first else self._opened.tail[-length:]
        if meta.index_crc and google_crc32c.value(index) != chunks.RESIDUE:
            raise Damage(f"{path}: the index fails its checksum, the file is cut short or overwritten")
        entries = np.frombuffer(index, "<u8", 2 * num_chunks).tolist()
        self.entries: list[tuple[int, int]] = list(zip(entries[::2], entries[1::2], strict=True))
        if any(entry != ABSENT and sum(entry) > size for entry in self.entries):
            raise Damage(f"{path}: the index points outside the file")
        end = 0
        for offset, size in sorted(entry for entry in self.entries if entry != ABSENT):
            if offset < end or size > chunks.most_stored(meta.chunk_bytes):
                raise Damage(f"{path}: the index names chunks that overlap or are longer than any can be")
            end = offset + size
        if not is_known(whole, self._opened.tail) and not self._is_torn(meta):
            raise Damage(f"{path} is not the shard that the run wrote: it was replaced or changed")

    def _is_torn(self, meta: Metadata) -> bool:
        """Whether a chunk fails its checksum: then the damage is reported chunk by chunk, and the other chunks can be read."""
        for offset, size in self.entries if meta.crc else []:
            if (offset, size) != ABSENT:
                try:
                    chunks.checked(self.read(offset, size), meta.crc)
                except ValueError:
                    return True
        return False

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file; raises Damage if some are missing."""
        try:
            data = self._opened.read(offset, length)
        except OSError as e:
            raise Damage(f"{self.path} cannot be read: {e.strerror}") from e
        if len(data) != length:
            raise Damage(f"{self.path} is cut short")
        return data

    def chunks(self, first: int, last: int) -> Iterable[bytes]:
        """Stored bytes of the chunks first..last (inclusive), in order.

        Where a read is a request, they are read together if they lie together, as writers leave them; from a disk one by one,
        so that each is used while the processor's cache has it.
        """
        wanted = self.entries[first : last + 1]
        if ABSENT in wanted:
            raise Damage(f"{self.path}: chunk {first + wanted.index(ABSENT)} is missing")
        start, stop = min(wanted)[0], max(o + n for o, n in wanted)
        if stop - start > sum(n for _, n in wanted) + self._opened.gap:
            return (self.read(offset, length) for offset, length in wanted)
        data = self.read(start, stop - start)
        return [data[offset - start : offset - start + length] for offset, length in wanted]


class ShardCache:
    """The shards used last, of all arrays of a reader; safe for threads."""

    def __init__(self, size: int = OPEN_FILES):
        self._size, self._lock = size, threading.Lock()
        self._shards: OrderedDict[tuple[str, int], Shard] = OrderedDict()

    def get(self, key: tuple[str, int], opener: Callable[[], Shard]) -> Shard:
        """The shard under that key, opened by `opener` if it is not in the cache."""
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

    def __init__(
        self,
        folder: Place,
        cache: ShardCache,
        check: Callable[[str, bytes], None],
        is_known: Callable[[int, int, bytes], bool],
    ):
        """Parse the metadata, which `check` sees first; `is_known` is asked of each shard that is opened.

        Raises StoreError for an array that is not cut or coded the way this reader knows.
        """
        self.folder, self.name, self._cache, self._is_known = folder, folder.name, cache, is_known
        try:
            content = (folder / "zarr.json").read()
            check("zarr.json", content)
            self._meta = meta = metadata.parse(plain_json.parse(content))
        except (OSError, ValueError) as e:
            raise StoreError(f"{folder}: the array's metadata cannot be read: {e}") from e
        row = meta.shape[1:]
        if (
            meta.dtype is None
            or not meta.sharded
            or not meta.shape
            or meta.file_shape[1:] != row
            or meta.chunk_shape[1:] != row
            or meta.shape[0] % meta.file_shape[0]
            or meta.chunk_bytes > ROW_BYTES * meta.chunk_shape[0]
        ):
            raise StoreError(f"{folder}: it is not cut into shards and chunks along its first axis, as frames are")
        self.shape, self.dtype = meta.shape, meta.dtype
        self.shard_rows, self.chunk_rows = meta.file_shape[0], meta.chunk_shape[0]
        self._chunks = self.shard_rows // self.chunk_rows

    def shard_key(self, shard: int) -> str:
        """Key of a shard within the array."""
        return self._meta.key((shard, *(0 for _ in self.shape[1:])))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop, [stop - start, ...], a fresh array; raises Damage if any cannot be read as written."""
        try:
            return self._read(start, stop)
        except Changed:
            self._cache.drop(self.name)
            return self._read(start, stop)

    def _read(self, start: int, stop: int) -> np.ndarray:
        if not 0 <= start <= stop <= self.shape[0]:
            raise Damage(f"{self.folder} has no rows {start} to {stop}")
        rows, many = self.chunk_rows, self._chunks
        first, last = start // rows, -(-stop // rows)  # chunks, counted through all shards
        numbers = range(first // many, -(-last // many)) if start < stop else ()
        for number in numbers:
            self.shard(number)  # before memory is allocated: the table may be wrong about a clip
        # Chunks are decoded where they stay; the rows around the window are part of the memory, not of the result.
        blocks = np.empty((last - first, rows, *self.shape[1:]), self.dtype)
        for number in numbers:
            shard, base = self.shard(number), number * many
            begin, end = max(first, base), min(last, base + many)
            for k, data in enumerate(shard.chunks(begin - base, end - 1 - base), begin):
                self._chunk(shard, k - base, data, blocks[k - first])
        whole = blocks.reshape(-1, *self.shape[1:])
        found = whole[start - first * rows : stop - first * rows]
        return found if 2 * len(found) >= len(whole) else found.copy()

    def shard(self, number: int) -> Shard:
        """An open shard, kept; raises Damage where it cannot be opened."""
        return self._cache.get((self.name, number), lambda: self.open_shard(number))

    def open_shard(self, number: int) -> Shard:
        """A shard as it is now; raises Damage where it cannot be opened."""
        return Shard(self.folder / self.shard_key(number), self._chunks, self._meta, partial(self._is_known, number))

    def _chunk(self, shard: Shard, number: int, data: bytes, out: np.ndarray) -> None:
        try:
            plain = chunks.checked(data, self._meta.crc)
        except ValueError:
            raise Damage(f"{shard.path}: chunk {number} fails its checksum") from None
        try:
            chunks.decode(self._meta.codec, plain, out)
        except (RuntimeError, ValueError, IndexError) as e:
            raise Damage(f"{shard.path}: chunk {number} cannot be decoded: {e}") from e
