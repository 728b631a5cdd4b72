"""On whom a probability was calibrated, and whether that is enough for a verdict on a video.

"Real" and "fake" are claims about a person, so they need a licence: either the calibration used enough people that its
model had not seen, or the user states that the video is from the corpus used for calibration, and that corpus had
enough clips. Missing records count as none. This module only counts: the decision, and what is said without a licence,
are in `student.predict.answer`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from concord import plain_json

# Independent people, or clips of people who are known, behind a verdict. One more person stands out from all of n exchangeable
# people with chance 1 / (n + 1): with fewer than 19, no threshold keeps false alarms to 1 in 20. This is a minimum, not a
# promise: to show with 95 % confidence that fewer than 1 in 20 are alarms takes 59 people and no alarm.
LEAST = 20
ALARMS = 0.05  # most real clips of the calibration that may read as fake before strangers are judged


@dataclass(frozen=True)
class Grounds:
    """What one calibration rests on; None = not recorded.

    real: clips known to be real whose own pairs it was fitted on. speakers: people in them, by their first-named identity.
    strangers: those of them that what is calibrated had not learned from. alarms: share of own pairs that read as fake.
    """

    real: int = 0
    speakers: int | None = None
    strangers: int | None = None
    alarms: float | None = None

    @classmethod
    def of(cls, note: object) -> Grounds:
        """From attributes or a header, which may be old, foreign or damaged: what is not a count counts as unknown, and so do
        all where there are more strangers than speakers, or more speakers than clips."""
        note = note if isinstance(note, Mapping) else {}
        if "real" not in note and str(note.get("which", "")).startswith("real"):  # as earlier releases wrote it
            note = {**note, "real": note.get("clips")}
        values = [note.get(name) for name in ("real", "speakers", "strangers")]
        real, speakers, strangers = (value if plain_json.is_count(value) else None for value in values)
        if (strangers or 0) > (speakers or 0) or (speakers or 0) > (real or 0):
            return cls()
        share = note.get("alarms")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            share = None
        return cls(real or 0, speakers, strangers, None if share is None else float(share))

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lacks_for_strangers(self) -> str:
        """Why it does not license a verdict on a video of unknown people; "" if it does."""
        if not self.real:
            return "it was not calibrated on clips that are known to be real"
        if self.speakers is None:
            return "calibrated on clips of unnamed people"
        if self.speakers < LEAST:
            return f"calibrated on {number(self.speakers, 'speaker')}"
        if self.strangers is None or self.strangers < LEAST:
            return f"calibrated on {self.speakers:,} speakers, {self.strangers or 'none'} of them new to the model"
        if self.alarms is None or self.alarms > ALARMS:
            share = "an unknown share" if self.alarms is None else f"{100 * self.alarms:.0f} in 100"
            return f"in its calibration, {share} of the real clips are classified as fake"
        return ""

    def lacks_for_its_own(self) -> str:
        """Why it does not license a verdict on a video of the same people and recordings; "" if it does."""
        return "" if self.real >= LEAST else f"calibrated on {number(self.real, 'real clip')} of {LEAST} needed"


def number(count: int, what: str) -> str:
    """ "one speaker", "3 speakers", "no speaker"."""
    return f"{({0: 'no', 1: 'one'}).get(count, f'{count:,}')} {what}{'s' if count > 1 else ''}"


def people(identities: Iterable[object]) -> list[str]:
    """The person in each clip: the first of its identities (JSON lists, as the clips table has them), "" where none is named.

    Groups are not asked: they keep sources apart, such as sentences or recordings, of which one person may have many.
    """
    return [next(iter(_names(text)), "") for text in identities]


def taught(identities: np.ndarray, rows: Iterable[int]) -> set[str]:
    """Everybody who is named in those rows of a store's identities: sources and targets."""
    return {name for row in rows for name in _names(identities[row])}


def _names(text: object) -> list[str]:
    try:
        names = plain_json.parse(str(text) or "[]")
    except ValueError:
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def count(persons: Iterable[str], taught: Iterable[str]) -> tuple[int | None, int | None]:
    """People among `persons` and those of them not `taught`; None, None where nobody is named.

    A clip without a name adds nobody: they may be any of the others.
    """
    named = set(persons) - {""}
    return (len(named), len(named - set(taught))) if named else (None, None)


def of_validation(
    clips: Mapping[str, np.ndarray], train: np.ndarray, val: np.ndarray, share: float | None
) -> dict[str, Any]:
    """What a detector's header says of the validation that set its threshold: `Grounds.told` with clips by corpus.

    `clips` is a store's table, `train` and `val` its rows [n] used for each; `share` of the real ones read as fake.
    """
    real = val[np.asarray(clips["label"])[val] == 0]
    corpora, numbers = np.unique(np.asarray(clips["corpus"])[real].astype(str), return_counts=True)
    known = taught(clips["identities"], train)
    found = Grounds(len(real), *count(people(clips["identities"][real]), known), share)
    return {**Grounds.of(found.told()).told(), "corpora": dict(zip(corpora.tolist(), numbers.tolist(), strict=True))}


def alarms(fake: np.ndarray) -> float:
    """Share of real clips whose probability of fake [n] reads as fake; NaN without any."""
    return round(float(np.mean(np.asarray(fake) >= 0.5)), 4) if len(fake) else math.nan
