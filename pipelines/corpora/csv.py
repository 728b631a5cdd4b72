"""A manifest file, CSV or Parquet, as a corpus of its own."""

from pathlib import Path

from pipelines.corpora import fields, manifest
from store.place import Place


@manifest.reads_urls
def rows(path: Path | Place) -> list[manifest.Row]:
    """Rows of the manifest at `path`; relative paths in it start at its folder, or at --root."""
    if path.is_dir() if isinstance(path, Path) else not path.exists():
        raise fields.ManifestError(f"csv:{path} is a folder; name the manifest file, or use folder:{path}")
    return manifest.read(path)
