"""An AV-HuBERT encoder from a checkpoint: pretrained (`av_hubert`) or inside a lip reader (`av_hubert_seq2seq`, `_ctc`).

`teachers.files.checkpoint` reads the file and fairseq's registry builds the model. Every weight of the encoder must be
present, have the right shape and be used. What features do not need is dropped: DROPPED, and what a lip reader has
besides its encoder. Sizes come from the weights and must agree with the configuration where it states them. What shapes
do not tell comes from the pretraining configuration. Fine-tuned files straight from the trainer lack it; then the
number of heads is known only for the two published widths, and pre-norm is assumed, as in every published model.
"""

import logging
import math
import re
import reprlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concord import extras
from teachers.base import TeacherError
from teachers.files import checkpoint

log = logging.getLogger(__name__)

PREFIXES = ("", "encoder.w2v_model.", "w2v_encoder.w2v_model.")
OTHERS = re.compile(r"decoder\.|w2v_encoder\.proj\.")  # a lip reader's own weights
DROPPED = re.compile(r"(mask_emb|label_embs_concat|final_proj\.(weight|bias)|.*\.num_batches_tracked)$")
HEADS = {768: 12, 1024: 16}  # for the published widths
NAMED = 5  # keys that an error lists
NO_FAIRSEQ = (3, 13)  # the first Python for which ve-fairseq has no wheel


@dataclass(frozen=True)
class Input:
    """How frames and sound are prepared (`task` of the configuration)."""

    normalize: bool = True
    image_crop_size: int = 88
    image_mean: float = 0.421
    image_std: float = 0.165


def load(path: Path | str) -> tuple[Any, Input]:
    """(model, input) of a checkpoint; the model (`model.AVHubert`) is in single precision on the CPU, in evaluation mode.

    Raises TeacherError for any other file; it names weights that are missing, unexpected or of the wrong shape.
    """
    content = checkpoint.read(path)
    try:
        prefix, weights = _encoder_weights(content)
        hyper, task = _configuration(content, fine_tuned=prefix != "")
        return _build(_model_config(weights, hyper), weights), _input(task)
    except TeacherError as error:
        raise TeacherError(f"{path}: {error}") from error


def register() -> None:
    """Register both models and the task with fairseq; calling it again is harmless. Imports torch and fairseq."""
    try:
        from teachers.avhubert import decoder, model
    except ImportError as error:
        raise TeacherError(f"AV-HuBERT needs fairseq: {_remedy(error)}") from error
    from fairseq.models import MODEL_REGISTRY

    for name, ours in (("av_hubert", model.AVHubert), ("av_hubert_seq2seq", decoder.AVHubertSeq2Seq)):
        if MODEL_REGISTRY[name] is not ours or not ours.__module__.startswith("teachers."):
            raise TeacherError(f"another package has registered a model '{name}' with fairseq; do not import it here")


def _remedy(error: ImportError) -> str:
    """What to do where fairseq cannot be imported."""
    if error.name in ("fairseq", "omegaconf") and sys.version_info[:2] >= NO_FAIRSEQ:
        return "the package ve-fairseq has no wheel for this Python; use Python 3.11 or 3.12"
    return extras.told(error) or str(error)


def _encoder_weights(content: dict) -> tuple[str, dict[str, Any]]:
    """(prefix, {name without it: tensor}) of the encoder; everything else in the file must be known."""
    state = content.get("model")
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise TeacherError("not an AV-HuBERT checkpoint: it has no 'model' with weights")
    for prefix in PREFIXES:
        if any(key.startswith(f"{prefix}feature_extractor_") for key in state):
            break
    else:
        raise TeacherError(f"not an AV-HuBERT checkpoint: its weights are {_named(list(state))}")
    others = [key for key in state if not key.startswith(prefix) and not OTHERS.match(key)]
    if others:
        raise TeacherError(f"weights that AV-HuBERT does not have: {_named(others)}")
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    bad = [key for key, value in found.items() if not hasattr(value, "is_floating_point")]
    if bad:
        raise TeacherError(f"weights that are not tensors: {_named(bad)}")
    return prefix, found


def _configuration(content: dict, fine_tuned: bool) -> tuple[dict | None, dict | None]:
    """(configuration of the pretrained model, of the input), as far as the file has them."""
    whole = _dict(content.get("cfg"))
    if whole is None:  # before fairseq had nested configurations
        flat = _dict(content.get("args"))
        return (None if fine_tuned else flat), flat
    model, task = _dict(whole.get("model")), _dict(whole.get("task"))
    if not fine_tuned:
        return model, task
    pretraining = _dict((model or {}).get("w2v_args")) or {}
    return _dict(pretraining.get("model")), task or _dict(pretraining.get("task"))


