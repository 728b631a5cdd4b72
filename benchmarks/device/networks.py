"""The networks of `teachers` and `student` with random weights, and arrays as they get them.

Cost does not depend on weights, and neither, much, does what half precision changes. The networks are those that the
teachers and the trainer run, built by the same classes; only checkpoints are missing. A part that needs a package which
is not there (openai-whisper, fairseq) fails with one sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from concord import extras
from concord.frames import SAMPLES_PER_FRAME

# (mel bands, width, heads, blocks) of encoders that openai-whisper publishes, and of one that is small enough for a rehearsal
WHISPER = {"medium": (80, 1024, 16, 24), "large": (128, 1280, 20, 32), "rehearsal": (80, 64, 2, 2)}
# The rehearsal has 16 channels a group of its first convolution: with 12, torch 2.13 gives other values in bf16 on CPUs.
AVHUBERT = {
    "large": {
        "encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096, "encoder_attention_heads": 16,
    },
    "rehearsal": {
        "encoder_layers": 2, "encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128, "encoder_attention_heads": 4,
        "conv_pos": 16, "conv_pos_groups": 4,
    },
}  # fmt: skip
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lite": ("lite", {}),
    "lite with texture": ("lite", {"texture": 32}),
    "talknet": ("talknet", {}),
}


@dataclass(frozen=True)
class Network:
    """`inputs(clips, frames)` are tensors on the CPU; `forward(model, *inputs)` gives {name: rows [n, dim]}, what others use
    of it."""

    name: str
    model: torch.nn.Module
    inputs: Callable[[int, int], tuple[Tensor, ...]]
    forward: Callable[..., dict[str, Tensor]]


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whisper(size: str) -> Network:
    """The encoder of the `whisper` teacher on trimmed sound."""
    extras.need("predict", "whisper")
    from whisper.model import AudioEncoder

    from teachers.whisper.block import MELS_PER_FRAME, rows

    mels, width, heads, blocks = WHISPER[size]
    torch.manual_seed(0)
    model = AudioEncoder(mels, 1500, width, heads, blocks).eval().requires_grad_(False)

    def inputs(clips: int, frames: int) -> tuple[Tensor, ...]:
        return (torch.randn(clips, mels, MELS_PER_FRAME * frames, generator=drawn(1)) * 0.5,)

    return Network(f"whisper {size}", model, inputs, lambda model, mel: {"rows": rows(model, mel, None).flatten(0, 1)})


def avhubert(size: str) -> Network:
    """The encoder of the `avhubert` teacher on mouth crops."""
    extras.need("avhubert", "fairseq", "omegaconf")
    from teachers.avhubert import loading

    loading.register()
    from fairseq.models import build_model
    from fairseq.tasks import setup_task
    from omegaconf import OmegaConf

    torch.manual_seed(0)
    task = setup_task(OmegaConf.create({"_name": "av_hubert_pretraining"}))
    config = {"_name": "av_hubert", "audio_feat_dim": 104, "layer_norm_first": True, **AVHUBERT[size]}
    model = build_model(OmegaConf.create(config), task).eval().requires_grad_(False)
    model.feature_extractor_video.resnet.trunk.to(memory_format=torch.channels_last)  # as `loading` leaves it

    def inputs(clips: int, frames: int) -> tuple[Tensor, ...]:
        return (torch.randn(clips, 1, frames, 88, 88, generator=drawn(1)),)

    return Network(f"avhubert {size}", model, inputs, lambda model, video: {"rows": model(video=video).flatten(0, 1)})


def student(name: str) -> Network:
    """A student on mouth crops and sound, as it scores windows."""
    from student.models import build

    kind, options = STUDENTS[name]
    torch.manual_seed(0)
    model = build(kind, **options).eval().requires_grad_(False)

    def forward(model: torch.nn.Module, picture: Tensor, audio: Tensor) -> dict[str, Tensor]:
        out = model(picture, audio)
        rows = torch.cat([out.visual, out.audio], -1).flatten(0, 1)
        return {"embeddings": rows, "frame logits": out.frame_logits.reshape(-1, 1)}

    return Network(name, model, media, forward)


def media(clips: int, frames: int) -> tuple[Tensor, Tensor]:
    """Pictures u1 [clips, frames, 96, 96], smooth in space and time, and sound i2 [clips, 640 frames]: noise, of a voice's
    level."""
    rough = torch.randn(clips, 1, frames // 5 + 2, 13, 13, generator=drawn(2))
    smooth = torch.nn.functional.interpolate(rough, (frames, 96, 96), mode="trilinear", align_corners=False)[:, 0]
    picture = (128 + 60 * smooth + 4 * torch.randn(smooth.shape, generator=drawn(3))).clamp(0, 255).to(torch.uint8)
    sound = torch.randn(clips, frames * SAMPLES_PER_FRAME, generator=drawn(4)) * 3000
    return picture, sound.clamp(-32768, 32767).to(torch.int16)
