"""Edit lists of several parts, delays, and B-frames without composition offsets: all is where the file puts it."""

from fractions import Fraction as F

import av
import numpy as np
import odd_clocks as odd
import pytest
from test_clock import assert_in_step, written
from test_media import click_errors, even, make, show

from pipelines.containers import edits
from pipelines.containers.boxes import tracks
from pipelines.containers.order import shuffled
from pipelines.media.files import MediaError, open_media
from pipelines.media.picture import Video
from pipelines.media.probe import probe
from pipelines.media.sound import decode_sound

TICKS = 12_800
LENGTH = 8
CLICKS = sorted([i + 0.3 for i in range(LENGTH)] + [i + 0.7 for i in range(LENGTH)])


def long(tmp_path, audio="aac", rate=48_000, **options):
    """A mov of eight seconds with two clicks in each, and where its picture and its sound begin in their tracks."""
    times, end = even(F(25), F(LENGTH))
    options = {"g": "50"} | options
    path = make(
        tmp_path / "whole.mov",
        times,
        end,
        audio=audio,
        rate=rate,
        click_times=CLICKS,
        options=options,
        time_base=F(1, TICKS),
    )
    begins = [track.parts[0].media if track.parts else F(0) for track in tracks(path).values()]
    return path.read_bytes(), begins, rate


def cut(data, begins, rate, parts):
    """The file with an edit list of (start, length) in seconds; a start of None shows nothing."""
    lists = []
    for begin, ticks in zip(begins, (TICKS, rate), strict=True):
        rows = [(round(1000 * n), -1 if s is None else round((F(s) + begin) * ticks)) for s, n in parts]
        lists.append(rows)
    return odd.with_lists(data, lists)


def expected(parts):
    """(numbers of the pictures on display, times of clicks) of such a list."""
    at, shown, clicks = F(0), [], []
    first = sum((n for s, n in parts[:1] if s is None), F(0))
    for start, length in parts:
        if start is not None:
            length = min(length, LENGTH - start)
            shown.append((at - first, start, length))
            clicks += [
                float(at - first) + c - float(start) for c in CLICKS if start < c - 0.05 and c + 0.05 < start + length
            ]
        at += length
    order = []
    for k in range(int((at - first) * 25 + F(1, 2))):
        begin, start, length = next(part for part in reversed(shown) if part[0] <= (k + F(1, 2)) / 25)
        order.append(int((start + min((k + F(1, 2)) / 25 - begin, length - F(1, 1000))) * 25) % 8)
    return order, clicks


