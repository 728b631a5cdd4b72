"""One way from a file to a watched clip: what it holds, what it refuses, and what the face stage makes of it."""

import wave
from pathlib import Path

import numpy as np
import people
import pytest
from test_media import even, make

from pipelines.corpora.manifest import Row
from pipelines.media.files import MediaError
from pipelines.media.probe import has_sound
from pipelines.reasons import OVERFLOW
from pipelines.workers import pack
from pipelines.workers.plan import Slot
from pipelines.workers.stages import FaceStage
from pipelines.workers.watch import chosen
from pipelines.workers.work import Receipt, Work
from store import StoreError, layout, staging
from store.place import place
from teachers.face.tracker import NoFaceError

CLIP = Path(__file__).parents[2] / "data" / "grid" / "clips" / "bbaf2n.mp4"


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


SPEAKS, TALKS = CLIP, CLIP.with_name("lgas5a.mp4")  # the clip whose sound is heard, and another that moves its lips


@pytest.fixture(scope="module")
def speaks():
    return people.pictures(SPEAKS)


@pytest.fixture(scope="module")
def silent(speaks):
    """The same person, who listens: pictures from before the first word, back and forth."""
    quiet = speaks[:8]
    return [quiet[abs(k % 14 - 7)] for k in range(75)]


def facts(seen):
    return {fact.kind: fact.text for fact in seen.facts}


@pytest.mark.parametrize("side", ["left", pytest.param("right", marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [1.0, 0.7])
def test_of_a_speaker_and_a_listener_the_speaker_is_taken(watcher, seen, speaks, silent, side, size, tmp_path):
    """Also where the listener is the larger one."""
    speaker = [people.scaled(p, size) for p in speaks]
    films = (speaker, silent) if side == "left" else (silent, speaker)
    found = watcher.watch(people.written(tmp_path / "two.mp4", people.side_by_side(*films), SPEAKS))
    assert np.abs(found.clip.lips - seen.clip.lips).mean() < 1
    assert found.clip.num_faces == 2
    assert found.others == ()
    assert facts(found)["several_faces"] == "2 faces are seen; the one whose lips move with the voice was taken"
    assert np.ptp(found.clip.lips2[:, 25, 1]) < np.ptp(found.clip.lips[:, 25, 1])
    assert (found.clip.flags2 == layout.FACE_DETECTED | layout.HELD).all()  # who listens hardly moves


def test_a_poster_is_not_taken_though_it_is_larger(watcher, seen, speaks, tmp_path):
    poster = people.scaled(people.pictures(TALKS)[30], 1.5)
    film = people.side_by_side([poster], speaks)
    found = watcher.watch(people.written(tmp_path / "poster.mp4", film, SPEAKS))
    assert np.abs(found.clip.lips - seen.clip.lips).mean() < 1
    assert found.others == ()


def test_of_two_who_talk_the_most_prominent_is_taken_and_the_other_offered(watcher, speaks, tmp_path):
    film = people.side_by_side(people.pictures(TALKS), [people.scaled(p, 0.7) for p in speaks])
    found = watcher.watch(people.written(tmp_path / "two.mp4", film, SPEAKS), clip_id="c/two")
    (other,) = found.others
    assert "it is not clear which one speaks, so the most prominent one was taken" in facts(found)["several_faces"]
    assert other.id == "c/two"
    for name in ("mouth", "lips", "blendshapes"):
        np.testing.assert_array_equal(getattr(other, name), getattr(found.clip, f"{name}2"))
    assert other.audio is found.clip.audio
    assert (other.flags & layout.VOICE_ACTIVE == found.clip.flags & layout.VOICE_ACTIVE).all()


def test_the_choice_by_motion():
    assert (chosen([1.0]).order, chosen([1.0]).rivals) == ([0], 0)
    assert (chosen([0.1, 1.0, 0.9]).order, chosen([0.1, 1.0, 0.9]).rivals) == ([1, 2, 0], 1)
    assert (chosen([1.0, 0.1]).order, chosen([1.0, 0.1]).rivals) == ([0, 1], 0)


def test_one_face_has_no_second(seen):
    assert seen.clip.num_faces == 1
    assert seen.clip.mouth2 is None
    assert seen.others == ()
    assert not {"several_faces", "small_face"} & set(facts(seen))


@pytest.mark.parametrize(
    ("name", "small"), [("small_face_corner_1080p.mp4", False), ("small_face_far_1080p.mp4", True)]
)
def test_small_faces_of_the_cases_are_found_and_said(watcher, shared, name, small):
    found = watcher.watch(shared / "cases" / name)
    assert found.quality == 1
    assert ("small_face" in facts(found)) == small


def test_a_second_face_is_staged_as_a_store_has_it(speaks, silent, tmp_path):
    path = people.written(tmp_path / "two.mp4", people.side_by_side(silent, speaks), SPEAKS)
    done = staged(path, 75)
    assert done.receipts[0].num_faces == 2
    assert "2 faces are seen" in done.receipts[0].notes
    done.asr, done.vsr = [np.zeros((75, 2))], [np.zeros((75, 2))]
    done.name = "000000000000-000000000-1"
    pack.stage(done, place(tmp_path))
    (arrays,), _ = staging.load(place(tmp_path), done.name)
    for name, (dtype, row) in layout.SECOND_ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (np.dtype(dtype), (75, *row))


def test_a_clip_that_moves_is_not_held_and_a_photograph_is(watcher, seen, shared):
    speaks = seen.clip.flags & layout.VOICE_ACTIVE > 0
    assert not (seen.clip.flags[speaks] & layout.HELD).any()
    assert not [fact for fact in seen.facts if fact.kind == "held_pictures"]
    photo = watcher.watch(shared / "cases" / "still_photo.mp4")
    assert (photo.clip.flags & layout.HELD).all()
    assert photo.quality == 1  # a face is seen all the same
    assert [fact.text for fact in photo.facts] == ["the picture stands still throughout"]
