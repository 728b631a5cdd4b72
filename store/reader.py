"""Reads a store: the table of clips, windows of frames, and the similarity of any two clips.

`store.open(path)` reads `clips/` once and keeps it; `frames(i, start, stop, names)` reads windows through
`store.arrays.shards`. A row that was not written, or is damaged, raises StoreError with the clip and the array; zeros
never stand for missing rows. A reader may be used by many threads. It pickles as its place, so that workers open the
store again. It shows the store at the time of opening: open it again after a run has changed it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from concord import extras
from store import layout, similarity
from store.arrays import inventory, tables
from store.arrays.attributes import RootAttributes
from store.arrays.nodes import is_node
from store.arrays.shards import ShardedArray
from store.layout import StoreError
from store.place import Place, place
from store.reading.clips import Clip, Clips, ClipTable
from store.reading.frames import Frames
from store.reading.held import HeldPictures
from store.reading.snapshot import opened
from store.similarity import Fit

if TYPE_CHECKING:
    import pandas
    import xarray

__all__ = ["Clip", "Reader", "Word", "open"]


class Word(TypedDict):
    """A word of a transcript; times in seconds from the clip's beginning."""

    start: float
    end: float
    text: str
    probability: float


def open(path: str | os.PathLike[str] | Place, options: Mapping[str, str] | None = None) -> Reader:
    """Open a store for reading, in a folder or at a bucket's URL (`options`: see `store.place`).

    Raises StoreError where there is none, or one that a newer release made.
    """
    return Reader(path, options)


