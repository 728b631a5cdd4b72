"""Writes a media file from pictures and sounds with PyAV, with a say in everything that people's files get wrong: time
stamps, sizes, tracks, tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 48_000  # samples per second of the sounds
FPS = 25
FAST = {
    "libx264": {"preset": "veryfast", "crf": "16", "bf": "2"},
    "libx265": {"preset": "ultrafast", "crf": "14", "x265-params": "log-level=none:bframes=2"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "2M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "2M"},
    "mpeg4": {"b": "3M", "bf": "2"},
    "mpeg2video": {"b": "4M", "bf": "2"},
}


@dataclass(frozen=True)
class Clip:
    """A clip of 25 frames per second: pictures u1 [height, width, 3], all of one size, and mono sound f4 at RATE."""

    pictures: list[np.ndarray]
    sound: np.ndarray

    @property
    def length_s(self) -> float:
        return len(self.pictures) / FPS


@dataclass(frozen=True)
class Track:
    """A sound of a file: f4 [channels, samples] at RATE, by what codec, and what the container says of it."""

    sound: np.ndarray
    layout: str = "mono"
    codec: str = "aac"
    title: str = ""
    language: str = ""
    disposition: str = ""  # names of av.stream.Disposition, separated by spaces


@dataclass(frozen=True)
class Video:
    """The pictures of a file and their times in seconds (default: 25 a second), and how they are encoded."""

    pictures: Sequence[np.ndarray]
    times: Sequence[Fraction] = ()
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=dict)
    form: str = "yuv420p"
    prepare: Callable[[Any], None] = lambda context: None  # called with each codec context before it is opened
    frame: Callable[[np.ndarray], av.VideoFrame] = lambda picture: av.VideoFrame.from_ndarray(picture, format="rgb24")
    fps: Fraction = Fraction(FPS)
    base: Fraction | None = None  # tick of the time stamps


@dataclass(frozen=True)
class Stamped:
    """An encoded packet's kind ("video" or "audio"), its track, and its times in ticks; `change` functions move them."""

    kind: str
    track: int
    pts: int
    dts: int
    base: Fraction

    @property
    def time(self) -> Fraction:
        return self.dts * self.base

    def moved(self, seconds: Fraction | float) -> Stamped:
        by = round(Fraction(seconds) / self.base)
        return replace(self, pts=self.pts + by, dts=self.dts + by)


def read(path: Path, most: int = 75) -> Clip:
    """The first `most` pictures of a clip of 25 frames per second, and their sound."""
    with av.open(str(path)) as container:
        pictures = []
        for frame in container.decode(video=0):
            pictures.append(np.ascontiguousarray(frame.to_ndarray(format="rgb24")))
            if len(pictures) == most:
                break
    with av.open(str(path)) as container:
        mono = av.AudioResampler("fltp", "mono", RATE)
        parts = [part.to_ndarray() for frame in container.decode(audio=0) for part in mono.resample(frame)]
        parts += [part.to_ndarray() for part in mono.resample(None)]
    sound = np.concatenate(parts, 1)[0]
    need = len(pictures) * RATE // FPS
    return Clip(pictures, np.pad(sound, (0, max(0, need - len(sound))))[:need])


def write(
    path: Path,
    video: Video,
    tracks: Sequence[Track],
    change: Callable[[Stamped], Stamped | None] = lambda stamped: stamped,
    tags: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    form: str | None = None,
) -> Path:
    """A file of these pictures and sounds. `change` may move each packet's stamps, or drop it (None); `tags` are the
    picture stream's."""
    with av.open(str(path), "w", format=form, options=muxer or {}) as out:
        stream = _video_stream(out, video)
        stream.metadata.update(tags or {})
        sounds = [_sound_stream(out, track) for track in tracks]
        out.start_encoding()
        packets = list(_pictures(video, stream))
        for k, (track, sound) in enumerate(zip(tracks, sounds, strict=True)):
            packets += _sounds(track, sound, k)
        for stamped, packet in sorted(packets, key=lambda item: (item[0].time, item[0].kind)):
            moved = change(stamped)
            if moved is not None:
                packet.pts, packet.dts = moved.pts, moved.dts
                out.mux(packet)
    return path


def concatenated(path: Path, parts: Sequence[Path]) -> Path:
    """The bytes of several files one after the other, as people join transport streams."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def _video_stream(out: Any, video: Video) -> Any:
    stream = out.add_stream(video.codec, rate=video.fps, options={**FAST.get(video.codec, {}), **video.options})
    _prepared(stream.codec_context, video, video.pictures[0])
    if video.base:
        stream.codec_context.time_base = video.base
    return stream


def _prepared(context: Any, video: Video, picture: np.ndarray) -> None:
    context.height, context.width = picture.shape[:2]
    context.pix_fmt = video.form
    context.thread_count = 1
    video.prepare(context)


def _sound_stream(out: Any, track: Track) -> Any:
    stream = out.add_stream(track.codec, rate=RATE, layout=track.layout)
    for name, value in (("title", track.title), ("language", track.language)):
        if value:
            stream.metadata[name] = value
    if track.disposition:
        flags = av.stream.Disposition(0)
        for name in track.disposition.split():
            flags |= av.stream.Disposition[name]
        stream.disposition = flags
    return stream


def _pictures(video: Video, stream: Any) -> Iterator[tuple[Stamped, Any]]:
    """Packets of the pictures; where their size changes, another encoder goes on."""
    context, base = stream.codec_context, stream.codec_context.time_base or 1 / video.fps
    times = video.times or [Fraction(k, FPS) for k in range(len(video.pictures))]
    size = video.pictures[0].shape[:2]
    for time, picture in zip(times, video.pictures, strict=True):
        if picture.shape[:2] != size:
            yield from _packets(context.encode(None), "video", 0, stream)
            size, base = picture.shape[:2], context.time_base
            context = av.CodecContext.create(video.codec, "w")
            context.options = {**FAST.get(video.codec, {}), **video.options}
            context.time_base, context.framerate = base, video.fps
            _prepared(context, video, picture)
        frame = video.frame(picture)
        base = context.time_base or base
        frame.time_base, frame.pts = base, round(time / base)
        yield from _packets(context.encode(frame), "video", 0, stream)
    yield from _packets(context.encode(None), "video", 0, stream)


def _sounds(track: Track, stream: Any, k: int) -> Iterator[tuple[Stamped, Any]]:
    form = stream.codec_context.format.name
    resampler = av.AudioResampler(form, track.layout, RATE, frame_size=stream.codec_context.frame_size or 1024)
    packed = np.ascontiguousarray(track.sound.T, np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=track.layout)
    frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
    for part in [*resampler.resample(frame), *resampler.resample(None), None]:
        yield from _packets(stream.encode(part), "audio", k, stream)


def _packets(packets: Sequence[Any], kind: str, track: int, stream: Any) -> Iterator[tuple[Stamped, Any]]:
    for packet in packets:
        packet.stream = stream
        dts = packet.dts if packet.dts is not None else packet.pts
        yield Stamped(kind, track, packet.pts, dts, packet.time_base), packet
