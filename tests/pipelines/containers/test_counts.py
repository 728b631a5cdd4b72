"""An index that claims what no clip has is refused before ffmpeg takes memory for it; ordinary ones are not."""

import io
import struct
import zlib

import pytest
from made import boxes as made
from test_clock import END, TIMES, written
from test_media import make

from pipelines.containers import counts
from pipelines.media.files import MediaError
from pipelines.media.probe import probe

MILLIONS = 50_000_000
PART = struct.pack(">IiI", 2000, 0, 1 << 16)
DEEP = made.CONTAINERS | {b"minf", b"stbl", b"moof", b"traf"}


def one_size(name, content):
    return content[:4] + struct.pack(">II", 1, MILLIONS) if name == b"stsz" else content


def many_sizes(name, content):
    return content[:4] + struct.pack(">II", 0, MILLIONS) if name == b"stsz" else content


def chunks(name, content):  # of uncompressed sound, more than its samples
    if name == b"hdlr":
        return content[:8] + b"soun" + content[12:]
    if name == b"stts":
        return content[:4] + struct.pack(">III", 1, 50, 1)
    if name == b"stsc":
        return content[:4] + struct.pack(">IIII", 1, 1, 1 << 31, 1)
    return content[:4] + struct.pack(">I", 100) + bytes(400) if name == b"stco" else content


def parts(name, content):
    return content[:4] + struct.pack(">I", 200_000) + 200_000 * PART if name == b"elst" else content


def times(name, content):
    return content[:4] + struct.pack(">I", MILLIONS) if name == b"stts" else content


def packed(name, content):
    if name != b"moov":
        return content
    content = made.rewritten(content, one_size)
    whole = made.box(b"moov", content)
    packing = made.box(b"cmvd", struct.pack(">I", len(whole)) + zlib.compress(whole))
    return made.box(b"cmov", made.box(b"dcom", b"zlib") + packing)


def fragment(name, content):
    return bytes(4) + struct.pack(">I", MILLIONS) if name == b"trun" else content


@pytest.fixture
def deep(monkeypatch):
    monkeypatch.setattr(made, "CONTAINERS", DEEP)


@pytest.mark.parametrize("lie", [one_size, many_sizes, chunks, parts, times, packed, fragment])
def test_an_index_that_claims_too_much_is_refused(tmp_path, deep, lie):
    muxer = {"movflags": "frag_keyframe+empty_moov"} if lie is fragment else {}
    data = make(tmp_path / "good.mp4", TIMES, END, muxer=muxer).read_bytes()
    assert counts.excess(io.BytesIO(data), len(data)) == ""
    path = written(tmp_path / "lie.mp4", made.rewritten(data, lie))
    with pytest.raises(MediaError, match=r"lie\.mp4 claims .* in .* bytes, which no clip has") as caught:
        probe(path)
    assert caught.value.reason == "limit"


@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts"])
def test_other_containers_have_no_such_index(tmp_path, suffix):
    options = {"video": "mpeg4", "audio": "libmp3lame", "rate": 44_100} if suffix == "avi" else {}
    data = make(tmp_path / f"good.{suffix}", TIMES, END, **options).read_bytes()
    assert counts.excess(io.BytesIO(data), len(data)) == ""


def test_six_hours_of_uncompressed_sound_and_of_short_fragments_are_accepted():
    count = counts._Count(io.BytesIO(), 1 << 30, counts.MOST_BOXES)
    count.track.sound = count.track.single = True
    count.track.samples = count.track.chunks = 48_000
    count.track.samples *= 6 * 3600
    count.add(count._entries(io.BytesIO()))
    moof = made.box(b"moof", made.box(b"traf", made.box(b"tfhd", bytes(8)) + made.box(b"trun", bytes(7) + b"\x05")))
    data = 50_000 * moof
    assert counts.excess(io.BytesIO(data), len(data)) == ""
