"""Runs the notebooks of the docs, in the tests and for their outputs.

    python tests/support/notebooks.py     # runs each and writes its outputs into it anew

The store that they look at is /tmp/grid.zarr, or `$CONCORD_STORE`; they make it where it is not there.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "notebooks"
LIMIT = 600  # seconds of a cell: one of them may make a store
PLOTS = "module://matplotlib_inline.backend_inline"  # whatever the tests draw with


def executed(file: Path, path: Path | str) -> nbformat.NotebookNode:
    """The notebook with new outputs, looking at the store at `path`. Raises nbclient's error where a cell fails."""
    notebook = nbformat.read(file, as_version=4)
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    client = NotebookClient(
        notebook, timeout=LIMIT, startup_timeout=LIMIT, resources={"metadata": {"path": str(file.parent)}}
    )
    surroundings = {"CONCORD_STORE": str(path), "PYTHONPATH": search, "MPLBACKEND": PLOTS}
    client.execute(env={**os.environ, **surroundings})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the hour at which it ran
    return notebook


if __name__ == "__main__":
    for file in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(file, os.environ.get("CONCORD_STORE", "/tmp/grid.zarr")), file)
