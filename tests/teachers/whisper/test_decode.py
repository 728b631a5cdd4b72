"""Many pieces of sound decoded together: what whisper finds one by one, the same bits beside any others."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_transcribe import decoded, media

from teachers.whisper.decode import Piece, _segments, decode, warped
from teachers.whisper.teacher import Whisper
from teachers.whisper.transcribe import _mel, _wave


@pytest.fixture(scope="module")
def whisper():
    return Whisper("tiny.en")


@pytest.fixture(scope="module")
def sentences(clips):
    """i2 [640 * 75] of each real sentence that the repository ships."""
    return [decoded(path) for path in sorted((clips / "clips").glob("*.mp4"))]


@settings(deadline=None)
@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-3, 3)))
def test_the_path_is_whispers_own_also_among_equals(cost):
    from whisper import timing

    total = np.full([side + 1 for side in cost.shape], np.inf)
    trace = np.full(total.shape, -1)
    total[0, 0] = 0
    for j in range(1, total.shape[1]):
        for i in range(1, total.shape[0]):
            both, above, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            trace[i, j] = 0 if both < min(above, left) else 1 if above < min(both, left) else 2
            total[i, j] = cost[i - 1, j - 1] + (both, above, left)[trace[i, j]]
    np.testing.assert_array_equal(warped(cost), timing.backtrace.py_func(trace))


def whispers_own(model, sound):
    """(window, word, start, end, probability) by whisper's own routine."""
    import whisper

    found = whisper.transcribe(
        model,
        _wave(sound),
        temperature=0.0,
        condition_on_previous_text=False,
        word_timestamps=True,
        language="en",
        logprob_threshold=None,
        fp16=False,
        verbose=None,
    )
    return [
        (segment["seek"], word["word"], float(word["start"]), float(word["end"]), word["probability"])
        for segment in found["segments"]
        for word in segment["words"]
    ]


def check_same(model, encode, sounds):
    pieces = [Piece(_mel(model, _wave(sound)), "en") for sound in sounds]
    with torch.inference_mode():
        decode(model, pieces, encode)
    for sound, piece in zip(sounds, pieces, strict=True):
        expected = whispers_own(model, sound)
        assert expected
        assert [(word.window, word.text) for word in piece.words] == [word[:2] for word in expected]
        for word, (_, _, start_s, end_s, probability) in zip(piece.words, expected, strict=True):
            assert (word.start_s, word.end_s) == (start_s, end_s)
            assert word.probability == pytest.approx(probability, abs=1e-3)


@pytest.mark.slow
def test_pieces_of_one_and_of_several_windows_have_whispers_own_words_and_times(whisper, sentences):
    """The model's own encoder, so that nothing differs but the batch."""
    long = np.concatenate([np.roll(sentence, 640 * k) for k in range(4) for sentence in sentences])
    check_same(whisper._model, whisper._encode.whole, [sentences[0], long[: 640 * 900], sentences[1]])


def test_words_are_the_same_bits_beside_any_others(whisper, sentences):
    clips = [media(sentence) for sentence in sentences[:3]]
    together = whisper.transcribe(clips)
    assert together[::2] == [whisper.transcribe([clip])[0] for clip in clips[::2]]
    assert all(len(words) >= 3 for words in together)


def test_time_tokens_divide_a_window():
    zero = 1000
    spoken = [zero, 1, 2, zero + 50, zero + 60, 3, zero + 100]
    segments, step, whole = _segments(spoken, zero, 30.0, 3000)
    assert [(s["start"], s["end"], s["tokens"]) for s in segments] == [
        (30.0, 31.0, spoken[:4]),
        (pytest.approx(31.2), 32.0, spoken[4:]),
    ]
    assert (step, whole) == (3000, True)
    segments, step, whole = _segments([*spoken[:5], 3], zero, 0.0, 3000)  # the last is not finished: again from there
    assert ([s["end"] for s in segments], step, whole) == ([1.0], 100, False)
    segments, step, whole = _segments([zero, 1, 2], zero, 0.0, 500)
    assert (segments[0]["end"], step, whole) == (5.0, 500, False)
