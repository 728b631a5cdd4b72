"""What a run needs of the disk and of time, and that a disk which cannot hold it is found out before anything is written."""

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from command_runs import refused

import store
from pipelines.errors import UsageError
from pipelines.job import report, run, space
from pipelines.job.request import Config
from pipelines.job.usage import Summary
from pipelines.labels import words
from store import layout


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MB."""
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_free_space_is_that_of_the_disk_that_the_store_will_lie_on(disk):
    assert space.free(disk / "not" / "yet" / "s.zarr") == 8 << 20
    (disk / "full").write_bytes(bytes(6 << 20))
    assert space.free(disk / "s.zarr") == 2 << 20


def test_a_bucket_has_no_end():
    assert space.free("s3://bucket/s.zarr") is None
    assert space.check("s3://bucket/s.zarr", 10**9, 500) == ""


def test_a_disk_that_is_too_small_is_refused_in_one_sentence(disk):
    with pytest.raises(UsageError, match=r"8.4 MB are free on its disk and 75000 frames need about .*--limit"):
        space.check(disk / "s.zarr", 75_000, 458)


def test_a_disk_that_may_be_too_small_is_warned_of(disk):
    frames = int((8 << 20) / 1.1 / space.needed(1, 458))
    assert "watch the disk" in space.check(disk / "s.zarr", frames, 458)
    assert space.check(disk / "s.zarr", frames // 2, 458) == ""


def test_need_grows_with_frames_and_columns():
    many = 1_000_000
    assert space.needed(2 * many, 458) - space.needed(many, 458) == pytest.approx(many * 6_870, rel=0.01)
    assert space.needed(many, 2048) > space.needed(many, 458)
    # a short run has all its batches staged before the first shard is packed
    assert space.needed(100, 458) > 100 * (6_000 + 10_800)


def test_whole_faces_are_counted_stored_and_staged():
    many = 1_000_000
    assert set(space.OPTIONAL_BYTES) == set(layout.OPTIONAL_ARRAYS)
    assert space.stays(many, 458, ["face"]) - space.stays(many, 458) == many * 6_500
    assert space.needed(100, 458, ["face"]) - space.needed(100, 458) == 100 * (6_500 + 112 * 112)


def test_nothing_is_left_of_a_run_that_cannot_fit(disk, clips, monkeypatch):
    """The command, but for Ray: the headers are read from this process."""
    monkeypatch.setattr(run._Job, "_spread", lambda self, function, jobs: [function(*job) for job in jobs])
    (disk / "full").write_bytes(bytes(6 << 20))
    said = refused("--corpus", f"grid:{clips}", "--store", disk / "s.zarr")
    assert "add fewer clips (--limit)" in said.splitlines()[-1]
    assert os.listdir(disk) == ["full"]


def test_columns_are_those_of_both_embeddings(tmp_path):
    attrs = {"teachers": {"asr": {"dim": 4}, "vsr": {"dim": 3}}, "similarity": {}, "corpora": []}
    store.create(tmp_path / "s.zarr", {"asr": 4, "vsr": 3}, attrs)
    assert space.dims(store.Writer.open(tmp_path / "s.zarr").frame_arrays) == 7


def dry(tmp_path, **what):
    return report.text(Summary(**what), Config(tmp_path / "s.zarr", dry_run=True)).splitlines()


def test_a_dry_run_tells_clips_hours_disk_time_and_whether_it_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    first, second = dry(tmp_path, clips=10, video_seconds=3600, cpus=2, dims=458)
    assert first.startswith("10 clips to add, 1.000 h of video: about 618.3 MB of store")
    assert first.endswith(f"made in {space.minutes(90_000, 2):.0f} minutes on the 2 CPUs of this machine")
    assert second == "815.1 MB of disk space are needed during the run, 1.0 GB are free: enough"
    assert dry(tmp_path, clips=10, video_seconds=36_000, cpus=2, dims=458)[1].endswith("too little")
    assert dry(tmp_path, clips=10, video_seconds=4_500, cpus=2, dims=458)[1].endswith("may be too little")


def test_a_dry_run_says_what_words_cost(tmp_path):
    summary = Summary(clips=9, video_seconds=3600, cpus=2, dims=458)
    told = report.text(summary, Config(tmp_path / "s.zarr", words=True, dry_run=True))
    assert "--words adds about 7 minutes on one CPU core with Whisper tiny.en, shared by the workers" in told
    assert words.minutes(75) == "about 1 minute on one CPU core with Whisper tiny.en"


def test_time_expected_shrinks_with_the_clusters_cpus():
    frames = 100 * 3600 * layout.FPS
    assert space.minutes(frames, 64) < space.minutes(frames, 2) / 30
    assert space.cpus(None) == len(os.sched_getaffinity(0))


def test_a_dry_run_names_clips_that_cannot_be_opened(tmp_path):
    from pipelines.tables.ledger import Entry

    bad = Entry("c/a.mp4", "/c/a\x1b[2J.mp4", "probe", "unreadable", "/c/a.mp4 is\nno media file")
    first, *_, count, last = dry(tmp_path, clips=3, failed=[bad], cpus=2, dims=458)
    assert first.startswith("2 clips to add")
    assert count == "1 cannot be opened:"
    assert last == "  /c/a\\x1b[2J.mp4: /c/a.mp4 is\\nno media file"
