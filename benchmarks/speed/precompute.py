"""Clips per second: the naive loop against the pipeline with one and with two workers per stage, in one run.

    python -m benchmarks precompute --corpus grid:/data/grid_s1

The naive loop is what a first script does: one clip at a time in one process, MediaPipe's detector and landmarks on
every frame (image mode), sound padded to 30 seconds for Whisper, the same crops, teachers and codecs, every clip
written when it is done. The pipeline is precompute.py as it is, timed whole; "working" is its rate once face workers
have started, from the report, which also gives the cost of each stage. Loading of models is not included in the naive
loop, but in the pipeline's whole run.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from concord import extras

ROOT = Path(__file__).parents[2]


def naive(corpus: str, count: int, folder: Path) -> float:
    """Seconds for `count` clips in this process, model loading left out."""
    extras.need("mediapipe", "mediapipe")
    import zarr
    from mediapipe.tasks.python import BaseOptions, vision

    import teachers
    from pipelines.corpora import manifest
    from pipelines.media.picture import Video
    from pipelines.media.sound import decode_sound
    from pipelines.workers.threads import fix_threads
    from teachers.face import align, tracks
    from teachers.files import face_model
    from teachers.voice import VoiceActivity

    rows = manifest.load(corpus)[:count]
    model = face_model.find().path
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)), output_face_blendshapes=True
    )
    landmarker = vision.FaceLandmarker.create_from_options(options)
    voice, whisper, lips = VoiceActivity(), teachers.load("whisper-exact:tiny.en@3"), teachers.load("lips")
    fix_threads()
    store = zarr.open_group(folder / "naive.zarr", mode="w")
    begun = time.perf_counter()
    for k, row in enumerate(rows):
        video = Video(row.path)
        frames = list(video)
        points, scores = landmarks(landmarker, frames)
        seen = ~np.isnan(np.array(points)[:, 0, 0])
        filled, _ = align.fill_gaps(np.nan_to_num(np.array(points)), seen)
        transform = align.transforms(filled[:, tracks.OF_STABLE])
        aligned = align.apply(transform, filled)
        source = align.to_source(transform, align.corners(aligned[:, tracks.OF_MOUTH]))
        mouth = np.stack([align.crop(frame, source[i]) for i, frame in enumerate(frames)])
        sound = decode_sound(row.path, video.start_s, len(frames))
        flags = np.full(len(frames), 0b10111, np.uint8) | voice.frames(sound.samples).astype(np.uint8) << 3
        shapes = np.array(scores, np.float32)
        clip = teachers.ClipMedia(
            row.id,
            sound.samples,
            mouth,
            (aligned[:, tracks.OF_LIPS] - align.MEAN_MOUTH).astype(np.float32),
            shapes,
            flags,
        )
        group = store.create_group(str(k))
        arrays = {"mouth": mouth, "audio": sound.samples, "asr": whisper.embed([clip])[0], "vsr": lips.embed([clip])[0]}
        for name, values in arrays.items():
            group.create_array(name, data=values)
    spent = time.perf_counter() - begun
    landmarker.close()
    return spent


def landmarks(landmarker: Any, frames: list[np.ndarray]) -> tuple[list[np.ndarray], list[list[float]]]:
    """Points f8 [65, 2] of the face in each frame, in pixels (NaN without a face), and its 52 blendshapes."""
    from teachers.face import tracks
    from teachers.face.landmarker import image

    points, scores = [], []
    for frame in frames:
        found = landmarker.detect(image(frame))
        marks = (
            np.array([(p.x, p.y) for p in found.face_landmarks[0]])
            if found.face_landmarks
            else np.full((478, 2), np.nan)
        )
        points.append(marks[tracks.POINTS] * frame.shape[1::-1] - 0.5)
        scores.append([c.score for c in found.face_blendshapes[0]] if found.face_blendshapes else [0.0] * 52)
    return points, scores


def pipeline(corpus: str, count: int, workers: int, folder: Path) -> tuple[float, dict]:
    """Seconds of a whole run with that many workers a stage, and its report."""
    path = folder / f"{workers}.zarr"
    command = [
        sys.executable,
        str(ROOT / "precompute.py"),
        "--corpus",
        corpus,
        "--limit",
        str(count),
        "--store",
        str(path),
    ]
    for stage in ("face", "asr", "vsr"):
        command += [f"--{stage}-workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RAY_ADDRESS", None)
    begun = time.perf_counter()
    run = subprocess.run([*command, "--similarity", "cca"], capture_output=True, text=True, cwd=ROOT, env=environment)
    if run.returncode:
        raise click.ClickException(run.stderr[-2000:])
    return time.perf_counter() - begun, json.loads((path / "report.json").read_text())


@click.command(epilog="Example: python -m benchmarks precompute --corpus grid:/data/grid_s1")
@click.option("--corpus", required=True, metavar="KIND:ROOT")
@click.option("--clips", default=300, show_default=True, help="For the pipeline.")
@click.option("--naive", "num_naive", default=30, show_default=True, help="Clips for the naive loop.")
def main(corpus: str, clips: int, num_naive: int) -> None:
    """Print the table."""
    click.echo(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {clips} clips ({num_naive} for the naive loop)"
    )
    click.echo(
        f"{'':12} {'clips/s':>8} {'ratio':>6} {'working':>8} {'ratio':>6}   ms a frame (utilisation): face, asr, vsr"
    )
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        folder = Path(name)
        slow = num_naive / naive(corpus, num_naive, folder)
        click.echo(f"{'naive loop':12} {slow:8.2f} {1:6.1f} {slow:8.2f} {1:6.1f}")
        for workers in (1, 2):
            spent, report = pipeline(corpus, clips, workers, folder)
            stages = report["stages"]
            face = stages["face"]
            rate = clips / (face["present_s"] / face["workers"])
            each = ", ".join(f"{s['ms_a_frame']:.2f} ({s['utilisation']:.0%})" for s in stages.values())
            label = f"{workers} worker" + "s" * (workers > 1)
            click.echo(
                f"{label:12} {clips / spent:8.2f} {clips / spent / slow:6.1f} {rate:8.2f} {rate / slow:6.1f}   {each}"
            )
