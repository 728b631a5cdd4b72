"""Damaged inputs: real clips with bits flipped, cut short, overwritten, renamed, rewrapped; none may affect other clips.

    python -m benchmarks damaged --clips /data/grid_s1/clips --count 200

Makes the files (the same for the same seed), runs precompute over them, and checks that every one ends either done or
in the ledger with a reason and a sentence, and that nothing crashed. Prints the outcome for each kind of damage. Exit
code 1 otherwise.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import click
import numpy as np

import store
from pipelines.tables import ledger

ROOT = Path(__file__).parents[2]
Damage = Callable[[bytes, np.random.Generator], bytes]
CONTAINERS = {  # suffix: container and codecs
    ".mkv": ("matroska", "mpeg4", "aac"),
    ".mov": ("mov", "mpeg4", "aac"),
    ".avi": ("avi", "mpeg4", "mp2"),
    ".mpg": ("mpeg", "mpeg1video", "mp2"),
    ".ts": ("mpegts", "mpeg2video", "mp2"),
}


def flipped(data: bytes, dice: np.random.Generator) -> bytes:
    """Single bits turned over, from one to a thousand of them, anywhere."""
    out = np.frombuffer(data, np.uint8).copy()
    count = int(10 ** dice.uniform(0, 3))
    at = dice.integers(0, len(out), count)
    out[at] ^= np.uint8(1) << dice.integers(0, 8, count).astype(np.uint8)
    return out.tobytes()


def flipped_in_front(data: bytes, dice: np.random.Generator) -> bytes:
    """Bits turned over in the first two kilobytes, where headers are."""
    return flipped(data[:2048], dice) + data[2048:]


def cut(data: bytes, dice: np.random.Generator) -> bytes:
    """The beginning alone."""
    return data[: int(dice.integers(1, len(data)))]


def headless(data: bytes, dice: np.random.Generator) -> bytes:
    """The end alone."""
    return data[int(dice.integers(1, len(data))) :]


def blanked(data: bytes, dice: np.random.Generator) -> bytes:
    """A stretch of zeros, as a hole in a sparse download."""
    start, stop = sorted(dice.integers(0, len(data), 2).tolist())
    return data[:start] + bytes(stop - start) + data[stop:]


def noised(data: bytes, dice: np.random.Generator) -> bytes:
    """A stretch of noise."""
    start = int(dice.integers(0, len(data)))
    return data[:start] + dice.bytes(min(len(data) - start, 4096)) + data[start + 4096 :]


def doubled(data: bytes, dice: np.random.Generator) -> bytes:
    """A stretch written twice, which moves all that follows."""
    start, stop = sorted(dice.integers(0, len(data), 2).tolist())
    return data[:stop] + data[start:]


def swapped(data: bytes, dice: np.random.Generator) -> bytes:
    """Two parts in the wrong order."""
    at = int(dice.integers(1, len(data)))
    return data[at:] + data[:at]


def whole(data: bytes, dice: np.random.Generator) -> bytes:
    """Nothing wrong but the name."""
    return data


def junk(data: bytes, dice: np.random.Generator) -> bytes:
    """Something else under a video's name: noise, text, a picture, an archive, nothing."""
    magic = [b"", b"#EXTM3U\n", b"<html>", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffAVI LIST"]
    return magic[int(dice.integers(len(magic)))] + dice.bytes(int(dice.integers(0, 5000)))


KINDS: tuple[Damage, ...] = (
    flipped,
    flipped_in_front,
    cut,
    headless,
    blanked,
    noised,
    doubled,
    swapped,
    whole,
    junk,
)


def build(folder: Path, clips: list[Path], count: int, seed: int) -> dict[str, str]:
    """Fill `folder/real` with damaged files; {file name: kind of damage}."""
    (folder / "real").mkdir(parents=True)
    made = {}
    for k in range(count):
        dice = np.random.default_rng([seed, k])
        damage = KINDS[k % len(KINDS)]
        source = clips[int(dice.integers(len(clips)))]
        suffix = str(dice.choice([source.suffix, *CONTAINERS]))
        data = source.read_bytes()
        if damage is not whole and suffix in CONTAINERS:  # `whole` keeps the container that its new name belies
            data = rewrapped(source, *CONTAINERS[suffix])
        name = f"{k:03d}_{damage.__name__}{suffix}"
        (folder / "real" / name).write_bytes(damage(data, dice))
        made[name] = damage.__name__
    return made


def rewrapped(source: Path, container: str, picture: str, sound: str) -> bytes:
    """The clip in another container, in other codecs."""
    with tempfile.NamedTemporaryFile(suffix=".out") as target:
        with av.open(str(source)) as old, av.open(target.name, "w", format=container) as new:
            video, audio = new.add_stream(picture, rate=25), new.add_stream(sound, rate=44100)
            first = old.streams.video[0]
            video.width, video.height, video.pix_fmt = first.width, first.height, "yuv420p"
            audio.layout = "mono"
            resampler = av.AudioResampler(audio.format.name, "mono", 44100, frame_size=1152 if sound == "mp2" else 1024)
            for frame in old.decode(video=0, audio=0):
                if isinstance(frame, av.VideoFrame):
                    frame.pict_type = av.video.frame.PictureType.NONE
                    new.mux(video.encode(frame))
                else:
                    new.mux([packet for block in resampler.resample(frame) for packet in audio.encode(block)])
            new.mux([*video.encode(), *audio.encode()])
        return Path(target.name).read_bytes()


@click.command(epilog="Example: python -m benchmarks damaged --clips /data/grid_s1/clips --count 200")
@click.option("--clips", "source", required=True, type=click.Path(exists=True, path_type=Path), help="Folder of clips.")
@click.option("--count", default=200, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where files and store go.  [default: a temporary folder]"
)
def main(source: Path, count: int, seed: int, folder: Path | None) -> None:
    """Make damaged files, run precompute over them, and check the outcome of each."""
    folder = folder or Path(tempfile.mkdtemp(prefix="damaged-"))
    clips = sorted(p for p in source.iterdir() if p.suffix in (".mp4", ".mpg"))
    made = build(folder / "corpus", clips, count, seed)
    path = folder / "s.zarr"
    command = [
        sys.executable,
        str(ROOT / "precompute.py"),
        "--corpus",
        f"folder:{folder / 'corpus'}",
        "--store",
        str(path),
    ]
    command += ["--similarity", "cca", "--clip-timeout", "60"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    (folder / "log").write_text(run.stdout + run.stderr)
    found = faults_of(path, made, run)
    entries = {Path(e.path).name: e for e in ledger.read(path).values()}
    outcome = Counter((made[name], e.reason or "done") for name, e in entries.items() if name in made)
    for kind in dict.fromkeys(made.values()):
        listed = ", ".join(f"{n} {reason}" for (of, reason), n in sorted(outcome.items()) if of == kind)
        click.echo(f"{kind:>16}: {listed}")
    for line in found:
        click.echo(line)
    click.echo(f"{len(made)} files, {len(found)} faults, exit code {run.returncode}; {folder}")
    sys.exit(1 if found else 0)


def faults_of(path: Path, made: dict[str, str], run: subprocess.CompletedProcess) -> list[str]:
    """The violations of these rules."""
    if run.returncode not in (0, 3):
        return [f"exit code {run.returncode}: {run.stderr[-500:]}"]
    entries = {Path(e.path).name: e for e in ledger.read(path).values()}
    reader = store.open(path)
    done = {Path(p).name: bool(d) for p, d in zip(reader.clips["path"], reader.clips["done"], strict=True)}
    found = [f"{name}: no ledger row" for name in made if name not in entries]
    found += [f"{name}: failed without a sentence" for name, e in entries.items() if e.reason and not e.message]
    found += [
        f"{name}: {e.reason}: {e.message}" for name, e in entries.items() if e.reason in ("error", "crash", "timeout")
    ]
    found += [
        f"{name}: done is {done[name]}, the ledger says {e.reason!r}"
        for name, e in entries.items()
        if done[name] == bool(e.reason)
    ]
    if "Traceback" in run.stderr:
        found.append("a traceback was printed")
    return found
