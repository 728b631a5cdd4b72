"""Leaks: what a test split shares with the training split, so that a model is tested on what it has seen.

Three kinds, each a count of distinct items in the later split that are also in the earlier one, `of` all in the later
split:

file: the same clip. If the caller gives file hashes (`hashes`), equal hashes decide. Rows without one are compared by a
tail of their path that depends neither on the machine nor on the split's folder: the part after the last folder named
like a split (train, TEST, dev, ...). Without such a folder it is the shortest tail that still distinguishes all clips
below one root, where a root is the first two folders. A tail is weak evidence if clips are numbered (train/0001.mp4,
test/0001.mp4). So it counts only if one of its last three parts is more than a running number or a common word, or if
both rows list the same length; and never if label, method, identities or listed lengths contradict each other.

content: equal fingerprints of picture and sound (`prints`), for re-encoded copies. Clips that are the same file in the
earlier split are counted only as files.

identity: the same person. There are two counts if clips name more than one person: `who` "source", for the first-named
person (whose folder the clip is in), and "any", including targets. Clips that name no person but have a given group (a
person, or a source such as a recording) are compared by group: `who` "group".

Rows without a split are ignored. Not found: near-duplicates without fingerprints, and clips that could not be compared,
which `pipelines.audit.coverage` counts.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from pipelines.corpora.manifest import SPLITS, Row
from store.place import is_url

SPLIT_FOLDERS = frozenset("train training trainval pretrain val valid validation dev test testing eval".split(" "))
COMMON = frozenset(
    "real fake reals fakes video videos audio mp4 wav clips clip raw original origin originals manipulated synthesized data "
    "men women male female mp4s frames media".split(" ")
)
RUNNING = re.compile(r"[a-z_\- ]{0,12}\d{1,6}", re.IGNORECASE)
EXAMPLES = 5
BLOCK = 1 << 20


@dataclass(frozen=True)
class Shared:
    """One shared item: for a file or content the id of a clip in the earlier and in the later split, for a person the
    number of clips in each."""

    what: str
    early: str | int
    late: str | int


@dataclass(frozen=True)
class Leak:
    """`count` distinct items of splits[1] are also in splits[0], `of` all in splits[1].

    examples: the first few. who: for identity, which people are counted ("source", "any", "group"), else "". column:
    the manifest's column with their names.
    """

    kind: str
    splits: tuple[str, str]
    count: int
    of: int
    examples: list[Shared] = field(default_factory=list)
    who: str = ""
    column: str = ""

    def text(self) -> str:
        """One sentence that says what it means."""
        early, late = self.splits
        what = {
            ("file", ""): f"clips of {late} are also in {early}: the same file",
            ("content", ""): f"clips of {late} are also in {early}: the same picture and sound, in other files",
            ("identity", "source"): f"people whose own clips are in {late} also have clips of their own in {early}",
            ("identity", "group"): f"people or sources (column group) in {late} are also in {early}",
            ("identity", "any"): f"people in {late} are also in {early}, counting whose face or voice went into a fake",
        }[self.kind, self.who]
        return f"{self.count:,} of {self.of:,} {what}"

    def to_json(self) -> dict[str, Any]:
        """For audit.json: examples name their splits."""
        early, late = self.splits
        examples = [{"what": one.what, early: one.early, late: one.late} for one in self.examples]
        return {**vars(self), "splits": [early, late], "examples": examples, "text": self.text()}


def find(
    rows: Sequence[Row], prints: Sequence[Hashable | None] | None = None, files: Sequence[str | None] | None = None
) -> list[Leak]:
    """All leaks between the splits of `rows`, none with a count of 0.

    `prints`: a content fingerprint or None for each row; `files`: a file hash or None for each row (`hashes`). Raises
    ValueError if their number differs from that of the rows.
    """
    for name, given in (("prints", prints), ("files", files)):
        if given is not None and len(given) != len(rows):
            raise ValueError(f"{len(given)} {name} for {len(rows)} rows; give one for each row, None if there is none")
    present = [split for split in SPLITS if any(row.split == split for row in rows)]
    if len(present) < 2:
        return []
    keys = file_keys(rows, files)
    files_of, contents = [], []
    for pair in combinations(present, 2):
        leak, copies = _clips("file", rows, keys, pair, check=True)
        files_of.append(leak)
        if prints is not None:
            coded = [None if k in copies else key for k, key in enumerate(prints)]
            contents.append(_clips("content", rows, coded, pair, check=False)[0])
    found = files_of + contents
    several = any(len(row.identities) > 1 for row in rows)
    for pair in combinations(present, 2):
        if several:
            found.append(_people(rows, pair, "source"))
        found.append(_people(rows, pair, "any"))
        found.append(_groups(rows, pair))
    return [leak for leak in found if leak.count]


def file_keys(rows: Sequence[Row], files: Sequence[str | None] | None = None) -> list[Hashable]:
    """The key of each row's file: its hash if given, else its path tail (see above), a tuple of path parts."""
    parts: list[tuple[str, ...]] = [tuple(part for part in row.path.split("/") if part) for row in rows]
    tails: list[tuple[str, ...]] = list(parts)
    open_rows = []
    for k, path in enumerate(parts):
        cut = next((i for i in range(len(path) - 2, -1, -1) if path[i].lower() in SPLIT_FOLDERS), None)
        if cut is None:
            open_rows.append(k)
        else:
            tails[k] = path[cut + 1 :]
    depth = _depth({parts[k] for k in open_rows})
    for k in open_rows:
        tails[k] = parts[k][-depth:]
    if files is None:
        return list(tails)
    return [tail if given is None else given for tail, given in zip(tails, files, strict=True)]


