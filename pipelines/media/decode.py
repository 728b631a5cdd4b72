"""Decode a clip on the project's one clock: pictures at 25 a second, sound at 16 kHz, 640 samples a frame.

t0 is the time stamp of the first displayed picture (edit lists applied). Frame k is the source picture on display at
the middle of [t0 + k/25, t0 + (k+1)/25), and sample 640 k is at t0 + k/25: an offset between the streams moves samples,
never frames. Only time stamps count; declared frame rates are not read. Between pictures that are far apart the last
one is held; where there is no sound, samples are zero and `Sound.present` says so.

Rotation and mirroring by the display matrix are applied. Non-square pixels are made square by enlarging the short
side, because a squeezed face has squeezed lips, which no later alignment (rotation, scale, shift) undoes.
Interlaced pictures stay as they are.

What a file has lost cannot be found again. AVI has no time stamps: see `_Slots`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

from pipelines.media.local import local_copy
from pipelines.media.probe import (
    FPS,
    MAX_PIXELS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Media,
    MediaError,
    Probe,
    Tally,
    choose_stream,
    decodable,
    open_media,
    probe,
    round_half_up,
    shown,
)

__all__ = [
    "FPS",
    "SAMPLES_PER_FRAME",
    "SAMPLE_RATE",
    "Converter",
    "MediaError",
    "Probe",
    "Sound",
    "Video",
    "convertible",
    "local_copy",
    "pictures",
    "probe",
    "select_frames",
    "sound",
    "sound_frames",
]

Item = TypeVar("Item")

MIN_S = Fraction(4, 10)  # shorter clips hold no word
# Time stamps of sound are rounded (1 ms in Matroska) and shake. A frame further than this from where the sound before
# it ends is a real jump if the frames after it agree; one that is too far is believed at once.
JITTER_S = Fraction(10, 1000)
JUMP_S = Fraction(200, 1000)
CONFIRM = 3  # frames
ANCHOR = 16  # frames whose time stamps together say when a run of sound begins
# Samples by which encoder and decoder together delay sound. Containers with time stamps account for it; AVI does not.
# MP3: LAME's 576 and the decoder's 529; layer II: its filter bank; AC-3 and AAC: half a window.
CODEC_DELAY = {"mp3": 1105, "mp3float": 1105, "mp2": 481, "mp2float": 481, "ac3": 256, "eac3": 256, "aac": 1024}


class Video:
    """Pictures of a clip: each iteration decodes anew and yields contiguous rgb24, u1 [height, width, 3], one a frame.

    One picture is in memory at a time; where it is held, the same array comes again, so do not write into it. All have
    the size of the first. Iterating raises MediaError, at the end for what only the end tells: unreadable, no_video,
    truncated (less than 90 % of the declared length, or more than 10 % of the packets damaged), too_short (under
    0.4 s), limit, io. What lies in a bucket is downloaded for each iteration: give `local_copy` of it where there are more.
    """

    def __init__(self, path: Media) -> None:
        self.path = path
        self._start: Fraction | None = None
        self._num_frames: int | None = None

    @property
    def start_s(self) -> float:
        """t0 in seconds on the file's own clock; known once an iteration has begun."""
        assert self._start is not None, "iterate over the pictures first"
        return float(self._start)

    @property
    def num_frames(self) -> int:
        """Length in frames: the rounded number of 1/25 s from t0 to the end of the last picture, once iterated."""
        assert self._num_frames is not None, "iterate over all pictures first"
        return self._num_frames

    def __iter__(self) -> Iterator[np.ndarray]:
        with local_copy(self.path) as path, open_media(path) as container:
            stream = choose_stream(container, "video", path)
            tally = Tally(path, container, stream)
            convert = Converter(stream)
            held, picture = None, np.empty(0, np.uint8)
            for frame in select_frames(pictures(container, stream, tally), tally.check_limit):
                if frame is not held:
                    with convertible(self.path):
                        held, picture = frame, convert(frame)
                    self._start = tally.start
                yield picture
            tally.check_complete()
            length = tally.end - tally.start
            if length < MIN_S:
                text = f"{shown(self.path)} lasts {float(length):.2f} s, at least {float(MIN_S):.1f} s are needed"
                raise MediaError("too_short", f"{text}; leave it out")
            self._num_frames = round_half_up(length * FPS)


