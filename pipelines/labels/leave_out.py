"""Deals people into folds, and learns the fit again without each fold, so that its people are strangers to it.

An unnamed clip may be of anybody in its corpus, so it is not scored, and no fit learns from it that scores people of
its corpus. Where nobody is named, whole corpora are left out; that shows how a fit travels, but licenses no verdict.
"""

from __future__ import annotations

import logging
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

import store
from concord.text import counted
from pipelines.labels import contrast, projection
from pipelines.labels.people import People
from pipelines.workers.chain import Spread
from store import similarity
from store.place import Place
from store.similarity import Fit, Moments
from store.similarity.grounds import LEAST
from store.similarity.strangers import CORPORA, PEOPLE

log = logging.getLogger(__name__)

FOLDS = 5

Parts = tuple[Sequence[Moments | None], int]  # moments of each part of the clips, frames of context


@dataclass(frozen=True)
class Taught:
    """Clips (rows) of a network: those that it learned from, those that stopped it, and noisy sounds by clip."""

    clips: list[int]
    held: list[int]
    noisy: dict[int, tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Dealt:
    """Training clips (rows of the store) in folds.

    `units`: the person of each or, where nobody is named, its corpus; "" for a clip that is not scored. `shut`: the folds
    that must not learn from it; a clip with a unit is scored by the fit of the one fold that it is shut out of.
    """

    clips: np.ndarray
    units: list[str]
    shut: list[frozenset[int]]
    how: str
    guessed: bool

    @property
    def count(self) -> int:
        """Folds."""
        return 1 + max(fold for folds in self.shut for fold in folds)

    @property
    def least(self) -> int:
        """Units without which a length is not kept."""
        return LEAST if self.how == PEOPLE else 2

    def taught(self, clips: Iterable[int], fold: int) -> list[int]:
        """Those of `clips` (rows) that the fit without `fold` may learn from."""
        shut = dict(zip(self.clips.tolist(), self.shut, strict=True))
        return [clip for clip in clips if fold not in shut[clip]]

    def judged(self, fold: int) -> tuple[list[int], list[str]]:
        """The clips of a fold (rows), and the unit of each."""
        mine = [k for k, unit in enumerate(self.units) if unit and fold in self.shut[k]]
        return self.clips[mine].tolist(), [self.units[k] for k in mine]


def deal(reader: store.Reader, clips: np.ndarray, who: People) -> Dealt | None:
    """The clips by people or, where nobody is named, by corpora; None if there are too few of either."""
    corpora = reader.clips["corpus"][clips].astype(str).tolist()
    named = list(dict.fromkeys(name for name in who.names if name))
    if len(named) >= LEAST:
        fold = {name: k % FOLDS for k, name in enumerate(named)}
        inside: dict[str, set[int]] = defaultdict(set)
        for name, corpus in zip(who.names, corpora, strict=True):
            inside[corpus] |= {fold[name]} if name else set()
        pairs = zip(who.names, corpora, strict=True)
        shut = [frozenset({fold[name]} if name else inside[corpus]) for name, corpus in pairs]
        return Dealt(clips, who.names, shut, PEOPLE, who.guessed)
    places = list(dict.fromkeys(corpora))
    if (named and not who.guessed) or len(places) < 2:
        return None
    return Dealt(clips, corpora, [frozenset({places.index(name) % FOLDS}) for name in corpora], CORPORA, False)


def fits_without(
    root: Place,
    spread: Spread,
    kind: str,
    seed: int,
    dealt: Dealt,
    taught: Taught | None,
    moments: Callable[[np.ndarray], Parts | None],
) -> list[Fit | None]:
    """For each fold a fit of `kind` that has not learned from it; None where too little is left.

    `taught` is what the network of the whole fit learned from: those of folds learn from the same clips and noisy sounds
    less their fold's, so no sound is embedded again. `moments` gives those of the parts [clips] named.
    """
    nothing: list[Fit | None] = [None] * dealt.count
    linear = _linear(dealt, moments) if kind != "contrast" else nothing
    if taught is None:
        return linear
    jobs: list[tuple[Any, ...]] = []
    for fold in range(dealt.count):
        clips = dealt.taught(taught.clips, fold)
        noisy = {clip: taught.noisy[clip] for clip in clips if clip in taught.noisy}
        jobs.append((root, clips, dealt.taught(taught.held, fold), {}, noisy, seed))
    log.info("learning %s without some of the people, as long each as above", counted(len(jobs), "more network"))
    try:
        networks = [network_fit(arrays) for arrays, _, _ in spread(contrast.train, jobs)]
    except ValueError as error:
        log.warning("what strangers score is not measured: %s", error)
        return nothing
    if kind == "contrast":
        return list(networks)
    return [cca and projection.fuse(cca, fit.network, fit.dims) for cca, fit in zip(linear, networks, strict=True)]


def _linear(dealt: Dealt, moments: Callable[[np.ndarray], Parts | None]) -> list[Fit | None]:
    """The cca without each fold; moments are collected of clips that are shut out of the same folds."""
    ways = sorted(set(dealt.shut), key=sorted)
    found = moments(np.array([ways.index(shut) for shut in dealt.shut]))
    if found is None:
        return [None] * dealt.count
    fits: list[Fit | None] = []
    for fold in range(dealt.count):
        rest = [own for own, way in zip(found[0], ways, strict=True) if own is not None and fold not in way]
        total = reduce(operator.add, rest) if rest else None
        fits.append(linear_fit(total, found[1]) if total and total.count > similarity.DIMS else None)
    return fits


def network_fit(arrays: dict[str, np.ndarray]) -> Fit:
    """The fit of the networks alone; their arrays f4 [networks, ...]."""
    dims = arrays["picture_out.bias"].size
    none, empty = np.zeros(0, np.float32), np.zeros((0, dims), np.float32)
    return Fit("contrast", 0, none, empty, none, empty, np.ones(dims, np.float32), network=arrays, level=True)


def linear_fit(moments: Moments, context: int) -> Fit:
    """The cca of moments of levelled embeddings."""
    return replace(similarity.fit_cca(moments, context), level=True)
