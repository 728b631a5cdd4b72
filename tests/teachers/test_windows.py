"""Clips of any length through a network that sees a window at a time: windows, joins, batches, the finite check."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teachers import ClipMedia, TeacherError, windows

CPU = torch.device("cpu")


def media(frames, name="clip", seed=0):
    """A clip whose sound and pictures tell each frame from every other."""
    rng = np.random.default_rng(seed)
    none = np.zeros((frames, 0), np.float32)
    sound = rng.integers(-9000, 9000, 640 * frames).astype(np.int16)
    return ClipMedia(name, sound, np.zeros((frames, 1, 1), np.uint8), none, none, np.full(frames, 29, np.uint8))


@st.composite
def sizes(draw):
    """(frames, window, overlap) with an overlap shorter than the window."""
    window = draw(st.integers(1, 60))
    return draw(st.integers(0, 400)), window, draw(st.integers(0, window - 1))


@settings(deadline=None)
@given(sizes())
def test_windows_cover_every_frame_once_and_fit(size):
    frames, window, overlap = size
    plan = windows.cut(0, media(frames), window, overlap)
    assert [k for piece in plan for k in range(piece.first, piece.last)] == list(range(frames))
    assert all(piece.start <= piece.first < piece.last <= piece.stop for piece in plan)
    assert all(piece.num_frames == min(window, frames) for piece in plan)
    assert not plan or (plan[0].start == 0 and plan[-1].stop == frames)


@settings(deadline=None)
@given(sizes())
def test_joins_lie_at_the_middle_of_each_overlap(size):
    frames, window, overlap = size
    for before, after in pairwise(windows.cut(0, media(frames), window, overlap)):
        assert before.stop - after.start >= overlap
        assert before.last == after.first == (before.stop + after.start) // 2
        assert min(before.stop - before.last, after.first - after.start) >= overlap // 2


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), max_size=12), st.integers(50, 400), st.booleans())
def test_batches_hold_every_piece_once_and_stay_within_their_size(lengths, batch_frames, padded):
    pieces = [piece for i, frames in enumerate(lengths) for piece in windows.cut(i, media(frames), 50, 10)]
    pieces.sort(key=lambda piece: -piece.num_frames)
    groups = windows.batches(pieces, batch_frames, padded)
    assert [piece for group in groups for piece in group] == pieces
    for group in groups:
        assert len(group) * max(piece.num_frames for piece in group) <= batch_frames
        assert padded or len({piece.num_frames for piece in group}) == 1


def test_batches_of_one_length_and_padded_ones():
    pieces = [piece for i, n in enumerate([750, 300, 75, 75, 75, 60]) for piece in windows.cut(i, media(n), 750, 100)]
    assert [len(group) for group in windows.batches(pieces, 1000, padded=False)] == [1, 1, 3, 1]
    assert [len(group) for group in windows.batches(pieces, 1000, padded=True)] == [1, 3, 2]


def loudness(pieces, half):
    """A network of one column without any context: the loudness of each frame."""
    return [np.abs(piece.audio.reshape(-1, 640)).mean(axis=1, dtype=np.float32)[:, None] for piece in pieces]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=5), st.integers(5, 40), st.integers(0, 4))
def test_rows_are_put_back_where_they_belong(lengths, window, overlap):
    clips = [media(frames, seed=i) for i, frames in enumerate(lengths)]
    rows = windows.embed("x", clips, 1, loudness, CPU, window=window, overlap=overlap, batch_frames=3 * window)
    for clip, found in zip(clips, rows, strict=True):
        expected = np.abs(clip.audio.reshape(-1, 640)).mean(axis=1, dtype=np.float32)[:, None]
        np.testing.assert_array_equal(found, expected)


def test_memory_is_that_of_a_batch_and_of_the_rows():
    """The network never sees more than batch_frames at once, however long the clip; 40,000 frames are 27 minutes."""
    seen = []

    def forward(pieces, half):
        seen.append(sum(piece.num_frames for piece in pieces))
        return [np.ones((piece.num_frames, 2), np.float32) for piece in pieces]

    sound = np.broadcast_to(np.int16(0), 640 * 40_000)  # no memory of its own
    none = np.zeros((40_000, 0), np.float32)
    clip = ClipMedia("long", sound, np.zeros((40_000, 1, 1), np.uint8), none, none, np.zeros(40_000, np.uint8))
    tracemalloc.start()
    try:
        (rows,) = windows.embed("x", [clip], 2, forward, CPU, window=500, overlap=100, batch_frames=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows.shape == (40_000, 2)
    assert (rows == 1).all()
    assert max(seen) <= 1000
    assert peak < 5e6  # of which rows 0.3 MB; the sound would be 51 MB


def test_a_value_that_is_not_finite_names_the_clip():
    def forward(pieces, half):
        return [np.full((piece.num_frames, 1), np.nan if piece.clip.id == "bad" else 0, np.float32) for piece in pieces]

    with pytest.raises(TeacherError, match="clip bad: x gave values that are not finite"):
        windows.embed("x", [media(5), media(5, "bad")], 1, forward, CPU, window=9, overlap=2)


def test_half_precision_that_overflows_is_computed_again_in_single():
    calls = []

    def forward(pieces, half):
        calls.append(half)
        return [np.full((piece.num_frames, 1), np.inf if half else 1, np.float32) for piece in pieces]

    class Cuda:
        type = "cuda"  # embed asks for no more than that

    (rows,) = windows.embed("x", [media(5)], 1, forward, Cuda(), window=9, overlap=2)
    assert calls == [True, False]
    assert (rows == 1).all()


def test_sound_that_does_not_fit_the_frames_names_the_clip():
    clip = media(20, "short")
    object.__setattr__(clip, "audio", clip.audio[:-1])
    with pytest.raises(TeacherError, match="clip short: 12799 samples of sound for 20 frames; expected 12800"):
        windows.cut(0, clip, 750, 100)
