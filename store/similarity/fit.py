"""A fit: two maps into one space, and how a comparison there reads as a probability."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

KINDS: tuple[str, ...] = ("cca", "contrast", "fused", "cosine", "posterior", "js")
LEARNED: tuple[str, ...] = ("cca", "contrast", "fused")  # the others compare embeddings as they are
WINDOWS: tuple[str, ...] = ("5", "25", "clip")  # frames averaged: the soft label, one second for decisions, everything
CONTEXT = 4  # frames before and after, on the picture side
CONTEXT_MAX_COLUMNS = 256  # wider embeddings see time themselves and get no context
MAX_CONTEXT = 64  # that a fit may ask for; each frame of it is a copy of the embedding
MAX_DIMS = 1 << 14
DIMS = 32


@dataclass(frozen=True)
class Fit:
    """Two maps into one space of K dimensions, and how a comparison there reads as a probability.

    vsr_mean [(2 context + 1) Dv], vsr_matrix [(2 context + 1) Dv, K], asr_mean [Da], asr_matrix [Da, K] (of cca and of the
    cca in fused, empty for others); correlations [K] in [0, 1], the weights of a comparison (ones except for cca); network, the
    arrays of `teachers.projector` (contrast, fused); calibration {corpus: {window: (slope, intercept)}}; level: the maps take
    embeddings that were levelled (`store.similarity.level`); seen u8 [clips, 2], the keys of the clips that it was learned from
    (`store.seen`), None if that was not recorded.
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
    level: bool = False
    seen: np.ndarray | None = None

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
            "attrs": {"kind": self.kind, "context": self.context, **({"level": True} if self.level else {})},
            "vsr_mean": self.vsr_mean,
            "vsr_matrix": self.vsr_matrix,
            "asr_mean": self.asr_mean,
            "asr_matrix": self.asr_matrix,
            "correlations": self.correlations,
            "calibration": calibration,
            **({"network": dict(self.network)} if self.network else {}),
            **({"seen": self.seen} if self.seen is not None else {}),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Fit:
        """Inverse of `to_arrays`. Raises KeyError naming a part that is missing, ValueError for parts that make no fit: they
        may come from anyone."""
        attrs = arrays["attrs"]
        kind, context, level = attrs["kind"], attrs["context"], attrs.get("level", False)
        if kind not in KINDS or type(context) is not int or not 0 <= context <= MAX_CONTEXT:
            raise ValueError(f"a fit of kind {str(kind)[:40]} with {str(context)[:40]} frames of context")
        if type(level) is not bool:
            raise ValueError(f"a fit whose level is {str(level)[:40]}")
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
            level,
            _keys(arrays.get("seen")),
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
        raise ValueError(f"{name} holds {array.dtype} that are not finite numbers")
    return array


def _keys(value: Any) -> np.ndarray | None:
    """Keys of clips u8 [n, 2], or None."""
    if value is None:
        return None
    keys = np.asarray(value)
    if keys.dtype.kind != "u" or keys.ndim != 2 or keys.shape[1] != 2:
        raise ValueError(f"seen is {keys.dtype} {list(keys.shape)}, expected two keys for each clip")
    return keys.astype(np.uint64)


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
    return Fit(kind, 0, none, empty, none, empty, np.ones(dims, np.float32), seen=np.zeros((0, 2), np.uint64))


def with_context(x: np.ndarray, context: int) -> np.ndarray:
    """Rows x [frames, D] with their neighbours at -context..+context: [frames, (2 context + 1) D]; edges repeat."""
    if context == 0:
        return x
    rows = np.arange(len(x))[:, None] + np.arange(-context, context + 1)[None, :]
    wide: np.ndarray = x[rows.clip(0, len(x) - 1)].reshape(len(x), -1)
    return wide


def context_for(columns: int) -> int:
    """Frames of context for a picture embedding of that width."""
    return CONTEXT if columns <= CONTEXT_MAX_COLUMNS else 0
