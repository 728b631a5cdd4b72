"""Files whose voice is in an odd channel or track."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from made.kinds import Draw, Made, kind, tell, whole
from made.writing import RATE, Clip, Track, Video, write


def _hum(rng: Draw, samples: int, level: float) -> np.ndarray:
    t = np.arange(samples) / RATE
    tones = sum(np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) / k for k, f in enumerate((50, 100, 150, 250), 1))
    return np.asarray(level * tones, np.float32)


def _hiss(rng: Draw, samples: int, level: float) -> np.ndarray:
    return (level * rng.standard_normal(samples)).astype(np.float32)


@kind
def opposite_phase(clip: Clip, rng: Draw, folder: Path) -> Made:
    """The right channel is the left one inverted, perhaps weaker."""
    gain = float(rng.choice([1.0, 1.0, 0.9, 0.97]))
    sound = np.stack([clip.sound, -gain * clip.sound])
    name, codec = [("a.mp4", "aac"), ("a.mov", "pcm_s16le"), ("a.mkv", "flac")][rng.integers(0, 3)]
    path = write(folder / name, Video(clip.pictures), [Track(sound, "stereo", codec)])
    return Made(path, whole(clip, facts=tell("channel_mix")), {"gain": gain, "name": name})


@kind
def one_channel(clip: Clip, rng: Draw, folder: Path) -> Made:
    """The voice in one channel, nothing or a loud hum in the other."""
    other = str(rng.choice(["silence", "hum"]))
    quiet = np.zeros_like(clip.sound) if other == "silence" else _hum(rng, len(clip.sound), 0.15)
    sides = [clip.sound, quiet]
    swap = bool(rng.integers(0, 2))
    path = write(folder / "a.mp4", Video(clip.pictures), [Track(np.stack(sides[:: -1 if swap else 1]), "stereo")])
    return Made(path, whole(clip, sound=other == "silence"), {"other": other, "swap": swap})


@kind
def centre_of_surround(clip: Clip, rng: Draw, folder: Path) -> Made:
    """5.1 with the voice in the centre and noise around."""
    level = float(rng.choice([0.0, 0.003, 0.02]))
    sound = np.stack([_hiss(rng, len(clip.sound), level) for _ in range(6)])
    sound[2] = clip.sound
    path = write(folder / "a.mp4", Video(clip.pictures), [Track(sound, "5.1")])
    return Made(path, whole(clip, sound=level < 0.02), {"level": level})


@kind
def eight_channels_of_pcm(clip: Clip, rng: Draw, folder: Path) -> Made:
    """7.1 PCM in MOV, at which some decoder libraries abort."""
    name, codec = [("a.mov", "pcm_s16le"), ("a.mov", "pcm_s24le"), ("a.mov", "pcm_f32le")][rng.integers(0, 3)]
    sound = np.zeros((8, len(clip.sound)), np.float32)
    sound[2] = clip.sound
    if rng.random() < 0.5:
        sound[:2] = 0.7 * clip.sound
    path = write(folder / name, Video(clip.pictures), [Track(sound, "7.1", codec)])
    return Made(path, whole(clip), {"codec": codec})


@kind
def voice_on_the_second_track(clip: Clip, rng: Draw, folder: Path) -> Made:
    """OBS: the first track is silent or hisses, the microphone is the second or third."""
    first = str(rng.choice(["silence", "hiss", "hum"]))
    n = len(clip.sound)
    noise = {"silence": np.zeros(n, np.float32), "hiss": _hiss(rng, n, 0.01), "hum": _hum(rng, n, 0.1)}[first]
    tracks = [Track(np.stack([noise, noise]), "stereo")] * int(rng.integers(1, 3))
    tracks.append(Track(clip.sound[None]))
    name = str(rng.choice(["a.mp4", "a.mov", "a.mkv"]))
    path = write(folder / name, Video(clip.pictures), tracks)
    return Made(path, whole(clip, facts=tell("several_tracks")), {"first": first, "name": name, "tracks": len(tracks)})


@kind
def dubbed_first(clip: Clip, rng: Draw, folder: Path) -> Made:
    """The default track is a dub; the one recorded with the picture is marked original."""
    dub = np.roll(clip.sound, int(rng.integers(RATE // 2, RATE * 2)))[::-1]
    tracks = [
        Track(np.ascontiguousarray(dub)[None], language="ger", disposition="default dub"),
        Track(clip.sound[None], language="eng", disposition="original"),
    ]
    path = write(folder / "a.mkv", Video(clip.pictures), tracks)
    return Made(path, whole(clip, facts=tell("several_tracks")))


@kind
def named_track(clip: Clip, rng: Draw, folder: Path) -> Made:
    """Several voices; the person says which track is right."""
    right = int(rng.integers(1, 4))
    others = [np.ascontiguousarray(np.roll(clip.sound, RATE * k)[::-1]) for k in range(1, 4)]
    tracks = [Track((clip.sound if k == right else others[k - 1])[None]) for k in range(1, 4)]
    path = write(folder / str(rng.choice(["a.mp4", "a.mkv"])), Video(clip.pictures), tracks)
    return Made(path, whole(clip, facts=tell("several_tracks")), {"right": right}, options={"audio_track": right})


@kind
def quiet_voice(clip: Clip, rng: Draw, folder: Path) -> Made:
    """A microphone that was turned down."""
    level = float(rng.choice([-20, -30, -40]))
    sound = clip.sound * 10 ** (level / 20)
    path = write(folder / "a.mkv", Video(clip.pictures), [Track(sound[None].astype(np.float32), codec="flac")])
    return Made(path, whole(clip), {"level": level})
