"""Interlaced pictures become progressive ones; progressive pictures stay as they are, whatever their flags say."""

from fractions import Fraction as F

import av
import av.filter
import numpy as np
import pytest

from pipelines.media.fields import BLOCK, Fields
from pipelines.media.picture import Video

INTERLACED = 0x0004_0000 | 0x2000_0000  # AV_CODEC_FLAG_INTERLACED_DCT, _ME
STEP = 3  # pixels across that the head moves from one field to the next


@pytest.fixture(scope="module")
def moving(clips):
    """Two times for each of 40 pictures, u1 [80, 288, 360, 3]: a speaker who moves to and fro, 50 times a second."""
    shown = list(Video(clips / "clips" / "bbaf2n.mp4"))[:40]
    across = STEP * (20 - np.abs(np.arange(80) % 40 - 20))
    return np.stack([np.roll(shown[k // 2], int(across[k]), axis=1) for k in range(80)])


def woven(fields: np.ndarray, first: str) -> np.ndarray:
    """Pictures of two fields each, whose `first` is "tff" or "bff"."""
    out = fields[::2].copy()
    second = 1 if first == "tff" else 0
    out[:, second::2] = fields[1::2, second::2]
    return out


def write(path, pictures, codec, flagged="", pix_fmt="yuv420p"):
    """A file of 25 pictures a second, `flagged` as tff or bff, and coded so."""
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p") for picture in pictures]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options={"crf": "16"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pix_fmt
        if codec.startswith("mpeg"):
            stream.bit_rate = 8_000_000
        if flagged:
            stream.codec_context.flags |= INTERLACED
        graph = av.filter.Graph()
        source = graph.add_buffer(width=360, height=288, format="yuv420p", time_base=F(1, 25))
        mark, sink = graph.add("setfield", flagged or "prog"), graph.add("buffersink")
        source.link_to(mark)
        mark.link_to(sink)
        graph.configure()
        for k, frame in enumerate(frames):
            frame.pts, frame.time_base = k, F(1, 25)
            graph.push(frame)
            marked = graph.pull()
            out.mux(stream.encode(marked.reformat(format=pix_fmt)))
        out.mux(stream.encode(None))
    return path


def error(found, wanted) -> float:
    """Mean difference of grey levels, where what is wanted moves: in the middle of the picture."""
    a, b = (np.stack(pictures)[:, 60:240, 80:280].astype(float).mean(axis=-1) for pictures in (found, wanted))
    return float(np.abs(a - b).mean())


@pytest.mark.parametrize(
    ("name", "codec", "flagged", "pix_fmt"),
    [
        ("a.mpg", "mpeg2video", True, "yuv420p"),
        ("a.ts", "mpeg2video", True, "yuv420p"),
        ("a.mp4", "libx264", True, "yuv420p"),
        ("unflagged.mkv", "libx264", False, "yuv420p"),
        ("deep.mkv", "ffv1", False, "yuv422p10le"),
        ("a.avi", "mpeg4", False, "yuv420p"),
    ],
)
@pytest.mark.parametrize("first", ["tff", pytest.param("bff", marks=pytest.mark.slow)])
def test_combs_go(tmp_path, moving, monkeypatch, name, codec, flagged, pix_fmt, first):
    path = write(tmp_path / name, woven(moving, first), codec, first if flagged else "", pix_fmt)
    video = Video(path)
    found = list(video)
    assert len(found) == 40
    assert [fact.kind for fact in video.facts] == ["interlaced"]
    wanted = moving[::2]  # at the times of the first fields
    assert error(found, wanted) < error(found, moving[1::2])
    monkeypatch.setattr(Fields, "progressive", lambda self, spans: spans)
    assert error(found, wanted) < 0.6 * error(list(Video(path)), wanted)


@pytest.mark.parametrize("flagged", ["", "tff", "bff"])
@pytest.mark.parametrize(("name", "codec"), [("a.mpg", "mpeg2video"), ("a.mp4", "libx264")])
def test_progressive_pictures_stay(tmp_path, moving, name, codec, flagged, monkeypatch):
    path = write(tmp_path / name, moving[::2], codec, flagged)
    with av.open(str(path)) as container:
        assert all(frame.interlaced_frame == bool(flagged) for frame in container.decode(video=0))
    video = Video(path)
    found = list(video)
    assert video.facts == []
    monkeypatch.setattr(Fields, "progressive", lambda self, spans: spans)
    assert np.array_equal(np.stack(found), np.stack(list(Video(path))))


def test_clips_of_people_are_progressive(clips):
    for path in sorted((clips / "clips").glob("*.mp4")):
        video = Video(path)
        assert len(list(video)) == 75
        assert video.facts == [], path.name


@pytest.mark.parametrize("form", ["nv12", "yuv420p", "yuv422p10le", "yuv411p"])
def test_the_matrix_and_the_range_stay(moving, form):
    frames = [av.VideoFrame.from_ndarray(p, format="rgb24").reformat(format=form) for p in woven(moving, "tff")[:24]]
    for k, frame in enumerate(frames):
        frame.pts, frame.time_base, frame.colorspace, frame.color_range = k, F(1, 25), 1, 2
    fields = Fields()
    found = [frame for *_, frame in fields.progressive([(F(k, 25), F(k + 1, 25), f) for k, f in enumerate(frames)])]
    assert fields.found
    assert {(frame.colorspace, frame.color_range) for frame in found} == {(1, 2)}


def test_order_and_times_survive_every_change(moving):
    """Interlaced, then progressive, then of another size, of few pictures: each span comes once, in order."""
    parts = [woven(moving, "tff")[:19], moving, moving[::2, :144, :180][:2], woven(moving[:, ::2, ::2], "bff")]
    frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(p), format="rgb24") for part in parts for p in part]
    frames = [frame.reformat(format="yuv420p") for frame in frames]
    for k, frame in enumerate(frames):
        frame.pts, frame.time_base = 7 * k, F(1, 90)
    fields = Fields()
    given = [(F(k, 3), F(k + 1, 3), frame) for k, frame in enumerate(frames)]
    found = list(fields.progressive(iter(given)))
    assert [span[:2] for span in found] == [span[:2] for span in given]
    assert [(f.width, f.height) for *_, f in found] == [(f.width, f.height) for f in frames]
    assert fields.found
    assert all(a[2] is b[2] for a, b in zip(found[19 + 3 * BLOCK : 99], given[19 + 3 * BLOCK : 99], strict=True))