def first_copies(rows: Sequence[Row]) -> list[int]:
    """For each row the number of the first row of the same clip (its own if it is the first).

    Rows are the same clip if their path tails, label, method, people and listed lengths are equal, and the tail or the
    lengths are more specific than a running number.
    """
    first: dict[Hashable, int] = {}
    found = []
    for k, (row, key) in enumerate(zip(rows, file_keys(rows), strict=True)):
        other = first.setdefault((key, row.label, row.method, row.identities, row.listed_frames, row.listed_samples), k)
        same = other == k or not isinstance(key, tuple) or _same(key, rows[other], row)
        found.append(other if same else k)
    return found


def hashes(rows: Sequence[Row]) -> list[str | None]:
    """SHA-256 of picture file and sound file for rows whose local files have the same size as files of another split;
    else None.

    A file whose size does not occur in another split cannot be a copy: it gets a unique name instead of a hash. Files
    in buckets and files that cannot be read get None.
    """
    sizes = [_sizes(row) for row in rows]
    by_size: dict[tuple[int, ...], set[str]] = {}
    for row, size in zip(rows, sizes, strict=True):
        if size is not None:
            by_size.setdefault(size, set()).add(row.split)
    done: dict[tuple[str, str], str | None] = {}
    found: list[str | None] = []
    for row, size in zip(rows, sizes, strict=True):
        if size is None:
            found.append(None)
        elif len(by_size[size]) < 2:
            found.append(f"{row.path} {row.audio_path}")
        else:
            name = (row.path, row.audio_path)
            if name not in done:
                done[name] = _hash([path for path in name if path])
            found.append(done[name])
    return found


def _sizes(row: Row) -> tuple[int, ...] | None:
    paths = [path for path in (row.path, row.audio_path) if path]
    if any(is_url(path) for path in paths):
        return None
    try:
        return tuple(os.stat(path).st_size for path in paths)
    except OSError:
        return None


def _hash(paths: Sequence[str]) -> str | None:
    digest = hashlib.sha256()
    try:
        for path in paths:
            with Path(path).open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
    except OSError:
        return None  # then it is compared by its path, like a missing file
    return digest.hexdigest()


def _depth(paths: set[tuple[str, ...]]) -> int:
    """The smallest number of last parts, at least two, that distinguishes all paths below each root."""
    depth, rest = 2, paths
    while rest:
        seen: dict[tuple[tuple[str, ...], tuple[str, ...]], list[tuple[str, ...]]] = {}
        for path in rest:
            seen.setdefault((path[:2], path[-depth:]), []).append(path)
        rest = {path for same in seen.values() if len(same) > 1 for path in same}
        if rest:
            depth += 1
    return depth


