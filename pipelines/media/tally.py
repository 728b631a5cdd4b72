"""Compares the decoded part of a stream with its declaration: whether it is truncated, or too long for a clip."""

import mmap
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

from pipelines.containers.boxes import Track, tracks
from pipelines.containers.clock import Clock
from pipelines.containers.edits import MAX_SEEKS, UNEDITED, cut, cut_of, seeks
from pipelines.containers.ending import ts_strangers, whole
from pipelines.containers.order import Steps, ordered, shuffled
from pipelines.media.facts import Fact
from pipelines.media.files import MAX_STILL_S, Media, MediaError, check_length, open_media, shown

MIN_SHARE = Fraction(9, 10)  # share of the declared length, and of the packets, that must decode
SHARED = frozenset(("asf", "nut", "mxf", "matroska,webm"))  # containers that declare one length for all streams
ROUNDED_S = Fraction(1, 100)  # by which ffmpeg's length of a stream may differ from the file's where it has no other
MAX_DECLARED_S = 10_000_000  # longer lengths are no clip's: they count as not declared
TAG = re.compile(r"([0-9]{1,6}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,9})?)")  # hours, minutes, seconds
# Containers without a length in their header: ffmpeg estimates it from bit rate or last time stamp.
UNDECLARED = frozenset("mpeg mpegts mpegvideo m4v mp3 aac ac3 eac3 amr".split())
# Sound codecs whose frames all have the same size, except for a byte or two of padding.
SAME_SIZE = frozenset("mp2 mp2float ac3".split())


