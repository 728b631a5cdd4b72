"""Files whose headers or time stamps are wrong."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from made.boxes import set_durations, set_edits
from made.kinds import Draw, Made, Right, kind, tell, whole
from made.writing import FPS, RATE, Clip, Stamped, Track, Video, concatenated, write


def _mono(clip: Clip, codec: str = "aac") -> list[Track]:
    return [Track(clip.sound[None], codec=codec)]


@kind
def stale_duration_tag(clip: Clip, rng: Draw, folder: Path) -> Made:
    """Cut by a tool that copied the statistics of the whole film."""
    told = f"{rng.integers(0, 3):02d}:{rng.integers(10, 60)}:{rng.integers(10, 60)}.{rng.integers(100, 999)}000000"
    name = str(rng.choice(["DURATION-eng", "DURATION-fra", "DURATION-jpn"]))
    path = write(folder / "a.mkv", Video(clip.pictures), _mono(clip), tags={name: told})
    return Made(path, whole(clip), {name: told})


@kind
def header_lies(clip: Clip, rng: Draw, folder: Path) -> Made:
    """Durations in the headers are too long or too short; the index is true."""
    factor = float(rng.choice([0.2, 0.5, 1.5, 10, 400]))
    path = write(folder / "a.mp4", Video(clip.pictures), _mono(clip))
    set_durations(path, factor)
    return Made(path, whole(clip), {"factor": factor})


@kind
def no_composition_offsets(clip: Clip, rng: Draw, folder: Path) -> Made:
    """B-frames whose presentation times are the decoding times."""
    depth = int(rng.integers(1, 4))
    options = {"bf": str(depth), "b-adapt": "0", "crf": str(rng.integers(14, 24))}
    if rng.random() < 0.5:
        options["x264-params"] = "b-pyramid=none"

    first: list[int] = []  # the decoding times start before the presentation; a writer without offsets starts at 0

    def change(one: Stamped) -> Stamped:
        if one.kind != "video":
            return one
        first.append(one.dts)
        return replace(one, pts=one.dts - first[0], dts=one.dts - first[0])

    name = str(rng.choice(["a.mp4", "a.mov"]))
    path = write(folder / name, Video(clip.pictures, options=options), _mono(clip), change)
    return Made(path, whole(clip), {"options": options, "name": name})


@kind
def clock_starts_anew(clip: Clip, rng: Draw, folder: Path) -> Made:
    """Two transport streams joined by their bytes."""
    at = int(rng.integers(20, len(clip.pictures) - 20))
    parts = []
    for k, (first, last) in enumerate([(0, at), (at, len(clip.pictures))]):
        sound = clip.sound[first * RATE // FPS : last * RATE // FPS]
        parts.append(write(folder / f"{k}.ts", Video(clip.pictures[first:last]), [Track(sound[None], codec="mp2")]))
    return Made(concatenated(folder / "a.ts", parts), whole(clip, facts=tell("clock_repaired")), {"at": at})


@kind
def clock_jumps(clip: Clip, rng: Draw, folder: Path) -> Made:
    """Both streams jump forward together; nothing was on display meanwhile."""
    at = Fraction(int(rng.integers(20, len(clip.pictures) - 20)), FPS)
    by = float(rng.choice([12, 60, 700, 3600, 20_000]))
    name = str(rng.choice(["a.ts", "a.mkv", "a.flv"]))

    def change(one: Stamped) -> Stamped:
        return one.moved(by) if one.time >= at else one

    codec = "mp2" if name == "a.ts" else "aac"
    path = write(folder / name, Video(clip.pictures, options={"bf": "0"}), _mono(clip, codec), change)
    return Made(path, whole(clip, facts=tell("clock_repaired")), {"at": float(at), "by": by, "name": name})


@kind
def clock_wraps(clip: Clip, rng: Draw, folder: Path) -> Made:
    """A transport stream whose 33 bits of time wrap."""
    before = float(rng.uniform(0.5, len(clip.pictures) / FPS - 0.5))
    start = Fraction(int((2**33 / 90_000 - before) * FPS), FPS)

    def change(one: Stamped) -> Stamped:
        return one.moved(start)

    muxer = {"mpegts_copyts": "1"}
    path = write(folder / "a.ts", Video(clip.pictures), _mono(clip, "mp2"), change, muxer=muxer)
    return Made(path, whole(clip), {"before": before})


@kind
def empty_edit(clip: Clip, rng: Draw, folder: Path) -> Made:
    """An edit list that waits, then shows a part of the media."""
    wait = float(rng.choice([0.2, 0.5, 1.0, 2.5]))
    first, last = int(rng.integers(0, 10)), len(clip.pictures) - int(rng.integers(0, 15))
    path = write(
        folder / "a.mp4", Video(clip.pictures, options={"bf": "0", "g": "1"}), _mono(clip, "pcm_s16le"), form="mov"
    )
    set_edits(path, [(wait, -1), ((last - first) / FPS, first / FPS)])
    return Made(path, Right(np.arange(first, last)), {"wait": wait, "first": first, "last": last})


@kind
def pieces_of_an_edit_list(clip: Clip, rng: Draw, folder: Path) -> Made:
    """Two pieces of the media, as cutters write them."""
    n = len(clip.pictures)
    a, b = sorted(rng.choice(np.arange(18, n - 18), 2, replace=False).tolist())
    b = max(b, a + 5)
    first = int(rng.integers(0, 5))
    gop = str(rng.choice(["1", "12", "250"]))
    pieces = [(first, a), (b, n - int(rng.integers(0, 5)))]
    codec = str(rng.choice(["aac", "pcm_s16le"]))
    path = write(folder / "a.mov", Video(clip.pictures, options={"g": gop}), _mono(clip, codec))
    set_edits(path, [((stop - start) / FPS, start / FPS) for start, stop in pieces])
    shown = np.concatenate([np.arange(start, stop) for start, stop in pieces])
    return Made(path, Right(shown, lips=0.9), {"pieces": pieces, "gop": gop, "codec": codec})


@kind
def avi_without_index(clip: Clip, rng: Draw, folder: Path) -> Made:
    """An AVI whose writer was killed: no index, sizes that are not true."""
    codec = str(rng.choice(["libmp3lame", "pcm_s16le", "ac3"]))
    options = {"bf": str(rng.integers(0, 3))}
    path = write(folder / "a.avi", Video(clip.pictures, codec="mpeg4", options=options), _mono(clip, codec))
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"idx1")])
    return Made(path, whole(clip), {"codec": codec, "options": options})


@kind
def late_sound(clip: Clip, rng: Draw, folder: Path) -> Made:
    """The packets of the sound begin far behind those of the picture in the file, later than a header's reader looks."""
    late = int(rng.integers(1, 10))
    name, codec = [("a.ts", "mp2"), ("a.ts", "aac"), ("a.mkv", "aac"), ("a.mpg", "mp2")][rng.integers(0, 4)]
    silent = late * FPS
    pictures = [*[clip.pictures[0]] * silent, *clip.pictures]

    def change(one: Stamped) -> Stamped | None:
        return one.moved(late) if one.kind == "audio" else one

    options = {"bf": "0"} if name == "a.mpg" else {}  # program streams stamp few pictures, and B-frames are guessed
    path = write(folder / name, Video(pictures, options=options), _mono(clip, codec), change)
    source = np.concatenate([np.full(silent, -1), np.arange(len(clip.pictures))])
    return Made(path, Right(source), {"late": late, "name": name, "codec": codec})


