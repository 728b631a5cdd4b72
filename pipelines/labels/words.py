"""Transcripts with word times, as a separate pass over the stored sound, because decoding takes far longer than
embedding.

Clips are decoded in parts on the cluster; each part's words are kept in `_staging/` until all are complete, and the
table is written last, in clip order. Clips that have words already are not decoded again.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

import store
from pipelines.workers import stages
from pipelines.workers.cluster import Spread
from store import layout
from store.arrays.inventory import digest
from store.place import Place, place
from store.staging import FOLDER
from teachers import ClipMedia

if TYPE_CHECKING:
    from teachers.whisper.transcribe import Word

log = logging.getLogger(__name__)

PART_CLIPS = 16  # clips decoded by one task


@runtime_checkable
class Transcriber(Protocol):
    """A teacher that also writes text."""

    def transcribe(self, clip: ClipMedia) -> list[Word]: ...


def pending(reader: store.Reader) -> list[int]:
    """Rows of finished clips with voice but without words."""
    done = np.flatnonzero(reader.clips["done"] == 1).tolist()
    wordless = [i for i in done if not (reader.has_words and reader.words(i))]
    voiced = reader.place.map(lambda i: _voiced(reader, i), wordless)
    return [i for i, has_voice in zip(wordless, voiced, strict=True) if has_voice]


def transcribe(root: Place, writer: store.Writer, teacher: str, spread: Spread) -> None:
    """Decode the clips that have no words yet and rewrite the table."""
    reader = store.open(root)
    todo = pending(reader)
    if todo:
        log.info("decoding the words of %d clips", len(todo))
        parts = [(root, todo[k : k + PART_CLIPS], teacher) for k in range(0, len(todo), PART_CLIPS)]
        files = list(spread(decode, parts, gpu=True))
        found = {i: reader.words(i) for i in range(len(reader)) if reader.has_words}
        for file in files:
            found.update({int(i): words for i, words in _unpacked(file.read()).items()})
        rows = [{"clip": i, **word} for i in sorted(found) for word in found[i]]
        writer.write_words({name: [row[name] for row in rows] for name in layout.WORD_ARRAYS})
        writer.update_attrs({"words": {"teacher": teacher}})
        for file in files:
            file.delete()


def decode(root: Place, clips: list[int], teacher_name: str) -> Place:
    """Words of some clips, {clip row: [word]}, in a staged JSON file that is made once; its path."""
    final = place(root) / FOLDER / f"words-{clips[0]:09d}-{clips[-1]:09d}-{len(clips)}.json"
    if final.exists() and _is_whole(final):
        return final
    reader, teacher = store.open(root), stages.teacher(teacher_name)
    assert isinstance(teacher, Transcriber), f"{teacher_name} cannot transcribe"
    found = {}
    for i in clips:
        got = reader.frames(i, 0, int(reader.clips["length"][i]), ["audio", "flags"])
        none = np.zeros((len(got["flags"]), 0))
        clip = ClipMedia(str(reader.clips["id"][i]), got["audio"].reshape(-1), none, none, none, got["flags"])
        found[i] = [
            {"start": word.start_s, "end": word.end_s, "text": word.text, "probability": word.probability}
            for word in teacher.transcribe(clip)
        ]
    text = json.dumps(found).encode()
    final.write(digest(text).encode() + b"\n" + text)
    return final


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
