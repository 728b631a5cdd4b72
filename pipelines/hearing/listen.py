"""Listens to the beginning of sound streams: in which track, and in which mix of its channels, somebody speaks.

Streams are decoded together, in pieces of a minute, so memory does not grow with their length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from pipelines.containers.clock import BROKEN
from pipelines.media.mix import resampler
from store.layout import SAMPLE_RATE, SAMPLES_PER_FRAME

Voice = Callable[[np.ndarray], np.ndarray]  # i2 [640 * frames] -> bool [frames], `teachers.voice.VoiceActivity.frames`
Weights = tuple[float, ...]  # of the channels, in a mix
MEAN: Weights = ()  # the mix by ffmpeg's rules
PIECE_S = 60


@dataclass(frozen=True)
class Heard:
    """A piece of a sound at 16 kHz: `mono` i2 [n] by ffmpeg's rules, `channels` f4 [n, channels] in [-1, 1], and their
    names."""

    mono: np.ndarray
    channels: np.ndarray
    names: tuple[str, ...]


def listen(container: Any, streams: Sequence[Any], most: int) -> Iterator[tuple[Any, Heard]]:
    """(stream, piece) of about a minute, as soon as it is complete, until one stream has given `most`; then the rests.
    Damaged packets are left out."""
    ears = {stream.index: _Ear() for stream in streams}
    for stream, frames in _decoded(container, streams):
        ear = ears[stream.index]
        for frame in frames:
            ear.hear(frame)
        if ear.num >= PIECE_S * SAMPLE_RATE:
            yield stream, ear.piece()
            if ear.pieces == most:
                break
    for stream in streams:
        ears[stream.index].end()
        if ears[stream.index].num:
            yield stream, ears[stream.index].piece()


def _decoded(container: Any, streams: Sequence[Any]) -> Iterator[tuple[Any, list[Any]]]:
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, *BROKEN):
            return
        with suppress(*BROKEN):
            yield packet.stream, packet.stream.codec_context.decode(packet)


class _Ear:
    """Collects the sound of one stream until it is taken."""

    def __init__(self) -> None:
        self.kind: tuple[Any, ...] = ()
        self.names: tuple[str, ...] = ()
        self.num = 0  # samples since the last piece
        self.pieces = 0
        self._resamplers: list[Any] = []  # to mono, and to channels unless there is only one
        self._parts: list[list[np.ndarray]] = [[], []]

    def hear(self, frame: Any) -> None:
        """Take a frame; one that cannot be converted is left out."""
        kind = (frame.sample_rate, frame.format.name, frame.layout.name)
        if kind != self.kind:
            names = tuple(channel.name for channel in frame.layout.channels)
            names = ("FL", "FR") if len(names) == 2 else names  # PCM in Matroska does not say so
            if self.kind and len(names) != len(self.names):
                return  # other channels: the first ones decide
            self.end()
            self.kind, self.names = kind, names
            packed = av.AudioResampler(format="flt", layout=frame.layout, rate=SAMPLE_RATE)
            self._resamplers = [resampler(None, frame), packed][: min(len(names), 2)]
        self._take(frame)

    def end(self) -> None:
        """Take what is left in the resamplers."""
        self._take(None)
        self._resamplers = []

    def _take(self, frame: Any) -> None:
        for one, parts in zip(self._resamplers, self._parts, strict=False):
            with suppress(av.FFmpegError, ValueError):
                found = [part.to_ndarray()[0] for part in one.resample(frame) if part is not None]
                parts += found
                self.num += sum(map(len, found)) if parts is self._parts[0] else 0

    def piece(self) -> Heard:
        """All sound since the last piece."""
        mono, channels = (np.concatenate(parts) if parts else np.zeros(0, np.float32) for parts in self._parts)
        channels = channels.reshape(-1, len(self.names)) if len(self.names) > 1 else np.zeros((len(mono), 0))
        num = min(len(mono), len(channels))
        self._parts, self.num, self.pieces = [[], []], 0, self.pieces + 1
        return Heard(mono[:num], channels[:num], self.names)


@dataclass(frozen=True)
class Speech:
    """What is heard of a mix: bool [frames] where somebody speaks, and power f8 [frames] of full scale."""

    voice: np.ndarray
    power: np.ndarray

    @classmethod
    def of(cls, sound: np.ndarray, voice: Voice) -> Speech:
        """`sound` is i2 [samples]; it is filled with silence to whole frames."""
        sound = np.pad(sound, (0, -len(sound) % SAMPLES_PER_FRAME))
        power = np.square(sound.reshape(-1, SAMPLES_PER_FRAME) / 32768.0).mean(axis=1)
        return cls(voice(sound), power)

    @property
    def frames(self) -> int:
        """Number of frames with a voice."""
        return int(self.voice.sum())

    @property
    def loud(self) -> float:
        """Power of the voice: of all frames together in which somebody speaks."""
        return float(self.power[self.voice].sum())

    @property
    def contrast_db(self) -> float:
        """How much quieter the pauses are than the voice; at most 50 dB."""
        low, high = np.percentile(self.power, [10, 95])
        return float(10 * np.log10(high / max(low, 1e-5 * high))) if high > 0 else 0.0


def speeches(piece: Heard, voice: Voice) -> dict[Weights, Speech]:
    """What is heard of each possible mix: of MEAN, each channel and, of two channels, their difference."""
    count = len(piece.names) if piece.channels.shape[1] else 0
    mixes: list[Weights] = [tuple(np.eye(count)[k].tolist()) for k in range(count) if piece.names[k] != "LFE"]
    mixes += [(0.5, -0.5)] if count == 2 else []
    found = {MEAN: Speech.of(piece.mono, voice)}
    for weights in mixes:
        sound = np.nan_to_num(piece.channels @ np.array(weights, np.float32))
        found[weights] = Speech.of(np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16), voice)
    return found


def installed_voice() -> Voice:
    """Finds speech, if its model is already on this machine; else none is found."""
    from teachers import TeacherError
    from teachers.voice import VoiceActivity

    try:
        return VoiceActivity().frames
    except TeacherError:
        return lambda sound: np.zeros(len(sound) // SAMPLES_PER_FRAME, bool)
