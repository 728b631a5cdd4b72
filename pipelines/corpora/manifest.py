"""The manifest: one row per clip, produced by every corpus adapter and processed by the pipeline.

Label polarity is defined here: 1 is fake. Picture and sound are named separately, because some corpora keep them in two
files. Reads and writes CSV and Parquet; only `path` is required, all other columns have a value for "unknown". Corpora,
manifests and the media they name may be in buckets (s3://, gs://).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from concord.text import did_you_mean, spelled
from pipelines.corpora.faults import Fault
from pipelines.corpora.fields import (
    ManifestError,
    absolute,
    as_faults,
    as_label,
    as_names,
    as_number,
    as_segments,
    as_text,
    as_track,
    is_empty,
)
from store.formats.table import read_csv, read_parquet, to_csv
from store.layout import StoreError
from store.place import Place, is_url, place

SPLITS = ("train", "val", "test")  # in this order; a row without a split has ""
PARQUET = (".parquet", ".pq")
CATEGORIES = {(0, 0): "RVRA", (0, 1): "RVFA", (1, 0): "FVRA", (1, 1): "FVFA"}  # by (video_fake, audio_fake)
USUAL = ("mp4", "mov", "mkv", "webm", "avi", "mpg")  # videos to name in a message
VIDEO_SUFFIXES = frozenset(
    f".{name}" for name in "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts webm wmv".split(" ")
)


@dataclass(frozen=True)
class Row:
    """One clip of a manifest. Labels are 0 real, 1 fake, -1 unknown; segments are forged parts as (start_s, end_s)."""

    path: str
    audio_path: str = ""  # if the sound is in another file
    label: int = -1
    audio_fake: int = -1
    video_fake: int = -1
    method: str = ""
    category: str = ""
    identities: tuple[str, ...] = ()  # source and all targets
    group: str = ""  # computed: connected components of identities
    split: str = ""
    audio_segments: tuple[tuple[float, float], ...] = ()
    video_segments: tuple[tuple[float, float], ...] = ()
    id: str = ""
    corpus: str = ""
    listed_frames: float | None = None  # from the corpus's own list; never trusted, kept for audits
    listed_fps: float | None = None
    listed_samples: float | None = None
    listed_sample_rate: float | None = None
    faults: tuple[Fault, ...] = ()  # found by the corpus's adapter
    audio_track: int | None = None  # number of the sound track, from 1; 0: auto; None: as the option says
    source: str = ""  # where the clip is from, such as a page or a data set

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Row:
        """A row from loosely typed values (CSV text, NaN for empty); raises ManifestError for a value with no meaning."""
        if not isinstance(values, Mapping):
            raise ManifestError(f"a manifest row is a {type(values).__name__}, expected columns with values")
        known = {f.name for f in fields(cls)}
        got = {name: value for name, value in values.items() if name in known and not is_empty(value)}
        if "path" not in got:
            raise ManifestError("a manifest row has no path; give every row one")
        where = f"manifest row of {as_text(got['path'], 'path', 'a manifest row')}"
        for name in ("label", "audio_fake", "video_fake"):
            if name in got:
                got[name] = as_label(got[name], name, where)
        for name in ("audio_segments", "video_segments"):
            if name in got:
                got[name] = as_segments(got[name], name, where)
        parsers: dict[str, Callable[..., Any]] = {"identities": as_names, "audio_track": as_track}
        for name in parsers.keys() & got.keys():
            got[name] = parsers[name](got[name], name, where)
        if "faults" in got:
            got["faults"] = as_faults(got["faults"], where)
        for name in ("listed_frames", "listed_fps", "listed_samples", "listed_sample_rate"):
            if name in got:
                got[name] = as_number(got[name], name, where)
        for name in ("path", "audio_path", "method", "category", "group", "split", "id", "corpus", "source"):
            if name in got:
                got[name] = as_text(got[name], name, where)
        row = cls(**got)
        if row.split not in ("", *SPLITS):
            raise ManifestError(f'{where}: split is "{row.split}"; use train, val, test or leave it empty')
        return row


def reads_urls(rows: Callable[[Any], Iterable[Any]]) -> Callable[[Any], Iterable[Any]]:
    """Marks an adapter whose root may also be the `store.place` of a bucket's URL; others get only local Paths."""
    rows.reads_urls = True  # type: ignore[attr-defined]
    return rows