@dataclass(frozen=True)
class Sound:
    """Sound of a clip on the clock of its pictures.

    `samples` i2 [640 * frames], mono at 16 kHz, zero where there is none; `present` bool [frames], true where at least
    half of the frame's samples were in the file; `start_skew_s` start of the sound minus t0, in seconds.
    """

    samples: np.ndarray
    present: np.ndarray
    start_skew_s: float


def sound(path: Media, start_s: float | None, num_frames: int) -> Sound:
    """Sound that belongs to pictures which start at `start_s` (`Video.start_s`) and last `num_frames`.

    With `start_s` None the sound is in a file of its own, which starts together with the first picture: time 0 of that
    file is t0, and `start_skew_s` is its own start offset. (MP3 and MPEG streams, whose clocks do not start at 0, begin
    with their first sample.)

    Channels are mixed by ffmpeg's rules (stereo: the mean). Codec delay is removed where the file tells it, and in AVI
    by the codec's usual figure; priming that a writer left in front of late sound stays, as silence, and counts in
    `start_skew_s`. Sound past the last frame is cut.
    Raises MediaError: unreadable, no_audio, truncated (as for Video).
    """
    canvas = _Canvas(num_frames)
    with local_copy(path) as path, open_media(path) as container:
        stream = choose_stream(container, "audio", path)
        tally = Tally(path, container, stream)
        t0 = Fraction(0) if start_s is None else Fraction(start_s)
        if start_s is None and container.format.name in ("mp3", "mpeg", "mpegts"):
            t0 = (stream.start_time or 0) * stream.time_base
        elif start_s is not None:
            tally.other_end = t0 + Fraction(num_frames, FPS)
        delay = _avi_delay_s(stream) if container.format.name == "avi" else Fraction(0)
        resampler = None
        for mark, time, frame in _anchored(_runs(sound_frames(container, stream, tally)), stream.time_base):
            with convertible(path):
                if mark:
                    canvas.write(resampler)
                    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
                if mark == "jump":
                    canvas.begin(time - delay - t0)
                canvas.write(resampler, frame)
        canvas.write(resampler)
        tally.check_complete()
    return Sound(canvas.samples, canvas.present(), float(tally.start - delay - t0))


@contextmanager
def convertible(path: Media) -> Iterator[None]:
    """Turns ffmpeg's refusal of a pixel format or channel layout into a MediaError (unreadable)."""
    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        text = f"{shown(path)} holds pictures or sound in a form that cannot be converted ({error})"
        raise MediaError("unreadable", f"{text}; convert it to H.264 and AAC") from error


def select_frames(
    intervals: Iterable[tuple[Fraction, Fraction, Item]], check: Callable[[Fraction], None] = lambda length: None
) -> Iterator[Item]:
    """The item on display at the middle of each 1/25 s.

    `intervals`: (start, end, item) in seconds, each starting where the one before ends. As many items come as the
    whole has frames, rounded, halves up. `check` gets the length so far before an item is repeated; it may raise.
    """
    k = 0
    origin = None
    for start, end, item in intervals:
        origin = start if origin is None else origin
        check(end - origin)
        while 2 * k + 1 < 2 * FPS * (end - origin):
            yield item
            k += 1
    if origin is not None and k < round_half_up((end - origin) * FPS):
        yield item  # the whole ends just on the middle of a frame


def pictures(container: Any, stream: Any, tally: Tally) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """(start, end, frame) in seconds, each displayed until the next.

    Of frames with one time stamp the last counts; frames that go back in time are left out, and counted as damaged.
    """
    slots = _Slots(container, stream) if container.format.name == "avi" else None
    held: Any = None
    start = Fraction(0)
    gaps: deque[Fraction] = deque(maxlen=100)
    for packet, frames in tally.packets(*container.streams.audio):
        if slots is not None:
            slots.push(packet, frames)
        for frame in frames:
            stamp = slots.pop() if slots is not None else frame.pts if frame.pts is not None else frame.dts
            if stamp is not None:
                time = stamp * stream.time_base
            else:
                time = start if held is None else start + _shown_s(held, stream, gaps)
            if held is None:
                tally.start = time
            elif time < start:
                tally.good -= 1
                tally.bad += 1
                continue
            elif time > start:
                tally.check_still(time - start)
                gaps.append(time - start)
                yield start, time, held
            held, start = frame, time
    if held is not None:
        tally.end = start + _shown_s(held, stream, gaps)
        tally.check_still(tally.end - start)
        yield start, tally.end, held


