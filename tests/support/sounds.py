"""Clips with the sound of our choice: the pictures of a real clip, and any number of tracks with any channels."""

from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

RATE = 48_000


@dataclass(frozen=True)
class Track:
    """Sound f4 [channels, samples] at 48 kHz, and what the file says of it."""

    sound: np.ndarray
    codec: str = "pcm_s16le"
    layout: str = ""  # by the number of channels
    language: str = ""
    title: str = ""
    marks: tuple[str, ...] = field(default=())  # names of dispositions


def voice_of(path: Path) -> np.ndarray:
    """f4 [samples] at 48 kHz, mono."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        frames = [*container.decode(audio=0), None]
        return np.concatenate([part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)])


def write(path: Path, source: Path | None, *tracks: Track, options: dict[str, str] | None = None) -> Path:
    """A file with the pictures of `source`, copied (None: no pictures), and these sound tracks."""
    with av.open(str(path), "w", options=options or {}) as out:
        copied = None
        if source is not None:
            there = av.open(str(source))
            copied = out.add_stream_from_template(there.streams.video[0])
        streams = []
        for track in tracks:
            layout = track.layout or {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(track.sound)]
            stream = out.add_stream(track.codec, rate=RATE, layout=layout)
            stream.metadata.update({k: v for k, v in (("language", track.language), ("title", track.title)) if v})
            stream.disposition = sum((av.stream.Disposition[mark] for mark in track.marks), av.stream.Disposition(0))
            streams.append(stream)
        if copied is not None:
            for packet in there.demux(video=0):
                if packet.dts is not None:
                    packet.stream = copied
                    out.mux(packet)
            there.close()
        for track, stream in zip(tracks, streams, strict=True):
            _encode(out, stream, track.sound)
    return path


def _encode(out, stream, sound: np.ndarray) -> None:
    layout, size = stream.codec_context.layout, 1024
    resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=RATE, frame_size=size)
    packed = np.ascontiguousarray(sound.T.reshape(1, -1), dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts = RATE, 0
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(stream.encode(part))
    out.mux(stream.encode(None))


def hum(samples: int, level: float) -> np.ndarray:
    """f4 [samples]: 50 Hz and harmonics with this root mean square."""
    t = np.arange(samples) / RATE
    found = sum(np.sin(2 * np.pi * 50 * k * t) / k for k in range(1, 8))
    return (level * found / found.std()).astype(np.float32)


def music(samples: int, level: float, seed: int = 0) -> np.ndarray:
    """f4 [samples]: plucked notes with this root mean square."""
    rng = np.random.default_rng(seed)
    found = np.zeros(samples)
    step, length = RATE // 10, RATE // 5
    for start in range(0, samples - length, step):
        t = np.arange(length) / RATE
        note = rng.choice([220.0, 277.2, 329.6, 440.0, 554.4])
        found[start : start + length] += sum(np.sin(2 * np.pi * note * h * t) for h in (1, 2, 3, 4)) * np.exp(-6 * t)
    return (level * found / found.std()).astype(np.float32)


def hiss(samples: int, level: float, seed: int = 0) -> np.ndarray:
    """f4 [samples]: white noise with this root mean square."""
    return (level * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)
