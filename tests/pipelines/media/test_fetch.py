"""Media in a bucket: decoded like local files, from copies that go away; limits of size and of streams."""

import os
import pickle
import re
import subprocess
import sys
import tempfile
from fractions import Fraction as F
from pathlib import Path

import av
import numpy as np
import pytest
from test_media import POINTERS, even, make

from pipelines.media import files, local, probe
from pipelines.media.files import MediaError
from pipelines.media.local import MARK, local_copy
from pipelines.media.picture import Video
from pipelines.media.sound import decode_sound
from store.place import bucket as buckets
from store.place import place


def put(s3, file):
    """A file in the bucket; its URL."""
    url = f"{s3}/{Path(file).name}"
    place(url).write(Path(file).read_bytes())
    return url


@pytest.fixture(autouse=True)
def own_tmp(tmp_path_factory, monkeypatch):
    """A temporary directory of its own, where copies go."""
    folder = tmp_path_factory.mktemp("copies")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def copies(own_tmp):
    return [file.name for file in own_tmp.rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("suffix", "codecs"),
    [
        ("mp4", ("libx264", "aac")),
        ("mkv", ("libx264", "aac")),
        ("webm", ("libvpx", "libopus")),
        ("avi", ("mpeg4", "mp3")),
        ("mpg", ("mpeg1video", "mp2")),
    ],
)
def test_clips_in_a_bucket_are_read_like_local_ones(tmp_path, s3, own_tmp, suffix, codecs):
    times, end = even(F(25))
    file = make(tmp_path / f"clip.{suffix}", times, end, video=codecs[0], audio=codecs[1])
    url = put(s3, file)
    assert probe.probe(url) == probe.probe(file)
    assert probe.probe(url, url) == probe.probe(file, file)
    here, there = Video(file), Video(url)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (here.num_frames, here.start_s) == (there.num_frames, there.start_s)
    a, b = (decode_sound(path, here.start_s, here.num_frames) for path in (file, url))
    np.testing.assert_array_equal(a.samples, b.samples)
    assert a.start_skew_s == b.start_skew_s
    assert copies(own_tmp) == []


def test_probing_reads_headers_and_not_the_rest(tmp_path, s3, clips, monkeypatch):
    data = (clips / "clips" / "bbaf2n.mp4").read_bytes()
    url = f"{s3}/large.mp4"
    room = 40 << 20
    place(url).write(data + (room + 8).to_bytes(4, "big") + b"free" + bytes(room))
    read = []
    monkeypatch.setattr(buckets._Object, "read", lambda *a, own=buckets._Object.read: read.append(a[2]) or own(*a))
    assert probe.probe(url).num_frames == 75
    assert sum(read) < 4 << 20


def test_one_copy_serves_pictures_and_sound_and_is_removed(clips, s3, own_tmp, monkeypatch):
    monkeypatch.setattr(local, "PIECE", 100_000)
    url = put(s3, clips / "clips" / "bbaf2n.mp4")
    with local_copy(url) as path:
        assert copies(own_tmp) == [Path(path).name]
        assert Path(path).suffix == ".mp4"
        assert Path(path).read_bytes() == (clips / "clips" / "bbaf2n.mp4").read_bytes()
        video = Video(path)
        assert sum(1 for _ in video) == 75
        decode_sound(path, video.start_s, 75)
        with local_copy(path) as again:  # is local already
            assert again is path
    assert copies(own_tmp) == []
    with pytest.raises(ZeroDivisionError), local_copy(url):
        raise ZeroDivisionError
    assert copies(own_tmp) == []
    with local_copy("/nowhere/x.mp4") as path:
        assert path == "/nowhere/x.mp4"


def test_copies_of_dead_workers_are_removed_and_those_of_living_ones_kept(clips, s3, own_tmp):
    url = put(s3, clips / "clips" / "bbaf2n.mp4")
    with local_copy(url) as mine:
        left = Path(mine).with_name(f"{MARK}{'0' * 32}.mp4")  # as a worker that was killed leaves it: not locked
        left.write_bytes(b"x")
        with local_copy(url) as other:
            assert sorted(copies(own_tmp)) == sorted(Path(p).name for p in (mine, other))


