"""Long videos: cost and memory follow the file's content, not its time stamps; long clips are passed on as files, with
the same bits."""

import subprocess
import sys
import time
from copy import copy
from dataclasses import replace
from fractions import Fraction as F
from pathlib import Path

import numpy as np
import pytest

import store
from benchmarks.speed import memory
from pipelines.corpora import manifest
from pipelines.labels import projection
from pipelines.media import probe
from pipelines.media.picture import Video
from pipelines.media.sound import decode_sound
from pipelines.reasons import INFRASTRUCTURE
from pipelines.workers import pack, plan, stages
from pipelines.workers.pack import stage
from pipelines.workers.plan import Slot
from pipelines.workers.work import Receipt, Spooled, Work
from store import layout, similarity, staging
from store.place import place
from teachers import ClipMedia
from teachers.face import tracker as face
from teachers.voice import PART, VoiceActivity

BATCH = "000000000000-000000000-1"
ROOT = Path(__file__).parents[3]
GOOD = "bbaf2n.mp4"
ROWS = layout.SHARD + 300  # frames of a long clip


class Counting:
    """The tracker's backend, counting what it is given."""

    def __init__(self, own):
        self.own, self.name, self.reads, self.counts = own, own.name, 0, 0

    def count(self, frame):
        self.counts += 1
        return self.own.count(frame)

    def landmarker(self, num_faces):
        loop, outer = self.own.landmarker(num_faces), self

        class Loop:
            def __enter__(self):
                loop.__enter__()
                return self

            def __exit__(self, *error):
                return loop.__exit__(*error)

            def read(self, frame, timestamp_ms):
                outer.reads += 1
                return loop.read(frame, timestamp_ms)

        return Loop()


@pytest.fixture
def tracker(watcher):
    made = copy(watcher.tracker)
    made._backend = Counting(made._backend)
    return made


@pytest.fixture(scope="module")
def film(clips):
    return list(Video(clips / "clips" / GOOD))


@pytest.mark.parametrize("copied", [False, True], ids=["same array", "equal pictures"])
def test_a_picture_that_stays_is_read_a_few_times_however_long(tracker, film, copied):
    for stays in (200, 1000):
        tracker._backend.reads = tracker._backend.counts = 0
        shown = [p for p in film[:60:15] for _ in range(stays)]
        found = tracker.track([p.copy() for p in shown] if copied and stays == 200 else shown, whole_faces=True)
        assert tracker._backend.reads == 4 * face.READ
        assert tracker._backend.counts == 4
        assert found.detected.all()
        assert len(found.mouth) == 4 * stays
        still = slice(stays + face.READ, 2 * stays - 12)  # crops look 12 frames ahead
        for array in (found.mouth, found.lips, found.blendshapes, found.face):
            assert (array[still] == array[still.start]).all()
        assert (found.mouth[0] != found.mouth[-1]).any()


def test_pictures_that_stay_for_less_are_read_at_each_frame(tracker, film):
    slow = [p for p in film[:8] for _ in range(face.READ)]
    tracker.track(slow)
    assert tracker._backend.reads == len(slow)


def test_crops_that_need_a_second_pass_are_the_same_where_pictures_stay(tracker, film, monkeypatch):
    shown = [p for p in film[:3] for _ in range(40)]
    kept = tracker.track(shown, whole_faces=True)
    monkeypatch.setattr(face, "KEEP_BYTES", 0)
    again = tracker.track(shown, whole_faces=True)
    np.testing.assert_array_equal(kept.mouth, again.mouth)
    np.testing.assert_array_equal(kept.face, again.face)


MEASURE = """
import resource, sys
from pipelines.workers.watch import Watcher
watcher = Watcher()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clip = watcher.watch(sys.argv[1]).clip
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(clip.num_frames, (after - before) * 1024)
"""


@pytest.mark.slow
def test_four_pictures_over_ten_minutes_cost_little_more_than_their_rows(tmp_path, clips):
    file = memory.pictures(clips / "clips" / GOOD, tmp_path / "four.mp4", seconds=600)
    assert file.stat().st_size < 100_000
    begun = time.monotonic()
    run = [sys.executable, "-c", MEASURE, str(file)]
    frames, took = map(int, subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())
    assert frames >= 15_000
    assert took < 1.8 * frames * sum(memory.HOLDS.values()) + 50e6
    assert time.monotonic() - begun < 90  # 4 s of one core; it was two minutes


def test_long_sound_gives_the_same_speech_in_parts(clips):
    voice = VoiceActivity()
    frames = PART * 512 // 640 * 2 + 77
    once = decode_sound(clips / "clips" / GOOD, 0.0, 75).samples
    samples = np.tile(once, frames // 75 + 1)[: 640 * frames]
    whole = voice.probabilities(samples)
    given = []
    session = voice._session

    class Session:
        def run(self, names, inputs):
            given.append(len(inputs["input"]))
            return session.run(names, inputs)

    voice._session = Session()
    from teachers import voice as module

    kept, module.PART = module.PART, 10**9
    try:
        at_once = voice.probabilities(samples)
    finally:
        module.PART = kept
    np.testing.assert_array_equal(whole, at_once)
    voice.probabilities(samples)
    assert len(given) == 4
    assert max(given[1:]) == PART


@pytest.mark.parametrize("level", [False, True])
def test_projections_of_long_clips_are_those_of_the_whole(level):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(700, 80)).astype(np.float32)
    y = draw.normal(size=(700, 20)).astype(np.float32)
    flags = draw.choice([0, 1, 2, 8, 9], 700).astype(np.uint8)
    fit = similarity.fit_cca(similarity.Moments.of(similarity.with_context(x, 4), y), 4, dims=8)
    to_vsr, to_asr = projection.maps(replace(fit, level=level))
    kept, projection.PIECE = projection.PIECE, 150
    try:
        pieces = to_vsr(x, flags), to_asr(y, flags)
    finally:
        projection.PIECE = kept
    for whole, part in zip((to_vsr(x, flags), to_asr(y, flags)), pieces, strict=True):
        np.testing.assert_allclose(whole, part, rtol=0, atol=1e-5)


