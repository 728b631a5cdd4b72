"""Fingerprints of content: which clips have the same picture and sound, re-encoded at other rates, sizes and gains.

Sound: bits after Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): the sign of the change
in time of the difference between neighbouring bands, 300 to 2,000 Hz. They take 33 bands in 0.37 s of sound every 11.6
ms; here it is 29 bands in 0.256 s every 10 ms, because clips of 3 s are short. Clips with equal 28 bits (possibly after
one of the weakest bits is flipped, as they propose) at about the same time are compared in full: at most MAX_ERRORS of
all bits may differ. On GRID (one speaker, sentences of one grammar) other sentences differ in at least .41 of the bits,
copies down to 12 kbit/s in at most .28.

Picture: the change of a 16 x 16 grey picture over time, without changes slower than 0.76 s, compared by correlation.
Hashes of single pictures (OpenCV's `img_hash`) do not help: those of one speaker's clips are as close as those of
copies. If nothing moves in either clip, the still pictures are compared.

Both must agree, and the lengths. Not found: cropped or mirrored pictures, changed speed, a start shifted by more than
0.1 s. Clips with less than 1 s of sound, not counting silence, have no fingerprint. Only the first 10 s are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.media.shots import SIDE, alike
from store import layout

SPAN_S = 10  # seconds of a clip that are compared
BANDS = 29  # so 28 bits
LOW_HZ, HIGH_HZ = 300.0, 2000.0
WINDOW, HOP = 4096, 160  # samples; 0.256 s, 10 ms
WEAK = 3  # weakest bits that are flipped, one at a time
EVERY = 2  # hops from one key to the next; windows overlap so much that neighbours are nearly equal
SLAB = 32  # hops within which equal keys count as being at the same time
SHIFT = 10  # hops by which a copy may be earlier or later
NEXT = 8  # following entries that each entry of a key is paired with, so that the work is linear in the clips
VOTES = 2  # equal keys at one time difference that make a candidate
MIN_HOPS = 100  # with sound in both clips, 1 s
MAX_ERRORS = 0.33  # of the bits; the paper's threshold is .35
QUIET = 2e-4, 1e-3  # root mean square of a silent window: relative to full scale, and to the loudest window
SLOW = 19  # frames of the running mean that is subtracted from the picture
MIN_MOTION = 0.08  # grey levels; GRID's clips have at least .25, an encoded photograph almost none
MIN_MOVES = (
    0.55  # correlation of motion; on GRID copies have .75 (mouth crops .62) and more, one in 5,000 of other pairs has
)
MIN_STILL = 0.9  # correlation of still pictures, if nothing moves
MAX_LONGER = 0.3, 0.05  # seconds, or share of the length, by which lengths may differ


@dataclass(frozen=True)
class Print:
    """The fingerprint of a clip. bits u4 [hops], 0 where silent; sounding bool [hops]; weak u1 [hops, 3], numbers of
    the weakest bits; moves i1 [frames / 2, 256], scaled to fill i1, and motion, their size in grey levels; still f2
    [256]."""

    bits: np.ndarray
    sounding: np.ndarray
    weak: np.ndarray
    moves: np.ndarray
    motion: float
    still: np.ndarray
    seconds: float


def of(sound: np.ndarray, thumbs: np.ndarray, seconds: float) -> Print | None:
    """The fingerprint of sound i2 [samples] at 16 kHz and grey thumbnails [frames, 16, 16] at 25 a second, float to
    keep small changes; both begin together. `seconds` is the clip's whole length. None if there is too little to
    compare."""
    sound = sound[: SPAN_S * layout.SAMPLE_RATE]
    thumbs = thumbs[: SPAN_S * layout.FPS]
    if len(sound) < WINDOW + MIN_HOPS * HOP or not len(thumbs):
        return None
    bits, weak, sounding = _sound(sound)
    if sounding.sum() < MIN_HOPS:
        return None
    moves, motion, still = _picture(thumbs)
    return Print(bits, sounding, weak, moves, motion, still, seconds)


def shrink(pictures: np.ndarray) -> np.ndarray:
    """Grey pictures u1 [frames, side, side], side a multiple of 16, as thumbnails f4 [frames, 16, 16]: the mean of squares."""
    frames, side, _ = pictures.shape
    step = side // SIDE
    return pictures.reshape(frames, SIDE, step, SIDE, step).mean(axis=(2, 4), dtype=np.float32)


def keys(prints: Sequence[Print | None], labels: Sequence[int] | None = None) -> list[int | None]:
    """For each clip the row number of the first clip with the same content (its own if it is the first); None without a
    fingerprint.

    Rows with known and contradicting `labels` are not copies. The result does not depend on the machine.
    """
    from scipy.cluster.hierarchy import DisjointSet

    contents = DisjointSet(range(len(prints)))
    for i, j, shift in _candidates(prints):
        a, b = prints[i], prints[j]
        assert a is not None
        assert b is not None
        if labels is not None and labels[i] != labels[j] and -1 not in (labels[i], labels[j]):
            continue
        if not contents.connected(i, j) and same(a, b, shift):
            contents.merge(i, j)
    first: dict[int, int] = {}
    for k in range(len(prints)):
        first.setdefault(contents[k], k)
    return [None if p is None else first[contents[k]] for k, p in enumerate(prints)]


def same(a: Print, b: Print, shift: int) -> bool:
    """Whether two clips have the same content, if hop k of a is about hop k + `shift` of b."""
    if abs(a.seconds - b.seconds) > max(MAX_LONGER[0], MAX_LONGER[1] * max(a.seconds, b.seconds)):
        return False
    best, at = min((sound_errors(a, b, s), abs(s - shift), s) for s in range(shift - 2, shift + 3))[::2]
    return best <= MAX_ERRORS and picture_agrees(a, b, at)


def sound_errors(a: Print, b: Print, shift: int) -> float:
    """Share of bits that differ where both clips have sound, hop k of a against hop k + shift of b; 1 if there is too
    little sound."""
    x, y = slice(max(-shift, 0), None), slice(max(shift, 0), None)
    num = min(len(a.bits[x]), len(b.bits[y]))
    both = a.sounding[x][:num] & b.sounding[y][:num]
    if both.sum() < MIN_HOPS:
        return 1.0
    wrong = np.bitwise_count(a.bits[x][:num] ^ b.bits[y][:num])[both]
    return float(wrong.mean()) / (BANDS - 1)


def picture_agrees(a: Print, b: Print, shift: int = 0) -> bool:
    """Whether the pictures move alike, at the sound's shift or up to two thumbnails (0.16 s) away from it."""
    if max(a.motion, b.motion) < MIN_MOTION:
        return alike(a.still, b.still) >= MIN_STILL
    middle = round(shift * HOP / layout.SAMPLE_RATE * layout.FPS / 2)
    return max(_correlation(a.moves, b.moves, middle + k) for k in range(-2, 3)) >= MIN_MOVES


