"""A person's genuine videos as teachers see them, cut into pieces as long as the evidence of the video that is judged.

A piece is a run of frames with a moving face and a voice. Its own score is compared with swaps (the lips of one piece with
the sound of another) and with its own sound a little earlier or later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.labels import projection
from pipelines.labels.projection import half
from store import layout, similarity
from store.similarity import Fit

SHORTEST = 25  # frames of a piece: a second
MOST = 120  # pieces that are compared, evenly chosen
SHIFTS = (-8, -4, 4, 8)  # frames by which own sound is moved


@dataclass(frozen=True)
class Recording:
    """One video of the person: embeddings f2 of lips [frames, Dv] and sound [frames, Da], where a face is seen in a moving
    picture (`evident`) and a voice is heard, bool [frames]; lips at t are paired with the sound at t - `shift`. `sha256` is
    that of the file. After `projected` the arrays are projections [frames, K]."""

    path: str
    sha256: str
    vsr: np.ndarray
    asr: np.ndarray
    evident: np.ndarray
    voice: np.ndarray
    shift: int = 0

    @property
    def lips(self) -> np.ndarray:
        """Rows of lips that have their sound, int [n]."""
        there = np.zeros(len(self.voice), bool)
        lips, sound, _ = similarity.shifted(len(there), len(there), self.shift)
        there[lips] = self.evident[lips] & self.voice[sound]
        return np.flatnonzero(there)


@dataclass(frozen=True)
class Piece:
    """Rows of lips of one recording (by its number), int [n]; `shift` is the recording's."""

    recording: int
    lips: np.ndarray
    shift: int

    @property
    def sound(self) -> np.ndarray:
        return self.lips - self.shift


def projected(recordings: Sequence[Recording], fit: Fit) -> list[Recording]:
    """The recordings with projections in place of embeddings, rounded as in a store."""
    to_vsr, to_asr = projection.maps(fit)
    found = []
    for one in recordings:
        flags = np.where(one.evident, layout.FACE_DETECTED, 0) | np.where(one.voice, layout.VOICE_ACTIVE, 0)
        found.append(replace(one, vsr=half(to_vsr(one.vsr, flags)), asr=half(to_asr(one.asr, flags))))
    return found


def cut(recordings: Sequence[Recording], frames: int, most: int = MOST) -> list[Piece]:
    """Pieces of about `frames` frames, each recording in equal parts; one that is shorter is one piece, from SHORTEST on.
    Of more than `most` pieces that many are taken, evenly spaced."""
    found = []
    for k, one in enumerate(recordings):
        rows = one.lips
        if len(rows) >= SHORTEST:
            parts = max(1, round(len(rows) / frames))
            found += [Piece(k, part, one.shift) for part in np.array_split(rows, parts)]
    if len(found) > most:
        found = [found[k] for k in np.linspace(0, len(found) - 1, most).round().astype(int)]
    return found


def table(recordings: Sequence[Recording], pieces: Sequence[Piece], fit_of: Callable[[int], Fit]) -> np.ndarray:
    """Scores f8 [pieces, pieces] of the lips of each row with the sound of each column, by the fit of the row's piece;
    own pairs are the diagonal. `recordings` are projected by one fit where `fit_of` is constant, else embeddings."""
    found = np.zeros((len(pieces), len(pieces)))
    fits: dict[int, tuple[Fit, list[Recording]]] = {}
    for i, piece in enumerate(pieces):
        fit = fit_of(i)
        if id(fit) not in fits:
            fits[id(fit)] = fit, projected(recordings, fit)
        _, here = fits[id(fit)]
        found[i] = _with_all(here, piece, pieces, fit)
    return found


def _with_all(here: Sequence[Recording], piece: Piece, pieces: Sequence[Piece], fit: Fit) -> np.ndarray:
    """Scores [pieces] of a piece's lips with the sound of every piece, as far as both reach."""
    sizes = [min(len(piece.lips), len(other.lips)) for other in pieces]
    lips = np.concatenate([here[piece.recording].vsr[piece.lips[:n]] for n in sizes])
    rows = zip(pieces, sizes, strict=True)
    sound = np.concatenate([here[other.recording].asr[other.sound[:n]] for other, n in rows])
    each = similarity.scores(lips, sound, fit, 1)
    ends = np.cumsum(sizes)
    means: np.ndarray = np.add.reduceat(each.astype(np.float64), np.r_[0, ends[:-1]]) / sizes
    return means


def shifted_scores(recordings: Sequence[Recording], pieces: Sequence[Piece], fit: Fit) -> np.ndarray:
    """Scores [n, pieces] of each piece with its own sound moved by each of SHIFTS; NaN where little sound is left there."""
    here = projected(recordings, fit)
    found = np.full((len(SHIFTS), len(pieces)), np.nan)
    for k, shift in enumerate(SHIFTS):
        for i, piece in enumerate(pieces):
            one = here[piece.recording]
            sound = piece.sound - shift
            there = (sound >= 0) & (sound < len(one.voice))
            there[there] = one.voice[sound[there]]
            if there.sum() >= SHORTEST // 2:
                pair = one.vsr[piece.lips[there]], one.asr[sound[there]]
                found[k, i] = similarity.scores(*pair, fit, "clip")[0]
    return found
