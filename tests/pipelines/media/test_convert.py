"""Each picture as it is displayed: its own size, shape of pixels and orientation; HDR like SDR."""

from fractions import Fraction as F
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from pipelines.media.convert import PEAK, WHITE, Converter, toned
from pipelines.media.picture import Video
from teachers import lips
from teachers.face.tracker import FaceTracker

BT2020 = 0.2627, 0.6780, 0.0593  # luminance of red, green, blue (BT.2020-2, table 4)
TRANSFERS = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}


def pictures(path) -> np.ndarray:
    return np.stack(list(Video(path)))


@pytest.fixture(scope="module")
def base(clips):
    return clips / "clips" / "bbaf2n.mp4"


def light_of(sdr: np.ndarray) -> np.ndarray:
    """Light on the display, in cd/m2 and the primaries of BT.2020, of rgb24; highlights as they are."""
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087-0
    return WHITE * (sdr / 255) ** 2.4 @ to_2020.T


def signal_of(light: np.ndarray, tone: ColorTrc) -> np.ndarray:
    """PQ or HLG, 0 to 1, of light in cd/m2: BT.2100-2, tables 4 and 5, written down from there once more."""
    if tone is ColorTrc.SMPTE2084:
        y = np.maximum(light / 10_000, 0) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    seen = np.maximum(light, 0) / PEAK
    luminance = np.maximum(seen @ BT2020, 1e-9)[..., None]
    scene = seen * luminance ** (1 / 1.2 - 1)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def write(path, frames, codec="ffv1", **values):
    """A file of ready frames, 25 a second; `values` are set in the encoder."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        for name, value in values.items():
            setattr(stream.codec_context, name, value)
        for k, frame in enumerate(frames):
            frame.pts, frame.time_base = k, F(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("tone", TRANSFERS)
@pytest.mark.parametrize("full", [False, True])
def test_hdr_looks_like_sdr(tmp_path, base, tone, full):
    sdr = pictures(base)[:12]
    frames = []
    for picture in sdr:
        deep = np.round(65535 * signal_of(light_of(picture), tone)).astype(np.uint16)
        frame = VideoReformatter().reformat(
            av.VideoFrame.from_ndarray(deep, format="rgb48le"),
            format="yuv420p10le",
            dst_colorspace=Colorspace.BT2020,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        )
        frames.append(frame)
    values = {"color_trc": tone, "color_primaries": ColorPrimaries.BT2020, "colorspace": 9}
    values["color_range"] = ColorRange.JPEG if full else ColorRange.MPEG
    video = Video(write(tmp_path / "hdr.mkv", frames, **values))
    found = np.stack(list(video)).astype(float)
    assert [(fact.kind, fact.text) for fact in video.facts] == [
        ("hdr", f"the picture is HDR ({TRANSFERS[tone]}) and was tone-mapped")
    ]
    dark = sdr.max(axis=-1) < 0.78 * 255  # below the knee
    assert np.abs(found - sdr)[dark].mean() < 4  # grey levels: chroma is stored at half the size
    assert np.corrcoef(found.ravel(), sdr.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("tone", TRANSFERS)
def test_tones_are_exact_below_the_knee_and_rise_to_white(tone):
    grey = np.repeat(np.arange(256)[None, :, None], 3, axis=2)
    found = toned(np.round(65535 * signal_of(light_of(grey), tone)).astype(np.uint16), tone)[0].astype(int)
    assert np.abs(found - grey[0])[: int(0.8 * 255)].max() <= 1
    assert (np.diff(found[:, 1]) >= 0).all()
    bright = np.linspace(WHITE, PEAK, 50)[None, :, None].repeat(3, axis=2)
    shown = toned(np.round(65535 * signal_of(bright, tone)).astype(np.uint16), tone)[0, :, 1].astype(int)
    assert (np.diff(shown) >= 0).all()
    assert shown[0] < 235
    assert shown[-1] >= 253


def test_linear_light_and_unknown_primaries():
    light = np.round(65535 * (np.arange(200) / 255) ** 2.4).astype(np.uint16)[None, :, None].repeat(3, axis=2)
    assert np.abs(toned(light, ColorTrc.LINEAR, 2)[0, :, 0].astype(int) - np.arange(200))[20:].max() <= 1


@pytest.mark.parametrize("name", ["hdr_pq.mp4", "hdr_hlg.mov"])
def test_hdr_files_give_the_mouths_of_the_base_clip(shared, base, name):
    tracker, teacher = FaceTracker(), lips.load("", "cpu")
    crops, rows = [], []
    for path in (base, shared / "cases" / name):
        track = tracker.track(Video(path))
        crops.append(track.mouth)
        faces = SimpleNamespace(flags=track.detected.astype(np.uint8), lips=track.lips, num_frames=len(track.lips))
        rows.append(teacher.embed([faces])[0].ravel())
    assert crops[1].std(axis=(1, 2)).mean() == pytest.approx(crops[0].std(axis=(1, 2)).mean(), abs=1.5)
    assert np.corrcoef(crops[0].ravel(), crops[1].ravel())[0, 1] > 0.98
    assert rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1]) > 0.98


def joined(path, parts, codec="libx264"):
    """An MPEG-TS of parts (pictures u1 [frames, height, width, 3], shape of a pixel), one coded after the other."""
    packets, at = [], 0
    for shown, aspect in parts:
        coder = av.CodecContext.create(codec, "w")
        coder.height, coder.width = shown.shape[1:3]
        coder.pix_fmt, coder.time_base, coder.framerate = "yuv420p", F(1, 25), F(25)
        coder.sample_aspect_ratio = aspect
        coder.bit_rate = 4_000_000
        for picture in shown:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = at, F(1, 25)
            packets += coder.encode(frame)
            at += 1
        packets += coder.encode(None)
    with av.open(str(path), "w", format="mpegts") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width = parts[0][0].shape[1:3]
        stream.codec_context.sample_aspect_ratio = parts[0][1]
        for packet in packets:
            packet.stream, packet.time_base = stream, F(1, 25)
            out.mux(packet)
    return path


def resized(pictures, width, height):
    import cv2

    return np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures])


def runs(shapes):
    """(first frame, height, width) of each run of equal shapes."""
    return [(k, *s[:2]) for k, s in enumerate(shapes) if not k or s != shapes[k - 1]]


def test_each_picture_has_its_own_size(tmp_path, base):
    first = pictures(base)[:24]
    parts = [(resized(first[:8], 180, 144), F(1)), (first[8:16], F(1)), (resized(first[16:], 144, 180), F(1))]
    video = Video(joined(tmp_path / "grows.ts", parts))
    found = list(video)
    assert runs([p.shape for p in found]) == [(0, 144, 180), (8, 288, 360), (16, 180, 144)]
    assert [f.text for f in video.facts] == ["the picture changes its size: 180x144, 360x288, 144x180"]
    wanted = [picture for part, _ in parts for picture in part]
    for k in (3, 12, 20):  # full detail: nothing was scaled to the first one's size
        assert np.abs(found[k].astype(float) - wanted[k]).mean() < 6


def test_each_picture_has_its_own_shape_of_pixels(tmp_path, base):
    """As where television switches between 4:3 and 16:9 in pictures of one size."""
    first = resized(pictures(base)[:40], 180, 144)
    parts = [(first[:20], F(16, 15)), (first[20:], F(64, 45))]
    video = Video(joined(tmp_path / "anamorphic.ts", parts, "mpeg2video"))
    found = runs([p.shape for p in video])
    assert [shape for _, *shape in found] == [[144, 192], [144, 256]]
    assert abs(found[1][0] - 20) <= 2  # the decoder tells of a change when it reads it, a few pictures early
    assert [f.kind for f in video.facts] == ["size_changes"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("size_turns_portrait.webm", [(0, 288, 360), (25, 576, 460)]),
        ("size_grows.webm", [(0, 72, 90), (25, 576, 720)]),
    ],
)
def test_files_that_change_their_size(shared, name, sizes):
    video = Video(shared / "cases" / name)
    assert runs([p.shape for p in video]) == sizes
    assert [f.kind for f in video.facts] == ["size_changes"]


def test_the_display_matrix_of_each_frame_counts():
    """A phone that is turned while it films writes the matrix anew (SEI in H.264 and HEVC)."""
    stream = SimpleNamespace(sample_aspect_ratio=F(1), codec_context=SimpleNamespace(sample_aspect_ratio=F(1)))
    convert: Any = Converter(stream)
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 250
    quarter = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], np.int32).tobytes()
    convert._scaled = lambda frame, width, height: picture  # what is scaled is not the question here
    shapes = []
    for matrix in (None, quarter, None):
        frame = SimpleNamespace(width=96, height=64, opaque=None, side_data={"DISPLAYMATRIX": matrix} if matrix else {})
        shapes.append(convert(frame).shape[:2])
    assert shapes == [(64, 96), (96, 64), (64, 96)]
    assert [f.text for f in convert.facts()] == ["the picture changes its size: 96x64, 64x96"]