def _shown_s(frame: Any, stream: Any, gaps: Iterable[Fraction]) -> Fraction:
    """How long a frame is displayed when no other tells: its own duration, else the median of the gaps before it."""
    ordered = sorted(gaps)
    if frame.duration and frame.duration > 0:
        return frame.duration * stream.time_base
    return ordered[len(ordered) // 2] if ordered else Fraction(1, FPS)


class _Slots:
    """Time stamps for AVI, which stores none: picture n in order of display takes slot n of the chunks that hold one.

    So a decoder's reordering delay (B-frames) is not part of the clock, as in the programs AVI comes from. Empty
    chunks hold the picture before them. ffmpeg's AVI writer moves all pictures but the first by the delay of the sound
    codec, in whole sound frames, rounded up to slots, while the sound starts at 0 (measured on its files over rates of
    both); they are moved back, and `sound` takes the codec's delay off.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self.waiting: deque[int] = deque()
        self.first = True
        self.shift = 0
        sounds = [s for s in container.streams.audio if decodable(s)]
        entries = stream.index_entries
        if sounds and container.metadata.get("software", "").startswith("Lavf") and len(entries) > 1:
            base = sounds[0].time_base
            moved = math.ceil(round_half_up(_avi_delay_s(sounds[0]) / base) * base / stream.time_base)
            if entries[1].timestamp - entries[0].timestamp > moved:
                self.shift = moved

    def push(self, packet: Any, frames: list[Any]) -> None:
        """Note a packet's slot."""
        if packet is not None and packet.size and packet.dts is not None:
            self.waiting.append(packet.dts if self.first else packet.dts - self.shift)
            self.first = False

    def pop(self) -> int | None:
        """Slot of the next picture; None where the decoder gives more pictures than it was given packets."""
        return self.waiting.popleft() if self.waiting else None


def _avi_delay_s(stream: Any) -> Fraction:
    """Delay of a sound codec in seconds, for streams whose container does not account for it."""
    return Fraction(CODEC_DELAY.get(stream.codec_context.name, 0), stream.codec_context.sample_rate)


class Converter:
    """Decoded frames to rgb24 as displayed: size of the first frame, square pixels, turned by the display matrix.

    `thumb`: grey thumbnails u1 [thumb, thumb] instead, whatever the shape of the picture.
    """

    def __init__(self, stream: Any, thumb: int = 0) -> None:
        self.reformatter = VideoReformatter()  # kept, because setting one up costs more than using it
        sar = stream.sample_aspect_ratio
        self.aspect = sar if sar and Fraction(1, 4) <= sar <= 4 else Fraction(1)
        self.thumb, self.form = thumb, "gray" if thumb else "rgb24"
        self.size: tuple[int, int] | None = None
        self.matrix = (1, 0, 0, 1)

    def __call__(self, frame: Any) -> np.ndarray:
        if self.size is None:
            wide, high = max(self.aspect, 1), max(1 / self.aspect, 1)
            self.size = round_half_up(frame.width * wide), round_half_up(frame.height * high)
            if self.size[0] * self.size[1] > MAX_PIXELS:
                raise ValueError(f"{self.size[0]}x{self.size[1]} pixels once they are square")
            if self.thumb:
                self.size = self.thumb, self.thumb
            data = frame.side_data.get("DISPLAYMATRIX")
            if data is not None:
                # ISO 14496-12, 8.3.2: a point (p, q) is shown at (a p + c q, b p + d q); 3 x 3 numbers [a b u c d v ..]
                a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5]
                self.matrix = int(a), int(b), int(c), int(d)
        width, height = self.size
        rgb = self.reformatter.reformat(
            frame,
            width,
            height,
            self.form,
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        picture = rgb.to_ndarray()
        a, b, c, d = self.matrix
        if abs(b) > abs(a):  # a quarter turn, as near as it comes
            picture, right, down = picture.swapaxes(0, 1), c, b
        else:
            right, down = a, d
        # Rows are padded where the width is no multiple of 16, and models downstream misread such arrays.
        return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])


def sound_frames(container: Any, stream: Any, tally: Tally) -> Iterator[tuple[Fraction, Any]]:
    """(start, frame) in seconds; a frame without time stamp follows the one before."""
    end = None
    for _, frames in tally.packets():
        for frame in frames:
            if not frame.samples:
                continue
            time = end if frame.pts is None else frame.pts * stream.time_base
            time = Fraction(0) if time is None else time
            if end is None:
                tally.start = time
            end = time + Fraction(frame.samples, frame.sample_rate)
            tally.end = max(tally.end, end)
            yield time, frame


