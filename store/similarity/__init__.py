"""What two embeddings mean to each other: moments, canonical correlations, comparison of projections, calibration.

A *fit* holds two maps into one space, learned from real clips alone; projections are stored, and everything later compares
projections: per frame, averaged over a window, then mapped by a logistic curve to the probability that picture and sound belong
together. Kinds:

- cca: canonical correlation analysis (Hotelling 1936, "Relations between two sets of variates") from streaming, mergeable
  moments; compared by the cosine weighted by the canonical correlations.
- contrast: a small network on the picture side and a linear map on the sound side (`teachers.projector`), whose arrays are kept
  here under `network`; compared by the cosine. fused: the two projections side by side, each of length 1, so that its cosine is
  the mean of both.
- cosine: nothing is learned; two embeddings of one space (AV-HuBERT's picture and sound) by their cosine.
- posterior, js: nothing is learned; character posteriors by the paper's soft label, which is its own number and gets no
  logistic curve, or by a true Jensen-Shannon similarity (`store.similarity.posteriors`).

numpy alone, so that the pipeline that fits, the store that keeps and the trainer that compares run the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from store.similarity import posteriors

KINDS: tuple[str, ...] = ("cca", "contrast", "fused", "cosine", "posterior", "js")
LEARNED: tuple[str, ...] = ("cca", "contrast", "fused")  # the others compare embeddings as they are
WINDOWS: tuple[str, ...] = ("5", "25", "clip")  # frames averaged: the soft label, one second for decisions, everything
CONTEXT = 4  # frames before and after, on the picture side
CONTEXT_MAX_COLUMNS = 256  # wider embeddings see time themselves and get no context
MAX_CONTEXT = 64  # that a fit may ask for; each frame of it is a copy of the embedding
MAX_DIMS = 1 << 14
DIMS = 32
SHRINKAGE = 1e-2
EPSILON = 1e-8
MAX_OFFSET = 15  # frames: how far lips and sound of one clip are looked for apart
NEIGHBOURS = 2  # frames: an offset this near the best one is no rival to it


@dataclass(frozen=True)
class Moments:
    """Sums over frames of the picture side x [n, dx] and the sound side y [n, dy], in float64; they add."""

    count: int
    sum_x: np.ndarray
    sum_y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> Moments:
        """Moments of paired rows x [n, dx] and y [n, dy]; raises ValueError where they do not pair or are not finite."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if len(x) != len(y):
            raise ValueError(f"the two sides do not pair: {len(x)} rows of picture, {len(y)} of sound")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("embeddings hold values that are not finite")
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y, y.T @ y)

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(a + b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def __sub__(self, other: Moments) -> Moments:
        """Moments without those of a part, as cross-validation needs them."""
        return Moments(*(a - b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def _parts(self) -> tuple[Any, ...]:
        return self.count, self.sum_x, self.sum_y, self.xx, self.xy, self.yy


@dataclass(frozen=True)
class Fit:
    """Two maps into one space of K dimensions, and how a comparison there reads as a probability.

    vsr_mean [(2 context + 1) Dv], vsr_matrix [(2 context + 1) Dv, K], asr_mean [Da], asr_matrix [Da, K] (of cca and of the
    cca in fused, empty for others); correlations [K] in [0, 1], the weights of a comparison (ones except for cca); network, the
    arrays of `teachers.projector` (contrast, fused); calibration {corpus: {window: (slope, intercept)}}.
    """

    kind: str
    context: int
    vsr_mean: np.ndarray
    vsr_matrix: np.ndarray
    asr_mean: np.ndarray
    asr_matrix: np.ndarray
    correlations: np.ndarray
    calibration: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    network: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def dims(self) -> int:
        return len(self.correlations)

    def to_arrays(self) -> dict[str, Any]:
        """Nested dict for the store's `fit/` group: arrays, groups as dicts, and the group's attributes under "attrs"."""
        calibration = {
            corpus: {window: np.asarray(line, np.float64) for window, line in maps.items()}
            for corpus, maps in self.calibration.items()
        }
        return {
            "attrs": {"kind": self.kind, "context": self.context},
            "vsr_mean": self.vsr_mean,
            "vsr_matrix": self.vsr_matrix,
            "asr_mean": self.asr_mean,
            "asr_matrix": self.asr_matrix,
            "correlations": self.correlations,
            "calibration": calibration,
            **({"network": dict(self.network)} if self.network else {}),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Fit:
        """Inverse of `to_arrays`. Raises KeyError naming a part that is missing, ValueError for parts that make no fit: they
        may come from anyone."""
        attrs = arrays["attrs"]
        kind, context = attrs["kind"], attrs["context"]
        if kind not in KINDS or type(context) is not int or not 0 <= context <= MAX_CONTEXT:
            raise ValueError(f"a fit of kind {str(kind)[:40]} with {str(context)[:40]} frames of context")
        calibration = {
            corpus: {window: _line(line) for window, line in maps.items() if window != "attrs"}
            for corpus, maps in arrays.get("calibration", {}).items()
            if corpus != "attrs"
        }
        network = {name: _numbers(name, a) for name, a in arrays.get("network", {}).items() if name != "attrs"}
        fit = cls(
            kind,
            context,
            _numbers("vsr_mean", arrays["vsr_mean"]),
            _numbers("vsr_matrix", arrays["vsr_matrix"]),
            _numbers("asr_mean", arrays["asr_mean"]),
            _numbers("asr_matrix", arrays["asr_matrix"]),
            _numbers("correlations", arrays["correlations"]),
            calibration,
            network,
        )
        for mean, matrix in ((fit.vsr_mean, fit.vsr_matrix), (fit.asr_mean, fit.asr_matrix)):
            if mean.ndim != 1 or matrix.ndim != 2 or len(mean) != len(matrix):
                raise ValueError(f"a mean of shape {list(mean.shape)} with a matrix of shape {list(matrix.shape)}")
        if fit.correlations.ndim != 1 or not 0 < fit.dims <= MAX_DIMS or len(fit.vsr_mean) % (2 * context + 1):
            raise ValueError(f"a space of shape {list(fit.correlations.shape)}, or context that its columns have not")
        if kind == "cca" and not fit.vsr_matrix.shape[1] == fit.asr_matrix.shape[1] == fit.dims:
            raise ValueError("its two maps lead into different spaces")
        return fit

    def calibrated(self, corpus: str, maps: dict[str, tuple[float, float]]) -> Fit:
        """The same fit with a corpus's calibration added or replaced."""
        return replace(self, calibration={**self.calibration, corpus: maps})


def _numbers(name: str, value: Any) -> np.ndarray:
    """An array of finite numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{name} holds {array.dtype} that are no finite numbers")
    return array


def _line(value: Any) -> tuple[float, float]:
    """Slope and intercept."""
    line = _numbers("a calibration", value)
    if line.shape != (2,):
        raise ValueError(f"a calibration of shape {list(line.shape)}, expected slope and intercept")
    if line[0] < 0:
        raise ValueError(f"a calibration that falls, with slope {line[0]:g}")
    return float(line[0]), float(line[1])


def unlearned(kind: str, dims: int) -> Fit:
    """A fit of a kind that compares embeddings of `dims` columns as they are: cosine, posterior or js."""
    none = np.zeros(0, np.float32)
    empty = np.zeros((0, dims), np.float32)
    return Fit(kind, 0, none, empty, none, empty, np.ones(dims, np.float32))


def with_context(x: np.ndarray, context: int) -> np.ndarray:
    """Rows x [frames, D] with their neighbours at -context..+context: [frames, (2 context + 1) D]; edges repeat."""
    if context == 0:
        return x
    rows = np.arange(len(x))[:, None] + np.arange(-context, context + 1)[None, :]
    return x[rows.clip(0, len(x) - 1)].reshape(len(x), -1)


def context_for(columns: int) -> int:
    """Frames of context for a picture embedding of that width."""
    return CONTEXT if columns <= CONTEXT_MAX_COLUMNS else 0


def fit_cca(moments: Moments, context: int, dims: int = DIMS, shrinkage: float = SHRINKAGE) -> Fit:
    """Canonical correlations of the two sides.

    Each covariance is shrunk towards a multiple of the identity: (1 - s) C + s trace(C)/d I (Ledoit and Wolf 2004, with a fixed
    s). Projections have unit variance on the fitting frames. Raises ValueError with fewer frames than dimensions of the space.
    """
    if moments.count <= dims:
        raise ValueError(f"{moments.count} frames with face and voice cannot fit {dims} dimensions; add real clips")
    mean_x, mean_y = moments.sum_x / moments.count, moments.sum_y / moments.count
    cxx = moments.xx / moments.count - np.outer(mean_x, mean_x)
    cxy = moments.xy / moments.count - np.outer(mean_x, mean_y)
    cyy = moments.yy / moments.count - np.outer(mean_y, mean_y)
    white_x, white_y = _whitener(cxx, shrinkage), _whitener(cyy, shrinkage)
    left, values, right = _singular(white_x.T @ cxy @ white_y, dims)
    dims = len(values)
    a, b = white_x @ left, white_y @ right
    sign = np.sign(a[np.abs(a).argmax(0), np.arange(dims)])  # the sign of a pair of directions is free: fix it
    sign[sign == 0] = 1
    return Fit(
        "cca",
        context,
        mean_x.astype(np.float32),
        (a * sign).astype(np.float32),
        mean_y.astype(np.float32),
        (b * sign).astype(np.float32),
        values.clip(0, 1).astype(np.float32),
    )


def _singular(m: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first singular vectors and values of m [r, c]: left [r, k], values [k] falling, right [c, k], k <= count.

    By the symmetric eigenproblem of the smaller side: numpy's SVD (LAPACK's gesdd) does not converge on some processors where
    few clips leave m of low rank. Directions without a value have no other side, and stay zeros there.
    """
    wide = m.shape[0] <= m.shape[1]
    side = m if wide else m.T
    squares, vectors = np.linalg.eigh(side @ side.T)
    order = np.argsort(squares)[::-1][:count]
    near, values = vectors[:, order], np.sqrt(squares[order].clip(0))
    scale = np.where(values > 1e-7 * max(float(values.max(initial=0)), 1e-300), 1 / np.maximum(values, 1e-300), 0.0)
    far = side.T @ near * scale
    return (near, values, far) if wide else (far, values, near)


def _whitener(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    """W [d, d] with W' C W = I for the shrunk covariance C, by the symmetric root; null directions are left out as zeros."""
    d = len(covariance)
    level = np.trace(covariance) / d
    values, vectors = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * level * np.eye(d))
    inverse = np.where(values > 1e-12 * max(level, 1e-300), 1 / np.sqrt(np.maximum(values, 1e-300)), 0.0)
    return (vectors * inverse) @ vectors.T


def project_vsr(x: np.ndarray, fit: Fit) -> np.ndarray:
    """Picture embedding x [frames, Dv] by the linear map of cca: [frames, K] f4; unchanged for kinds that learn nothing."""
    if fit.kind not in LEARNED:
        return np.asarray(x, np.float32)
    return (with_context(np.asarray(x, np.float32), fit.context) - fit.vsr_mean) @ fit.vsr_matrix


def project_asr(y: np.ndarray, fit: Fit) -> np.ndarray:
    """Sound embedding y [frames, Da] by the linear map of cca: [frames, K] f4; unchanged for kinds that learn nothing."""
    if fit.kind not in LEARNED:
        return np.asarray(y, np.float32)
    return (np.asarray(y, np.float32) - fit.asr_mean) @ fit.asr_matrix


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
    v, a = np.asarray(vsr_projection, np.float64), np.asarray(asr_projection, np.float64)
    if v.shape != a.shape or v.ndim != 2 or v.shape[1] != fit.dims:
        raise ValueError(f"expected two projections [frames, {fit.dims}], got {v.shape} and {a.shape}")
    if len(v) == 0:
        return np.zeros(0, np.float32)
    if fit.kind == "posterior":
        agreement = posteriors.paper_label(v, a)
    elif fit.kind == "js":
        agreement = posteriors.js_similarity(v, a)
    else:
        agreement = _cosine(v, a, fit.correlations.astype(np.float64))
    weight = np.ones(len(v)) if mask is None else np.asarray(mask, np.float64)
    half = len(v) if str(window) == "clip" else (_checked(window) - 1) // 2
    total, kept = _moving_sum(agreement * weight, half), _moving_sum(weight, half)
    plain, width = _moving_sum(agreement, half), _moving_sum(np.ones(len(v)), half)
    mean = np.where(kept > 0.5, total / np.maximum(kept, 1), plain / width)
    return mean.clip(-1, 1).astype(np.float32)


def _cosine(v: np.ndarray, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Cosine of rows under weights w; rows are brought to a largest value of 1 first, so that no square overflows."""
    v = v / np.maximum(np.abs(v).max(1, keepdims=True), 1e-150)
    a = a / np.maximum(np.abs(a).max(1, keepdims=True), 1e-150)
    return (v * a) @ w / (np.sqrt((v * v) @ w) * np.sqrt((a * a) @ w) + EPSILON)


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
    there (`best`) and unshifted (`at_zero`), and how far the best one stands above all offsets that are no neighbours of it."""

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
    found: dict[int, float] = {}
    for shift in sorted(range(-limit, limit + 1), key=abs):
        lips, sound, _ = shifted(len(face), len(voice), shift)
        mask = face[lips] & voice[sound]
        if mask.any():
            found[shift] = float(scores(vsr_projection[lips][mask], asr_projection[sound][mask], fit, "clip")[0])
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


def fit_logistic(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """Slope (>= 0) and intercept of the logistic map from scores of true pairs and of swaps [n], each kind weighing the same.

    Newton steps on the log likelihood with Platt's softened targets (Platt 1999, "Probabilistic outputs for support vector
    machines"), so that separable scores keep a finite slope.
    """
    if len(positive) == 0 or len(negative) == 0:
        raise ValueError("calibration needs true pairs and swaps")
    s = np.concatenate([positive, negative]).astype(np.float64)
    hit, miss = 1 - 1 / (len(positive) + 2), 1 / (len(negative) + 2)
    target = np.r_[np.full(len(positive), hit), np.full(len(negative), miss)]
    weight = np.r_[np.full(len(positive), 0.5 / len(positive)), np.full(len(negative), 0.5 / len(negative))]
    slope, intercept = 0.0, 0.0
    for _ in range(100):
        p = 1 / (1 + np.exp(-(slope * s + intercept)))
        gradient = np.array([weight @ ((p - target) * s), weight @ (p - target)])
        curve = weight * p * (1 - p)
        hessian = np.array([[curve @ (s * s), curve @ s], [curve @ s, curve.sum()]]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        step *= min(
            1.0, 5.0 / (np.abs(step).max() + 1e-12)
        )  # far from the optimum the curve is flat and Newton overshoots
        slope, intercept = slope - step[0], intercept - step[1]
        if np.abs(step).max() < 1e-9:
            break
    if not slope > 0:  # swaps score no lower than true pairs: nothing to tell, and the map must not fall
        return 0.0, 0.0
    return float(slope), float(intercept)


def logistic(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """1 / (1 + exp(-(slope x + intercept))) as f4, without overflow."""
    z = np.clip(slope * np.asarray(values, np.float64) + intercept, -60, 60)
    return (1 / (1 + np.exp(-z))).astype(np.float32)


def brier(positive: np.ndarray, negative: np.ndarray) -> float:
    """Mean squared error of probabilities of true pairs and swaps [n], each kind weighing half (Brier 1950)."""
    return float(0.5 * np.mean((1 - positive) ** 2) + 0.5 * np.mean(negative**2))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a true pair scores above a swap, ties counting half (Mann and Whitney 1947)."""
    values, inverse, counts = np.unique(np.concatenate([positive, negative]), return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each distinct value, counted from 1
    n, m = len(positive), len(negative)
    return float((rank[inverse[:n]].sum() - n * (n + 1) / 2) / (n * m)) if n and m and len(values) else float("nan")


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
    return total[np.minimum(t + half + 1, len(x))] - total[np.maximum(t - half, 0)]
