"""Methods that change the picture: another mouth, a portrait that speaks, the face of other moments.

All three lay the texture of one frame over another through the face's mesh; they differ in the frame, the points and the
part of the face. Other moments are chosen so that lips and pose resemble what is wanted and follow each other calmly.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from concord.arrays import large
from pipelines.forging.kinds import Forged, Given, Run
from pipelines.forging.mesh import CHIN, CORNERS, EYES, OVAL, RIGID, Face, eased, warped, with_ring
from pipelines.forging.reading import Clip
from teachers.face.tracks import LIPS

APART = 5  # frames: a moment nearer than this counts as the same one
POSE = 0.5  # cost of a pose that differs by a unit of the mean face, where lips that do cost 1
JUMP = 0.7  # cost of going to another moment than the next
CALM = 0.8  # frames, standard deviation of the smoothing of a new mouth in time
MOUTH = 5.0, 22.0  # units of the mean face, as `Face.near`: all of the new mouth is seen, nothing of it
OWN_EYES = 3.0, 12.0  # the same of the eyes, which stay the frame's own: open ones cannot be warped to closed ones
LIVELY = 0.6, 1.6  # how much a driver's lips may be shrunk or enlarged to move as much as the speaker's do
OPEN = 0.7  # quantile of the mouth's openings that a portrait has: its teeth can be hidden, but not invented
RAMP = 2  # frames of transition at both ends of a part


def mouth(given: Given) -> Forged:
    """Everywhere the speaker's own mouth, of moments when its lips looked as another clip's do now."""
    return Forged(pictures=rewritten(given, (0, given.clip.num_frames)))


def rewritten(given: Given, part: Run) -> np.ndarray:
    """Pictures u1 [frames, height, width, 3] with another mouth in the frames of `part` alone."""
    clip, pictures = given.clip, _own(given.clip)
    face = Face(clip.points)
    moments = _moments(face, _driven(face, Face(given.other.points), given.rng))
    shapes = gaussian_filter1d(face.aligned[moments], CALM, axis=0, mode="nearest")
    near = face.near(LIPS, *MOUTH)
    shown = np.concatenate([near, np.zeros(len(OVAL))])
    found = _copy(pictures)
    start, stop = part
    for t in range(start, stop):
        inside = 1.0 if (start, stop) == (0, clip.num_frames) else _ramp(t, part)
        there = face.placed(shapes[t], t)
        target = clip.points[t] + (inside * near)[:, None] * (there - clip.points[t])
        source = clip.points[moments[t]]
        places = with_ring(source), with_ring(target)
        found[t] = warped(pictures[moments[t]], *places, face.triangles, shown * inside, pictures[t])
    return found


def reenact(given: Given) -> Forged:
    """The face's texture of other moments, but for the eyes, on each frame's own points: lips and sound still agree."""
    clip, pictures = given.clip, _own(given.clip)
    face = Face(clip.points)
    moments = _moments(face, face.aligned[:, LIPS])
    inside = 1 - face.near(EYES, *OWN_EYES)
    inside[OVAL] = 0
    shown = np.concatenate([inside, np.zeros(len(OVAL))])
    found = _copy(pictures)
    for t, s in enumerate(moments):
        places = with_ring(clip.points[s]), with_ring(clip.points[t])
        found[t] = warped(pictures[s], *places, face.triangles, shown, pictures[t])
    return Forged(pictures=found, used_donor=False)


def portrait(given: Given) -> Forged:
    """One frame, in which the mouth is a little open, with lips and jaw moved as the clip's; all else stands still."""
    clip, pictures = given.clip, _own(given.clip)
    face = Face(clip.points)
    still = _still(face, clip.kept)
    moves = np.maximum(face.near(LIPS, 4.0, 40.0), 0)
    moves[CHIN] = np.maximum(moves[CHIN], _jaw(face))
    shown = np.ones(len(moves) + len(OVAL))
    base = clip.points[still].astype(np.float64)
    # A head that turns moves the mouth sideways in the picture; here only the lips and the jaw move, not the head.
    middle = face.aligned[:, CORNERS, 0].mean(1)
    shapes = face.aligned - np.stack([middle - middle[still], np.zeros(len(middle))], axis=1)[:, None]
    found = _copy(pictures)
    for t in range(clip.num_frames):
        target = base + moves[:, None] * (face.placed(shapes[t], still) - base)
        places = with_ring(base), np.concatenate([target, with_ring(base)[len(base) :]])
        found[t] = warped(pictures[still], *places, face.triangles, shown, pictures[still])
    return Forged(pictures=found, used_donor=False, note=f"frame {still - clip.trim}")