@kind
def live_file(clip: Clip, rng: Draw, folder: Path) -> Made:
    """A recording without lengths in its header: fragmented MP4, live Matroska, FLV without metadata."""
    name, muxer = [
        ("a.mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
        ("a.mkv", {"live": "1"}),
        ("a.flv", {"flvflags": "no_duration_filesize"}),
    ][rng.integers(0, 3)]
    gop = str(rng.choice(["12", "25", "250"]))
    path = write(folder / name, Video(clip.pictures, options={"g": gop}), _mono(clip), muxer=muxer)
    return Made(path, whole(clip), {"name": name, "gop": gop})


@kind
def sound_in_a_file_of_its_own(clip: Clip, rng: Draw, folder: Path) -> Made:
    """Picture in one file, sound in another, which starts with it."""
    name, codec = [("b.wav", "pcm_s16le"), ("b.m4a", "aac"), ("b.aac", "aac"), ("b.mka", "aac"), ("b.mka", "libopus"),
                   ("b.mp3", "libmp3lame"), ("b.flac", "flac"), ("b.ogg", "libopus")][rng.integers(0, 8)]  # fmt: skip
    path = write(folder / "a.mp4", Video(clip.pictures), [])
    sound = _sound_alone(folder / name, Track(clip.sound[None], codec=codec))
    return Made(path, whole(clip), {"name": name, "codec": codec}, audio_path=sound)


def _sound_alone(path: Path, track: Track) -> Path:
    import av

    from made.writing import _sound_stream, _sounds

    with av.open(str(path), "w", format="adts" if path.suffix == ".aac" else None) as out:
        stream = _sound_stream(out, track)
        for _, packet in _sounds(track, stream, 0):
            out.mux(packet)
    return path
