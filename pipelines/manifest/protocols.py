"""Protocols: standard splits, by the names under which figures are published.

Each assigns one split per clip, which depends only on rows and seed, not on the order of rows. Clips without a split
are counted by reason. A clip listed twice is used once; no real clip is on two sides, whatever a corpus's lists say. If
a published protocol leaks people, the name with `-clean` is the version that does not: clips with people on both sides
are left out. Random lists that were not published are drawn again, by seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from concord.text import counted, did_you_mean
from pipelines.audit import leaks
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import SPLITS, Row
from pipelines.corpora.splits import Splits
from pipelines.manifest import people, sources, speakers

FAVC = ("fakeavceleb", "cmdfd_favc")  # kinds of corpora that hold FakeAVCeleb
CMDFD = ("cmdfd",)
TRAIN_TEST = {"train": 0.7, "test": 0.3}  # AVFF (arXiv 2406.02951) on FakeAVCeleb
BIG_GROUP = 0.5  # share of clips above which a group is divided
LEFT_OUT = {  # FakeAVCeleb, one kind left out: (category, method); mapping of DiMoDif's loader (arXiv 2411.10193)
    "RVFA": ("RVFA", "rtvc"),
    "FVRA-WL": ("FVRA", "wav2lip"),
    "FVFA-FS": ("FVFA", "faceswap-wav2lip"),
    "FVFA-GAN": ("FVFA", "fsgan-wav2lip"),
    "FVFA-WL": ("FVFA", "wav2lip"),
    "FVRA-FS": ("FVRA", "faceswap"),
    "FVRA-GAN": ("FVRA", "fsgan"),
}
TYPES = ("Audio2Head", "MakeItTalk", "VideoReTalk", "Wav2Lip")
FOLDS = 5
SPEAKERS = "speakers"
TWO_SIDES = "people on two sides"
NO_LABEL = "label unknown"


@dataclass(frozen=True)
class Options:
    """Options of protocols: shares of train, val, test for `groups`; the training corpus of `cross-corpus`; the
    source, the fold of sources, or none, that `leave-one-source-out` tests on."""

    shares: tuple[float, float, float] = (70, 10, 20)
    train_on: str = ""
    leave_out: str = "0"


Made = tuple[dict[str, str], dict[str, str], list[str]]  # split by id; reason by id of clips without one; notes
Make = Callable[[list[Row], Options, np.random.Generator], Made]


@dataclass(frozen=True)
class Protocol:
    """text: one line for the user; kinds: corpora whose clips are used, () = all; make: from rows to splits and
    reasons; unlabelled: whether clips of unknown label are used."""

    text: str
    make: Make
    kinds: tuple[str, ...] = ()
    unlabelled: bool = False


def splits(rows: Sequence[Row], name: str, options: Options | None = None, seed: int = 0) -> Splits:
    """The splits of protocol `name`; raises ManifestError for an unknown name or if a side would have no clip."""
    if name not in PROTOCOLS:
        raise ManifestError(
            f'protocol "{name}" is not known; there are {", ".join(PROTOCOLS)}{did_you_mean(name, PROTOCOLS)}'
        )
    protocol = PROTOCOLS[name]
    left: Counter[str] = Counter()
    mine = [row for row in rows if not protocol.kinds or row.corpus.partition(":")[0] in protocol.kinds]
    left["of another corpus"] += len(rows) - len(mine)
    if not mine:
        wanted = " or ".join(f"{kind}:" for kind in protocol.kinds)
        there = ", ".join(sorted({row.corpus for row in rows})) or "none"
        raise ManifestError(f"protocol {name} ({protocol.text}) needs clips of a corpus {wanted}; there are {there}")
    mine.sort(key=lambda row: row.id)
    copies = leaks.first_copies(mine)
    copy = {row.id: mine[k].id for row, k in zip(mine, copies, strict=True)}
    if not protocol.unlabelled:
        labelled = [row for row in mine if row.label >= 0]
        left[NO_LABEL] += len(mine) - len(labelled)
        mine = labelled
    once = {(row.corpus, row.split if name == "own" else "", copy[row.id]): row for row in reversed(mine)}
    left["listed again"] += len(mine) - len(once)
    mine = sorted(once.values(), key=lambda row: row.id)
    # The name is not part of the seed: all folds are from one draw, and all leave-one-out tests have the same reals.
    options = options or Options()
    of, why, notes = protocol.make(mine, options, np.random.default_rng(seed))
    left.update(why.values())
    left["real on an earlier side too"] += _reals_once(mine, of, copy)
    needed = ("train",) if options.leave_out == sources.NO_TEST and protocol.make is sources.made else ("train", "test")
    for split in needed:
        if name != "own" and split not in of.values():
            raise ManifestError(_lacks(name, split, protocol.text, mine))
    if not of:
        raise ManifestError(f"protocol {name} ({protocol.text}) found no clip with a split; name another protocol")
    known = {row.label for row in mine if row.id in of} if name == SPEAKERS else {0, 1}
    for split in dict.fromkeys(of.values()):
        labels = {row.label for row in mine if of.get(row.id) == split}
        lacks = [what for label, what in ((0, "real"), (1, "fake")) if label in known - labels]
        notes += [f"{split} has no {what} clip" for what in lacks]
    notes += [f"no clip is {what}" for label, what in ((0, "known to be real"), (1, "forged")) if label not in known]
    return Splits(of, +left, tuple(notes))


def _reals_once(rows: Sequence[Row], of: dict[str, str], copy: Mapping[str, str]) -> int:
    """Remove real clips that two rows put on two sides from the earlier side; returns the number of rows."""
    last: dict[str, str] = {}
    reals = [row.id for row in rows if row.label == 0 and row.id in of]
    for name in reals:
        last[copy[name]] = max(last.get(copy[name], SPLITS[0]), of[name], key=SPLITS.index)
    gone = [name for name in reals if of[name] != last[copy[name]]]
    for name in gone:
        del of[name]
    return len(gone)


def _lacks(name: str, split: str, text: str, rows: Sequence[Row]) -> str:
    there = ", ".join(sorted({" ".join(filter(None, (row.category, row.method))) or "unnamed" for row in rows}))
    return f"protocol {name} ({text}) found no clip to {split} on; the clips it got are {there or 'none'}"


def _own(rows: list[Row], _: Options, __: np.random.Generator) -> Made:
    if not any(row.split for row in rows):
        raise ManifestError("protocol own needs a corpus with its own split, and no clip has one; choose groups")
    return {r.id: r.split for r in rows if r.split}, {r.id: "no split of its own" for r in rows if not r.split}, []


def _groups(rows: list[Row], options: Options, rng: np.random.Generator) -> Made:
    """Whole groups; person by person if one is too big."""
    total = sum(options.shares)
    shares = {split: x / total for split, x in zip(SPLITS, options.shares, strict=True) if x}
    size = Counter(row.group or row.id for row in rows)
    biggest = max(size.values()) / len(rows)
    if biggest <= BIG_GROUP:
        sides = people.whole_groups(rows, shares, rng)
        told = counted(len(size), "group stays whole", "groups stay whole")
        return {row.id: sides[row.group or row.id] for row in rows}, {}, [told]
    sides = people.deal(rows, shares, rng)
    note = (
        f"one of {len(size):,} groups of people holds {100 * biggest:.0f} % of the clips, so people were assigned one by one "
        "and clips with people on two sides have no split"
    )
    return *_sorted(rows, lambda row: people.side(row, sides)), [note]


def _sorted(rows: Iterable[Row], side: Callable[[Row], str]) -> tuple[dict[str, str], dict[str, str]]:
    """Splits by id, and the reason if `side` gives none."""
    found = {row.id: side(row) for row in rows}
    return {k: v for k, v in found.items() if v}, {k: TWO_SIDES for k, v in found.items() if not v}


def _by_file(rows: list[Row], _: Options, rng: np.random.Generator) -> Made:
    """70/30 of the clips of each category and method, regardless of people."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        kinds.setdefault((row.category, row.method), []).append(row.id)
    of: dict[str, str] = {}
    for ids in (ids for _, ids in sorted(kinds.items())):
        of |= dict(zip((ids[k] for k in rng.permutation(len(ids))), people.cut(len(ids), TRAIN_TEST), strict=True))
    return of, {}, ["by file: people of test are in train too"]


