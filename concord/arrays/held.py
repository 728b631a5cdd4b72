"""Held pictures: frames whose picture stands still, although a voice may speak over it. They are no evidence.

A photograph, a slide show, a freeze, a gap between the pictures, a very low frame rate: whatever the cause, one picture
stands for longer than speaking lips do. Two mouth crops are alike if little is left of their difference after the best
small motion (shift, scale, turn) and change of light. For a face in a photograph is not still either: its landmarks
jitter, its crop is placed anew in every frame, a slow zoom moves it, a codec refreshes it. What is left (root mean
square, divided by the contrast) is compared with two limits. A frame is held if it lies in

- a run of RUN (4) frames that are all alike to the first within SURE (0.8 %), or
- such a run within MAYBE (3.6 %), while such runs fill MOST (70 %) of the AROUND (50) frames around it.

A frame is also held if it lies in AROUND frames that differ by noise alone, as those of a grainy photograph do: fresh
noise leaves the same rest between neighbours as between frames that are further apart (mean of the squares, by at most
ALIKE), and leaves it all the time (STEADY), where lips move on and pause. Beyond GRAIN, speech could hide in the noise.

A single picture thus counts if it stands for more than 0.12 s, so 24, 15, 12 and 10 pictures per second are not held.
A mouth that moves as little as a codec's errors is held, too.

Not found: two photographs that alternate frame by frame (their neighbours differ as much as lips do), and noise beyond
GRAIN.

Measured, held frames among those with a voice: 0 of 2,187 in 60 GRID clips, 0 of 4,853 in 53 clips in the wild, 0 of
1,708 in 60 of news; encoded again by x264 at CRF 28 to 35, none; CRF 36 1.5 %; CRF 40, where the codec itself leaves small
mouths as they are, 4 % (preset veryfast 13 %). One clip in the wild at 15 pictures per second .5 %, at 12.5 2.4 %. Without a
voice, people who sit still are marked in 3 % (GRID) to 7 % of frames. On the other side, stills
(x264 CRF 18 to 40, VP9, MPEG-4, refreshed every 5 or 12 frames, grainy, under a ticker or a waveform), pans, zooms of 2
and 6 % a second and photographs held in a hand: 100 %; zooms of 12 % a second 98 %; slide shows of 1 to 4 pictures per
second, and 5 and 6 pictures per second: 96 to 100 %; 8 per second 5 to 11 %. Of freezes the first frames, while the codec
still sharpens the picture, are missed: 0.3 s of frozen picture 61 %, 1 s 86 %.

Noise, fresh in each frame, added to the crops, of fine grain (a pixel of a crop) and coarse (two): stills of GRID and wild
clips are found whole at a standard deviation of 12, at 18 (coarse: 38 %) and at 25 (coarse: none). In moving clips (25 of
GRID, 903 frames with a voice; 40 of wild and news, 3,888) it marks none of GRID, up to 25; of the others 1 (fine) and 11
(coarse) at 12. Over 50 frames the rest of real speech grows at least 1.6-fold with the lag, and varies by 0.47 or more.

Cost: 0.06 ms per frame, 1 % of the face stage.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from concord.frames import FACE

RUN = 4  # frames
SURE, MAYBE = 0.008, 0.036  # rest of the difference as a share of the contrast
AROUND = 50  # frames, 2 s
MOST = 0.7  # share of them
GRAIN = 0.12  # rest that noise may leave, as a share of the contrast: root mean square over a stretch
STEADY = 0.4  # most by which its squares vary, as a share of their mean
ALIKE = 1.12  # most by which their mean grows from frames that are neighbours to those that are RUN - 1 apart
WIDTH = AROUND - RUN + 1  # runs in a stretch
CONTRAST = (4.0, 28.0)  # grey levels: limits of the contrast (standard deviation) by which a rest is divided
CELL = 4  # pixels of a crop that are averaged, each way: no codec keeps finer detail
EDGE = 4  # cells at each side that are not compared: overlays and background
PART = 1000  # frames at a time


class Crops(Protocol):
    """Mouth crops u1 [frames, side, side], read PART frames at a time: an array, or what reads them when asked."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> np.ndarray: ...


def held(mouth: Crops, flags: np.ndarray) -> np.ndarray:
    """Frames bool whose picture stands still, from mouth crops u1 [frames, side, side] and flags u1 [frames].

    A run needs a crop in each of its frames (a face detected or interpolated). Only these flags are read, so the result is
    the same whether bit 5 is set already or not.
    """
    frames = len(mouth)
    faced = (flags & FACE) > 0
    sure, maybe = np.zeros((2, frames), bool)
    apart = np.full(frames, np.nan, np.float32)  # rest between a frame and the one RUN - 1 later
    for first in range(0, frames, PART):
        part = slice(first, min(first + PART + RUN - 1, frames))
        starts, rest, found = _runs(_small(mouth[part]), faced[part])
        apart[first + starts] = rest
        for marked, runs in zip((sure, maybe), found, strict=True):
            for k in range(RUN):
                marked[first + runs + k] = True
    stands: np.ndarray = sure | (maybe & _mostly(maybe)) | _grainy(mouth, apart)
    return stands


