"""The inventory of a complete store: every file with its SHA-256, so that lost or changed files are noticed, whatever a
listing shows.

`inventory.json` lies beside the root's zarr.json. It is *open* while a run writes and after an interrupted run; then it
contains nothing else. The driver closes it as its last step. It covers every small file: metadata of all nodes, the
chunks of `clips/`, `fit/` and `words/`, ledger and manifest. Shards of `frames/` are identified by their size and their
last TAIL bytes: the index, which has the length of every chunk, and the whole of a small shard. So a shard of another
array, fit or store is noticed; each chunk also has its own CRC-32C. Root attributes are covered one by one, so that
users may add their own. Stores of earlier releases have no inventory, and readers accept them without one. To accept a
changed store, remove the file and run precompute.py.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from concord import plain_json
from store.arrays.nodes import is_of_node
from store.layout import StoreError
from store.place import Place

FILE = "inventory.json"
MARK = "inventory"  # the root attribute that says that a store has one
FORMAT, VERSION = "concord-av inventory", 1
TABLES = ("ledger.parquet", "manifest.parquet")  # of the driver, beside zarr.json
WHOLE = ("clips", "fit", "words")  # groups that are covered with their chunks
TAIL = 1 << 14  # bytes at the end of a shard
MOST = 256 << 20  # bytes of an inventory: a million clips have some 15 MB of shards
PRINT = 16  # hexadecimal digits of a shard's fingerprint
_SHARD = re.compile(r"frames/([^/]+)/c/(\d+)(?:/0)*")


class Damaged(StoreError):
    """A file differs from the inventory."""


@dataclass(frozen=True)
class Inventory:
    """SHA-256 (hexadecimal) of root attributes by name and of files by key; `complete` is False while a run writes.

    `shards` has the `fingerprint` of every shard by array, one after the other, spaces for missing ones.
    """

    complete: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    shards: Mapping[str, str] = field(default_factory=dict)

    def knows_shard(self, array: str, number: int, size: int, tail: bytes) -> bool:
        """Whether a shard of frames/`array` is the one that was written, by its size and its last TAIL bytes; True if
        the inventory does not list it."""
        wanted = self.shards.get(array, "")[PRINT * number : PRINT * (number + 1)].strip()
        return not wanted or fingerprint(size, tail) == wanted

    def check(self, root: Place, key: str, data: bytes) -> None:
        """Raises Damaged if the inventory lists a file with that key and another content."""
        if key in self.files and digest(data) != self.files[key]:
            raise Damaged(f"{root / key}: {part(key)} is damaged: this is not what the run wrote; {remedy(key)}")

    def check_present(self, root: Place, group: str, keys: set[str]) -> None:
        """Raises Damaged if a file of `group` is missing; in `fit`, where every array counts, also if one was added."""
        mine = {key for key in self.files if key.startswith(f"{group}/")}
        lost = sorted(mine - keys)
        if lost:
            raise Damaged(f"{root / lost[0]} is missing: {part(lost[0])} is damaged; {remedy(lost[0])}")
        added = sorted(key for key in keys - mine if is_of_node(key)) if self.complete and group == "fit" else []
        if added:
            raise Damaged(f"{root / added[0]} was not written by any run; {remedy(added[0])}")

    def check_attributes(self, root: Place, attributes: Mapping[str, Any]) -> None:
        """Raises Damaged if a root attribute in the inventory is missing or differs."""
        for name, wanted in self.attributes.items():
            if name not in attributes or digest(canonical(attributes[name])) != wanted:
                raise Damaged(
                    f"{root}/zarr.json: the attribute {name} is not what the run wrote: the file was damaged or changed; "
                    "restore it from a copy"
                )


def read(root: Place, attributes: Mapping[str, Any]) -> Inventory:
    """The inventory of a store with those root attributes; an open one for stores of earlier releases.

    Raises Damaged if it is lost or damaged itself.
    """
    again = f"run precompute.py --store {root} again: it accepts the store as it is and writes a new inventory"
    try:
        data = (root / FILE).read()
    except FileNotFoundError:
        if attributes.get(MARK):
            raise Damaged(f"{root / FILE} is missing: part of the store was lost or not copied; {again}") from None
        return Inventory()
    except OSError as e:
        raise Damaged(f"{root / FILE} cannot be read ({e.strerror}); remove it and {again}") from e
    try:
        document = plain_json.parse_exact(data, MOST)
        seal = document.pop("sha256")
        if document["format"] != FORMAT or not isinstance(document["version"], int):
            raise ValueError("it is not an inventory")
        if document["version"] > VERSION:
            raise StoreError(f"{root / FILE} was made by a newer concord-av: upgrade")
        if seal != digest(canonical(document)):
            raise ValueError("its checksum is wrong")
        shards = dict(document.get("shards", {}))  # inventories of earlier releases have none
        if not all(isinstance(prints, str) for prints in shards.values()):
            raise ValueError("its shards are not texts")
        return Inventory(bool(document["complete"]), dict(document["attributes"]), dict(document["files"]), shards)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Damaged(f"{root / FILE} is damaged ({e}); remove it and {again}") from e


def is_closed(root: Place) -> bool:
    """Whether there is an inventory that is not open, damaged ones included."""
    try:
        return plain_json.parse_dict((root / FILE).read(), MOST)["complete"] is not False
    except (OSError, ValueError, KeyError):
        return True


def write(root: Place, inventory: Inventory) -> None:
    """Replace the inventory."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "complete": inventory.complete,
        "attributes": dict(sorted(inventory.attributes.items())),
        "files": dict(sorted(inventory.files.items())),
        "shards": dict(sorted(inventory.shards.items())),
    }
    document["sha256"] = digest(canonical(document))
    (root / FILE).write(json.dumps(document, indent=1).encode())