def _correlation(a: np.ndarray, b: np.ndarray, shift: int) -> float:
    x, y = a[max(-shift, 0) :], b[max(shift, 0) :]
    num = min(len(x), len(y))
    x, y = x[:num].astype(np.float32).ravel(), y[:num].astype(np.float32).ravel()
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size else 0.0


def _sound(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits u4 [hops], numbers of the weakest u1 [hops, 3], and where there is sound, bool [hops]."""
    wave = sound.astype(np.float32) / 32768
    pieces = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    loud = np.sqrt(np.square(pieces).mean(1))
    edges = np.geomspace(LOW_HZ, HIGH_HZ, BANDS + 1) * WINDOW / layout.SAMPLE_RATE
    edges = np.ceil(edges).astype(int)
    power = np.abs(np.fft.rfft(pieces * np.hanning(WINDOW).astype(np.float32))[:, edges[0] : edges[-1]]) ** 2
    energy = np.add.reduceat(power, edges[:-1] - edges[0], axis=1)
    step = energy[:, :-1] - energy[:, 1:]
    change = step[1:] - step[:-1]
    scale = energy[1:, :-1] + energy[1:, 1:] + energy[:-1, :-1] + energy[:-1, 1:] + 1e-20
    weak = np.argsort(np.abs(change) / scale, axis=1, kind="stable")[:, :WEAK].astype(np.uint8)
    bits = ((change > 0) << np.arange(BANDS - 1)).sum(1).astype(np.uint32)
    sounding = loud[1:] > max(QUIET[0], QUIET[1] * float(loud.max()))
    return np.where(sounding, bits, 0).astype(np.uint32), weak, sounding


def _picture(thumbs: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    from scipy.ndimage import uniform_filter1d

    flat = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    moves = uniform_filter1d(flat, 3, axis=0)  # removes coding noise
    moves = (moves - uniform_filter1d(moves, SLOW, axis=0))[::2]
    most = float(np.abs(moves).max())
    scaled = np.round(moves * (127 / most)) if most else np.zeros_like(moves)
    return scaled.astype(np.int8), float(moves.std()), flat.mean(0).astype(np.float16)


def _candidates(prints: Sequence[Print | None]) -> list[tuple[int, int, int]]:
    """(i, j, hops that j is later) with i < j of clips that share keys, in order; each pair at its best distance."""
    some = [(k, p) for k, p in enumerate(prints) if p is not None]
    if not some:
        return []
    slabs = max(len(p.bits) for _, p in some) // SLAB + 1
    votes = [_votes(some, slab, len(prints)) for slab in range(slabs)]
    code, count = np.unique(np.concatenate(votes), return_counts=True)
    code, count = code[count >= VOTES], count[count >= VOTES]
    pair, shift = code // (2 * SLAB), code % (2 * SLAB) - SLAB
    order = np.lexsort((np.abs(shift), -count, pair))
    order = order[np.unique(pair[order], return_index=True)[1]]
    n = len(prints)
    return [(int(p) // n, int(p) % n, int(s)) for p, s in zip(pair[order], shift[order], strict=True)]


def _votes(some: Sequence[tuple[int, Print]], slab: int, total: int) -> np.ndarray:
    """Codes i8 of (pair, distance) of clips that share a key in this slab of hops, once per key."""
    span = slice(slab * SLAB, (slab + 1) * SLAB)
    keys, clips, places = [], [], []
    for k, p in some:
        at = np.flatnonzero(p.sounding[span])[::EVERY] if len(p.bits) > span.start else np.empty(0, int)
        bits = p.bits[span][at, None]
        turned = bits ^ (np.uint32(1) << p.weak[span][at].astype(np.uint32))
        keys.append(np.concatenate([bits, turned], axis=1).ravel())
        clips.append(np.full(len(at) * (1 + WEAK), k, np.int64))
        places.append(np.repeat(at, 1 + WEAK))
    key, clip, place = np.concatenate(keys), np.concatenate(clips), np.concatenate(places)
    order = np.lexsort((place, clip, key))
    key, clip, place = key[order], clip[order], place[order]
    codes = []
    for step in range(1, NEXT + 1):
        hit = np.flatnonzero((key[step:] == key[:-step]) & (clip[step:] != clip[:-step]))
        shift = place[hit + step] - place[hit]
        hit, shift = hit[np.abs(shift) <= SHIFT], shift[np.abs(shift) <= SHIFT]
        codes.append((clip[hit] * total + clip[hit + step]) * (2 * SLAB) + shift + SLAB)
    return np.concatenate(codes) if codes else np.empty(0, np.int64)
