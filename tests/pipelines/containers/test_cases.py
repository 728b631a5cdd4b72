"""Reported files with odd clocks and headers, read in place: lengths, order of pictures and sync against the clip they
were made from."""

import av
import numpy as np
import pytest

from pipelines.media.facts import sentences
from pipelines.media.picture import Video
from pipelines.media.probe import probe
from pipelines.media.sound import decode_sound
from store.layout import SAMPLE_RATE

BASE = "bbaf2n.mp4"  # 75 frames
CASES = {
    "stale_duration_tag.mkv": "its header declares 5960.28 s of video, the file has 3.00 s",
    "b_frames_without_ctts.mp4": "the time stamps of its pictures were not in order, and were sorted",
    "clock_starts_anew.ts": "its clock jumps by -1.40 s at 1.40 s",
    "clock_jumps_10s.ts": "its clock jumps by +10.58 s at 1.40 s",
    "clock_jumps_1h.ts": "its clock jumps by +3598.58 s at 1.40 s",
    "avi_without_index.avi": "",
}


def small(pictures):
    return np.stack([p[::4, ::4].mean(axis=2) for p in pictures])


def heard(path, video):
    return decode_sound(path, video.start_s, video.num_frames).samples.astype(float)


def lag(a, b):
    """Samples by which `a` is later than `b`."""
    size = 1 << 17
    match = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)))
    return (int(np.argmax(match)) + size // 2) % size - size // 2


@pytest.fixture(scope="module")
def base(clips):
    path = clips / "clips" / BASE
    video = Video(path)
    return small(video), heard(path, video)


@pytest.mark.parametrize("name", CASES)
def test_clips_with_odd_clocks_are_the_clip_that_they_were_made_from(shared, base, name):
    path = shared / "cases" / name
    video = Video(path)
    pictures = small(video)
    sound = heard(path, video)
    assert len(pictures) == 75
    assert abs(probe(path).num_frames - 75) <= 1
    for part in (slice(2, 37), slice(38, 73)):  # each half by itself: a jump lies between them
        moved = [np.abs(pictures[part] - base[0][part.start + by : part.stop + by]).mean() for by in (-2, -1, 0, 1, 2)]
        assert int(np.argmin(moved)) == 2, moved
        samples = slice(640 * part.start, 640 * part.stop)
        assert abs(lag(sound[samples], base[1][samples])) <= SAMPLE_RATE // 1000
    facts = sentences(video.facts)
    assert CASES[name] in facts
    assert bool(facts) == bool(CASES[name])


def track(path):
    """(pictures, sound at its own rate) of a film on its tracks' own clocks, without edit lists."""
    raw = {"ignore_editlist": "1"}
    with av.open(str(path), container_options=raw) as film:
        pictures = small(frame.to_ndarray(format="rgb24") for frame in film.decode(video=0))
    sound = np.zeros(48_000 * 14, np.float32)
    with av.open(str(path), container_options=raw) as film:
        for frame in film.decode(audio=0):
            sound[frame.pts : frame.pts + frame.samples] = frame.to_ndarray()[0]
    return pictures, sound


@pytest.mark.parametrize(
    ("name", "pictures", "sounds"),
    [("two_pieces.mp4", [25, 150], [48_000, 288_000]), ("delay_then.mp4", [0, 50], [0, 96_000])],
)
def test_parts_of_films_are_where_their_edit_lists_put_them(shared, name, pictures, sounds):
    path = shared / "cases" / name
    video = Video(path)
    seen, sound = small(video), heard(path, video)
    assert len(seen) == probe(path).num_frames == 100
    assert not video.facts
    whole, samples = track(path)
    for k, picture in enumerate(seen):
        wanted = pictures[k // 50] + k % 50
        near = range(max(wanted - 2, 0), wanted + 3)
        assert near[int(np.argmin([np.abs(picture - whole[i]).mean() for i in near]))] == wanted, k
    for part, begin in enumerate(sounds):
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + 96_000], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        wanted = np.concatenate([f.to_ndarray()[0] for f in resampler.resample(frame) + resampler.resample(None) if f])
        got = sound[32_000 * part : 32_000 * (part + 1)] / 32_768
        np.testing.assert_allclose(got[100:-100], wanted[100 : len(got) - 100], atol=0.02)
