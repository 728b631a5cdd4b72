"""Whether what was read from a made file is right: the frames, their lips, the sound, what is held, what is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from concord.frames import FACE_DETECTED as DETECTED
from concord.frames import HELD, SAMPLE_RATE
from concord.frames import SAMPLES_PER_FRAME as SAMPLES
from concord.frames import VOICE_ACTIVE as VOICE
from made.kinds import Right
from pipelines.seeing.still import TOLD

MAX_LAG_MS = 1.0
SEARCH = 1600  # samples in which the lag is looked for, 100 ms
AHEAD = 12  # frames over which crops are aligned

SURELY = 6  # frames of a passage that may be missed


def faults(right: Right, seen: Any, base: Any) -> list[str]:
    """What is wrong in `seen`, a watched clip, for a file made from the clip `base`; [] if all is right."""
    assert right.source is not None
    clip, truth = seen.clip, base.clip
    if clip.num_frames != len(right.source):
        return [f"{clip.num_frames} frames, expected {len(right.source)}"]
    found = [*_told(right, seen, truth), *_held(right, clip, truth)]
    if right.sound:
        found += _sound(right, clip.audio, truth.audio)
    here = [s if not right.gone[0] <= k < right.gone[1] else -1 for k, s in enumerate(right.source.tolist())]
    pairs = [(k, s) for k, s in enumerate(here) if s >= 0 and truth.flags[s] & DETECTED]
    ours, theirs = np.array([k for k, _ in pairs]), np.array([s for _, s in pairs])
    faced = (clip.flags[ours] & DETECTED) > 0
    if faced.mean() < 0.9:
        return [*found, f"a face in {faced.mean():.0%} of the frames"]
    ours, theirs = ours[faced], theirs[faced]
    if right.lips:
        inner = _inner(right.source)[ours]
        alike = _alike(clip.lips[ours[inner]], truth.lips[theirs[inner]])
        if alike < right.lips:
            found.append(f"lips are {alike:.3f} alike")
        wide, true = _proportion(clip.lips[ours]), _proportion(truth.lips[theirs])
        if not 0.92 < wide / true < 1.08:
            found.append(f"lips are {wide:.2f} times as wide as high, expected {true:.2f}")
    if right.contrast and right.lips:
        ratio = float(clip.mouth[ours].std((1, 2)).mean() / truth.mouth[theirs].std((1, 2)).mean())
        if not 0.85 < ratio < 1.15:
            found.append(f"crops have {ratio:.2f} of the contrast")
    return found


def _told(right: Right, seen: Any, truth: Any) -> Iterator[str]:
    expected = set(right.facts)
    if right.held is not None and 2 * right.held.sum() < len(right.held) + SURELY:
        assert right.source is not None
        spoken = right.held & (right.source >= 0) & ((truth.flags[right.source] & VOICE) > 0)
        if spoken.sum() < TOLD + SURELY:
            expected.discard("held_pictures")  # a person who may sit still in a pause: nobody needs to know
    told = {fact.kind for fact in seen.facts}
    if expected - told:
        yield f"not told: {', '.join(sorted(expected - told))}"


def _held(right: Right, clip: Any, truth: Any) -> Iterator[str]:
    """What is held of the frames that have a voice and moving lips in the base, or of those that stand still."""
    assert right.source is not None
    faced = (clip.flags & DETECTED) > 0
    held = (clip.flags & HELD) > 0
    if right.held is None:
        moves = (truth.flags[right.source] & (VOICE | HELD)) == VOICE
        voiced = faced & moves & (right.source >= 0) & ((clip.flags & VOICE) > 0)
        if voiced.any() and held[voiced].mean() > 0.03:
            yield f"{held[voiced].mean():.0%} of the frames with a voice are held"
    elif held[right.held & faced].mean() < right.found:
        yield f"{held[right.held & faced].mean():.0%} of the frames that stand still are held"


def _inner(source: np.ndarray) -> np.ndarray:
    """Frames bool [frames] that are not aligned together with frames of another part of the base."""
    edges = np.flatnonzero((np.diff(source) != 1) & (source[1:] >= 0) & (source[:-1] >= 0)) + 1
    inner = np.ones(len(source), bool)
    for edge in edges:
        inner[max(edge - AHEAD, 0) : edge] = False
    return inner


def _sound(right: Right, audio: np.ndarray, truth: np.ndarray) -> Iterator[str]:
    """The lag of each unbroken run of the base's frames."""
    source = right.source
    assert source is not None
    edges = np.flatnonzero(np.diff(source) != 1) + 1
    for run in np.split(np.arange(len(source)), edges):
        if source[run[0]] < 0 or len(run) < 15:
            continue
        mine = audio[run[0] * SAMPLES : (run[-1] + 1) * SAMPLES].astype(np.float64)
        theirs = truth[source[run[0]] * SAMPLES : (source[run[-1]] + 1) * SAMPLES].astype(np.float64)
        n = min(len(mine), len(theirs))
        lag, peak = _lag_ms(mine[:n], theirs[:n])
        if abs(lag - right.lag_ms) > MAX_LAG_MS or peak < 0.7:
            yield f"sound of frames {run[0]} to {run[-1]} is {lag:+.2f} ms late, correlation {peak:.2f}"


def _lag_ms(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """How late a sound is against another, in ms, and their correlation there; its sign does not matter."""
    size = 1 << int(np.ceil(np.log2(2 * len(mine))))
    product = np.fft.rfft(mine, size) * np.fft.rfft(theirs, size).conj()
    cross = np.abs(np.fft.irfft(product, size))
    around = np.concatenate([cross[-SEARCH:], cross[: SEARCH + 1]])
    k = int(around.argmax())
    shift = 0.0
    if 0 < k < len(around) - 1:
        a, b, c = around[k - 1 : k + 2]
        shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c else 0.0
    scale = np.sqrt((mine**2).sum() * (theirs**2).sum())
    return (k - SEARCH + shift) * 1000 / SAMPLE_RATE, float(around[k] / max(scale, 1e-9))


def _proportion(lips: np.ndarray) -> float:
    """Width over height of the mean lips f4 [frames, 40, 2]."""
    wide, high = np.ptp(lips.mean(0), axis=0)
    return float(wide / high)


def _alike(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Cosine of two sequences of lips f4 [frames, 40, 2], each without its mean shape, and of the mean shapes."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (mine, theirs))
    means = float((a.mean(0) @ b.mean(0)) / (np.linalg.norm(a.mean(0)) * np.linalg.norm(b.mean(0))))
    a, b = a - a.mean(0), b - b.mean(0)
    moves = float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))
    return min(means, moves)
