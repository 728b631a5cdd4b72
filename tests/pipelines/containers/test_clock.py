"""Clocks that restart, jump, wrap or have strays: pictures and sound go on, in step; freezes and silences stay."""

from fractions import Fraction as F

import numpy as np
import odd_clocks as odd
import pytest
from test_media import LEVELS, MS, click_errors, even, make, remux, show

from pipelines.media.facts import sentences
from pipelines.media.probe import probe
from pipelines.media.sound import decode_sound

HZ = 90_000
WRAP = 1 << 33
TIMES, END = even(F(25), F(2))
CLICKS = [0.3, 0.7, 1.3, 1.7]
ORDER = [i % 8 for i in range(50)]
# Some containers hold back pictures with B-frames, others have none.
KINDS = {
    "ts": ("ts", {}),
    "ts-b0": ("ts", {"options": {"bf": "0"}}),
    "ts-mp2": ("ts", {"video": "mpeg1video", "audio": "mp2", "rate": 44_100}),
    "flv": ("flv", {"rate": 44_100, "time_base": MS}),
    "mkv": ("mkv", {}),
    "webm": ("webm", {"video": "libvpx", "audio": "libopus"}),
    "mpg": ("mpg", {"video": "mpeg1video", "audio": "mp2", "rate": 44_100}),
}


def good(tmp_path, kind="ts", **more):
    """Bytes of a clip of two seconds."""
    suffix, options = KINDS[kind]
    return make(tmp_path / f"good.{suffix}", TIMES, END, click_times=CLICKS, **options | more).read_bytes()


def written(path, data):
    path.write_bytes(data)
    return path


def assert_in_step(path, order, clicks, fact=""):
    """Each picture once, each click where it belongs, and what the clip says of it; its number of frames."""
    video, levels = show(path)
    got = [int(np.argmin(np.abs(np.array(LEVELS) - level))) for level in levels]
    assert got == list(order)
    heard = decode_sound(path, video.start_s, video.num_frames)
    assert np.abs(click_errors(heard.samples, clicks)).max() < 0.001
    assert fact in sentences(video.facts)
    assert bool(fact) == bool(video.facts)
    assert {fact.kind for fact in heard.facts} <= {"sound_gaps"}
    return video.num_frames


def twice(clicks=CLICKS, length=2.0, times=2):
    return [c + length * k for k in range(times) for c in clicks]


@pytest.mark.parametrize("kind", ["ts", "ts-b0", "ts-mp2", "flv", "mkv", "webm", "mpg"])
def test_a_clock_that_starts_again_goes_on(tmp_path, kind):
    data = good(tmp_path, kind)
    joined = {"flv": odd.flv_joined, "mkv": odd.mkv_joined, "webm": odd.mkv_joined}.get(kind, lambda *p: b"".join(p))
    path = written(tmp_path / f"joined.{KINDS[kind][0]}", joined(data, data, data))
    assert_in_step(path, ORDER * 3, twice(times=3), "clock jumps by -2.00 s at 2.00 s, by -2.00 s at 4.00 s")


@pytest.mark.parametrize("seconds", [3, 10, 3_600, 80_000, -700])
@pytest.mark.parametrize("kind", ["ts", "ts-b0"])
def test_a_clock_that_jumps_goes_on_and_costs_nothing(tmp_path, kind, seconds):
    data = odd.ts_moved(good(tmp_path, kind), 1_000 * HZ)
    path = written(tmp_path / "jump.ts", data + odd.ts_moved(data, (seconds + 2) * HZ))
    said = f"{seconds:+.2f} s at 2.00 s" if seconds > 0 else "s at 2.00 s"  # ffmpeg takes long ways back for a wrap
    assert_in_step(path, ORDER * 2, twice(), said)
    assert probe(path).num_frames == 100


@pytest.mark.parametrize("before", [1, 100, 300])
def test_a_clock_that_wraps_goes_on(tmp_path, before):
    data = good(tmp_path)
    path = written(tmp_path / "wrapped.ts", odd.ts_moved(data, WRAP - before * HZ))
    assert_in_step(path, ORDER, CLICKS)
    assert probe(path).num_frames == 50
    late = odd.ts_moved(data, WRAP - before * HZ) + odd.ts_moved(data, (2 - before) * HZ)
    assert_in_step(written(path, late), ORDER * 2, twice())