def test_a_download_that_was_killed_at_any_moment_is_removed(clips, s3, own_tmp):
    url = put(s3, clips / "clips" / "bbaf2n.mp4")
    code = (
        "import os, sys, tempfile\n"
        "from pipelines.media import local\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "local.{where} = lambda *a: os._exit(9)\n"
        "with local.local_copy(sys.argv[2]): os._exit(9)\n"
    )
    for where in ("fcntl.flock", "os.fdopen", "Copy"):
        run = [sys.executable, "-c", code.format(where=where), str(own_tmp), url]
        assert subprocess.run(run, cwd=Path(__file__).parents[3]).returncode == 9
        assert len(copies(own_tmp)) == 1
        with local_copy(url) as mine:
            assert copies(own_tmp) == [Path(mine).name]


def test_what_others_put_into_the_folder_of_copies_is_not_touched(clips, s3, own_tmp):
    url = put(s3, clips / "clips" / "bbaf2n.mp4")
    folder = own_tmp / f"concord-av-media-{os.getuid()}"
    folder.mkdir(mode=0o700)
    kept = own_tmp / "thesis.mp4"
    kept.write_bytes(b"mine")
    ours = f"{MARK}{'1' * 32}"
    for name in (
        "holiday.mp4",
        ".hidden",
        "0" * 32 + ".mp4",
        "concord-av-notes.txt",
        ours + "x.mp4",
        ours + ".mp4.txt",
    ):
        (folder / name).write_bytes(b"mine")
    (folder / f"{ours}.mp4").symlink_to(kept)
    (folder / f"{ours}.mkv").mkdir()
    os.mkfifo(folder / f"{ours}.avi")
    before = sorted(os.listdir(folder))
    with local_copy(url):
        pass
    assert sorted(os.listdir(folder)) == before
    assert kept.read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["link", "dangling", "file", "open", "other"])
def test_the_folder_of_copies_must_be_ones_own(clips, s3, own_tmp, monkeypatch, kind):
    url = put(s3, clips / "clips" / "bbaf2n.mp4")
    folder, target = own_tmp / f"concord-av-media-{os.getuid()}", own_tmp / "target"
    if kind != "dangling":
        target.mkdir(mode=0o700)
        (target / f"{MARK}{'0' * 32}.mp4").write_bytes(b"x")
    match kind:
        case "link" | "dangling":
            folder.symlink_to(target)
        case "file":
            folder.write_bytes(b"x")
        case "open":
            folder.mkdir()
            folder.chmod(0o777)
        case "other":
            folder.mkdir(mode=0o700)
            other = os.getuid() + 1
            folder.rename(own_tmp / f"concord-av-media-{other}")
            monkeypatch.setattr(os, "getuid", lambda: other)
    before = copies(own_tmp)
    with pytest.raises(MediaError, match="set TMPDIR to a folder of your own") as caught, local_copy(url):
        pass
    assert caught.value.reason == "io"
    assert copies(own_tmp) == before


@pytest.mark.parametrize("name", ["clip", "clip.", "clip.a b", "clip." + "x" * 200])
def test_odd_suffixes_make_no_odd_files(clips, s3, own_tmp, name):
    url = f"{s3}/{name}"
    place(url).write((clips / "clips" / "bbaf2n.mp4").read_bytes())
    with local_copy(url) as path:
        assert re.fullmatch(r"concord-av-[0-9a-f]{32}", Path(path).name)


