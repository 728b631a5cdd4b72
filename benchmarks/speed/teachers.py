"""Speed of teachers, and the gain from trimmed sound: ratios measured in one run, A B A B.

    python -m benchmarks teachers
    python -m benchmarks teachers --teacher avhubert:base_vox_433h.pt --teacher avhubert-audio:base_vox_433h.pt --short 4

First whisper against whisper-exact on 3-second clips; then each teacher on 3-second clips and on one of 10 seconds, in turns.
Clips are noise: no teacher's cost depends on the content. Decoding and the face stage are not part of it.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib.metadata import version

import click
import numpy as np
import torch

import teachers
from teachers import ClipMedia, Teacher

FPS = 25
SHORT, LONG = 75, 250  # frames
PAIR = ("whisper:tiny.en@3", "whisper-exact:tiny.en@3")


def clip(frames: int, seed: int) -> ClipMedia:
    """Noise of that many frames."""
    draw = np.random.default_rng(seed)
    return ClipMedia(
        f"noise {seed}",
        draw.normal(0, 3000, 640 * frames).astype(np.int16),
        draw.integers(0, 256, (frames, 96, 96), np.uint8),
        draw.normal(0, 9, (frames, 40, 2)).astype(np.float32),
        draw.random((frames, 52)).astype(np.float32),
        np.full(frames, 0b11101, np.uint8),
    )


def seconds(teacher: Teacher, clips: list[ClipMedia]) -> float:
    """Of one pass."""
    begun = time.perf_counter()
    teacher.embed(clips)
    return time.perf_counter() - begun


@click.command(epilog="Example: python -m benchmarks teachers")
@click.option(
    "--teacher", "names", multiple=True, help="Teacher to time beside the packaged ones; may be given several times."
)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Passes of each; median and range are printed.")
@click.option("--short", "num_short", default=32, show_default=True, help="Number of 3-second clips.")
def main(names: tuple[str, ...], threads: int, rounds: int, num_short: int) -> None:
    """Print the table."""
    torch.set_num_threads(threads)
    short, long = [clip(SHORT, seed) for seed in range(num_short)], [clip(LONG, 99)]
    pair = [teachers.load(name) for name in PAIR]
    for teacher in pair:
        teacher.embed(short[:2])
    spent = [[seconds(teacher, short) for teacher in pair] for _ in range(rounds)]
    ratios = sorted(exact / trimmed for trimmed, exact in spent)
    trimmed, exact = (num_short / statistics.median(s) for s in zip(*spent, strict=True))
    click.echo(
        f"trimmed against padded sound, {num_short} clips of 3 s: {statistics.median(ratios):.1f} times as many clips a second "
        f"({ratios[0]:.1f} to {ratios[-1]:.1f}); {trimmed:.1f} and {exact:.1f} clips/s"
    )
    every = [*pair, *(teachers.load(name) for name in ("lips", "blendshapes", *names))]
    given = {"3 s": short, "10 s": long}
    rates: dict[tuple[str, str], list[float]] = {(teacher.name, what): [] for teacher in every for what in given}
    for k in range(rounds + 1):
        for teacher in every:
            for what, clips in given.items():
                rate = sum(one.num_frames for one in clips) / seconds(teacher, clips)
                if k:  # the first round warms up
                    rates[teacher.name, what].append(rate)
    for (name, what), found in rates.items():
        rate = statistics.median(found)
        click.echo(
            f"{name} on clips of {what}: {rate:.0f} frames/s ({min(found):.0f} to {max(found):.0f}), "
            f"{rate / FPS:.1f} x real time"
        )
    versions = ", ".join(
        f"{package} {version(package)}" for package in ("torch", "openai-whisper", "ve-fairseq", "numpy")
    )
    click.echo(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {threads} threads, {rounds} rounds; "
        f"Python {platform.python_version()}, {versions}"
    )
