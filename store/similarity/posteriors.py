"""How well two character posteriors agree, frame by frame: the paper's soft label made finite, and a true Jensen-Shannon
similarity beside it.

The paper's authors compute s = 1 - D with D = 1/2 [mean_c p ln(p/q + e) + mean_c q ln(q/p + e)], e = 1e-10, c over the 40
classes (github ljj898/CMDFD-Dataset-and-Deepfake-Detection, commit 4143007; named Jensen-Shannon there). That is the
symmetrised Kullback-Leibler divergence divided by twice the number of classes: s is -inf where a class is 0 on one side,
NaN where it is 0 on both, below 0 where two sure teachers differ. Here each class gives (p - q)(ln p - ln q), which is the
same sum without e (its share is below 1e-10), and no probability counts as less than FLOOR. FLOOR is the smallest normal
number of float32, in which theirs is computed: where theirs is defined the two agree, and a class that is 0 on both sides
gives 0.

Rows are LOG posteriors (natural logarithm), as the teachers give and a store keeps them: rounded to half precision they
still hold the far tail, on which D depends. Rounding leaves their sum near 1, so every function normalises first.
`log_posteriors` makes them from probabilities. numpy alone; float64 inside and out.
"""

import numpy as np

FLOOR = float(np.finfo(np.float32).tiny)  # probability, 1.2e-38
LOG_FLOOR = float(np.log(FLOOR))


def log_posteriors(probabilities: np.ndarray) -> np.ndarray:
    """Log posteriors f8 [.., classes] of probabilities [.., classes], which need not add up to 1.

    What is below 0 counts as 0; a row without anything above 0 says nothing and counts as uniform. Raises ValueError for values
    that are not finite.
    """
    given = np.asarray(probabilities, np.float64)
    if not np.isfinite(given).all():
        raise ValueError("probabilities hold values that are not finite")
    with np.errstate(divide="ignore"):
        return normalised(np.log(np.maximum(given, 0)))


def normalised(log_p: np.ndarray) -> np.ndarray:
    """f8 [.., classes] whose exponentials add up to 1, from log posteriors [.., classes] that need not; none below LOG_FLOOR.

    -inf is the logarithm of 0; a row of nothing else counts as uniform. Raises ValueError for NaN and +inf.
    """
    given = np.asarray(log_p, np.float64)
    if given.ndim == 0 or given.shape[-1] == 0:
        raise ValueError(f"expected log posteriors [.., classes], got the shape {given.shape}")
    if np.isnan(given).any() or (given == np.inf).any():
        raise ValueError("log posteriors hold NaN or +inf")
    top = given.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # the widest rows reach -inf, which the floor catches
        logs = np.where(top == -np.inf, 0.0, given - np.where(top == -np.inf, 0.0, top))
    logs -= np.log(np.exp(logs).sum(axis=-1, keepdims=True))
    return np.maximum(logs, LOG_FLOOR)


def symmetrised_divergence(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """The paper's D >= 0, f8 [..], of log posteriors [.., classes]: half the mean over classes of (p - q)(ln p - ln q)."""
    log_p, log_q = _pair(log_p, log_q)
    divergence: np.ndarray = ((np.exp(log_p) - np.exp(log_q)) * (log_p - log_q)).mean(axis=-1) / 2
    return divergence


def paper_similarity(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """The paper's s = 1 - D as it comes, f8 [..] of log posteriors [.., classes]: at most 1, with 40 classes at least -1.19."""
    return 1 - symmetrised_divergence(log_p, log_q)


def paper_label(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """The paper's s kept in [0, 1], as the student's loss needs it: f8 [..] of log posteriors [.., classes]."""
    return paper_similarity(log_p, log_q).clip(0, 1)


def js_similarity(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """1 - JS / ln 2 in [0, 1], f8 [..] of log posteriors [.., classes]: 1 for equal rows, 0 for rows that share no class.

    JS = 1/2 KL(p, m) + 1/2 KL(q, m), m = (p + q) / 2, in nats (Lin 1991, "Divergence measures based on the Shannon entropy").
    """
    log_p, log_q = _pair(log_p, log_q)
    log_m = np.logaddexp(log_p, log_q) - np.log(2)
    js = ((np.exp(log_p) * (log_p - log_m)).sum(axis=-1) + (np.exp(log_q) * (log_q - log_m)).sum(axis=-1)) / 2
    similarity: np.ndarray = (1 - js / np.log(2)).clip(0, 1)
    return similarity


def _pair(log_p: np.ndarray, log_q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if np.shape(log_p) != np.shape(log_q):
        raise ValueError(f"the two sides do not pair: log posteriors of shapes {np.shape(log_p)} and {np.shape(log_q)}")
    return normalised(log_p), normalised(log_q)
