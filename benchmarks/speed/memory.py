"""Peak memory of precompute and predict: it must not grow with the corpus, nor with the length of a video.

    python -m benchmarks memory --corpus grid:/data/grid_s1                  # few clips and many
    python -m benchmarks memory --clip /data/grid_s1/clips/bbaf2n.mp4        # videos of 1, 10 and 60 minutes

The videos are the clip's packets again and again, with later time stamps: made in seconds, and decoded like any other. One more
has four pictures, each displayed for minutes: a small file, long by its time stamps.

Of each process the highest memory of its own is shown (anonymous and shared pages; not those of files, which the system may
drop), four times a second. Workers are Ray's processes; children do their dangerous work (`pipelines.workers.isolation`). For a
corpus, and in the last column, the memory of all is added up: RSS counts what processes share for each of them, PSS once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import click
import psutil

ROOT = Path(__file__).parents[2]
EVERY_S = 0.25
MB = 1e6
PICTURES, PICTURES_S = 4, 600
UNDECIDED = 3  # predict's exit code where the calibration does not cover the video
# Bytes a frame of what an answer holds: mouth, sound, lips and blendshapes (f4), flags; embeddings come on top.
HOLDS = {"mouth": 96 * 96, "sound": 1280, "lips": 320, "blendshapes": 208, "flags": 1}


@dataclass
class Peaks:
    """What a command took: RSS and PSS of all its processes in bytes, seconds, and the most of one process by its role."""

    rss: float = 0.0
    pss: float = 0.0
    seconds: float = 0.0
    own: dict[str, float] = field(default_factory=dict)


def measured(command: Sequence[str]) -> Peaks:
    """Peaks of a command and all that it starts; raises where it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_worker_niceness": "0"}
    environment.pop("RAY_ADDRESS", None)
    begun, found = time.monotonic(), Peaks()
    with tempfile.TemporaryFile() as log:
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        root = psutil.Process(run.pid)
        while run.poll() is None:
            rss = pss = 0.0
            for process in [root, *root.children(recursive=True)]:
                try:
                    full, role = process.memory_full_info(), _role(process, root)
                    own = _own(process.pid)
                except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError):
                    continue  # it ended meanwhile
                rss, pss = rss + full.rss, pss + full.pss
                found.own[role] = max(found.own.get(role, 0.0), own)
            found.rss, found.pss = max(found.rss, rss), max(found.pss, pss)
            time.sleep(EVERY_S)
        if run.returncode not in (0, UNDECIDED):
            log.seek(0)
            raise click.ClickException(log.read().decode(errors="replace")[-2000:])
    found.seconds = time.monotonic() - begun
    return found


def _role(process: psutil.Process, root: psutil.Process) -> str:
    """driver, child or worker; "" for Ray's own servants."""
    if process.pid == root.pid:
        return "driver"
    words = process.cmdline()
    if any("isolation import _serve" in word for word in words):
        return "child"
    return "worker" if words and words[0].startswith("ray::") else ""


def _own(pid: int) -> float:
    """Bytes of a process's memory that do not belong to files."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = (status.partition(f"{name}:")[2].split() for name in ("RssAnon", "RssShmem"))
    return 1024.0 * sum(int(words[0]) for words in found if words)  # one that has ended has none


def looped(clip: Path, file: Path, seconds: int) -> Path:
    """A video of about that many seconds: the clip's packets repeated, nothing is encoded again."""
    with av.open(str(clip)) as source, av.open(str(file), "w") as out:
        streams = [source.streams.video[0], source.streams.audio[0]]
        copies = {stream.index: out.add_stream_from_template(stream) for stream in streams}
        packets = [packet for packet in source.demux(*streams) if packet.size and packet.dts is not None]
        span = max((p.pts + p.duration) * p.time_base for p in packets if p.stream is streams[0])
        last: dict[int, int] = {}
        for turn in range(max(1, int(seconds / span))):
            for packet in packets:
                index, late = packet.stream.index, int(turn * span / packet.time_base)
                if packet.dts + late > last.get(index, -(1 << 62)):  # sound overlaps its next turn by some milliseconds
                    last[index] = packet.dts + late
                    again = av.Packet(bytes(packet))
                    again.stream, again.time_base = copies[index], packet.time_base
                    again.pts, again.dts = packet.pts + late, packet.dts + late
                    again.duration, again.is_keyframe = packet.duration, packet.is_keyframe
                    out.mux(again)
    return file


