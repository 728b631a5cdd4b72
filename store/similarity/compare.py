"""Comparing projections: per frame, over a window, as a probability, and at other times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from store.similarity import posteriors
from store.similarity.calibrate import logistic
from store.similarity.fit import (
    LEARNED,
    Fit,
    with_context,
)

EPSILON = 1e-8
ROWS = 7_500  # frames, five minutes, that are compared at once in double precision
MAX_OFFSET = 15  # frames: how far lips and sound of one clip are looked for apart
NEIGHBOURS = 2  # frames: an offset this near the best one does not compete with it


def project_vsr(x: np.ndarray, fit: Fit) -> np.ndarray:
    """Picture embedding x [frames, Dv] by the linear map of cca: [frames, K] f4; unchanged for kinds that learn nothing."""
    if fit.kind not in LEARNED:
        return np.asarray(x, np.float32)
    projection: np.ndarray = (with_context(np.asarray(x, np.float32), fit.context) - fit.vsr_mean) @ fit.vsr_matrix
    return projection


def project_asr(y: np.ndarray, fit: Fit) -> np.ndarray:
    """Sound embedding y [frames, Da] by the linear map of cca: [frames, K] f4; unchanged for kinds that learn nothing."""
    if fit.kind not in LEARNED:
        return np.asarray(y, np.float32)
    projection: np.ndarray = (np.asarray(y, np.float32) - fit.asr_mean) @ fit.asr_matrix
    return projection


def scores(
    vsr_projection: np.ndarray,
    asr_projection: np.ndarray,
    fit: Fit,
    window: int | str = 5,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Uncalibrated agreement in [-1, 1] of paired rows [frames, K]: [frames] f4; finite for any finite rows.

    Per frame the weighted cosine, or what posteriors have in common; then the mean over the window (centred, cut at the ends)
    of the frames that `mask` [frames] keeps; a window without any takes all of its frames. "clip" repeats the mean over all.
    """
    v, a = np.asarray(vsr_projection), np.asarray(asr_projection)
    if v.shape != a.shape or v.ndim != 2 or v.shape[1] != fit.dims:
        raise ValueError(f"expected two projections [frames, {fit.dims}], got {v.shape} and {a.shape}")
    if len(v) == 0:
        return np.zeros(0, np.float32)
    agreement = np.concatenate([_agreement(v[k : k + ROWS], a[k : k + ROWS], fit) for k in range(0, len(v), ROWS)])
    weight = np.ones(len(v)) if mask is None else np.asarray(mask, np.float64)
    half = len(v) if str(window) == "clip" else (_checked(window) - 1) // 2
    total, kept = _moving_sum(agreement * weight, half), _moving_sum(weight, half)
    plain, width = _moving_sum(agreement, half), _moving_sum(np.ones(len(v)), half)
    mean: np.ndarray = np.where(kept > 0.5, total / np.maximum(kept, 1), plain / width)
    return mean.clip(-1, 1).astype(np.float32)


def _agreement(v: np.ndarray, a: np.ndarray, fit: Fit) -> np.ndarray:
    """Agreement f8 [frames] of paired rows [frames, K], each for itself."""
    v, a = v.astype(np.float64), a.astype(np.float64)
    if fit.kind == "posterior":
        return posteriors.paper_label(v, a)
    if fit.kind == "js":
        return posteriors.js_similarity(v, a)
    return _cosine(v, a, fit.correlations.astype(np.float64))


def unit_rows(x: np.ndarray, fit: Fit) -> np.ndarray | None:
    """Projections x [..., K] of either side as rows f4 of length 1 whose products are the pairs' agreement per frame
    (`scores` with a window of 1). None for kinds that compare distributions."""
    if fit.kind in ("posterior", "js"):
        return None
    w = fit.correlations.astype(np.float64)
    rows, norm = _scaled(np.asarray(x).reshape(-1, x.shape[-1]), w)
    unit: np.ndarray = rows * np.sqrt(w) / (norm[:, None] + EPSILON)
    return unit.reshape(x.shape).astype(np.float32)


def _agreement_of_slices(v: np.ndarray, a: np.ndarray, fit: Fit) -> Callable[[slice, slice], np.ndarray]:
    """A function from equally long slices of lips v [n, K] and sound a [m, K] to their agreement f8 [frames].

    For cosines the rows are made unit-long under the weights once, whatever the number of slices.
    """
    if fit.kind in ("posterior", "js"):
        return lambda lips, sound: _agreement(v[lips], a[sound], fit)
    w = fit.correlations.astype(np.float64)
    (lips_rows, lips_norm), (sound_rows, sound_norm) = _scaled(v, w), _scaled(a, w)
    lips_rows *= w

    def agree(lips: slice, sound: slice) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            dots = np.einsum("tk,tk->t", lips_rows[lips], sound_rows[sound])
            cosine: np.ndarray = dots / (lips_norm[lips] * sound_norm[sound] + EPSILON)
        return cosine

    return agree