def _grainy(mouth: Crops, apart: np.ndarray) -> np.ndarray:
    """Frames bool of stretches of AROUND frames in which nothing but noise changes, from the rests `apart` f4 [frames], NaN
    where a run has no crop."""
    grainy = np.zeros(len(apart), bool)
    far = np.square(apart.astype(np.float64))
    mean = _means(far)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.maximum(_means(np.square(far)) / np.square(mean) - 1, 0))
        firsts = np.flatnonzero((mean < GRAIN**2) & (spread < STEADY))
    if not len(firsts):
        return grainy
    asked = _covered(firsts, len(apart), WIDTH)
    near = np.full(len(apart), np.nan)
    for first in range(0, len(apart), PART):
        starts = np.flatnonzero(asked[first : first + PART])
        if len(starts):
            small = _small(mouth[first : min(first + PART + 1, len(apart))])
            near[first + starts] = np.square(_rest(small, starts, 1))
    firsts = firsts[mean[firsts] < ALIKE * _means(near)[firsts]]
    return _covered(firsts, len(apart), AROUND)


def _means(values: np.ndarray) -> np.ndarray:
    """Means of WIDTH values from each on: f8, empty if there are fewer; NaN where one is NaN."""
    total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    none = np.concatenate([[0], np.cumsum(np.isnan(values))])
    means: np.ndarray = (total[WIDTH:] - total[:-WIDTH]) / WIDTH
    return np.where(none[WIDTH:] > none[:-WIDTH], np.nan, means)


def _covered(firsts: np.ndarray, frames: int, width: int) -> np.ndarray:
    """Frames bool of the stretches of `width` frames that begin at `firsts`."""
    steps = np.zeros(frames + 1, np.int64)
    steps[firsts] += 1
    np.subtract.at(steps, np.minimum(firsts + width, frames), 1)
    covered: np.ndarray = np.cumsum(steps)[:frames] > 0
    return covered


def _runs(small: np.ndarray, faced: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Of small pictures f4 [frames, cells, cells]: first frames of the runs, the rest between the first and the last
    frame of each, and the first frames of the runs that are surely alike, and of those that may be."""
    starts = every = _starts(faced, RUN)
    rest = np.zeros(len(starts), np.float32)
    for lag in range(RUN - 1, 0, -1):  # the most distant first: few runs are left where lips move
        rest = np.maximum(rest, _rest(small, starts, lag))
        if lag == RUN - 1:
            apart = rest
        starts, rest = starts[rest < MAYBE], rest[rest < MAYBE]
    return every, apart, (starts[rest < SURE], starts)


def _mostly(maybe: np.ndarray) -> np.ndarray:
    """Frames bool around which most frames are marked in `maybe`: of the AROUND frames nearest to them in the clip."""
    total = np.concatenate([[0], np.cumsum(maybe)])
    width = min(AROUND, len(maybe))
    first = np.clip(np.arange(len(maybe)) - width // 2, 0, len(maybe) - width)
    most: np.ndarray = total[first + width] - total[first] >= MOST * width
    return most


def _starts(faced: np.ndarray, length: int) -> np.ndarray:
    """First frames of the runs of `length` frames that all have a crop."""
    total = np.concatenate([[0], np.cumsum(faced)])
    return np.flatnonzero(total[length:] - total[:-length] == length)


def _small(mouth: np.ndarray) -> np.ndarray:
    """Crops u1 [frames, side, side] averaged over cells and smoothed, so that a shift by a pixel is nearly linear: f4."""
    four = np.ascontiguousarray(mouth).view(np.uint32)  # neighbouring pixels, added two by two in halves of 16 bits
    two = (four & 0xFF00FF) + ((four >> 8) & 0xFF00FF)
    total = two[:, ::CELL] + two[:, 1::CELL] + two[:, 2::CELL] + two[:, 3::CELL]
    cells: np.ndarray = ((total & 0xFFFF) + (total >> 16)).astype(np.float32) / CELL**2
    for axis in (1, 2, 1, 2):
        padded = np.pad(cells, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        low, middle, high = (np.take(padded, range(k, k + cells.shape[axis]), axis) for k in range(3))
        cells = (low + 2 * middle + high) / 4
    return cells


def _rest(small: np.ndarray, starts: np.ndarray, lag: int) -> np.ndarray:
    """What a small motion and a change of light do not explain of the difference between each frame in `starts` and the
    one `lag` frames later: f4 [starts], root mean square as a share of the contrast."""
    if len(starts) == 0:
        return np.zeros(0, np.float32)
    a, b = small[starts], small[starts + lag]
    mean, change = (a + b) / 2, b - a
    inner = slice(EDGE, small.shape[1] - EDGE)
    down = (mean[:, EDGE + 1 : 1 - EDGE, inner] - mean[:, EDGE - 1 : -EDGE - 1, inner]) / 2
    across = (mean[:, inner, EDGE + 1 : 1 - EDGE] - mean[:, inner, EDGE - 1 : -EDGE - 1]) / 2
    mean, change = mean[:, inner, inner], change[:, inner, inner]
    side = np.linspace(-1, 1, mean.shape[1], dtype=np.float32)
    y, x = side[:, None], side[None, :]
    causes = [across, down, across * x + down * y, down * x - across * y, mean, np.ones_like(mean)]
    explained = np.stack(causes, axis=1).reshape(len(a), len(causes), -1)
    change = change.reshape(len(a), -1)
    normal = explained @ explained.swapaxes(1, 2) + 1e-2 * np.eye(len(causes), dtype=np.float32)
    weights = np.linalg.solve(normal, explained @ change[:, :, None])
    rest = change - (explained * weights).sum(axis=1)
    contrast = np.clip(small[starts].std(axis=(1, 2)), *CONTRAST)
    share: np.ndarray = np.sqrt(np.square(rest).mean(axis=1)) / contrast
    return share