class Tally:
    """Counts of a stream during decoding, to compare with the header. Time stamps are repaired (`clock`), and edit lists
    of several parts applied (`edits`), on the way."""

    def __init__(self, path: Media, container: Any, stream: Any) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.good = self.bad = 0  # decoded frames; packets that failed and frames that are damaged
        self.sorted = False  # whether pictures had the stamps of others
        self.left_out = 0  # pictures whose time stamps go back
        self.start = self.end = Fraction(0)
        self.other_end = Fraction(0)  # of the clip's other stream
        self.constant = False  # whether this stream's packets should all have the same size
        self.first_size = self.last_size = 0  # of its packets
        self.reached = 0  # byte of the file where the last packet of any stream begins
        self.broken = False  # the container ended with an error
        self.clock = Clock(lambda: open_media(path))
        self.track = tracks(path).get(stream.id) if "mp4" in container.format.name else None
        self.cut = cut_of(self.track, stream, lambda: shuffled(open_media(path, **UNEDITED), stream.index))
        if (
            self.cut is not None
            and self.track is not None
            and (number := seeks(self.track, self.cut.parts)) > MAX_SEEKS
        ):
            text = f"{shown(path)} jumps to {number} places by its edit list, at most {MAX_SEEKS} are accepted"
            raise MediaError("limit", f"{text}; convert it again")
        self.facts: list[Fact] = []  # once complete

    def packets(self, beside: bool = False) -> Iterator[tuple[Any, list[Any]]]:
        """(packet, frames) of the stream; None as packet at the end. `beside`: the file's sound is read, too, though not
        decoded: its clock, and where its packets end."""
        if self.cut is not None:
            with open_media(self.path, **UNEDITED) as own:
                stream = own.streams[self.stream.index]
                stream.codec_context.options = self.stream.codec_context.options
                stream.codec_context.thread_count = 1
                try:
                    yield from cut(lambda: self._ordered(self._decoded(own, stream)), own, stream, self.cut.parts)
                except av.FFmpegError:  # of seeking
                    self.broken = True
                    yield None, []
            return
        others = self.container.streams.audio if beside else ()
        steps = self._decoded(self.container, self.stream, *others)
        yield from self._ordered(steps) if self.stream.type == "video" else steps

    def part(self) -> int:
        """Which part of the file, by its clock, the last packet of this stream was from."""
        return self.clock.part(self.stream.index)

    def _ordered(self, steps: Steps) -> Steps:
        """Pictures with stamps in order. AVI has no stamps, and sound needs no sorting."""
        if self.stream.type != "video" or self.container.format.name == "avi":
            return steps
        return ordered(steps, self.stream, self._shuffled, self._sort)

    def _sort(self) -> None:
        self.sorted = True

    def _shuffled(self) -> bool:
        return self.cut.plain if self.cut is not None else shuffled(open_media(self.path), self.stream.index)

    def _decoded(self, container: Any, stream: Any, *others: Any) -> Steps:
        demuxer = container.demux(stream, *others)
        while True:
            try:
                packet = next(demuxer, None)
            except IndexError:  # PyAV's, at the end of a file, for a stream that appeared after opening
                packet = None
            except av.FFmpegError:
                self.broken = True
                packet = None
            if packet is not None and packet.size and self.cut is None:
                self.clock.mend(packet)
                self.reached = packet.pos or self.reached
            if packet is not None and packet.stream is not stream:
                self._note(packet)
                continue
            empty = packet is None or not packet.size
            try:
                frames = stream.codec_context.decode(packet)
            except av.FFmpegError:
                frames = []
                self.bad += not empty
            damaged = sum(frame.is_corrupt for frame in frames)
            self.bad += damaged
            self.good += len(frames) - damaged
            yield packet, frames
            if packet is None:
                return

    def _note(self, packet: Any) -> None:
        if packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self.other_end = max(self.other_end, end)
        if packet.size:
            self.constant = packet.stream.codec_context is not None and packet.stream.codec_context.name in SAME_SIZE
            self.first_size = self.first_size or packet.size
            self.last_size = packet.size

    def check_limit(self, length: Fraction) -> None:
        check_length(self.path, length)

    def check_still(self, length: Fraction) -> None:
        """Raises MediaError (limit) if one picture is displayed for `length` seconds and this is too long."""
        self.check_limit(length)
        if length > MAX_STILL_S:
            text = (
                f"{shown(self.path)} shows one picture for {float(length):.0f} s, at most {MAX_STILL_S} s are accepted"
            )
            raise MediaError("limit", f"{text}; cut the still part off")

    def check_complete(self) -> None:
        """Raises MediaError (truncated) if data are missing: the stream has less than declared, and nothing shows that the
        header is wrong. Else notes in `facts` where the header is wrong, and what was repaired."""
        name, kind = shown(self.path), self.stream.type
        text = self._fault()
        if text:
            do = "copy, download or convert it again"
            raise MediaError("truncated", f"{name} is incomplete or damaged: {text}; {do}")
        if self.left_out > (1 - MIN_SHARE) * (self.good + self.bad):
            text = f"the time stamps of {self.left_out} of its {self.good + self.bad} pictures go back"
            raise MediaError("unreadable", f"{name} has no usable clock: {text}; convert it again")
        declared, length = self._lengths()
        if self.clock.repair is not None and self.clock.moved:
            self.facts.append(Fact("clock_repaired", self.clock.repair.text))
        elif declared and length > 0 and not MIN_SHARE <= declared / length <= 1 / MIN_SHARE:
            text = f"its header declares {float(declared):.2f} s of {kind}, the file has {float(length):.2f} s"
            self.facts.append(Fact("header_differs", text))
        if self._strangers():
            text = f"what follows after {float(self.end - self.start):.2f} s belongs to other streams, and was left out"
            self.facts.append(Fact("header_differs", text))
        if self.sorted:
            self.facts.append(
                Fact("clock_repaired", "the time stamps of its pictures were not in order, and were sorted")
            )
        if self.left_out:
            text = f"{self.left_out} of its pictures are left out, because their time stamps go back"
            self.facts.append(Fact("clock_repaired", text))

    def _lengths(self) -> tuple[Fraction | None, Fraction]:
        """(declared length or None, decoded length) in seconds."""
        declared = declared_s(self.container, self.stream, self.track, self.start)
        total = container_s(self.container)
        if total is not None and (declared is None or self._shared(declared, total)):
            # Only the whole file's length is known: where there is sound, either stream may begin late or end first.
            return total, max(self.end, self.other_end)
        return declared, self.end - self.start

    def _shared(self, declared: Fraction, total: Fraction) -> bool:
        """Whether ffmpeg has the length of the stream from that of the file."""
        return self.container.format.name in SHARED and not tagged_s(self.stream) and abs(declared - total) <= ROUNDED_S

    def _fault(self) -> str:
        """What is missing or damaged, "" if nothing is."""
        kind = self.stream.type
        declared, length = self._lengths()
        if not self.good:
            return f"nothing of its {kind} can be decoded"
        if self.bad > (1 - MIN_SHARE) * (self.good + self.bad):
            return f"{self.bad} of {self.good + self.bad} {kind} packets are damaged"
        if declared is not None and length < MIN_SHARE * declared and not self._whole():
            return f"its header declares {float(declared):.2f} s of {kind}, decoding gave {float(length):.2f} s"
        if declared is None and self.broken:
            return f"its {kind} breaks off after {float(length):.2f} s"
        if kind == "video" and self.container.format.name == "mpeg":
            text = program_stream_fault(self.path)
            if not text and self.constant and self.last_size + 4 < self.first_size:
                text = f"it ends in the middle of a sound frame after {float(length):.2f} s"
            return text
        return ""

    def _strangers(self) -> bool:
        """Whether a transport stream goes on with streams that were not there at its beginning."""
        if self.container.format.name != "mpegts" or self.reached >= MIN_SHARE * os.path.getsize(self.path):  # type: ignore[arg-type]
            return False
        return ts_strangers(self.path, self.reached, frozenset(s.id for s in self.container.streams))

    def _whole(self) -> bool:
        """Whether the file is complete, so that a header that declares more is wrong."""
        if self.broken:
            return False
        complete = whole(self.path, self.container, self.stream)
        return complete if complete is not None else self.clock.moved