def take(root: Place, attributes: Mapping[str, Any]) -> Inventory:
    """The complete inventory of a store as it is now."""
    there = root.files()
    keys = [key for key in there if is_covered(key)]
    hashes = root.map(lambda key: digest((root / key).read()), keys)
    return Inventory(
        True,
        {name: digest(canonical(value)) for name, value in attributes.items()},
        dict(zip(keys, hashes, strict=True)),
        _shards(root, there),
    )


def _shards(root: Place, keys: Iterable[str]) -> dict[str, str]:
    """Fingerprints of the shards among these keys, by array."""
    found = [(match[1], int(match[2]), key) for key in keys if (match := _SHARD.fullmatch(key))]

    def look(shard: tuple[str, int, str]) -> str:
        opened = (root / shard[2]).open(TAIL)
        return fingerprint(opened.size, opened.tail)

    prints: dict[str, dict[int, str]] = {}
    for (array, number, _), text in zip(found, root.map(look, found), strict=True):
        prints.setdefault(array, {})[number] = text
    blank = " " * PRINT
    return {array: "".join(row.get(k, blank) for k in range(max(row) + 1)) for array, row in prints.items()}


def fingerprint(size: int, tail: bytes) -> str:
    """PRINT hexadecimal digits for a shard of that many bytes whose last TAIL bytes are these (more may be given)."""
    return digest(size.to_bytes(8, "little") + tail[-TAIL:])[:PRINT]


def is_covered(key: str) -> bool:
    """Whether an inventory lists a file with that key."""
    group = key.partition("/")[0]
    return key in TABLES or (is_of_node(key) and (group in WHOLE or (group == "frames" and key.endswith("zarr.json"))))


def damage(root: Place, inventory: Inventory) -> dict[str, str]:
    """{key: what is wrong} for the files in a complete inventory, each read completely; empty if there is no damage."""

    def fault(key: str) -> str:
        try:
            inventory.check(root, key, (root / key).read())
        except FileNotFoundError:
            return f"{root / key} is missing: {part(key)} is damaged; {remedy(key)}"
        except (StoreError, OSError) as e:
            return str(e)
        return ""

    keys = list(inventory.files)
    found = {key: text for key, text in zip(keys, root.map(fault, keys), strict=True) if text}
    there = {key for key in (root / "fit").files() if is_of_node(key)} if inventory.complete else set()
    try:
        inventory.check_present(
            root, "fit", {f"fit/{key}" for key in there} | {k for k in found if k.startswith("fit/")}
        )
    except Damaged as e:
        found.setdefault("fit", str(e))
    return found


def part(key: str) -> str:
    """The table, group or array that a file belongs to: `clips/label` for clips/label/c/0."""
    return key.removesuffix("/zarr.json").partition("/c/")[0].removesuffix("/c")


def remedy(key: str) -> str:
    """How to repair a file that is lost or damaged, as the end of a sentence."""
    group = key.partition("/")[0]
    if group == "fit":
        return (
            "precompute.py --refit learns the fit again (or --fit-from uses another) and writes all soft labels again"
        )
    if group == "words":
        return "remove the folder words and run precompute.py --words, which writes it again"
    if key == "ledger.parquet" or group == "frames":
        return "run precompute.py on the store again: it repairs that"
    if key == "manifest.parquet":
        return "run precompute.py with the --corpus options that the store was made with: it writes that file again"
    return f"restore it from a copy, or, if you changed it on purpose, remove {FILE} and run precompute.py on the store"


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    """One text for one JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
