"""What is trained on and what is judged where a method, a source, or every forgery is kept from training.

The real clips of the tests are of people who are not in training: a share of those of the corpora that have forgeries,
since a real clip of another corpus differs from them in more than being real. They stay the same in all folds; each also
has the real clips of the sources that its forgeries are from, which are cut alike. People of a test are never in training.
Where a method was made of so many people that less than half of the real clips would be left to train on, only its
forgeries of the held-out people are judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from store import Reader
from student.data.corpus import strata
from student.experiment.asked import ExperimentError, Sizes
from student.experiment.parts import VALIDATION, hold_out

REALS = 0.3  # share of the real clips that is held out
VAL = 0.1  # share of the clips left to train on that chooses the detector
BIG = 0.5  # share above which a group links everybody, or a source has most real clips
LEAST = 5  # forged clips, and real ones, of a test
UNNAMED = "unnamed"  # a forgery whose list names no method


@dataclass(frozen=True)
class Clips:
    """The finished clips with a label of a store: rows i8 [n] of its table, is_fake bool [n]; method, source ("" = not
    known), corpus and group (who must not be on two sides) [n]; stratum i8 [n] as `--balance source` has it."""

    rows: np.ndarray
    is_fake: np.ndarray
    method: np.ndarray
    source: np.ndarray
    corpus: np.ndarray
    group: np.ndarray
    stratum: np.ndarray

    @classmethod
    def of(cls, reader: Reader) -> Clips:
        """Raises ExperimentError if there are no real or no forged clips."""
        label = np.asarray(reader.clips["label"])
        rows = np.flatnonzero((np.asarray(reader.clips["done"]) == 1) & (label >= 0))
        fake = label[rows] == 1
        if min(fake.sum(), (~fake).sum()) < LEAST:
            raise ExperimentError(
                f"{reader.path} has {(~fake).sum()} real and {fake.sum()} forged clips with labels; at least {LEAST} of each "
                "are needed: add a corpus with labelled forgeries"
            )
        method, source, corpus = (reader.clips[name][rows].astype(str) for name in ("method", "source", "corpus"))
        method = np.where(fake, np.where(method == "", UNNAMED, method), "")
        return cls(rows, fake, method, source, corpus, people(reader, rows), strata(reader)[rows])

    @property
    def comparable(self) -> np.ndarray:
        """Clips of corpora with both classes, bool [n]; all if no corpus has both."""
        both = [
            str(name) for name in np.unique(self.corpus) if len(set(self.is_fake[self.corpus == name].tolist())) == 2
        ]
        return np.asarray(np.isin(self.corpus, both) if both else np.ones(len(self.rows), bool))


def people(reader: Reader, rows: np.ndarray) -> np.ndarray:
    """Who is in each clip, as names [n]: its group or, where one group links most clips, its first-named person."""
    ids, groups = reader.clips["id"][rows].astype(str), reader.clips["group"][rows].astype(str)
    groups = np.asarray(np.where(groups == "", ids, groups))
    if len(rows) and max(Counter(groups.tolist()).values()) <= BIG * len(rows):
        return groups
    named = [reader.clip(int(row)).identities for row in rows]
    return np.array([own[0] if own else name for own, name in zip(named, ids, strict=True)])


@dataclass(frozen=True)
class Fold:
    """One test: its name, rows i8 to train on, to validate on, and to judge, and how many could be judged without limit.

    Folds with the same `training` share their training clips. `note`: what differs from the plan, or "".
    """

    name: str
    training: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    listed: int
    note: str = ""


def by_method(clips: Clips, sizes: Sizes) -> tuple[list[Fold], dict[str, str]]:
    """A fold for each method, the largest first, and why others have none. Training has the other methods' forgeries."""
    groups = {str(name): clips.method == name for name in np.unique(clips.method[clips.is_fake])}
    return _folds(clips, groups, sizes)


def by_source(clips: Clips, sizes: Sizes) -> tuple[list[Fold], dict[str, str]]:
    """A fold for each source of forgeries, the largest first, and why others have none. Training has the other sources'
    clips."""
    names = np.unique(clips.source[clips.is_fake & (clips.source != "")])
    groups = {str(name): clips.source == name for name in names}
    if len(groups) < 2:
        raise ExperimentError(f"{len(groups)} sources of forged clips are known; leave-one-source-out needs two")
    return _folds(clips, groups, sizes)


def of_reals(clips: Clips, sizes: Sizes) -> tuple[list[Fold], dict[str, str]]:
    """One training on real clips alone, and a test for each method, the largest first."""
    whole, tested = _split(clips, clips.is_fake, ~clips.is_fake)
    every = [name for name, _ in Counter(clips.method[tested & clips.is_fake].tolist()).most_common()]
    masks = {name: replace(whole, test=tested & (~clips.is_fake | (clips.method == name))) for name in every}
    return _chosen(every, lambda name: _fold(clips, name, masks[name], sizes, training="reals"), sizes)


def _folds(clips: Clips, groups: dict[str, np.ndarray], sizes: Sizes) -> tuple[list[Fold], dict[str, str]]:
    every = sorted(groups, key=lambda name: -int((groups[name] & clips.is_fake).sum()))
    return _chosen(
        every,
        lambda name: _fold(clips, name, _split(clips, groups[name], ~groups[name])[0], sizes, training=name),
        sizes,
    )


