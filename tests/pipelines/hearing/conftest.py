"""A detector of speech, a real clip, and the voice in it."""

import pytest
from sounds import voice_of

from teachers.voice import VoiceActivity


@pytest.fixture(scope="module")
def hears():
    return VoiceActivity().frames


@pytest.fixture(scope="module")
def source(clips):
    return clips / "clips" / "bbaf2n.mp4"


@pytest.fixture(scope="module")
def voice(source):
    return 0.5 * voice_of(source)
