"""Looks at the pictures of a clip while they pass: thumbnails, faces at a few moments, and whether lips can be seen to move.

Nothing is followed here. `Pictures.is_odd` says that a clip is out of the ordinary (no face, several faces, a small one,
or a mouth that stands still for a good part), so that it must be watched as precompute does it, at 20 times the cost of
these looks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from concord.arrays.held import held
from concord.frames import FACE_DETECTED
from pipelines.media import shots
from store.layout import FPS

THUMB = 64  # pixels; averaged to shots.SIDE, because small changes of a picture are fractions of a grey level
FACES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # moments, in fractions of the declared length, when a face is looked for
UNDECLARED_S = (0.0, 0.2, 1.0, 2.0)  # and without a declared length, in seconds
SMALL = 80  # pixels from forehead to chin: a smaller face may be one of those that precompute names small
CROP = 96  # pixels of a crop around the mouth
STANDS = 0.2  # share of held frames from which a clip is odd: people who pause have less
PART = 500  # crops that are kept at a time
CORNERS = [61, 291]  # of the mouth, among the points of a face


class Pictures:
    """The pictures of one clip, rgb u1 [height, width, 3], added one by one at 25 per second."""

    def __init__(self, faces: Any, fine: int) -> None:
        """`faces` is a backend of `teachers.face`, None to look for none; `fine` frames give fine thumbnails."""
        self.faces, self.fine = faces, fine
        self.num_frames = 0
        self._moments = list(UNDECLARED_S)
        self._last: np.ndarray | None = None
        self._fine: list[np.ndarray] = []
        self._coarse: list[np.ndarray] = []
        self._heights: list[float] = []
        self._most = 0  # faces at once
        self.looks = 0  # moments at which a face was looked for
        self._mouth: tuple[int, int, int] | None = None  # left, top, side of a square, from the first face on
        self._crops: list[np.ndarray] = []
        self._stands = self._cropped = 0

    def look_at(self, declared_s: float) -> None:
        """Look for faces at moments all over a clip of this length."""
        if declared_s:
            self._moments = [share * declared_s for share in FACES]

    def add(self, picture: np.ndarray) -> None:
        """The next frame; a repeated picture may be the same array."""
        if self.faces is not None and self._moments and self.num_frames / FPS >= self._moments[0]:
            self._moments.pop(0)
            self._look(np.ascontiguousarray(picture))
        if picture is not self._last:
            self._last = picture
            self._thumb = _averaged(_grey(picture, THUMB))
            self._whole = np.round(self._thumb).astype(np.uint8)
            self._crop = self._cut(picture)
        self.num_frames += 1
        if len(self._fine) < self.fine:
            self._fine.append(self._thumb)
        self._coarse.append(self._whole)
        if self._crop is not None:
            self._crops.append(self._crop)
        if len(self._crops) == PART:
            self._judge()

    @property
    def thumbs(self) -> np.ndarray:
        """f4 [frames, 16, 16] of the beginning, with fractions of grey levels."""
        return np.stack(self._fine)

    @property
    def cuts(self) -> list[int]:
        """First frame of each shot except the first."""
        return shots.cuts(np.stack(self._coarse))

    @property
    def face_height(self) -> float | None:
        """Median height of the faces that were seen, in pixels; None without any."""
        return float(np.median(self._heights)) if self._heights else None

    @property
    def is_odd(self) -> bool:
        """Whether the clip must be watched to know what its faces do."""
        self._judge()
        height = self.face_height
        return height is None or height < SMALL or self._most > 1 or self._stands > STANDS * self._cropped

    def _look(self, picture: np.ndarray) -> None:
        """The faces of one picture; a new landmarker each time, because the pictures are far apart."""
        self.looks += 1
        self._most = max(self._most, self.faces.count(picture))
        with self.faces.landmarker(1) as landmarker:
            for face in landmarker.read(picture, 0):
                height, width = picture.shape[:2]
                points = face.points * (width, height)
                self._heights.append(float(np.ptp(points[:, 1])))
                if self._mouth is None:
                    (x, y), side = points[CORNERS].mean(axis=0), np.ptp(points[:, 0]) / 2
                    self._mouth = int(x - side / 2), int(y - side / 2), max(int(side), 1)
                    self._last = None

    def _cut(self, picture: np.ndarray) -> np.ndarray | None:
        """The square around the mouth, wherever it is now: u1 [96, 96]."""
        if self._mouth is None:
            return None
        left, top, side = self._mouth
        part = picture[max(top, 0) : top + side, max(left, 0) : left + side]
        return _grey(part, CROP) if part.size else None

    def _judge(self) -> None:
        """Count held frames among the crops that are kept."""
        if self._crops:
            found = held(np.stack(self._crops), np.full(len(self._crops), FACE_DETECTED, np.uint8))
            self._stands, self._cropped = self._stands + int(found.sum()), self._cropped + len(found)
            self._crops = []


def face_backend() -> Any:
    """The face reader, if its model is already on this machine; else None."""
    from teachers import TeacherError
    from teachers.face import backends
    from teachers.files import face_model

    try:
        return backends.load(None, face_model.here().path)
    except TeacherError:
        return None


def _averaged(picture: np.ndarray) -> np.ndarray:
    """Grey u1 [THUMB, THUMB] averaged to f4 [16, 16]."""
    step = THUMB // shots.SIDE
    small: np.ndarray = picture.reshape(shots.SIDE, step, shots.SIDE, step).mean((1, 3), dtype=np.float32)
    return small


def _grey(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture as grey u1 [side, side], whatever its shape."""
    import cv2

    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
