"""Students by name. Each takes pictures (`student.data.picture`) and sound on a common clock and returns `Output`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from student.models.output import Output


def _lite(**options: Any) -> nn.Module:
    from student.models.lite import Lite, LiteConfig

    return Lite(LiteConfig(**options))


def _lite_causal(**options: Any) -> nn.Module:
    return _lite(**{**options, "causal": True})


def _talknet(**options: Any) -> nn.Module:
    from student.models.talknet import TalkNet, TalkNetConfig

    return TalkNet(TalkNetConfig(**options))


MODELS: dict[str, Callable[..., nn.Module]] = {"lite": _lite, "lite-causal": _lite_causal, "talknet": _talknet}
# options with which a model treats a clip as the published code does
PAPER: dict[str, dict[str, Any]] = {
    "talknet": {"join_clips": True, "attended_embeddings": True, "fake_logit_alone": True, "wrap": True}
}


def build(name: str, **options: Any) -> nn.Module:
    """A new student with random weights; `options` are fields of its config. ValueError for an unknown name or option."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name}; there is {', '.join(sorted(MODELS))}")
    try:
        return MODELS[name](**options)
    except TypeError as error:
        raise ValueError(f"model {name}: {error}") from error


def least_numbers(name: str, **options: Any) -> int:
    """A lower bound on the number of weights of such a student, known before it is built. Raises ValueError as `build`
    does."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name}; there is {', '.join(sorted(MODELS))}")
    if name == "talknet":
        return 0  # its size is fixed
    from student.models.lite import LiteConfig

    try:
        return LiteConfig(**options).least_numbers()
    except TypeError as error:
        raise ValueError(f"model {name}: {error}") from error


__all__ = ["MODELS", "PAPER", "Output", "build", "least_numbers"]
