"""Opens media files safely: accepted containers, limits, and the choice of the stream to decode.

Files are opened as plain local files and only with the containers in `CONTAINERS`, none of which opens a second file
(QuickTime's data references, which could, are turned off). So a crafted playlist, concat script or session description
cannot read other files, whatever its suffix. Files in buckets are read by this project's own client, in parts; ffmpeg
never uses the network. PyAV keeps ffmpeg's messages off stderr unless they are turned on; nothing here changes that.
"""

import codecs
import errno
import functools
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any

import av

from concord.errors import ConcordError
from concord.text import byte_size, plain
from pipelines.containers import counts
from pipelines.containers.boxes import AHEAD
from pipelines.reasons import REASONS
from store.layout import StoreError
from store.place import Opened, Place, is_url, place

MAX_SIDE = 8_192  # pixels; more is a broken header or an attack on memory
MAX_PIXELS = MAX_SIDE * 4_352  # of a picture: 8K film; a decoder may keep 17 of them, at 1.5 bytes a pixel
MIN_RATE = 1_000  # samples per second; slower sound contains no speech, and one packet of it could last for hours
MAX_S = 6 * 3_600  # longest clip
# Longest time that one picture may last: each 1/25 s of a clip takes a row, and a small file could demand hours of rows.
MAX_STILL_S = 600
MAX_BYTES = 16 << 30  # of a file: six hours at 6 Mbit/s
MAX_STREAMS = 64  # in a file; real videos have fewer, and each takes memory before anything is read
REMOTE_FRAGMENTS = 2  # of an mp4 or mov in a bucket whose claims are checked; its local copy is checked whole
# ffmpeg's names of the accepted containers; playlists (hls, dash, concat, sdp) and picture series are not accepted.
CONTAINERS = tuple(
    "mov matroska avi mpeg mpegts mpegvideo m4v flv asf ogg mxf nut "
    "wav w64 aiff caf au flac mp3 aac ac3 eac3 amr".split()
)
# Containers that do not list their streams, or not with all that a decoder needs: packets tell. ffmpeg looks at 5 MB and 5 s.
UNLISTED = frozenset(("mpeg", "mpegts", "flv", "asf"))
LONG_LOOK = {"probesize": str(64 << 20), "analyzeduration": f"{MAX_S}000000"}  # bytes, which are kept; microseconds
# Places of loudspeakers in ffmpeg's order (libavutil/channel_layout.c, n8.0).
CHANNELS = tuple(
    "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR DL DR WL WR SDL SDR LFE2 TSL TSR BFC BFL BFR "
    "SSL SSR TTL TTR".split()
)
Media = str | os.PathLike[str] | Place


class MediaError(ConcordError):
    """A clip that cannot be used. `reason` is one of `pipelines.reasons.REASONS`: unreadable, no_video, no_audio, truncated,
    too_short, limit or io. `str(error)` is a sentence for the user."""

    def __init__(self, reason: str, message: str) -> None:
        assert reason in REASONS, reason
        super().__init__(reason, message)  # both as args, so that the error pickles
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


def open_media(path: Media, **options: str) -> av.container.InputContainer:
    """Open a media file for a `with` statement; within `reached` if it is in a bucket. `options` are the demuxer's.

    A stream that begins late in the file is found by a second, longer look. Raises MediaError (unreadable, limit).
    """
    container = _open(path, options)
    if container.format.name in UNLISTED and not (_usable(container, "video") and _usable(container, "audio")):
        container.close()
        return _open(path, options | LONG_LOOK)
    return container


def _usable(container: av.container.InputContainer, kind: str) -> bool:
    return any(decodable(s) and not is_picture(s) for s in getattr(container.streams, kind))


