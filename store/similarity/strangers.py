"""What strangers score: the record, kept with a fit or a detector, of people whom it has not seen.

Own pairs are real clips with their own sound, swaps are the same lips with another person's sound. Scores depend on how
much is heard and seen, so they are kept by length, in frames with face and voice. `pipelines.labels.strangers` measures
a fit's, `student.training.strangers` a detector's; `limits` turns them into limits. The record may come from anyone: one
that is damaged is empty, and an empty one licenses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from store.similarity.calibrate import auc, fit_logistic
from store.similarity.fit import Fit
from store.similarity.grounds import LEAST
from store.similarity.limits import RATE, Limits, Scores, number

WITHIN = (
    2  # frames (80 ms) by which sound may be moved to where it fits best: cameras and cuts do that, and nobody notices
)
NAME = "strangers"  # of the record, in a store's attribute `similarity` and in a header
PEOPLE, CORPORA = "leave people out", "leave corpora out"  # how it may be measured
MAP = "(strangers)"  # in memory, the calibration by strangers among those of corpora
MOST_FRAMES, MOST_CORPORA = 1 << 24, 10_000


@dataclass(frozen=True)
class Length:
    """Scores of own pairs and of swaps with so many frames of face and voice.

    `joined`: no single clips are that long; a person's clips were joined.
    """

    frames: int
    own: Scores
    swaps: Scores
    joined: bool = False

    @property
    def units(self) -> int:
        """People, or corpora, whose real videos were measured: on them false alarms rest."""
        return self.own.units

    def limits(self, alarms: float = RATE) -> Limits:
        """The limits for that share of false alarms."""
        return Limits.of(self.own, self.swaps, alarms)

    def line(self) -> tuple[float, float]:
        """Slope and intercept of the logistic map from a score to the probability of an own pair."""
        return fit_logistic(np.array(self.own.levels), np.array(self.swaps.levels))

    def auc(self) -> float:
        """How well the scores tell own pairs from swaps."""
        return auc(np.array(self.own.levels), np.array(self.swaps.levels))

    def told(self) -> dict[str, Any]:
        """For JSON."""
        joined = {"joined": True} if self.joined else {}
        return {"frames": self.frames, **joined, "own": self.own.told(), "swaps": self.swaps.told()}


@dataclass(frozen=True)
class Strangers:
    """How strangers were measured, and their scores by rising length.

    `how`: each clip was scored by a model that had not learned from its person (PEOPLE) or, where nobody is named, from
    its corpus (CORPORA). `guessed`: people were not named, but told apart by looks. `corpora`: of the clips.
    `maps`: slope and intercept for windows shorter than a clip, {"5": .., "25": ..}, {} where none were measured. `within`:
    a score is the best one of all constant offsets of so many frames either way, own and swapped alike.
    """

    how: str
    guessed: bool
    corpora: tuple[str, ...]
    lengths: tuple[Length, ...]
    maps: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    within: int = 0

    @classmethod
    def of(cls, note: object, most: float = 1.0) -> Strangers | None:
        """From a fit's note or a header, whose scores are within +-`most`; None without a record, an empty one for a
        record that cannot be used."""
        if not isinstance(note, Mapping) or note.get(NAME) is None:
            return None
        try:
            return cls._read(note[NAME], most)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            return cls("", False, (), ())

    @classmethod
    def _read(cls, told: Mapping[str, Any], most: float) -> Strangers:
        corpora, lengths = told["corpora"], []
        if told["how"] not in (PEOPLE, CORPORA) or not isinstance(told["guessed"], bool):
            raise ValueError("how it was measured")
        if not isinstance(corpora, list | tuple) or len(corpora) > MOST_CORPORA:
            raise ValueError("corpora")
        for one in told["lengths"]:
            frames, joined = one["frames"], one.get("joined", False)
            if type(frames) is not int or not 0 < frames < MOST_FRAMES or not isinstance(joined, bool):
                raise ValueError("a length")
            lengths.append(Length(frames, Scores.read(one["own"], most), Scores.read(one["swaps"], most), joined))
        if not lengths or any(a.frames >= b.frames for a, b in pairwise(lengths)):
            raise ValueError("lengths that do not rise")
        maps = {str(window): _line(line) for window, line in told["maps"].items()}
        within = told.get("within", 0)
        if type(within) is not int or not 0 <= within <= WITHIN:
            raise ValueError("offsets")
        return cls(told["how"], told["guessed"], tuple(map(str, corpora)), tuple(lengths), maps, within)

    def told(self) -> dict[str, Any]:
        """For JSON: what `of` reads under NAME."""
        return {
            "how": self.how,
            "guessed": self.guessed,
            "corpora": list(self.corpora),
            "lengths": [length.told() for length in self.lengths],
            "maps": {window: [float(f"{x:.5g}") for x in line] for window, line in self.maps.items()},
            **({"within": self.within} if self.within else {}),
        }

    @property
    def usable(self) -> tuple[Length, ...]:
        """The lengths at which enough people were measured for a verdict."""
        return tuple(length for length in self.lengths if length.units >= LEAST) if self.how == PEOPLE else ()

    @property
    def people(self) -> int:
        """People at the length that has most of them; 0 where they are not known."""
        return max((length.units for length in self.lengths), default=0) if self.how == PEOPLE else 0

    @property
    def lacks(self) -> str:
        """Why no verdict may rest on it; "" if one may."""
        if not self.lengths:
            return "its record of what strangers score is damaged"
        if self.how == CORPORA:
            return f"measured on {self.lengths[0].units} corpora that it had not seen, whose people are not known"
        if not self.usable:
            return f"measured on {self.people} people that it had not seen; at least {LEAST} are needed"
        return ""

    def at(self, frames: int) -> Length | None:
        """The longest usable length that a video with so many frames of face and voice reaches; None for one that is
        shorter than all."""
        return next((length for length in reversed(self.usable) if length.frames <= frames), None)

    def calibrated(self, fit: Fit, frames: int) -> Fit:
        """The fit with the maps of strangers under MAP, that of a clip for so many frames of face and voice."""
        length = self.at(frames) or self.usable[0]
        return fit.calibrated(MAP, {**self.maps, "clip": length.line()})

    def summary(self) -> list[dict[str, Any]]:
        """By length, for people: counts, AUC of own pairs against swaps, and the limits at the default rate."""
        return [
            {
                "frames": length.frames,
                "clips": length.own.clips,
                "units": length.units,
                "joined": length.joined,
                "auc": round(length.auc(), 4),
                "fake_below": limits.fake,
                "real_above": limits.real,
            }
            for length in self.lengths
            for limits in [length.limits()]
        ]

    @property
    def line(self) -> str:
        """How well strangers' own pairs are told from their swaps, by length; for people."""
        figures = [f"{length.auc():.3f} at {length.frames} frames" for length in self.lengths]
        units = f"{self.people:,} people" if self.how == PEOPLE else f"{len(self.corpora)} corpora of unnamed people"
        guessed = ", told apart by looks" if self.guessed else ""
        return f"AUC {', '.join(figures)} ({self.how}: {units}{guessed})"

    def measured(self, length: Length, model: str = "fit") -> str:
        """ "measured on 412 clips of 60 people that the fit had not seen"."""
        apart = ", told apart by looks," if self.guessed else ""
        joined = ", joined to this length" if length.joined else ""
        return f"measured on {length.own.clips:,} clips of {length.units:,} people{apart} that the {model} had not seen{joined}"


def _line(line: Any) -> tuple[float, float]:
    slope, intercept = line
    if not (number(slope) and number(intercept) and slope >= 0):
        raise ValueError("a map")
    return float(slope), float(intercept)
