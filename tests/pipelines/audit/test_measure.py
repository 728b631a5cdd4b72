"""What media say of themselves: numbers from time stamps, faults of every kind of bad file, nothing lost in the pool."""

from fractions import Fraction
from functools import cache

import awkward
import numpy as np
import pytest
import sounds
import trees
from scipy.io import wavfile

from pipelines.audit import measure, measurer, nuisances
from pipelines.audit.found import audit, of_media
from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row
from pipelines.media import levels, shots

CLIP = "bbaf2n.mp4"


@cache
def here():
    """Measures in this process: what the children of the pool do, but for the time that each takes to start."""
    return measurer.Measurer()


def measured(*rows):
    return [here()(row) for row in rows]


def kinds(found):
    return {fault.kind for fault in found.faults}


@pytest.fixture(scope="module")
def frames(clips):
    return awkward.frames_of(clips / "clips" / CLIP)


@pytest.fixture(scope="module")
def sound(clips):
    return awkward.sound_of(clips / "clips" / CLIP)


def test_a_real_clip_has_its_numbers_and_no_fault(clips):
    path = clips / "clips" / CLIP
    (found,) = measured(Row(str(path), id="a", listed_frames=75.0, listed_fps=25.0))
    values = found.values
    assert found.faults == []
    assert (values["duration"], values["frame_count"], values["frame_rate"]) == (3.0, 75, 25.0)
    assert values["sound_duration"] == pytest.approx(3.008)  # the last 30 ms are the coder's filling
    assert values["length_difference"] == pytest.approx(-0.008)
    assert values["length_difference_abs"] == pytest.approx(0.008)
    assert (values["width"], values["height"], values["sample_rate"]) == (360, 288, 16000)
    assert (values["codec"], values["audio_codec"], values["encoder"]) == ("h264", "aac", "none")
    assert values["bit_rate"] == pytest.approx(path.stat().st_size * 8 / 3.008, abs=1)
    assert 80 < values["face_size"] < 180
    assert found.print is not None
    table = measure.table([found, measurer.Measured()])
    assert list(table.columns) == [*measurer.NUMBERS, *measurer.WORDS]
    assert table.iloc[1].isna().all()


@pytest.mark.slow
def test_every_awkward_file_has_the_fault_that_precompute_gives_it(tmp_path, clips):
    folder = clips / "clips"
    expected = awkward.build(tmp_path, folder / CLIP, folder / "lgas5a.mp4")
    rows = [Row(str(tmp_path / "real" / name), id=name) for name in expected]
    rows.append(Row(str(tmp_path / "gone.mp4"), id="gone"))
    for row, found in zip(rows, measure.run(rows, workers=2), strict=True):
        reason = expected.get(row.id, "missing_media")
        assert (reason in kinds(found)) if reason else not kinds(found) & set(expected.values()), (row.id, found.faults)
        assert all(fault.id == row.id for fault in found.faults)
        assert (found.print is None) == (reason not in ("", "no_face")), row.id


