"""Awkward input files, made from real clips, with what must become of each."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def frames_of(path: Path) -> list[np.ndarray]:
    """All pictures of a clip, u1 [height, width, 3]."""
    with av.open(str(path)) as container:
        return [np.ascontiguousarray(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def sound_of(path: Path) -> np.ndarray:
    """Mono sound at 16 kHz, i2 [samples]."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", 16000)
        chunks = [r.to_ndarray() for f in container.decode(audio=0) for r in resampler.resample(f)]
    return np.concatenate(chunks, 1)[0]


def write_clip(
    path: Path, frames: list[np.ndarray] | None, sound: np.ndarray | None, fps: int | Fraction = 25, **options: str
) -> None:
    """An H.264 + AAC file of these pictures and this sound (16 kHz i2), either of which may be None."""
    with av.open(str(path), "w", options=options) as out:
        streams = {}
        if frames is not None:
            video = out.add_stream("libx264", rate=fps, options={"crf": "20"})
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = "yuv420p"
            streams["video"] = video
        if sound is not None:
            audio = out.add_stream("aac", rate=16000)
            audio.layout = "mono"
            streams["audio"] = audio
        if frames is not None:
            for frame in frames:
                out.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            out.mux(video.encode())
        if sound is not None:
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="s16", layout="mono")
            block.sample_rate = 16000
            for resampled in av.AudioResampler("fltp", "mono", 16000, frame_size=1024).resample(block):
                out.mux(audio.encode(resampled))
            out.mux(audio.encode())


def with_declared_second(mp4: bytes) -> bytes:
    """The same MP4 whose first track's media header (mdhd, version 0) declares a duration of one second."""
    at = mp4.index(b"mdhd") + 4
    assert mp4[at] == 0, "mdhd of version 1"
    timescale = mp4[at + 12 : at + 16]
    return mp4[: at + 16] + timescale + mp4[at + 20 :]


def build(folder: Path, good: Path, other: Path) -> dict[str, str]:
    """Fill `folder/real` with awkward files made from two real clips; {file name: reason in the ledger, "" = done}."""
    folder = folder / "real"
    (folder / "ünïcode 中文").mkdir(parents=True)
    frames, sound = frames_of(good), sound_of(good)
    expected = {}

    def case(name: str, reason: str) -> Path:
        expected[name] = reason
        return folder / name

    shutil.copy(good, case("ünïcode 中文/clip – 1.mp4", ""))
    right = frames_of(other)
    pairs = [np.hstack([a, b[:, 40:-40]]) for a, b in zip(frames, right, strict=False)]
    write_clip(case("two_faces.mp4", ""), pairs, sound)
    write_clip(case("no_sound.mp4", "no_audio"), frames, None)
    write_clip(case("no_video.mp4", "no_video"), None, sound)
    wall = [np.ascontiguousarray(np.tile(f[:72, :40], (4, 9, 1))) for f in frames]  # the corner behind the speaker
    write_clip(case("no_face.mp4", "no_face"), wall, sound)
    write_clip(case("short.mp4", "too_short"), frames[:5], sound[: 5 * 640])
    case("text.mp4", "unreadable").write_text("this is not a video\n")
    case("empty.mp4", "unreadable").touch()
    whole = good.read_bytes()
    case("cut.mp4", "truncated").write_bytes(whole[: len(whole) // 2])  # its index is in front and promises everything
    at = whole.index(b"mdat")
    case("frames_gone.mp4", "truncated").write_bytes(whole[: at + 4 + 2000] + bytes(len(whole) - at - 2004))
    case("lying.mp4", "").write_bytes(with_declared_second(whole))  # three seconds of video; the header says one
    joined = case("joined.mkv", "")  # two files, one after the other; the header is the first one's
    parts = [folder.parent / "a.mkv", folder.parent / "b.mkv"]
    for part, first, last in zip(parts, (0, 25), (25, 75), strict=True):
        write_clip(part, frames[first:last], sound[first * 640 : last * 640])
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    target = good.absolute()
    case("playlist.mp4", "unreadable").write_text(
        f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:3.0,\n{target}\n#EXT-X-ENDLIST\n"
    )
    case("concat.mp4", "unreadable").write_text(f"ffconcat version 1.0\nfile '{target}'\n")
    return expected