def _open(path: Media, demuxer: Mapping[str, str]) -> av.container.InputContainer:
    file: Any
    name = ""
    if is_url(path):
        opened = place(path).open()
        size, file = opened.size, opened.file()
    else:
        name = os.path.abspath(os.fspath(path))  # type: ignore[arg-type]
        try:
            status = os.stat(name)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            why = getattr(error, "strerror", None) or str(error)
            raise MediaError("unreadable", f"{shown(path)} cannot be opened ({why}); check the path") from error
        if not stat.S_ISREG(status.st_mode):  # a pipe or device could block, or be read, forever
            raise MediaError("unreadable", f"{shown(path)} is not a regular file; give the path of a video file")
        # With the prefix, colons and dashes in names are not read as protocols or options.
        size, file = status.st_size, "file:" + name
    check_size(path, size)
    text = _claims(name, size, status.st_mtime_ns) if isinstance(file, str) else _remote_claims(opened)
    if text:
        raise MediaError("limit", f"{shown(path)} {text}, which no clip has; convert it again or leave it out")
    options = {
        **demuxer,
        "protocol_whitelist": "file" if isinstance(file, str) else "none",
        "format_whitelist": ",".join(CONTAINERS),
        "enable_drefs": "0",
        "merge_pmt_versions": "1",  # in joined transport streams the numbers of picture and sound may change
        "max_streams": str(MAX_STREAMS + 1),
    }
    try:
        container = av.open(file, mode="r", container_options=options, metadata_errors="replace")
    except MemoryError as error:  # some demuxers raise it for too many streams
        raise _too_many(path) from error
    except (av.FFmpegError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        if name and _is_text(name):
            text = f"{shown(path)} is not a video: it holds text; check that it is the right file (playlists are not followed)"
            raise MediaError("unreadable", text) from error
        if getattr(error, "errno", None) == errno.EINVAL:  # ffmpeg's error for a container that is not listed
            why = "this kind of file is not accepted; playlists and scripts are not followed"
        text = f"{shown(path)} cannot be read as mp4, mov, mkv, webm, avi, mpg or similar ({why})"
        raise MediaError("unreadable", f"{text}; check the file or leave it out") from error
    if len(container.streams) > MAX_STREAMS:
        container.close()
        raise _too_many(path)
    for stream in container.streams.audio:
        if stream.codec_context is not None:
            _own_layout(stream.codec_context)
    return container


@functools.lru_cache(maxsize=16)  # a clip is opened several times
def _claims(name: str, size: int, changed_ns: int) -> str:
    """What is too much in the index of a local file, "" if nothing."""
    try:
        with open(name, "rb") as file:
            return counts.excess(file, size)
    except OSError:
        return ""  # ffmpeg says what is wrong


def _remote_claims(opened: Opened) -> str:
    """The same of a file in a bucket, of which only the header is read: decoding takes a local copy."""
    with opened.file(AHEAD) as file:
        return counts.excess(file, opened.size, REMOTE_FRAGMENTS)


def _own_layout(context: Any) -> None:
    """Give a sound decoder a channel layout that owns no memory.

    ffmpeg keeps an unusual order of channels (7.1 sound in MOV and CAF) as a list in memory. PyAV 17.1 to 18.1 copies
    the pointer to it into every layout that it makes (`av/audio/layout.py`), each of which frees it: the process
    aborts. Here the layout that the header gave is freed once, and the decoder gets the usual one for its number of
    channels, or none where the order differs.
    """
    layout = context.layout  # has the list's only other pointer
    name, channels = layout.name, [channel.name for channel in layout.channels]
    rank = {channel: k for k, channel in enumerate(CHANNELS)}
    ranks = [rank.get(channel, -1) for channel in channels]
    if "(" in name and (-1 in ranks or ranks != sorted(set(ranks))):  # not in ffmpeg's order
        usual = av.AudioLayout(f"{len(channels)}c")
        alike = [channel.name.replace("S", "B") for channel in usual.channels]
        same = alike == [channel.replace("S", "B") for channel in channels]
        name = usual.name if same else f"{len(channels)} channels"
    if channels:
        context.layout = name


def _is_text(name: str) -> bool:
    """Whether a file on this machine begins like text, such as a web page."""
    try:
        with open(name, "rb") as file:
            begins = file.read(4096)
    except OSError:
        return False
    with suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8")().decode(begins)  # the last letter may be cut
        return all(letter.isprintable() or letter.isspace() for letter in text)
    return False


@contextmanager
def reached(path: Media) -> Iterator[None]:
    """Turns a failure to read from a bucket into a MediaError: unreadable if there is no such object or URL, else
    io."""
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
    """Raises MediaError by the size of a file in bytes: unreadable if it is empty, limit if it is too large."""
    if size == 0:
        raise MediaError("unreadable", f"{shown(path)} is empty (0 bytes); copy or download it again")
    if size > MAX_BYTES:
        text = f"{shown(path)} has {byte_size(size)}, at most {byte_size(MAX_BYTES)} are accepted; cut it into parts"
        raise MediaError("limit", text)


def _too_many(path: Media) -> MediaError:
    text = f"{shown(path)} declares more than {MAX_STREAMS} streams, or needs more memory than there is"
    return MediaError("limit", f"{text}; keep one video and one audio stream")


def choose_stream(container: av.container.InputContainer, kind: str, path: Media, index: int | None = None) -> Any:
    """The stream to decode, of `kind` "video" or "audio": the one at `index` of the file; with None the default one, else
    the first. Cover art does not count as video.

    Raises MediaError: no_video, no_audio, unreadable (no decoder), limit (picture size).
    """
    streams = [s for s in getattr(container.streams, kind) if not is_picture(s) and index in (None, s.index)]
    if not streams:
        what, do = ("picture", "leave it out") if kind == "video" else ("sound", "give its sound as audio_path")
        raise MediaError(f"no_{kind}", f"{shown(path)} has no {kind} stream, so there is no {what} to process; {do}")
    usable = [s for s in streams if decodable(s)]
    if not usable and streams[0].codec_context is None:
        text = f"{shown(path)} has {kind} in a format for which there is no decoder; convert it to H.264 and AAC"
        raise MediaError("unreadable", text)
    if not usable:
        text = f"{shown(path)} is incomplete or damaged: the size or rate of its {kind} is missing"
        raise MediaError("truncated", f"{text}; copy, download or convert it again")
    stream = next((s for s in usable if s.disposition & av.stream.Disposition.default), usable[0])
    if kind == "video" and max(stream.width, stream.height) > MAX_SIDE:
        size = f"{stream.width}x{stream.height}"
        raise MediaError(
            "limit", f"{shown(path)} is {size} pixels, at most {MAX_SIDE} per side are accepted; scale it down"
        )
    if kind == "video" and stream.width * stream.height > MAX_PIXELS:
        text = f"{shown(path)} has pictures of {stream.width}x{stream.height} pixels, more than 8K film"
        raise MediaError("limit", f"{text}; scale it down")
    if kind == "audio" and stream.codec_context.sample_rate < MIN_RATE:
        text = f"{shown(path)} has sound of {stream.codec_context.sample_rate} samples per second, too few for speech"
        raise MediaError("limit", f"{text}; convert it again")
    if kind == "video":
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # later pictures may be larger than the first
    # One thread per decoder: there are many workers, and the order of work is then the same in every run.
    stream.codec_context.thread_count = 1
    return stream


def check_length(path: Media, length: Fraction | float) -> None:
    """Raises MediaError (limit) if `length` seconds are more than a clip may last."""
    if length > MAX_S:
        text = f"{shown(path)} lasts {float(length):.0f} s, at most {MAX_S} s are accepted; cut it into parts"
        raise MediaError("limit", text)


def decodable(stream: Any) -> bool:
    """Whether there is a decoder, and the header has the required fields."""
    context = stream.codec_context
    if context is None:
        return False
    return bool(stream.width and stream.height) if stream.type == "video" else bool(context.sample_rate)


def round_half_up(x: Fraction) -> int:
    """Nearest whole number, halves upwards."""
    return (2 * x.numerator + x.denominator) // (2 * x.denominator)


def shown(path: Media) -> str:
    """A path or URL for messages (for a local copy, its source); unprintable characters are escaped."""
    text = getattr(path, "url", None) or (str(path) if isinstance(path, Place) else os.fspath(path))
    return plain(text)


def is_picture(stream: Any) -> bool:
    flags = av.stream.Disposition
    return bool(stream.disposition & (flags.attached_pic | flags.timed_thumbnails | flags.still_image))