def test_frame_rates_are_those_of_the_time_stamps(tmp_path, frames, sound):
    awkward.write_clip(tmp_path / "fast.mp4", frames, sound[: len(frames) * 16000 // 50], fps=50)
    (found,) = measured(Row(str(tmp_path / "fast.mp4"), id="a", listed_fps=25.0, listed_frames=40.0))
    assert found.values["frame_rate"] == 50.0
    said = {fault.kind: fault.text for fault in found.faults}
    assert said["declared_rate"] == "the list says 25 frames per second, time stamps say 50"
    assert said["count_mismatch"] == "the list says 40 frames, decoding gave 75"


def test_a_corpus_with_media_of_other_rates_and_without_sound_loses_nothing(tmp_path, frames, sound):
    """CMDFD as published: MakeItTalk at 62.5 frames a second listed as 25, a clip whose sound is missing or empty."""
    trees.cmdfd(tmp_path)
    top = tmp_path / "My_Test"
    (top / "MakeItTalk").mkdir()
    awkward.write_clip(top / "origin/id00001_a.mp4", frames, None)
    wavfile.write(top / "origin/id00001_a.wav", 16000, sound)
    name = "MakeItTalk/id00001-id00002"
    awkward.write_clip(top / f"{name}.mp4", frames, None, fps=Fraction(125, 2))
    wavfile.write(top / f"{name}.wav", 16000, sound[: 16000 * 6 // 5])
    awkward.write_clip(top / "wav2lip/id00001-id00002.mp4", frames, None)  # its sound is nowhere
    rows = manifest.load(f"cmdfd:{tmp_path}")
    found = audit(rows, of_media(rows, workers=1))
    told = {(kind.kind, e.id.split("/", 1)[1]): e.text for kind in found.faults for e in kind.examples}
    assert found.rows == len(rows) == 3
    assert "time stamps say 62.5" in told["declared_rate", f"{name}.mp4"]
    assert ("missing_sound", "wav2lip/id00001-id00002.mp4") in told
    assert not {what for kind, what in told if what.startswith("origin")} - {"origin/id00001_a.mp4"}
    row = next(row for row in rows if row.path.endswith("MakeItTalk/id00001-id00002.mp4"))
    (seen,) = measured(row)
    assert seen.values["frame_rate"] == 62.5
    assert seen.values["length_difference"] == pytest.approx(0, abs=0.1)  # by time stamps; by the list it is 6 s


@pytest.mark.parametrize(("seconds", "conflict"), [(2.9, False), (2.0, True)])
def test_picture_and_sound_of_other_lengths_conflict(tmp_path, frames, sound, seconds, conflict):
    awkward.write_clip(tmp_path / "a.mp4", frames, None)
    awkward.write_clip(tmp_path / "b.m4a", None, sound[: round(seconds * 16000)])
    (found,) = measured(Row(str(tmp_path / "a.mp4"), str(tmp_path / "b.m4a"), id="a"))
    assert found.values["length_difference"] == pytest.approx(3.0 - seconds, abs=0.07)
    assert ("length_conflict" in kinds(found)) == conflict
    assert "no_audio" not in kinds(found)


def test_a_cut_is_found_and_a_flash_is_none(tmp_path, frames):
    other = np.ascontiguousarray(np.rot90(frames[0], 2))
    flashed = [*frames[:30], np.full_like(frames[0], 255), *frames[31:60]]
    awkward.write_clip(tmp_path / "cut.mp4", [*frames[:30], *[other] * 30], None)
    awkward.write_clip(tmp_path / "flash.mp4", flashed, None)
    cut, flash = measured(*(Row(str(tmp_path / f"{name}.mp4"), id=name) for name in ("cut", "flash")))
    assert "several_shots" in kinds(cut)
    assert "1.20 s" in next(fault.text for fault in cut.faults if fault.kind == "several_shots")
    assert "several_shots" not in kinds(flash)


def test_a_mouth_that_sings_in_a_close_up_is_no_cut():
    """Opened wide within five frames, it changes the whole pattern, but not at once."""
    y, x = np.mgrid[0:16, 0:16] - 7.5
    wide = np.clip(np.abs((np.arange(75) * 0.2) % 2 - 1), 0, 1) * 7
    mouths = np.stack([np.where((x / 7) ** 2 + (y / (1 + w)) ** 2 < 1, 30, 190) for w in wide]).astype(np.uint8)
    assert shots.alike(mouths[0:3].mean(0), mouths[3:6].mean(0)) < shots.MAX_ALIKE
    assert shots.cuts(mouths) == []
    assert shots.cuts(np.concatenate([mouths[:30], 220 - mouths[:30]])) == [30]


def test_facts_of_files_are_named_and_are_numbers(shared):
    cases = shared / "cases"
    names = ("still_photo.mp4", "one_picture_a_second.mp4", "freezes_at_1_2s.mp4", "antiphase_stereo.mp4")
    found = measured(*(Row(str(cases / name), id=name) for name in names))
    held = [{fault.text for fault in one.faults if fault.kind == "held_pictures"} for one in found]
    says = [f"{cases / name}: the picture stands still" for name in names]
    assert held[:3] == [{f"{says[0]} throughout"}, {f"{says[1]} throughout"}, {f"{says[2]} from 1.1 s to 3.0 s"}]
    assert held[3] == set()
    table = measure.table([*found, measurer.Measured()])
    assert table["has_held_pictures"].tolist()[:4] == [1, 1, 1, 0]
    assert np.isnan(table["has_held_pictures"].iloc[4])
    assert nuisances.means("has_held_pictures").startswith("whether this is so: Pictures stand still")


def test_only_clips_that_are_out_of_the_ordinary_are_watched(clips, monkeypatch):
    measure_one = here()
    monkeypatch.setattr(measure_one, "_watch", lambda *args: pytest.fail("an ordinary clip"))
    for path in sorted((clips / "clips").iterdir())[:3]:
        assert measure_one(Row(str(path), id=path.name)).faults == []


def test_a_clip_without_sound_or_face_says_both(tmp_path, frames):
    awkward.write_clip(tmp_path / "a.mp4", [np.full_like(frames[0], 90)] * 40, None)
    (found,) = measured(Row(str(tmp_path / "a.mp4"), id="a"))
    assert kinds(found) == {"no_face", "no_audio"}


def test_cuts_of_still_pictures_are_none():
    assert shots.cuts(np.zeros((0, 16, 16), np.uint8)) == []
    assert shots.cuts(np.full((20, 16, 16), 9, np.uint8)) == []


def test_a_clip_that_takes_too_long_is_a_fault_and_the_others_go_on(clips):
    rows = [Row(str(clips / "clips" / CLIP), id=name) for name in ("a", "b")]
    for found in measure.run(rows, workers=1, clip_timeout=1e-6):
        assert kinds(found) == {"timeout"}
        assert found.values == {}


def test_results_in_several_processes_are_those_of_one(clips):
    rows = [Row(str(path), id=path.name) for path in sorted((clips / "clips").iterdir())]
    many = measure.run(rows, workers=2)
    for one, other in zip(measured(*rows), many, strict=True):
        assert one.values == other.values
        assert (one.print.bits == other.print.bits).all()


def test_silence_is_measured_at_every_level_from_the_start_of_the_clip():
    level = levels.Levels()
    wave = np.zeros(16000, np.int16)
    wave[4000:12000] = 100  # 0.00305 of full scale
    for piece in np.array_split(wave, 7):
        level.add(piece)
    values = level.values(before_s=0.1)
    assert values["leading_silence_0003"] == pytest.approx(0.35)
    assert values["trailing_silence_0003"] == pytest.approx(0.25)
    assert values["leading_silence_001"] == pytest.approx(1.1)
    assert values["trailing_silence_001"] == pytest.approx(1.0)
    assert values["loudness"] == pytest.approx(20 * np.log10(100 / 32768 / 2**0.5), abs=0.01)
    assert set(values) == set(levels.COLUMNS)
    assert levels.Levels().values() == {}


def test_the_sound_is_that_of_precompute_and_facts_are_faults(tmp_path, clips):
    source = clips / "clips" / CLIP
    voice = 0.5 * sounds.voice_of(source)
    silence = sounds.Track(0 * voice[None])
    opposite = sounds.write(tmp_path / "a.mkv", source, sounds.Track(np.stack([voice, -voice])))
    second = sounds.write(tmp_path / "b.mkv", source, silence, sounds.Track(voice[None]))
    rows = [
        Row(str(source), id="base"),
        Row(str(opposite), id="opposite"),
        Row(str(second), id="second"),
        Row(str(second), id="first", audio_track=1),
        Row(str(second), id="third", audio_track=3),
    ]
    base, opposite, second, first, third = measured(*rows)
    assert (kinds(base), kinds(opposite), kinds(second)) == (set(), {"channel_mix"}, {"several_tracks"})
    assert kinds(first) == {"several_tracks", "silent"}
    assert kinds(third) == {"no_track"}
    for one in (opposite, second):
        assert one.values["loudness"] == pytest.approx(base.values["loudness"] - 6.02, abs=0.2)
    assert first.values["loudness"] == levels.SILENT_DBFS
