"""Types of a store's root attributes: readers rely on them, so foreign files are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Required, TypedDict

from concord.plain_json import is_count

Check = Callable[[Any], bool]


class Layout(TypedDict):
    """How `frames/` is divided: rows that are compressed together, and rows in one file."""

    chunk_rows: int
    shard_rows: int


class SimilarityNote(TypedDict, total=False):
    """A store's record of its fit; by corpus if a store may hold several."""

    kind: str
    complete: bool  # whether all projections and soft labels are of this fit
    clip_frames: int  # typical length of the clips that it was learned from
    fitted_on: dict[str, Any]
    calibrated_on: dict[str, dict[str, Any]]
    strangers: dict[str, Any]  # what people score whom the fit has not seen (`store.similarity.strangers`)
    auc: dict[str, dict[str, float]]
    brier: dict[str, dict[str, float]]
    offset: dict[str, dict[str, float]]
    shuffled_control: dict[str, float]
    fit_from: str
    learned_on: str
    seed: int


class RootAttributes(TypedDict, total=False):
    """Attributes of the root; users may add their own. `root_attrs` demands the first three, and `wrong` checks the types of
    those that ATTRIBUTES lists."""

    format: Required[str]
    version: Required[int]
    layout: Required[Layout]
    fps: int
    sample_rate: int
    created_by: str
    teachers: dict[str, dict[str, Any]]
    similarity: SimilarityNote
    corpora: list[str]
    audio_track: int  # number of the sound track of clips that name none; without it the track is chosen for each clip
    splits_by: (
        str  # what decided on the splits of its clips, such as "--protocol speakers"; without it their corpora did
    )
    words: dict[str, Any]
    inventory: bool
    held_pictures: bool  # whether flags have bit 5; stores of earlier releases lack both
    commit: str
    command: str


def wrong(attrs: Mapping[str, Any]) -> str:
    """The first invalid attribute as "NAME is VALUE, expected WHAT"; "" if all are valid."""
    for name, (expected, is_right) in ATTRIBUTES.items():
        if name in attrs and not is_right(attrs[name]):
            return f"{name} is {_short(attrs[name])}, expected {expected}"
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]} ..."


def _is_layout(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    chunk, shard = value.get("chunk_rows"), value.get("shard_rows")
    return is_count(chunk, 1, 1 << 24) and is_count(shard, 1, 1 << 30) and shard % chunk == 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_teacher(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and isinstance(value.get("name", ""), str)
        and isinstance(value.get("sha256", ""), str | None)
        and isinstance(value.get("options", {}), dict)
        and is_count(value.get("dim", 1), 0, 1 << 20)
    )


def _is_similarity(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and isinstance(value.get("kind", ""), str)
        and is_count(value.get("clip_frames") or 0, 0, 1 << 40)
    )


# name: (expected value in words; test of a value)
ATTRIBUTES: dict[str, tuple[str, Check]] = {
    "layout": ("chunk_rows and shard_rows, a whole number of chunks", _is_layout),
    "fps": ("a number", lambda v: type(v) in (int, float)),
    "sample_rate": ("a number", lambda v: type(v) in (int, float)),
    "teachers": (
        "what each teacher is: objects by asr, vsr, ...",
        lambda v: isinstance(v, dict) and all(map(_is_teacher, v.values())),
    ),
    "similarity": ("an object with the kind of the comparison", _is_similarity),
    "corpora": ("a list of names", lambda v: isinstance(v, list) and all(map(_is_text, v))),
    "created_by": ("text", _is_text),
    "splits_by": ("text", _is_text),
    "audio_track": ("the number of a sound track", lambda v: is_count(v, 1, 64)),
    "held_pictures": ("true or false", lambda v: isinstance(v, bool)),
    "words": ("an object", lambda v: isinstance(v, dict)),
}
