"""`python -m pipelines.manifest`: build, validate, edit, split, match and summarise manifests.

`Row` and `ManifestError` are imported on first use: adapters in other packages may import them from here.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name not in ("ManifestError", "Row"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipelines.corpora import manifest

    return getattr(manifest, name)
