"""Clips that are mouth crops already, as many corpora of lip reading are kept: recognised, and on request taken as they are.

Such a clip is small and nearly square. In such a picture the face networks see a face around the mouth, or take lips and
nostrils for one, or see none. With a grey margin around it they see the face to which the mouth belongs, and its eyes lie in
the margin or at the picture's upper edge; eyes of a whole face stay where they are. Where no face is seen even so, a crop shows
little but lips, and what moves is in the middle. (Of 160 mouths, .8 to 1.45 times as wide as the eyes are apart, 155 are
recognised. Of 222 whole faces, the closest with eyes at .17 of the height, each is seen with a margin and none is taken for a
mouth. The constants were chosen on these same pictures, some of which were drawn twice, so other clips may do worse.)

Taken as it is, each picture, in grey and scaled to 96 x 96, is the mouth. There are no landmarks, so lips and blendshapes are
0, and only teachers that see pixels can read it. How a crop was aligned is not known: it should have been cut as
`teachers.face.align` cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np

from concord.arrays import large
from pipelines.media import probe
from pipelines.media.facts import Fact
from pipelines.media.files import Media
from pipelines.media.picture import Video
from teachers import Teacher, TeacherError
from teachers.face.align import CROP
from teachers.face.tracker import LIPS, NUM_BLENDSHAPES, FaceTrack, NoFaceError
from teachers.face.tracks import POINTS, Track
from teachers.face.whole_face import OUTSIDE

# Points f4 [478, 2], in fractions of the picture, of the face in each picture that shows one (`FaceTracker.faces`).
Faces = Callable[[list[np.ndarray]], list[np.ndarray]]

MOST_SIDE = 256  # pixels: larger pictures are not taken as mouth crops; usual sides are 88, 96, 112 and 128
SMALL_SIDE = 160  # larger pictures are not looked at: faces of 224 pixels and more are common
MOST_LONGER = 1.25  # width by height, or height by width
EYES, MOUTH = (33, 263), (61, 291)  # MediaPipe's points: outer corners of the eyes, corners of the mouth
MARGIN = 1.0  # of the picture's sides, grey, on each of its sides
EYES_ABOVE = 0.14  # of the height, in a mouth crop
EYES_BELOW = 0.35  # a face whose eyes are lower is a whole one, without another look
MOUTH_WITHIN = 0.25, 0.7  # of width and height
LIVELY = 1.05  # movement in the middle of the picture, relative to its rim, where no face is found at all
FIRST, LOOKS = 50, 10  # of the first pictures so many are looked at, evenly spaced
FEW = 3  # pictures with a face
OPTION = "--mouth-crops"
READERS = "avhubert:PATH or deep_avsr-video:PATH"  # teachers that see pixels of mouths
OF_POINTS = {
    int(point): k for k, point in reversed(list(enumerate(POINTS)))
}  # where MediaPipe's points are among those kept
GROWTH = 256  # frames by which arrays grow


class MouthOnly(NoFaceError):
    """Pictures that show a mouth and no whole face."""

    reason = "mouth_only"


def taken(pictures: Video) -> FaceTrack:
    """The track of a clip whose pictures are mouth crops; adds a fact. Raises MediaError, and NoFaceError if they do not have
    the shape of mouth crops."""
    mouth, num = np.zeros((0, CROP, CROP), np.uint8), 0
    size, before = "", None
    for picture in pictures:
        if not _square(picture.shape[1], picture.shape[0], MOST_SIDE):
            what = f"its pictures are {_size(picture)}, which is no mouth crop"
            raise NoFaceError(f"{what} (nearly square, at most {MOST_SIDE} pixels a side); leave {OPTION} out for it")
        if num == len(mouth):
            more = large.zeros((max(GROWTH, num * 3 // 2), CROP, CROP), np.uint8)
            more[:num], mouth = mouth, more
        mouth[num] = mouth[num - 1] if picture is before else grey(picture)
        size, before, num = size or _size(picture), picture, num + 1
    detected = np.ones(num, bool)
    lips, shapes = np.zeros((num, len(LIPS), 2), np.float32), np.zeros((num, NUM_BLENDSHAPES), np.float32)
    pictures.facts.append(Fact("mouth_crops", f"its pictures ({size}) are taken as mouth crops, as they are"))
    return FaceTrack(mouth[:num], lips, shapes, detected, ~detected, 0)


def grey(picture: np.ndarray) -> np.ndarray:
    """A picture u1 [height, width, 3] as a mouth u1 [96, 96]."""
    import cv2

    found = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if found.shape == (CROP, CROP):
        return found
    smaller = max(found.shape) > CROP
    return cv2.resize(found, (CROP, CROP), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def refuse_face(path: Media, track: Track, shape: tuple[int, int], faces: Faces) -> None:
    """Raises MouthOnly for a face, found in pictures of that height and width, that is part of a mouth crop; and MediaError."""
    if not _square(shape[1], shape[0], SMALL_SIDE):
        return
    eyes = track.points[:FIRST, [OF_POINTS[k] for k in EYES], 1]
    if np.median(eyes.mean(axis=1)) < EYES_BELOW * shape[0] and looks_like_mouths(_some(path), faces):
        raise MouthOnly(_told(shape[1], shape[0]))


def refuse(path: Media, faces: Faces, error: NoFaceError) -> NoReturn:
    """Raises MouthOnly for a clip without a face that looks like a mouth crop, else `error`, with a word on mouth crops if
    the pictures have their shape; and MediaError. Only small pictures are decoded."""
    size = probe.picture_size(path)
    if not _square(*size, SMALL_SIDE):
        raise error
    if looks_like_mouths(_some(path), faces):
        raise MouthOnly(_told(*size))
    raise NoFaceError(f"{error}; if these {size[0]}x{size[1]} pictures are mouth crops, use {OPTION}") from error


def _some(path: Media) -> list[np.ndarray]:
    """LOOKS of a clip's first pictures that differ."""
    kept: list[np.ndarray] = []
    for picture in Video(path):
        if not kept or picture is not kept[-1]:
            kept.append(picture)
        if len(kept) == FIRST:
            break
    return [kept[k] for k in np.linspace(0, len(kept) - 1, min(LOOKS, len(kept))).round().astype(int)]


