"""Corpora made from real clips of one speaker, clean or with four faults planted in them, to see whether an audit finds them.

    python tests/support/planted.py FOLDER_OF_CLIPS --seeds 10     # how often it does, over sizes, bit rates, containers and
    silences

Every clip of a corpus is coded by the same coder, fakes and reals alike; a fake is the picture of one clip with the sound of
another, so nothing but its content tells it. Invented people, each with clips of one split.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from awkward import frames_of, sound_of

from pipelines.audit.found import Found
from pipelines.corpora.manifest import Row, with_groups

KINDS = ("file", "content", "identity", "silence")


@dataclass(frozen=True)
class Coding:
    """How a clip is written: container, picture size (width, height), bits a second and coders."""

    container: str = "mp4"
    size: tuple[int, int] = (240, 192)
    bit_rate: int = 120_000
    sound_rate: int = 48_000
    video: str = "libx264"
    audio: str = "aac"
    rate: int = 16_000  # samples a second
    gain: float = 1.0


OTHERS = (  # for copies coded anew
    Coding("mp4", (180, 144), 60_000, 24_000),
    Coding("mkv", (320, 240), 300_000, 64_000, audio="libmp3lame", rate=22_050, gain=0.5),
    Coding("webm", (240, 192), 100_000, 24_000, video="libvpx", audio="libopus", rate=48_000),
    Coding("avi", (160, 128), 200_000, 32_000, video="mpeg4", audio="libmp3lame", gain=0.7),
    Coding("mov", (480, 384), 500_000, 96_000, rate=44_100),
)


def write(path: Path, frames: Sequence[np.ndarray], sound: np.ndarray, coding: Coding) -> Path:
    """A clip of pictures u1 [height, width, 3] at 25 a second and mono sound i2 at 16 kHz; its suffix is the container's."""
    path = path.with_suffix(f".{coding.container}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        picture = out.add_stream(coding.video, rate=25, options={"preset": "veryfast", "deadline": "realtime"})
        picture.width, picture.height = coding.size
        picture.pix_fmt, picture.bit_rate = "yuv420p", coding.bit_rate
        picture.codec_context.thread_count = 1
        voice = out.add_stream(coding.audio, rate=coding.rate, layout="mono")
        voice.bit_rate = coding.sound_rate
        packets = []
        for k, frame in enumerate(frames):
            small = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(*coding.size, "yuv420p")
            small.pts, small.time_base = k, Fraction(1, 25)
            packets += picture.encode(small)
        packets += picture.encode(None)
        block = av.AudioFrame.from_ndarray((sound * coding.gain).astype(np.int16)[None], "s16", "mono")
        block.sample_rate = 16_000
        num = voice.codec_context.frame_size or 1024
        resampler = av.AudioResampler(voice.codec_context.format.name, "mono", coding.rate, frame_size=num)
        at = 0
        for piece in [*resampler.resample(block), *resampler.resample(None)]:
            if piece is not None:
                piece.pts, piece.time_base = at, Fraction(1, coding.rate)
                at += piece.samples
                packets += voice.encode(piece)
        packets += voice.encode(None)
        for packet in sorted(packets, key=lambda p: (p.dts if p.dts is not None else p.pts) * p.time_base):
            out.mux(packet)
    return path


def silenced(sound: np.ndarray, seconds: float, prepend: bool) -> np.ndarray:
    """Sound with digital silence put before it, or in place of its beginning."""
    num = round(seconds * 16_000)
    return np.concatenate([np.zeros(num, np.int16), sound if prepend else sound[num:]])


def corpus(
    folder: Path,
    clips: Sequence[Path],
    seed: int,
    plant: Sequence[str] = (),
    num: int = 48,
    coding: Coding = Coding(),
    other: Coding | None = None,
    silence_s: float = 0.2,
    prepend: bool = False,
    fake_share: float = 0.5,
) -> list[Row]:
    """Rows of `num` clips in train, val and test, made under `folder` from as many real ones; `plant` names faults of KINDS.

    file: two train clips lie in test too, under other names; content: two are coded anew as `other` there (None: by seed);
    identity: a person of train has two of the test clips; silence: fakes begin with `silence_s` of it.
    """
    rng = random.Random(seed)
    chosen = rng.sample(list(clips), num)
    people = [f"p{k:03d}" for k in range(max(num // 2, 6))]
    splits = ["train"] * (len(people) // 2) + ["val"] * (len(people) // 6)
    splits += ["test"] * (len(people) - len(splits))
    kinds = [1] * round(num * fake_share) + [0] * (num - round(num * fake_share))
    rng.shuffle(kinds)
    sounds = {path: sound_of(path) for path in chosen}
    rows = []
    for k, path in enumerate(chosen):
        person, fake = k % len(people), kinds[k]
        sound = sounds[chosen[k - 1]] if fake else sounds[path]
        if fake and "silence" in plant:
            sound = silenced(sound, silence_s, prepend)
        file = write(folder / f"{rng.randrange(16**8):08x}", frames_of(path), sound, coding)
        rows.append(
            Row(
                str(file),
                label=fake,
                audio_fake=fake,
                video_fake=0,
                method="swap" if fake else "",
                identities=(people[person],),
                split=splits[person],
                id=f"c/{file.name}",
                corpus="c",
            )
        )
    train, test = ([row for row in rows if row.split == split and row.label == 0] for split in ("train", "test"))
    train, test = rng.sample(train, len(train)), rng.sample(test, len(test))
    more = []
    for kind in ("file", "content"):
        for _ in range(2 if kind in plant else 0):
            row, host = train.pop(), rng.choice(test)
            file = folder / f"{rng.randrange(16**8):08x}{Path(row.path).suffix}"
            if kind == "file":
                shutil.copy(row.path, file)
            else:
                file = write(file, frames_of(Path(row.path)), sound_of(Path(row.path)), other or OTHERS[seed % 5])
            more.append(replace(host, path=str(file), id=f"c/{file.name}"))
    if "identity" in plant:
        known = train[-1].identities
        moved = {row.id for row in test[:2]}
        rows = [replace(row, identities=known) if row.id in moved else row for row in rows]
    return with_groups(rows + more)


def found_in(found: Found) -> set[str]:
    """Which of KINDS an audit names; anything else that it calls a finding by its own name."""
    kinds = {leak.kind for leak in found.leaks}
    kinds |= {"silence" if s.nuisance.startswith("leading_silence") else s.nuisance for s in found.above}
    return kinds


def main() -> None:
    import argparse
    import tempfile

    from pipelines.audit.found import audit, of_media

    def all_of(rows: list[Row]) -> set[str]:
        return found_in(audit(rows, of_media(rows)))

    parser = argparse.ArgumentParser(
        description="How often an audit finds what was planted, and calls clean corpora clean."
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--num", type=int, nargs="+", default=[32, 48, 60])
    args = parser.parse_args()
    paths = sorted(p for p in args.clips.iterdir() if p.suffix == ".mp4")
    hits: dict[str, int] = dict.fromkeys(KINDS, 0)
    clean = 0
    for seed in range(args.first, args.first + args.seeds):
        rng = random.Random(1000 + seed)
        options = {"num": args.num[seed % len(args.num)], "coding": rng.choice([Coding(), *OTHERS])}
        options |= {"silence_s": rng.choice([0.05, 0.1, 0.2, 0.5]), "prepend": bool(rng.getrandbits(1))}
        options["fake_share"] = rng.choice([0.3, 0.5, 0.6])
        with tempfile.TemporaryDirectory() as folder:
            none = all_of(corpus(Path(folder) / "a", paths, seed, **options))
            some = all_of(corpus(Path(folder) / "b", paths, seed, KINDS, **options))
        for kind in KINDS:
            hits[kind] += kind in some
        clean += not none
        print(seed, options, "planted:", sorted(some), "clean:", sorted(none), flush=True)
    print(f"of {args.seeds}: " + ", ".join(f"{kind} {n}" for kind, n in hits.items()) + f"; clean called clean {clean}")


if __name__ == "__main__":
    main()