def clip_of(frames):
    draw = np.random.default_rng(frames)
    return ClipMedia(
        "long",
        draw.integers(-99, 99, 640 * frames).astype(np.int16),
        np.broadcast_to(draw.integers(0, 255, (frames, 1, 96)), (frames, 96, 96)).astype(np.uint8),
        draw.normal(size=(frames, 40, 2)).astype(np.float32),
        draw.random((frames, 52)).astype(np.float32),
        np.full(frames, layout.IN_USE, np.uint8),
    )


@pytest.fixture(params=["disk", pytest.param("bucket", marks=pytest.mark.slow)])
def root(request, tmp_path):
    if request.param == "disk":
        return place(tmp_path / "s.zarr")
    return place(f"{request.getfixturevalue('s3')}/s.zarr")


def test_a_long_clip_goes_on_as_a_file_and_is_packed_a_shard_at_a_time(root):
    store.create(root, {"asr": 3, "vsr": 2}, {"similarity": {}, "corpora": []})
    clip = clip_of(ROWS)
    slot = Slot(0, 0, plan.place([(0, ROWS)], 0)[0].capacity, ROWS)
    row = manifest.Row("long.mp4", id="long", label=0)
    work = Work(BATCH, [slot], [row], [Receipt(0, "long", "long.mp4", length=ROWS)])
    spooled = Spooled.of(clip, root, BATCH)
    assert spooled.num_frames == ROWS
    opened = spooled.open()
    for name in ("audio", "mouth", "lips", "blendshapes", "flags"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(clip, name))
        assert getattr(opened, name).dtype == getattr(clip, name).dtype
    work.clips = [spooled]
    draw = np.random.default_rng(1)
    work.asr, work.vsr = [draw.random((ROWS, 3)).astype(np.float16)], [draw.random((ROWS, 2)).astype(np.float16)]
    stage(work, root)
    assert staging.staged(root) == {BATCH}  # the file of the face stage is gone
    (group,) = plan.groups([slot])
    assert (group.first, group.last) == (0, 1)
    writer = store.Writer.open(root)
    writer.append_clips(
        {
            "id": ["long"], "path": ["long.mp4"], "corpus": ["c"], "split": [""], "method": [""], "category": [""],
            "group": [""], "identities": ["[]"], "label": [0], "audio_fake": [0], "video_fake": [0], "offset": [0],
            "capacity": [slot.capacity], "duration": [ROWS / 25],
        }
    )  # fmt: skip
    writer.grow_rows(plan.num_rows([slot]))
    assert pack.pack(root, group, [BATCH]) == 1
    writer.write_clips(0, {"length": np.array([ROWS]), "done": np.array([1], np.uint8)})
    got = store.open(root).frames(0, 0, ROWS, ["mouth", "audio", "lips", "asr", "vsr", "flags"])
    np.testing.assert_array_equal(got["mouth"], clip.mouth)
    np.testing.assert_array_equal(got["audio"].reshape(-1), clip.audio)
    np.testing.assert_array_equal(got["lips"], clip.lips.astype(np.float16))
    np.testing.assert_array_equal(got["asr"], work.asr[0])
    np.testing.assert_array_equal(got["vsr"], work.vsr[0])


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_long_clips_file_that_is_torn_is_found_out(tmp_path, damage):
    root = place(tmp_path)
    spooled = Spooled.of(clip_of(50), root, BATCH)
    file = tmp_path / "_staging" / f"{spooled.name}.npz"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data if damage == "flip" else data[:-300])
    with pytest.raises(store.StoreError, match="torn"):
        spooled.open()
    assert not file.exists()


class Never:
    name, dim = "never", 2

    def embed(self, clips):
        return [np.zeros((clip.num_frames, 2), np.float32) for clip in clips]


def test_a_long_clips_file_that_is_gone_is_the_machines_fault(tmp_path):
    spooled = Spooled.of(clip_of(50), place(tmp_path), BATCH)
    staging.discard(tmp_path, [spooled.name])
    stage = stages.TeacherStage.__new__(stages.TeacherStage)
    stage.side, stage.teacher = "vsr", Never()
    rows = [manifest.Row(name, id=name) for name in ("long", "short")]
    work = Work(BATCH, [Slot(0, 0, 50, 50)] * 2, rows, [Receipt(i, r.id, r.path) for i, r in enumerate(rows)])
    work.clips = [spooled, clip_of(50)]
    done = stage(work)
    assert [r.reason for r in done.receipts] == ["io", ""]
    assert done.receipts[0].reason in INFRASTRUCTURE
    assert done.vsr[1].shape == (50, 2)


def test_looped_videos_are_what_they_say(tmp_path, clips):
    file = memory.looped(clips / "clips" / GOOD, tmp_path / "x.mkv", 9)
    video = Video(file)
    pictures = [p[::8, ::8].copy() for p in video]
    assert len(pictures) == 225
    np.testing.assert_array_equal(pictures[:75], pictures[75:150])
    assert probe.probe(file).duration_s == pytest.approx(9, abs=0.1)
    assert float(F(video.num_frames, 25)) == 9