def _own(clip: Clip) -> np.ndarray:
    assert clip.pictures is not None, "a method of the picture was given a clip without pictures"
    return clip.pictures


def _copy(pictures: np.ndarray) -> np.ndarray:
    found = large.zeros(pictures.shape, np.uint8)
    found[:] = pictures
    return found


def _ramp(t: int, part: Run) -> float:
    """From almost 0 to 1 and back within the part's first and last frames."""
    from_edge = min(t - part[0], part[1] - 1 - t)
    return float(eased(np.array((from_edge + 1) / (RAMP + 1))))


def _jaw(face: Face) -> np.ndarray:
    """f8 [19]: how much each point of the chin's outline moves with the jaw; nothing at the ears, all at the chin."""
    down = face.mean[CHIN][:, 1]
    low, high = face.mean[LIPS][:, 1].mean() - 10, down.max()
    return eased((down - low) / (high - low))


def _driven(face: Face, driver: Face, rng: np.random.Generator) -> np.ndarray:
    """f8 [frames, 40, 2]: lips as the driver's move, around the face's own mean and as lively, from a random moment on."""
    ours, theirs = face.aligned[:, LIPS], driver.aligned[:, LIPS]
    n, m = len(ours), len(theirs)
    there_and_back = np.concatenate([np.arange(m), np.arange(m)[::-1]])
    start = int(rng.integers(2 * m))
    order = there_and_back[(start + np.arange(n)) % (2 * m)]
    scale = np.clip(ours.std(0).mean() / max(theirs.std(0).mean(), 1e-6), *LIVELY)
    return np.asarray(ours.mean(0) + scale * (theirs[order] - theirs.mean(0)))


def _moments(face: Face, wanted: np.ndarray) -> np.ndarray:
    """int [frames]: for each frame another moment of the clip whose lips are like `wanted` [frames, 40, 2] and whose head is
    held alike; the cheapest way through all frames (Viterbi)."""
    lips = face.aligned[:, LIPS].reshape(len(face.points), -1)
    pose = face.aligned[:, RIGID].reshape(len(face.points), -1)
    cost = _distances(wanted.reshape(len(wanted), -1), lips) + POSE * _distances(pose, pose)
    n = len(cost)
    t = np.arange(n)
    cost[np.abs(t[:, None] - t[None]) < min(APART, n // 8)] = np.inf
    step = _distances(lips, lips) + JUMP
    step[t[:-1], t[1:]] = 0.0
    total, came = cost[0].copy(), np.zeros((n, n), int)
    for k in range(1, n):
        ways = total[:, None] + step
        came[k] = ways.argmin(0)
        total = ways[came[k], t] + cost[k]
    found = np.zeros(n, int)
    found[-1] = int(total.argmin())
    for k in range(n - 1, 0, -1):
        found[k - 1] = came[k, found[k]]
    return found


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """f8 [n, m]: mean distance of points, of rows [n, 2 * points] and [m, 2 * points]."""
    num = a.shape[1] // 2
    apart = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(apart, 0) / num)


def _still(face: Face, kept: slice) -> int:
    """The frame for a portrait: mouth open as in OPEN of the frames, head as in the mean."""
    opening = face.opening[kept]
    wanted = np.quantile(opening, OPEN)
    pose = face.aligned[kept][:, RIGID]
    away = np.linalg.norm(pose - pose.mean(0), axis=2).mean(1)
    return int(np.argmin(np.abs(opening - wanted) + away)) + kept.start
