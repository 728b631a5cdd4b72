"""Everything that is known of the clips before a figure is computed: evidence, trivial numbers, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.strangers import trivial
from benchmarks.strangers.evidence import Absent, Source
from benchmarks.strangers.listed import Listed
from student.predict.evidence import Evidence, Unusable


@dataclass(frozen=True)
class Clip:
    """One clip with its evidence (no pictures, no sound) and its trivial numbers by name."""

    listed: Listed
    evidence: Evidence
    numbers: dict[str, float | str]


@dataclass(frozen=True)
class Lost:
    """A clip without evidence: why, and whether `predict` would say so (`answers`); else it was not there to be judged."""

    listed: Listed
    reason: str
    message: str
    answers: bool


@dataclass(frozen=True)
class Gathered:
    """All clips of a manifest that were asked for, in its order."""

    clips: Sequence[Clip]
    lost: Sequence[Lost]


def gather(listed: Iterable[Listed], source: Source) -> Iterator[Clip | Lost]:
    """Each clip in order, read by `source`."""
    for one in listed:
        row = one.row
        try:
            found, audio = source(row)
        except Unusable as error:
            yield Lost(one, error.reason, str(error), answers=True)
            continue
        except Absent as error:
            yield Lost(one, error.reason, str(error), answers=False)
            continue
        yield Clip(one, found, trivial.of_clip(found, audio) | trivial.of_file(row.path))


def sorted_out(found: Iterable[Clip | Lost]) -> Gathered:
    """The clips and the lost ones apart."""
    clips: list[Clip] = []
    lost: list[Lost] = []
    for one in found:
        if isinstance(one, Clip):
            clips.append(one)
        else:
            lost.append(one)
    return Gathered(clips, lost)
