"""The kinds of files that people have, made from any clip with parameters drawn from a seed, and what is right for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from made.writing import Clip

Draw = np.random.Generator


@dataclass(frozen=True)
class Right:
    """What is right for a file. `source` i8 [frames]: the base clip's frame whose picture and sound each frame has, -1 where it
    has neither; None: the file is refused, for `reason`."""

    source: np.ndarray | None
    reason: str = ""
    facts: frozenset[str] = frozenset()  # kinds that must be told
    held: np.ndarray | None = None  # frames bool that must be held; None: none of those with a voice
    found: float = 0.95  # least share of them that must be found
    lips: float = 0.95  # least cosine of the lips with those of the base clip, frame by frame; 0: they differ
    lag_ms: float = 0.0  # by which the sound is late in the file itself
    sound: bool = True  # whether the sound is that of the base clip
    contrast: bool = True  # whether crops are as contrasty
    gone: tuple[int, int] = (0, 0)  # frames without a face


@dataclass(frozen=True)
class Made:
    """A file, its separate sound if it has one, what is right for it, and the parameters that were drawn."""

    path: Path
    right: Right
    params: dict[str, Any] = field(default_factory=dict)
    audio_path: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of the reader


Maker = Callable[[Clip, Draw, Path], Made]
KINDS: dict[str, Maker] = {}


def kind(make: Maker) -> Maker:
    """Registers a kind under the name of its function."""
    KINDS[make.__name__] = make
    return make


def whole(clip: Clip, **more: Any) -> Right:
    """All frames of the clip, in order."""
    return Right(np.arange(len(clip.pictures)), **more)


def tell(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)
