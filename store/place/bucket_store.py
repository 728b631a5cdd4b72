"""A prefix of a bucket as zarr and xarray open it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from store.place.base import Place


class BucketStore(Store):
    """It asks through a place, which repeats requests that fail for a moment; zarr's own store for obstore does not."""

    supports_writes = supports_deletes = supports_listing = True

    def __init__(self, where: Place, read_only: bool = False):
        super().__init__(read_only=read_only)
        self.where = where

    def with_read_only(self, read_only: bool = False) -> BucketStore:
        return BucketStore(self.where, read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketStore) and (self.where, self.read_only) == (other.where, other.read_only)

    def __str__(self) -> str:
        return str(self.where)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        where = self.where / key

        def read() -> bytes:
            if byte_range is None:
                return where.read()
            opened = where.open(byte_range.suffix if isinstance(byte_range, SuffixByteRequest) else 0)
            if isinstance(byte_range, SuffixByteRequest):
                return opened.tail
            if isinstance(byte_range, OffsetByteRequest):
                return opened.read(byte_range.offset, opened.size)
            assert isinstance(byte_range, RangeByteRequest)
            return opened.read(byte_range.start, byte_range.end - byte_range.start)

        try:
            return prototype.buffer.from_bytes(await asyncio.to_thread(read))
        except FileNotFoundError:
            return None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread((self.where / key).exists)

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        await asyncio.to_thread((self.where / key).write, value.to_bytes())

    async def delete(self, key: str) -> None:
        self._check_writable()
        await asyncio.to_thread((self.where / key).delete)

    async def list(self) -> AsyncIterator[str]:
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in await asyncio.to_thread((self.where / prefix).files):
            yield f"{prefix.rstrip('/')}/{key}".lstrip("/")

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in await asyncio.to_thread((self.where / prefix).names):
            yield name
