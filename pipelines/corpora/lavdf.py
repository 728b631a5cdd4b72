"""LAV-DF (Cai et al. 2022, arXiv 2204.06228): {train,dev,test}/NNNNNN.mp4 and metadata.json (or metadata.min.json).

`fake_periods` are spans in seconds; they apply to the sound if modify_audio is true and to the picture if modify_video
is. Clips made from one original form one group; people are not published. Split `dev` is val. Rates are the paper's (25
fps, 16 kHz), frames and samples the list's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.join import document, fault, file_of, files, joined, lengths, number, segments
from pipelines.corpora.manifest import Row

LISTS = ("metadata.json", "metadata.min.json")
SPLITS = {"train": "train", "dev": "val", "val": "val", "test": "test"}
FPS, SAMPLE_RATE = 25.0, 16_000.0


def rows(root: Path) -> Iterator[Row]:
    """One row per clip of list or folders; raises ManifestError if there is no list."""
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    if path is None:
        raise ManifestError(f"lavdf:{root} has neither {' nor '.join(LISTS)}; name the folder that holds it")
    listed = (_row(entry) for entry in document(path, list))
    yield from joined(root, listed, files(root), _unlisted, where=path.name)


def _row(entry: Mapping[str, Any]) -> Row:
    path = file_of(entry)
    video, audio = bool(entry.get("modify_video")), bool(entry.get("modify_audio"))
    spans = entry.get("fake_periods") or []
    row = Row(
        path,
        label=int(video or audio),
        audio_fake=int(audio),
        video_fake=int(video),
        method="+".join(["visual_modified"] * video + ["audio_modified"] * audio),
        group=PurePosixPath(str(entry.get("original") or path)).name,
        split=_split(str(entry.get("split") or path.split("/")[0])),
        listed_frames=number(entry, "video_frames"),
        listed_fps=FPS,
        listed_samples=number(entry, "audio_frames"),
        listed_sample_rate=SAMPLE_RATE,
    )
    if bool(row.label) != bool(spans) or ("n_fakes" in entry and number(entry, "n_fakes") != len(spans)):
        told = f"n_fakes {entry.get('n_fakes')}, {len(spans)} spans, modify_video {video}, modify_audio {audio}"
        row = fault(row, "label_conflict", f"{path}: {told} contradict each other")
    duration = number(entry, "duration")
    for name, forged in (("audio_segments", audio), ("video_segments", video)):
        if forged:
            row = segments(row, name, spans, duration)
    if 0 in (entry.get("audio_channels"), entry.get("audio_frames")):
        row = fault(row, "no_audio", f"{path} is listed without sound")
    return lengths(row)


def _split(name: str) -> str:
    return SPLITS.get(name, "")


def _unlisted(path: str) -> Row:
    return Row(path, split=_split(path.split("/")[0]))
