"""Decoded frames as they are displayed: each with its own size, shape of pixels, orientation, range and transfer.

Non-square pixels are made square by enlarging the short side, because no later alignment (rotation, scale, shift) could
correct squeezed lips. Rotation and mirroring by the display matrix are applied. All of it is read from every frame: a phone
is turned, WebRTC changes its size, television switches between 4:3 and 16:9. Frames without a named matrix are read as
BT.601, whatever their size, as ffmpeg reads and writes them.

HDR (PQ, HLG) and linear light become SDR by the exact curves of ITU-R BT.2100-2, with reference white at 203 cd/m2 (BT.2408-7)
as SDR white on a display of gamma 2.4 (BT.1886), in the primaries of BT.709. So mouths in HDR and SDR look alike.
Brighter light is compressed softly, and a clip whose first picture stays dark, as those graded for a white of 100 cd/m2, is
made brighter, as cameras do in SDR. Other transfers (gamma 2.2 to 2.8, sRGB) are left as they are: they differ little.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from pipelines.media.facts import Fact
from pipelines.media.files import MAX_PIXELS, round_half_up

WHITE = 203.0  # cd/m2 of SDR white: BT.2408-7, table 1
PEAK = 1000.0  # cd/m2; brighter light is white. HLG's nominal display, and most PQ material is graded for it
KNEE = 0.8  # of the SDR signal; light above it is compressed
GAMMA = 2.4  # BT.1886
# The SDR signal that the largest of red, green and blue should reach in 1 % of a picture (SDR clips of people: .98 in the
# median), how much it may be raised, and up to which value the picture is black and says nothing.
BRIGHT, MOST_RAISED, BLACK = 0.9, 1.4, 0.1
HLG_GAMMA = 1.2  # BT.2100-2, table 5, for a display of PEAK
BAND = 32  # rows that are tone-mapped at once, so that they stay in the processor's cache
SIZES = 4  # at most that many sizes are named
TONED = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG", ColorTrc.LINEAR: "linear light"}
UNNAMED = 2  # for primaries and matrix: "unspecified" (ITU-T H.273)
# x and y of red, green, blue and, for all of them, D65 (BT.709-6, BT.2020-2, SMPTE EG 432-1).
PRIMARIES = {
    ColorPrimaries.BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    ColorPrimaries.BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    ColorPrimaries.SMPTE432: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
D65 = 0.3127, 0.3290


class Converter:
    """Decoded frames to rgb24 u1 [height, width, 3] as displayed.

    `thumb`: grey thumbnails u1 [thumb, thumb] instead, whatever the shape of the picture.
    """

    def __init__(self, stream: Any, thumb: int = 0) -> None:
        self.reformatter = VideoReformatter()  # kept, because setting one up takes longer than using it
        self.stream = stream
        self.thumb, self.form = thumb, "gray" if thumb else "rgb24"
        self.named = stream.sample_aspect_ratio  # by the container or, without it, by the first frame
        self.coded: Any = None  # what the coded pictures themselves said when the first one came
        self.said: Any = None  # and when the last one came
        self.begun = self.carried = False
        # Width, height and turns, in order of appearance.
        self.looks: dict[tuple[int, int, bool, bool, bool], None] = {}
        self.tones: set[ColorTrc] = set()
        self.raised = 0.0  # factor of the SDR signal of toned pictures; 0 before the first one that is not black

    def __call__(self, frame: Any) -> np.ndarray:
        """The next picture. Raises ValueError, or ffmpeg's error, if it cannot be converted."""
        aspect = _plausible(self.named) if self.carried else self._aspect()
        if isinstance(frame.opaque, Fraction):
            aspect = frame.opaque
        width, height = frame.width, frame.height
        if aspect != 1:
            width = round_half_up(width * max(aspect, Fraction(1)))
            height = round_half_up(height * max(1 / aspect, Fraction(1)))
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width}x{height} pixels once they are square")
        turned, right, down = _turns(frame)
        self.looks[(height, width, True, right, down) if turned else (width, height, False, right, down)] = None
        picture = self._scaled(frame, *((self.thumb, self.thumb) if self.thumb else (width, height)))
        if turned:
            picture = picture.swapaxes(0, 1)
        # Rows are padded if the width is not a multiple of 16, and later models misread such arrays.
        return np.ascontiguousarray(picture[:: -1 if down else 1, :: -1 if right else 1])

    def noted(self, spans: Iterable[tuple[Fraction, Fraction, Any]]) -> Iterator[tuple[Fraction, Fraction, Any]]:
        """The same spans (start, end, frame), where each frame carries the shape of its pixels if it is not the container's:
        the decoder says only that of the picture it read last, and frames may be held back before they are converted."""
        self.carried = True
        for span in spans:
            aspect = self._aspect()
            if self.said != self.coded:
                span[2].opaque = aspect
            yield span

    def facts(self) -> list[Fact]:
        """What a person should know of the pictures so far."""
        found = []
        sizes = list(dict.fromkeys(f"{width}x{height}" for width, height, *_ in self.looks))
        if len(sizes) > 1:
            more = f" and {len(sizes) - SIZES} more" if len(sizes) > SIZES else ""
            found.append(Fact("size_changes", f"the picture changes its size: {', '.join(sizes[:SIZES])}{more}"))
        elif len(self.looks) > 1:
            found.append(Fact("size_changes", "the picture changes its orientation"))
        hdr = [TONED[tone] for tone in sorted(self.tones) if tone is not ColorTrc.LINEAR]
        if hdr:
            found.append(Fact("hdr", f"the picture is HDR ({' and '.join(hdr)}) and was tone-mapped"))
        return found

    def _aspect(self) -> Fraction:
        """Width by height of a pixel. What the coded pictures say counts once it changes, because the container cannot."""
        said = self.stream.codec_context.sample_aspect_ratio
        if not self.begun:
            self.begun, self.coded = True, said
        self.said = said
        return _plausible(self.named if said == self.coded else said)

    def _scaled(self, frame: Any, width: int, height: int) -> np.ndarray:
        """The frame at that size, not turned."""
        tone = frame.color_trc
        if tone in TONED:
            self.tones.add(ColorTrc(tone))
            return self._toned(frame, width, height, ColorTrc(tone))
        picture = self.reformatter.reformat(
            frame,
            width,
            height,
            self.form,
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return picture.to_ndarray()

    def _toned(self, frame: Any, width: int, height: int, tone: ColorTrc) -> np.ndarray:
        """The same for a frame in another light than SDR's."""
        import cv2

        hdr = tone is not ColorTrc.LINEAR
        wide = hdr and frame.colorspace == UNNAMED and not frame.format.is_rgb
        rgb = self.reformatter.reformat(
            frame,
            width,
            height,
            "rgb48le",
            src_colorspace=Colorspace.BT2020 if wide else None,
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        ).to_ndarray()
        source = ColorPrimaries.BT2020 if hdr and frame.color_primaries == UNNAMED else frame.color_primaries
        if not self.raised:
            self.raised = _raise(toned(rgb[::4, ::4], tone, source))
        picture = toned(rgb, tone, source, self.raised or 1.0)
        return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if self.thumb else picture


def _plausible(aspect: Fraction | None) -> Fraction:
    return aspect if aspect and Fraction(1, 4) <= aspect <= 4 else Fraction(1)


def _turns(frame: Any) -> tuple[bool, bool, bool]:
    """How the display matrix turns a frame, by the nearest quarter: whether rows become columns, and then whether left and
    right, and top and bottom, are exchanged."""
    sides = frame.side_data
    data = sides.get("DISPLAYMATRIX") if len(sides) else None
    if data is None:
        return False, False, False
    # ISO 14496-12, 8.3.2: a point (p, q) is shown at (a p + c q, b p + d q); 3 x 3 numbers [a b u c d v ..]
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def _raise(picture: np.ndarray) -> float:
    """How much the signal of pictures like this one u1 [height, width, 3] must be raised; 0 if it is black."""
    bright = float(np.percentile(picture.max(axis=-1), 99)) / 255
    return min(max(BRIGHT / bright, 1.0), MOST_RAISED) if bright > BLACK else 0.0


def toned(rgb: np.ndarray, tone: ColorTrc, primaries: int = ColorPrimaries.BT2020, raised: float = 1.0) -> np.ndarray:
    """SDR u1 [height, width, 3] of a picture u2 [height, width, 3] (full range) in the transfer `tone`, one of TONED.

    Its signal is multiplied by `raised` before bright light is compressed.
    """
    out = np.empty(rgb.shape, np.uint8)
    for top in range(0, len(rgb), BAND):
        _tone_band(rgb[top : top + BAND], tone, primaries, raised, out[top : top + BAND])
    return out


def _tone_band(rgb: np.ndarray, tone: ColorTrc, primaries: int, raised: float, out: np.ndarray) -> None:
    import cv2

    light = cv2.LUT(rgb, _light(tone))
    matrix = _to_bt709(primaries)
    if tone is ColorTrc.ARIB_STD_B67:  # the display's own part, by the luminance of the scene (BT.2100-2, table 5)
        brighter = cv2.pow(cv2.transform(light, _luminance(primaries)), HLG_GAMMA - 1)
        light = cv2.multiply(light, cv2.merge([brighter] * 3), scale=PEAK / WHITE)
    if matrix is not None:
        light = cv2.transform(light, matrix)
    # The square root of the square root, in steps so fine that each grey level has many.
    root = cv2.sqrt(cv2.sqrt(np.maximum(light, 0)))
    steps = 65535 / (PEAK / WHITE) ** 0.25 * raised ** (GAMMA / 4)
    cv2.LUT(cv2.multiply(root, steps, dtype=cv2.CV_16U), _signal(), dst=out)


@cache
def _light(tone: ColorTrc) -> np.ndarray:
    """f4 [65536]: light of each value: of PQ and linear light on the display, where SDR white is 1; of HLG in the scene, 0
    to 1."""
    signal = np.arange(65536) / 65535
    if tone is ColorTrc.SMPTE2084:  # BT.2100-2, table 4
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = signal ** (1 / m2)
        light = 10_000 / WHITE * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    elif tone is ColorTrc.ARIB_STD_B67:  # table 5
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = signal
    return light.astype(np.float32)


@cache
def _signal() -> np.ndarray:
    """u1 [65536]: SDR value of light, given by its fourth root in steps of 1 / 65535 of PEAK's."""
    light = (np.arange(65536) / 65535) ** 4 * PEAK / WHITE
    signal = light ** (1 / GAMMA)
    most = ((PEAK / WHITE) ** (1 / GAMMA) - KNEE) / (1 - KNEE)
    over = np.maximum(signal - KNEE, 0) / (1 - KNEE)
    # Reinhard et al. 2002 (10.1145/566654.566575), equation 4, above the knee: of slope 1 there, 1 at PEAK
    soft = KNEE + (1 - KNEE) * over * (1 + over / most**2) / (1 + over)
    return np.round(255 * np.clip(np.where(signal > KNEE, soft, signal), 0, 1)).astype(np.uint8)


@cache
def _to_bt709(primaries: int) -> np.ndarray | None:
    """f4 [3, 3] from linear red, green and blue to those of BT.709; None if they are the same or not known."""
    if primaries not in PRIMARIES or primaries == ColorPrimaries.BT709:
        return None
    ours = np.linalg.inv(_to_xyz(PRIMARIES[ColorPrimaries.BT709]))
    return (ours @ _to_xyz(PRIMARIES[primaries])).astype(np.float32)  # type: ignore[index]


@cache
def _luminance(primaries: int) -> np.ndarray:
    """f4 [1, 3]: weights of linear red, green and blue; those of BT.2020 for unknown primaries."""
    return _to_xyz(PRIMARIES.get(primaries, PRIMARIES[ColorPrimaries.BT2020]))[1:2].astype(np.float32)  # type: ignore[call-overload]


def _to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """f8 [3, 3] from linear red, green and blue to X, Y and Z, white having Y = 1 (SMPTE RP 177)."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    x, y = D65
    return columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])
