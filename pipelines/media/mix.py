"""How the channels of a sound become one: by ffmpeg's rules (stereo: the mean), or with weights.

Channels in opposite phase cancel each other in the mean; a voice may be in one channel, with hum or music in the others.
So the power of the channels is compared while a sound is decoded (`Channels`), which costs little. Only if something is
odd, mixes are listened to (`pipelines.hearing.mixes`): ordinary sound keeps its samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.frame import format_dtypes

from pipelines.media.picture import convertible
from store.layout import SAMPLE_RATE

BLOCK_S = 0.25  # in which the power of channels is compared
ALIKE = 0.75  # power of the mean of two channels, in their mean power: 1 if they are equal, .5 if they are unrelated
CANCELLED = 0.3  # the same in one block: they are in opposite phase
FAINT = 1e-3  # power in that of the loudest block, below which one does not count


@dataclass(frozen=True)
class Mix:
    """One channel made of several: a weight for each, and what a person should know of it."""

    weights: tuple[float, ...]
    text: str


class Channels:
    """Compares the channels of a sound while it is decoded."""

    def __init__(self) -> None:
        self._sums = np.zeros(3)  # of left squared, right squared and their product, in this block
        self._left = 0  # samples until the block ends
        self._blocks: list[np.ndarray] = []
        self._many = False

    def add(self, frame: Any) -> None:
        """The next frame of the sound."""
        count = frame.layout.nb_channels
        self._many |= count > 2
        if count != 2 or frame.format.name not in format_dtypes:
            return
        sound = frame.to_ndarray()
        left, right = sound if len(sound) == 2 else (sound[0, ::2], sound[0, 1::2])
        left, right = (np.asarray(x, np.float32) for x in (left, right))
        if frame.format.name in ("u8", "u8p"):
            left, right = left - 128, right - 128
        self._sums += left @ left, right @ right, left @ right
        self._left -= len(left)
        if self._left <= 0:
            self._close(int(BLOCK_S * frame.sample_rate))

    def _close(self, samples: int) -> None:
        self._blocks.append(self._sums.copy())
        self._sums[:] = 0
        self._left = samples

    @property
    def odd(self) -> bool:
        """Whether the mean may not carry the voice: the channels differ, or there are more than two."""
        left, right, both = np.stack([*self._blocks, self._sums]).T
        mean, power = (left + right + 2 * both) / 4, (left + right) / 2
        if self._many or not 0 < power.sum() < np.inf:
            return self._many
        cancelled = (mean < CANCELLED * power) & (power > FAINT * power.max())
        return bool(mean.sum() < ALIKE * power.sum() or cancelled.any())


def resampler(mix: Mix | None, frame: Any) -> Any:
    """An object whose `resample(frame)` gives mono s16 at 16 kHz, for frames like this one."""
    if mix is None or len(mix.weights) != frame.layout.nb_channels:
        return av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    return _Pan(mix)


class _Pan:
    """As av.AudioResampler, with weights for the channels."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.graph: Any = None

    def resample(self, frame: Any) -> Iterator[Any]:
        """Mono frames; None as frame gives the rest."""
        if self.graph is None:
            if frame is None:
                return
            self.graph = self._build(frame)
        self.graph.push(frame)
        while True:
            try:
                yield self.graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    def _build(self, frame: Any) -> Any:
        terms = "".join(f"{weight:+g}*c{k}" for k, weight in enumerate(self.mix.weights) if weight)
        graph = av.filter.Graph()
        source = {"sample_rate": str(frame.sample_rate), "sample_fmt": frame.format.name}
        nodes = [
            graph.add("abuffer", channel_layout=frame.layout.name, time_base=str(frame.time_base or 1), **source),
            graph.add("pan", f"mono|c0={terms.removeprefix('+')}"),
            graph.add("aformat", sample_rates=str(SAMPLE_RATE), sample_fmts="s16", channel_layouts="mono"),
            graph.add("abuffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        return graph


def mixed(
    timed: Iterable[tuple[Fraction, Any]], path: Any, mix: Mix | None, channels: Channels
) -> Iterator[np.ndarray]:
    """Sound frames one after the other as mono i2 [n] at 16 kHz; jumps in time are not filled."""
    mixer, kind = None, None
    for _, frame in timed:
        with convertible(path):
            if (now := (frame.sample_rate, frame.format.name, frame.layout.name)) != kind:
                yield from _pieces(mixer, None)
                mixer, kind = resampler(mix, frame), now
            channels.add(frame)
            yield from _pieces(mixer, frame)
    yield from _pieces(mixer, None)


def _pieces(mixer: Any, frame: Any) -> Iterator[np.ndarray]:
    for piece in mixer.resample(frame) if mixer is not None else []:
        if piece is not None:
            yield piece.to_ndarray().reshape(-1)