def _chosen(every: list[str], made: Callable[[str], Fold | str], sizes: Sizes) -> tuple[list[Fold], dict[str, str]]:
    """The folds that are asked for, of names from large to small, and why others have none. Raises ExperimentError for a name
    that is not there, and if there is none at all."""
    if unknown := [name for name in sizes.held if name not in every]:
        raise ExperimentError(f"--hold-out {unknown[0]}: no forged clip is of it; there is {', '.join(every)}")
    found: list[Fold] = []
    left: dict[str, str] = {}
    for name in every:
        fold = made(name)
        if isinstance(fold, str):
            left[name] = fold
        elif sizes.held and name not in sizes.held:
            left[name] = "not asked for (--hold-out)"
        elif not sizes.held and len(found) == sizes.folds:
            left[name] = f"not among the {sizes.folds} largest (--folds)"
        else:
            found.append(fold)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in left.items())
        raise ExperimentError(f"nothing can be held out: {why}")
    return found, left


@dataclass(frozen=True)
class _Masks:
    """Training and test bool [n] of all clips."""

    train: np.ndarray
    test: np.ndarray
    note: str = ""


def _split(clips: Clips, out: np.ndarray, others: np.ndarray) -> tuple[_Masks, np.ndarray]:
    """Training and test where the clips `out` [n] are held out and only `others` [n] may train; the test again."""
    reals = ~clips.is_fake
    matched = reals & _of_sources(clips, out & clips.is_fake)
    tested = _held_reals(clips) | matched | (reals & out)
    forged = clips.is_fake & out
    train = others & ~_with_people(clips, forged | tested)
    note = ""
    if (train & reals).sum() < BIG * (reals & ~tested).sum():
        forged = forged & _with_people(clips, tested)
        train = others & ~_with_people(clips, tested)
        note = "forgeries of held-out people alone: most people are in them"
    return _Masks(train, forged | tested, note), forged | tested


def _held_reals(clips: Clips) -> np.ndarray:
    """The held-out real clips of all folds, bool [n]."""
    return _apart(clips, ~clips.is_fake & clips.comparable, REALS)


def _of_sources(clips: Clips, forged: np.ndarray) -> np.ndarray:
    """Clips of the sources of these forged clips, without sources that have most of the real clips."""
    names = set(clips.source[forged].tolist()) - {""}
    reals = clips.source[~clips.is_fake]
    return np.isin(clips.source, [name for name in sorted(names) if (reals == name).mean() <= BIG])


def _with_people(clips: Clips, some: np.ndarray) -> np.ndarray:
    return np.isin(clips.group, clips.group[some])


def _apart(clips: Clips, some: np.ndarray, share: float) -> np.ndarray:
    """A share of some clips, bool [n], in whole groups where people are known; the other clips of these people, too, if
    they are among some."""
    places = np.flatnonzero(some)
    found = np.zeros(len(some), bool)
    if len(places) < 2:
        return found
    held, by = hold_out(clips.group[places], share)
    found[places[held]] = True
    return found if by == "clip" else some & _with_people(clips, found)


def _fold(clips: Clips, name: str, whole: _Masks, sizes: Sizes, training: str) -> Fold | str:
    """The fold, at most as large as asked, or why there is none."""
    forged, reals = whole.test & clips.is_fake, whole.test & ~clips.is_fake
    if min(forged.sum(), reals.sum()) < LEAST:
        return f"{forged.sum()} forged and {reals.sum()} real clips to judge; at least {LEAST} of each are needed"
    train = whole.train
    val = np.zeros(len(train), bool)
    kinds = [kind for kind in (clips.is_fake, ~clips.is_fake) if (train & kind).any()]
    for kind in kinds:
        val |= _apart(clips, train & kind, VAL)
    train = train & ~val & ~_with_people(clips, val) if len(set(clips.group[train])) > 1 else train & ~val
    if (train & ~clips.is_fake).sum() < 2:
        return "fewer than two real clips to train on"
    chosen = _spread(clips, train, sizes.clips)
    few = _spread(clips, val, 2 * min(VALIDATION, sizes.judged))
    judged = _spread(clips, whole.test, 2 * sizes.judged)
    return Fold(name, training, chosen, few, judged, int(whole.test.sum()), whole.note)


def _spread(clips: Clips, mask: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows of the clips in `mask`, half of each class if there are enough, as evenly from every source
    (and method) as their numbers allow."""
    kinds = [np.flatnonzero(mask & kind) for kind in (~clips.is_fake, clips.is_fake)]
    few = min(len(kind) for kind in kinds)
    rows = []
    for places in kinds:
        room = most // 2 if few >= most // 2 else (most - few if len(places) > few else few)
        order = np.random.default_rng(0).permutation(places)
        seen: Counter[int] = Counter()
        turn = []
        for place in order.tolist():
            turn.append(seen[int(clips.stratum[place])])
            seen[int(clips.stratum[place])] += 1
        rows.append(order[np.argsort(turn, kind="stable")][:room])
    return np.sort(clips.rows[np.concatenate(rows)])