LISTS = {
    "two": [(F(1), F(2)), (F(5), F(2))],
    "backwards": [(F(5), F(2)), (F(1), F(2))],
    "joined": [(F(1), F(2)), (F(3), F(2))],
    "repeated": [(F(0), F(1))] * 3,
    "between pictures": [(F(1234, 1000), F(1)), (F(3333, 1000), F(1)), (F(61, 10), F(3, 2))],
    "delayed": [(None, F(1, 2)), (F(1), F(1)), (F(4), F(1))],
    "paused": [(F(1), F(1)), (None, F(1, 2)), (F(4), F(1))],
    "longer than the track": [(F(0), F(1)), (F(6), F(10))],
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("codecs", ["no B-frames, PCM", "two B-frames, AAC", "four B-frames, AAC"])
def test_parts_of_an_edit_list_stay_in_step(tmp_path, name, codecs):
    bf = {"n": "0", "t": "2", "f": "4"}[codecs[0]]
    sound = {"audio": "pcm_s16le", "rate": 16_000} if "PCM" in codecs else {"rate": 44_100}
    made = long(tmp_path, bf=bf, **sound)
    path = written(tmp_path / "parts.mov", cut(*made, LISTS[name]))
    order, clicks = expected(LISTS[name])
    frames = assert_in_step(path, order, clicks, "header declares" if name == "longer than the track" else "")
    assert probe(path).num_frames == frames


def test_a_list_of_the_sound_alone_moves_the_sound_alone(tmp_path):
    data, begins, rate = long(tmp_path)
    pictures = [(1000 * LENGTH, round(begins[0] * TICKS))]
    sounds = [(2000, round((1 + begins[1]) * rate)), (2000, round((5 + begins[1]) * rate))]
    path = written(tmp_path / "sound.mov", odd.with_lists(data, [pictures, sounds]))
    video, levels = show(path)
    assert len(levels) == 25 * LENGTH
    heard = decode_sound(path, video.start_s, video.num_frames)
    assert np.abs(click_errors(heard.samples, expected(LISTS["two"])[1])).max() < 0.001
    assert heard.present[:100].all()
    assert not heard.present[101:].any()


@pytest.mark.parametrize(
    ("video", "options"),
    [
        ("libx264", {"bf": "1"}),
        ("libx264", {"bf": "2", "g": "12"}),
        ("libx264", {"bf": "5", "b-pyramid": "normal", "b-adapt": "0"}),
        ("mpeg4", {"bf": "2"}),
    ],
)
@pytest.mark.parametrize("late", ["together", "picture late", "sound late"])
def test_pictures_without_composition_offsets_are_put_in_order(tmp_path, video, options, late):
    times, end = even(F(25), F(3))
    starts = {"picture late": {"video_start": F(1, 5)}, "sound late": {"audio_start": F(3, 25)}}.get(late, {})
    clicks = [0.3, 0.7, 1.3, 2.7]
    source = make(
        tmp_path / "b.mp4",
        times,
        end,
        video=video,
        options=options,
        time_base=F(1, TICKS),
        click_times=clicks,
        **starts,
    )
    data = source.read_bytes()
    assert b"ctts" in data
    assert not shuffled(open_media(source), 0)
    path = written(tmp_path / "plain.mp4", odd.without(data, b"ctts"))
    assert shuffled(open_media(path, ignore_editlist="1"), 0)
    frames = assert_in_step(path, [i % 8 for i in range(75)], clicks, "were not in order, and were sorted")
    assert probe(path).num_frames == frames == 75


def test_a_delay_before_the_first_picture_is_not_counted(tmp_path):
    made = long(tmp_path, bf="2")
    for delay in (F(1, 2), F(3)):
        parts = [(None, delay), (F(2), F(4))]
        path = written(tmp_path / "delay.mov", cut(*made, parts))
        order, clicks = expected(parts)
        assert assert_in_step(path, order, clicks) == probe(path).num_frames == 100


def test_joints_of_sound_with_a_shorter_last_frame_are_in_step(tmp_path):
    """Concatenated files declare the last frame of each shorter than it decodes."""
    times, end = even(F(25), F(1))
    source = make(tmp_path / "one.mp4", times, end, options={"bf": "0"}, x=None)
    path = tmp_path / "three.mp4"
    with av.open(str(path), "w") as out:
        streams = None
        for part in range(3):
            with av.open(str(source), container_options={"ignore_editlist": "1"}) as given:
                streams = streams or [out.add_stream_from_template(s) for s in given.streams]
                for packet in given.demux():
                    if packet.size:
                        shift = round(part * F(102, 100) / packet.time_base)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = streams[packet.stream_index]
                        out.mux(packet)
    video, _ = show(path)
    heard = decode_sound(path, video.start_s, video.num_frames)
    priming = 1024 / 48_000
    clicks = [k * 1.02 + c + priming for k in range(3) for c in (0.3, 0.7)]
    assert np.abs(click_errors(heard.samples, clicks)).max() < 0.001


def test_a_part_that_begins_soon_after_the_one_before_takes_no_jump_and_many_jumps_are_refused(tmp_path, monkeypatch):
    made = long(tmp_path, bf="2")
    jumps = []
    monkeypatch.setattr(edits, "_Source", lambda *a, source=edits._Source: jumps.append(1) or source(*a))
    parts = [(F(8 * k, 25), F(5, 25)) for k in range(24)]  # five of eight pictures
    path = written(tmp_path / "many.mov", cut(*made, parts))
    video, _ = show(path)
    assert video.num_frames == 120
    assert len(jumps) == 1
    jumps.clear()
    assert_in_step(path, *expected(parts))
    assert len(jumps) <= 4  # pictures and sound, in two passes
    back = written(tmp_path / "back.mov", cut(*made, [(F(2), F(1, 25))] * (edits.MAX_SEEKS + 1)))
    with pytest.raises(MediaError, match="jumps to 1001 places by its edit list") as caught:
        list(Video(back))
    assert caught.value.reason == "limit"


def test_holes_in_the_sound_are_named(tmp_path):
    made = long(tmp_path)
    for name, parts, text in (
        ("many", [(F(1), F(1)), (None, F(1)), (F(4), F(1)), (None, F(1)), (F(6), F(1))], "missing in 2.0 of 5.0 s"),
        ("short", [(F(1), F(3)), (None, F(2, 5)), (F(4), F(3))], ""),
        ("late", [(None, F(2)), (F(4), F(3))], ""),
    ):
        path = written(tmp_path / f"{name}.mov", cut(*made, parts))
        facts = decode_sound(path, 0.0, 225).facts
        assert [fact.kind for fact in facts] == ["sound_gaps"] * bool(text)
        assert all(text in fact.text for fact in facts)
