"""Reads the header of a media file: length, size, sound.

A declared length is a hint, and a slot of rows follows it. So it is compared with what costs little to know: the index of
the samples, the last tag, or the packets at the end of the file. Where they differ, they count.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipelines.containers.boxes import Track, fragments_s, opened, tracks
from pipelines.containers.clock import BROKEN, Clock
from pipelines.containers.ending import flv_end_s
from pipelines.media.files import Media, check_length, choose_stream, decodable, open_media, reached, round_half_up
from pipelines.media.tally import container_s, declared_s
from store.layout import FPS
from store.place import is_url

AGREE = 0.02  # share by which a declared length may differ from the evidence,
AGREE_S = 0.2  # and seconds
SPARSE_FROM_S = 5  # length from which a file is looked at more closely if it has little for it:
SPARSE_S = Fraction(1, 5)  # in mp4, seconds a sample;
SPARSE_BYTES = 64 << 10  # in Matroska, bytes a second
TAIL = 5_000  # packets that are read at the end of a file; more are between two key frames of hour-long stills


@dataclass(frozen=True)
class Probe:
    """The values in the header, as far as the file bears them out; decoding may give more or less.

    `num_frames` counts frames of 1/25 s in `duration_s`; `width` and `height` are those of the coded picture in pixels
    (before rotation and before non-square pixels are made square).
    """

    num_frames: int
    duration_s: float
    width: int
    height: int
    has_audio: bool


def probe(path: Media, audio_path: Media | None = None) -> Probe:
    """Read the header of a clip, and whether `audio_path` (default: the same file) has sound.

    If the header declares no length (MPEG streams, live WebM), all packets are read, but none is decoded.
    Raises MediaError: unreadable, no_video, limit, io.
    """
    with reached(path), open_media(path) as container:
        stream = choose_stream(container, "video", path)
        length = _length_s(path, container, stream)
        has_audio = any(decodable(s) for s in container.streams.audio)
        width, height = stream.width, stream.height
    if audio_path is not None:
        has_audio = has_sound(audio_path)
    check_length(path, length)
    return Probe(round_half_up(length * FPS), float(length), width, height, has_audio)


def picture_size(path: Media) -> tuple[int, int]:
    """Width and height of the coded picture in pixels; only the header is read. Raises MediaError as `probe`."""
    with reached(path), open_media(path) as container:
        stream = choose_stream(container, "video", path)
        return stream.width, stream.height


def has_sound(path: Media) -> bool:
    """Whether a file has decodable sound; only its header is read. Raises MediaError: unreadable, limit, io."""
    with reached(path), open_media(path) as container:
        return any(decodable(s) for s in container.streams.audio)


def _length_s(path: Media, container: Any, stream: Any) -> Fraction:
    """Seconds that the stream is likely to last."""
    track = tracks(path).get(stream.id) if "mp4" in container.format.name else None
    declared = declared_s(container, stream, track)
    unlisted = container.format.name == "avi" and len(stream.index_entries) <= 1
    if declared is None or unlisted:
        return _packets_s(path, container, stream)
    total = container_s(container)
    sparse = _sparse(path, declared, container, track)
    evident = _packets_s(path, container, stream) if sparse else _evident_s(path, container, stream, track)
    if evident is None:
        return min(declared, total) if total else declared
    return declared if abs(declared - evident) <= max(AGREE_S, AGREE * evident) else evident


def _sparse(path: Media, declared: Fraction, container: Any, track: Track | None) -> bool:
    """Whether so little is in the file for its length that its clock may jump. Then its packets are few, too, and read."""
    if is_url(path) or declared < SPARSE_FROM_S:
        return False
    if track is not None:
        return 0 < track.samples * SPARSE_S < declared
    return "matroska" in container.format.name and container.size < declared * SPARSE_BYTES


def _evident_s(path: Media, container: Any, stream: Any, track: Track | None) -> Fraction | None:
    """Seconds that the file's index or its end tells; None if they do not."""
    name, entries = container.format.name, stream.index_entries
    if track is not None:
        later = fragments_s(path, stream.id) if track.fragmented else None
        return track.length + later if later is not None else track.shown_s
    if name == "avi":
        return (entries[-1].timestamp + 1 - entries[0].timestamp) * stream.time_base
    if name == "flv":
        with opened(path) as (file, size):
            end = flv_end_s(file, size)
        return None if end is None else Fraction(end).limit_denominator(1000)
    if "matroska" in name or name == "asf":
        return _tail_s(container, stream)
    return None


def _tail_s(container: Any, stream: Any) -> Fraction | None:
    """Seconds from the stream's first packet to the end of its last, by a jump to the end of the file."""
    try:
        first = next((p.pts for p in container.demux(stream) if p.pts is not None), None)
        container.seek(1 << 50, stream=stream)
        last = first
        for count, packet in enumerate(container.demux(stream)):
            if packet.pts is not None:
                last = max(last or 0, packet.pts + (packet.duration or 0))
            if count > TAIL:
                return None
    except BROKEN:
        return None
    return None if last is None or first is None else (last - first) * stream.time_base


def _packets_s(path: Media, container: Any, stream: Any) -> Fraction:
    """Seconds from the first packet to the end of the last. Reads the whole file, for headers that declare no length."""
    first, last = None, 0
    clock = Clock(lambda: open_media(path))
    try:
        for packet in container.demux(stream):
            if packet.size:
                clock.mend(packet)
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                end = time + (packet.duration or 0)
                first, last = (time, end) if first is None else (min(first, time), max(last, end))
    except BROKEN:  # what was read counts
        pass
    return (last - (first or 0)) * stream.time_base
