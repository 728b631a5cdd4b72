"""Identity of the store and versions that a run's figures refer to, and the memory that the run used."""

from __future__ import annotations

import hashlib
import json
import platform
import resource
from collections.abc import Iterable
from typing import Any

import accelerate
import numpy as np
import torch

from store import Reader


def store_identity(reader: Reader) -> dict[str, str]:
    """Identity of a store: hashes of its attributes, of its clips (everything that describes and splits them), and of
    the basis of its soft labels (teachers, fit and calibration)."""
    attrs, c = reader.attrs, reader.clips
    columns = ("length", "label", "done", "corpus", "split", "method", "group")
    table = json.dumps([[str(x) for x in c["id"]], *(np.asarray(c[k]).tolist() for k in columns)])
    fit = hashlib.sha256(_text({name: attrs.get(name) for name in ("teachers", "similarity", "fps", "sample_rate")}))
    _feed(fit, reader.fit.to_arrays() if reader.fit is not None else {})
    return {
        "path": str(reader.path),
        "attrs": hashlib.sha256(_text(attrs)).hexdigest()[:16],
        "clips": hashlib.sha256(table.encode()).hexdigest()[:16],
        "fit": fit.hexdigest()[:16],
    }


def shards_digest(reader: Reader, names: Iterable[str]) -> str:
    """A hash of the contents of frames/NAME for these names, from the store's inventory of shards; "" if the inventory
    has no entry: older stores, and stores that a run has open."""
    known = getattr(reader.inventory, "shards", {})
    found = {name: known[name] for name in names if name in known}
    return hashlib.sha256(_text(found)).hexdigest()[:16] if found else ""


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _feed(found: Any, tree: Any) -> None:
    """Names, types, shapes and bytes of a nested dict of arrays, sorted by name."""
    for name in sorted(tree, key=str):
        value = tree[name]
        if isinstance(value, dict):
            found.update(_text([str(name), "group"]))
            _feed(found, value)
        elif isinstance(value, np.ndarray) and value.dtype.kind not in "OTU":
            found.update(_text([str(name), value.dtype.str, value.shape]))
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            found.update(_text([str(name), value.tolist() if isinstance(value, np.ndarray) else value]))


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
    }


def peak_memory() -> dict[str, int]:
    """Largest resident memory so far in MiB: of this process, and of the largest finished worker."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"process": round(own / 1024), "largest_worker": round(children / 1024)}