def _scaled(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows f8 [n, K] with a largest value of 1, so that no square overflows, and their lengths [n] under weights w."""
    with np.errstate(invalid="ignore"):
        x = x.astype(np.float64)
        x = x / np.maximum(np.abs(x).max(1, keepdims=True), 1e-150)
        return x, np.sqrt((x * x) @ w)


def _cosine(v: np.ndarray, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Cosine of rows under weights w. A row that is not finite gives NaN."""
    (v, v_norm), (a, a_norm) = _scaled(v, w), _scaled(a, w)
    with np.errstate(invalid="ignore"):
        cosine: np.ndarray = (v * a) @ w / (v_norm * a_norm + EPSILON)
    return cosine


def compare(
    vsr_projection: np.ndarray,
    asr_projection: np.ndarray,
    fit: Fit,
    window: int | str = 5,
    mask: np.ndarray | None = None,
    corpus: str | None = None,
) -> np.ndarray:
    """Probability [frames] f4 that row t of the lips and row t of the sound belong together, finite and in [0, 1].

    `vsr_projection`, `asr_projection` [frames, K]; `window` 5, 25 or "clip"; `mask` [frames] marks frames with face and voice;
    `corpus` chooses the calibration (that of the lips' clip). A corpus without one takes the first that the fit has, and
    nearly (1 + score) / 2 where it has none: see `is_calibrated`. Of kind "posterior" it is the paper's number, uncalibrated.
    """
    return probability(scores(vsr_projection, asr_projection, fit, window, mask), fit, window, corpus)


def probability(score: np.ndarray, fit: Fit, window: int | str, corpus: str | None) -> np.ndarray:
    """Probabilities f4 of uncalibrated scores of that window, by the corpus's map: see `compare`."""
    if fit.kind == "posterior":
        return np.asarray(score, np.float32).clip(0, 1)
    return logistic(score, *calibration_line(fit, window, corpus))


@dataclass(frozen=True)
class Offset:
    """Where the sound of a clip fits its lips best: `frames` (lips at t with sound at t - frames), the clip's score in [-1, 1]
    there (`best`) and unshifted (`at_zero`), and how far the best one stands above all offsets that are not its neighbours."""

    frames: int
    best: float
    at_zero: float
    margin: float


def best_offset(
    vsr_projection: np.ndarray,
    asr_projection: np.ndarray,
    fit: Fit,
    face: np.ndarray | None = None,
    voice: np.ndarray | None = None,
    limit: int = MAX_OFFSET,
) -> Offset:
    """The constant offset within +-`limit` frames under which lips [n, K] and sound [m, K] agree best over the clip.

    face [n], voice [m] bool mark frames that count. Offsets that leave no frame in common are passed over; ties go to the
    smaller one. Raises ValueError where nothing is left.
    """
    face = np.ones(len(vsr_projection), bool) if face is None else np.asarray(face, bool)
    voice = np.ones(len(asr_projection), bool) if voice is None else np.asarray(voice, bool)
    shifts = sorted(range(-limit, limit + 1), key=abs)
    total, kept = dict.fromkeys(shifts, 0.0), dict.fromkeys(shifts, 0)
    for first in range(0, len(face), ROWS):  # parts of the lips, with the sound that may belong to them
        early = max(0, first - limit)
        v, a = vsr_projection[first : first + ROWS], asr_projection[early : first + ROWS + limit]
        agree = _agreement_of_slices(np.asarray(v), np.asarray(a), fit)
        for shift in shifts:
            lips, _, _ = shifted(len(face), len(voice), shift)
            start, stop = max(lips.start, first), min(lips.stop, first + ROWS)
            if start < stop:
                mask = face[start:stop] & voice[start - shift : stop - shift]
                if mask.any():
                    rows = slice(start - first, stop - first), slice(start - shift - early, stop - shift - early)
                    total[shift] += float(agree(*rows)[mask].sum())
                    kept[shift] += int(mask.sum())
    found = {shift: float(np.float32(np.clip(total[shift] / kept[shift], -1, 1))) for shift in shifts if kept[shift]}
    if not found:
        raise ValueError("lips and sound have no frame with face and voice in common")
    best = max(found, key=lambda shift: found[shift])
    rivals = [score for shift, score in found.items() if abs(shift - best) > NEIGHBOURS]
    return Offset(best, found[best], found.get(0, float("nan")), found[best] - max(rivals, default=float("nan")))


def is_calibrated(fit: Fit, window: int | str, corpus: str | None) -> bool:
    """Whether `compare` uses a map that was fitted on that very corpus."""
    return str(window) in fit.calibration.get(corpus or "", {})


def calibration_line(fit: Fit, window: int | str, corpus: str | None) -> tuple[float, float]:
    """Slope and intercept of the logistic map for a corpus; the window without an own map takes the nearest length's."""
    maps = fit.calibration.get(corpus or "") or next(iter(fit.calibration.values()), {})
    if str(window) in maps:
        return maps[str(window)]
    if not maps:
        return 2.0, 0.0  # near (1 + score) / 2, and never outside (0, 1)
    frames = {name: float("inf") if name == "clip" else float(name) for name in maps}
    wanted = float(_checked(window))
    return maps[min(frames, key=lambda name: abs(frames[name] - wanted))]


def shifted(length_i: int, length_j: int, shift: int) -> tuple[slice, slice, slice]:
    """Rows of lips i, of sound j and of the answer for `shift`: lips at t meet sound at t - shift, t below both lengths."""
    length = min(length_i, length_j)
    start, stop = max(0, shift), min(length, length_j + shift)
    stop = max(start, stop)
    return slice(start, stop), slice(start - shift, stop - shift), slice(start, stop)


def _checked(window: int | str) -> int:
    """Frames of a window: an odd whole number."""
    if str(window) == "clip":
        return 10**9
    frames = int(window)
    if frames < 1 or frames % 2 == 0:
        raise ValueError(f'window must be an odd number of frames or "clip", not {window}')
    return frames


def _moving_sum(x: np.ndarray, half: int) -> np.ndarray:
    """Sum of x over [t - half, t + half], cut at the ends."""
    total = np.r_[0.0, np.cumsum(x)]
    t = np.arange(len(x))
    sums: np.ndarray = total[np.minimum(t + half + 1, len(x))] - total[np.maximum(t - half, 0)]
    return sums
