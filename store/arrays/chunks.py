"""Decodes a chunk into memory of a known size; the chunk's own header must agree with it.

The libraries below trust a chunk's header. c-blosc reads as many bytes as the header claims, even past the end of the
buffer, and zstd allocates the size in the header. So both headers are checked first.
"""

from __future__ import annotations

import struct

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd

RESIDUE = 0x48674BC7  # CRC-32C of any message followed by its own CRC-32C
_BLOSC_SIZES = struct.Struct("<III")
_BLOSC_HEADER = 16  # bytes: versions, flags, type size, then u4 each: decoded bytes, bytes of a block, encoded bytes
_ZSTD_MAGIC = 0xFD2FB528


def checked(data: bytes, crc: bool) -> memoryview:
    """The chunk without its CRC-32C, which must be right; raises ValueError."""
    if not crc:
        return memoryview(data)
    if len(data) < 4 or google_crc32c.value(data) != RESIDUE:
        raise ValueError("it fails its checksum")
    return memoryview(data)[:-4]


def decode(codec: str, data: memoryview, out: np.ndarray) -> None:
    """Fill `out`, any dtype, contiguous. Raises ValueError or RuntimeError if the chunk does not match it."""
    if codec == "zstd":
        _expect(zstd_size(data), out)
        zstd.decompress(data, out)
    elif codec == "blosc":
        if len(data) < _BLOSC_HEADER:
            raise ValueError(f"it has {len(data)} bytes, fewer than a header")
        size, block, encoded = _BLOSC_SIZES.unpack_from(data, 4)
        _expect(size, out)
        if encoded != len(data):
            raise ValueError(f"it says that it has {encoded} bytes, but has {len(data)}")
        if not 0 < block <= size:
            raise ValueError(f"it says that a block has {block} of its {size} bytes")
        blosc.decompress(data, out)
    else:
        _expect(len(data), out)
        out.reshape(-1).view("u1")[:] = np.frombuffer(data, "u1")


def zstd_size(data: memoryview) -> int:
    """Decoded size that a zstd frame's header states (RFC 8878, 3.1.1.1), -1 if it states none."""
    if len(data) < 5 or int.from_bytes(data[:4], "little") != _ZSTD_MAGIC:
        raise ValueError("it is not a zstd frame")
    flags = data[4]
    single = flags >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0) if width else -1


def most_stored(size: int) -> int:
    """Bytes that are read for a chunk of `size` decoded bytes at most, with header and checksum: no codec adds more.

    Small ones may be longer, so that errors in them are found by their contents.
    """
    return max(size + size // 64 + 1024, 1 << 20)


def _expect(size: int, out: np.ndarray) -> None:
    if size != out.nbytes:
        raise ValueError(f"it holds {size} bytes, expected {out.nbytes}")
