"""Decoding on the one clock: flashes and clicks in every container, rate and offset, and every kind of bad file.

Files are made here with PyAV. Source picture i has grey level LEVELS[i % 8], so each output frame tells which source
picture it shows; clicks are bursts of 1.2 kHz, found by matched filter.
"""

import os
import pickle
import struct
from fractions import Fraction as F
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.media.files import MediaError, open_media
from pipelines.media.picture import Video, select_frames
from pipelines.media.probe import probe
from pipelines.media.sound import decode_sound
from store.layout import SAMPLE_RATE

LEVELS = [30 + 28 * ((5 * i) % 8) for i in range(8)]
MS = F(1, 1000)
FAST = {
    "libx264": {"preset": "ultrafast", "qp": "12", "bf": "2", "b-adapt": "0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "qmin": "4", "qmax": "20", "b": "1M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "qmin": "4", "qmax": "20", "b": "1M"},
    "mpeg4": {"qscale": "2", "flags": "+qscale", "global_quality": "236", "b": "4M"},
    "mpeg1video": {"b": "4M", "bf": "2"},
    "mjpeg": {"b": "4M"},
}


@lru_cache
def burst(rate: int) -> np.ndarray:
    """One click, 10 ms, its middle at the middle sample."""
    t = np.arange(-int(0.005 * rate), int(0.005 * rate) + 1) / rate
    return 0.8 * np.exp(-((t / 0.002) ** 2)) * np.cos(2 * np.pi * 1200 * t)


def clicks(times: list[float], length: float, rate: int) -> np.ndarray:
    """Sound with a click at each time, rounded to a sample."""
    x = np.zeros(round(length * rate))
    half = len(burst(rate)) // 2
    for time in times:
        at = round(time * rate)
        x[at - half : at + half + 1] += burst(rate)
    return x