def load(
    kind_and_root: str,
    name: str | None = None,
    root: str | os.PathLike[str] | None = None,
    options: Mapping[str, str] | None = None,
) -> list[Row]:
    """Rows of a corpus given as KIND:ROOT, complete: absolute paths or URLs, ids, derived labels, groups.

    `name` replaces the corpus name KIND:basename(ROOT); `root` is the start of a manifest's relative paths; `options`
    are for roots in buckets. Raises ManifestError for an unknown kind, a missing root, an empty corpus or a duplicate
    id.
    """
    kind, separator, where = kind_and_root.partition(":")
    kinds = {point.name: point for point in entry_points(group="concord.corpora")}
    if not separator or not where:
        likely = "folder" if Path(kind_and_root).is_dir() else "csv"
        near = f"; did you mean {likely}:{kind_and_root}?" if Path(kind_and_root).exists() else ""
        raise ManifestError(
            f'--corpus takes KIND:ROOT, not "{kind_and_root}"; kinds are {", ".join(sorted(kinds))}{near}'
        )
    if not kinds:
        raise ManifestError("no kind of corpus is known, since concord-av is not installed: pip install it first")
    if kind not in kinds:
        near = did_you_mean(kind, kinds)
        raise ManifestError(f'corpus kind "{kind}" is not known; kinds are {", ".join(sorted(kinds))}{near}')
    start, adapter = _start(where, options), kinds[kind].load()
    if isinstance(start, Place):
        if not getattr(adapter, "reads_urls", False):
            raise ManifestError(
                f"corpora of kind {kind} can only be read from a disk; mount or copy {start}, or list it for csv:"
            )
        is_file = start.exists()
        exists = is_file or bool(start.names())
    else:
        is_file, exists = start.is_file(), start.exists()
    if kind != "demo" and not exists:  # demo creates its root
        raise ManifestError(f"corpus root {start} does not exist; check the path after {kind}:")
    try:
        rows = [row if isinstance(row, Row) else Row.of(row) for row in adapter(start)]
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:  # raised for invalid values in lists
        said = str(error).partition("\n")[0][:200]
        raise ManifestError(
            f"corpus {kind_and_root}: its lists hold invalid values ({type(error).__name__}: {said}); fetch them again"
        ) from error
    if not rows:
        if kind == "folder":
            raise ManifestError(f"no videos ({', '.join(USUAL)} and the like) in {start}, or in the folders in it")
        if kind == "csv":
            raise ManifestError(f"{start} has no rows below its header line: list one clip a line")
        raise ManifestError(
            f"corpus {kind_and_root} has no clips; check that {start} is the folder that {kind}: expects"
        )
    base = _start(root, options) if root else start.parent if is_file else start
    return complete(rows, name or f"{kind}:{start.name}", base)


def _start(where: str | os.PathLike[str], options: Mapping[str, str] | None) -> Path | Place:
    """A root as a Path without ".." (ids must not depend on it), or as the place of a URL."""
    try:
        if is_url(where):
            return place(where, options)
        local = place(where).path if str(where).startswith("file://") else where
    except StoreError as error:
        raise ManifestError(str(error)) from error
    return Path(os.path.abspath(Path(local).expanduser()))


def complete(rows: Iterable[Row], corpus: str, base: Path | Place) -> list[Row]:
    """Rows with all derived fields; `base` is the start of relative paths."""
    done = [_complete(row, corpus, base) for row in rows]
    seen: dict[str, Row] = {}
    for row in done:
        if row.id in seen:
            raise ManifestError(
                f"two rows have the id {row.id} ({seen[row.id].path} and {row.path}); give one of them another id"
            )
        seen[row.id] = row
    return with_groups(done)


def _complete(row: Row, corpus: str, base: Path | Place) -> Row:
    corpus = row.corpus or corpus
    path = absolute(row.path, base)
    label, audio_fake, video_fake = row.label, row.audio_fake, row.video_fake
    if label == 0:
        audio_fake, video_fake = 0, 0
    elif label < 0 and 1 in (audio_fake, video_fake):
        label = 1
    elif label < 0 and (audio_fake, video_fake) == (0, 0):
        label = 0
    category = row.category or CATEGORIES.get((video_fake, audio_fake), "")
    identity = row.id
    if not identity:
        identity = path.removeprefix(f"{str(base).rstrip('/')}/")
    if not identity.startswith(f"{corpus}/"):
        identity = f"{corpus}/{identity}"
    identity = os.fsencode(identity).decode("utf-8", "backslashreplace")
    return replace(
        row,
        method=spelled(row.method),
        group=spelled(row.group),
        identities=tuple(map(spelled, row.identities)),
        faults=tuple(Fault.of(spelled(str(fault))) for fault in row.faults),
        path=_as_text(path),
        audio_path=_as_text(absolute(row.audio_path, base)) if row.audio_path else "",
        label=label,
        audio_fake=audio_fake,
        video_fake=video_fake,
        category=spelled(category),
        id=identity,
        corpus=spelled(corpus),
    )