@pytest.mark.parametrize("seconds", [-5, 5, 3_600, 80_000])
@pytest.mark.parametrize(("kind", "number"), [(odd.PICTURE, 20), (odd.SOUND, 3)])
def test_a_single_stamp_far_off_is_put_right(tmp_path, kind, number, seconds):
    data = odd.ts_moved(good(tmp_path), 100 * HZ)
    path = written(tmp_path / "stray.ts", odd.ts_moved(data, seconds * HZ, kind, lambda n: n == number))
    assert_in_step(path, ORDER, CLICKS, "1 of its time stamps were far from those around them")
    assert probe(path).num_frames == 50


@pytest.mark.parametrize("seconds", [-5, -1, 3, 50])
@pytest.mark.parametrize(("kind", "number"), [(odd.PICTURE, 25), (odd.SOUND, 3)])
def test_the_clock_of_one_stream_may_jump_while_the_other_goes_on(tmp_path, kind, number, seconds):
    data = odd.ts_moved(good(tmp_path), 100 * HZ)
    path = written(tmp_path / "alone.ts", odd.ts_moved(data, seconds * HZ, kind, lambda n: n >= number))
    assert_in_step(path, ORDER, CLICKS, f"clock jumps by {seconds:+.2f} s")


@pytest.mark.parametrize("kind", ["ts", "ts-b0", "flv", "mkv"])
@pytest.mark.parametrize("pause", [5, 30])
def test_a_freeze_under_a_voice_is_no_jump(tmp_path, kind, pause):
    suffix, options = KINDS[kind]
    times = [F(i, 25) for i in range(25)] + [1 + pause + F(i, 25) for i in range(25)]
    clicks = [0.5, pause / 2 + 1, pause + 1.5]
    path = make(tmp_path / f"freeze.{suffix}", times, F(pause + 2), click_times=clicks, **{"time_base": MS} | options)
    order = ORDER[:25] + [0] * 25 * pause + [i % 8 for i in range(25, 50)]
    assert_in_step(path, order, clicks)


@pytest.mark.parametrize("kind", ["ts", "flv", "mkv"])
@pytest.mark.parametrize("bf", ["0", "2"])
def test_slides_are_no_jumps(tmp_path, kind, bf):
    suffix, options = KINDS[kind]
    times = [F(2 * i) for i in range(8)]
    options = {"time_base": MS} | options | {"options": {"bf": bf}}
    video, levels = show(make(tmp_path / f"slides.{suffix}", times, F(16), click_times=[0.5, 13.5], **options))
    got = [int(np.argmin(np.abs(np.array(LEVELS) - level))) for level in levels]
    assert got[:350] == [k // 50 for k in range(350)]
    assert not video.facts


@pytest.mark.parametrize("kind", ["ts", "flv", "mkv"])
def test_a_silence_of_the_stream_is_a_gap(tmp_path, kind):
    suffix, options = KINDS[kind]
    times, end = even(F(25), F(8))
    whole = make(tmp_path / f"whole.{suffix}", times, end, click_times=[0.5, 7.5], **options)
    holed = remux(
        whole, tmp_path / f"holed.{suffix}", lambda p, kind, i: kind == "video" or not 1 < p.pts * p.time_base < 6
    )
    assert_in_step(holed, [i % 8 for i in range(200)], [0.5, 7.5])


def test_joined_streams_with_other_numbers_are_read_or_named(tmp_path):
    first = good(tmp_path)
    other = good(tmp_path, muxer={"mpegts_start_pid": "0x150", "tables_version": "2"})
    video, levels = show(written(tmp_path / "numbers.ts", first + other))
    assert len(levels) in (99, 100)  # ffmpeg drops what it has not put together when the numbers change
    assert "clock jumps" in sentences(video.facts)
    other = good(tmp_path, muxer={"mpegts_start_pid": "0x150", "mpegts_pmt_start_pid": "0x1100"})
    video, levels = show(written(tmp_path / "numbers.ts", first + other))
    assert len(levels) == 50
    assert "what follows after 2.00 s belongs to other streams" in sentences(video.facts)
