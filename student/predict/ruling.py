"""How a score becomes a decision for a video of strangers: it is held against two limits, for a stated share of false
alarms (`store.similarity.limits`), at the longest measured length that the video reaches."""

from __future__ import annotations

from dataclasses import dataclass

from store.layout import FPS
from store.similarity.limits import Limits, least_units, one_in
from store.similarity.strangers import Length, Strangers
from student.predict.records import BETWEEN, CANNOT_DECIDE, UNLICENSED, Ruled, rounded

OTHERS = {"fit": "videos with another sound", "detector": "fakes"}  # that the second limit keeps out, by model


@dataclass(frozen=True)
class Decided:
    """A decision, its reason and sentence if there is none, and the limits."""

    decision: str
    reason: str
    message: str
    limits: Ruled | None


@dataclass(frozen=True)
class Ruling:
    """What strangers score by a model ("fit" or "detector"), and the share of false alarms that is accepted."""

    strangers: Strangers
    alarms: float
    model: str = "fit"

    def decide(self, score: float, frames: int) -> Decided:
        """For a finite score, higher = more like a real video, on so many frames with face and voice."""
        length = self.strangers.at(frames)
        if length is None:
            least = self.strangers.usable[0].frames
            message = (
                f"a face is seen for {frames / FPS:.2f} s while somebody speaks; at least {least / FPS:.2f} s is needed"
            )
            return Decided(CANNOT_DECIDE, "too short", message, None)
        limits = length.limits(self.alarms)
        decision = limits.decide(score)
        told = self._told(score, length, limits, decision)
        if decision:
            return Decided(decision, "", "", told)
        if limits.fake is None or limits.real is None:
            share = self.alarms if limits.fake is None else limits.misses
            what = "false alarm" if limits.fake is None else "miss"
            measured = length.own.units if limits.fake is None else length.swaps.units
            message = (
                f"{one_in(share, what)} takes {least_units(share):,} people that the {self.model} had not seen, "
                f"and {measured:,} were measured"
            )
            return Decided(CANNOT_DECIDE, UNLICENSED, message, told)
        others = OTHERS[self.model]
        low = f"3 in 4 {others}" if limits.usual else f"{one_in(self.alarms)} real videos of strangers"
        high = (
            f"as all but {one_in(self.alarms)} real videos of strangers are"
            if limits.gap
            else f"as in {one_in(limits.misses)} {others}"
        )
        message = (
            f"its score {score:.3g} is above {limits.fake:.3g}, so it is not as low as in {low}, and not above "
            f"{limits.real:.3g}, {high}"
        )
        return Decided(CANNOT_DECIDE, BETWEEN, message, told)

    def _told(self, score: float, length: Length, limits: Limits, decision: str) -> Ruled:
        found, others = self.strangers, OTHERS[self.model]
        sides = [
            f"{one_in(limits.alarms, 'false alarm')} real videos of strangers" if decision != "real" else "",
            f"{one_in(limits.misses, 'miss')} {others}" if decision != "fake" else "",
        ]
        holds = " and ".join(side for side in sides if side)
        moved = f", sound moved by up to {found.within * 1000 // FPS} ms to where it fits best" if found.within else ""
        text = f"limit{'s' * (not decision)} for {holds}, {found.measured(length, self.model)}{moved}"
        return Ruled(
            score=rounded(score),
            fake_below=None if limits.fake is None else rounded(limits.fake),
            real_above=None if limits.real is None else rounded(limits.real),
            false_alarms=limits.alarms,
            misses=limits.misses,
            frames=length.frames,
            people=length.units,
            clips=length.own.clips,
            guessed=found.guessed,
            joined=length.joined,
            how=found.how,
            corpora=list(found.corpora),
            text=text,
            gap=limits.gap,
            usual=limits.usual,
        )
