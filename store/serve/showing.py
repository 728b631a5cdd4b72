"""What the pages show of a store, as records for their templates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from concord.secrets import redact
from store import layout
from store.layout import StoreError
from store.place import Place
from store.reader import Reader
from store.serve import audit as audits
from store.serve import playing
from store.serve.agreement import MARKS, Agreement
from store.serve.browse import LABELS, NAMED, SHOWS, SORTS, Browser, Query
from store.serve.ledger import Ledger

LABEL_OF = {number: name for name, number in LABELS.items()}


@dataclass(frozen=True)
class Line:
    """A clip in the list: agreement is its mean soft label, None without one; marks are shares of its frames."""

    row: int
    id: str
    split: str
    method: str
    label: str
    seconds: float
    agreement: float | None
    marks: dict[str, float]


@dataclass(frozen=True)
class Track:
    """A clip in a player."""

    row: int
    id: str
    label: str
    method: str
    frames: int
    agreement: float | None


class Shown:
    """A store that is shown, with everything that is read of it once."""

    labels, sorts, shows = LABELS, SORTS, SHOWS  # for templates
    sheet = playing.SHEET, playing.COLUMNS

    def __init__(self, reader: Reader, audit: Place | None = None) -> None:
        """`audit`: the file of an audit, by default the store's own. Raises StoreError where a given one is none;
        `audit_fault` says so of the store's own."""
        self.reader = reader
        self.name = redact(str(reader.path)).rstrip("/").rpartition("/")[2]
        self.agreement = Agreement(reader)
        self.browser = Browser(reader, self.agreement)
        self._rows = pd.Index(reader.clips["id"])
        if not self._rows.is_unique:
            raise StoreError(f"{reader.path}: two clips have one id; restore clips/id from a copy")
        self.ledger = Ledger(reader.place, self._rows)
        self.audit_fault = ""
        try:
            self.audit = audits.read(audit or reader.place / audits.FILE)
        except StoreError as error:
            if audit is not None:
                raise
            self.audit, self.audit_fault = None, str(error)
        if audit is not None and self.audit is None:
            raise StoreError(f"there is no file {audit}; --audit takes the file that pipelines.audit --json wrote")

    @cached_property
    def counts(self) -> dict[str, int]:
        """Clips in all, done, and frames of the done ones."""
        done = self.reader.clips["done"] == 1
        frames = int(self.reader.clips["length"][done].sum())
        return {"clips": len(self.reader), "done": int(done.sum()), "frames": frames}

    @property
    def hours(self) -> float:
        return self.counts["frames"] / layout.FPS / 3600

    @property
    def failed(self) -> int:
        """Inputs that the ledger has with a reason."""
        return sum(self.ledger.reasons().values())

    @property
    def teachers(self) -> dict[str, str]:
        """Names by side."""
        found = self.reader.attrs.get("teachers") or {}
        return {side: str((found.get(side) or {}).get("name", "")) for side in ("asr", "vsr")}

    @property
    def kind(self) -> str:
        """The kind of similarity, "" without a fit."""
        return str((self.reader.attrs.get("similarity") or {}).get("kind", ""))

    @property
    def has_sound(self) -> bool:
        return "audio" in self.reader.names

    @property
    def has_pictures(self) -> bool:
        return "mouth" in self.reader.names

    def row_of(self, id: str) -> int | None:
        """The row of a clip by its id."""
        (at,) = self._rows.get_indexer([id])
        return int(at) if at >= 0 else None

    def swaps(self, a: int, b: int) -> bool:
        """Whether it can be said how well the lips of one clip agree with the sound of another."""
        return not self.agreement.lacks and max(self.reader.clip(row).length for row in (a, b)) <= LONGEST_SWAP


LONGEST_SWAP = 15_000  # frames of clips that are compared crosswise: 10 minutes


def line(shown: Shown, row: int) -> Line:
    """A clip's line in the list; its agreement must have been read."""
    clips, known = shown.reader.clips, shown.agreement
    length = int(clips["length"][row])
    shares = {name: float(known.marks[name][row]) / max(1, length) for name in MARKS}
    return Line(
        row=row,
        id=str(clips["id"][row]),
        split=str(clips["split"][row]),
        method=str(clips["method"][row]),
        label=LABEL_OF.get(int(clips["label"][row]), "unknown"),
        seconds=length / layout.FPS,
        agreement=_mean(known, row),
        marks={name: share for name, share in shares.items() if share > 0},
    )


def track(shown: Shown, row: int) -> Track:
    """A clip for the player."""
    clip = shown.reader.clip(row)
    shown.agreement.read([row])
    label = LABEL_OF.get(clip.label, "unknown")
    return Track(row, clip.id, label, clip.method, clip.length, _mean(shown.agreement, row))


def about(shown: Shown, row: int) -> dict[str, Any]:
    """Everything that is said of a clip beside its player: facts (name, value, query of clips alike), and its ledger row."""
    clip = shown.reader.clip(row)
    facts: list[tuple[str, str, Query | None]] = [("Path", redact(clip.path), None)]
    for name in NAMED:
        if value := getattr(clip, name):
            facts.append((name.capitalize(), value, Query.of({name: f"={value}"})))
    if clip.identities:
        facts.append(("People", ", ".join(clip.identities), None))
    if clip.source:
        facts.append(("Source", redact(clip.source), None))
    sides = {"sound": clip.audio_fake, "picture": clip.video_fake}
    told = ", ".join(f"{side} {LABEL_OF[fake]}" for side, fake in sides.items() if fake in (layout.REAL, layout.FAKE))
    facts.append(("Label", LABEL_OF.get(clip.label, "unknown") + (f" ({told})" if told else ""), None))
    facts.append(("Length", f"{clip.length / layout.FPS:.2f} s, {clip.length:,} frames", None))
    if np.isfinite(clip.start_skew):
        facts.append(("Sound begins", f"{1000 * clip.start_skew:+.0f} ms after the picture", None))
    if np.isfinite(clip.quality):
        facts.append(("Face found", f"in {clip.quality:.0%} of the frames", None))
    if clip.num_faces > 1:
        facts.append(("Faces", f"{clip.num_faces} at once; the one that speaks is shown", None))
    return {"clip": clip, "facts": facts, "entry": shown.ledger.entry(clip.id)}


def swap(shown: Shown, a: int, b: int) -> dict[str, Any]:
    """JSON-able: thousandths of agreement of the lips of clip a with the sound of clip b, by frame, None where the lips are
    no evidence or there is no voice. Raises StoreError where that cannot be said."""
    if not shown.swaps(a, b):
        raise StoreError(shown.agreement.lacks or "clips of over ten minutes are not compared crosswise")
    values = shown.reader.pair_similarity(a, b)
    flags = [shown.reader.frames(row, 0, len(values), ["flags"])["flags"] for row in (a, b)]
    return {"similarity": playing.thousandths(values, *flags)}


def histogram(counts: tuple[int, ...]) -> Markup:
    """Bars of soft labels from 0 to 1, the highest of full height, as SVG."""
    most, wide = max(counts, default=0) or 1, 240 / max(1, len(counts))
    bars = "".join(
        f'<rect x="{k * wide:.1f}" y="{60 - 56 * n / most:.1f}" width="{wide - 1:.1f}" height="{56 * n / most:.1f}"/>'
        for k, n in enumerate(counts)
    )
    return Markup(
        f'<svg class="hist" viewBox="0 0 240 62" role="img" aria-label="soft labels from 0 to 1">{bars}</svg>'
    )


def _mean(known: Agreement, row: int) -> float | None:
    value = float(known.mean[row])
    return value if np.isfinite(value) else None
