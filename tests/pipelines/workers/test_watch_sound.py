"""The sound of a watched clip: its track, its mix, and what the clip says of both."""

import numpy as np
import pytest
from sounds import Track, voice_of, write

from pipelines.corpora.manifest import Row
from pipelines.media.files import MediaError
from pipelines.workers.plan import Slot
from pipelines.workers.stages import FaceStage
from pipelines.workers.work import Receipt, Work
from store import layout


@pytest.fixture(scope="module")
def source(clips):
    return clips / "clips" / "bbaf2n.mp4"


@pytest.fixture(scope="module")
def base(watcher, source):
    return watcher.watch(source)


def kinds(seen):
    return [fact.kind for fact in seen.facts if fact.kind in ("several_tracks", "channel_mix", "silent")]


def correlation(a, b):
    return np.corrcoef(a.clip.audio.astype(float), b.clip.audio.astype(float))[0, 1]


def test_ordinary_clips_have_nothing_to_say(base):
    assert kinds(base) == []


def test_opposite_phase_gives_the_clip_of_equal_channels(watcher, source, base, tmp_path):
    voice = 0.5 * voice_of(source)
    seen = watcher.watch(write(tmp_path / "a.mkv", source, Track(np.stack([voice, -voice]))))
    assert kinds(seen) == ["channel_mix"]
    assert correlation(seen, base) > 0.99
    np.testing.assert_array_equal(seen.clip.flags & layout.VOICE_ACTIVE, base.clip.flags & layout.VOICE_ACTIVE)


def test_a_silent_sound_is_said_to_be_silent(watcher, source, tmp_path):
    seen = watcher.watch(write(tmp_path / "a.mkv", source, Track(np.zeros((1, 144_000), np.float32))))
    assert kinds(seen) == ["silent"]
    assert not (seen.clip.flags & layout.VOICE_ACTIVE).any()


def test_a_quiet_voice_is_heard(watcher, source, base, tmp_path):
    seen = watcher.watch(write(tmp_path / "a.mkv", source, Track(0.003 * voice_of(source)[None])))
    voice = [(one.clip.flags & layout.VOICE_ACTIVE) > 0 for one in (seen, base)]
    assert (voice[0] == voice[1]).mean() > 0.95


def test_a_separate_file_with_several_tracks_is_treated_alike(watcher, source, base, tmp_path):
    voice = 0.5 * voice_of(source)
    sound = write(tmp_path / "a.mka", None, Track(np.zeros_like(voice)[None]), Track(np.stack([voice, -voice])))
    seen = watcher.watch(source, sound)
    assert kinds(seen) == ["several_tracks", "channel_mix"]
    assert correlation(seen, base) > 0.99
    assert kinds(watcher.watch(source, sound, audio_track=1)) == ["several_tracks", "silent"]


def test_a_wrong_number_costs_one_open_and_says_what_there_is(watcher, source):
    with pytest.raises(MediaError, match="has no sound track 2; its sound track is 1 "):
        watcher.watch(source, audio_track=2)


def test_the_ledger_says_which_track_was_taken(source, tmp_path):
    voice = voice_of(source)
    path = str(write(tmp_path / "a.mkv", source, Track(voice[None], language="eng"), Track(0 * voice[None])))
    rows = [Row(path, id="a"), Row(path, id="b", audio_track=2), Row(path, id="c", audio_track=3)]
    slots = [Slot(k, 75 * k, 75, 75) for k in range(3)]
    done = FaceStage()(Work("b", slots, rows, [Receipt(k, row.id, row.path) for k, row in enumerate(rows)]))
    first, second, third = done.receipts
    assert "track 1 was taken (the first one)" in first.notes
    assert "track 2 was taken (as asked for)\nthe sound is silent" in second.notes
    assert (third.stage, third.reason) == ("decode", "no_track")
    assert "its sound tracks are 1 (eng, pcm_s16le" in third.message
