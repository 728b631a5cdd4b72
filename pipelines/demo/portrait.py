"""A talking portrait: one photograph whose mouth, jaw, eyelids and brows follow a few numbers per frame.

The photograph is scikit-image's `astronaut` (NASA, public domain), enlarged twice: the *canvas*, 512 x 512. It smiles
with open lips, so it is cut along the mouth into two layers, upper lip and all above, lower lip and jaw. Each layer has
a smooth forward displacement, interpolated from control points by thin-plate splines whose matrix is computed once. A
frame takes one small matrix product, a fixed-point inversion on a coarse grid and two remaps. Between the layers are a
dark cavity, a tongue and teeth; the upper teeth are those of the photograph, fixed to the skull.

Coordinates are canvas pixels, x to the right, y down. The landmarks below are MediaPipe's face mesh on this portrait,
kept as numbers so that the corpus does not depend on the installed model.
"""

import cv2
import numpy as np

from pipelines.demo import outline
from pipelines.demo.lip_curves import HALF_WIDTH, MIDDLE_X, SEAM_Y, lip_curves

CANVAS = 512
SOURCE_BOX = (95, 0, 256)  # x, y, side of the part of the photograph that becomes the canvas
ROI = (144, 216, 368, 416)  # left, top, right, bottom: the region that the mouth moves
BAND = (262, 336)  # rows between which the lips meet
GRID_STEP = 4
INVERSE_STEPS = 6