@pytest.mark.parametrize("name", ["junk.mp4", "empty.mp4", "missing.mp4", "cut.mp4"])
def test_what_is_wrong_with_a_clip_is_said_of_its_url(clips, s3, own_tmp, name):
    data = {
        "junk.mp4": b"x" * 5000,
        "empty.mp4": b"",
        "cut.mp4": (clips / "clips" / "bbaf2n.mp4").read_bytes()[:50_000],
    }
    url = f"{s3}/{name}"
    if name in data:
        place(url).write(data[name])
    uses = (lambda u: list(Video(u)), lambda u: decode_sound(u, 0.0, 75), probe.probe)
    for use in uses[: 2 if name == "cut.mp4" else 3]:  # its header is whole
        with pytest.raises(MediaError, match=f"^{url} ") as caught:
            use(url)
        assert caught.value.reason in ("unreadable", "truncated")
        assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason
    assert copies(own_tmp) == []


def test_a_bucket_that_cannot_be_reached_is_the_networks_fault(s3, monkeypatch):
    monkeypatch.setattr(buckets, "RETRY", {**buckets.RETRY, "max_retries": 1})
    where = place(f"{s3}/x.mp4", {"aws_endpoint_url": "http://127.0.0.1:9"})
    for use in (probe.probe, lambda u: list(Video(u))):
        with pytest.raises(MediaError, match="cannot be reached") as caught:
            use(where)
        assert caught.value.reason == "io"


@pytest.mark.parametrize("suffix", sorted(POINTERS))
def test_playlists_in_a_bucket_read_nothing_else(clips, s3, suffix, monkeypatch):
    good = put(s3, clips / "clips" / "bbaf2n.mp4")
    asked = []
    ask = buckets.Bucket.ask
    monkeypatch.setattr(buckets.Bucket, "ask", lambda self, request: asked.append(str(self)) or ask(self, request))
    for target in (good, str(clips / "clips" / "bbaf2n.mp4"), "bbaf2n.mp4"):
        url = f"{s3}/pointer.{suffix}"
        place(url).write(POINTERS[suffix].format(target).encode())
        for use in (probe.probe, lambda u: list(Video(u))):
            with pytest.raises(MediaError) as caught:
                use(url)
            assert caught.value.reason == "unreadable"
    assert set(asked) == {f"{s3}/pointer.{suffix}"}


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_file_may_be_only_so_large(clips, s3, own_tmp, monkeypatch):
    file = clips / "clips" / "bbaf2n.mp4"
    url = put(s3, file)
    monkeypatch.setattr(files, "MAX_BYTES", file.stat().st_size)
    probe.probe(file)
    probe.probe(url)
    monkeypatch.setattr(files, "MAX_BYTES", file.stat().st_size - 1)
    for path in (file, url):
        for use in (probe.probe, lambda u: list(Video(u))):
            with pytest.raises(MediaError, match=f"^{path} has .*B, at most") as caught:
                use(path)
            assert caught.value.reason == "limit"
    assert copies(own_tmp) == []


def with_streams(path, count):
    """A clip with `count` streams of sound beside its picture."""
    codec = {".mkv": "pcm_s16le", ".avi": "pcm_s16le", ".mp4": "aac", ".ts": "mp2"}[path.suffix]
    with av.open(str(path), "w") as out:
        picture = out.add_stream("mpeg4", rate=25)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        tracks = [out.add_stream(codec, rate=16_000, layout="mono") for _ in range(count)]
        for k in range(15):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * k, np.uint8), format="rgb24")
            frame.pts = k
            out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
        for track in tracks:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.int16), format="s16", layout="mono")
            frame.rate, frame.pts = 16_000, 0
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi", ".ts"])
def test_a_file_that_declares_many_streams_is_refused(tmp_path, suffix):
    most = with_streams(tmp_path / f"most{suffix}", files.MAX_STREAMS - 1)
    assert probe.probe(most).num_frames == 15
    for count in (files.MAX_STREAMS, 90 if suffix == ".avi" else 400):
        many = with_streams(tmp_path / f"many{count}{suffix}", count)
        with pytest.raises(MediaError, match=f"declares more than {files.MAX_STREAMS} streams") as caught:
            probe.probe(many)
        assert caught.value.reason == "limit"
