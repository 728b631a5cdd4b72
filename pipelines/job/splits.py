"""Sets the splits of a run's clips before anything is planned, so that a fit learns from train alone.

A file or a protocol (`Rule`) sees the rows of the corpora that are asked for together with those that the store has.
New clips without a split are left out. Clips that the store has keep their splits unless the run makes the fit anew,
because a fit and its calibration follow the splits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from concord.text import counted
from pipelines.corpora import manifest
from pipelines.corpora.manifest import SPLITS, Row
from pipelines.corpora.splits import Rule, Splits
from pipelines.errors import UsageError


@dataclass(frozen=True)
class Decided:
    """The rows asked for, those without a split left out; new splits of clips in the store, by id; and lines about it."""

    rows: list[Row]
    moved: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


def decide(
    rule: Rule, asked: Sequence[Row], present: Sequence[Row], store: str, makes_fit: bool, has_fit: bool
) -> Decided:
    """Apply a rule to the rows `asked` for and those `present` in a store, as the store has them.

    Raises UsageError if clips of the store would get another split and its fit stays, or would get none.
    """
    rows = {row.id: row for row in [*present, *asked]}  # a corpus's own rows have its own splits
    made = rule.make(manifest.with_groups(list(rows.values())))
    wanted = {row.id for row in asked} or rows.keys()
    lost = [row.id for row in present if row.id in wanted and row.id not in made.of]
    if lost:
        raise UsageError(
            f"{rule.name} gives no split to {counted(len(lost), 'clip')} that {store} has, such as {lost[0]} "
            f"({_reasons(made)}): without one they would be train; give them one, or make another store"
        )
    moved = {
        row.id: made.of[row.id] for row in present if row.id in made.of and made.of[row.id] != (row.split or "train")
    }
    if moved and has_fit and not makes_fit:
        one = next(row for row in present if row.id in moved)
        raise UsageError(
            f"{store} has other splits for {counted(len(moved), 'clip')}, such as {one.id}: {one.split or 'train'}, by "
            f"{rule.name} {moved[one.id]}; its fit has learned by them: add --refit to set the new ones and learn again"
        )
    there = {row.id for row in present}
    chosen = [replace(row, split=made.of[row.id]) for row in asked if row.id in made.of]
    return Decided(chosen, moved, tuple(_lines(rule, made, len(rows) - len(made.of), moved, there)))


def lacks_real(clips: Iterable[tuple[int, str]], limit: int | None) -> str:
    """Why a fit cannot be learned from clips of these labels and splits; "" if one is known to be real."""
    if any(label == 0 and split in ("", "train") for label, split in clips):
        return ""
    more = "; --limit takes only the first clips of the list" if limit else ""
    return (
        "no clip of train is known to be real, so there will be no soft labels: --corpus folder:ROOT takes ROOT/real/** as "
        f"real and ROOT/fake/METHOD/** as forged{more}; or give --fit-from STORE"
    )


def _lines(rule: Rule, made: Splits, left: int, moved: Mapping[str, str], there: set[str]) -> list[str]:
    count = Counter(made.of.values())
    parts = ", ".join(f"{split} {count[split]:,}" for split in SPLITS)
    lines = [f"splits by {rule.name}: {parts} clips"]
    if left:
        kept = sum(1 for name in there if name not in made.of)
        lines.append(f"  left out without a split: {counted(left - kept, 'clip')} ({_reasons(made)})")
        if kept:
            lines.append(f"  {kept:,} of the store's other corpora keep theirs")
    if moved:
        lines.append(f"  {counted(len(moved), 'clip')} of the store on another side than before")
    return [*lines, *(f"  {note}" for note in made.notes)]


def _reasons(made: Splits) -> str:
    return ", ".join(f"{count:,} {why}" for why, count in made.left_out.most_common() if count) or "not listed"
