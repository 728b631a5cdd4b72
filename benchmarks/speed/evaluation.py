"""Scoring the trials of an evaluation: what two streams have in common computed once, against each trial for itself.

    python -m benchmarks evaluation --store grid.zarr
    python -m benchmarks evaluation --store wild.zarr --checkpoint runs/news --clips 50

The same clips and made pairs are scored in both ways in one process in turns, A B A B. "each for itself": a forward pass
of the student for every window of every trial, and the teachers' agreement from a reading and a comparison for each
offset. "shared": as `student.evaluate` does it (`student.scoring.shared`). Ratios are by processor time, round by round.
The last column says how far apart the two ways' results are.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch

import store
from store.dataset.spans import spans
from store.layout import VOICE_ACTIVE, evident, labelled
from store.similarity import MAX_OFFSET, NEIGHBOURS, calibration_line, scores, shifted
from student.checkpoint import load_model
from student.models import build
from student.scoring import score

Scores = Callable[[], np.ndarray]


def forward_passes(model: torch.nn.Module, reader: store.Reader, items: list[score.Trial], window: int) -> np.ndarray:
    """Clip logits [n] by a forward pass for every window."""
    jobs = [(k, a, b) for k, item in enumerate(items) for a, b in score.windows(item.length, window)]
    total, frames = np.zeros((2, len(items)))
    for first in range(0, len(jobs), 16):
        part = jobs[first : first + 16]
        values = score.forward(model, reader, [(items[k], a, b) for k, a, b in part], torch.device("cpu"), "mouth")
        for value, (k, a, b) in zip(values, part, strict=True):
            total[k] += value * (b - a)
            frames[k] += b - a
    return total / frames


def one_by_one(reader: store.Reader, items: list[score.Trial]) -> np.ndarray:
    """What `score.teacher_scores` gives, f8 [4, n], each trial read twice and each offset compared by itself."""
    fit, out = reader.fit, np.full((4, len(items)), np.nan)
    assert fit is not None
    for k, item in enumerate(items):
        for turn in range(2):
            lips = reader.frames(item.lips, item.lips_start, item.lips_start + item.length, score.PROJECTED)
            sound = reader.frames(item.sound, item.sound_start, item.sound_start + item.length, score.PROJECTED)
            vsr, asr = lips["vsr_projection"], sound["asr_projection"]
            if turn == 0:
                slope, intercept = calibration_line(fit, "clip", str(reader.clips["corpus"][item.lips]))
                agreement = scores(vsr, asr, fit, "clip", labelled(lips["flags"], sound["flags"]))[0]
                out[0, k] = -(slope * float(agreement) + intercept)
                continue
            face, voice = evident(lips["flags"]), sound["flags"] & VOICE_ACTIVE > 0
            found: dict[int, float] = {}
            for shift in sorted(range(-MAX_OFFSET, MAX_OFFSET + 1), key=abs):
                a, b, _ = shifted(item.length, item.length, shift)
                mask = face[a] & voice[b]
                if mask.any():
                    found[shift] = float(scores(vsr[a][mask], asr[b][mask], fit, "clip")[0])
            if found:
                best = max(found, key=lambda shift: found[shift])
                rivals = [value for shift, value in found.items() if abs(shift - best) > NEIGHBOURS]
                out[1:, k] = -found[best], max(rivals, default=np.nan) - found[best], best
    return out


@click.command(epilog="Example: python -m benchmarks evaluation --store grid.zarr --clips 40")
@click.option("--store", "path", required=True, help="Store with a fit.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Run to score with. Default: an untrained lite.")
@click.option("--clips", default=40, show_default=True, help="Labelled clips that are scored, drawn by seed 0.")
@click.option("--rounds", default=3, show_default=True)
def main(path: str, checkpoint: Path | None, clips: int, rounds: int) -> None:
    """Print ratios of processor time, each for itself over shared, with versions and sizes."""
    torch.set_num_threads(1)
    reader = store.open(path)
    if reader.fit is None:
        raise click.UsageError(f"{path} has no fit")
    torch.manual_seed(0)
    model, window, trim = build("lite"), 75, "leading"
    if checkpoint:
        model, header = load_model(checkpoint)
        window, trim = header.window, header.trim
    model.eval()
    usable = np.flatnonzero((np.asarray(reader.clips["done"]) == 1) & np.isin(reader.clips["label"], (0, 1)))
    rows = np.sort(np.random.default_rng(0).permutation(usable)[:clips])
    items = score.trials(reader, rows, spans(reader, rows, trim), 0)
    device = torch.device("cpu")

    @torch.no_grad()
    def student_before() -> np.ndarray:
        return forward_passes(model, reader, items, window)

    parts: dict[str, tuple[Scores, Scores]] = {
        "student": (student_before, lambda: score.logits(model, reader, items, window, device)),
        "teachers": (lambda: one_by_one(reader, items), lambda: score.teacher_scores(reader, items)),
    }
    spent: dict[str, list[list[float]]] = {name: [] for name in parts}
    apart: dict[str, float] = {}
    for done in range(rounds + 1):
        for name, ways in parts.items():
            seconds, results = [], []
            for way in ways:
                began = time.process_time()
                results.append(way())
                seconds.append(time.process_time() - began)
            apart[name] = float(np.nanmax(np.abs(results[0] - results[1])))
            if done:  # the first round only warms up
                spent[name].append(seconds)
    spent["together"] = [list(np.add(a, b)) for a, b in zip(spent["student"], spent["teachers"], strict=True)]
    print(
        f"{len(rows)} clips, {len(items)} trials of {sum(t.length for t in items) / len(items):.0f} frames, windows of "
        f"{window}; {rounds} rounds; torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores, one thread"
    )
    print("| | each for itself / shared | range | seconds each for itself, shared | apart |\n|---|--:|--:|--:|--:|")
    for name, pairs in spent.items():
        ratios = [a / b for a, b in pairs]
        middle = [statistics.median(column) for column in zip(*pairs, strict=True)]
        far = f"{apart[name]:.1e}" if name in apart else ""
        print(
            f"| {name} | {statistics.median(ratios):.2f} | {min(ratios):.2f}-{max(ratios):.2f} | {middle[0]:.2f}, "
            f"{middle[1]:.2f} | {far} |"
        )


if __name__ == "__main__":
    main()
