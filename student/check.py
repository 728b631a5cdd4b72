"""Try a student's weights: `python -m student.check MODEL --init-from PATH --input arrays.npz --output out.npz`.

Loads weights of the paper's authors, of TalkNet-ASD or of this project (see student/models/weights.py), runs the model
in evaluation mode, writes every stage and prints shapes, parameters and speed. `talknet` takes `faces` u1 [batch,
frames, 112, 112] and `mfcc` f4 [batch, 4 * frames, 13] and runs as published: its first layer joins the clips of the
batch into one sequence; `lite` takes `mouth` u1 [batch, frames, 96, 96] and `audio` i2 [batch, 640 * frames]. Without
--input the arrays are random, without --init-from the weights are random.

    python -m student.check talknet --init-from pretrain_TalkSet.model --input arrays.npz --output stages.npz
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import io
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from concord import command
from concord.errors import ConcordError
from store import output as outputs
from store.formats import npz

if TYPE_CHECKING:
    import torch
    from torch import nn

    from student.models.talknet import TalkNet

FILE = click.Path(path_type=Path)
FRAMES = 25  # of each of the two random clips, and at most of the warm-up run
SHAPES = {  # model: array, its type, its shape for B clips of T frames
    "talknet": {"faces": ("u1", "B T 112 112"), "mfcc": ("f4", "B 4T 13")},
    **{lite: {"mouth": ("u1", "B T 96 96"), "audio": ("i2", "B 640T")} for lite in ("lite", "lite-causal")},
}
COMMAND = "student.check"
STAGES = outputs.arrays(COMMAND)
ATTENTION = ("crossA2V", "crossV2A", "selfAV")


class InputError(ConcordError, ValueError):
    """Arrays that the model cannot use; one line that names the file and the array."""


@click.command(
    cls=command.Command,
    epilog="Example: python -m student.check talknet --init-from best.model --input in.npz --output out.npz",
)
@click.argument("model")
@click.option("--init-from", type=FILE, help="Weights: .pt, .pth, .model, .npz, .safetensors, or a run's folder.")
@click.option(
    "--input", "input_", type=FILE, help="An .npz file: faces and mfcc for talknet, mouth and audio for lite."
)
@click.option("--output", type=FILE, help="An .npz file for every stage.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute, e.g. cuda.")
@click.option(
    "--threads", type=click.IntRange(0), default=0, show_default=True, help="Torch threads; 0 = torch's choice."
)
def main(
    model: str, init_from: Path | None, input_: Path | None, output: Path | None, device: str, threads: int
) -> None:
    """Load weights into MODEL (talknet, lite or lite-causal), run it, and print its properties and speed.

    Exit code 2, with a message of one line, for weights or arrays that do not fit.
    """
    check(model, init_from, input_, output, device=device, threads=threads)


def check(
    name: str,
    init_from: Path | None = None,
    input_: Path | None = None,
    output: Path | None = None,
    *,
    device: str = "cpu",
    threads: int = 0,
) -> None:
    """The work of the command; raises InputError, CheckpointError."""
    import torch

    from student.models import weights
    from student.models.talknet import TalkNet

    if name not in SHAPES:
        raise InputError(f"unknown model {name}; there is {', '.join(sorted(SHAPES))}")
    if output is not None:
        outputs.check([outputs.Output(output, STAGES)], [path for path in (init_from, input_) if path is not None])
    arrays = made_up(name) if input_ is None else read_arrays(name, input_)
    if threads:
        torch.set_num_threads(threads)
    model = _build(name, init_from)
    say("model", f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters")
    if isinstance(model, TalkNet):
        own = sum(p.numel() for p in model.model.parameters())
        say("network", f"{own:,} parameters without the head, run as published")
    say("weights", weights.load(model, name, init_from) if init_from else "random (no --init-from)")
    inputs = [torch.from_numpy(x).to(_device(device)) for x in arrays.values()]
    torch.backends.cudnn.allow_tf32 = False  # otherwise a GPU's convolutions would keep only 10 of 23 bits
    model.to(inputs[0].device).eval()
    for key, x in arrays.items():
        say("input", f"{key} {list(x.shape)} {x.dtype}{'' if input_ else ', made up'}")
    run = partial(talknet_stages, model) if isinstance(model, TalkNet) else partial(lite_stages, model)
    with torch.no_grad():
        some = min(FRAMES, inputs[0].shape[1])
        run(*(x[:1, : x.shape[1] * some // inputs[0].shape[1]] for x in inputs))  # warm-up: one-time work of libraries
        began = time.perf_counter()
        found = run(*inputs)
        stages = {key: value.float().cpu().numpy() for key, value in found.items()}
        seconds = time.perf_counter() - began
    for key, x in stages.items():
        say("stage", f"{key} {list(x.shape)}, {x.min():.4g} to {x.max():.4g}")
    clips, frames = inputs[0].shape[:2]
    say("speed", f"{clips / seconds:.3g} clips/s, {clips * frames / seconds:.4g} frames/s: {seconds:.3g} s")
    where = f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads"
    say("computed on", where if device == "cpu" else device)
    bad = [key for key, x in stages.items() if not np.isfinite(x).all()]
    if bad:
        raise InputError(f"stage {bad[0]} is not finite: these weights and arrays cause an overflow")
    if output is not None:
        packed = io.BytesIO()
        np.savez(packed, **stages)  # type: ignore[arg-type]  # arrays by name
        outputs.write(output, outputs.npz(packed, COMMAND))
        say("written", output)


def talknet_stages(model: TalkNet, faces: torch.Tensor, mfcc: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every stage by the names of the reference arrays; feature maps are averaged over space or frequency, attention
    weights over heads.

    [B * T, C] for single frames, [B, C, n] for convolutions in time, [B, T, C] for the rest.
    """
    import torch
    from torch.nn import functional as F

    network = model.model
    audio, visual = network.audioEncoder, network.visualFrontend
    seen: dict[str, list[torch.Tensor]] = {}
    watched: dict[str, tuple[nn.Module, int | tuple[int, ...] | None]] = {
        "audio_stem_relu_freq_mean": (audio.relu, 2),
        "visual_stem_spatial_mean": (visual.frontend3D[-1], (2, 3)),
    }
    for k in (1, 2, 3, 4):
        watched[f"audio_layer{k}_freq_mean"] = (getattr(audio, f"layer{k}")[-1], 2)
        watched[f"visual_layer{k}_spatial_mean"] = (getattr(visual.resnet, f"layer{k}"), (2, 3))
    watched |= {"visual_frontend_raw": (visual.resnet, None), "visual_tcn": (network.visualTCN, None)}

    def watch(key: str, axes: int | tuple[int, ...] | None) -> Callable[..., None]:
        def hook(module: nn.Module, given: object, output: torch.Tensor) -> None:
            seen.setdefault(key, []).append(output if axes is None else output.mean(axes))

        return hook

    def watch_attention(key: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: object, output: tuple[torch.Tensor, torch.Tensor]) -> None:
            seen[f"{key}_attn_out"], seen[f"{key}_attn_weights"] = [output[0]], [output[1]]

        return hook

    layers = {key: getattr(network, key) for key in ATTENTION}
    handles = [module.register_forward_hook(watch(key, axes)) for key, (module, axes) in watched.items()]
    handles += [layer.self_attn.register_forward_hook(watch_attention(key)) for key, layer in layers.items()]
    for layer in layers.values():
        layer.need_weights = True
    try:
        streams = model.streams(faces, mfcc)
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers.values():
            layer.need_weights = False
    out = {key: torch.cat(parts) for key, parts in seen.items()} | streams._asdict()
    out["embedding_audio"], out["embedding_visual"] = streams.cross_audio, streams.cross_visual
    out["clip_mean_logits"] = streams.frame_logits.mean(1)
    out["clip_score_fake_logit"] = out["clip_mean_logits"][:, 1]
    out["cosine"] = F.cosine_similarity(streams.cross_audio, streams.cross_visual, dim=-1)
    return out


