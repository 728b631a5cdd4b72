"""The whole measurement of a manifest: who is judged, by what, and every figure, as plain values for JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import concord
import store
from benchmarks.strangers import evidence, figures, followed, forged, gather, listed, sound, verdicts
from benchmarks.strangers.decider import Decider, seen_by_fit
from benchmarks.strangers.gather import Clip, Gathered
from benchmarks.strangers.listed import Listed
from benchmarks.strangers.verdicts import Verdict
from concord.text import counted
from pipelines.corpora.fields import ManifestError
from student.predict.records import Answer

FORMAT, VERSION = "concord-av wild", 1
ALL = "all"
NAMED = 20  # lost clips that the report names
Advance = Callable[[str, int], Callable[[], None]]  # (what is done, how many) -> to be called after each


@dataclass(frozen=True)
class Asked:
    """What to measure: as the options of the command."""

    manifest: Path
    store: str | None = None
    fit_from: str | None = None
    checkpoint: Path | None = None
    corpus: str | None = None
    limit: int | None = None
    seed: int = 0


def measure(asked: Asked, advance: Advance) -> dict[str, Any]:
    """All figures. Raises ManifestError, StoreError, UsageError, CheckpointError, TeacherError, WeightsError."""
    found, total = listed.read(asked.manifest, asked.limit)
    reader = store.open(asked.store) if asked.store else None
    fit_from = asked.fit_from or (asked.store if reader is not None and reader.fit is not None else None)
    decider = Decider.of(asked.checkpoint, fit_from, asked.corpus)
    arrays = tuple(decider.arrays)
    source: evidence.Source
    if reader is not None:
        source = evidence.FromStore(reader, decider.on, arrays)
    else:
        source = evidence.FromFiles(decider.on, decider.has_student, arrays)
    try:
        step = advance("clips", len(found))
        everything = gather.sorted_out(_stepped(gather.gather(found, source), step))
        if not everything.clips:
            first = everything.lost[0] if everything.lost else None
            why = f", the first because: {first.message}" if first else ""
            raise ManifestError(f"no clip of {asked.manifest} ({counted(len(found), 'clip')}) could be read{why}")
        answers = _Answers.of(everything, decider, source, asked.seed, advance)
        own_sound = _own_sound(answers, decider, source, advance)
    finally:
        source.close()
    return {
        "format": FORMAT,
        "version": VERSION,
        "own_sound": own_sound,
        "decisions": _decisions(answers),
        **_forgeries(everything, answers, decider),
        "rests_on": _rests_on(asked, found, total, everything, answers, decider, source, fit_from),
    }


def _stepped(items: Any, step: Callable[[], None]) -> Any:
    for item in items:
        yield item
        step()


# -- answers -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answers:
    """What `predict` says of every labelled clip, and of every real one with the sound of its first partner.

    `reals` are the real clips that have evidence. `real` and `forged` end with the clips about which `predict` says why it
    has no evidence.
    """

    reals: list[Clip]
    partners: sound.Partners
    real: list[Verdict]
    swapped: list[Verdict]
    forged: list[Verdict]
    by_clip: dict[str, Answer]

    @classmethod
    def of(cls, found: Gathered, decider: Decider, source: evidence.Source, seed: int, advance: Advance) -> _Answers:
        reals = [clip for clip in found.clips if clip.listed.is_real]
        fakes = [clip for clip in found.clips if clip.listed.is_forged]
        partners = sound.partners([clip.listed for clip in reals], sound.OTHERS, seed)
        step = advance("answers", len(reals) + len(fakes))

        def shown(clip: Clip) -> Any:
            return source.pictured(clip.evidence) if decider.has_student else clip.evidence

        by_clip: dict[str, Answer] = {}
        dubbed: list[Answer | None] = []
        for k, clip in enumerate(reals):
            mine, others = shown(clip), partners.of[k]
            by_clip[clip.listed.row.id] = decider(mine)
            dubbed.append(decider(evidence.swapped(mine, shown(reals[others[0]]))) if others else None)
            step()
        for clip in fakes:
            by_clip[clip.listed.row.id] = decider(shown(clip))
            step()
        lost = [
            Verdict(one.listed, decider.refuses(one.listed.row.path, one.reason, one.message))
            for one in found.lost
            if one.answers
        ]
        own, made = ([Verdict(c.listed, by_clip[c.listed.row.id]) for c in some] for some in (reals, fakes))
        return cls(
            reals,
            partners,
            own + [one for one in lost if one.listed.is_real],
            [Verdict(c.listed, said) for c, said in zip(reals, dubbed, strict=True) if said],
            made + [one for one in lost if one.listed.is_forged],
            by_clip,
        )


def _decisions(answers: _Answers) -> dict[str, Any]:
    kinds = answers.real, answers.swapped, answers.forged
    corpora = sorted({one.listed.row.corpus for kind in kinds for one in kind})
    by_corpus = {
        name: verdicts.told(*([one for one in kind if one.listed.row.corpus == name] for kind in kinds))
        for name in corpora
    }
    return {**verdicts.told(*kinds), "corpora": by_corpus}


# -- own sound -----------------------------------------------------------------------------------------------------------


def _own_sound(answers: _Answers, decider: Decider, source: evidence.Source, advance: Advance) -> dict[str, Any]:
    reals = answers.reals
    judged = [decider.face(clip.evidence) for clip in reals]
    kinds = sound.kinds(len(reals), answers.partners.of)
    person = _numbers([clip.listed.person for clip in reals])
    corpus = np.array([clip.listed.row.corpus for clip in reals], object)
    fit, within = decider.on.fit, decider.within

    def sounds(moved_by: int) -> sound.Sounds:
        pairs = {name: sound.in_time(judged, some, fit, moved_by) for name, some in kinds.items()}
        return sound.Sounds(
            {k: sound.scored(judged, some, fit) for k, some in pairs.items()}, person, fit, decider.corpus
        )

    as_it_is, moved = sounds(0), sounds(within) if within else None

    def told_of(chosen: np.ndarray) -> dict[str, Any]:
        return {**as_it_is.told(chosen), **({"moved": moved.told(chosen)} if moved else {})}

    found: dict[str, Any] = {**told_of(np.ones(len(reals), bool)), "corpora": {}}
    for name in sorted(set(corpus.tolist())):
        found["corpora"][name] = told_of(corpus == name)
    if decider.on.detector is not None:
        step = advance("student's pairs", len(reals))
        both = followed.judged(reals, kinds, source, decider, decider.on.detector, step)
        found["student"] = followed.told(both, person, np.ones(len(reals), bool))
        for name, told in found["corpora"].items():
            told["student"] = followed.told(both, person, corpus == name)
    return {**found, "pairs": answers.partners.who}


def _logit(said: Answer) -> float:
    return said.student.logit if said.student and said.student.logit is not None else math.nan


# -- forgeries -----------------------------------------------------------------------------------------------------------


def _forgeries(found: Gathered, answers: _Answers, decider: Decider) -> dict[str, Any]:
    some = [clip for clip in found.clips if clip.listed.row.id in answers.by_clip]
    said = [answers.by_clip[clip.listed.row.id] for clip in some]
    own = [(k, k, 0) for k in range(len(some))]
    whole = sound.scored([decider.face(clip.evidence) for clip in some], own, decider.on.fit)
    similarity = np.full(len(some), np.nan)
    similarity[whole.clip["clip"]] = whole.score["clip"]
    margin = [one.offset.margin if one.offset and one.offset.margin is not None else math.nan for one in said]
    scores = {"similarity": -similarity, "margin": -np.array(margin, float)}
    if decider.has_student:
        scores["student"] = np.array([_logit(one) for one in said], float)
    ranked = forged.Ranked([clip.listed for clip in some], scores, [clip.numbers for clip in some])
    ranked = forged.comparable(ranked)
    if decider.has_student:
        ranked = ranked.with_score("both", forged.both(ranked.scores["student"], ranked.scores["margin"]))
    by = "both" if decider.has_student else "similarity"
    scored = ranked.of(np.isfinite(ranked.scores[by]))  # the trivial numbers are judged on the same clips
    return {"forgeries": forged.told(ranked, by), "baselines": forged.baselines(scored)}


# -- what it rests on ----------------------------------------------------------------------------------------------------


def _rests_on(
    asked: Asked, used: Sequence[Listed], total: int, found: Gathered, answers: _Answers, decider: Decider,
    source: evidence.Source, fit_from: str | None,
) -> dict[str, Any]:  # fmt: skip
    label = Counter("real" if one.is_real else "forged" if one.is_forged else "unlabelled" for one in used)
    scored = [clip.listed for clip in found.clips]
    known = {one.person for one in scored if one.is_known}
    reasons = Counter(one.reason for one in found.lost)
    return {
        "manifest": str(asked.manifest),
        "evidence": source.told(),
        "basis": decider.told(),
        "map_of": decider.corpus,
        "sound_moved_within": decider.within,
        "fit_has_seen": seen_by_fit(scored, fit_from),
        "clips": {
            "listed": total, "asked": len(used), "read": len(scored),
            **{kind: label[kind] for kind in ("real", "forged", "unlabelled")},
            "frames": sum(clip.evidence.clip.num_frames for clip in found.clips),
        },
        "people": {"named": len(known), "clips_of_unknown_people": sum(not one.is_known for one in scored)},
        "lost": {
            "clips": len(found.lost),
            "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            "first": [
                {"path": one.listed.row.path, "reason": one.reason, "message": one.message}
                for one in found.lost[:NAMED]
            ],
        },
        "limit": asked.limit,
        "seed": asked.seed,
        "draws": figures.DRAWS,
        "version": concord.__version__,
    }  # fmt: skip


def _numbers(names: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(names, object).astype(str), return_inverse=True)[1] if names else np.zeros(0, int)