def _by_person(rows: list[Row], _: Options, rng: np.random.Generator) -> Made:
    sides = people.deal(rows, TRAIN_TEST, rng)
    return *_sorted(rows, lambda row: people.side(row, sides)), ["by person: no person of test is in train"]


def _held_out(
    tested: Callable[[Row], bool], clean: bool, rows: list[Row], _: Options, rng: np.random.Generator
) -> Made:
    """Fakes selected by `tested` are for the test, all others for training; reals are divided 70/30, by person."""
    if clean:
        sides = people.deal(rows, TRAIN_TEST, rng)
    else:
        sides = people.deal([row for row in rows if row.label == 0], TRAIN_TEST, rng)
    of: dict[str, str] = {}
    why: dict[str, str] = {}
    for row in rows:
        kind = "test" if tested(row) else "train"
        if row.label == 0:
            side = people.side(row, sides)
        elif clean:
            side = kind if people.side(row, sides) == kind else ""
        else:
            side = kind
        if side:
            of[row.id] = side
        else:
            why[row.id] = (
                TWO_SIDES if not people.side(row, sides) else f"fakes for {kind} with people on the other side"
            )
    fakes = {tested(row) for row in rows if row.label == 1 and row.id in of}
    return (of if len(fakes) == 2 else {}), why, []


