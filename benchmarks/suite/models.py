"""Every teacher on the same clips in turns, and training steps beside the loader that feeds them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import teachers
from benchmarks.parts import Row
from benchmarks.speed.step import large_teachers
from benchmarks.speed.teachers import PAIR, SHORT, clip
from concord import extras
from concord.frames import FPS
from teachers import Teacher

FIRST = PAIR[0]


def every(num_clips: int, rounds: int, large: bool, threads: int) -> Iterator[Row]:
    """A row for each teacher: frames a second, as seconds of video a second, and its speed beside the default sound teacher's.

    With `large` also networks of published sizes with random weights: Whisper base, AV-HuBERT LARGE, deep_avsr's pair.
    """
    torch.set_num_threads(threads)
    extras.need("predict", "whisper")
    with tempfile.TemporaryDirectory(prefix="teachers-") as folder:
        found = {name: teachers.load(name) for name in (*PAIR, "lips", "blendshapes")}
        if large:
            found |= random_ones(Path(folder))
        clips = [clip(SHORT, seed) for seed in range(num_clips)]
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
        for turn in range(rounds + 1):
            for name, teacher in found.items():
                clock, processor = time.perf_counter(), time.process_time()
                teacher.embed(clips)
                if turn:
                    spent[name].append((time.perf_counter() - clock, time.process_time() - processor))
    frames = num_clips * SHORT
    for name, values in spent.items():
        rates = [frames / clock for clock, _ in values]
        ratios = [first[1] / own[1] for own, first in zip(values, spent[FIRST], strict=True)]
        yield Row(
            name,
            {
                "frames/s": statistics.median(rates),
                "least": min(rates),
                "most": max(rates),
                "x real time": statistics.median(rates) / FPS,
                "CPU ms/frame": 1000 * statistics.median(processor for _, processor in values) / frames,
                f"x {FIRST}": statistics.median(ratios),
            },
        )


def random_ones(folder: Path) -> dict[str, Teacher]:
    """Teachers whose weights are not in packages, in their published sizes, with random weights."""
    from teachers.deep_avsr.transformer import AudioNet, VideoNet
    from teachers.deep_avsr.visual_frontend import VisualFrontend

    whisper, avhubert = large_teachers(folder)
    networks = {"audio.pt": AudioNet(), "video.pt": VideoNet(), "front.pt": VisualFrontend()}
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / name)
    return {
        "whisper base, random weights": whisper,
        "avhubert LARGE, random weights": avhubert,
        "deep_avsr-audio, random weights": teachers.load(f"deep_avsr-audio:{folder / 'audio.pt'}"),
        "deep_avsr-video, random weights": teachers.load(
            f"deep_avsr-video:{folder / 'video.pt'},{folder / 'front.pt'}"
        ),
    }