def lite_stages(model: torch.nn.Module, mouth: torch.Tensor, audio: torch.Tensor) -> dict[str, torch.Tensor]:
    """Embeddings [B, T, D], their cosine and the frame logits [B, T], clip logits [B]."""
    out = model(mouth, audio)
    cosine = (out.visual * out.audio).sum(-1)
    return {
        "embedding_audio": out.audio, "embedding_visual": out.visual, "cosine": cosine,
        "frame_logits": out.frame_logits, "clip_logits": out.clip_logits,
    }  # fmt: skip


def read_arrays(name: str, path: Path) -> dict[str, np.ndarray]:
    """The model's arrays from an .npz file, in the order of its arguments. Raises InputError, which names the file and
    the array."""
    try:
        arrays = npz.read(path, list(SHAPES[name]))
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]}, which {name} looks at") from error
    except npz.ERRORS as error:
        raise InputError(f"{path} is missing or not an .npz file of arrays: {error}") from error
    first = next(iter(arrays.values()))
    if first.ndim < 2 or 0 in first.shape:
        raise InputError(
            f"{path}: {next(iter(arrays))} of shape {list(first.shape)} needs at least one clip and one frame"
        )
    clips, frames = first.shape[:2]
    for key, (kind, shape) in SHAPES[name].items():
        x = arrays[key]
        sides = [clips if s == "B" else int(s[:-1] or 1) * frames if s.endswith("T") else int(s) for s in shape.split()]
        if list(x.shape) != sides:
            raise InputError(
                f"{path}: {key} has the shape {list(x.shape)}, with {clips} clips of {frames} frames it needs {sides}"
            )
        arrays[key] = _as_kind(x, np.dtype(kind), f"{path}: {key}")
    return arrays


