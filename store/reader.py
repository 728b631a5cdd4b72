"""Reading a store: the table of clips, windows of frames, and how well any two clips agree.

`store.open(path)` reads `clips/` once and keeps it; `frames(i, start, stop, names)` reads windows through
`store.arrays.shards`. A row that was not written or is damaged raises StoreError with the clip and the array; nothing is
returned as zeros in silence. A reader may be used by many threads and pickles as its place, so that workers open the store
anew. It shows the store as it was when opened: open it again after a run has changed it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from concord import plain_json
from store import layout, similarity
from store.arrays import inventory, metadata
from store.arrays.groups import Array, Broken, Group, load
from store.arrays.nodes import array_names, is_node, root_attrs, short_dtype
from store.arrays.shards import ABSENT, Damage, ShardCache, ShardedArray
from store.layout import StoreError
from store.place import Place, place
from store.similarity import Fit

if TYPE_CHECKING:
    import pandas
    import xarray

TRIES = 5  # times that a store is opened anew where a run has just changed it
_GROUP = {"frames/zarr.json"}
_UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
)  # of a group that is damaged, or whose parts are odd


@dataclass(frozen=True)
class Clip:
    """One row of `clips/`; labels are 0 real, 1 fake, -1 unknown; times in seconds, `offset` to `length` in frames."""

    id: str
    path: str
    corpus: str
    split: str
    method: str
    category: str
    group: str
    identities: tuple[str, ...]
    label: int
    audio_fake: int
    video_fake: int
    offset: int
    capacity: int
    length: int
    duration: float
    start_skew: float
    quality: float
    done: bool


def open(path: str | os.PathLike[str] | Place, options: Mapping[str, str] | None = None) -> Reader:
    """Open a store for reading, in a folder or at a bucket's URL (`options`: see `store.place`).

    Raises StoreError where there is none, or one that a newer release made.
    """
    return Reader(path, options)


class Reader:
    """A store opened for reading. `attrs` are its root attributes, `clips` its table {column: array [clips]}."""

    def __init__(self, path: str | os.PathLike[str] | Place, options: Mapping[str, str] | None = None):
        self.place = place(path, options).confined()
        self.path = self.place.path  # a Path, or the URL
        for _ in range(TRIES):
            self.attrs: dict[str, Any] = root_attrs(self.place)
            self.inventory = inventory.read(self.place, self.attrs)
            try:
                self._open()
                break
            except inventory.Damaged:
                if not self._has_changed():
                    raise
        else:
            raise StoreError(f"{self.path} is being changed by a run; open it again when that has ended")

    def _open(self) -> None:
        """Read the tables and the metadata of frames, and hold them to the inventory."""
        self.inventory.check_attributes(self.place, self.attrs)
        self.names: list[str] = array_names(self.place / "frames")
        self.inventory.check_present(self.place, "frames", {f"frames/{name}/zarr.json" for name in self.names} | _GROUP)
        lost = [name for name in (*layout.FRAME_ARRAYS, *layout.EMBEDDINGS) if name not in self.names]
        if lost:
            raise StoreError(f"{self.path} has lost frames/{lost[0]}; {inventory.remedy('frames')}")
        self.clips: dict[str, np.ndarray] = self._table(
            "clips", {name: kind for name, (kind, _) in layout.CLIP_ARRAYS.items()}, rows_of="done"
        )
        self._slots = list(
            zip(*(self.clips[name].tolist() for name in ("offset", "length", "capacity", "done")), strict=True)
        )
        cache = ShardCache()
        arrays = self.place.map(
            lambda name: ShardedArray(
                self.place / "frames" / name,
                cache,
                lambda key, data: self.inventory.check(self.place, f"frames/{name}/{key}", data),
                partial(self._knows_shard, name),
            ),
            self.names,
        )
        self._arrays = dict(zip(self.names, arrays, strict=True))
        self._fit: list[Fit | None] = []  # read when first asked for
        self._words: list[dict[str, np.ndarray]] = []

    def _load(self, group: str) -> Group:
        """A small group, whole, held to the inventory. Raises Damaged."""
        held = self.inventory
        return load(
            self.place / group,
            lambda keys: held.check_present(self.place, group, {f"{group}/{key}" for key in keys}),
            lambda key, data: held.check(self.place, f"{group}/{key}", data),
        )

    def _has_changed(self) -> bool:
        """Whether a run has taken up the store, or closed it, since it was opened: then nothing is damaged."""
        return inventory.read(self.place, root_attrs(self.place)) != self.inventory

    def __reduce__(self) -> tuple[Any, ...]:
        return Reader, (self.place,)

    def __len__(self) -> int:
        """Clips in the store, done or not."""
        return len(self._slots)

    def __repr__(self) -> str:
        return f"<store {self.path}: {len(self)} clips>"

    @property
    def num_rows(self) -> int:
        """Rows of `frames/`."""
        return min((a.shape[0] for a in self._arrays.values()), default=0)

    @property
    def shard_rows(self) -> int:
        """Rows in one shard."""
        return int(self.attrs["layout"]["shard_rows"])

    @property
    def typical_length(self) -> int:
        """Frames that 19 of 20 done clips do not exceed; 0 without any."""
        lengths = self.clips["length"][self.clips["done"] == 1]
        return int(np.quantile(lengths, 0.95, method="lower")) if len(lengths) else 0

    @property
    def fit_length(self) -> int:
        """Frames of the clips that the fit was learned from, as `typical_length` counts them; where the store does not say
        (fits of earlier releases) those of its own clips."""
        return int((self.attrs.get("similarity") or {}).get("clip_frames") or self.typical_length)

    def array(self, name: str) -> ShardedArray:
        """One frame array: its shape [rows, ...], dtype, chunk and shard rows; raises StoreError for an unknown name."""
        if name not in self._arrays:
            raise StoreError(self._no_array(name))
        return self._arrays[name]

    def _no_array(self, name: str) -> str:
        hint = "; precompute.py makes projections once it has real clips" if name in layout.PROJECTIONS else ""
        if name in layout.OPTIONAL_ARRAYS:
            hint = f"; a new store made by precompute.py --arrays {name} has it"
        return f"{self.path} has no frames/{name}; it has {', '.join(self.names)}{hint}"

    def clip(self, i: int) -> Clip:
        """Row i of the table."""
        self._slot(i)
        values = {f.name: self.clips[f.name][i] for f in fields(Clip)}
        values = {name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()}
        try:
            names = plain_json.parse(values["identities"] or "[]")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("it is no list of names")
        except ValueError as e:
            raise StoreError(f"clip {values['id']}: clips/identities is damaged ({e}); restore it from a copy") from e
        values["identities"] = tuple(names)
        return Clip(**{**values, "done": bool(values["done"])})

    def frames(self, i: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Frames start..stop of clip i, counted from its first: {name: array [stop - start, ...]}, fresh arrays.

        Raises StoreError for a clip that is not done, frames outside [0, length], an array that the store has not, and rows
        that are missing or damaged.
        """
        offset, length, _, done = self._slot(i)
        if not done:
            raise StoreError(f"clip {self.clips['id'][i]} is not done; its ledger row says why")
        if offset < 0:
            raise StoreError(f"clip {self.clips['id'][i]} is done but has no rows; restore clips/offset from a copy")
        if not 0 <= start <= stop <= length:
            raise StoreError(f"clip {self.clips['id'][i]}: frames {start} to {stop} are not all in it, it has {length}")
        return self._read(offset + start, offset + stop, names, i)

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Rows start..stop of `frames/` itself, of all clips, done or not, and of none: {name: array [stop - start, ...]}."""
        if not 0 <= start <= stop <= self.num_rows:
            raise StoreError(f"{self.path}: rows {start} to {stop} are not all in frames/, it has {self.num_rows}")
        return self._read(start, stop, names, None)

    def _read(self, start: int, stop: int, names: Sequence[str], i: int | None) -> dict[str, np.ndarray]:
        names = [names] if isinstance(names, str) else names
        arrays = self.place.map(lambda name: self._read_one(start, stop, name, i), names)
        return dict(zip(names, arrays, strict=True))

    def _read_one(self, start: int, stop: int, name: str, i: int | None) -> np.ndarray:
        array = self._arrays.get(name)
        if array is None:
            raise StoreError(f"{self._whose(i, start)}: {self._no_array(name)}")
        if stop > array.shape[0]:
            raise StoreError(f"{self._whose(i, start)}: frames/{name} ends before it; run precompute.py again")
        learned = name in layout.LEARNED_ARRAYS
        if learned and (self.attrs.get("similarity") or {}).get("complete") is False:
            raise StoreError(self._half())
        try:
            return array.read(start, stop)
        except Damage as e:
            if self.inventory.complete and self._has_changed():
                raise self._changed() from e
            remedy = "precompute.py --refit writes it anew" if learned else "restore that file from a copy"
            raise StoreError(f"{self._whose(i, start)}: frames/{name} cannot be read: {e}; {remedy}") from e

    def _knows_shard(self, name: str, number: int, size: int, tail: bytes) -> bool:
        """Whether a shard is the one that was written. Raises StoreError where a store without inventory has another fit
        now."""
        if self.inventory.complete or name not in layout.LEARNED_ARRAYS:
            return self.inventory.knows_shard(name, number, size, tail)
        if root_attrs(self.place).get("similarity") != self.attrs.get("similarity"):
            raise self._changed()
        return True

    def _half(self) -> str:
        return (
            f"the fit of {self.path} is being replaced, or a run that did so was cut off: soft labels of two fits may lie "
            f"side by side; wait for that run, or go on with it: precompute.py --store {self.path}"
        )

    def _whose(self, i: int | None, row: int) -> str:
        if i is not None:
            return f"clip {self.clips['id'][i]}"
        within = (self.clips["offset"] <= row) & (row < self.clips["offset"] + self.clips["capacity"])
        return f"clip {self.clips['id'][within.argmax()]}" if within.any() else f"row {row}"

    def _slot(self, i: int) -> tuple[int, int, int, int]:
        if not 0 <= i < len(self._slots):
            raise StoreError(f"{self.path} has no clip {i}: it has {len(self)}, counted from 0")
        return self._slots[i]

    # -- damage, found cheaply -----------------------------------------------------------------------------------------

    def shards_in_use(self) -> list[int]:
        """Shards that hold rows of done clips."""
        return np.flatnonzero(self._used(self.shard_rows)).tolist()

    def damaged_shards(self, names: Sequence[str] | None = None) -> dict[str, list[int]]:
        """{array: shards} of the shards in use that `shard_damage` finds something wrong with, all arrays or those named.

        Projections that were not written yet are among them.
        """
        shards = self.shards_in_use()
        pairs = [(name, shard) for name in (self.names if names is None else names) for shard in shards]
        found: dict[str, list[int]] = {}
        for (name, shard), fault in zip(pairs, self.place.map(lambda p: self.shard_damage(*p), pairs), strict=True):
            if fault:
                found.setdefault(name, []).append(shard)
        return found

    def shard_damage(self, name: str, shard: int) -> str:
        """What is wrong with a shard, by its size and its index alone; "" where nothing is.

        It finds files that are missing, cut short or of another kind, and chunks of done clips that are not in them, not what
        is wrong inside a chunk (`store.inspect.verify` reads those). Raises StoreError for an unknown array.
        """
        array = self.array(name)
        if (shard + 1) * array.shard_rows > array.shape[0]:
            return f"frames/{name} ends before it"
        try:
            entries = array.open_shard(shard).entries
        except Damage as e:
            return str(e)
        used = self._used(array.chunk_rows)[shard * len(entries) : (shard + 1) * len(entries)]
        lost = [k for k in np.flatnonzero(used).tolist() if entries[k] == ABSENT]
        return f"{array.folder / array.shard_key(shard)}: chunk {lost[0]} is missing" if lost else ""

    def _used(self, rows: int) -> np.ndarray:
        """Which pieces of so many rows hold some of a done clip, bool [pieces]."""
        done = self.clips["done"] == 1
        start, length = self.clips["offset"][done], self.clips["length"][done]
        pieces = self.num_rows // rows
        edges = np.zeros(pieces + 1, np.int64)
        np.add.at(edges, np.minimum(start // rows, pieces), 1)
        np.add.at(edges, np.minimum(-(-(start + length) // rows), pieces), -1)
        return np.cumsum(edges[:-1]) > 0

    # -- what clips have to do with each other -------------------------------------------------------------------------

    @property
    def fit(self) -> Fit | None:
        """The maps into the shared space and their calibration; None before a fit.

        Raises StoreError where it is damaged, and while it is being replaced (`new_fit` is for who does that).
        """
        if (self.attrs.get("similarity") or {}).get("complete") is False:
            raise StoreError(self._half())
        return self.new_fit

    @property
    def new_fit(self) -> Fit | None:
        """The same, also where not all projections are of this fit yet."""
        if not self._fit:
            self._fit.append(self._read_fit())
        return self._fit[0]

    def _read_fit(self) -> Fit | None:
        folder, note = self.place / "fit", self.attrs.get("similarity") or {}
        known = any(key.startswith("fit/") for key in self.inventory.files)
        if not is_node(folder) and not known and not note.get("complete"):
            return None
        try:
            fit = Fit.from_arrays(_tree(folder, self._load("fit")))
            for corpus in note.get("calibrated_on", {}):
                lost = set(similarity.WINDOWS) - set(fit.calibration.get(corpus, {}))
                if lost and fit.kind != "posterior" and note.get("complete"):
                    raise ValueError(f"the calibration of {corpus} lacks the window {min(lost)}")
        except inventory.Damaged as e:
            if self._has_changed():
                raise self._changed() from e
            raise
        except _UNREADABLE as e:
            raise StoreError(f"{folder} cannot be read ({e}); {inventory.remedy('fit')}") from e
        return fit

    def _changed(self) -> StoreError:
        return StoreError(f"{self.path} was changed by a run since it was opened; open it again")

    def pair_similarity(self, i: int, j: int, shift: int = 0, window: int | str = 5) -> np.ndarray:
        """Probability f4 [min length] that the lips of clip i at t belong with the sound of clip j at t - shift.

        NaN where t - shift lies outside clip j. `window` is 5, 25 or "clip" frames; the calibration is that of clip i's corpus.
        Raises StoreError where the store has no fit, or a clip is not done.
        """
        fit = self.fit
        if fit is None:
            raise StoreError(f"{self.path} has no fit yet; run precompute.py with real clips, or with --fit-from")
        lips, sound, rows = similarity.shifted(self._slot(i)[1], self._slot(j)[1], shift)
        if rows.start == rows.stop:  # the shift leaves nothing in common
            lips = sound = slice(0, 0)
        seen = self.frames(i, lips.start, lips.stop, ["vsr_projection", "flags"])
        heard = self.frames(j, sound.start, sound.stop, ["asr_projection", "flags"])
        mask = layout.labelled(seen["flags"], heard["flags"])
        out = np.full(min(self._slot(i)[1], self._slot(j)[1]), np.nan, np.float32)
        out[rows] = similarity.compare(
            seen["vsr_projection"],
            heard["asr_projection"],
            fit,
            window=window,
            mask=mask,
            corpus=str(self.clips["corpus"][i]),
        )
        return out

    def best_offset(self, i: int, j: int | None = None, limit: int = similarity.MAX_OFFSET) -> similarity.Offset:
        """The constant offset within +-`limit` frames under which the lips of clip i and the sound of clip j (its own, if left
        out) agree best over the whole clip, the scores there and unshifted, and its margin over other offsets.

        Raises StoreError where the store has no fit, a clip is not done, or no frame has both face and voice.
        """
        fit = self.fit
        if fit is None:
            raise StoreError(f"{self.path} has no fit yet; run precompute.py with real clips, or with --fit-from")
        j = i if j is None else j
        seen = self.frames(i, 0, self._slot(i)[1], ["vsr_projection", "flags"])
        heard = self.frames(j, 0, self._slot(j)[1], ["asr_projection", "flags"])
        face, voice = seen["flags"] & layout.FACE_DETECTED > 0, heard["flags"] & layout.VOICE_ACTIVE > 0
        try:
            return similarity.best_offset(seen["vsr_projection"], heard["asr_projection"], fit, face, voice, limit)
        except ValueError as e:
            raise StoreError(f"clip {self.clips['id'][i]} with the sound of {self.clips['id'][j]}: {e}") from e

    @cached_property
    def has_words(self) -> bool:
        """Whether the store has transcripts (`precompute.py --words`)."""
        return is_node(self.place / "words")

    @property
    def words_table(self) -> dict[str, np.ndarray]:
        """`words/` as columns, in the order of clips; read once."""
        if not self._words:
            self._words.append(self._table("words", layout.WORD_ARRAYS, rows_of="clip"))
        return self._words[0]

    def words(self, i: int) -> list[dict[str, Any]]:
        """Words of clip i in order: dicts of start, end (seconds), text, probability."""
        self._slot(i)
        if not self.has_words:
            raise StoreError(f"{self.path} has no words; run precompute.py with --words")
        table = self.words_table
        first, last = np.searchsorted(table["clip"], [i, i + 1])
        columns = {name: table[name][first:last].tolist() for name in ("start", "end", "text", "probability")}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    # -- other people's tools ------------------------------------------------------------------------------------------

    def to_pandas(self) -> pandas.DataFrame:
        """The table of clips as a pandas frame; row k is clip k, clips that are not done included."""
        import pandas

        return pandas.DataFrame({name: column.copy() for name, column in self.clips.items()})

    def to_xarray(self) -> xarray.DataTree:
        """Both tables as an xarray tree (`clips`, `frames`, and `words` where there are any); values are read when used."""
        try:
            from store.tree import tree_of
        except ModuleNotFoundError:
            raise StoreError("to_xarray needs xarray: pip install xarray") from None
        return tree_of(self)

    # -- tables --------------------------------------------------------------------------------------------------------

    def _table(self, group: str, kinds: Mapping[str, str], rows_of: str) -> dict[str, np.ndarray]:
        """Columns {name: dtype} of a table, all as long as `rows_of`, which is looked at first: who adds clips makes it longer
        last, and a kill in between leaves other columns longer."""
        where = self.place / group
        try:
            (length,) = metadata.parse(plain_json.parse((where / rows_of / "zarr.json").read())).shape
        except _UNREADABLE as e:
            raise StoreError(f"{where / rows_of} is damaged ({e}); restore it from a copy") from e
        try:
            table = self._load(group)
            arrays = [table[name] for name in kinds]
        except inventory.Damaged as e:
            if group == "words" and self._has_changed():  # read late
                raise self._changed() from e
            raise
        except _UNREADABLE as e:
            raise StoreError(f"{where} is damaged ({e}); restore it from a copy") from e
        return {name: _column(where, array, length, kinds[name]) for name, array in zip(kinds, arrays, strict=True)}


def _tree(where: Place, group: Group) -> dict[str, Any]:
    """A group that was read into memory from `where`, as a nested dict of arrays, its attributes under "attrs"."""
    tree: dict[str, Any] = {"attrs": dict(group.attrs)}
    for name, node in group.members.items():
        tree[unquote(name)] = _tree(where, node) if isinstance(node, Group) else _column(where, node)
    return tree


def _column(where: Place, array: Array, length: int | None = None, kind: str = "") -> np.ndarray:
    """First `length` rows of a small array that was read into memory from `where`, all by default; strings as Python's.

    `kind` is the layout's spelling of the dtype that it must have.
    """
    folder = where / array.name
    found = "string" if array.meta.dtype is None else short_dtype(array.meta.dtype)
    if kind and (found != kind or len(array.meta.shape) != 1):
        raise StoreError(f"{folder} holds {found} {list(array.meta.shape)}, expected a column of {kind}")
    try:
        values = array.read(length)
    except Broken as e:
        raise StoreError(f"{folder} is damaged ({e}); restore it from a copy") from e
    if length is not None and len(values) != length:
        raise StoreError(f"{folder} has {len(values)} rows, expected {length}; restore it from a copy")
    return values
