"""Places for bytes: a local folder or file, or a prefix of a bucket (s3://, gs://), with the same few operations.

`place(x)` takes a path, a file:// URL or a bucket's URL; "/" joins. Writes are atomic: locally a temporary file is
flushed and renamed, in a bucket it is one request (`store.place.bucket`). Missing files raise FileNotFoundError on
both; a persistent network failure raises StoreError.

In a `confined` place, such as a store, no symbolic link below its folder is followed, neither to read nor to write, and
only regular files are opened. The folder itself may be a link.

Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS ...), from
the machine's role, or from `options`, which no message and no `repr` shows (`concord.secrets`). They are passed on only
when a place is pickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import unquote

from concord import secrets
from store.layout import StoreError
from store.place.base import KINDS, Changed, Opened, Outside, Place
from store.place.folder import Folder

__all__ = ["KINDS", "Changed", "Folder", "Opened", "Outside", "Place", "is_url", "place"]


def place(location: str | os.PathLike[str] | Place, options: Mapping[str, str] | None = None) -> Place:
    """The place that a path or URL names; a place is returned unchanged. Raises StoreError for other URLs.

    A folder keeps `options` too, for code that then asks for other places.
    """
    if isinstance(location, Place):
        return location
    text = os.fspath(location)
    scheme, separator, rest = text.partition("://")
    if not separator or os.sep in scheme:
        return Folder(text, options)
    if scheme == "file":
        return Folder(unquote(rest, errors="surrogateescape"), options)
    if scheme not in KINDS:
        raise StoreError(
            f"{secrets.redact(text)}: {scheme}:// is not known; use a path, {', '.join(f'{k}://' for k in KINDS)} or file://"
        )
    bucket, _, key = rest.partition("/")
    signed = "?" in key and secrets.redact(text) != text
    if not bucket or signed or set("@?#") & set(bucket) or any(part in (".", "..") for part in key.split("/")):
        raise StoreError(
            f"{scheme}:// takes BUCKET/PREFIX, without credentials, queries or dots: {scheme}://bucket/store.zarr"
        )
    from store.place.bucket import Bucket  # inside, because it needs obstore

    return Bucket("/".join([f"{scheme}://{bucket}", *(part for part in key.split("/") if part)]), options)


def is_url(location: str | os.PathLike[str] | Place) -> bool:
    """Whether this names something that is not on this machine's file system."""
    if isinstance(location, Place):
        return not isinstance(location, Folder)
    scheme, separator, _ = os.fspath(location).partition("://")
    return bool(separator) and os.sep not in scheme and scheme != "file"