def _runs(timed: Iterable[tuple[Fraction, Any]]) -> Iterator[tuple[str, Fraction, Any]]:
    """(mark, time, frame); the mark is "jump" where seamless sound begins at another time, "change" where it goes on
    in another rate, format or number of channels, else "".

    Between jumps samples are counted, and time stamps that shake are ignored; see `JITTER_S`.
    """
    clock = Fraction(0)  # end of the sound given out
    kind = None
    doubted: list[tuple[Fraction, Any]] = []

    def give(mark: str, time: Fraction, frame: Any) -> tuple[str, Fraction, Any]:
        nonlocal clock, kind
        before, kind = kind, (frame.sample_rate, frame.format.name, frame.layout.name)
        clock = (time if mark else clock) + Fraction(frame.samples, frame.sample_rate)
        return mark or ("change" if kind != before else ""), time, frame

    for time, frame in timed:
        if kind is None:
            yield give("jump", time, frame)
            continue
        off = time - clock - sum(Fraction(f.samples, f.sample_rate) for _, f in doubted)
        if doubted and abs(off - (doubted[0][0] - clock)) > JITTER_S:
            for doubt in doubted:  # the frames after it do not agree: it was jitter
                yield give("", *doubt)
            off, doubted = time - clock, []
        if not doubted and abs(off) <= JITTER_S:
            yield give("", time, frame)
            continue
        doubted.append((time, frame))
        if abs(off) > JUMP_S or len(doubted) == CONFIRM:
            for i, doubt in enumerate(doubted):
                yield give("" if i else "jump", *doubt)
            doubted = []
    for i, doubt in enumerate(doubted):
        yield give("" if i else "jump", *doubt)


def _anchored(runs: Iterable[tuple[str, Fraction, Any]], tick: Fraction) -> Iterator[tuple[str, Fraction, Any]]:
    """The same, the time of a jump corrected for rounding: the mean of what the first frames say of it.

    Only where they agree to within a tick of the container's clock; sound whose stamps shake keeps its first.
    """
    held: list[tuple[str, Fraction, Any]] = []

    def settle() -> Iterator[tuple[str, Fraction, Any]]:
        said, length = [], Fraction(0)
        for _, time, frame in held:
            said.append(time - length)
            length += Fraction(frame.samples, frame.sample_rate)
        agree = max(said) - min(said) <= tick
        for i, (mark, time, frame) in enumerate(held):
            yield mark, sum(said, Fraction(0)) / len(said) if agree and not i else time, frame
        held.clear()

    for item in runs:
        if held and (item[0] == "jump" or len(held) == ANCHOR):
            yield from settle()
        if held or item[0] == "jump":
            held.append(item)
        else:
            yield item
    if held:
        yield from settle()


class _Canvas:
    """The clip's samples, onto which runs of sound are laid; what was laid first stays."""

    def __init__(self, num_frames: int) -> None:
        self.samples = np.zeros(num_frames * SAMPLES_PER_FRAME, np.int16)
        self.covered = np.zeros(num_frames * SAMPLES_PER_FRAME, bool)
        self.at = 0

    def begin(self, start: Fraction) -> None:
        """The next sample is at `start` seconds after t0."""
        self.at = round_half_up(start * SAMPLE_RATE)

    def write(self, resampler: Any, frame: Any = None) -> None:
        """Lay what the resampler gives for a frame, or, without one, what is left in it."""
        for chunk in resampler.resample(frame) if resampler is not None else []:
            if chunk is None:  # how a resampler with nothing to do answers the end
                continue
            sound = chunk.to_ndarray().reshape(-1)
            begin, end = max(self.at, 0), min(self.at + len(sound), len(self.samples))
            if begin < end:
                free = ~self.covered[begin:end]
                self.samples[begin:end][free] = sound[begin - self.at : end - self.at][free]
                self.covered[begin:end] = True
            self.at += len(sound)

    def present(self) -> np.ndarray:
        """bool [frames]: at least half of the samples covered."""
        return 2 * self.covered.reshape(-1, SAMPLES_PER_FRAME).sum(axis=1) >= SAMPLES_PER_FRAME
