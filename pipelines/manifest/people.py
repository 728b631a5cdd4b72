"""Assigns people to the sides of a split, so that no person is on two.

Groups (people linked through shared clips) are kept whole if there are several. If one holds nearly everything, as when
each face was swapped with several others, people are assigned one by one, and a clip with people on two sides gets no
split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.corpora.manifest import Row


def names(row: Row) -> tuple[str, ...]:
    """The row's people; if it names nobody, its group, or the clip itself."""
    return row.identities or (row.group or row.id,)


def deal(rows: Sequence[Row], shares: Mapping[str, float], rng: np.random.Generator) -> dict[str, str]:
    """The split of each person of `rows`, by shares that sum to 1; people with a real clip are assigned separately."""
    everyone = sorted({name for row in rows for name in names(row)})
    own = {name for row in rows if row.label == 0 for name in names(row)}
    sides: dict[str, str] = {}
    for some in ([p for p in everyone if p in own], [p for p in everyone if p not in own]):
        sides |= dict(zip((some[k] for k in rng.permutation(len(some))), cut(len(some), shares), strict=True))
    return sides


def cut(num: int, shares: Mapping[str, float]) -> list[str]:
    """`num` names of splits, by their shares, one split after the other."""
    ends = np.rint(np.cumsum(list(shares.values())) * num).astype(int)
    counts = np.diff(np.r_[0, ends])
    return [split for split, count in zip(shares, counts, strict=True) for _ in range(count)]


def side(row: Row, sides: Mapping[str, str]) -> str:
    """The split of all people of the row; "" if they are in several."""
    found = {sides[name] for name in names(row)}
    return found.pop() if len(found) == 1 else ""


def whole_groups(rows: Sequence[Row], shares: Mapping[str, float], rng: np.random.Generator) -> dict[str, str]:
    """The split of each group, largest first; each goes where reals and fakes of every method then are closest to the
    shares."""
    kinds = {kind: k for k, kind in enumerate(sorted({(row.corpus, row.label, row.method) for row in rows}))}
    groups = {group: k for k, group in enumerate(sorted({row.group or row.id for row in rows}))}
    has = np.zeros((len(groups), len(kinds)))
    where = [(groups[row.group or row.id], kinds[row.corpus, row.label, row.method]) for row in rows]
    np.add.at(has, tuple(np.array(where).T), 1)
    has /= has.sum(0)  # share of each class's clips
    want = np.array(list(shares.values()))[:, None]
    got = np.zeros((len(shares), len(kinds)))
    shuffled = rng.permutation(len(groups))
    order = shuffled[np.argsort(-has.sum(1)[shuffled], kind="stable")]
    name, split = list(groups), list(shares)
    sides = {}
    for k in order.tolist():
        # how much closer to its shares a split comes: (want - got)^2 before, minus the same after
        gain = (has[k] * (2 * (want - got) - has[k])).sum(1)
        best = int(np.argmax(gain))
        got[best] += has[k]
        sides[name[k]] = split[best]
    return sides