def make(
    path,
    times,
    end,
    *,
    video="libx264",
    audio="aac",
    rate=48_000,
    layout="mono",
    video_start=F(0),
    audio_start=F(0),
    click_times=(0.3, 0.7),
    x=None,
    fps=F(25),
    time_base=None,
    format=None,
    muxer=None,
    size=(64, 64),
    rotation=None,
    options=None,
    sample_aspect=None,
):
    """Write a clip: pictures at `times` (seconds from the first, which is at `video_start`) until `end`; sound from
    `audio_start` to `end` + `video_start` with clicks at `click_times` after the first picture."""
    out = av.open(str(path), "w", format=format, options=muxer or {})
    stream = out.add_stream(video, rate=fps, options=FAST.get(video, {}) | (options or {}))
    stream.width, stream.height = size
    stream.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
    stream.codec_context.thread_count = 1
    base = time_base or 1 / fps
    video_start = round(video_start / base) * base
    stream.codec_context.time_base = base
    if sample_aspect:
        stream.codec_context.sample_aspect_ratio = sample_aspect
    if rotation is not None:
        stream.set_display_rotation(*rotation)
    voice = out.add_stream(audio, rate=rate, layout=layout) if audio else None
    packets = []
    for i, time in enumerate(times):
        level = LEVELS[i % 8]
        picture = np.full((size[1], size[0], 3), level, np.uint8)
        if rotation is not None or sample_aspect:
            picture[: size[1] // 2, : size[0] // 2] = 250  # top left, so that turns show
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.time_base, frame.pts = base, round((time + video_start) / base)
        frame.duration = round(((times[i + 1] if i + 1 < len(times) else end) - time) / base)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    if voice is not None:
        if x is None:
            start = float(audio_start - video_start)
            x = clicks([t - start for t in click_times], float(end) - start, rate)
        block = voice.codec_context.frame_size or 1024
        channels = voice.codec_context.layout.nb_channels
        for at in range(0, len(x), block):
            part = np.tile(x[at : at + block].astype(np.float32), (channels, 1))
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, F(1, rate), at + round(audio_start * rate)
            packets += voice.encode(frame)
        packets += voice.encode(None)
    for packet in sorted(packets, key=lambda p: (p.dts if p.dts is not None else p.pts) * p.time_base):
        out.mux(packet)
    out.close()
    return path


def even(fps, length=F(1)):
    """Times of pictures at a constant rate, and their end."""
    count = int(length * fps)
    return [F(i) / fps for i in range(count)], count / fps


def uneven():
    """Variable rate: long and short gaps, in whole milliseconds, one of 200 ms."""
    gaps = [33, 17, 40, 20, 61, 33, 200, 16, 17, 90, 41, 29, 50, 70, 33, 33, 60, 17, 80, 60]
    times = [F(sum(gaps[:i]), 1000) for i in range(len(gaps))]
    return times, F(sum(gaps), 1000)


def show(path):
    """(video, level of each frame)."""
    video = Video(path)
    levels = np.array([picture.mean() for picture in video])
    assert len(levels) == video.num_frames
    return video, levels


def assert_pictures(levels, times, end, slack=MS):
    """Each output frame shows the source picture at its middle (or within `slack` of it: containers round)."""
    assert abs(len(levels) - end * 25) <= F(1, 2) + 25 * slack, (len(levels), float(end))
    for k, level in enumerate(levels):
        middle = (k + F(1, 2)) / 25
        near = [max([i for i, t in enumerate(times) if t <= m], default=0) for m in (middle - slack, middle + slack)]
        got = int(np.argmin(np.abs(np.array(LEVELS) - level)))
        assert got in {i % 8 for i in near}, (k, float(level), near, [round(v) for v in levels])


def click_errors(samples, times, reach_s=0.05):
    """Seconds by which each click is late in `samples` (16 kHz)."""
    x = samples.astype(float) / 32768
    template = burst(SAMPLE_RATE)
    half = len(template) // 2
    padded = np.pad(x, half)
    match = np.correlate(padded, template, "valid")
    errors = []
    for time in times:
        low = max(round((time - reach_s) * SAMPLE_RATE), 1)
        high = min(round((time + reach_s) * SAMPLE_RATE), len(match) - 1)
        at = low + int(np.argmax(match[low:high]))
        left, mid, right = match[at - 1 : at + 2]
        at += 0.5 * (left - right) / (left - 2 * mid + right)
        assert mid > 0.3 * np.sum(template**2), f"no click near {time} s"
        errors.append(at / SAMPLE_RATE - time)
    return errors


RATES = {
    "23.976": F(24000, 1001),
    "25": F(25),
    "29.97": F(30000, 1001),
    "50": F(50),
    "60": F(60),
    "variable": None,
}
KINDS = {
    "mp4": ("mp4", "libx264", "aac", 44_100),
    "mov": ("mov", "libx264", "aac", 48_000),
    "mov-pcm": ("mov", "mpeg4", "pcm_s16le", 16_000),
    "mkv": ("mkv", "libx264", "aac", 22_050),
    "mkv-mp3": ("mkv", "mpeg4", "libmp3lame", 44_100),
    "webm-vp8": ("webm", "libvpx", "libopus", 48_000),
    "webm-vp9": ("webm", "libvpx-vp9", "libopus", 48_000),
    "avi-pcm": ("avi", "mpeg4", "pcm_s16le", 44_100),
    "avi-mp3": ("avi", "mpeg4", "libmp3lame", 44_100),
    "avi-mjpeg": ("avi", "mjpeg", "pcm_s16le", 16_000),
    "mpg": ("mpg", "mpeg1video", "mp2", 44_100),
}
OFFSETS_MS = {"together": 0, "sound-late": 120, "sound-early": -80}


def matrix():
    """Every kind at every rate; each with every offset only in the longer set, but for rates that vary."""
    for of_kind, (kind, (suffix, *_)) in enumerate(KINDS.items()):
        for of_rate, rate in enumerate(RATES):
            for k, offset in enumerate(OFFSETS_MS):
                if suffix in ("avi", "mpg") and rate == "variable":
                    continue  # constant rate only
                if suffix == "avi" and offset != "together":
                    continue  # AVI has no time stamps; ffmpeg drops what is before, see the test of that
                chosen = rate == "variable" or suffix == "avi" or (of_kind + of_rate) % len(OFFSETS_MS) == k
                marks = [] if chosen else [pytest.mark.slow]
                yield pytest.param(kind, rate, offset, marks=marks, id=f"{kind}-{rate}-{offset}")


@pytest.mark.parametrize(("kind", "rate", "offset"), list(matrix()))
def test_flashes_and_clicks_are_where_they_were_put(tmp_path, kind, rate, offset):
    suffix, video, audio, sample_rate = KINDS[kind]
    fps = RATES[rate]
    times, end = uneven() if fps is None else even(fps)
    late = F(OFFSETS_MS[offset], 1000)
    if late < 0 and suffix == "mpg":  # the encoder puts pictures on whole slots
        late = -F(round(-late * fps)) / fps
    starts = {"audio_start": max(late, F(0)), "video_start": max(-late, F(0))}
    path = make(
        tmp_path / f"clip.{suffix}",
        times,
        end,
        video=video,
        audio=audio,
        rate=sample_rate,
        fps=fps or F(25),
        time_base=None if suffix in ("avi", "mpg") else F(1, 90_000) if video == "libx264" else MS,
        **starts,
    )
    seen, levels = show(path)
    assert_pictures(levels, times, end)
    heard = decode_sound(path, seen.start_s, seen.num_frames)
    assert len(heard.samples) == 640 * seen.num_frames
    assert np.abs(click_errors(heard.samples, [0.3, 0.7])).max() < 0.0009
    # A writer may leave the encoder's priming in front of sound that starts late (AAC: 1024 samples), as silence.
    assert float(late) - 1.1 * 1024 / sample_rate < heard.start_skew_s < float(late) + 0.0015
    assert heard.present[5:20].all()
    assert abs(probe(path).num_frames - seen.num_frames) <= (1 if fps else 2)


def test_pictures_hidden_by_an_edit_list_are_not_shown(tmp_path):
    times, end = even(F(25), F(2))
    early = F(-1, 5)  # the first five pictures, and as much sound, lie before the presentation
    path = make(tmp_path / "edited.mp4", times, end, video_start=early, audio_start=early, click_times=[0.5, 1.5])
    seen, levels = show(path)
    assert seen.start_s == 0
    assert [int(np.argmin(np.abs(np.array(LEVELS) - level))) for level in levels] == [(i + 5) % 8 for i in range(45)]
    heard = decode_sound(path, seen.start_s, seen.num_frames)
    assert np.abs(click_errors(heard.samples, [0.3, 1.3])).max() < 0.001


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_with_reordered_pictures_loses_no_sync(tmp_path, codec):
    times, end = even(F(25))
    path = make(tmp_path / "b.avi", times, end, video=codec, audio="pcm_s16le", options={"bf": "2"})
    seen, levels = show(path)
    assert_pictures(levels, times, end, slack=F(0))
    assert np.abs(click_errors(decode_sound(path, seen.start_s, seen.num_frames).samples, [0.3, 0.7])).max() < 0.001


@pytest.mark.parametrize(("audio", "rate"), [("mp2", 44_100), ("ac3", 48_000), ("libmp3lame", 16_000), ("aac", 48_000)])
def test_avi_has_the_delay_of_the_sound_codec_taken_off(tmp_path, audio, rate):
    times, end = even(F(30))
    path = make(tmp_path / "delay.avi", times, end, video="mpeg4", audio=audio, rate=rate, fps=F(30))
    seen, levels = show(path)
    assert_pictures(levels, times, end, slack=F(0))
    assert np.abs(click_errors(decode_sound(path, seen.start_s, seen.num_frames).samples, [0.3, 0.7])).max() < 0.001


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_resampling_moves_no_click_by_a_sample(tmp_path, rate, layout):
    times, end = even(F(25), F(2))
    at = [0.5, 1.0, 1.75]
    path = make(tmp_path / "c.mov", times, end, audio="pcm_s16le", rate=rate, layout=layout, click_times=at)
    heard = decode_sound(path, 0.0, 50)
    assert np.abs(click_errors(heard.samples, at)).max() < 0.5 / SAMPLE_RATE + 0.5 / rate
    assert heard.present.all()
    peak = np.abs(heard.samples).max() / 32768
    assert peak == pytest.approx(0.8, abs=0.05)  # the mean of like channels is each of them


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_no_sample_is_lost_at_either_end(tmp_path, rate):
    times, end = even(F(25), F(1))
    path = make(tmp_path / "level.mov", times, end, audio="pcm_s16le", rate=rate, x=np.full(rate, 0.5))
    samples = decode_sound(path, 0.0, 25).samples
    assert samples[0] > 8_000
    assert samples[-1] > 8_000
    assert np.abs(samples[100:-100] / 32768 - 0.5).max() < 0.01


def test_sound_whose_rate_changes_goes_on_without_a_gap(tmp_path):
    from pipelines.media.sound import _anchored, _runs

    def frame(rate, samples):
        made = av.AudioFrame.from_ndarray(np.ones((1, samples), np.int16), format="s16", layout="mono")
        made.sample_rate = rate
        return made

    timed = [(F(0), frame(48_000, 960)), (F(1, 50), frame(48_000, 960)), (F(41, 1000), frame(24_000, 480))]
    marks = [(mark, float(time)) for mark, time, _ in _anchored(_runs(timed), MS)]
    assert [mark for mark, _ in marks] == ["jump", "", "change"]
    assert 0 < marks[0][1] < 0.001


def remux(source, path, change, muxer=None):
    """Copy packets, each changed by `change(packet, kind, index)`; it returns False to leave one out."""
    counts = {"video": 0, "audio": 0}
    with av.open(str(source)) as given, av.open(str(path), "w", options=muxer or {}) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if packet.size:
                kind = packet.stream.type
                keep = change(packet, kind, counts[kind])
                counts[kind] += 1
                if keep is not False:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    return path


def test_shaking_time_stamps_of_sound_make_neither_gap_nor_click(tmp_path):
    times, end = even(F(25), F(2))
    x = 0.5 * np.sin(2 * np.pi * 300 * np.arange(96_000) / 48_000)
    clean = make(tmp_path / "clean.mkv", times, end, audio="pcm_s16le", x=x)
    rng = np.random.default_rng(0)

    def shake(packet, kind, index):
        if kind == "audio" and index:
            packet.pts = packet.dts = packet.pts + int(rng.integers(-4, 5))

    heard = [decode_sound(p, 0.0, 50) for p in (clean, remux(clean, tmp_path / "shaken.mkv", shake))]
    np.testing.assert_array_equal(heard[0].samples, heard[1].samples)


def test_a_single_far_time_stamp_is_taken_for_jitter_and_a_lasting_jump_is_not(tmp_path):
    times, end = even(F(25), F(2))
    x = 0.5 * np.sin(2 * np.pi * 40 * np.arange(96_000) / 48_000)
    clean = make(tmp_path / "clean.mkv", times, end, audio="pcm_s16le", x=x)

    def one(packet, kind, index):
        if kind == "audio" and index == 20:
            packet.pts = packet.dts = packet.pts + 15

    def lasting(packet, kind, index):
        if kind == "audio" and index >= 20:
            packet.pts = packet.dts = packet.pts + 30

    wanted = decode_sound(clean, 0.0, 50).samples
    np.testing.assert_array_equal(decode_sound(remux(clean, tmp_path / "one.mkv", one), 0.0, 50).samples, wanted)
    late = decode_sound(remux(clean, tmp_path / "lasting.mkv", lasting), 0.0, 50).samples
    cut = round(20 * 1024 / 48_000 * SAMPLE_RATE)
    np.testing.assert_array_equal(late[: cut - 100], wanted[: cut - 100])
    assert np.abs(late[cut - 5 : cut]).min() > 1_000  # nothing stays in the resampler before the gap
    assert not late[cut + 20 : cut + 450].any()
    moved = late[cut + 1000 : cut + 20_000].astype(int) - wanted[cut + 1000 - 480 : cut + 20_000 - 480]
    assert np.abs(moved).max() < 0.15 * 16_384  # the same sound 30 ms later, to within the rounded millisecond


def test_a_gap_in_the_sound_is_zero_and_marked(tmp_path):
    times, end = even(F(25), F(2))
    whole = make(tmp_path / "whole.mp4", times, end, click_times=[0.4, 1.6])
    holed = remux(whole, tmp_path / "holed.mp4", lambda p, kind, i: not (kind == "audio" and 33 <= i < 52))
    heard = decode_sound(holed, 0.0, 50)
    assert np.abs(click_errors(heard.samples, [0.4, 1.6])).max() < 0.001
    gap = slice(18, 27)  # packets 33 to 51 of 1024 samples at 48 kHz, less the priming: 0.68 to 1.09 s
    assert not heard.present[gap].any()
    assert not heard.samples[gap.start * 640 : gap.stop * 640].any()
    assert heard.present.sum() >= 38


def test_sound_that_ends_before_the_pictures_is_marked_and_longer_sound_is_cut(tmp_path):
    times, end = even(F(25), F(2))
    short = make(tmp_path / "short.mp4", times, end, x=np.full(48_000, 0.1))
    assert decode_sound(short, 0.0, 50).present.sum() in (25, 26)  # the last AAC frame is padded
    long = make(tmp_path / "long.mp4", times, end, x=np.full(144_000, 0.1))
    heard = decode_sound(long, 0.0, 50)
    assert heard.present.all()
    assert len(heard.samples) == 50 * 640


def test_sound_in_a_file_of_its_own_starts_with_the_first_picture(tmp_path):
    x = clicks([0.3, 0.7], 1.0, 44_100)
    for name, audio in [("v.wav", "pcm_s16le"), ("v.mp3", "libmp3lame"), ("v.flac", "flac"), ("v.m4a", "aac")]:
        path = tmp_path / name
        with av.open(str(path), "w") as out:
            stream = out.add_stream(audio, rate=44_100, layout="mono")
            frame = av.AudioFrame.from_ndarray((x[None] * 32767).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 44_100, 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        heard = decode_sound(path, None, 25)
        assert np.abs(click_errors(heard.samples, [0.3, 0.7])).max() < 0.001, name
        assert heard.start_skew_s == 0, name
    times, end = even(F(25))
    late = make(tmp_path / "late.mkv", times, end, audio="pcm_s16le", audio_start=F(1, 10))
    heard = decode_sound(late, None, 25)
    assert heard.start_skew_s == pytest.approx(0.1)
    assert np.abs(click_errors(heard.samples, [0.3, 0.7])).max() < 0.001


@pytest.mark.parametrize(
    ("rotation", "corner"),  # where the top left of the coded picture is shown; counter-clockwise, then mirrored
    [
        ((0,), "top left"),
        ((90,), "bottom left"),
        ((180,), "bottom right"),
        ((270,), "top right"),
        ((0, True, False), "top right"),
        ((0, False, True), "bottom left"),
        ((90, True, False), "bottom right"),
    ],
)
def test_display_matrix_is_applied(tmp_path, rotation, corner):
    times, end = even(F(25))
    path = make(tmp_path / "turned.mp4", times, end, size=(96, 64), rotation=rotation)
    video = Video(path)
    picture, *others = list(video)
    assert {p.shape for p in others} == {picture.shape}
    assert video.facts == []
    assert picture.shape == ((96, 64, 3) if rotation[0] % 180 else (64, 96, 3))
    assert picture.flags["C_CONTIGUOUS"]
    half = picture.shape[0] // 2, picture.shape[1] // 2
    quarters = {
        f"{v} {h}": picture[y : y + half[0], x : x + half[1]].mean()
        for v, y in (("top", 0), ("bottom", half[0]))
        for h, x in (("left", 0), ("right", half[1]))
    }
    assert max(quarters, key=lambda name: quarters[name]) == corner


@pytest.mark.parametrize(("aspect", "shape"), [(F(16, 11), (64, 93)), (F(1, 2), (128, 64)), (F(1), (64, 64))])
def test_pixels_are_made_square(tmp_path, aspect, shape):
    times, end = even(F(25))
    path = make(tmp_path / "wide.mp4", times, end, sample_aspect=aspect)
    assert next(iter(Video(path))).shape == (*shape, 3)


def test_pictures_are_contiguous_where_rows_are_padded(clips):
    video = Video(clips / "clips" / "bbaf2n.mp4")
    pictures = list(video)
    assert all(p.shape == (288, 360, 3) and p.dtype == np.uint8 and p.flags["C_CONTIGUOUS"] for p in pictures)
    again = list(video)  # each iteration decodes anew
    assert all(np.array_equal(a, b) for a, b in zip(pictures, again, strict=True))


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        voice = out.add_stream("aac", rate=16_000, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 64
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        art = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
        art.pts = 0
        for packet in cover.encode(art) + cover.encode(None) + voice.encode(frame) + voice.encode(None):
            out.mux(packet)
    with av.open(str(path)) as given:
        assert len(given.streams.video) == 1
    with pytest.raises(MediaError) as caught:
        probe(path)
    assert caught.value.reason == "no_video"


def test_pictures_that_go_back_in_time_are_left_out_and_the_last_of_a_time_counts(tmp_path):
    times, end = even(F(25), F(2))
    clean = make(tmp_path / "clean.mkv", times, end, video="mpeg4", audio=None)

    def disturb(packet, kind, index):
        packet.dts -= 2_000
        if index == 20:
            packet.pts -= 500
        if index == 30:
            packet.pts -= 40

    path = remux(clean, tmp_path / "disturbed.mkv", disturb, {"avoid_negative_ts": "disabled"})
    _, levels = show(path)
    expected = [i % 8 for i in range(50)]
    expected[20] = 19 % 8  # left out, so the one before is held
    expected[29], expected[30] = 30 % 8, 30 % 8
    assert [int(np.argmin(np.abs(np.array(LEVELS) - level))) for level in levels] == expected


@st.composite
def tilings(draw):
    """(starts, end): strictly rising times in odd units, on and off the frame grid."""
    unit = draw(st.sampled_from([F(1, 1000), F(1, 90_000), F(1, 50), F(1001, 60_000), F(1, 12_800)]))
    gaps = draw(st.lists(st.integers(1, 40), min_size=1, max_size=40))
    start = draw(st.integers(-50, 50))
    ticks = np.cumsum([start, *gaps])
    return [int(t) * unit for t in ticks[:-1]], int(ticks[-1]) * unit


@given(tilings())
@settings(deadline=None, max_examples=200)
def test_selected_frames_are_those_on_display_at_the_middles(tiling):
    starts, end = tiling
    ends = [*starts[1:], end]
    got = list(select_frames(zip(starts, ends, range(len(starts)), strict=True)))
    length = (end - starts[0]) * 25
    assert len(got) == int(length + F(1, 2))
    for k, item in enumerate(got):
        middle = starts[0] + (k + F(1, 2)) / 25
        assert item == max(i for i, s in enumerate(starts) if s <= middle)


# --- bad input -------------------------------------------------------------------------------------------------------


def reason_of(path, times=25):
    """Why a clip fails: (reason from its pictures, reason from its sound), None where there is none."""
    reasons: list[str | None] = []
    for use in (lambda: list(Video(path)), lambda: decode_sound(path, 0.0, times)):
        try:
            use()
            reasons.append(None)
        except MediaError as error:
            reasons.append(error.reason)
    return tuple(reasons)


def largest_box(data):
    """(begin, end) of the payload of an mp4's mdat."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"mdat":
            return at + 8, at + size
        at += size
    raise AssertionError("no mdat")


def test_files_that_are_no_media_are_unreadable(tmp_path):
    bad = {
        "empty.mp4": b"",
        "text.mp4": b"This is not a film.\n" * 50,
        "junk.mkv": np.random.default_rng(0).bytes(20_000),
        "zeros.avi": bytes(20_000),
    }
    for name, data in bad.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert reason_of(path) == ("unreadable", "unreadable"), name
        with pytest.raises(MediaError, match=name):
            probe(path)
    for path in (tmp_path / "missing.mp4", tmp_path, "/dev/null"):
        with pytest.raises(MediaError) as caught:
            probe(path)
        assert caught.value.reason == "unreadable"


def test_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="not a regular file"):
        probe(tmp_path / "pipe.mp4")


def test_missing_streams_have_their_own_reason(tmp_path):
    times, end = even(F(25))
    silent = make(tmp_path / "silent.mp4", times, end, audio=None)
    assert reason_of(silent) == (None, "no_audio")
    assert not probe(silent).has_audio
    with av.open(str(tmp_path / "heard.wav"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ones((1, 16_000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        out.mux(stream.encode(frame) + stream.encode(None))
    assert reason_of(tmp_path / "heard.wav") == ("no_video", None)
    assert probe(silent, tmp_path / "heard.wav").has_audio


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("suffix", ["mp4", "fragmented.mp4", "mov", "mkv", "webm", "avi", "mpg"])
def test_files_that_are_cut_are_truncated(tmp_path, suffix, share):
    kind = suffix.split(".")[-1]
    times, end = even(F(25), F(3))
    rng = np.random.default_rng(0)
    path = make(
        tmp_path / f"whole.{suffix}",
        times,
        end,
        video={"webm": "libvpx", "avi": "mpeg4", "mpg": "mpeg1video"}.get(kind, "libx264"),
        audio={"webm": "libopus", "avi": "libmp3lame", "mpg": "mp2"}.get(kind, "aac"),
        x=rng.normal(0, 0.1, 3 * 48_000),
        muxer={"mp4": {"movflags": "faststart"}, "fragmented.mp4": {"movflags": "frag_keyframe+empty_moov"}}.get(
            suffix, {"movflags": "faststart"} if kind == "mov" else {}
        ),
    )
    assert reason_of(path, 75) == (None, None)
    cut = tmp_path / f"cut.{suffix}"
    data = path.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    assert "truncated" in reason_of(cut, 75)  # one fragment may hold all its pictures before its sound


def test_published_clips_that_are_cut_are_truncated_wherever_the_cut_is(grid, tmp_path):
    published = sorted((grid / "original").glob("*.mpg"))
    assert published
    for i, path in enumerate(published):
        data = path.read_bytes()
        at = len(data) * (2 + i % 7) // 10
        for end in (at, at // 2048 * 2048):  # in the middle of a packet, and between two
            cut = tmp_path / path.name
            cut.write_bytes(data[:end])
            assert reason_of(cut)[0] == "truncated", (path.name, end)


@pytest.mark.parametrize("damage", ["zeros", "noise", "zeros in the second half"])
@pytest.mark.parametrize("codecs", [("libx264", "aac"), ("mpeg4", "libmp3lame"), ("libvpx-vp9", "libopus")])
def test_whole_header_before_ruined_data_is_truncated(tmp_path, codecs, damage):
    times, end = even(F(25), F(2))
    path = make(tmp_path / "ruined.mp4", times, end, video=codecs[0], audio=codecs[1])
    data = bytearray(path.read_bytes())
    begin, stop = largest_box(data)
    if "half" in damage:
        begin = (begin + stop) // 2
    data[begin:stop] = bytes(stop - begin) if "zeros" in damage else np.random.default_rng(0).bytes(stop - begin)
    path.write_bytes(data)
    assert reason_of(path, 50)[0] == "truncated"


def test_stream_without_declared_length_that_breaks_off_is_truncated(tmp_path):
    times, end = even(F(25), F(2))
    path = make(tmp_path / "broken.ts", times, end)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3] + bytes(200_000))
    assert reason_of(path, 50)[0] == "truncated"


def test_one_damaged_picture_does_not_fail_a_clip(tmp_path):
    times, end = even(F(25), F(2))
    path = make(tmp_path / "scratch.mp4", times, end, options={"bf": "0", "g": "5"})
    with av.open(str(path)) as given:
        packet = [p for p in given.demux(video=0) if p.size][27]
    data = bytearray(path.read_bytes())
    data[packet.pos + 5 : packet.pos + packet.size] = bytes(packet.size - 5)
    path.write_bytes(data)
    assert reason_of(path, 50) == (None, None)
    assert len(list(Video(path))) == 50


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_many_damaged_pictures_fail_a_clip_however_long_it_seems(tmp_path, part):
    times, end = even(F(25), F(2))
    path = make(tmp_path / "scratches.mp4", times, end, size=(128, 128), rotation=(0,), options={"bf": "0", "g": "1"})
    with av.open(str(path)) as given:
        packets = [p for p in given.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for packet in packets[2:-2:4]:
        begin, end_of = packet.pos + 5 + int(part * packet.size), packet.pos + packet.size
        data[begin:end_of] = rng.bytes(end_of - begin)
    path.write_bytes(data)
    assert reason_of(path, 50)[0] == "truncated"


@pytest.mark.parametrize("times", [[0, 700, 701], [0, 1, 700]], ids=["first", "last"])
def test_one_picture_may_not_stay_for_ever(tmp_path, times):
    path = make(tmp_path / "still.mkv", [F(t) for t in times], F(1400), video="mpeg4", audio=None, time_base=MS)
    with pytest.raises(MediaError, match=r"shows one picture for \d+ s, at most 600") as caught:
        list(Video(path))
    assert caught.value.reason == "limit"
    fine = make(tmp_path / "fine.mkv", [F(0), F(500), F(550)], F(551), video="mpeg4", audio=None, time_base=MS)
    assert sum(1 for _ in Video(fine)) > 500 * 25


def test_sound_of_a_few_samples_a_second_is_refused(tmp_path):
    path = tmp_path / "slow.wav"
    data = bytes(40_000)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, 1, 2, 2, 16, b"data", len(data)
    )
    path.write_bytes(head + data)
    with pytest.raises(MediaError, match="1 samples per second") as caught:
        decode_sound(path, None, 75)
    assert caught.value.reason == "limit"


def test_very_short_clips_are_too_short_and_ten_frames_are_not(tmp_path):
    for count, reason in ((5, "too_short"), (9, "too_short"), (10, None)):
        times, end = even(F(25), F(count, 25))
        path = make(tmp_path / f"{count}.mp4", times, end, click_times=[])
        assert reason_of(path, count)[0] == reason


def test_sizes_and_lengths_have_limits(tmp_path):
    times, end = even(F(25))
    wide = make(tmp_path / "wide.avi", times[:1], end, video="mjpeg", size=(8_256, 16), audio=None)
    assert reason_of(wide)[0] == "limit"
    square = make(tmp_path / "square.avi", times[:1], end, video="mjpeg", size=(6_000, 6_000), audio=None)
    assert reason_of(square)[0] == "limit"
    thin = make(tmp_path / "thin.mp4", times, end, size=(4_096, 2_304), options={"qp": "50"}, sample_aspect=F(4))
    with pytest.raises(MediaError, match="16384x2304 pixels once they are square"):
        list(Video(thin))
    long = make(tmp_path / "long.mkv", [F(0), F(25_000)], F(25_001), video="mpeg4", audio=None, time_base=MS)
    with pytest.raises(MediaError, match="at most 21600 s"):
        probe(long)
    with pytest.raises(MediaError, match="at most 21600 s"):
        next(iter(Video(long)))  # refused before a picture is repeated for seven hours


@pytest.mark.parametrize(
    "name", ["-i.mp4", "a b.mp4", "a:b.mp4", "ハロー wörld.mp4", "100%d.mp4", "a|b&c;d.mp4", "'q\".mp4", b"\xff.mp4"]
)
def test_odd_file_names_are_only_names(tmp_path, monkeypatch, clips, name):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(name)
    Path(name).write_bytes((clips / "clips" / "bbaf2n.mp4").read_bytes())
    assert reason_of(name, 75) == (None, None)  # relative, too
    with pytest.raises(MediaError) as caught:
        probe(f"no {name}")
    assert str(caught.value).isprintable()


def test_errors_pickle():
    error = pickle.loads(pickle.dumps(MediaError("truncated", "clip a is cut")))
    assert (error.reason, str(error)) == ("truncated", "clip a is cut")


# --- files that point at others --------------------------------------------------------------------------------------


class Watch:
    """Counts openings of and reads from a file by the kernel's own account (inotify), C libraries included."""

    def __init__(self, path):
        import ctypes

        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_NONBLOCK)
        assert self.fd >= 0
        assert self.libc.inotify_add_watch(self.fd, os.fsencode(path), 0x1 | 0x20) >= 0  # IN_ACCESS | IN_OPEN

    def touched(self):
        try:
            return bool(os.read(self.fd, 4096))
        except BlockingIOError:
            return False


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\n{}\n#EXT-X-ENDLIST\n"
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT3S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4"><Representation '
    'id="1" bandwidth="1000"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=control:{}\n"
POINTERS = {
    "m3u8": HLS,
    "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "txt": "file '{}'\n",
    "mpd": MPD,
    "sdp": SDP,
    "asx": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
    "smil": '<smil><body><video src="{}"/></body></smil>',
}


@pytest.mark.parametrize("suffix", POINTERS)
def test_playlists_and_scripts_read_nothing_else(tmp_path, clips, suffix):
    good = tmp_path / "good.mp4"
    good.write_bytes((clips / "clips" / "bbaf2n.mp4").read_bytes())
    watch = Watch(good)
    for i, target in enumerate((str(good), "good.mp4", f"file:{good}", f"file://{good}", f"concat:{good}|{good}")):
        for name in (f"pointer{i}.{suffix}", f"pointer{i}.mp4", f"pointer{i}.mkv", f"pointer{i}.ts"):
            path = tmp_path / name
            path.write_text(POINTERS[suffix].format(target))
            with pytest.raises(MediaError) as caught:
                probe(path)
            assert caught.value.reason == "unreadable"
            assert reason_of(path) == ("unreadable", "unreadable")
    assert not watch.touched()


def test_paths_that_are_urls_or_patterns_read_nothing(tmp_path, clips, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "good01.mp4"
    good.write_bytes((clips / "clips" / "bbaf2n.mp4").read_bytes())
    watch = Watch(good)
    for text in (f"concat:{good}", f"file:{good}", f"subfile,,start,0,end,0,,:{good}", "good%02d.mp4", "good*.mp4",
                 f"crypto:{good}", f"cache:{good}", "http://127.0.0.1:9/good01.mp4", "data:video/mp4;base64,AAAA"):  # fmt: skip
        with pytest.raises(MediaError) as caught:
            probe(text)
        assert caught.value.reason == "unreadable", text
    assert not watch.touched()


def grow(data, path, extra):
    """An mp4 with the last box on `path` (names, outermost first) replaced by `extra` within its parents."""
    at, stop, sizes = 0, len(data), []
    for name in path:
        while data[at + 4 : at + 8] != name:
            at += int.from_bytes(data[at : at + 4], "big")
            assert at < stop, name
        size = int.from_bytes(data[at : at + 4], "big")
        sizes.append((at, size))
        begin, stop = at, at + size
        at += 16 if name in (b"dref",) else 8
    more = len(extra) - (stop - begin)
    data = bytearray(data[:begin] + extra + data[stop:])
    for at, size in sizes[:-1]:
        data[at : at + 4] = struct.pack(">I", size + more)
    return bytes(data)


def test_quicktime_film_with_its_data_in_another_file_reads_nothing_else(tmp_path):
    times, end = even(F(25))
    target = make(tmp_path / "target.mov", times, end, video="mpeg4", audio=None)
    name = os.fsencode(str(target))
    name += b"\0" * (len(name) % 2)
    alias = bytes(10) + bytes([0]) + bytes(27) + bytes(12) + bytes([0]) + bytes(63) + bytes(16)
    alias += struct.pack(">hh", 1, 1) + bytes(16) + struct.pack(">HH", 2, len(name)) + name + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    dref = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    path = tmp_path / "pointer.mov"
    path.write_bytes(grow(target.read_bytes(), [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"], dref))
    watch = Watch(target)
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as careless:
        list(careless.demux())
    assert watch.touched()  # the crafted file does what it is meant to
    watch = Watch(target)
    assert reason_of(path)[0] in ("unreadable", "truncated")
    assert not watch.touched()


# --- real clips ------------------------------------------------------------------------------------------------------


def test_published_clips_and_their_mp4_agree_in_sound_and_pictures(grid):
    for name in ("bwwh2n", "lrik4p", "pbio5s", "prac8p"):
        heard, seen = [], []
        for path in (grid / "original" / f"{name}.mpg", grid / "clips" / f"{name}.mp4"):
            video = Video(path)
            seen.append(np.stack([p[::4, ::4].mean(axis=2) for p in video]))
            assert video.num_frames == probe(path).num_frames == 75
            heard.append(decode_sound(path, video.start_s, 75))
            assert heard[-1].start_skew_s == 0
            assert heard[-1].present[:74].all()
        a, b = (np.fft.rfft(h.samples.astype(float), 1 << 17) for h in heard)
        lags = np.fft.irfft(a * np.conj(b))
        lag = (int(np.argmax(lags)) + (1 << 16)) % (1 << 17) - (1 << 16)
        assert abs(lag) <= 1  # samples of 1/16 ms
        assert np.abs(seen[0] - seen[1]).mean() < 4


@pytest.mark.parametrize("data", [b"just a note\n", "<html>\u00fc".encode() * 900], ids=["note", "page"])
def test_text_with_a_videos_name_is_said_to_be_text(tmp_path, data):
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError, match="is not a video: it holds text; check that it is the right file") as caught:
        open_media(path)
    assert caught.value.reason == "unreadable"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(MediaError, match="cannot be read as mp4"):
        open_media(path)
