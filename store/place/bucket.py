"""A prefix of a bucket as a place for a store, by obstore.

A request is made again after a 5xx answer, a dropped connection or a time-out, by obstore, and here where an answer breaks off
in its middle. One that fails for good is a StoreError that names the object. An object appears whole or not at all: by one PUT,
or a multipart upload (those that a kill leaves unfinished cost money until a lifecycle rule of the bucket removes them).
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import IO, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from concord import secrets
from store.layout import StoreError
from store.place.base import KINDS, Changed, Opened, Place
from store.place.bucket_store import BucketStore

A = TypeVar("A")
B = TypeVar("B")

REQUESTS = 16  # at the same time, of one reader or writer
# Waits between tries are random and grow from 0.1 s by half each on average: about half a minute in all.
RETRY: Any = {"max_retries": 12, "retry_timeout": timedelta(minutes=3), "backoff": {"base": 3}}
CLIENT = {"timeout": "120s", "connect_timeout": "10s"}  # an option may say otherwise
# For a lock, where a late answer is of no use.
HASTY_RETRY: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=8)}
HASTY_CLIENT = {"timeout": "4s", "connect_timeout": "4s"}
WHOLE = 64 << 20  # bytes sent by one request; more go in parts
PART = 16 << 20

Tag = dict[str, str]  # what tells one state of an object from another: its "e_tag", and its "version" where it has one


class Bucket(Place):
    """What lies under a URL such as s3://BUCKET/PREFIX."""

    def __init__(self, location: str, options: Mapping[str, str] | None = None, hasty: bool = False):
        super().__init__(location, options)
        self._hasty = hasty
        self.scheme, _, rest = location.partition("://")
        self.bucket, _, key = rest.partition("/")
        self.key = key.rstrip("/")

    def __truediv__(self, key: str) -> Bucket:
        return Bucket(f"{self.location}/{key}", self.options, self._hasty)

    def hasty(self) -> Bucket:
        """The same place, with short time limits."""
        return Bucket(self.location, self.options, True)

    @property
    def path(self) -> str:
        return self.location

    def ask(self, request: Callable[[Any, str], A]) -> A:
        """Answer of request(client, key). Raises FileNotFoundError, Changed, or StoreError where it cannot be had."""
        client = _client(self.scheme, self.bucket, tuple(sorted(self.options.items())), self._hasty)
        for left in reversed(range(RETRY["max_retries"] + 1)):
            try:
                return request(client, self.key)
            except (BaseError, FileNotFoundError) as error:
                if left and "response body" in str(error):  # it broke off; obstore itself begins again only with some
                    continue
                raise self._error(error) from _clean(error)
            except BaseException as error:
                if type(error).__name__ != "PanicException":  # of obstore's Rust, which no module gives
                    raise
                raise self._error(GenericError(f"the object store's client failed: {error}")) from None
        raise AssertionError

    def _error(self, error: Exception) -> Exception:
        why = secrets.redact(str(error))
        if isinstance(error, PreconditionError | AlreadyExistsError):
            return Changed(f"{self} was replaced")
        if "NoSuchBucket" in why:
            return StoreError(f"{self}: there is no bucket {self.bucket}; make it, or check the URL")
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.location)
        do = "check the network and the address (AWS_ENDPOINT_URL, --storage-option aws_endpoint=URL), then try again"
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or "169.254.169.254" in why:
            do = "give credentials that may use it, in the environment or by --storage-options-file"
        return StoreError(f"{self} cannot be reached ({why.splitlines()[0][:300]}); {do}")

    def exists(self) -> bool:
        try:
            self.ask(obstore.head)
        except FileNotFoundError:
            return False
        return True

    def read(self) -> bytes:
        return self.ask(lambda client, key: bytes(obstore.get(client, key).bytes()))

    def open(self, tail: int = 0) -> Opened:
        return _Object(self, tail)

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        with tempfile.SpooledTemporaryFile(WHOLE) as file:
            yield file  # type: ignore[misc]
            self._put(file, file.seek(0, os.SEEK_END))

    def write(self, data: bytes) -> None:
        self._put(data, len(data))

    def _put(self, data: bytes | IO[bytes], size: int) -> None:
        def put(client: Any, key: str) -> None:
            if not isinstance(data, bytes):
                data.seek(0)
            obstore.put(client, key, data, use_multipart=size > WHOLE, chunk_size=PART, max_concurrency=4)

        self.ask(put)

    def swap(self, data: bytes, tag: Tag | None) -> Tag:
        """Write, if here is still what `tag` tells (None: nothing); the new tag. Raises Changed where it is not."""
        mode: Any = "create" if tag is None else tag
        return _tag(self.ask(lambda client, key: obstore.put(client, key, data, mode=mode)))

    def read_tagged(self) -> tuple[bytes, Tag]:
        """All bytes, and the tag for `swap`."""

        def get(client: Any, key: str) -> tuple[bytes, Tag]:
            got = obstore.get(client, key)
            return bytes(got.bytes()), _tag(got.meta)

        return self.ask(get)

    def walk(self) -> Iterator[tuple[str, int]]:
        batches = self.ask(lambda client, key: list(obstore.list(client, key, chunk_size=1000)))
        for found in itertools.chain.from_iterable(batches):
            yield found["path"][len(self.key) + 1 if self.key else 0 :], found["size"]

    def names(self) -> list[str]:
        found = self.ask(obstore.list_with_delimiter)
        paths = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return sorted({path.rpartition("/")[2] for path in paths})

    def delete(self) -> None:
        with suppress(FileNotFoundError):  # Google says so, Amazon does not
            self.ask(obstore.delete)

    def zarr(self) -> BucketStore:
        return BucketStore(self)

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        with ThreadPoolExecutor(REQUESTS) as pool:
            return list(pool.map(function, items))


