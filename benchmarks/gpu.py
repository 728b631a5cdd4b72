"""What a GPU does with teachers and students, in ten minutes: agreement with the CPU, speed, memory, loader against step.

    python -m benchmarks.gpu --json gpu.json                # on a machine with a GPU
    python -m benchmarks.gpu --device cpu --quick           # a rehearsal with small networks, under a minute

All arrays are random and all networks have random weights: no decoding, no Ray, no corpus, no network. Whisper and
AV-HuBERT have the shapes of the published ones. Each part runs in a process of its own within its share of --minutes, so a
part that fails or hangs is a line in the table; the JSON file is written anew after every row.

max apart, mean apart: of a network's rows from those of single precision on the CPU, relative to the largest and the mean
size. of ceiling: operations a second, as a share of a large matrix product's in the same precision on the same device.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks import parts
from benchmarks.parts import Part, Result, Row
from concord.command import Command, json_option, put, say
from concord.errors import ConcordError
from concord.files import write

PRELOAD = ("benchmarks.device.loading", "student.models.lite", "student.models.talknet")  # torch, above all
NAMES = ("products", "whisper", "avhubert", "students", "training", "loader")


class NoDevice(ConcordError):
    """The device that was asked for is not there."""


def plan(device: str, quick: bool, clips: int) -> list[Part]:
    """The parts, in the order of what is most wanted."""
    from benchmarks.device import forward, loading, training

    work = forward.Work(2, 10, 1, 256) if quick else forward.Work(clips, 75, 10, 8192)
    students = ["lite", "lite with texture", "talknet"]
    whisper, avhubert = (["rehearsal"], ["rehearsal"]) if quick else (["large", "medium"], ["large"])
    steps = forward.Work(2, 12, 1, 256) if quick else work
    readers = [0] if quick else [0, 4, 12]
    on: dict[str, Any] = {"device": device}
    made = [
        ("products", "Matrix products", forward.products, {"sizes": [256] if quick else [4096, 8192, 16384]}, 0.5),
        ("whisper", "Whisper's encoder", forward.teachers, {"kind": "whisper", "sizes": whisper, "work": work}, 1.5),
        ("avhubert", "AV-HuBERT on lips", forward.teachers, {"kind": "avhubert", "sizes": avhubert, "work": work}, 1.5),
        ("students", "Students, scoring", forward.students, {"names": students, "work": work}, 1.0),
        ("training", "Training steps", training.steps,
         {"names": students, "windows": [2] if quick else [8, 64], "work": steps}, 1.5),
        ("loader", "Loader against step", loading.rows,
         {"names": ["lite"] if quick else ["lite", "talknet"], "windows": 4 if quick else 64, "workers": readers,
          "store_rows": 8_400 if quick else 84_000}, 2.0),
    ]  # fmt: skip
    return [Part(name, title, function, {**on, **options}, share) for name, title, function, options, share in made]


def about(device: str) -> dict[str, Any]:
    """The machine, its device, and the versions that count."""
    import numpy
    import torch

    found = {**parts.machine(), "device": device, "torch": torch.__version__, "numpy": numpy.__version__}
    if device == "cuda":
        made = torch.cuda.get_device_properties(0)
        found |= {"gpu": made.name, "gpu_gib": round(made.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return found


@click.command(
    cls=Command,
    epilog="\b\nExample:\n  python -m benchmarks.gpu --json gpu.json\n"
    "Exit codes: 0 every part was measured; 3 some were not, and the table says why; 2 no such device.",
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--quick", is_flag=True, help="Small networks and few rounds: a rehearsal.")
@click.option("--minutes", type=click.FloatRange(0.01), default=8.0, show_default=True, help="For all parts together.")
@click.option(
    "--clips", type=click.IntRange(2), default=32, show_default=True, help="Of 3 s, in one pass; not with --quick."
)
@click.option("--part", "chosen", multiple=True, type=click.Choice(NAMES), help="Only this one; may be repeated.")
@json_option("Write every figure as JSON, anew after each row.")
def main(device: str, quick: bool, minutes: float, clips: int, chosen: tuple[str, ...], json_file: Path | None) -> None:
    """Measure teachers, students, training and loading on a device, against single precision on the CPU."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise NoDevice(
            "torch sees no CUDA device here; `concord doctor` says why, --device cpu --quick rehearses the run"
        )
    head = {"command": sys.argv[1:], "machine": about(device), "quick": quick}

    def watch(results: list[Result], row: Row | None) -> None:
        result = results[-1]
        say(f"{result.name}: {row.name}" if row else f"{result.name}: {result.ended or 'done'}", err=True)
        if json_file and str(json_file) != "-":
            write(json_file, _json(head, results))

    wanted = [part for part in plan(device, quick, clips) if not chosen or part.name in chosen]
    if quick:
        os.environ["OMP_NUM_THREADS"] = "1"  # threads of small networks wait for each other, on a busy machine for long
    results = parts.run(wanted, minutes, PRELOAD, watch)
    if str(json_file) == "-":
        put(_json(head, results).decode().rstrip("\n"))
    else:
        put(", ".join(f"{key} {value}" for key, value in head["machine"].items()) + "\n")
        put(parts.table(results))
    sys.exit(3 if parts.failed(results) else 0)


def _json(head: dict[str, Any], results: list[Result]) -> bytes:
    from concord.plain_json import cleaned

    return (json.dumps(cleaned(parts.document("gpu", head, results)), indent=2) + "\n").encode()


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.gpu")
