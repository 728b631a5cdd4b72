"""Whose sound a clip is compared with: its own, that of others, and its own at other times.

The others are real clips of the same corpus, chosen by a seed: of another person where the list names people, else of
somebody unknown, and only if there is nobody else of the same person.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.strangers.listed import Listed

WHO = ("another person", "unknown", "the same person")


@dataclass(frozen=True)
class Partners:
    """For each clip [n] the numbers of those whose sound it gets, the first of which is used for decisions; and how many
    pairs there are of each kind in WHO."""

    of: list[list[int]]
    who: dict[str, int]


def partners(listed: Sequence[Listed], most: int, seed: int) -> Partners:
    """At most `most` partners for each of the clips, which are all real. The choice depends on the seed and on the clip's place
    alone."""
    corpora: dict[str, list[int]] = defaultdict(list)
    for k, one in enumerate(listed):
        corpora[one.row.corpus].append(k)
    found: list[list[int]] = [[] for _ in listed]
    who: Counter[str] = Counter(dict.fromkeys(WHO, 0))
    for mine in corpora.values():
        places = np.array(mine)
        known = np.array([listed[k].is_known for k in mine])
        person = np.unique([listed[k].person for k in mine], return_inverse=True)[1]
        for n, k in enumerate(mine):
            rest = places != k
            other = rest & known & (person != person[n]) if known[n] else np.zeros(len(mine), bool)
            unknown = rest & (~known | (not known[n])) & ~other
            for kind, some in zip(WHO, (other, unknown, rest), strict=True):
                if some.any():
                    rng = np.random.default_rng([seed, k])
                    found[k] = rng.permutation(places[some])[:most].tolist()
                    who[kind] += len(found[k])
                    break
    return Partners(found, dict(who))