def looks_like_mouths(pictures: Sequence[np.ndarray], faces: Faces) -> bool:
    """Whether small pictures u1 [height, width, 3] are mouth crops."""
    found = faces([_with_margin(picture) for picture in pictures])
    if len(found) < FEW:
        moves = np.stack([grey(picture)[::4, ::4] for picture in pictures]).astype(np.float32).std(axis=0)
        quarter = len(moves) // 4
        middle = moves[quarter:-quarter, quarter:-quarter]
        rim = (moves.sum() - middle.sum()) / (moves.size - middle.size)
        return bool(middle.mean() > LIVELY * rim)
    points = np.median(found, axis=0)[[*EYES, *MOUTH]] * (1 + 2 * MARGIN) - MARGIN
    low, high = MOUTH_WITHIN
    mouth = points[2:].mean(axis=0)
    return bool(points[:2, 1].mean() < EYES_ABOVE and (low < mouth).all() and (mouth < high).all())


def _with_margin(picture: np.ndarray) -> np.ndarray:
    import cv2

    down, across = round(MARGIN * picture.shape[0]), round(MARGIN * picture.shape[1])
    edges = down, down, across, across
    return cv2.copyMakeBorder(picture, *edges, cv2.BORDER_CONSTANT, value=(OUTSIDE, OUTSIDE, OUTSIDE))


def _told(width: int, height: int) -> str:
    text = f"it shows no whole face and looks like a mouth crop ({width}x{height})"
    return f"{text}; {OPTION} takes it as it is, with a teacher that sees pixels (--vsr {READERS})"


def check_teacher(teacher: Teacher, remedy: str) -> None:
    """Raises TeacherError, with a remedy, for a teacher that reads landmarks, which mouth crops do not have."""
    if getattr(teacher, "landmarks", False):
        raise TeacherError(f"teacher {teacher.name} reads landmarks of a face, which mouth crops do not have; {remedy}")


def _square(width: int, height: int, most: int) -> bool:
    return max(height, width) <= most and max(height, width) <= MOST_LONGER * min(height, width)


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
