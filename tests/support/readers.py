"""Other programs' readers of Zarr, each as a function that reads all arrays of a store, and the table of what they can.

python tests/support/readers.py     # draws the rows of the readers that are installed in docs/store.md anew

zarrita is JavaScript: CONCORD_NODE_MODULES names the node_modules folder that has it (npm install zarrita, and
@petamoriken/float16 where node is older than 24).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "store.md"
KINDS = ("whole numbers", "f2", "f4, f8", "text")
Found = dict[str, np.ndarray | Exception]
SCRIPT = """
import fs from "node:fs";
const [modules, root, ...names] = process.argv.slice(1);
if (!globalThis.Float16Array) {
  try {
    globalThis.Float16Array = (await import(`${modules}/@petamoriken/float16/src/index.mjs`)).Float16Array;
  } catch {}
}
const zarr = await import(`${modules}/zarrita/dist/src/index.js`);
const { FileSystemStore } = await import(`${modules}/@zarrita/storage/dist/src/index.js`);
const top = zarr.root(new FileSystemStore(root));
const plain = (value) => typeof value === "string" || Number.isFinite(value) ? value : Number(value).toString();
const found = {};
for (const name of names) {
  try {
    const array = await zarr.open.v3(top.resolve(name), { kind: "array" });
    const got = await zarr.get(array);
    const { data, shape } = array.shape.length ? got : { data: [got], shape: [] };
    found[name] = { data: Array.from(data, plain), shape };
  } catch (error) {
    found[name] = { error: String(error) };
  }
}
fs.writeFileSync(1, JSON.stringify({ f2: Boolean(globalThis.Float16Array), found }));
"""


class Missing(Exception):
    """A reader that is not installed here."""


def arrays(root: Path) -> list[str]:
    """Paths of all arrays of a store."""
    nodes = {f.parent.relative_to(root).as_posix(): json.loads(f.read_text()) for f in sorted(root.rglob("zarr.json"))}
    return [path for path, document in nodes.items() if document["node_type"] == "array"]


def kind_of(root: Path, name: str) -> str:
    """The kind of an array, one of KINDS."""
    dtype = json.loads((root / name / "zarr.json").read_text())["data_type"]
    return {"string": "text", "float16": "f2", "float32": "f4, f8", "float64": "f4, f8"}.get(dtype, "whole numbers")


def _each(root: Path, read: Callable[[str], np.ndarray]) -> Found:
    found: Found = {}
    for name in arrays(root):
        try:
            found[name] = read(name)
        except (ValueError, TypeError, NotImplementedError) as error:
            found[name] = error
    return found


def zarr_python(root: Path) -> Found:
    import zarr

    store = zarr.open(str(root))
    return _each(root, lambda name: store[name][...])


def zarrs(root: Path) -> Found:
    """zarr-python with the codecs of zarrs, in Rust."""
    try:
        import zarrs  # noqa: F401
    except ImportError as error:
        raise Missing("zarrs is not installed") from error
    import zarr

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return zarr_python(root)


def zarrista(root: Path) -> Found:
    """zarrs itself, by its bindings."""
    try:
        import zarrista
        from zarrista.store import FilesystemStore
    except ImportError as error:
        raise Missing("zarrista is not installed") from error
    store = FilesystemStore(str(root))
    return _each(root, lambda name: zarrista.Array.open(store, f"/{name}").retrieve_array_subset(...).to_numpy())


def xarray(root: Path) -> Found:
    try:
        import xarray
    except ImportError as error:
        raise Missing("xarray is not installed") from error
    with xarray.open_datatree(str(root), engine="zarr") as tree:
        return _each(root, lambda name: tree[name].to_numpy())


def tensorstore(root: Path) -> Found:
    try:
        import tensorstore
    except ImportError as error:
        raise Missing("tensorstore is not installed") from error

    def read(name: str) -> np.ndarray:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{root / name}/"}}
        return tensorstore.open(spec).result().read().result()

    return _each(root, read)


def zarrita(root: Path) -> Found:
    modules = os.environ.get("CONCORD_NODE_MODULES", "")
    if not shutil.which("node") or not (Path(modules) / "zarrita").is_dir():
        raise Missing("node, or zarrita in $CONCORD_NODE_MODULES, is not installed")
    command = ["node", "--input-type=module", "-e", SCRIPT, modules, str(root), *arrays(root)]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if not said["f2"]:
        raise Missing(
            "this node has no Float16Array, which zarrita needs for f2 (node 24 has it, and @petamoriken/float16)"
        )
    types = {name: json.loads((root / name / "zarr.json").read_text())["data_type"] for name in said["found"]}
    return {
        name: ValueError(of["error"])
        if "error" in of
        else np.array(of["data"], object if types[name] == "string" else types[name]).reshape(of["shape"])
        for name, of in said["found"].items()
    }


READERS: dict[str, Callable[[Path], Found]] = {
    "zarr-python": zarr_python,
    "zarrs": zarrs,
    "zarrista": zarrista,
    "xarray": xarray,
    "tensorstore": tensorstore,
    "zarrita": zarrita,
}


def can(root: Path, found: Found, right: Found) -> dict[str, bool]:
    """Whether a reader read all arrays of each kind, with the right values; AssertionError where it read wrong ones."""
    read: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for name, values in found.items():
        if not isinstance(values, Exception):
            if kind_of(root, name) == "text":
                assert np.asarray(values).tolist() == np.asarray(right[name]).tolist(), name
            else:
                np.testing.assert_array_equal(values, right[name], err_msg=name, strict=True)
        read[kind_of(root, name)].append(not isinstance(values, Exception))
    assert set(found) == set(right)
    return {kind: all(each) for kind, each in read.items()}


def row(reader: str, able: dict[str, bool]) -> str:
    """A reader's row of the table."""
    return f"| {reader} | {' | '.join('yes' if able[kind] else 'no' for kind in KINDS)} |"


def example(root: Path) -> Path:
    """A store with every array that there can be, and text that is not English."""
    from small_store import make_store

    import store
    from store.similarity import fitfile

    path = make_store(root, {"train": 3, "": 1}, fakes=1, faces=True, broken=1)
    writer = store.Writer.open(path)
    texts = ["", "hällo", "三", "👄 spricht", "a" * 5000]
    times = np.arange(len(texts), dtype=np.float32)
    writer.write_words(
        {"clip": [0] * len(texts), "start": times, "end": times + 1, "text": texts, "probability": times / 9}
    )
    writer.write_fit(fitfile.default()[0].to_arrays())  # with a network
    writer.consolidate()
    return path


def draw() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = example(Path(folder) / "s.zarr")
        right = zarr_python(root)
        text = PAGE.read_text()
        for name, reader in READERS.items():
            try:
                new = row(name, can(root, reader(root), right))
            except Missing as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            lines = text.splitlines(keepends=True)
            text = "".join(f"{new}\n" if line.startswith(f"| {name} |") else line for line in lines)
        PAGE.write_text(text)


if __name__ == "__main__":
    warnings.simplefilter("error")
    draw()
