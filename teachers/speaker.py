"""Which of several faces speaks: the one whose lips move while there is a voice.

The measure is how fast the lips open and close, in the frame of the mean face, so that large and small faces compare.
Measured (mean over frames with voice, pixels per frame, 133 clips): people who talk have .5 to 2, one in twenty less
than .4; people who are silent have .02 to .2. It tells a speaker from a listener, a photo or a poster. It does not tell
which of two people who both move their lips is heard (right in 64 % of pairs): then there is no clear choice, and the
caller takes the most prominent face, or lets the teachers' similarity decide.
"""

from collections.abc import Sequence

import numpy as np

OPENINGS = ((23, 37), (25, 35), (27, 33))  # pairs of points of `ClipMedia.lips` on the inner lips, above and below
STEADY = 3  # frames over which an opening is averaged first: landmarks tremble
SILENT = 0.3  # pixels of the mean face per frame: lips that move less while there is a voice do not speak
CLEAR = 2.5  # and so many times less than the lips of another face
MIN_FRAMES = 10  # with face and voice; with fewer the motion of lips says nothing


def motion(lips: np.ndarray, seen: np.ndarray, voice: np.ndarray) -> float:
    """How fast lips f4 [frames, 40, 2] open and close where `seen` and `voice`, bool [frames], hold: pixels of the mean
    face per frame; 0 with fewer than MIN_FRAMES such frames."""
    if int((seen & voice).sum()) < MIN_FRAMES:
        return 0.0
    opening = np.mean([np.linalg.norm(lips[:, a] - lips[:, b], axis=1) for a, b in OPENINGS], axis=0)
    padded = np.pad(opening, STEADY // 2, mode="edge")
    steady = np.convolve(padded, np.full(STEADY, 1 / STEADY), mode="valid")
    # A change between two frames counts only if the face was found in both.
    both = seen[1:] & seen[:-1] & voice[1:]
    return float(np.abs(np.diff(steady))[both].mean()) if both.any() else 0.0


def may_speak(motions: Sequence[float]) -> list[int]:
    """The faces that may be the speaker, by the `motion` of each: all whose lips move, except those that move far less
    than others and hardly at all; all faces, if no lips move."""
    top = max(motions, default=0.0)
    if top < SILENT:
        return list(range(len(motions)))
    return [i for i, value in enumerate(motions) if value >= SILENT or value * CLEAR > top]