def declared_s(
    container: av.container.InputContainer, stream: Any, track: Track | None = None, start: Fraction | None = None
) -> Fraction | None:
    """Length in seconds that the header declares for this stream; None if it declares none. `track`: what the index of
    an mp4 or mov file says of it; `start`: where it begins, if the header may be wrong on that, too."""
    if container.format.name in UNDECLARED:
        return None
    if track is not None and track.delay_s and track.shown_s:  # ffmpeg may count the delay, when nothing is shown
        return _credible(track.shown_s)
    if container.format.name == "avi":  # ffmpeg shortens the duration of a truncated file, but not the count
        return _credible(stream.frames * stream.time_base) if stream.frames else None
    end = tagged_s(stream)
    if end is not None:
        return _credible(end - ((stream.start_time or 0) * stream.time_base if start is None else start))
    return _credible(stream.duration * stream.time_base) if stream.duration else None


def _credible(length: Fraction) -> Fraction | None:
    """A length in seconds as a header has it; None if no clip can have it."""
    return length if 0 < length <= MAX_DECLARED_S else None


def tagged_s(stream: Any) -> Fraction | None:
    """Last time stamp of a stream by its tags, which most writers of Matroska set; None without. A tag is text that anyone
    may write, so only `TAG`, a credible one, counts."""
    for key, text in stream.metadata.items():
        found = TAG.fullmatch(text) if key.upper().split("-")[0] == "DURATION" else None
        if found is not None:
            hours, minutes, seconds = found.groups()
            return _credible(Fraction(seconds) + 60 * int(minutes) + 3600 * int(hours))
    return None


def container_s(container: av.container.InputContainer) -> Fraction | None:
    """Length in seconds that the container declares for all streams together, counted from their earliest start."""
    if container.format.name in UNDECLARED or not container.duration:
        return None
    return _credible(Fraction(container.duration, av.time_base))


def program_stream_fault(path: Any) -> str:
    """Damage in the packets of an MPEG program stream, "" if none.

    Program streams declare no length, but each packet does (ISO 11172-1, 2.4.3): the file must consist of packets from
    start to end.
    """
    lost = at = 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = len(data)
        while at < size:
            code = data[at + 3] if at + 6 <= size and data[at : at + 3] == b"\0\0\1" else 0
            if code < 0xB9:  # not at a packet: search for the next pack
                following = data.find(b"\0\0\1\xba", at + 1)
                following = size if following < 0 else following
                lost += following - at
                at = following
            elif code == 0xB9:  # end of program
                at += 4
            elif code == 0xBA:  # pack header; MPEG-2 has two more bytes and the number of stuffing bytes
                two = data[at + 4] >> 6 == 0b01 and at + 13 < size
                at += 14 + (data[at + 13] & 7) if two else 12
            else:
                at += 6 + int.from_bytes(data[at + 4 : at + 6], "big")
    if lost > (1 - MIN_SHARE) * size:
        return f"{lost} of its {size} bytes are in no packet"
    return "it ends in the middle of a packet" if at > size else ""
