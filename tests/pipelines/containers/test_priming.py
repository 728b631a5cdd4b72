"""Sound in a file of its own: the codec's delay is taken off whether the file declares it or not."""

from fractions import Fraction as F

import av
import numpy as np
import pytest
from test_media import click_errors, clicks

from pipelines.media.sound import decode_sound

FILES = {
    "a.aac": ("aac", 44_100),
    "b.aac": ("aac", 48_000),
    "a.mka": ("aac", 48_000),
    "b.mka": ("libmp3lame", 44_100),
    "c.mka": ("ac3", 48_000),
    "d.mka": ("pcm_s16le", 48_000),
    "a.ac3": ("ac3", 48_000),
    "a.mp2": ("mp2", 48_000),
    "a.mp3": ("libmp3lame", 44_100),
    "a.m4a": ("aac", 48_000),
    "a.ts": ("aac", 48_000),
    "b.ts": ("mp2", 48_000),
    "a.flv": ("aac", 44_100),
    "a.ogg": ("libopus", 48_000),
}


def write(path, codec, rate, **options):
    with av.open(str(path), "w", options=options) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        to_codec = av.AudioResampler(format=stream.codec_context.format.name, layout="mono", rate=rate)
        x = clicks([0.3, 0.7], 1.0, rate).astype(np.float32)
        block = stream.codec_context.frame_size or 1024
        packets = []
        for at in range(0, len(x), block):
            frame = av.AudioFrame.from_ndarray(x[None, at : at + block], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, F(1, rate), at
            packets += [p for part in to_codec.resample(frame) for p in stream.encode(part)]
        out.mux(packets + stream.encode(None))
    return path


@pytest.mark.parametrize("name", FILES)
def test_clicks_of_a_separate_file_are_where_they_were_put(tmp_path, name):
    heard = decode_sound(write(tmp_path / name, *FILES[name]), None, 25)
    assert np.abs(click_errors(heard.samples, [0.3, 0.7])).max() < 0.001


def test_matroska_of_older_writers_declares_no_delay(tmp_path):
    data = bytearray(write(tmp_path / "new.mka", "aac", 48_000).read_bytes())
    at = data.index(bytes.fromhex("56aa"))  # CodecDelay, made an element of no meaning
    data[at : at + 3] = b"\xec" + bytes([0x40, data[at + 2] & 0x7F]) if data[at + 2] & 0x80 else data[at : at + 3]
    path = tmp_path / "old.mka"
    path.write_bytes(data)
    with av.open(str(path)) as given:
        assert not next(given.demux()).has_sidedata("skip_samples")
    heard = decode_sound(path, None, 25)
    assert np.abs(click_errors(heard.samples, [0.3, 0.7])).max() < 0.001


def test_mp3_without_a_header_has_the_usual_delay(tmp_path):
    heard = decode_sound(
        write(tmp_path / "bare.mp3", "libmp3lame", 44_100, write_xing="0", id3v2_version="0"), None, 25
    )
    assert np.abs(click_errors(heard.samples, [0.3, 0.7])).max() < 0.001
