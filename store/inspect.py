"""Say what a store holds, and with --verify whether every row of every done clip can still be read.

    python -m store.inspect demo.zarr
    python -m store.inspect demo.zarr --verify --json > report.json
    python -m store.inspect s3://bucket/demo.zarr --storage-option aws_region=eu-west-1

Exit code 0 where all is well, 1 where --verify found damage, 2 where the path is no store. --verify reads each chunk once and
checks its checksum, its decoded size and that the clip's rows are marked as in use; it does not judge what the values mean.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from store import command, fitfile, layout
from store.layout import StoreError
from store.reader import Reader
from store.shards import Damage
from store.text import plain, plain_all


def summary(reader: Reader) -> dict[str, Any]:
    """What a store holds, JSON-able: attributes, counts of clips, arrays with their bytes on disk and plain."""
    clips = reader.clips
    done = clips["done"] == 1
    arrays = []
    files = reader.place.files()
    for name in reader.names:
        array = reader.array(name)
        disk = _bytes(files, f"frames/{name}/")
        shards = range(array.shape[0] // array.shard_rows)
        written = sum(f"frames/{name}/{array.shard_key(k)}" in files for k in shards)
        plain = int(written * array.shard_rows * np.prod(array.shape[1:], dtype=np.int64) * array.dtype.itemsize)
        arrays.append(
            {
                "name": f"frames/{name}",
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "chunk_rows": array.chunk_rows,
                "shard_rows": array.shard_rows,
                "shards": written,
                "bytes": disk,
                "ratio": round(plain / disk, 2) if written and disk else None,
            }
        )
    return {
        "path": str(reader.path),
        "attrs": reader.attrs,
        "clips": {
            "total": len(reader),
            "done": int(done.sum()),
            "not_done": int((~done).sum()),
            "frames": int(clips["length"][done].sum()),
            "hours": round(float(clips["length"][done].sum()) / layout.FPS / 3600, 4),
            **{f"by_{name}": _counts(clips[name][done]) for name in ("split", "label", "method", "corpus")},
        },
        "arrays": arrays,
        "bytes": {
            **{group: _bytes(files, f"{group}/") for group in ("clips", "frames", "fit", "words", "_staging")},
            "total": sum(files.values()),
        },
    }


def verify(reader: Reader, progress: Progress | None = None) -> list[dict[str, str]]:
    """Damage in a store: dicts of clip (id, empty where it is not about one), array and reason; an empty list is good news.

    Every chunk that holds rows of a done clip is read once, array by array.
    """
    found: list[dict[str, str]] = []
    done = np.flatnonzero(reader.clips["done"] == 1)
    start = reader.clips["offset"][done]
    stop = start + reader.clips["length"][done]

    def report(bad_start: int, bad_stop: int, array: str, reason: str) -> None:
        for k in np.flatnonzero((start < bad_stop) & (stop > bad_start)):
            entry = {"clip": str(reader.clips["id"][done[k]]), "array": array, "reason": reason}
            if entry not in found:
                found.append(entry)

    outside = (start < 0) | (reader.clips["length"][done] > reader.clips["capacity"][done]) | (stop > reader.num_rows)
    for i in done[outside]:
        found.append(
            {"clip": str(reader.clips["id"][i]), "array": "clips/offset", "reason": "its rows are not all in frames/"}
        )
    start, stop, done = start[~outside], stop[~outside], done[~outside]
    for name in reader.names:
        array = reader.array(name)
        used = np.zeros(-(-array.shape[0] // array.chunk_rows), bool)
        for a, b in zip(start // array.chunk_rows, -(-stop // array.chunk_rows), strict=True):
            used[a:b] = True
        chunks = np.flatnonzero(used).tolist()
        task = progress.add_task(plain(f"frames/{name}"), total=len(chunks)) if progress else None
        for k in chunks:
            first = k * array.chunk_rows
            try:
                rows = array.read(first, first + array.chunk_rows)
            except Damage as e:
                report(first, first + array.chunk_rows, f"frames/{name}", str(e))
            else:
                if name == "flags":
                    _check_in_use(rows, first, start, stop, report)
            if progress and task is not None:
                progress.advance(task)
    for name, read in {"fit": lambda: reader.fit, "words": lambda: reader.has_words and reader.words(0)}.items():
        try:
            read()
        except StoreError as e:
            found.append({"clip": "", "array": name, "reason": str(e)})
    return found


def _check_in_use(rows: np.ndarray, first: int, start: np.ndarray, stop: np.ndarray, report: Any) -> None:
    """Rows of a done clip must carry the flag that a writer sets on rows it filled."""
    blank = np.flatnonzero(rows & layout.IN_USE == 0) + first
    if len(blank):
        for a, b in zip(start, stop, strict=True):
            hit = blank[(blank >= a) & (blank < b)]
            if len(hit):
                report(int(hit[0]), int(hit[0]) + 1, "frames/flags", "rows of the clip are not marked as in use")


def _counts(values: np.ndarray) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values.tolist()).items(), key=lambda x: str(x[0]))}


def _bytes(files: dict[str, int], start: str) -> int:
    return sum(size for key, size in files.items() if key.startswith(start))


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def show(report: dict[str, Any], console: Console) -> None:
    """Print a summary for a person."""
    attrs, clips = report["attrs"], report["clips"]
    console.print(f"{report['path']}: {attrs['format']} version {attrs['version']}, {_size(report['bytes']['total'])}")
    console.print(
        f"clips: {clips['done']} done, {clips['not_done']} not done; {clips['frames']} frames, {clips['hours']:.2f} h"
    )
    for name in ("split", "label", "method", "corpus"):
        counts = ", ".join(f"{value or '(none)'} {count}" for value, count in clips[f"by_{name}"].items())
        console.print(f"  by {name}: {counts or '(none)'}")
    for side, teacher in (attrs.get("teachers") or {}).items():
        about = ", ".join(f"{k} {v}" for k, v in teacher.items() if v not in (None, {}, "")) if teacher else "none"
        console.print(f"teacher {side}: {about}")
    if attrs.get("similarity"):
        console.print("similarity: " + ", ".join(f"{k} {v}" for k, v in attrs["similarity"].items()))
    else:
        console.print("similarity: not fitted yet")
    table = Table("array", "shape", "dtype", "chunk", "shard", "shards", "on disk", "ratio", box=None, pad_edge=False)
    for a in report["arrays"]:
        shape = " x ".join(str(n) for n in a["shape"])
        ratio = "" if a["ratio"] is None else f"{a['ratio']:.2f}"
        table.add_row(
            a["name"],
            shape,
            a["dtype"],
            str(a["chunk_rows"]),
            str(a["shard_rows"]),
            str(a["shards"]),
            _size(a["bytes"]),
            ratio,
        )
    console.print(table)
    rest = ", ".join(
        f"{name}/ {_size(size)}" for name, size in report["bytes"].items() if name not in ("total", "frames")
    )
    console.print(f"beside frames/: {rest}")


@click.command(cls=command.Command, epilog="Example: python -m store.inspect demo.zarr --verify")
@click.argument("path")
@command.storage_options()
@click.option("--verify", "check", is_flag=True, help="Read every chunk of every done clip and check its checksum.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--save-fit",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the fit to one file, for precompute --fit-from.",
)
def main(path: str, options: dict[str, str], check: bool, as_json: bool, save_fit: Path | None) -> None:
    """Say what the store at PATH holds."""
    try:
        reader = Reader(path, options)
        if save_fit:
            if reader.fit is None:
                raise StoreError(f"{path} has no fit to save; run precompute.py with real clips first")
            note = {**reader.attrs["similarity"], "clip_frames": reader.fit_length}
            fitfile.save(save_fit, reader.fit, reader.attrs["teachers"], note)
    except StoreError as e:
        command.fail(f"Error: {e}", 2)
    report = summary(reader)
    console = Console(highlight=False, markup=False, soft_wrap=True, width=max(Console().width, 100))
    if check:
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
            report["damage"] = verify(reader, progress)
    if as_json:
        command.put(json.dumps(report, indent=2))
    else:
        report = plain_all(report)
        show(report, console)
        for entry in report.get("damage", []):
            console.print(f"damaged: clip {entry['clip'] or '(none)'}: {entry['array']}: {entry['reason']}")
        if check:
            clips = {entry["clip"] for entry in report["damage"]}
            console.print(f"verify: {len(clips)} clips damaged" if clips else "verify: every chunk reads as written")
    if report.get("damage"):
        sys.exit(1)


if __name__ == "__main__":
    main()