def _model_config(weights: dict[str, Any], hyper: dict | None) -> dict[str, Any]:
    """Arguments of AVHubertConfig: sizes from the weights' shapes, the rest from `hyper`."""
    from teachers.avhubert.model import AVHubertConfig

    def shape(key: str, axes: int) -> tuple[int, ...]:
        if key not in weights:
            raise TeacherError(f"weights are missing: '{key}'")
        found = tuple(weights[key].shape)
        if len(found) != axes:
            raise TeacherError(f"weight '{key}' has shape {list(found)}; expected {axes} axes")
        return found

    dim, audio = shape("feature_extractor_audio.proj.weight", 2)
    channels, group, kernel = shape("encoder.pos_conv.0.weight_v", 3)
    (fused,) = shape("layer_norm.weight", 1)
    numbers = [int(match[1]) for key in weights if (match := re.match(r"encoder\.layers\.(\d+)\.", key))]
    slopes = any(re.search(r"\.relu[12]\.|frontend3D\.2\.", key) for key in weights)
    sizes = {
        "encoder_layers": min(max(numbers, default=-1) + 1, len(weights)),
        "encoder_embed_dim": dim,
        "encoder_ffn_embed_dim": shape("encoder.layers.0.fc1.weight", 2)[0],
        "conv_pos": kernel,
        "conv_pos_groups": channels // max(group, 1),
        "audio_feat_dim": audio,
        "modality_fuse": "concat" if fused == 2 * dim else "add",
        "resnet_relu_type": "prelu" if slopes else "relu",
    }
    if hyper is None:
        if dim not in HEADS:
            raise TeacherError(
                f"the configuration of its encoder (cfg.model.w2v_args) is missing, and the number of attention heads of a "
                f"model of width {dim} cannot be told from its weights; add the pretraining checkpoint's cfg"
            )
        log.warning("the encoder's configuration is missing: %d heads and pre-norm are assumed", HEADS[dim])
        return {**sizes, "encoder_attention_heads": HEADS[dim], "layer_norm_first": True}
    layers = hyper.get("encoder_layers")
    if isinstance(layers, int) and 0 < layers <= len(weights):
        sizes["encoder_layers"] = layers  # so that a missing or an extra layer is reported by the names of its weights
    for key, found in sizes.items():
        said = hyper.get(key)
        if said not in (None, found) and not (key == "audio_feat_dim" and said == -1):
            raise TeacherError(f"its configuration says {key} {reprlib.repr(said)}, its weights {found}")
    if hyper.get("sub_encoder_layers", 0):
        raise TeacherError("sub_encoder_layers is not supported; no published model has it")
    kept = ("encoder_attention_heads", "layer_norm_first", "activation_fn")
    defaults = {key: getattr(AVHubertConfig, key) for key in kept}
    for key in kept:
        if not isinstance(hyper.get(key), int | str | None):
            raise TeacherError(f"its configuration says {key} {reprlib.repr(hyper[key])}, which is not supported")
    return {**defaults, **{key: hyper[key] for key in kept if hyper.get(key) is not None}, **sizes}


def _build(config: dict[str, Any], weights: dict[str, Any]) -> Any:
    """The model of a configuration with these weights, every one of which is used."""
    register()
    import torch
    from fairseq.models import build_model
    from fairseq.tasks import setup_task
    from omegaconf import OmegaConf

    dim, heads = config["encoder_embed_dim"], config["encoder_attention_heads"]
    if not isinstance(heads, int) or heads < 1 or dim % heads:
        raise TeacherError(f"its width of {dim} cannot be divided among {reprlib.repr(heads)} attention heads")
    task = setup_task(OmegaConf.create({"_name": "av_hubert_pretraining"}))
    try:
        with torch.device("meta"):
            model = build_model(OmegaConf.create({"_name": "av_hubert", **config}), task)
    except (ValueError, RuntimeError, AssertionError) as error:  # impossible sizes, or an unknown activation
        raise TeacherError(f"no model can be built from its configuration: {error}") from error
    expected = model.state_dict()
    missing = [key for key in expected if key not in weights and not DROPPED.match(key)]
    surplus = [key for key in weights if key not in expected and not DROPPED.match(key)]
    if missing or surplus:
        parts = [("missing", missing), ("surplus", surplus)]
        raise TeacherError(
            "; ".join(f"{len(keys)} encoder weights {what}: {_named(keys)}" for what, keys in parts if keys)
        )
    state = {}
    for key, wanted in expected.items():
        if DROPPED.match(key):
            state[key] = torch.zeros(wanted.shape, dtype=wanted.dtype)
            continue
        if weights[key].shape != wanted.shape:
            raise TeacherError(f"weight '{key}' has shape {list(weights[key].shape)}; expected {list(wanted.shape)}")
        state[key] = weights[key].to(wanted.dtype).contiguous()
    torch.nn.Module.load_state_dict(model, state, assign=True)  # fairseq's own cannot assign
    model.feature_extractor_video.resnet.trunk.to(memory_format=torch.channels_last)  # the layout of its activations
    return model.eval().requires_grad_(False)


def _input(task: dict | None) -> Input:
    """What the task says of the input, with the defaults of the published class; without a task, the published models'
    input."""
    if task is None:
        return Input()
    from teachers.avhubert.model import AVHubertTaskConfig

    values = {name: task.get(name, getattr(AVHubertTaskConfig, name)) for name in Input.__dataclass_fields__}
    for name, value in values.items():
        if type(value) not in (bool, int, float) or not math.isfinite(value):
            raise TeacherError(f"its configuration says {name} {reprlib.repr(value)}, expected a number")
    return Input(**values)


def _dict(value: Any) -> dict | None:
    """A dict made of a dict or a namespace; None for anything else."""
    if isinstance(value, dict):
        return value
    return vars(value) if type(value).__name__ == "Namespace" else None


def _named(keys: list[str]) -> str:
    return ", ".join(f"'{key}'" for key in keys[:NAMED]) + (
        f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    )
