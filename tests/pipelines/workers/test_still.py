"""What a person is told of held pictures: where they stand, and nothing of pauses."""

import numpy as np
import pytest

from pipelines.seeing import still
from store import layout

VOICED = layout.IN_USE | layout.FACE_DETECTED | layout.AUDIO_PRESENT | layout.VOICE_ACTIVE
SILENT = VOICED & ~layout.VOICE_ACTIVE


def text(*parts):
    """The sentence for frames: (number, held, voice) one after the other; "" for none."""
    flags = np.concatenate([np.full(n, (VOICED if v else SILENT) | (layout.HELD if h else 0)) for n, h, v in parts])
    return "; ".join(fact.text for fact in still.facts(flags.astype(np.uint8)))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([(75, 0, 1)], ""),
        ([(20, 1, 0), (55, 0, 1)], ""),  # sits still before the first word
        ([(55, 0, 1), (8, 1, 1), (20, 0, 1)], ""),  # a third of a second
        ([(75, 1, 1)], "the picture stands still throughout"),
        ([(3, 0, 1), (70, 1, 1), (2, 0, 1)], "the picture stands still throughout"),
        ([(75, 1, 0)], "the picture stands still throughout"),  # nobody speaks
        ([(30, 0, 1), (35, 1, 1), (35, 0, 1)], "the picture stands still from 1.2 s to 2.6 s"),
        ([(10, 1, 0), (20, 0, 1), (20, 1, 1), (50, 0, 1)], "the picture stands still from 1.2 s to 2.0 s"),
        ([(20, 0, 1), (20, 1, 1)] * 5, "the picture stands still for 4.0 of 8.0 s, first from 0.8 s to 1.6 s"),
        ([(20, 0, 1), (4, 1, 1)] * 5, "the picture stands still for 0.8 of 4.8 s"),
    ],
)
def test_the_sentence(parts, said):
    assert text(*parts) == said


def test_marking_again_gives_the_same():
    rng = np.random.default_rng(0)
    mouth = np.repeat(rng.integers(0, 255, (4, 96, 96), np.uint8), [5, 1, 1, 20], 0)
    once = still.mark(mouth, np.full(27, VOICED, np.uint8))
    assert once.dtype == np.uint8
    assert ((once & layout.HELD) > 0).tolist() == [True] * 5 + [False] * 2 + [True] * 20
    assert np.array_equal(still.mark(mouth, once), once)
