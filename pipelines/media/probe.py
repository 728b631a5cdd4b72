"""Reads the header of a media file: declared length, size, sound."""

from dataclasses import dataclass

from pipelines.media.files import Media, check_length, choose_stream, decodable, open_media, reached, round_half_up
from pipelines.media.tally import declared_s, packets_s
from store.layout import FPS


@dataclass(frozen=True)
class Probe:
    """The values in the header; decoding may give more or less.

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
        length = declared_s(container, stream)
        if length is None:
            length = packets_s(container, stream)
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