class Reader(Clips):
    """A store opened for reading. `attrs` are its root attributes, `clips` its table {column: array [clips]}.

    It is a sequence of its clips, done or not: `reader[0]`, `reader[-1]`, `reader["id"]`, `reader[2:5]`, `len(reader)`,
    `for clip in reader`, `"id" in reader`; `clip.row` is the number that `frames` and the others take.
    """

    def __init__(self, path: str | os.PathLike[str] | Place, options: Mapping[str, str] | None = None):
        self.place = place(path, options).confined()
        self.path = self.place.path  # a Path, or the URL
        # The table first: a writer makes room for rows before it marks clips done, so no done clip lies beyond the arrays.
        self._snapshot, (self._table, self._frames) = opened(self.place, lambda now: (ClipTable(now), Frames(now)))
        self.attrs: RootAttributes = self._snapshot.attrs
        self.inventory = self._snapshot.inventory
        self.names = self._frames.names
        self.clips = self._table.columns
        self._held = None if self.has_held_pictures else HeldPictures()

    def __reduce__(self) -> tuple[object, ...]:
        return Reader, (self.place,)

    def __repr__(self) -> str:
        return f"<store {self.path}: {len(self)} clips>"

    @property
    def has_held_pictures(self) -> bool:
        """Whether the stored flags have the bit of held pictures; stores of earlier releases lack it, and this reader
        supplies it."""
        return bool(self.attrs.get("held_pictures", False))

    @property
    def num_rows(self) -> int:
        """Rows of `frames/`."""
        return self._frames.num_rows

    @property
    def shard_rows(self) -> int:
        """Rows in one shard."""
        return self.attrs["layout"]["shard_rows"]

    @property
    def typical_length(self) -> int:
        """Frames that 19 of 20 done clips do not exceed; 0 without any."""
        return self._table.typical_length()

    @property
    def fit_length(self) -> int:
        """`typical_length` of the clips that the fit was learned from; of the store's own where it does not say (fits of
        earlier releases)."""
        return int((self.attrs.get("similarity") or {}).get("clip_frames") or self.typical_length)

    # -- frames --------------------------------------------------------------------------------------------------------

    def array(self, name: str) -> ShardedArray:
        """One frame array: its shape [rows, ...], dtype, chunk and shard rows; raises StoreError for an unknown name."""
        return self._frames.array(name)

    def frames(self, i: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Frames start..stop of clip i, counted from its first: {name: array [stop - start, ...]}, fresh arrays.

        Raises StoreError for a clip that is not done, frames outside [0, length], an array that the store does not have, and
        rows that are missing or damaged.
        """
        offset, length, done = self._table.slot(i)
        name = self._table.name(i)
        if not done:
            raise StoreError(f"{name} is not done; its ledger row says why")
        if offset < 0:
            raise StoreError(f"{name} is done but has no rows; restore clips/offset from a copy")
        if not 0 <= start <= stop <= length:
            raise StoreError(f"{name}: frames {start} to {stop} are not all in it, it has {length}")
        got = self._frames.read(offset + start, offset + stop, names, lambda: name)
        if self._held and "flags" in got and start < stop:
            self._supply(self._held, i, got["flags"], start)
        return got

    def rows(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Rows start..stop of `frames/` itself, whether or not they belong to a clip: {name: array [stop - start, ...]}."""
        if not 0 <= start <= stop <= self.num_rows:
            raise StoreError(f"{self.path}: rows {start} to {stop} are not all in frames/, it has {self.num_rows}")
        got = self._frames.read(start, stop, names, partial(self._table.name_of_row, start))
        if self._held and "flags" in got:
            for i in self._table.done_within(start, stop):
                offset, length, _ = self._table.slot(i)
                first, last = max(offset, start), min(offset + length, stop)
                self._supply(self._held, i, got["flags"][first - start : last - start], first - offset)
        return got

    def _supply(self, bits: HeldPictures, i: int, flags: np.ndarray, start: int) -> None:
        """Set the bit of held pictures in the flags of clip i from frame `start` on."""
        (offset, length, _), name = self._table.slot(i), self._table.name(i)
        bits.add(
            i, length, lambda a, b, names: self._frames.read(offset + a, offset + b, names, lambda: name), flags, start
        )

    # -- damage, found cheaply -----------------------------------------------------------------------------------------

    def shards_in_use(self) -> list[int]:
        """Shards that hold rows of done clips."""
        return np.flatnonzero(self._in_use(self.shard_rows)).tolist()

    def damaged_shards(self, names: Sequence[str] | None = None) -> dict[str, list[int]]:
        """{array: shards} of the shards in use in which `shard_damage` finds something wrong, of all arrays or those named.

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

        This finds files that are missing, cut short or of another kind, and chunks of done clips that are not in them. It does
        not find damage inside a chunk (`store.verify` reads those). Raises StoreError for an unknown array.
        """
        return self._frames.shard_damage(name, shard, self._in_use(self.array(name).chunk_rows))

    def _in_use(self, rows: int) -> np.ndarray:
        return self._table.blocks_in_use(rows, self.num_rows // rows)

    # -- how well clips agree ------------------------------------------------------------------------------------------

    @property
    def fit(self) -> Fit | None:
        """The maps into the shared space and their calibration; None before a fit.

        Raises StoreError where it is damaged, and while it is being replaced (`new_fit` is for the run that replaces it).
        """
        self._snapshot.check_labels()
        return self.new_fit

    @cached_property
    def new_fit(self) -> Fit | None:
        """The same, also where not all projections are of this fit yet."""
        folder, note = self.place / "fit", self.attrs.get("similarity") or {}
        known = any(key.startswith("fit/") for key in self.inventory.files)
        if not is_node(folder) and not known and not note.get("complete"):
            return None
        try:
            with tables.unreadable(folder, inventory.remedy("fit")):
                fit = Fit.from_arrays(tables.tree(folder, self._snapshot.group("fit")))
                for corpus in note.get("calibrated_on", {}):
                    lost = set(similarity.WINDOWS) - set(fit.calibration.get(corpus, {}))
                    if lost and fit.kind != "posterior" and note.get("complete"):
                        raise ValueError(f"the calibration of {corpus} lacks the window {min(lost)}")
        except inventory.Damaged as e:
            raise self._changed_or(e) from e
        return fit

    def _changed_or(self, error: StoreError) -> StoreError:
        """The error for damage that was found after opening: a run may have changed the store."""
        return self._snapshot.changed() if self._snapshot.has_changed() else error

    def _needed_fit(self) -> Fit:
        if (fit := self.fit) is None:
            raise StoreError(f"{self.path} has no fit yet; run precompute.py with real clips, or with --fit-from")
        return fit

    def pair_similarity(self, i: int, j: int, shift: int = 0, window: int | str = 5) -> np.ndarray:
        """Probability f4 [min length] that the lips of clip i at t belong with the sound of clip j at t - shift.

        NaN where t - shift lies outside clip j. `window` is 5, 25 or "clip" frames; the calibration is that of clip i's corpus.
        Raises StoreError where the store has no fit, or a clip is not done.
        """
        fit = self._needed_fit()
        lengths = self._table.slot(i).length, self._table.slot(j).length
        lips, sound, rows = similarity.shifted(*lengths, shift)
        if rows.start == rows.stop:  # the shift leaves nothing in common
            lips = sound = slice(0, 0)
        seen = self.frames(i, lips.start, lips.stop, ["vsr_projection", "flags"])
        heard = self.frames(j, sound.start, sound.stop, ["asr_projection", "flags"])
        mask = layout.labelled(seen["flags"], heard["flags"])
        corpus = str(self.clips["corpus"][i])
        out = np.full(min(lengths), np.nan, np.float32)
        out[rows] = similarity.compare(seen["vsr_projection"], heard["asr_projection"], fit, window, mask, corpus)
        return out

    def best_offset(self, i: int, j: int | None = None, limit: int = similarity.MAX_OFFSET) -> similarity.Offset:
        """The constant offset within +-`limit` frames under which the lips of clip i and the sound of clip j (its own, if left
        out) agree best over the whole clip, the scores there and unshifted, and its margin over other offsets.

        Raises StoreError where the store has no fit, a clip is not done, or no frame has both a face that moves and a voice.
        """
        fit = self._needed_fit()
        j = i if j is None else j
        seen = self.frames(i, 0, self._table.slot(i).length, ["vsr_projection", "flags"])
        heard = self.frames(j, 0, self._table.slot(j).length, ["asr_projection", "flags"])
        face, voice = layout.evident(seen["flags"]), heard["flags"] & layout.VOICE_ACTIVE > 0
        try:
            return similarity.best_offset(seen["vsr_projection"], heard["asr_projection"], fit, face, voice, limit)
        except ValueError as e:
            raise StoreError(f"{self._table.name(i)} with the sound of {self.clips['id'][j]}: {e}") from e

    # -- words ---------------------------------------------------------------------------------------------------------

    @cached_property
    def has_words(self) -> bool:
        """Whether the store has transcripts (`precompute.py --words`)."""
        return is_node(self.place / "words")

    @cached_property
    def words_table(self) -> dict[str, np.ndarray]:
        """`words/` as columns, in the order of clips; read once."""
        try:
            return self._snapshot.table("words", layout.WORD_ARRAYS, length_of="clip")
        except inventory.Damaged as e:
            raise self._changed_or(e) from e

    def words(self, i: int) -> list[Word]:
        """Words of clip i in order."""
        self._table.slot(i)
        if not self.has_words:
            raise StoreError(f"{self.path} has no words; run precompute.py with --words")
        table = self.words_table
        first, last = np.searchsorted(table["clip"], [i, i + 1])
        columns = (table[name][first:last].tolist() for name in ("start", "end", "text", "probability"))
        return [
            Word(start=start, end=end, text=text, probability=probability)
            for start, end, text, probability in zip(*columns, strict=True)
        ]

    # -- other people's tools ------------------------------------------------------------------------------------------

    def to_pandas(self) -> pandas.DataFrame:
        """The table of clips as a pandas frame; row k is clip k, clips that are not done included."""
        import pandas

        return pandas.DataFrame({name: column.copy() for name, column in self.clips.items()})

    def to_xarray(self) -> xarray.DataTree:
        """Both tables as an xarray tree (`clips`, `frames`, and `words` where there are any); values are read when used."""
        try:
            from store.reading.tree import tree_of
        except ModuleNotFoundError:
            raise StoreError(f"to_xarray needs xarray: {extras.install('xarray')}") from None
        return tree_of(self)
