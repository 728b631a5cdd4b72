"""Shows the contents of a store, and with --verify checks that every row of every finished clip can still be read.

    python -m store.inspect demo.zarr
    python -m store.inspect demo.zarr --verify --json > report.json
    python -m store.inspect s3://bucket/demo.zarr --storage-option aws_region=eu-west-1

Exit code 0 without damage, 1 if --verify found damage, 2 if the path is not a store or cannot be opened.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from concord import command
from concord.commands import as_called
from concord.text import byte_size, counted, plain, plain_all
from store import layout, output, staging
from store.arrays import inventory
from store.layout import StoreError
from store.reader import Reader
from store.similarity import fitfile, strangers
from store.verify import verify

ERRORS = "errors.jsonl"  # tracebacks of runs (`pipelines.tables.traces`)
LABELS = {"0": "real", "1": "fake", "-1": "unknown"}


def summary(reader: Reader) -> dict[str, Any]:
    """The contents of a store, JSON-able: attributes, counts of clips, arrays with their bytes on disk and plain."""
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
        "staged": staging.clips(files),
        "closed": reader.inventory.complete,
        "errors": str(reader.place / ERRORS) if ERRORS in files else "",
        "arrays": arrays,
        "bytes": {
            **{group: _bytes(files, f"{group}/") for group in ("clips", "frames", "fit", "words", "_staging")},
            "total": sum(files.values()),
        },
    }


def _counts(values: np.ndarray) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values.tolist()).items(), key=lambda x: str(x[0]))}


def _bytes(files: dict[str, int], start: str) -> int:
    return sum(size for key, size in files.items() if key.startswith(start))


def show(report: dict[str, Any], console: Console) -> None:
    """Print a summary for the user."""
    attrs, clips = report["attrs"], report["clips"]
    console.print(
        f"{report['path']}: {attrs['format']} version {attrs['version']}, {byte_size(report['bytes']['total'])}"
    )
    console.print(
        f"clips: {clips['done']} done, {clips['not_done']} not done; {clips['frames']} frames, {clips['hours']:.2f} h"
    )
    if report["staged"]:
        few = counted(report["staged"], "clip is", "clips are")
        console.print(
            as_called(f"  {few} staged: a run is at work or was cut off; run precompute.py again to continue")
        )
    for name in ("split", "label", "method", "corpus"):
        shown = LABELS if name == "label" else {}
        counts = ", ".join(
            f"{shown.get(value, value) or '(none)'} {count}" for value, count in clips[f"by_{name}"].items()
        )
        console.print(f"  by {name}: {counts or '(none)'}")
    for side, teacher in (attrs.get("teachers") or {}).items():
        console.print(f"teacher {side}: {_teacher(teacher)}")
    if attrs.get("similarity"):
        console.print(f"similarity: {_similarity(attrs['similarity'])}")
        console.print(f"strangers: {_strangers(attrs['similarity'])}")
    else:
        console.print("similarity: not fitted yet")
    if not attrs.get("held_pictures"):
        console.print(
            "held pictures: not marked in frames/flags, as in all stores of earlier releases; readers find them when they "
            + as_called("read flags, and precompute.py --refit writes them")
        )
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
            byte_size(a["bytes"]),
            ratio,
        )
    console.print(table)
    if not report["closed"]:
        console.print("not closed: a run writes to it, failed or was stopped, or it is of an earlier release")
    if report["errors"]:
        console.print(f"tracebacks of errors are in {report['errors']}")
    rest = ", ".join(
        f"{name}/ {byte_size(size)}" for name, size in report["bytes"].items() if name not in ("total", "frames")
    )
    console.print(f"beside frames/: {rest}")


def _strangers(note: dict[str, Any]) -> str:
    """What people score whom the fit has not seen."""
    found = strangers.Strangers.of(note)
    if found is None:
        return "not measured, so only a video stated to be of a calibrated corpus gets a verdict"
    if not found.lengths:
        return found.lacks
    return f"{found.line}; {found.lacks or 'their videos get verdicts'}"


def _teacher(about: dict[str, Any] | None) -> str:
    """A teacher in a few words; --json has all that is recorded."""
    if not about:
        return "none"
    told = [f"{about['dim']} columns"] if about.get("dim") else []
    told += [f"SHA-256 {str(about['sha256'])[:12]}"] if about.get("sha256") else []
    told += [f"licence {about['licence']}"] if about.get("licence") else []
    return ", ".join([str(about.get("name")), *told])


def _similarity(note: dict[str, Any]) -> str:
    """A fit in a few words; --json has all that is recorded."""
    on, auc = note.get("fitted_on"), note.get("auc")
    told = [str(note.get("kind"))]
    if isinstance(on, dict) and isinstance(on.get("clips"), int):
        told.append(f"learned on {counted(on['clips'], 'real clip')}")
    if note.get("fit_from"):
        told.append(f"from {note['fit_from']}")
    if isinstance(auc, dict) and auc:
        each = (f"{name} {one.get('clip')}" for name, one in auc.items() if isinstance(one, dict))
        told.append(f"own sound against swapped, AUC of clips: {', '.join(each)}")
    return "; ".join(told)


def _verdict(damage: list[dict[str, str]], is_complete: bool) -> str:
    """The last line of --verify."""
    clips = {entry["clip"] for entry in damage if entry["clip"]}
    parts = {entry["array"] for entry in damage if not entry["clip"]}
    if damage:
        return f"verify: {counted(len(clips), 'clip')} damaged" + (f", and {', '.join(sorted(parts))}" if parts else "")
    if is_complete:
        return "verify: every chunk reads as written, and every file is the one that was written"
    return as_called(
        "verify: every chunk reads as written; the store is not closed (a run writes to it, was cut off, or was of an earlier "
        "release), so files are not compared with an inventory: run precompute.py on it once more"
    )


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
    """Show the contents of the store at PATH."""
    try:
        if save_fit:
            output.check([output.Output(save_fit, fitfile.KIND)])
        reader = Reader(path, options)
        if save_fit:
            if reader.fit is None:
                raise StoreError(f"{path} has no fit to save; run precompute.py with real clips first")
            note = {**reader.attrs["similarity"], "clip_frames": reader.fit_length}
            fitfile.save(save_fit, reader.fit, reader.attrs["teachers"], note)
    except inventory.Damaged as e:
        command.fail(f"damaged: {e}", 1 if check else 2)
    except StoreError as e:
        command.fail(f"Error: {e}", 2)
    except OSError as e:
        command.fail(f"Error: {command.told(e)}", 1)
    report = summary(reader)
    console = Console(highlight=False, markup=False, soft_wrap=True, width=max(Console().width, 100))
    if check:
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
            report["damage"] = [asdict(fault) for fault in verify(reader, progress)]
    if as_json:
        command.put(json.dumps(report, indent=2))
        if save_fit:
            command.say(f"fit written to {save_fit}", err=True)
    else:
        report = plain_all(report)
        show(report, console)
        for entry in report.get("damage", []):
            reason = as_called(entry["reason"])
            console.print(f"damaged: clip {entry['clip'] or '(none)'}: {entry['array']}: {reason}")
        if check:
            console.print(_verdict(report["damage"], reader.inventory.complete))
        if save_fit:
            kind, file = plain(reader.attrs["similarity"].get("kind")), plain(save_fit)
            told = as_called("precompute.py and predict take it with --fit-from")
            console.print(f"fit ({kind}) written to {file}: {told} {file}")
    if report.get("damage"):
        sys.exit(1)


if __name__ == "__main__":
    main()
