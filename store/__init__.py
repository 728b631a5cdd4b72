"""What the bytes mean: the layout of a store, its writer and reader, and the arithmetic of similarity."""

from store.layout import StoreError
from store.reader import Reader, open
from store.writer import Writer, create

__all__ = ["Reader", "StoreError", "Writer", "create", "open"]