class Portrait:
    """Draws the portrait for a mouth shape, a blink and a brow height; one per process (the set-up takes about 0.1
    s)."""

    def __init__(self) -> None:
        self.canvas = _photograph()
        self._skin = _without_teeth(self.canvas)
        left, top, right, bottom = ROI
        self._gx = np.arange(left, right + 1, GRID_STEP, dtype=np.float32)
        self._gy = np.arange(top, bottom + 1, GRID_STEP, dtype=np.float32)
        self._nodes = np.stack(np.meshgrid(self._gx, self._gy), axis=-1)  # [gy, gx, 2]
        self._lips_u = {
            name: _parameter(points)
            for name, points in (("outer", outline.UPPER_OUTER), ("inner", outline.UPPER_INNER))
        }
        self._lower_u = {
            name: _parameter(points)
            for name, points in (("outer", outline.LOWER_OUTER), ("inner", outline.LOWER_INNER))
        }
        # The landmarks of the inner edge are on the teeth as often as on the lip; about a pixel into the lip is safe.
        upper_inner = np.array(outline.UPPER_INNER) + _inset(outline.UPPER_INNER, -1.2)
        lower_inner = np.array(outline.LOWER_INNER) + _inset(outline.LOWER_INNER, 1.6)
        self._shared = np.array(
            outline.JAW + outline.CHIN + outline.CHEEK + outline.PHILTRUM + outline.FIXED + outline.NECK
        )
        self._upper_points = np.concatenate([outline.UPPER_OUTER, upper_inner, self._shared])
        self._lower_points = np.concatenate([outline.LOWER_OUTER, lower_inner, self._shared])
        self._upper_matrix = self._spline(self._upper_points)
        self._lower_matrix = self._spline(self._lower_points)
        self._columns = np.arange(left, right, dtype=np.float32)
        self._rows = np.arange(*BAND, dtype=np.float32)[:, None]
        self._band = slice(BAND[0] - top, BAND[1] - top)
        self._hollow = slice(int(MIDDLE_X) - 48 - left, int(MIDDLE_X) + 48 - left)
        self._upper_teeth = self._teeth(lower=False)
        self._lower_teeth = self._teeth(lower=True)
        self._eyes = [_Eye(self.canvas, *eye) for eye in outline.EYES]

    def draw(self, shape: np.ndarray, blink: float = 0.0) -> np.ndarray:
        """The canvas u1 [512, 512, 3] for a mouth shape [8], with eyes closed by `blink` from 0 to 1."""
        out = self.canvas.copy()
        for eye in self._eyes:
            eye.draw(out, blink)
        left, top, right, bottom = ROI
        out[top:bottom, left:right] = self._mouth(np.asarray(shape, dtype=float))
        return out

    def _mouth(self, shape: np.ndarray) -> np.ndarray:
        moved = self._shared_motion(shape)
        outer, inner = lip_curves(shape, self._lips_u["outer"]), lip_curves(shape, self._lips_u["inner"])
        upper = np.concatenate([outer.upper_outer, inner.upper_inner, moved])
        outer, inner = lip_curves(shape, self._lower_u["outer"]), lip_curves(shape, self._lower_u["inner"])
        lower = np.concatenate([outer.lower_outer, inner.lower_inner, moved])
        above = self._warp(self._upper_matrix, upper - self._upper_points)
        below = self._warp(self._lower_matrix, lower - self._lower_points)

        curves = lip_curves(shape, np.linspace(-1, 1, 81))
        edge_top = np.interp(self._columns, curves.upper_inner[:, 0], curves.upper_inner[:, 1])[None]
        edge_bottom = np.interp(self._columns, curves.lower_inner[:, 0], curves.lower_inner[:, 1])[None]
        between = (self._columns > curves.upper_inner[0, 0]) & (self._columns < curves.upper_inner[-1, 0])
        band, hollow = self._band, self._hollow
        upper_lip = above[band, hollow].astype(np.float32)
        out = above
        out[band] = np.where((self._rows < edge_bottom)[..., None], above[band], below[band])
        out[band.stop :] = below[band.stop :]
        edge_top, edge_bottom, between = edge_top[:, hollow], edge_bottom[:, hollow], between[hollow]
        inside = (np.clip(self._rows - edge_top + 0.5, 0, 1) * between).astype(np.float32)[..., None]
        under = np.clip(self._rows - edge_bottom + 0.5, 0, 1).astype(np.float32)[..., None]
        # Lips darken where they turn inwards.
        shade_above = 1 - 0.30 * np.exp(-np.square((self._rows - edge_top) / 1.8)) * between
        shade_below = 1 - 0.30 * np.exp(-np.square((self._rows - edge_bottom) / 1.4)) * between
        image = upper_lip * shade_above.astype(np.float32)[..., None]
        image += inside * (self._cavity(shape, edge_top, edge_bottom) - image)
        image += under * (below[band, hollow] * shade_below.astype(np.float32)[..., None] - image)
        out[band, hollow] = np.clip(image + 0.5, 0, 255)
        return out

    def _cavity(self, shape: np.ndarray, edge_top: np.ndarray, edge_bottom: np.ndarray) -> np.ndarray:
        """The inside of the mouth: a dark cavity, a tongue that may rise, and both rows of teeth [rows, columns, 3]."""
        jaw, _, round_, _, lower, _, _, tongue = shape
        height = np.maximum(edge_bottom - edge_top, 1.0)
        depth = (self._rows - edge_top) / height  # 0 at the upper lip, 1 at the lower
        across = (self._columns[None, self._hollow] - MIDDLE_X) / (HALF_WIDTH * (0.95 - 0.3 * round_))
        image = np.empty((*depth.shape, 3), dtype=np.float32)
        image[:] = (44, 17, 17)
        light = np.clip(height / 9, 0.25, 1.0) * np.clip(1.15 - np.square(across), 0, 1) * (1 - 0.75 * round_)
        for (colour, alpha), shift, strength in (
            (self._lower_teeth, 17.0 * jaw + 5.5 * lower - 2.5, 0.55),
            (self._upper_teeth, 0.0, 0.95),
        ):
            if shift:
                move = np.array([[1, 0, 0], [0, 1, shift]], np.float32)
                colour = cv2.warpAffine(colour, move, colour.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
                alpha = cv2.warpAffine(alpha, move, alpha.shape[1::-1])
            weight = (alpha * light * strength).astype(np.float32)[..., None]
            image += weight * (colour - image)
        centre = 1.05 - 0.55 * tongue  # a raised tongue is in front of the teeth
        flesh = np.exp(-np.square((depth - centre) / (0.42 - 0.12 * tongue)) - np.square(across / 0.7))
        flesh = flesh * np.clip(height / 6, 0.3, 1.0) * (0.6 + 0.35 * tongue)
        image += flesh[..., None].astype(np.float32) * (np.array([150, 80, 76], np.float32) - image)
        return image

    def _shared_motion(self, shape: np.ndarray) -> np.ndarray:
        """Displacements of jaw, chin, cheeks, the skin under the nose and the neck [points, 2]."""
        jaw, _, round_, _, _, press, tuck, _ = shape
        points = self._shared.copy()
        curves = lip_curves(shape, np.array([-1.0, 0.0, 1.0]))
        chin = 12.5 * jaw - 1.5 * press - 1.5 * tuck - 1.0 * round_
        count = 0
        middle = (len(outline.JAW) - 1) / 2
        weights = np.exp(-np.square((np.arange(len(outline.JAW)) - middle) / 5.0)) - np.exp(-np.square(middle / 5.0))
        points[: len(outline.JAW), 1] += chin * weights / weights.max()
        points[: len(outline.JAW), 0] -= 1.2 * jaw * np.sign(points[: len(outline.JAW), 0] - MIDDLE_X) * (weights > 0.1)
        count += len(outline.JAW)
        # Just under the lower lip the skin follows the lip, further down the bone.
        follow = np.clip((330 - points[count : count + len(outline.CHIN), 1]) / 25, 0, 0.5)
        lip = curves.lower_outer[1, 1] - outline.LOWER_OUTER[5][1]
        points[count : count + len(outline.CHIN), 1] += (1 - follow) * chin + follow * lip
        count += len(outline.CHIN)
        for corner, source in (
            (curves.upper_outer[0], outline.UPPER_OUTER[0]),
            (curves.upper_outer[2], outline.UPPER_OUTER[-1]),
        ):
            part = points[count : count + len(outline.CHEEK)]
            near = np.exp(-np.square(part - source).sum(axis=1) / (2 * 20.0**2))[:, None]
            part += 0.75 * near * (corner - source) + np.array([0.0, 0.1 * chin]) * near
        count += len(outline.CHEEK)
        lift = curves.upper_outer[1, 1] - outline.UPPER_OUTER[5][1]
        points[count : count + len(outline.PHILTRUM), 1] += lift * np.array([0.1, 0.5, 0.4, 0.4, 0.3, 0.3])
        count += len(outline.PHILTRUM) + len(outline.FIXED)
        points[count:, 1] += 0.45 * chin
        return points

    def _spline(self, points: np.ndarray) -> np.ndarray:
        """Matrix [grid nodes, points] that interpolates the points' displacements over the region, with none at its
        border."""
        from scipy.interpolate import RBFInterpolator

        left, top, right, bottom = ROI
        border = [(x, y) for x in np.linspace(left, right, 9) for y in (top, bottom)]
        border += [(x, y) for y in np.linspace(top, bottom, 9)[1:-1] for x in (left, right)]
        every = np.concatenate([points, border])
        spread = RBFInterpolator(every, np.eye(len(every)), kernel="thin_plate_spline", smoothing=0.5)
        matrix = spread(self._nodes.reshape(-1, 2).astype(float))[:, : len(points)]
        return np.round(matrix, 6).astype(np.float32)  # the last bits depend on the number of threads

    def _warp(self, matrix: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """The region of the canvas u1 [rows, columns, 3] with its control points displaced by `motion`."""
        left, top, right, bottom = ROI
        field = (matrix @ motion.astype(np.float32)).reshape(self._nodes.shape)
        source = self._nodes.copy()
        for _ in range(INVERSE_STEPS):  # source + field(source) = node
            at = (source - (left, top)) / GRID_STEP
            moved = cv2.remap(
                field,
                at[..., 0].astype(np.float32),
                at[..., 1].astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            source = self._nodes - moved
        # Nodes are at pixels 0, step, 2 step, ...: an affine map of the small picture, not a resize around half pixels.
        scale = np.array([[1 / GRID_STEP, 0, 0], [0, 1 / GRID_STEP, 0]], np.float32)
        full = cv2.warpAffine(
            source.astype(np.float32),
            scale,
            (right - left, bottom - top),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return cv2.remap(self._skin, full[..., 0], full[..., 1], cv2.INTER_LINEAR)

    def _teeth(self, lower: bool) -> tuple[np.ndarray, np.ndarray]:
        """A row of teeth from the photograph: colour f4 [rows, columns, 3] and opacity f4 [rows, columns]."""
        xs = self._columns[self._hollow]
        first = np.interp(xs, [p[0] for p in outline.UPPER_INNER], [p[1] for p in outline.UPPER_INNER])[None] + 2.0
        last = np.interp(xs, [p[0] for p in outline.LOWER_INNER], [p[1] for p in outline.LOWER_INNER])[None] - 1.5
        if lower:  # the same row upside down and lower, fixed to the jaw
            base = SEAM_Y + 6.0 + 0.012 * np.square(xs - MIDDLE_X)[None] * -0.35
            at = first + (base - self._rows) * 1.6 * (last - first) / 12.0
            edge = base - 7.0
            alpha = np.clip(self._rows - edge, 0, 1) * (np.abs(xs - MIDDLE_X) < 24)[None]
        else:
            lift = 6.0  # the smile shows teeth that a relaxed upper lip covers
            at = self._rows + lift
            alpha = np.clip((last - lift - self._rows) / 1.5, 0, 1) * (np.abs(xs - MIDDLE_X) < 36)[None]
        at = np.clip(at, first, last)
        columns = np.broadcast_to(xs[None], at.shape).astype(np.float32)
        colour = cv2.remap(self.canvas, columns, at.astype(np.float32), cv2.INTER_LINEAR).astype(np.float32)
        return colour, cv2.GaussianBlur(alpha.astype(np.float32), (3, 3), 0.7)


class _Eye:
    """One eye whose upper lid comes down: the skin above the lid stretches, column by column."""

    REACH = 10.0  # pixels of skin above the lid that stretch
    LASHES = 4.0  # pixels above the lid that are lashes and crease, not skin

    def __init__(self, canvas: np.ndarray, upper: list, lower: list) -> None:
        self._left, self._right = int(upper[0][0]), int(upper[-1][0]) + 1
        self._top, self._bottom = int(min(p[1] for p in upper) - self.REACH - 3), int(max(p[1] for p in lower) + 6)
        xs = np.arange(self._left, self._right, dtype=np.float32)
        self._lid = np.interp(xs, [p[0] for p in upper], [p[1] for p in upper])[None] - 0.5
        self._floor = np.interp(xs, [p[0] for p in lower], [p[1] for p in lower])[None] + 0.5
        self._xs = xs
        self._canvas = canvas

    def draw(self, out: np.ndarray, closed: float) -> None:
        """Lower the lid in `out`, a canvas, by a fraction from 0 (as photographed) to 1."""
        if closed <= 0:
            return
        rows = np.arange(self._top, self._bottom, dtype=np.float32)[:, None]
        lid = self._lid + closed * (self._floor - self._lid)
        crease = self._lid - self.REACH
        last = self._lid - closed * self.LASHES
        stretched = crease + (rows - crease) * (last - crease) / (lid - crease)
        at = np.where(rows < crease, rows, np.minimum(stretched, last)).astype(np.float32)
        xs = np.broadcast_to(self._xs[None], at.shape).astype(np.float32)
        skin = cv2.remap(self._canvas, np.ascontiguousarray(xs), at, cv2.INTER_LINEAR).astype(np.float32)
        shade = 1 - 0.35 * closed * np.exp(-np.square((rows - lid) / 1.6))
        over = np.clip(lid - rows + 0.5, 0, 1)[..., None]
        patch = out[self._top : self._bottom, self._left : self._right]
        patch[:] = np.clip(patch + over * (skin * shade[..., None] - patch) + 0.5, 0, 255).astype(np.uint8)


def _photograph() -> np.ndarray:
    """The head of the public-domain portrait, enlarged twice: u1 [512, 512, 3], RGB."""
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        raise RuntimeError("the demo corpus needs scikit-image: pip install 'concord-av[demo]'") from error
    x, y, side = SOURCE_BOX
    part = np.ascontiguousarray(data.astronaut()[y : y + side, x : x + side])
    # Source pixel i is at canvas 2 i, as for the landmarks: an affine map, not a resize around half pixels.
    return cv2.warpAffine(
        part,
        np.array([[2, 0, 0], [0, 2, 0]], np.float32),
        (CANVAS, CANVAS),
        flags=cv2.INTER_LANCZOS4,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _without_teeth(canvas: np.ndarray) -> np.ndarray:
    """The canvas with its open mouth painted over from the surrounding lips, so that no tooth moves with a lip."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    opened = np.array(outline.UPPER_INNER + outline.LOWER_INNER[::-1])
    cv2.fillPoly(mask, [np.round(opened).astype(np.int32)], 255)
    return cv2.inpaint(canvas, cv2.dilate(mask, np.ones((3, 3), np.uint8)), 3, cv2.INPAINT_TELEA)


def _parameter(points: list) -> np.ndarray:
    """Position of lip landmarks along the mouth, -1 to 1 between the corners in the photograph."""
    left, right = outline.UPPER_OUTER[0][0], outline.UPPER_OUTER[-1][0]
    x = np.array([p[0] for p in points])
    return 2 * (x - left) / (right - left) - 1


def _inset(points: list, pixels: float) -> np.ndarray:
    """Vertical offsets [n, 2] into the lip, none at the corners."""
    offset = np.zeros((len(points), 2))
    offset[:, 1] = pixels * (1 - np.abs(_parameter(points)) ** 4)
    return offset
