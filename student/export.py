"""A detector for other runtimes: `python -m student.export --checkpoint RUN --output detector.onnx`.

Inputs mouth u1 [batch, frames, 96, 96], audio i2 [batch, 640 frames], mask bool [batch, frames]; outputs visual and sound
(unit rows [batch, frames, width]), frame_logits [batch, frames], clip_logits [batch], positive = fake. Batch and frames are
free. Threshold, temperature, window and trim are in the file's metadata: P(fake) = sigmoid((clip_logit - threshold) /
temperature). The outputs of onnxruntime are compared with torch's before the file gets its name.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import contextlib
import io
import json
import logging
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from concord.command import Command, say
from concord.extras import install
from concord.files import named, replacing
from concord.text import byte_size
from store import output as outputs
from student.config import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from student.header import Header

INPUTS = ("mouth", "audio", "mask")
OUTPUTS = ("visual", "sound", "frame_logits", "clip_logits")
SIZES = ((1, 10), (1, 75), (3, 40))  # (batch, frames) of the comparison
CLOSE = 1e-4
ROUNDS = 5  # of the speed measurement
EXPORTED = ("lite", "lite-causal")
DETECTOR = outputs.marked(
    "an exported detector", b"\x08", b"concord-av\x12"
)  # of its metadata, the last part of the file
NEEDS = f"export needs the packages onnx, onnxscript and onnxruntime: {install('export')}"


@dataclass(frozen=True)
class Exported:
    """Facts on the written file: its size, the largest difference from torch of all outputs over SIZES (in units of an
    output's largest value if that is above 1), and frames per second of both on one thread."""

    bytes: int
    difference: float
    frames_per_second: float  # onnxruntime
    torch_frames_per_second: float


def export(checkpoint: Path, output: Path) -> Exported:
    """Write the ONNX file.

    Raises CheckpointError, ConfigError if onnxruntime and torch differ by more than CLOSE or a package is missing,
    output.Refused if `output` is an unrelated file, ScoreError if an output is not finite.
    """
    from student.checkpoint import load_model

    outputs.check([outputs.Output(output, DETECTOR)], [checkpoint])
    model, header = load_model(checkpoint)
    if header.model not in EXPORTED:
        raise ConfigError(f"{header.model} cannot be exported; models that can: {', '.join(EXPORTED)}")
    try:
        if outputs.is_stream(output):
            with tempfile.TemporaryDirectory() as folder:
                said = _exported(model, header, Path(folder, "detector.onnx"))
                outputs.write(output, Path(folder, "detector.onnx").read_bytes())
        else:
            with replacing(output) as partial:
                said = _exported(model, header, partial)
    except OSError as error:
        raise named(error, output) from error
    return said


def _exported(model: nn.Module, header: Header, path: Path) -> Exported:
    """Write the ONNX file and compare it with torch; see `export`."""
    _write(_answers(model).eval(), path, header)
    difference = _difference(model, path)
    if not difference <= CLOSE:
        raise ConfigError(f"onnxruntime and torch differ by {difference:.2g}; the file was not written")
    speeds = _speeds(model, path)
    return Exported(path.stat().st_size, difference, speeds["onnxruntime"], speeds["torch"])


def _answers(model: nn.Module) -> nn.Module:
    """The student without the outputs that only training needs."""
    from torch import nn

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, mouth: torch.Tensor, audio: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.model(mouth, audio, mask)[:4])

    return Answers()


def _write(model: nn.Module, path: Path, header: Header) -> None:
    import torch

    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(NEEDS) from error
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("frames")
    shapes = ({0: batch, 1: frames}, {0: batch, 1: 640 * frames}, {0: batch, 1: frames})
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's warnings about its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            model, tuple(map(torch.from_numpy, _example(2, 30))), dynamo=True, verbose=False,
            input_names=list(INPUTS), output_names=list(OUTPUTS), dynamic_shapes=shapes,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    names = ("model", "threshold", "temperature", "fitted_on", "window", "store", "versions")
    said = {name: header.told.get(name) for name in names}
    onnx.helper.set_model_props(proto, {"concord-av": json.dumps({**said, "trim": header.trim})})
    path.write_bytes(proto.SerializeToString())


def _example(batch: int, frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise; the last rows of all clips except the first are outside the mask."""
    rng = np.random.default_rng([seed, batch, frames])
    mask = np.ones((batch, frames), bool)
    mask[1:, -max(1, frames // 5) :] = False
    mouth = rng.integers(0, 256, (batch, frames, 96, 96), dtype=np.uint8)
    return mouth, rng.integers(-9000, 9000, (batch, 640 * frames)).astype(np.int16), mask


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _difference(model: nn.Module, path: Path) -> float:
    import torch

    from student.scoring.score import ScoreError

    session, worst = _session(path), 0.0
    for size in SIZES:
        arrays = _example(*size, seed=1)
        found = session.run(list(OUTPUTS), dict(zip(INPUTS, arrays, strict=True)))
        with torch.no_grad():
            wanted = model(*map(torch.from_numpy, arrays))[:4]
        for name, ours, theirs in zip(OUTPUTS, found, (w.numpy() for w in wanted), strict=True):
            use = arrays[2] if name != "clip_logits" else slice(None)
            if not (np.isfinite(ours[use]).all() and np.isfinite(theirs[use]).all()):
                raise ScoreError(f"the detector's {name} are not finite, so it was not exported; train it again")
            gap = np.abs(ours[use] - theirs[use]).max() / max(1.0, np.abs(theirs[use]).max())
            worst = max(worst, float(gap))
    return worst


def _speeds(model: nn.Module, path: Path) -> dict[str, float]:
    """Frames per second for windows of 75 frames on one thread, best of `ROUNDS`, onnxruntime and torch alternating."""
    import torch

    session, arrays, threads = _session(path), _example(4, 75), torch.get_num_threads()
    tensors, feed = [torch.from_numpy(a) for a in arrays], dict(zip(INPUTS, arrays, strict=True))
    best = {"onnxruntime": 0.0, "torch": 0.0}
    torch.set_num_threads(1)
    try:
        for _ in range(ROUNDS):
            for name in best:
                begun = time.perf_counter()
                if name == "onnxruntime":
                    session.run(None, feed)
                else:
                    with torch.inference_mode():
                        model(*tensors)
                best[name] = max(best[name], 4 * 75 / (time.perf_counter() - begun))
    finally:
        torch.set_num_threads(threads)
    return best


@click.command(cls=Command)
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="--output folder of a training run.")
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="ONNX file to write.")
def main(checkpoint: Path, output: Path) -> None:
    """Write a trained detector as ONNX, checked against torch.

    Example: python -m student.export --checkpoint runs/grid --output grid.onnx
    """
    said = export(checkpoint, output)
    say(
        f"{output}: {byte_size(said.bytes)}; differs from torch by {said.difference:.1e}; one thread "
        f"{said.frames_per_second:,.0f} frames per second ({said.frames_per_second / 25:.0f} times real time), torch "
        f"{said.torch_frames_per_second:,.0f}"
    )


if __name__ == "__main__":
    main()
