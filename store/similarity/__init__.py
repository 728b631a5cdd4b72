"""Similarity of two embeddings: moments, canonical correlations, comparison of projections, calibration.

A *fit* holds two maps into one space, learned from real clips only; projections are stored, and everything later
compares projections: per frame, averaged over a window, then mapped by a logistic curve to the probability that picture
and sound belong together. Kinds:

- cca: canonical correlation analysis (Hotelling 1936, "Relations between two sets of variates") from streaming, mergeable
  moments; compared by the cosine weighted by the canonical correlations.
- contrast: small networks on both sides (`teachers.projector`), whose arrays are stored under `network`; compared by
  the cosine.
- fused: the projections of both side by side, each of length 1, so that its cosine is the mean of the two.
- cosine: nothing is learned; two embeddings of one space (AV-HuBERT's picture and sound) by their cosine.
- posterior, js: nothing is learned; character posteriors by the paper's soft label, which is its own number and gets no
  logistic curve, or by a true Jensen-Shannon similarity (`store.similarity.posteriors`).

It uses only numpy, so that the fitting pipeline, the store and the trainer run the same code.
"""

from store.similarity.calibrate import auc, brier, fit_logistic, logistic
from store.similarity.cca import SHRINKAGE, Moments, fit_cca
from store.similarity.compare import (
    EPSILON,
    MAX_OFFSET,
    NEIGHBOURS,
    Offset,
    best_offset,
    calibration_line,
    compare,
    is_calibrated,
    probability,
    project_asr,
    project_vsr,
    scores,
    shifted,
    unit_rows,
)
from store.similarity.fit import (
    CONTEXT,
    CONTEXT_MAX_COLUMNS,
    DIMS,
    KINDS,
    LEARNED,
    MAX_CONTEXT,
    MAX_DIMS,
    WINDOWS,
    Fit,
    context_for,
    unlearned,
    with_context,
)
from store.similarity.level import level_picture, level_projection, level_sound

__all__ = [
    "CONTEXT",
    "CONTEXT_MAX_COLUMNS",
    "DIMS",
    "EPSILON",
    "KINDS",
    "LEARNED",
    "MAX_CONTEXT",
    "MAX_DIMS",
    "MAX_OFFSET",
    "NEIGHBOURS",
    "SHRINKAGE",
    "WINDOWS",
    "Fit",
    "Moments",
    "Offset",
    "auc",
    "best_offset",
    "brier",
    "calibration_line",
    "compare",
    "context_for",
    "fit_cca",
    "fit_logistic",
    "is_calibrated",
    "level_picture",
    "level_projection",
    "level_sound",
    "logistic",
    "probability",
    "project_asr",
    "project_vsr",
    "scores",
    "shifted",
    "unit_rows",
    "unlearned",
    "with_context",
]
