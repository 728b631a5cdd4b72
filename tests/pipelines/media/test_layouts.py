"""Sound with an unusual order of channels is read: PyAV would free its layout twice, and the process would abort.

Each file is read in another process, which lives only if the layout is freed once.
"""

import struct
import subprocess
import sys

import numpy as np
import pytest
from sounds import Track, voice_of, write

from pipelines.media.files import open_media
from pipelines.media.sound import decode_sound

READ = """
import gc, sys
from pipelines.media.sound import decode_sound
for path in sys.argv[1:]:
    for _ in range(3):
        samples = decode_sound(path, None, 75).samples
        gc.collect()
    print(int(abs(samples.astype(int)).max()))
"""
# kAudioChannelLayoutTag_* of CoreAudio with 8 channels, and the layouts that a list of places or a bitmap describes.
TAGS = [*range(126, 135), *range(108, 113), *range(147, 153), *range(183, 188)]
TAGS = [tag << 16 | 8 for tag in TAGS] + [0, 1 << 16, 0xFFFF0008]


def peaks(*paths):
    """Largest sample of each file, by a process that survives."""
    env = {"MALLOC_PERTURB_": "165", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", READ, *map(str, paths)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


@pytest.fixture(scope="module")
def centre(clips):
    """A voice in the third of eight channels, f4 [8, samples]."""
    voice = voice_of(clips / "clips" / "bbaf2n.mp4")
    sound = np.zeros((8, len(voice)), np.float32)
    sound[2] = voice
    return sound


@pytest.fixture(scope="module")
def source(clips):
    return clips / "clips" / "bbaf2n.mp4"


def test_channels_of_any_order_in_mov_are_read(centre, source, tmp_path):
    data = write(tmp_path / "clip.mov", source, Track(centre)).read_bytes()
    at = data.index(b"chan") + 8
    paths = []
    for tag in TAGS:
        paths.append(tmp_path / f"{tag:x}.mov")
        paths[-1].write_bytes(data[:at] + struct.pack(">II", tag, 0x63F) + data[at + 8 :])
    assert min(peaks(*paths)) > 1000


OTHERS = [("a.caf", "pcm_s16le", "7.1"), ("b.caf", "alac", "7.1(wide)"), ("c.mov", "alac", "7.1(wide)")]


@pytest.mark.parametrize(("name", "codec", "layout"), OTHERS)
def test_7_1_in_caf_and_alac_is_read(name, codec, layout, centre, source, tmp_path):
    path = write(tmp_path / name, None if name.endswith("caf") else source, Track(centre, codec, layout))
    assert min(peaks(path)) > 1000


def test_the_shared_case_is_read(shared):
    assert min(peaks(shared / "cases" / "crash_7_1_pcm.mov")) > 1000


@pytest.mark.parametrize(("channels", "layout"), [(1, "mono"), (2, "stereo"), (6, "5.1"), (6, "5.1(side)"), (8, "7.1")])
def test_usual_layouts_stay(channels, layout, centre, source, tmp_path):
    path = write(tmp_path / "clip.mkv", source, Track(centre[2:3].repeat(channels, 0), "flac", layout))
    with open_media(path) as container:
        assert container.streams.audio[0].codec_context.layout.name == layout
    assert abs(decode_sound(path, 0.0, 75).samples.astype(int)).max() > 1000