def with_track(rows: Iterable[Row], audio_track: int | None) -> list[Row]:
    """Rows in which an option's sound track stands where they name none."""
    return [row if row.audio_track is not None else replace(row, audio_track=audio_track) for row in rows]


def _as_text(path: str) -> str:
    """A path for tables: names that are not UTF-8 become a file:// URL."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"file://{quote(os.fsencode(path))}"
    return path


def with_groups(rows: list[Row]) -> list[Row]:
    """Rows whose `group` is the connected component of shared identities; a given group counts as an identity.

    Clips that share a person, directly or through a third clip, must not cross a split. A row without identities is alone.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = [
        [*(f"identity {name}" for name in row.identities), *([f"group {row.group}"] if row.group else [])]
        for row in rows
    ]
    number = {name: k for k, name in enumerate(sorted({name for names in links for name in names}))}
    pairs = [(number[names[0]], number[other]) for names in links for other in names[1:]]
    edges = tuple(np.array(pairs, int).reshape(-1, 2).T)
    graph = coo_array((np.ones(len(pairs)), edges), shape=(len(number), len(number)))
    component = connected_components(graph, directed=False)[1] if number else ()
    first: dict[int, str] = {}  # a component is named after its alphabetically first member
    for name, k in zip(number, component, strict=True):
        first.setdefault(k, name)
    named = [first[component[number[names[0]]]].partition(" ")[2] if names else "" for names in links]
    return [replace(row, group=name if names else row.id) for row, names, name in zip(rows, links, named, strict=True)]


def read(path: str | os.PathLike[str] | Place) -> list[Row]:
    """Rows of a manifest file, CSV or Parquet by its suffix; raises ManifestError if it cannot be read."""
    return [Row.of(values) for values in records(path)]


def records(path: str | os.PathLike[str] | Place) -> list[dict[str, Any]]:
    """Lines of a manifest file by column, unchanged; raises ManifestError if it is not a manifest."""
    suffix = Path(place(path).name).suffix.lower()
    try:
        data = place(path).read()
        if suffix not in PARQUET and b"\0" in data:
            raise ValueError("it holds NUL bytes, so it is not UTF-8 text")
        table = read_parquet(data) if suffix in PARQUET else read_csv(data)
    except FileNotFoundError as error:
        raise ManifestError(f"manifest {path} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ManifestError(f"manifest {path} cannot be read as {suffix or 'CSV'}: {said}") from error
    if "path" not in table.columns:
        listed = ", ".join(map(str, table.columns[:20])) or "none"
        raise ManifestError(f"manifest {path} has no column path; it has {listed}")
    return table.to_dict("records")  # type: ignore[return-value]


def write(
    rows: Iterable[Row], path: str | os.PathLike[str] | Place, more: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Rows to a manifest file, CSV or Parquet by its suffix, atomically; lists become JSON. `more` are further columns, a
    text for each row, which readers of manifests pass over."""
    import pandas as pd

    records = []
    for row in rows:
        record = dict(vars(row))
        record["faults"] = [str(fault) for fault in row.faults]
        for name in ("identities", "audio_segments", "video_segments", "faults"):
            record[name] = json.dumps(record[name], ensure_ascii=False) if record[name] else ""
        record["audio_track"] = "" if row.audio_track is None else str(row.audio_track or "auto")
        record |= {k: "" if record[k] < 0 else str(record[k]) for k in ("label", "audio_fake", "video_fake")}
        records.append(record)
    table = {f.name: [record[f.name] for record in records] for f in fields(Row)}
    table |= {name: list(values) for name, values in (more or {}).items()}
    parquet = Path(place(path).name).suffix.lower() in PARQUET
    place(path).write(
        pd.DataFrame(table).to_parquet(index=False, write_page_checksum=True) if parquet else to_csv(table)
    )
