"""Headers that lie about length: the data count, for slots and clips alike; and files that were cut are still found out."""

import re
from fractions import Fraction as F
from types import SimpleNamespace

import odd_clocks as odd
import pytest
from test_clock import CLICKS, END, ORDER, TIMES, assert_in_step, good, written
from test_media import even, make, reason_of

from pipelines.containers.ending import whole
from pipelines.media.facts import sentences
from pipelines.media.files import open_media
from pipelines.media.picture import Video
from pipelines.media.probe import probe
from pipelines.media.tally import tagged_s

LONG = b"01:39:20."


def mp4(tmp_path, **more):
    more = {"muxer": {"movflags": "faststart"}} | more
    return make(tmp_path / "good.mp4", TIMES, END, click_times=CLICKS, **more).read_bytes()


def avi(tmp_path):
    options = {"video": "mpeg4", "audio": "libmp3lame", "rate": 44_100}
    return make(tmp_path / "good.avi", TIMES, END, click_times=CLICKS, **options).read_bytes()


LIES = {
    "mp4, long": ("mp4", lambda t: odd.declaring(mp4(t), 100)),
    "mp4, short": ("mp4", lambda t: odd.declaring(mp4(t), 0.25)),
    "mp4 without a list, long": (
        "mp4",
        lambda t: odd.declaring(mp4(t, options={"bf": "0"}).replace(b"edts", b"free", 1), 100),
    ),
    "fragments, long": ("mp4", lambda t: odd.declaring(mp4(t, muxer={"movflags": "frag_keyframe+empty_moov"}), 100)),
    "mkv, long": ("mkv", lambda t: odd.mkv_declaring(good(t, "mkv"), 100)),
    "mkv, all long": ("mkv", lambda t: odd.mkv_declaring(good(t, "mkv"), 100, LONG)),
    "mkv, stale tags": ("mkv", lambda t: odd.mkv_declaring(good(t, "mkv"), 1, LONG)),
    "mkv, live, stale tags": ("mkv", lambda t: odd.mkv_live(odd.mkv_declaring(good(t, "mkv"), 1, LONG))),
    "mkv, short": ("mkv", lambda t: odd.mkv_declaring(good(t, "mkv"), 0.1, b"00:00:00.")),
    "webm, long": ("webm", lambda t: odd.mkv_declaring(good(t, "webm"), 100, LONG)),
    "avi, long": ("avi", lambda t: odd.avi_declaring(avi(t), 5_000)),
    "avi, short": ("avi", lambda t: odd.avi_declaring(avi(t), 10)),
    "avi, long, no index": ("avi", lambda t: odd.avi_without_index(odd.avi_declaring(avi(t), 5_000))),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_costs_nothing_and_fails_nothing(tmp_path, name):
    suffix, lie = LIES[name]
    path = written(tmp_path / f"lie.{suffix}", lie(tmp_path))
    video = Video(path)
    list(video)
    assert_in_step(path, ORDER, CLICKS, sentences(video.facts) and "its header declares")
    assert abs(probe(path).num_frames - 50) <= 1


def test_what_a_header_says_wrongly_is_named(tmp_path):
    for name in ("mkv, stale tags", "avi, long", "mp4, short"):
        suffix, lie = LIES[name]
        video = Video(written(tmp_path / f"lie.{suffix}", lie(tmp_path)))
        list(video)
        (fact,) = video.facts
        assert fact.kind == "header_differs"
        assert "the file has 2.00 s" in fact.text


@pytest.mark.parametrize("tag", ["00:00:1/0", "00:00:1e9", "0:0:1e99999", "00:00:-5", "99999999:00:00.0", "9:99"])
def test_a_tag_that_is_no_time_counts_as_none(tmp_path, tag):
    data = good(tmp_path, "mkv")
    path = written(tmp_path / "tag.mkv", re.sub(rb"00:00:0[0-9.]{11}", lambda _: tag.encode().ljust(18, b"\0"), data))
    assert path.read_bytes() != data
    video = Video(path)
    assert len(list(video)) == 50
    assert not video.facts
    assert probe(path).num_frames == 50


def test_a_tag_of_centuries_counts_as_none():
    stream = SimpleNamespace(metadata={"DURATION-eng": "999999:59:59.999999999", "DURATION": "01:00:00.5"})
    assert tagged_s(stream) is None
    stream.metadata = {"title": "00:00:09", "DURATION": "01:00:00.5"}
    assert tagged_s(stream) == 3600 + F(1, 2)


@pytest.mark.parametrize("name", [n for n in LIES if "short" not in n])
def test_a_file_that_lies_and_was_cut_is_truncated(tmp_path, name):
    suffix, lie = LIES[name]
    data = lie(tmp_path)
    path = written(tmp_path / f"cut.{suffix}", data[: len(data) * 2 // 3])
    assert "truncated" in reason_of(path, 50)


@pytest.mark.parametrize("suffix", ["mp4", "fragmented.mp4", "mkv", "webm", "avi", "flv", "wmv"])
def test_whole_files_are_told_from_cut_ones(tmp_path, suffix):
    kind = suffix.split(".")[-1]
    options = {
        "avi": {"video": "mpeg4", "audio": "libmp3lame", "rate": 44_100},
        "wmv": {"video": "mpeg4", "audio": "libmp3lame", "rate": 44_100},
        "webm": {"video": "libvpx", "audio": "libopus"},
        "flv": {"rate": 44_100, "time_base": F(1, 1000)},
        "fragmented.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
        "mp4": {"muxer": {"movflags": "faststart"}},
    }.get(suffix, {})
    path = make(tmp_path / f"whole.{suffix}", TIMES, END, click_times=CLICKS, **options)
    for share, answer in ((1.0, True), (0.5, False)):
        data = path.read_bytes()
        cut = written(tmp_path / f"cut.{kind}", data[: int(len(data) * share)])
        with open_media(cut) as container:
            assert whole(cut, container, container.streams.video[0]) is answer


@pytest.mark.parametrize("kind", ["ts", "mpg", "flv", "mkv", "wmv"])
@pytest.mark.parametrize("late", ["audio_start", "video_start"])
def test_a_stream_that_comes_late_is_found(tmp_path, kind, late):
    options = {
        "ts": {},
        "mkv": {},
        "mpg": {"video": "mpeg1video", "audio": "mp2", "rate": 44_100, "options": {"bf": "0"}},
        "flv": {"rate": 44_100, "time_base": F(1, 1000)},
        "wmv": {"video": "mpeg4", "audio": "libmp3lame", "rate": 44_100},
    }[kind]
    times, end = even(F(25), F(9))
    clicks = [7.5, 8.5] if late == "audio_start" else [0.5, 8.5]
    path = make(tmp_path / f"late.{kind}", times, end, click_times=clicks, **options, **{late: F(7)})
    seen = probe(path)
    assert seen.has_audio
    assert abs(seen.num_frames - 225) <= 1
    if kind != "mpg":  # of whose pictures ffmpeg guesses most stamps, here a few wrongly
        assert assert_in_step(path, [i % 8 for i in range(225)], clicks) == 225
