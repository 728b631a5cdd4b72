"""What a media file says of itself: opening it safely, choosing its streams, and the lengths its header declares.

Files are opened as plain local files, by the containers in `CONTAINERS` alone, none of which opens a second file (the
one that could, QuickTime's data references, is told not to). So a crafted playlist, concat script or session
description reads nothing else, whatever its name ends in. What lies in a bucket is read by our own client, in parts; ffmpeg
never has a network. PyAV keeps ffmpeg's messages off stderr unless somebody turns them on; nothing here changes that.
"""

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from store.formats.text import plain
from store.layout import StoreError
from store.place import Place, is_url, place

FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
assert SAMPLES_PER_FRAME * FPS == SAMPLE_RATE

MAX_SIDE = 8_192  # pixels; more is a broken header or an attack on memory
MAX_PIXELS = MAX_SIDE * 4_352  # of a picture: 8K film; a decoder may keep 17 of them, at 1.5 bytes a pixel
MIN_RATE = 1_000  # samples a second; sound of fewer is none, and one packet of it could last for hours
MAX_S = 6 * 3_600  # longest clip
MAX_STILL_S = (
    600  # that one picture may stay: a clip has rows for each moment, and a small file could ask for hours of them
)
MAX_BYTES = 16 << 30  # of a file: six hours at 6 Mbit/s
MAX_STREAMS = 64  # in a file; more is no film, and each costs memory before anything is read
MIN_SHARE = Fraction(9, 10)  # of the declared length, and of the packets, that must decode
# ffmpeg's names of the containers we read; playlists (hls, dash, concat, sdp) and picture series are not among them.
CONTAINERS = tuple(
    "mov matroska avi mpeg mpegts mpegvideo m4v flv asf ogg mxf nut "
    "wav w64 aiff caf au flac mp3 aac ac3 eac3 amr".split()
)
# Containers without a length in their header: what ffmpeg reports is a guess from bit rate or last time stamp.
UNDECLARED = frozenset("mpeg mpegts mpegvideo m4v mp3 aac ac3 eac3 amr".split())
# Sound codecs whose frames all have the same size, but for a byte or two of padding.
SAME_SIZE = frozenset("mp2 mp2float ac3".split())

# What demuxing raises for damage; IndexError is PyAV's for a stream that comes up only after the file was opened.
BROKEN = (av.FFmpegError, IndexError)

Media = str | os.PathLike[str] | Place


