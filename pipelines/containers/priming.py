"""The delay of sound codecs: samples of silence that encoder and decoder together put in front.

Containers with an edit list or a field for it say so, and ffmpeg takes it off. AVI does not, nor do bare streams (.aac,
.ac3), transport streams and FLV; beside a picture in the same file, the time stamps of such sound allow for it, in a
file of its own nothing does.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

# MP3: LAME's 576 and the decoder's 529; layer II: its filter bank; AC-3: half a window; AAC: a frame.
CODEC_DELAY = {"mp3": 1105, "mp3float": 1105, "mp2": 481, "mp2float": 481, "ac3": 256, "eac3": 256, "aac": 1024}
_LAYER_2 = 0b10  # in the second byte of an MPEG audio frame (ISO 11172-3, 2.4.2.3)


def usual_s(stream: Any, codec: str = "") -> Fraction:
    """Delay in seconds that is usual for the codec of a stream, 0 where there is none."""
    context = stream.codec_context
    return Fraction(CODEC_DELAY.get(codec or context.name, 0), context.sample_rate)


def undeclared_s(container: Any, index: int) -> Fraction:
    """Usual delay of stream `index` of an open file if the file does not declare its own; else 0. Closes the file."""
    with container:
        stream = container.streams[index]
        packet = next((p for p in container.demux(stream) if p.size), None)
        if packet is None or packet.has_sidedata("skip_samples"):
            return Fraction(0)
        name, head = stream.codec_context.name, bytes(packet)[:2]
        if name.startswith("mp3") and len(head) == 2 and head[0] == 0xFF and head[1] >> 1 & 0b11 == _LAYER_2:
            name = "mp2"  # ffmpeg decodes both with one decoder
        return usual_s(stream, name)