def _clips(
    kind: str, rows: Sequence[Row], keys: Sequence[Hashable], pair: tuple[str, str], check: bool
) -> tuple[Leak, set[int]]:
    """Leak of whole clips between two splits by their keys, and its rows in the later one; `check` compares path tails
    with other known data."""
    early: dict[Hashable, list[int]] = {}
    late: dict[Hashable, list[int]] = {}
    for k, (row, key) in enumerate(zip(rows, keys, strict=True)):
        if key is not None and row.split in pair:
            (early if row.split == pair[0] else late).setdefault(key, []).append(k)
    count = 0
    copies: set[int] = set()
    examples: list[Shared] = []
    for key, mine in late.items():
        if key not in early:
            continue
        hit = next(
            (
                (a, b)
                for b in mine
                for a in early[key]
                if not (check and isinstance(key, tuple)) or _same(key, rows[a], rows[b])
            ),
            None,
        )
        if hit is None:
            continue
        count += 1
        copies |= set(mine)
        if len(examples) < EXAMPLES:
            what = "/".join(key) if isinstance(key, tuple) and kind == "file" else Path(rows[hit[1]].path).name
            examples.append(Shared(what, rows[hit[0]].id, rows[hit[1]].id))
    return Leak(kind, pair, count, len(late), examples), copies


def _same(tail: tuple[str, ...], a: Row, b: Row) -> bool:
    """Whether two rows with the same path tail are the same clip, as far as the manifest shows."""
    lengths = [(a.listed_frames, b.listed_frames), (a.listed_samples, b.listed_samples)]
    known = [(x, y) for x, y in lengths if x is not None and y is not None]
    if any(x != y for x, y in known):
        return False
    if -1 not in (a.label, b.label) and a.label != b.label:
        return False
    if (a.method and b.method and a.method != b.method) or (
        a.identities and b.identities and a.identities != b.identities
    ):
        return False
    return bool(known) or telling(tail, a, b)


def telling(tail: tuple[str, ...] | Hashable, a: Row, b: Row) -> bool:
    """Whether a path tail of two rows (or of one, twice) is more specific than a running number, a common word or a
    person."""
    if not isinstance(tail, tuple):
        return True
    parts = (part.rpartition(".")[0] or part for part in tail[-3:])
    people = {*a.identities, *b.identities}
    return any(not RUNNING.fullmatch(part) and part.lower() not in COMMON and part not in people for part in parts)


def _people(rows: Sequence[Row], pair: tuple[str, str], who: str) -> Leak:
    clips: dict[str, dict[str, int]] = {split: {} for split in pair}
    for row in rows:
        if row.split in pair:
            for name in dict.fromkeys(row.identities[:1] if who == "source" else row.identities):
                clips[row.split][name] = clips[row.split].get(name, 0) + 1
    early, late = clips[pair[0]], clips[pair[1]]
    both = sorted(name for name in late if name in early)
    examples = [Shared(name, early[name], late[name]) for name in both[:EXAMPLES]]
    return Leak("identity", pair, len(both), len(late), examples, who, "identities")


def _groups(rows: Sequence[Row], pair: tuple[str, str]) -> Leak:
    """Given groups on both sides with a clip that names no person; other groups follow from the people named."""
    nameless = {group for row in rows if row.split in pair and not row.identities and (group := given_group(row))}
    clips: dict[str, dict[str, int]] = {split: {} for split in pair}
    for row in rows:
        if row.split in pair and row.group in nameless:
            clips[row.split][row.group] = clips[row.split].get(row.group, 0) + 1
    early, late = clips[pair[0]], clips[pair[1]]
    both = sorted(name for name in late if name in early)
    examples = [Shared(name, early[name], late[name]) for name in both[:EXAMPLES]]
    return Leak("identity", pair, len(both), len(late), examples, "group", "group")


def given_group(row: Row) -> str:
    """The row's group; "" if it is the row's own id, which means that no group was given."""
    return "" if row.group == row.id else row.group