def _as_kind(x: np.ndarray, kind: np.dtype, label: str) -> np.ndarray:
    """The array in the model's type, if that changes no value (except f8 to f4)."""
    if x.dtype.kind not in "uif" or not np.isfinite(x).all():
        raise InputError(f"{label} must hold finite numbers, not {x.dtype}")
    if kind.kind == "f":
        return np.ascontiguousarray(x, kind)
    limits = np.iinfo(kind)
    if x.min() < limits.min or x.max() > limits.max or (x != np.rint(x)).any():
        raise InputError(f"{label} must hold integers from {limits.min} to {limits.max}")
    return np.ascontiguousarray(x, kind)


def made_up(name: str) -> dict[str, np.ndarray]:
    """Two clips of noise."""
    rng = np.random.default_rng(0)
    out = {}
    for key, (kind, shape) in SHAPES[name].items():
        sides = [2 if s == "B" else int(s[:-1] or 1) * FRAMES if s.endswith("T") else int(s) for s in shape.split()]
        noise = rng.standard_normal(sides) * (3000 if kind == "i2" else 10)
        out[key] = (rng.integers(0, 256, sides) if kind == "u1" else noise).astype(kind)
    return out


def say(label: str, value: object) -> None:
    command.say(f"{label:13}{value}")


def _build(name: str, init_from: Path | None) -> nn.Module:
    """talknet as published; lite with the sizes in this project's own file."""
    import torch

    from student.checkpoint import blank
    from student.models import PAPER, build

    torch.manual_seed(0)
    if name in PAPER:
        return build(name, **PAPER[name])
    told = blank(init_from, name) if init_from else None
    return build(name) if told is None else told


def _device(device: str) -> str:
    """The device's name; InputError if this machine does not have it."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, depending on the kind of device
        raise InputError(
            f"no device '{device}' on this machine ({str(error).splitlines()[0]}); try --device cpu"
        ) from error
    return device


if __name__ == "__main__":
    main()
