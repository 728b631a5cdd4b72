"""The store: its layout, writer and reader, and the computation of similarity.

Names are imported when they are first used, so that a command can handle signals before heavy imports.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.creation import create
    from store.dataset.loading import Dataset, Stream, collate
    from store.layout import StoreError
    from store.reader import Reader, open
    from store.writer import Writer

__all__ = ["Dataset", "Reader", "StoreError", "Stream", "Writer", "collate", "create", "open"]
_HOMES = {
    "Dataset": "dataset.loading",
    "Reader": "reader",
    "StoreError": "layout",
    "Stream": "dataset.loading",
    "Writer": "writer",
    "collate": "dataset.loading",
    "create": "creation",
    "open": "reader",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = globals()[name] = getattr(import_module(f"store.{_HOMES[name]}"), name)
        return value
    try:
        return import_module(f"store.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"store.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