class MediaError(Exception):
    """A clip that cannot be used. `reason` is one word for the ledger, `str(error)` a sentence for a person.

    Reasons: unreadable (cannot be opened, or no media file), no_video, no_audio, truncated (declared or damaged data
    is missing), too_short, limit (larger or longer than this program accepts), io (its bucket cannot be reached now).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both as args, so that the error pickles
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


@dataclass(frozen=True)
class Probe:
    """What the header promises; decoding may give more or less.

    `num_frames` counts frames of 1/25 s, `duration_s` is what they were counted from; `width` and `height` are those
    of the coded picture in pixels (before rotation and before non-square pixels are made square).
    """

    num_frames: int
    duration_s: float
    width: int
    height: int
    has_audio: bool


def probe(path: Media, audio_path: Media | None = None) -> Probe:
    """Read the header of a clip, and look whether `audio_path` (default: the same file) has sound.

    Where the header declares no length (MPEG streams, live WebM), packets are read, but nothing is decoded.
    Raises MediaError: unreadable, no_video, limit, io.
    """
    with reached(path), open_media(path) as container:
        stream = choose_stream(container, "video", path)
        length = declared_s(container, stream)
        if length is None:
            length = _packets_s(container, stream)
        has_audio = any(decodable(s) for s in container.streams.audio)
        width, height = stream.width, stream.height
    if audio_path is not None:
        with reached(audio_path), open_media(audio_path) as container:
            has_audio = any(decodable(s) for s in container.streams.audio)
    check_length(path, length)
    return Probe(round_half_up(length * FPS), float(length), width, height, has_audio)


def open_media(path: Media) -> av.container.InputContainer:
    """Open a media file, to be used in a `with` statement; within `reached` where it lies in a bucket.

    Raises MediaError (unreadable, limit).
    """
    file: Any
    if is_url(path):
        opened = place(path).open()
        size, file = opened.size, opened.file()
    else:
        name = os.path.abspath(os.fspath(path))  # type: ignore[arg-type]
        try:
            status = os.stat(name)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            why = getattr(error, "strerror", None) or str(error)
            raise MediaError("unreadable", f"{shown(path)} cannot be opened ({why}); check the path") from error
        if not stat.S_ISREG(status.st_mode):  # a pipe or device would be waited on, or read, for ever
            raise MediaError("unreadable", f"{shown(path)} is not a regular file; give the path of a video file")
        # The prefix keeps colons and dashes in names from being read as protocols or options.
        size, file = status.st_size, "file:" + name
    check_size(path, size)
    options = {
        "protocol_whitelist": "file" if isinstance(file, str) else "none",
        "format_whitelist": ",".join(CONTAINERS),
        "enable_drefs": "0",
        "max_streams": str(MAX_STREAMS + 1),
    }
    try:
        container = av.open(file, mode="r", container_options=options, metadata_errors="replace")
    except MemoryError as error:  # how some demuxers answer for one stream too many
        raise _too_many(path) from error
    except (av.FFmpegError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) == errno.EINVAL:  # how ffmpeg answers for a container that is not listed
            why = "of a kind that is not accepted; playlists and scripts are not followed"
        text = f"{shown(path)} cannot be read as mp4, mov, mkv, webm, avi, mpg or similar ({why})"
        raise MediaError("unreadable", f"{text}; check the file or leave it out") from error
    if len(container.streams) > MAX_STREAMS:
        container.close()
        raise _too_many(path)
    return container


@contextmanager
def reached(path: Media) -> Iterator[None]:
    """Turns what a bucket cannot give into a MediaError: unreadable where nothing is there, or the URL is none, else io."""
    try:
        if is_url(path):
            place(path)
    except StoreError as error:
        raise MediaError("unreadable", str(error)) from error
    try:
        yield
    except FileNotFoundError as error:
        raise MediaError("unreadable", f"{shown(path)} cannot be opened ({error.strerror}); check the path") from error
    except StoreError as error:
        raise MediaError("io", str(error)) from error


def check_size(path: Media, size: int) -> None:
    """Raises MediaError for a file of so many bytes: unreadable where it is empty, limit where it is too large."""
    if size == 0:
        raise MediaError("unreadable", f"{shown(path)} is empty (0 bytes); copy or download it again")
    if size > MAX_BYTES:
        text = f"{shown(path)} has {size / 1e9:.1f} GB, at most {MAX_BYTES / 1e9:.1f} are accepted; cut it into parts"
        raise MediaError("limit", text)


def _too_many(path: Media) -> MediaError:
    text = f"{shown(path)} declares more than {MAX_STREAMS} streams, or needs more memory than there is"
    return MediaError("limit", f"{text}; keep one picture and one sound")


def choose_stream(container: av.container.InputContainer, kind: str, path: Media) -> Any:
    """The stream to decode: the default one, else the first, of `kind` "video" or "audio"; cover art is no video.

    Raises MediaError: no_video, no_audio, unreadable (no decoder), limit (picture size).
    """
    streams = [s for s in getattr(container.streams, kind) if not _is_picture(s)]
    if not streams:
        what, do = ("picture", "leave it out") if kind == "video" else ("sound", "give its sound as audio_path")
        raise MediaError(f"no_{kind}", f"{shown(path)} has no {kind} stream, so no {what} to work on; {do}")
    usable = [s for s in streams if decodable(s)]
    if not usable and streams[0].codec_context is None:
        text = f"{shown(path)} holds {kind} of a kind for which there is no decoder; convert it to H.264 and AAC"
        raise MediaError("unreadable", text)
    if not usable:
        text = f"{shown(path)} is incomplete or damaged: its {kind} does not tell size or rate"
        raise MediaError("truncated", f"{text}; copy, download or convert it again")
    stream = next((s for s in usable if s.disposition & av.stream.Disposition.default), usable[0])
    if kind == "video" and max(stream.width, stream.height) > MAX_SIDE:
        size = f"{stream.width}x{stream.height}"
        raise MediaError("limit", f"{shown(path)} is {size} pixels, at most {MAX_SIDE} a side are accepted; scale it")
    if kind == "video" and stream.width * stream.height > MAX_PIXELS:
        text = f"{shown(path)} has pictures of {stream.width}x{stream.height} pixels, more than 8K film"
        raise MediaError("limit", f"{text}; scale it")
    if kind == "audio" and stream.codec_context.sample_rate < MIN_RATE:
        text = f"{shown(path)} has sound of {stream.codec_context.sample_rate} samples a second, which is no sound"
        raise MediaError("limit", f"{text}; convert it again")
    if kind == "video":
        stream.codec_context.options = {
            "max_pixels": str(MAX_PIXELS)
        }  # pictures further on may be larger than the first
    # One thread a decoder: workers are many, and the order of work is then the same in every run.
    stream.codec_context.thread_count = 1
    return stream


class Tally:
    """What came out of a stream while it was decoded, to be compared with what the header declares."""

    def __init__(self, path: Media, container: Any, stream: Any) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.good = self.bad = 0  # decoded frames; packets that failed and frames that are damaged
        self.start = self.end = Fraction(0)
        self.other_end = Fraction(0)  # of the clip's other stream
        self.constant = False  # that stream's packets should all be of one size, and these are the first and last
        self.first_size = self.last_size = 0
        self.broken = False  # the container ended in an error

    def packets(self, *others: Any) -> Iterator[tuple[Any, list[Any]]]:
        """(packet, frames) of the stream; None as packet at the end. Notes where packets of `others` end."""
        demuxer = self.container.demux(self.stream, *others)
        while True:
            try:
                packet = next(demuxer, None)
            except BROKEN:
                self.broken = True
                packet = None
            if packet is not None and packet.stream is not self.stream:
                self._note(packet)
                continue
            empty = packet is None or not packet.size
            try:
                frames = self.stream.codec_context.decode(packet)
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
        """Raises MediaError (limit) where one picture stays on display for `length` seconds, and that is too long."""
        self.check_limit(length)
        if length > MAX_STILL_S:
            text = (
                f"{shown(self.path)} shows one picture for {float(length):.0f} s, at most {MAX_STILL_S} s are accepted"
            )
            raise MediaError("limit", f"{text}; cut the still part off")

    def check_complete(self) -> None:
        """Raises MediaError (truncated) where the stream did not give what was promised."""
        name, kind = shown(self.path), self.stream.type
        text, do = "", "copy, download or convert it again"
        length = self.end - self.start
        declared = declared_s(self.container, self.stream)
        whole = container_s(self.container)
        if declared is None and whole is not None:
            # Only the whole file's length is known, and either stream may end first in a sound file.
            declared, length = whole, max(self.end, self.other_end)
        if not self.good:
            text = f"nothing of its {kind} can be decoded"
        elif self.bad > (1 - MIN_SHARE) * (self.good + self.bad):
            text = f"{self.bad} of {self.good + self.bad} {kind} packets are damaged"
        elif declared is not None and length < MIN_SHARE * declared:
            text = f"its header declares {float(declared):.2f} s of {kind}, decoding gave {float(length):.2f} s"
        elif declared is None and self.broken:
            text = f"its {kind} breaks off after {float(length):.2f} s"
        elif kind == "video" and self.container.format.name == "mpeg":
            text = program_stream_fault(self.path)
            if not text and self.constant and self.last_size + 4 < self.first_size:
                text = f"it ends in the middle of a sound frame after {float(length):.2f} s"
        if text:
            raise MediaError("truncated", f"{name} is incomplete or damaged: {text}; {do}")


def declared_s(container: av.container.InputContainer, stream: Any) -> Fraction | None:
    """Length in seconds that the header declares for this stream; None where it says nothing."""
    if container.format.name in UNDECLARED:
        return None
    if container.format.name == "avi":  # ffmpeg shortens the duration of a cut file, but not the count
        return stream.frames * stream.time_base if stream.frames else None
    if stream.duration and stream.duration > 0:
        return stream.duration * stream.time_base
    for key, text in stream.metadata.items():  # Matroska: the stream's last time stamp, by most writers
        if key.upper().split("-")[0] == "DURATION":
            try:
                hours, minutes, seconds = text.split(":")
                end = Fraction(seconds) + 60 * int(minutes) + 3600 * int(hours)
            except ValueError:
                continue
            return end - (stream.start_time or 0) * stream.time_base
    return None


def container_s(container: av.container.InputContainer) -> Fraction | None:
    """Length in seconds that the container declares for all streams together, counted from their earliest start."""
    if container.format.name in UNDECLARED or not container.duration:
        return None
    return Fraction(container.duration, av.time_base)


def check_length(path: Media, length: Fraction | float) -> None:
    """Raises MediaError (limit) where `length` seconds are more than a clip may last."""
    if length > MAX_S:
        text = f"{shown(path)} lasts {float(length):.0f} s, at most {MAX_S} s are accepted; cut it into parts"
        raise MediaError("limit", text)


def program_stream_fault(path: Any) -> str:
    """What is wrong with the packets of an MPEG program stream, "" if nothing.

    Program streams declare no length, but each packet does (ISO 11172-1, 2.4.3): the file must be a chain of packets
    from start to end.
    """
    lost = at = 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = len(data)
        while at < size:
            code = data[at + 3] if at + 6 <= size and data[at : at + 3] == b"\0\0\1" else 0
            if code < 0xB9:  # not at a packet: look for the next pack
                following = data.find(b"\0\0\1\xba", at + 1)
                following = size if following < 0 else following
                lost += following - at
                at = following
            elif code == 0xB9:  # end of program
                at += 4
            elif code == 0xBA:  # pack header; MPEG-2 has two bytes more and says how many of stuffing follow
                two = data[at + 4] >> 6 == 0b01 and at + 13 < size
                at += 14 + (data[at + 13] & 7) if two else 12
            else:
                at += 6 + int.from_bytes(data[at + 4 : at + 6], "big")
    if lost > (1 - MIN_SHARE) * size:
        return f"{lost} of its {size} bytes are in no packet"
    return "it ends in the middle of a packet" if at > size else ""


def decodable(stream: Any) -> bool:
    """Whether a decoder is there and the header told it what it needs."""
    context = stream.codec_context
    if context is None:
        return False
    return bool(stream.width and stream.height) if stream.type == "video" else bool(context.sample_rate)


def round_half_up(x: Fraction) -> int:
    """Nearest whole number, halves upwards."""
    return (2 * x.numerator + x.denominator) // (2 * x.denominator)


def shown(path: Media) -> str:
    """A path or URL for messages (of a local copy, where it is from); what cannot be printed is escaped."""
    text = getattr(path, "url", None) or (str(path) if isinstance(path, Place) else os.fspath(path))
    return plain(text)


def _is_picture(stream: Any) -> bool:
    flags = av.stream.Disposition
    return bool(stream.disposition & (flags.attached_pic | flags.timed_thumbnails | flags.still_image))


def _packets_s(container: av.container.InputContainer, stream: Any) -> Fraction:
    """Time from the first to the end of the last packet, the price of headers that are silent: reading the file."""
    first, last = None, Fraction(0)
    try:
        for packet in container.demux(stream):
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                first = time if first is None else min(first, time)
                last = max(last, (time + (packet.duration or 0)) * stream.time_base)
    except BROKEN:
        if first is None:
            return Fraction(0)
    return last - first * stream.time_base if first is not None else Fraction(0)
