"""Sound on the project's common clock: 16 kHz, mono, 640 samples per frame, placed by its time stamps."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from concord.arrays import large
from pipelines.containers.edits import samples
from pipelines.containers.order import Steps
from pipelines.containers.priming import undeclared_s, usual_s
from pipelines.media.facts import Fact
from pipelines.media.files import Media, choose_stream, open_media, round_half_up
from pipelines.media.local import local_copy
from pipelines.media.mix import Channels, Mix, resampler
from pipelines.media.picture import convertible
from pipelines.media.tally import Tally
from store.layout import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

# Time stamps of sound are rounded (1 ms in Matroska) and jitter. A frame further than JITTER_S from the end of the earlier
# sound is a real jump if the next CONFIRM frames agree; one that is further than JUMP_S always counts as a jump.
JITTER_S = Fraction(10, 1000)
JUMP_S = Fraction(200, 1000)
CONFIRM = 3  # frames
MARGIN = 500  # a declared duration counts as shorter if it is by more than 1 / MARGIN of a second: they are rounded
ANCHOR = 16  # frames whose time stamps together give the start of a run of sound
# Holes in the sound are named if they are at least GAPS of its length, and GAPS_S.
GAPS, GAPS_S = 0.1, 0.5


@dataclass(frozen=True)
class Sound:
    """Sound of a clip on the clock of its pictures.

    `samples` i2 [640 * frames], mono at 16 kHz, zero without sound; `present` bool [frames], true where at least half
    of the frame's samples were in the file; `start_skew_s` start of the sound minus t0, in seconds; `facts` what a person
    should know of it; `odd` whether another mix of its channels may carry the voice better (`mix.choose_mix`).
    """

    samples: np.ndarray
    present: np.ndarray
    start_skew_s: float
    facts: tuple[Fact, ...] = ()
    odd: bool = False


def decode_sound(
    path: Media, start_s: float | None, num_frames: int, track: int | None = None, mix: Mix | None = None
) -> Sound:
    """Sound for pictures that start at `start_s` (`Video.start_s`) and last `num_frames`.

    With `start_s` None the sound is in a separate file, which starts together with the first picture: time 0 of that
    file is t0, and `start_skew_s` is its own start offset. (MP3 and MPEG streams, whose clocks do not start at 0, begin
    with their first sample.)

    `track` is the index of a stream in the file; None: the default one, else the first. Channels are mixed as `mix` says;
    None: by ffmpeg's rules (stereo: the mean). Codec delay is removed if the file declares it, else in AVI and in
    separate files by the codec's usual value. Priming that a writer left in front of late sound remains as silence and
    counts in `start_skew_s`. Sound after the last frame is cut. Raises MediaError: unreadable, no_audio, truncated (as
    for Video).
    """
    canvas, channels = _Canvas(num_frames), Channels()
    with local_copy(path) as path, open_media(path) as container:
        stream = choose_stream(container, "audio", path, track)
        tally = Tally(path, container, stream)
        t0 = Fraction(0) if start_s is None else Fraction(start_s)
        if start_s is None and container.format.name in ("mp3", "mpeg", "mpegts"):
            t0 = (stream.start_time or 0) * stream.time_base
        elif start_s is not None:
            tally.other_end = t0 + Fraction(num_frames, FPS)
        delay = Fraction(0)
        if container.format.name == "avi":
            delay = usual_s(stream)
        elif start_s is None:
            delay = undeclared_s(open_media(path), stream.index)
        mixer = None
        for mark, time, frame in _anchored(_runs(sound_frames(stream, tally), tally.part), stream.time_base):
            with convertible(path):
                if mark:
                    canvas.write(mixer)
                    mixer = resampler(mix, frame)
                if mark == "jump":
                    canvas.begin(time - delay - t0)
                channels.add(frame)
                canvas.write(mixer, frame)
        canvas.write(mixer)
        tally.check_complete()
    odd = mix is None and channels.odd
    own = tally.facts if start_s is None else []  # of one file, the picture's pass has them
    facts = (*own, *gap_facts(*canvas.missing_s()))
    return Sound(canvas.samples, canvas.present(), float(tally.start - delay - t0), facts, odd)


def gap_facts(missing_s: float, length_s: float) -> list[Fact]:
    """The fact that `missing_s` seconds are missing within sound of `length_s`, where it is much."""
    if missing_s < max(GAPS_S, GAPS * length_s):
        return []
    return [Fact("sound_gaps", f"sound is missing in {missing_s:.1f} of {length_s:.1f} s")]


def sound_frames(stream: Any, tally: Tally) -> Iterator[tuple[Fraction, Any]]:
    """(start, frame) in seconds; a frame without a time stamp follows the previous one."""
    end = None
    for frame in _trimmed(tally.packets(), stream.time_base):
        time = end if frame.pts is None else frame.pts * stream.time_base
        time = Fraction(0) if time is None else time
        if end is None:
            tally.start = tally.end = time
        end = time + Fraction(frame.samples, frame.sample_rate)
        tally.end = max(tally.end, end)
        yield time, frame


def _trimmed(steps: Steps, base: Fraction) -> Iterator[Any]:
    """Frames with samples. One whose packet declares less sound than was decoded, as at the joints of files, is cut to
    that if the next frame begins there."""
    held, ticks = None, 0  # a frame that may have to be cut, and the ticks that its packet declares
    for packet, frames in steps:
        for frame in frames:
            if not frame.samples:
                continue
            if held is not None:
                if frame.pts == held.pts + ticks:
                    held = samples(held, 0, round_half_up(ticks * base * held.sample_rate))
                yield held
                held = None
            ticks, rate = packet.duration if packet is not None else 0, frame.sample_rate
            short = frame.samples * MARGIN - rate  # in samples / MARGIN
            if 0 < ticks * base.numerator * rate * MARGIN < short * base.denominator and frame.pts is not None:
                held = frame
            else:
                yield frame
    if held is not None:
        yield held


def _runs(
    timed: Iterable[tuple[Fraction, Any]], part: Callable[[], int] = lambda: 0
) -> Iterator[tuple[str, Fraction, Any]]:
    """(mark, time, frame); the mark is "jump" if the sound restarts at another time, "change" if it continues with
    another rate, format or number of channels, else "". `part` is the number of the file's part that a frame is from:
    each begins with a jump.

    Between jumps samples are counted, and the jitter of time stamps is ignored; see `JITTER_S`.
    """
    clock = Fraction(0)  # end of the sound yielded so far
    kind = None
    doubted: list[tuple[Fraction, Any]] = []
    current = 0

    def give(mark: str, time: Fraction, frame: Any) -> tuple[str, Fraction, Any]:
        nonlocal clock, kind
        before, kind = kind, (frame.sample_rate, frame.format.name, frame.layout.name)
        clock = (time if mark else clock) + Fraction(frame.samples, frame.sample_rate)
        return mark or ("change" if kind != before else ""), time, frame

    for time, frame in timed:
        before, current = current, part()
        if kind is None or current != before:
            for doubt in doubted:
                yield give("", *doubt)
            doubted = []
            yield give("jump", time, frame)
            continue
        off = time - clock - sum(Fraction(f.samples, f.sample_rate) for _, f in doubted)
        if doubted and abs(off - (doubted[0][0] - clock)) > JITTER_S:
            for doubt in doubted:  # the next frames do not agree: it was jitter
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
    """The same, with the time of a jump corrected for rounding: the mean over its first frames.

    Only if they agree within a tick of the container's clock; sound with jittering stamps keeps its first one.
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
    """The clip's samples, to which runs of sound are written; earlier runs are not overwritten."""

    def __init__(self, num_frames: int) -> None:
        self.samples = large.zeros((num_frames * SAMPLES_PER_FRAME,), np.int16)
        self.covered = large.zeros((num_frames * SAMPLES_PER_FRAME,), bool)
        self.at = 0

    def begin(self, start: Fraction) -> None:
        """The next sample is at `start` seconds after t0."""
        self.at = round_half_up(start * SAMPLE_RATE)

    def write(self, mixer: Any, frame: Any = None) -> None:
        """Write the mixer's output for a frame or, without one, the rest in the mixer."""
        for chunk in mixer.resample(frame) if mixer is not None else []:
            if chunk is None:  # returned at the end by an empty mixer
                continue
            sound = chunk.to_ndarray().reshape(-1)
            begin, end = max(self.at, 0), min(self.at + len(sound), len(self.samples))
            if begin < end:
                free = ~self.covered[begin:end]
                self.samples[begin:end][free] = sound[begin - self.at : end - self.at][free]
                self.covered[begin:end] = True
            self.at += len(sound)

    def missing_s(self) -> tuple[float, float]:
        """(seconds that are missing between the first and the last sound, seconds between them)."""
        covered = np.flatnonzero(self.covered[1:] != self.covered[:-1]) + 1  # where sound begins or ends
        edges = (
            [0] * bool(self.covered[:1].any()) + covered.tolist() + [len(self.covered)] * bool(self.covered[-1:].any())
        )
        lengths = np.diff(edges) / SAMPLE_RATE
        return float(lengths[1::2].sum()), float(lengths.sum())

    def present(self) -> np.ndarray:
        """bool [frames]: at least half of the samples covered."""
        return 2 * self.covered.reshape(-1, SAMPLES_PER_FRAME).sum(axis=1) >= SAMPLES_PER_FRAME