def _fold(number: int, clean: bool, rows: list[Row], _: Options, rng: np.random.Generator) -> Made:
    """Test on one of five folds of first-named people; each person gives one clip per category, drawn by seed."""
    drawn: dict[tuple[str, str], Row] = {}
    for k in rng.permutation(len(rows)).tolist():
        drawn.setdefault((people.names(rows[k])[0], rows[k].category), rows[k])
    everyone = sorted({name for row in rows for name in people.names(row)})
    fold = dict(zip((everyone[k] for k in rng.permutation(len(everyone))), _cycle(len(everyone)), strict=True))
    # first-named people fill the folds evenly; people who are only targets have random folds
    sources = sorted({people.names(row)[0] for row in rows})
    fold |= dict(zip((sources[k] for k in rng.permutation(len(sources))), _cycle(len(sources)), strict=True))
    sides = {name: "test" if f == number else "train" for name, f in fold.items()}
    chosen = {row.id for row in drawn.values()}
    of: dict[str, str] = {}
    why: dict[str, str] = {}
    for row in rows:
        side = people.side(row, sides) if clean else sides[people.names(row)[0]]
        if row.id not in chosen:
            why[row.id] = "not drawn: one clip per person and category"
        elif side:
            of[row.id] = side
        else:
            why[row.id] = TWO_SIDES
    return of, why, []


def _cycle(num: int) -> list[int]:
    return [k % FOLDS for k in range(num)]


def _across(kinds: tuple[str, ...], clean: bool, rows: list[Row], options: Options, _: np.random.Generator) -> Made:
    """Train on some corpora, test on the others; clean: without training clips whose people are in the test."""
    names = kinds or (options.train_on,)
    corpora = sorted({row.corpus for row in rows})
    chosen = {name for name in corpora if name in names or name.partition(":")[0] in names}
    if not chosen or len(chosen) == len(corpora):
        raise ManifestError(
            f"--train-on names the training corpus and leaves others for the test; there are {', '.join(corpora)}"
            if not kinds
            else f"this protocol needs a corpus {' or '.join(kinds)} and one more; there are {', '.join(corpora)}"
        )
    tested = {name for row in rows if row.corpus not in chosen for name in people.names(row)}
    of: dict[str, str] = {}
    why: dict[str, str] = {}
    for row in rows:
        if row.corpus not in chosen:
            of[row.id] = "test"
        elif clean and tested.intersection(people.names(row)):
            why[row.id] = "people of the test"
        else:
            of[row.id] = "train"
    return of, why, []


def _is_kind(category: str, method: str, row: Row) -> bool:
    return (row.category, row.method) == (category, method)


def _is_other_type(name: str, row: Row) -> bool:
    return row.label == 1 and row.method.removesuffix("_Self") != name


def _all() -> dict[str, Protocol]:
    found = {
        "own": Protocol("the corpus's own split", _own, unlabelled=True),
        "groups": Protocol("whole groups of people by --shares; person by person where one group is too big", _groups),
        "favc-70-30": Protocol("FakeAVCeleb, 70/30 of each kind by file, as AVFF", _by_file, FAVC),
        "favc-70-30-clean": Protocol("FakeAVCeleb, 70/30 by person", _by_person, FAVC),
    }
    for clean, end, more in ((False, "", ""), (True, "-clean", ", no person on both sides")):
        for name, kind in LEFT_OUT.items():
            text = f"FakeAVCeleb, test on {' '.join(kind)}, train on the rest{more}"
            found[f"favc-loco-{name}{end}"] = Protocol(text, partial(_held_out, partial(_is_kind, *kind), clean), FAVC)
        for k in range(FOLDS):
            text = f"FakeAVCeleb, fold {k} of 5 by first-named person, one clip per category each, as MRDF{more}"
            found[f"favc-folds-{k}{end}"] = Protocol(text, partial(_fold, k, clean), FAVC)
        for name in TYPES:
            text = f"CMDFD, train on {name} with its _Self, test on the other types{more}"
            found[f"cmdfd-{name}{end}"] = Protocol(
                text, partial(_held_out, partial(_is_other_type, name), clean), CMDFD
            )
        found[f"cmdfd-from-favc{end}"] = Protocol(
            f"train on FakeAVCeleb, test on CMDFD{more}", partial(_across, FAVC, clean), (*FAVC, *CMDFD)
        )
        found[f"cross-corpus{end}"] = Protocol(
            f"train on the corpus that --train-on names, test on the others{more}", partial(_across, (), clean)
        )
    text = "val and test on sources that train lacks: --leave-out SOURCE, fold 0 to 4, or none; no person on both sides"
    found["leave-one-source-out"] = Protocol(text, sources.made)
    text = "real clips alone or with forged ones, by speaker and --shares; by clip where speakers are not known"
    found[SPEAKERS] = Protocol(text, partial(speakers.made, _groups), unlabelled=True)
    return found


PROTOCOLS = _all()
