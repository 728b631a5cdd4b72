"""A store's data on its clips, without their files: rows, numbers, fingerprints and soft labels, for an audit.

Sound is stored on the picture's clock, so sound after the end of the picture is missing, and its length is then
unknown; `soundless_end` says how much of the picture has no sound. A store keeps no codecs, rates or sizes. Row k is
always clip k; an unfinished clip has no numbers, and its ledger entry as a fault.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

import store
from pipelines.audit import fingerprint, nuisances
from pipelines.corpora import manifest
from pipelines.corpora.faults import ClipFault
from pipelines.corpora.manifest import Row
from pipelines.media import levels
from pipelines.seeing import still
from pipelines.tables import kept, ledger
from store import layout, seen
from store.arrays import inventory
from store.reader import Clip

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = (
    "duration",
    "frame_count",
    "start_skew",
    "quality",
    *levels.COLUMNS,
    "soundless_start",
    "soundless_end",
)
NOTE = "note"  # the kind of what the ledger notes, which keeps no kinds
SEEN = " (learned from)"
BINS = 20  # of a histogram of soft labels, from 0 to 1


@dataclass(frozen=True)
class Stored:
    """A store's data, in the order of its clips table; soft_labels is {method: counts [BINS]}, "real" for reals;
    clips that the fit has learned from are apart, with SEEN after the method."""

    table: pd.DataFrame
    prints: list[fingerprint.Print | None]
    faults: list[ClipFault]
    soft_labels: dict[str, list[int]]


def rows(reader: store.Reader) -> list[Row]:
    """The clips table as manifest rows, with an empty split as train and the data of the manifest in the store's root.

    Raises StoreError if that manifest is not the one that the run wrote.
    """
    there = _is_kept(reader, kept.MANIFEST)
    listed = {row.id: row for row in manifest.read(reader.place / kept.MANIFEST)} if there else {}
    found = []
    for i in range(len(reader)):
        clip = reader.clip(i)
        row = listed.get(clip.id, Row(clip.path))
        found.append(
            replace(
                row,
                path=clip.path,
                label=clip.label,
                audio_fake=clip.audio_fake,
                video_fake=clip.video_fake,
                method=clip.method,
                category=clip.category,
                identities=clip.identities,
                group=clip.group,
                source=clip.source,
                split=clip.split or "train",
                id=clip.id,
                corpus=clip.corpus,
            )
        )
    return found


def from_store(reader: store.Reader) -> Stored:
    """One pass over sound, flags, mouth crops and soft labels of every finished clip. Raises StoreError for damage."""
    import pandas as pd

    entries = ledger.read(reader.place) if _is_kept(reader, ledger.FILE) else {}
    values: list[dict[str, float]] = []
    prints: list[fingerprint.Print | None] = []
    faults: list[ClipFault] = []
    histograms: dict[str, np.ndarray] = {}
    learned = seen.by_fit(reader, np.arange(len(reader)))
    for i in range(len(reader)):
        clip = reader.clip(i)
        if not clip.done:
            entry = entries.get(clip.id)
            said = (entry.reason, entry.message) if entry and entry.reason else ("not_done", "it was not processed yet")
            faults.append(ClipFault(said[0], clip.id, said[1]))
            values.append({})
            prints.append(None)
            continue
        got = reader.frames(i, 0, clip.length, ["audio", "flags", "mouth", "similarity"])
        faults += _facts(clip, got["flags"], entries.get(clip.id))
        known, sound = numbers(clip, got["audio"], got["flags"])
        values.append(known)
        if known["quality"] == 0:
            faults.append(ClipFault("no_face", clip.id, "no frame shows a face"))
        prints.append(fingerprint.of(sound, fingerprint.shrink(got["mouth"]), clip.length / layout.FPS))
        labels = got["similarity"][layout.labelled(got["flags"], got["flags"])].astype(np.float32)
        kind = clip.method or {layout.REAL: "real", layout.FAKE: "fake"}.get(clip.label, "unknown")
        kind += SEEN if learned is not None and learned[i] else ""
        count, _ = np.histogram(labels[np.isfinite(labels)], BINS, (0, 1))
        histograms[kind] = histograms.get(kind, np.zeros(BINS, int)) + count
    columns = {name: np.array([float(v.get(name, np.nan)) for v in values]) for name in NUMBERS}
    kinds: dict[str, set[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.id, set()).add(fault.kind)
    named = zip(reader.clips["id"], values, strict=True)
    table = pd.DataFrame(columns | nuisances.facts([kinds.get(str(name), set()) if v else None for name, v in named]))
    return Stored(table, prints, faults, {kind: count.tolist() for kind, count in sorted(histograms.items())})


def _facts(clip: Clip, flags: np.ndarray, entry: ledger.Entry | None) -> list[ClipFault]:
    """What the run noted about a clip, and the held pictures that its flags mark."""
    found = [ClipFault(fact.kind, clip.id, fact.text) for fact in still.facts(flags)]
    told = {fault.text for fault in found}
    notes = [text for text in entry.notes.split("\n") if text and text not in told] if entry else []
    return [*found, *(ClipFault(NOTE, clip.id, text) for text in notes)]


def _is_kept(reader: store.Reader, name: str) -> bool:
    """Whether the store has this table of the driver; raises StoreError if it is lost or not what the run wrote."""
    try:
        kept.check(reader, name)
    except FileNotFoundError:
        if name in reader.inventory.files:
            raise inventory.Damaged(
                f"{reader.place / name} is missing: part of the store was lost or not copied; {inventory.remedy(name)}"
            ) from None
        return False
    return True


def numbers(clip: Clip, audio: np.ndarray, flags: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Numbers of a clip from its sound i2 [frames, 640] and flags u1 [frames], and the sound in one row."""
    found = {
        "duration": float(clip.duration),
        "frame_count": float(clip.length),
        "start_skew": round(float(clip.start_skew), 6),
        "quality": float(clip.quality),
    }
    present = np.flatnonzero(flags & layout.AUDIO_PRESENT)
    sound = audio.reshape(-1)
    if not len(present):
        return found | {"soundless_start": clip.length / layout.FPS, "soundless_end": clip.length / layout.FPS}, sound
    first, last = int(present[0]), int(present[-1]) + 1
    level = levels.Levels()
    level.add(audio[first:last].reshape(-1))
    found |= level.values(before_s=first / layout.FPS)
    found["soundless_start"] = first / layout.FPS
    found["soundless_end"] = (clip.length - last) / layout.FPS
    return found, sound