def _clean(error: Exception) -> Exception:
    """The same error for tracebacks, without secrets: its text ends with all that the request was made of."""
    return type(error)(secrets.redact(str(error)))


def _tag(meta: Any) -> Tag:
    return {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}


class _Object(Opened):
    """Reads are of the object as it was when opened; raises Changed where it has been replaced since."""

    def __init__(self, where: Bucket, tail: int):
        self._where, self.name, self.tail = where, where.name, b""

        def get(client: Any, key: str) -> Any:
            if tail:
                try:
                    got = obstore.get(client, key, options={"range": {"suffix": tail}})
                    self.tail = bytes(got.bytes())
                    return got.meta
                except GenericError as error:  # how an empty object answers, and a server that has no suffixes
                    if "response body" in str(error):
                        raise
            return obstore.head(client, key)

        meta = where.ask(get)
        self.size, self._tag = meta["size"], meta["e_tag"]
        if tail and not self.tail:
            self.tail = self.read(max(0, self.size - tail), tail)

    def read(self, offset: int, length: int) -> bytes:
        stop = min(offset + length, self.size)
        if offset >= stop:
            return b""
        options: Any = {"range": (offset, stop), "if_match": self._tag}
        return self._where.ask(lambda client, key: bytes(obstore.get(client, key, options=options).bytes()))


@functools.lru_cache(maxsize=64)
def _client(scheme: str, bucket: str, options: tuple[tuple[str, str], ...], hasty: bool) -> Any:
    """One client a bucket and process, since it keeps connections; options that begin with another kind's name are not its."""
    from obstore.store import GCSStore, S3Store

    others = tuple(start for kind, start in KINDS.items() if kind != scheme)
    try:
        told = secrets.from_environment() | dict(options)
    except secrets.OptionError as error:
        raise StoreError(str(error)) from error
    secrets.know(told)
    config: Any = {**CLIENT, **{key: value for key, value in told.items() if not key.lower().startswith(others)}}
    _check_addresses(told)
    config |= HASTY_CLIENT if hasty else {}
    try:
        kind: Any = {"s3": S3Store, "gs": GCSStore}[scheme]
        return kind(bucket, config=config, retry_config=HASTY_RETRY if hasty else RETRY)
    except (BaseError, ValueError) as error:
        why = secrets.redact(str(error)).splitlines()[0]
        wrong = sorted(key for key, value in told.items() if len(value) > 2 and value in str(error))
        for key in wrong:  # whatever it is, it may be secret
            why = re.sub(rf"(?<!\w){re.escape(told[key])}(?!\w)", secrets.HIDDEN, why)
        which = f" (option {', '.join(wrong)})" if wrong else ""
        raise StoreError(f"{scheme}://{bucket} cannot be used as asked{which}: {why}") from None


def _check_addresses(options: Mapping[str, str]) -> None:
    """Raises StoreError for an invalid address: obstore's Rust panics over it, and shows it."""
    known = {**{key: value for key, value in os.environ.items() if key.startswith(("AWS_", "GOOGLE_"))}, **options}
    for key, value in known.items():
        if re.search(r"endpoint|proxy_url|_url$", key.lower()):
            try:
                urlsplit(value).port  # noqa: B018 - what it is decides
                good = re.fullmatch(r"[\x21-\x7e]*", value)
            except ValueError:
                good = None
            if not good:
                raise StoreError(
                    f"{key} is not an address; give http(s)://HOST:PORT, with special characters of a password as %XX"
                )
