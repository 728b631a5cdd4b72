"""Shortcuts: how well one number that has nothing to do with forgery separates fakes from reals, and all numbers together.

Per corpus, the fakes of each method, and of all methods, against all reals of that corpus. The measure is the AUC in
the better direction, because a model would find the direction. A column of words (codec, encoder) is scored by a word's
share of fakes among the other groups' clips. `together` is a small boosted forest, evaluated on groups that it was not
trained on. Clips listed twice in one split count once.

Intervals (95 %) come from drawing groups with replacement. If one group holds more than half of the clips (people
linked through targets), the first-named person is the group instead; if fewer than ten groups remain, each clip. No
interval is narrower than the number of clips allows (`store.similarity.intervals`). With fewer than FEW_CLIPS fakes or
reals, or FEW_GROUPS named people, a negative result is not informative: `few`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.audit.leaks import file_keys
from pipelines.audit.nuisances import means
from pipelines.corpora.manifest import Row
from store.similarity.intervals import auc_bounds

if TYPE_CHECKING:
    import pandas as pd

ALLOW = 0.6
TOGETHER, ALL = "together", "all"  # the nuisance "all in one model", the method "every fake"
FOLDS = 5
DRAWS = 200  # draws of groups for an interval
CELLS = 1_000_000  # weights held at once while drawing
FEW_GROUPS = 10
FEW_CLIPS = 20  # of either class: with 20 of each, an AUC must exceed .87 to be beyond chance (SURE)
MOST_ROWS = 10_000  # of one small model, drawn by seed; limits its time
EXACT = 20, 60  # clips of the rarer and of the other class up to which chance is computed exactly
SURE = 4.0  # standard errors from chance: holds when hundreds of nuisances are tried


@dataclass(frozen=True)
class Shortcut:
    """AUC of `nuisance` for `method` ("all" = every fake) against the reals of `corpus`, with its 95 % interval by group.

    reals and fakes are the clips whose nuisance is known; people are those named in them (or their given groups), 0 if
    none are. `sure`: farther from 0.5 than chance explains (four standard errors).
    """

    corpus: str
    nuisance: str
    method: str
    auc: float
    low: float
    high: float
    reals: int
    fakes: int
    sure: bool = False
    people: int = 0

    @property
    def few(self) -> bool:
        """Whether clips or people are too few to say that there is no shortcut."""
        return min(self.reals, self.fakes) < FEW_CLIPS or 0 < self.people < FEW_GROUPS

    def above(self, allow: float) -> bool:
        """Whether it is a finding: the AUC is above `allow`, and not by chance."""
        return self.sure and self.auc > allow

    def to_json(self, allow: float) -> dict[str, Any]:
        """For audit.json."""
        told = {name: value for name, value in vars(self).items() if name != "sure"}
        return {**told, "finding": self.above(allow), "few": self.few}

    def text(self) -> str:
        """One sentence that says what it means."""
        fake = "fake" if self.method == ALL else f"{self.method} fake"
        return (
            f"{self.corpus}: of one {fake} and one real clip, {means(self.nuisance)} alone picks the fake "
            f"{100 * self.auc:.1f} times in 100 (guessing: 50), without looking at the picture or listening to the sound."
        )


@dataclass(frozen=True)
class Clips:
    """Clips that are compared: whether fake, bool [n]; number of the group, int [n]; first-named person or "", object [n]."""

    fake: np.ndarray
    group: np.ndarray
    person: np.ndarray

    @property
    def both(self) -> bool:
        """Whether there are reals and fakes."""
        return bool(self.fake.any() and not self.fake.all())

    def of(self, chosen: np.ndarray) -> Clips:
        """A selection by a mask or by indices."""
        return Clips(self.fake[chosen], self.group[chosen], self.person[chosen])


def find(
    rows: Sequence[Row], table: pd.DataFrame, seed: int = 0, draws: int = DRAWS, together: bool = True
) -> list[Shortcut]:
    """Shortcuts of every corpus in `rows`, worst first within a corpus; `table` has one row per manifest row, in order.

    Columns that are unknown, or the same for all clips of a comparison, are left out, as are comparisons without reals
    or without fakes. Raises ValueError if rows and table differ in length.
    """
    if len(table) != len(rows):
        raise ValueError(f"the nuisance table has {len(table)} rows for {len(rows)} clips; it needs one per clip")
    keys = [(row.corpus, row.split, key) for row, key in zip(rows, file_keys(rows), strict=True)]
    first = np.array(sorted({key: k for k, key in reversed(list(enumerate(keys)))}.values()), int)
    corpus = np.array([rows[k].corpus for k in first], object)
    found: list[Shortcut] = []
    for name in sorted(set(corpus)):
        mine = first[corpus == name]
        found += _corpus(
            str(name), [rows[k] for k in mine], table.iloc[mine].reset_index(drop=True), seed, draws, together
        )
    return found


def groups(rows: Sequence[Row]) -> np.ndarray:
    """Group number [rows] of each clip, as intervals and folds use it."""
    for names in (
        [row.group or row.id for row in rows],
        [row.identities[0] if row.identities else row.id for row in rows],
    ):
        _, number, size = np.unique(np.array(names, object).astype(str), return_inverse=True, return_counts=True)
        if len(size) >= FEW_GROUPS and size.max() <= len(rows) / 2:
            return number
    return np.arange(len(rows))


def auc(
    scores: np.ndarray, fake: np.ndarray, group: np.ndarray, seed: int = 0, draws: int = DRAWS
) -> tuple[float, np.ndarray]:
    """The probability that a fake's score [n] is above a real's (ties count half), and the same for `draws` draws of
    groups.

    Mann and Whitney 1947, weighted by how often each clip's group was drawn; draws without a real or a fake are NaN. All draws
    share one sort, which scikit-learn's `roc_auc_score` repeats for each: 200 draws of 1,000 clips take 0.01 s, not 0.5 s.
    """
    order = np.argsort(scores, kind="stable")
    scores, fake, group = scores[order], fake[order], group[order]
    start = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # of each run of ties
    numbers, group = np.unique(group, return_inverse=True)
    rng = np.random.default_rng(seed)
    found = [_weighted(np.ones((1, len(scores)), np.float32), fake, start)]
    step = max(1, CELLS // max(len(scores), 1))
    for begin in range(0, draws, step):
        num = min(step, draws - begin)
        times = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=num).astype(np.float32)
        found.append(_weighted(times[:, group], fake, start))
    values = np.concatenate(found)
    return float(values[0]), values[1:]


def _weighted(weight: np.ndarray, fake: np.ndarray, start: np.ndarray) -> np.ndarray:
    """AUC [draws] of clips sorted by score, with their weights [draws, clips]."""
    real = np.add.reduceat(weight * ~fake, start, axis=1).astype(np.float64)
    fakes = np.add.reduceat(weight * fake, start, axis=1).astype(np.float64)
    below = np.cumsum(real, axis=1) - real / 2
    pairs = real.sum(1) * fakes.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (fakes * below).sum(1) / pairs


def why_none(labels: Mapping[str, int]) -> str:
    """The reason why there is nothing to compare, from numbers of clips by "real", "fake" and "unknown"."""
    if not labels.get("fake"):
        return "nothing to compare: no clip is known to be fake, and a shortcut separates fakes from reals"
    if not labels.get("real"):
        return "nothing to compare: no clip is known to be real, and a shortcut separates fakes from reals"
    return "nothing to compare: no number that differs between clips is known for both reals and fakes of one corpus"


def _corpus(
    name: str, rows: Sequence[Row], table: pd.DataFrame, seed: int, draws: int, together: bool
) -> list[Shortcut]:
    import pandas as pd

    label = np.array([row.label for row in rows])
    method = np.array([row.method for row in rows], object)
    group = groups(rows)
    person = np.array([next(iter(row.identities), "" if row.group == row.id else row.group) for row in rows], object)
    named = sorted({str(m) for m, y in zip(method, label, strict=True) if y == 1 and m})
    found = []
    for which in [*named, ALL] if len(named) != 1 else named:
        picked = np.flatnonzero((label == 0) | ((label == 1) & ((which == ALL) | (method == which))))
        clips = Clips(label[picked] == 1, group[picked], person[picked])
        if not clips.both:
            continue
        some = table.iloc[picked].reset_index(drop=True)
        for nuisance, column in some.items():
            known = column.notna().to_numpy()
            mine = clips.of(known)
            if not mine.both or column[known].nunique() < 2:
                continue
            words = not pd.api.types.is_numeric_dtype(column)
            scores = (
                _words(column[known].astype(str).to_numpy(), mine, seed) if words else column[known].to_numpy(float)
            )
            measured = _measured(scores, mine, seed, draws, flip=not words)
            found.append(Shortcut(name, str(nuisance), which, **measured))
        varied = [c for c in some.columns if some[c].nunique() > 1]
        if together and len(varied) > 1:
            scores_of, kept = _forest(some[varied], clips, seed)
            if scores_of is not None:
                measured = _measured(scores_of, clips.of(kept), seed, draws, flip=False)
                found.append(Shortcut(name, TOGETHER, which, **measured))
    return sorted(found, key=lambda s: (-round(s.auc, 3), s.nuisance, s.method))


def _measured(scores: np.ndarray, clips: Clips, seed: int, draws: int, flip: bool) -> dict[str, Any]:
    """The figures of a Shortcut from scores [n]; `flip`: use the better direction."""
    value, drawn = auc(scores, clips.fake, clips.group, seed, draws)
    if flip and value < 0.5:
        value, drawn = 1 - value, 1 - drawn
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (0.0, 1.0)
    reals, fakes = int((~clips.fake).sum()), int(clips.fake.sum())
    by_luck = np.sqrt((reals + fakes + 1) / (12 * reals * fakes))  # standard error of an AUC of 0.5
    error = float(drawn.std()) if len(drawn) > 1 else 0.5
    sure = value - 0.5 > SURE * error and (
        value - 0.5 > SURE * by_luck or (value - 0.5 > SURE / 2 * by_luck and _rare(value, reals, fakes))
    )
    # The draws only repeat existing clips, so the interval is widened to what the number of clips, or groups, allows.
    least, most = auc_bounds(value, *(_independent(clips.group[kind]) for kind in (clips.fake, ~clips.fake)))
    low, high = min(float(low), least, value), max(float(high), most, value)
    return {"auc": value, "low": low, "high": high, "reals": reals, "fakes": fakes, "sure": bool(sure)} | {
        "people": len(set(clips.person) - {""})
    }


def _independent(group: np.ndarray) -> int:
    """The number of independent observations among clips of those groups [n]: the groups if these are few; else all,
    because groups are drawn."""
    groups = len(np.unique(group))
    return groups if groups < FEW_GROUPS else len(group)


def _rare(value: float, reals: int, fakes: int) -> bool:
    """Exact test: whether such an AUC is less likely by chance than SURE standard errors of a normal variable.

    For few clips, where four standard errors may lie above 1. Counted without ties, which has the wider tails.
    """
    few, many = sorted((reals, fakes))
    if few > EXACT[0]:
        return False
    many = min(many, EXACT[1])  # this only makes chance more likely
    return _chance(round((1 - value) * few * many), few, many) < math.erfc(SURE / math.sqrt(2))


@cache
def _chance(wrong: int, few: int, many: int) -> float:
    """The probability that chance leaves at most this many pairs in the wrong order, in either direction."""
    from scipy.stats import mannwhitneyu

    places = np.clip(wrong - many * np.arange(few), 0, many) - 0.5  # one such order
    return float(mannwhitneyu(places, np.arange(many), method="exact").pvalue)


def _words(words: np.ndarray, clips: Clips, seed: int) -> np.ndarray:
    """Score [n] of a word: its rank among all words by its share of fakes in other folds of groups.

    Ranks, not shares: a share without a clip's own fold is lower if that fold has more fakes, so it would separate
    clips of one word by their label.
    """
    from scipy.stats import rankdata

    names, word = np.unique(words, return_inverse=True)
    numbers, who = np.unique(clips.group, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(numbers))[who] % FOLDS
    scores = np.zeros(len(words))
    for k in range(FOLDS):
        other, mine = fold != k, fold == k
        prior = clips.fake[other].mean() if other.any() else 0.5
        count = np.bincount(word[other], minlength=len(names))
        fakes = np.bincount(word[other], clips.fake[other], minlength=len(names))
        scores[mine] = rankdata(np.round((fakes + 2 * prior) / (count + 2), 9))[word[mine]]
    return scores


def _forest(table: pd.DataFrame, clips: Clips, seed: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Scores of a boosted forest on folds of groups it did not see, and the row numbers scored; None with too few groups."""
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import GroupKFold
    from threadpoolctl import threadpool_limits

    kept = np.arange(len(table))
    if len(kept) > MOST_ROWS:
        kept = np.sort(np.random.default_rng(seed).choice(len(kept), MOST_ROWS, replace=False))
    y, who = clips.fake[kept], clips.group[kept]
    folds = min(FOLDS, len(np.unique(who)))
    if folds < 2 or min(y.sum(), (~y).sum()) < 2 * folds:
        return None, kept
    columns = []
    for name in table.columns:
        column = table[name].iloc[kept]
        if not pd.api.types.is_numeric_dtype(column):
            codes, _ = pd.factorize(column, sort=True)
            column = pd.Series(np.where(codes < 0, np.nan, codes))
        columns.append(column.to_numpy(float))
    x = np.stack(columns, 1)
    scores = np.zeros(len(kept))
    for train, test in GroupKFold(folds, shuffle=True, random_state=seed).split(x, y, who):
        if not y[train].any() or y[train].all():
            return None, kept
        how = {"max_iter": 40, "learning_rate": 0.2, "max_leaf_nodes": 8, "early_stopping": False, "random_state": seed}
        model = HistGradientBoostingClassifier(class_weight="balanced", **how)
        with threadpool_limits(1):  # trees are small: with more threads it takes ten times as long
            model.fit(x[train], y[train])
            scores[test] = model.decision_function(x[test])
    return scores, kept
