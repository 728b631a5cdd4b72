"""Windows of a store as arrays, each a function of the store, the options, the epoch and its number alone.

Windows lie end to end in the spans of the clips (`store.dataset.spans`), in the order of the store. A share of the real
clips' windows gets the sound of another real clip (`store.dataset.pairs`), with the soft label of that pair from the
stored projections. No teacher runs here. Numpy is enough; `store.dataset.loading` gives the windows to torch.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from store import layout
from store.dataset import pairs, spans
from store.layout import REAL, SPLITS, StoreError
from store.place import is_url
from store.reader import Reader
from store.reader import open as open_store
from store.similarity import compare

Window = dict[str, Any]
Transform = Callable[[Window, np.random.Generator], Any]

SOUND = ("audio", "asr", "asr_projection")  # arrays of the sound's side; all others are of the lips'
SOFT = "similarity"
SOFT_WINDOW = 5  # frames that a soft label averages
AROUND = SOFT_WINDOW // 2  # frames beside a window that its soft labels depend on; spans leave more at a clip's ends
SEEN = ("lips", "blendshapes", "lips2", "blendshapes2")  # not known where no face was seen


@dataclass(frozen=True)
class Choice:
    """Which windows of which clips: see `store.Dataset`."""

    arrays: tuple[str, ...]
    split: str | None
    clips: tuple[int | str, ...] | None
    window: int | None
    trim: str
    swaps: float
    seed: int

    def __post_init__(self) -> None:
        if self.split is not None and self.split not in SPLITS:
            raise StoreError(f"split must be one of {', '.join(SPLITS)}, or None for all clips, not {self.split!r}")
        if self.window is not None and self.window < 1:
            raise StoreError(f"window must be at least 1 frame, or None for whole clips, not {self.window}")
        if not 0 <= self.swaps <= 1:
            raise StoreError(f"swaps is a share between 0 and 1, not {self.swaps}")
        if self.swaps and self.window is None:
            raise StoreError("swaps need windows of one length: the lengths of whole clips would give them away")
        if self.seed < 0:
            raise StoreError(f"seed must not be negative, as {self.seed} is")


class Pair(NamedTuple):
    """Lips of clip `row` from frame `start` on, and sound of clip `sound` from `sound_start` on."""

    row: int
    start: int
    sound: int
    sound_start: int


class Windows:
    """The chosen windows of the store at `path`; `len` and `read`. The store is opened in each process that reads.

    clips, starts, lengths i8 [windows]: the row of each window's clip, its first frame there and its frames. left_out i8: rows
    of chosen clips that hold no window.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        choice: Choice,
        transform: Transform | None,
        options: Mapping[str, str] | None,
    ) -> None:
        """Reads the flags of all chosen clips. Raises StoreError where there are no windows, or no such arrays."""
        self.path, self.choice, self.transform, self._options = path, choice, transform, options
        self._opened: tuple[int, Reader] | None = None
        self._check_arrays()
        rows = self._rows()
        pairs.check_labels(self.reader, rows)
        found = spans.spans(self.reader, rows, choice.trim)
        held = found.length[rows] > 0 if choice.window is None else found.length[rows] // choice.window
        counts = np.asarray(held, np.int64)
        self.left_out = rows[counts == 0]
        self.clips = np.repeat(rows, counts)
        nth = np.arange(len(self.clips)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.lengths = found.length[self.clips] if choice.window is None else np.full(len(nth), choice.window)
        self.starts = found.start[self.clips] + nth * (choice.window or 0)
        if not len(self.clips):
            raise StoreError(self._why_empty(rows, found.length[rows]))
        label = np.asarray(self.reader.clips["label"])
        real = label[rows] == REAL
        self._partners = pairs.partners(rows[real], counts[real])
        self._spans = found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def reader(self) -> Reader:
        """The store, opened by this process: what another one had open is not shared after a fork.

        Raises StoreError in a fork of a process that had it open in a bucket: its connections would wait for ever.
        """
        if self._opened is None or self._opened[0] != os.getpid():
            if self._opened is not None and is_url(self.path):
                raise StoreError(
                    f"{self.path}: forked workers cannot read from a bucket; give the loader multiprocessing_context='spawn'"
                )
            self._opened = os.getpid(), open_store(self.path, self._options)
        return self._opened[1]

    @property
    def shards(self) -> np.ndarray:
        """The shard i8 [windows] in which each window begins."""
        offset = np.asarray(self.reader.clips["offset"], np.int64)
        shards: np.ndarray = (offset[self.clips] + self.starts) // self.reader.shard_rows
        return shards

    def number(self, index: SupportsIndex) -> int:
        """A window's number from 0 on; a negative index counts from the end. Raises IndexError where there is none."""
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"there is no window {i}: {self.path} gives {len(self)}, counted from 0")
        return i % len(self)

    def read(self, i: int, epoch: int) -> Any:
        """Window i as `store.Dataset` describes it, or what `transform` makes of it."""
        rng = np.random.default_rng([self.choice.seed, epoch, i])
        pair = self._pair(i, rng)
        window = self._window(pair, int(self.lengths[i]))
        return window if self.transform is None else self.transform(window, rng)

    def _pair(self, i: int, rng: np.random.Generator) -> Pair:
        """Whose sound a window gets. All numbers are drawn for every window, whatever becomes of it."""
        row, start, length = int(self.clips[i]), int(self.starts[i]), int(self.lengths[i])
        swapped, aligned, place = rng.random() < self.choice.swaps, rng.random() < 0.5, rng.random()
        other = pairs.partner(self._partners, row, rng)
        if not swapped or other < 0 or self.reader.clips["label"][row] != REAL:
            return Pair(row, start, row, start)
        first, room = int(self._spans.start[other]), int(self._spans.length[other]) - length
        return Pair(row, start, other, pairs.start_in_partner(start, first, room, aligned, place))

    def _window(self, pair: Pair, length: int) -> Window:
        row, start, sound, sound_start = pair
        swapped = sound != row
        names = [name for name in self.choice.arrays if name != SOFT]
        lips = self._frames(row, start, length, [*(name for name in names if name not in SOUND), "flags", "fake"])
        heard = self._frames(sound, sound_start, length, [*(name for name in names if name in SOUND), "flags"])
        label = (1, np.ones(length, np.int8)) if swapped else self._labels(row, start, lips["fake"])
        out: Window = {name: self._as_given(name, pair, (heard if name in SOUND else lips)[name]) for name in names}
        if SOFT in self.choice.arrays:
            out[SOFT] = self._soft_labels(pair, length)
        out |= {
            "mask": layout.labelled(lips["flags"], heard["flags"]),
            "face": layout.evident(lips["flags"]),
            "held": (lips["flags"] & layout.HELD) > 0,
            "voice": (heard["flags"] & layout.VOICE_ACTIVE) > 0,
        }
        if self.reader.has_words:
            out["in_word"] = self._in_word(sound, sound_start, length)
        out |= {"label": label[0], "frame_label": label[1], "swapped": swapped, "length": length, **pair._asdict()}
        out["clip"] = out.pop("row")
        return out

    def _frames(self, row: int, start: int, length: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        return self.reader.frames(row, start, start + length, list(dict.fromkeys(names)))

    def _labels(self, row: int, start: int, fake: np.ndarray) -> tuple[int, np.ndarray]:
        return pairs.labels(self.reader, row, int(self.reader.clips["label"][row]), start, fake)

    def _as_given(self, name: str, pair: Pair, x: np.ndarray) -> np.ndarray:
        """An array as a window has it: floats as f4, checked."""
        if x.dtype.kind != "f":
            return x
        if name in SEEN:
            return np.where(np.isfinite(x), x, 0).astype(np.float32)
        row, start = (pair.sound, pair.sound_start) if name in SOUND else (pair.row, pair.start)
        return pairs.finite(self.reader, name, row, start, x)

    def _soft_labels(self, pair: Pair, length: int) -> np.ndarray:
        """Soft labels f4 [length] of the pair, as `Reader.pair_similarity` gives them, rounded as they are stored."""
        row, start, sound, sound_start = pair
        if sound == row:
            return pairs.finite(self.reader, SOFT, row, start, self._frames(row, start, length, [SOFT])[SOFT])
        sides = []
        for side, clip, first in (("vsr", row, start - AROUND), ("asr", sound, sound_start - AROUND)):
            name = f"{side}_projection"
            found = self._frames(clip, first, length + 2 * AROUND, [name, "flags"])
            sides.append((pairs.finite(self.reader, name, clip, first, found[name]), found["flags"]))
        (lips, seen), (heard, voiced) = sides
        fit = self.reader.fit
        assert fit is not None  # `_check_arrays`
        corpus = str(self.reader.clips["corpus"][row])
        soft = compare(lips, heard, fit, SOFT_WINDOW, layout.labelled(seen, voiced), corpus)[AROUND : AROUND + length]
        return soft.astype(np.float16).astype(np.float32)

    def _in_word(self, row: int, start: int, length: int) -> np.ndarray:
        """Frames bool [length] whose middle lies in a word of the transcript."""
        middle = (start + np.arange(length) + 0.5) / layout.FPS
        inside = np.zeros(length, bool)
        for word in self.reader.words(row):
            inside |= (word["start"] <= middle) & (middle < word["end"])
        return inside

    # -- the choice ----------------------------------------------------------------------------------------------------

    def _check_arrays(self) -> None:
        for name in self.choice.arrays:
            self.reader.array(name)
        if SOFT in self.choice.arrays and self.reader.fit is None:
            raise StoreError(
                f"{self.path} has no fit yet, so no soft labels: run precompute.py with real clips or --fit-from, or give "
                f"`arrays` without {SOFT!r}"
            )

    def _rows(self) -> np.ndarray:
        """Rows i8 of the chosen clips that are done, in their order in the store."""
        table = self.reader.clips
        chosen = np.asarray(table["done"]) == 1
        if self.choice.split is not None:
            chosen &= np.array([str(name) or SPLITS[0] for name in table["split"]], object) == self.choice.split
        if self.choice.clips is not None:
            named = np.zeros(len(chosen), bool)
            named[[self.reader[key].row for key in self.choice.clips]] = True
            chosen &= named
        rows = np.flatnonzero(chosen)
        return rows[np.argsort(np.asarray(table["offset"])[rows], kind="stable")]

    def _why_empty(self, rows: np.ndarray, length: np.ndarray) -> str:
        of = "" if self.choice.split is None else f" of the split {self.choice.split}"
        if not len(rows):
            return (
                f"{self.path} has no clip{of} that is done and chosen; python -m store.inspect {self.path} counts them"
            )
        longest = int(length.max())
        if not longest:
            return (
                f"{self.path}: no clip{of} has a frame with a picture that moves and a voice; trim='none' asks for less"
            )
        return (
            f"{self.path}: no clip{of} holds a window of {self.choice.window} frames; the longest has {longest} that count "
            f"with trim={self.choice.trim!r}: give a shorter window"
        )


def choice(
    arrays: Iterable[str],
    split: str | None,
    clips: Iterable[int | str] | None,
    window: int | None,
    trim: str,
    swaps: float,
    seed: int,
) -> Choice:
    """A Choice of what a person gave. Raises StoreError for what is none."""
    if isinstance(arrays, str):
        arrays = [arrays]
    if isinstance(clips, str):
        raise StoreError(f"clips must be a list of ids or numbers, not the text {clips!r}")
    if trim not in spans.TRIMS:
        raise StoreError(f"trim must be one of {', '.join(spans.TRIMS)}, not {trim!r}")
    length = None if window is None else whole("window", window)
    kept = (
        None
        if clips is None
        else tuple(key if isinstance(key, str) else whole("a clip's number", key) for key in clips)
    )
    return Choice(tuple(dict.fromkeys(arrays)), split, kept, length, trim, swaps, whole("seed", seed))


def whole(name: str, value: SupportsIndex) -> int:
    """A whole number as Python's int; StoreError for anything else, such as 1.5. True is none: it would count as 1."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise StoreError(f"{name} must be a whole number, not {value!r}") from None
