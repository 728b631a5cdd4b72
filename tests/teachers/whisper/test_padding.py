"""Features of padded sound without all of the padding: close to the model's own, and the same beside any other clip."""

import numpy as np
import pytest
import torch
from test_transcribe import decoded

from teachers.whisper import padding
from teachers.whisper.teacher import Whisper
from teachers.whisper.transcribe import _mel, _wave


@pytest.fixture(scope="module")
def whisper():
    return Whisper("tiny.en")


def difference(mine, own):
    """Median over rows of the size of the difference, as a share of the row's."""
    return float(((mine - own).norm(dim=1) / own.norm(dim=1)).median())


def test_rows_of_the_sound_and_the_padding_are_close_to_the_models_own(whisper, clips):
    sound = decoded(clips / "clips" / "bbaf2n.mp4")
    with torch.inference_mode():
        mel = _mel(whisper._model, _wave(sound))
        mine, own = whisper._encode(mel), whisper._encode.whole(mel)
        again = padding.Encoder(whisper._model)(mel)
    assert mine.shape == own.shape == (1500, 384)
    assert difference(mine[:150], own[:150]) < 0.005
    assert difference(mine[150:], own[150:]) < 0.15
    assert torch.equal(again, mine)


def test_a_window_without_much_padding_is_the_models_own(whisper, clips):
    sound = np.tile(decoded(clips / "clips" / "bbaf2n.mp4"), 10)[: 16_000 * 29]
    with torch.inference_mode():
        mel = _mel(whisper._model, _wave(sound))
        assert torch.equal(whisper._encode(mel), whisper._encode.whole(mel))
