"""Speed of the face stage with each backend, and distance of its points from MediaPipe's, measured in one run, A B A B.

    python -m benchmarks face
    python -m benchmarks face --clips /data/grid/clips --every 15 --rounds 20

Each backend has a process of its own, all on one core; they take turns. Times are processor time of all threads: first
the landmarker alone (open it, read each frame, ask for the blendshapes, close), then the whole stage
(FaceTracker.track). Decoding is not part of it. Ratios are to MediaPipe: the median of ratios round by round, and the
ratio of the shortest times, which other work on the machine disturbs least. Distances are of lip points to those of
MediaPipe's video mode; the last line compares MediaPipe with itself begun three frames later (the first 25 frames left
out), which shows how the loop amplifies tiny differences.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from teachers.face import backends
from teachers.face.reading import Backend
from teachers.face.tracker import LIPS, FaceTracker

CLIPS = Path(__file__).parents[2] / "tests" / "data" / "grid" / "clips"
REFERENCE = "mediapipe"
LATE = 3  # frames by which the other run of MediaPipe begins later
SETTLED = 25  # frames after which the two are compared

Faces = list[tuple[np.ndarray, np.ndarray] | None]  # by frame: points f4 [478, 2] in pixels, blendshapes f4 [52]


def frames_of(path: Path) -> np.ndarray:
    """u1 [frames, height, width, 3]."""
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read(backend: Backend, frames: np.ndarray) -> Faces:
    """The single face of each frame."""
    with backend.landmarker(1) as landmarker:
        found = [landmarker.read(frame, 40 * k) for k, frame in enumerate(frames)]
    size = frames.shape[2], frames.shape[1]
    return [(faces[0].points * size, faces[0].blendshapes()) if faces else None for faces in found]


def serve(pipe: Any, name: str, core: int, paths: list[Path]) -> None:
    """A backend's process: answers "landmarker" and "stage" with ms a frame, a path with its faces, None by ending."""
    os.sched_setaffinity(0, {core})
    begun = time.process_time()
    tracker = FaceTracker(backend=name)
    started = time.process_time() - begun
    backend = tracker._backend
    clip = frames_of(paths[0])
    work: dict[str, Callable[[], object]] = {
        "landmarker": lambda: read(backend, clip),
        "stage": lambda: tracker.track(clip),
    }
    for run in work.values():
        run()  # warms up
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    pipe.send((started, resident))
    while (order := pipe.recv()) is not None:
        if isinstance(order, str):
            begun = time.process_time()
            work[order]()
            pipe.send(1000 * (time.process_time() - begun) / len(clip))
        else:
            path, late = order
            pipe.send(read(backend, frames_of(path)[late:]))


def distances(ours: Faces, theirs: Faces) -> tuple[list[float], list[float], list[float], int]:
    """Of each frame: mean and greatest distance of a lip point, greatest of a blendshape; and how many frames differ."""
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    lips = [np.abs(a[0] - b[0])[LIPS] for a, b in both]
    differ = sum((a is None) != (b is None) for a, b in zip(ours, theirs, strict=True))
    scores = [float(np.abs(a[1] - b[1]).max()) for a, b in both]
    return [float(one.mean()) for one in lips], [float(one.max()) for one in lips], scores, differ


@click.command(epilog="Example: python -m benchmarks face --rounds 5")
@click.option(
    "--clips", type=click.Path(path_type=Path, exists=True, file_okay=False), default=CLIPS, show_default=True
)
@click.option("--every", default=1, show_default=True, help="Compare points on every Nth clip; the first is timed.")
@click.option("--rounds", default=10, show_default=True, help="Turns of each backend.")
def main(clips: Path, every: int, rounds: int) -> None:
    """Print three tables."""
    paths = sorted(path for path in clips.iterdir() if path.suffix in {".mp4", ".mpg", ".mkv"})[::every]
    names = [REFERENCE, *(name for name in backends.installed() if name != REFERENCE)]
    core = max(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in names:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(theirs, name, core, paths), daemon=True))
        processes[-1].start()
    opened = {name: pipe.recv() for name, pipe in pipes.items()}

    def ask(name: str, order: object) -> Any:
        pipes[name].send(order)
        return pipes[name].recv()

    spent: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for what in ("landmarker", "stage"):
            for name in names:
                spent.setdefault((what, name), []).append(ask(name, what))
    click.echo(
        f"ms a frame, {rounds} rounds: median (least to most); times as fast as {REFERENCE}: median, by the least times"
    )
    for (what, name), times in spent.items():
        ratios = [a / b for a, b in zip(spent[what, REFERENCE], times, strict=True)]
        click.echo(
            f"  {what:10} {name:9} {statistics.median(times):5.2f} ({min(times):.2f} to {max(times):.2f})"
            f"   x {statistics.median(ratios):.2f}, {min(spent[what, REFERENCE]) / min(times):.2f}"
        )

    found: dict[str, list[tuple[list[float], list[float], list[float], int]]] = {}
    for path in paths:
        reference = ask(REFERENCE, (path, 0))
        for name in names[1:]:
            found.setdefault(name, []).append(distances(ask(name, (path, 0)), reference))
        late = ask(REFERENCE, (path, LATE))
        found.setdefault(f"{REFERENCE}, later", []).append(distances(late[SETTLED:], reference[SETTLED + LATE :]))
    click.echo(f"against {REFERENCE} in video mode, {len(paths)} clips: lip points in pixels, blendshapes from 0 to 1")
    for name, parts in found.items():
        means, most, scores = (np.concatenate([part[k] for part in parts]) for k in range(3))
        click.echo(
            f"  {name:16} {len(most)} frames; lips: mean {means.mean():.4f}, most {most.max():.3f}, 99.9 % of frames below "
            f"{np.quantile(most, 0.999):.3f}; blendshapes: most {scores.max():.4f}, 99.9 % below "
            f"{np.quantile(scores, 0.999):.4f}; seen by one alone: {sum(part[3] for part in parts)} frames"
        )
    click.echo("a process with it: seconds of processor time to open, MiB resident")
    for name, (seconds, resident) in opened.items():
        distribution = backends.BACKENDS[name][1]
        click.echo(f"  {name:9} {seconds:.2f} s, {resident:.0f} MiB ({distribution} {version(distribution)})")
    for name, process in zip(names, processes, strict=True):
        pipes[name].send(None)
        process.join()
    click.echo(
        f"{platform.processor() or platform.machine()}, core {core} of {os.cpu_count()}, Python {platform.python_version()}"
    )
