"""Transcripts with word times, as a separate pass over the stored sound, because decoding takes far longer than
embedding.

Clips are decoded in parts on the cluster, each part together; its words are kept in `_staging/` until all are complete,
and the table is written last, in clip order. Parts depend on the clips alone, not on the workers. Clips that have words
already are not decoded again.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

import store
from concord.text import counted
from pipelines.workers import stages
from pipelines.workers.chain import Spread
from pipelines.workers.work import Span, worker
from store import layout
from store.arrays.inventory import digest
from store.place import Place, place
from store.staging import FOLDER
from teachers import ClipMedia

if TYPE_CHECKING:
    from teachers.whisper.transcribe import Word

log = logging.getLogger(__name__)

# On one core, by Whisper tiny.en: 0.33 s for a clip of 3 s (docs/measurements.md). Larger models take longer.
SECONDS_A_FRAME = 0.0044
PART_CLIPS = 16  # clips decoded by one task
PART_FRAMES = 15_000  # and at most so many frames, ten minutes, together: their sound is in memory
STAGE = "words"  # in the report


@runtime_checkable
class Transcriber(Protocol):
    """A teacher that also writes text."""

    def transcribe(self, clips: list[ClipMedia]) -> list[list[Word]]: ...


def pending(reader: store.Reader) -> list[int]:
    """Rows of finished clips with voice but without words."""
    done = np.flatnonzero(reader.clips["done"] == 1).tolist()
    wordless = [i for i in done if not (reader.has_words and reader.words(i))]
    voiced = reader.place.map(lambda i: _voiced(reader, i), wordless)
    return [i for i, has_voice in zip(wordless, voiced, strict=True) if has_voice]


def transcribe(
    root: Place, writer: store.Writer, teacher: str, spread: Spread, count: Callable[[list[Span]], None]
) -> None:
    """Decode the clips that have no words yet and rewrite the table; `count` gets the work of each part."""
    reader = store.open(root)
    todo = pending(reader)
    if todo:
        spent = minutes(int(reader.clips["length"][todo].sum()))
        log.info("words: decoding %s, %s; larger models take longer", counted(len(todo), "clip"), spent)
        parts = [(root, todo[k : k + PART_CLIPS], teacher) for k in range(0, len(todo), PART_CLIPS)]
        files = []
        for file, spans in spread(decode, parts, gpu=True):
            files.append(file)
            count(spans)
        found = {i: reader.words(i) for i in range(len(reader)) if reader.has_words}
        for file in files:
            found.update({int(i): words for i, words in _unpacked(file.read()).items()})
        rows = [{"clip": i, **word} for i in sorted(found) for word in found[i]]
        writer.write_words({name: [row[name] for row in rows] for name in layout.WORD_ARRAYS})
        writer.update_attrs({"words": {"teacher": teacher}})
        for file in files:
            file.delete()


def minutes(frames: int) -> str:
    """What the words of so many frames cost, for a person."""
    took = max(1, math.ceil(frames * SECONDS_A_FRAME / 60))
    return f"about {counted(took, 'minute')} on one CPU core with Whisper tiny.en"


def decode(root: Place, clips: list[int], teacher_name: str) -> tuple[Place, list[Span]]:
    """Words of some clips, {clip row: [word]}, in a staged JSON file that is made once: its path, and the work on it."""
    final = place(root) / FOLDER / f"words-{clips[0]:09d}-{clips[-1]:09d}-{len(clips)}.json"
    if final.exists() and _is_whole(final):
        return final, []
    reader, teacher = store.open(root), stages.teacher(teacher_name)
    assert isinstance(teacher, Transcriber), f"{teacher_name} cannot transcribe"
    begun = time.time()
    found = {}
    for some in _together(clips, reader.clips["length"]):
        for i, words in zip(some, teacher.transcribe([_sound(reader, i) for i in some]), strict=True):
            found[i] = [
                {"start": word.start_s, "end": word.end_s, "text": word.text, "probability": word.probability}
                for word in words
            ]
    text = json.dumps(found).encode()
    final.write(digest(text).encode() + b"\n" + text)
    frames = int(reader.clips["length"][clips].sum())
    return final, [Span(STAGE, worker(), begun, time.time(), len(clips), frames, frames)]


def _together(clips: list[int], lengths: np.ndarray) -> list[list[int]]:
    """The clips in groups of at most PART_FRAMES frames, or of one clip; `lengths` are of all clips of the store."""
    groups: list[list[int]] = []
    frames = PART_FRAMES
    for i in clips:
        frames += int(lengths[i])
        if frames > PART_FRAMES:
            groups.append([])
            frames = int(lengths[i])
        groups[-1].append(i)
    return groups


def _sound(reader: store.Reader, clip: int) -> ClipMedia:
    """A stored clip's sound and flags."""
    got = reader.frames(clip, 0, int(reader.clips["length"][clip]), ["audio", "flags"])
    none = np.zeros((len(got["flags"]), 0))
    return ClipMedia(str(reader.clips["id"][clip]), got["audio"].reshape(-1), none, none, none, got["flags"])


def _unpacked(data: bytes) -> dict[str, Any]:
    """The file that `decode` staged: a SHA-256, a line end, JSON. Raises StoreError if they do not match."""
    checksum, _, text = data.partition(b"\n")
    if checksum.decode(errors="replace") != digest(text):
        raise store.StoreError("words that were staged are damaged; run the same command again to continue")
    words: dict[str, Any] = json.loads(text)
    return words


def _is_whole(file: Place) -> bool:
    try:
        _unpacked(file.read())
    except store.StoreError:
        return False
    return True


def _voiced(reader: store.Reader, clip: int) -> bool:
    flags = reader.frames(clip, 0, int(reader.clips["length"][clip]), ["flags"])["flags"]
    return bool((flags & layout.VOICE_ACTIVE).any())
