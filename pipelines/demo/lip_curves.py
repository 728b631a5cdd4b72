"""The lips of the portrait as curves, for each mouth shape."""

from dataclasses import dataclass

import numpy as np

SHAPE = ("jaw", "spread", "round", "upper", "lower", "press", "tuck", "tongue")  # columns of a mouth shape

MIDDLE_X, SEAM_Y, TILT = (
    256.6,
    288.5,
    0.03,
)  # position of the closed mouth, and the slope of the face in the photograph
HALF_WIDTH = 34.0  # of the mouth at rest; the photograph's smile has 42


@dataclass(frozen=True)
class Curves:
    """The four lip edges of one mouth shape, each [n, 2], from the left corner to the right."""

    upper_outer: np.ndarray
    upper_inner: np.ndarray
    lower_inner: np.ndarray
    lower_outer: np.ndarray


def lip_curves(shape: np.ndarray, u: np.ndarray) -> Curves:
    """Positions of the lip edges for a mouth shape [8] (see SHAPE), at u [n] from -1 (left corner) to 1 (right
    corner)."""
    jaw, spread, round_, upper, lower, press, tuck, _ = np.asarray(shape, dtype=float)
    a = np.minimum(np.abs(u), 1.0)
    half = HALF_WIDTH * (1 + 0.17 * spread - 0.36 * round_ - 0.06 * jaw)
    x = MIDDLE_X + u * half
    seam = SEAM_Y + TILT * (x - MIDDLE_X) + (2.5 * jaw - 2.5 * spread + 0.5) * a**2
    opening = (1 - a**2) ** (0.85 - 0.25 * round_)
    rise = (4.5 * upper + 2.0 * jaw + 1.6 * round_ * (1 - press)) * opening * (1 - 0.9 * press)
    drop = (17.0 * jaw + 5.5 * lower + 3.0 * round_) * opening * (1 - 0.95 * press)
    rise = rise + 3.5 * tuck * opening
    drop = (1 - tuck) * drop + tuck * (-0.5 * opening)
    gap = np.maximum(rise + drop, (1.0 - 0.5 * press) * (1 - a**6))  # closed lips still show a line between them
    top = seam - rise
    bottom = top + gap
    profile = (1 - a**2) ** 0.6
    thick_upper = 8.0 * (1 + 0.22 * round_ - 0.12 * spread - 0.5 * press) * profile - 1.0 * np.exp(-((u / 0.14) ** 2))
    thick_lower = 11.0 * (1 + 0.18 * round_ - 0.08 * spread - 0.5 * press - 0.35 * tuck) * profile
    edges = (top - thick_upper, top, bottom, bottom + thick_lower)
    return Curves(*(np.stack([x, y], axis=1) for y in edges))