def pictures(clip: Path, file: Path, seconds: int = PICTURES_S, count: int = PICTURES) -> Path:
    """A video of some pictures of the clip, which stay on display for that many seconds; the clip's sound comes first."""
    base = Fraction(1, 1000)
    with av.open(str(clip)) as source:
        frames = list(source.decode(video=0))
    with av.open(str(clip)) as source:
        resampler = av.AudioResampler("s16", "mono", 16_000)
        sound = [piece for frame in source.decode(audio=0) for piece in resampler.resample(frame)]
    with av.open(str(file), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        video.codec_context.time_base = base
        voice = out.add_stream("aac", rate=16_000, layout="mono")
        for k in range(count):
            frame = frames[k * len(frames) // count].reformat(format="yuv420p")
            frame.pts, frame.time_base, frame.pict_type = round(1000 * k * seconds / (count - 1)), base, 0
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        at = 0
        for piece in sound:
            piece.pts, at = at, at + piece.samples
            out.mux(voice.encode(piece))
        out.mux(voice.encode(None))
    return file


def videos(clip: Path, minutes: Sequence[int], folder: Path) -> Iterator[tuple[str, float, Path]]:
    """(name, minutes, file) of each."""
    for count in minutes:
        yield f"{count} min", count, looped(clip, folder / f"minutes{count}.mkv", 60 * count)
    yield f"{PICTURES} pictures, {PICTURES_S // 60} min", PICTURES_S / 60, pictures(clip, folder / "pictures.mp4")


def table(clip: Path, minutes: Sequence[int], commands: Sequence[str]) -> None:
    """Print peaks for each video and command, and how they grow from the first to the last length."""
    click.echo(f"an answer holds {sum(HOLDS.values()) * 1500 / MB:.1f} MB a minute, and the embeddings")
    click.echo(f"{'':26}{'driver':>8}{'child':>8}{'worker':>8}{'all':>8}  MB{'s':>7}")
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        for command in commands:
            seen: list[tuple[float, Peaks]] = []
            for title, length, file in videos(clip, minutes, folder):
                found = measured(_command(command, file, folder))
                own = "".join(f"{found.own.get(role, 0) / MB:8.0f}" for role in ("driver", "child", "worker"))
                click.echo(f"{command:11}{title:>15}{own}{found.pss / MB:8.0f}{found.seconds:11.0f}")
                if "pictures" not in title:
                    seen.append((length, found))
            (first, a), (last, b) = seen[0], seen[-1]
            if last > first:
                grown = "".join(
                    f"{(b.own.get(role, 0) - a.own.get(role, 0)) / MB / (last - first):8.1f}"
                    for role in ("driver", "child", "worker")
                )
                click.echo(f"{'':11}{'a minute more':>15}{grown}{(b.pss - a.pss) / MB / (last - first):8.1f}")


def _command(name: str, file: Path, folder: Path) -> list[str]:
    if name == "predict":
        return [sys.executable, "-m", "student.predict", str(file), "--teacher-only", "--no-words"]
    rows, stored = folder / "rows.csv", folder / f"{file.name}.zarr"
    rows.write_text(f"path,label\n{file},0\n")
    return [
        sys.executable,
        str(ROOT / "precompute.py"),
        "--corpus",
        f"csv:{rows}",
        "--similarity",
        "cca",
        "--store",
        str(stored),
    ]


@click.command(epilog="Example: python -m benchmarks memory --corpus grid:/data/grid_s1")
@click.option("--corpus", metavar="KIND:ROOT", help="Precompute --clips of it.")
@click.option("--clips", "counts", multiple=True, type=int, default=(150, 600), show_default=True)
@click.option("--clip", type=click.Path(exists=True, path_type=Path), help="Make long videos of it.")
@click.option("--minutes", multiple=True, type=int, default=(1, 10, 60), show_default=True)
@click.option(
    "--command",
    "commands",
    multiple=True,
    type=click.Choice(["predict", "precompute"]),
    default=("predict", "precompute"),
)
def main(
    corpus: str | None, counts: tuple[int, ...], clip: Path | None, minutes: tuple[int, ...], commands: tuple[str, ...]
) -> None:
    """Print peaks and how they grow."""
    if not corpus and not clip:
        raise click.UsageError("give --corpus KIND:ROOT, or --clip VIDEO")
    first = None
    for count in counts if corpus else ():
        with tempfile.TemporaryDirectory(prefix="memory-") as folder:
            command = [sys.executable, str(ROOT / "precompute.py"), "--corpus", str(corpus), "--limit", str(count)]
            found = measured([*command, "--similarity", "cca", "--store", str(Path(folder) / "s.zarr")])
        first = first or found
        click.echo(
            f"{count:6d} clips: peak RSS {found.rss / 2**30:.2f} GiB ({found.rss / first.rss:.2f} of the first), PSS "
            f"{found.pss / 2**30:.2f} GiB ({found.pss / first.pss:.2f}), {found.seconds:.0f} s"
        )
    if clip:
        table(clip, minutes, commands)
