"""One way from a file to a watched clip: what it holds, what it refuses, and what the face stage makes of it."""

import wave
from pathlib import Path

import numpy as np
import pytest
from test_media import even, make

from pipelines.corpora.manifest import Row
from pipelines.media.files import MediaError
from pipelines.media.probe import has_sound
from pipelines.reasons import OVERFLOW
from pipelines.workers import pack
from pipelines.workers.plan import Slot
from pipelines.workers.stages import FaceStage
from pipelines.workers.watch import Watcher
from pipelines.workers.work import Receipt, Work
from store import StoreError, layout, staging
from store.place import place
from teachers.face.tracker import NoFaceError

CLIP = Path(__file__).parents[2] / "data" / "grid" / "clips" / "bbaf2n.mp4"


@pytest.fixture(scope="module")
def watcher():
    return Watcher()


@pytest.fixture(scope="module")
def seen(watcher):
    return watcher.watch(CLIP, clip_id="c/bbaf2n")


def staged(path, capacity, audio=""):
    """What the face stage makes of one clip with a slot of so many rows."""
    work = Work("b", [Slot(7, 0, capacity, 1)], [Row(str(path), audio, id="c/a")], [Receipt(7, "c/a", str(path))])
    return FaceStage()(work)


def test_a_clip_has_pictures_sound_and_flags_on_one_clock(seen):
    clip = seen.clip
    frames = clip.num_frames
    assert clip.id == "c/bbaf2n"
    assert clip.audio.shape == (frames * layout.SAMPLES_PER_FRAME,)
    assert {len(x) for x in (clip.mouth, clip.lips, clip.blendshapes, clip.flags)} == {frames}
    assert (clip.flags & layout.IN_USE).all()
    assert seen.quality == ((clip.flags & layout.FACE_DETECTED) > 0).mean() > 0.9
    assert 0 < ((clip.flags & layout.VOICE_ACTIVE) > 0).mean() < 1
    assert clip.face is None


def test_the_face_stage_gives_the_same_clip(seen):
    done = staged(CLIP, 75)
    for name in ("audio", "mouth", "lips", "blendshapes", "flags"):
        np.testing.assert_array_equal(getattr(done.clips[0], name), getattr(seen.clip, name))
    receipt = done.receipts[0]
    assert (receipt.ok, receipt.length, receipt.quality) == (True, seen.clip.num_frames, seen.quality)
    assert receipt.start_skew == seen.start_skew_s


def test_a_clip_longer_than_its_slot_fails_with_its_length(seen):
    done = staged(CLIP, 50)
    receipt = done.receipts[0]
    assert (receipt.stage, receipt.reason, receipt.length) == ("slot", OVERFLOW, seen.clip.num_frames)
    assert "at most 50 frames, 75 were decoded" in receipt.message
    assert done.clips == [None]


def test_sound_may_be_a_file_of_its_own(watcher, seen, tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(layout.SAMPLE_RATE)
        out.writeframes(seen.clip.audio.tobytes())
    apart = watcher.watch(CLIP, tmp_path / "a.wav")
    np.testing.assert_array_equal(apart.clip.audio, seen.clip.audio)
    assert apart.start_skew_s == 0


def test_a_file_without_sound_is_refused_before_its_face_is_followed(watcher, tmp_path, monkeypatch):
    path = tmp_path / "silent.mp4"
    make(path, *even(25), audio=None)
    assert not has_sound(path)
    monkeypatch.setattr(watcher, "tracker", None)
    with pytest.raises(MediaError, match=r"silent\.mp4 has no sound; name its sound as audio_path") as raised:
        watcher.watch(path)
    assert raised.value.reason == "no_audio"


def test_a_file_without_a_face_is_refused(watcher, tmp_path):
    path = tmp_path / "flashes.mp4"
    make(path, *even(25))
    with pytest.raises(NoFaceError):
        watcher.watch(path)
    assert staged(path, 75).receipts[0].reason == "no_face"


def test_receipts_of_another_version_count_as_not_staged(tmp_path):
    root, name = place(tmp_path), "000000000000-000000000-1"
    staging.stage(root, name, [{}], [{"clip": 0, "id": "a", "path": "/a", "colour": "red"}])
    assert pack.staged_receipts(root, name) is None
    with pytest.raises(StoreError, match="another version of this program"):
        pack.receipts(root, name)


def test_a_clip_that_moves_is_not_held_and_a_photograph_is(watcher, seen, shared):
    speaks = seen.clip.flags & layout.VOICE_ACTIVE > 0
    assert not (seen.clip.flags[speaks] & layout.HELD).any()
    assert not [fact for fact in seen.facts if fact.kind == "held_pictures"]
    photo = watcher.watch(shared / "cases" / "still_photo.mp4")
    assert (photo.clip.flags & layout.HELD).all()
    assert photo.quality == 1  # a face is seen all the same
    assert [fact.text for fact in photo.facts] == ["the picture stands still throughout"]
