"""Reads the headers of many clips in a child process, so that a clip that crashes or hangs ffmpeg fails alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from pipelines.corpora.manifest import Row
from pipelines.media import probe
from pipelines.media.files import MediaError
from pipelines.reasons import INFRASTRUCTURE
from pipelines.workers import isolation
from pipelines.workers.work import reason_of, traceback_of, unforeseen, worker
from store.place import place

STAGE = "probe"


@dataclass(frozen=True)
class Unread:
    """A clip whose header could not be read: why (`pipelines.reasons.REASONS`, and a sentence), after how many attempts and
    seconds, by which worker; `trace` is the traceback of an unexpected error."""

    id: str
    path: str
    reason: str
    message: str
    attempts: int
    seconds: float
    worker: str
    trace: str = ""


def probe_rows(
    rows: list[Row], clip_timeout: float | None, attempts: int, options: Mapping[str, str] | None = None
) -> list[int | Unread]:
    """Frames in each clip's header, or why it cannot be read; `options` are for media in buckets."""
    if not rows:
        return []
    child = isolation.Child(partial(_reader, options))
    try:
        return [_probe(child, row, clip_timeout, attempts) for row in rows]
    finally:
        child.close()


def _probe(child: isolation.Child[Row, int], row: Row, clip_timeout: float | None, attempts: int) -> int | Unread:
    begun = time.perf_counter()
    reason, message, attempt, trace = "", "", 0, ""
    while attempt < attempts:
        attempt += 1
        try:
            return child(row, isolation.limit_s(0, clip_timeout))
        except MediaError as error:
            reason, message = error.reason, str(error)
            if reason not in INFRASTRUCTURE:
                break
        except isolation.ChildLost as error:
            reason, message = error.reason, f"{row.path}: {error}; check the file, or leave it out"
            trace = error.trace
        except Exception as error:  # an unexpected error in one clip must not affect the others; the ledger keeps it
            reason, message = reason_of(error), f"{row.path}: {unforeseen(error)}"
            trace = traceback_of(error)
            if reason not in INFRASTRUCTURE:
                break
    seconds = time.perf_counter() - begun
    return Unread(row.id, row.path, reason, message, attempt, seconds, worker(), trace)


def _reader(options: Mapping[str, str] | None) -> Callable[[Row], int]:
    return partial(_num_frames, options)


def _num_frames(options: Mapping[str, str] | None, row: Row) -> int:
    audio = place(row.audio_path, options) if row.audio_path else None
    return probe.probe(place(row.path, options), audio).num_frames
