"""Answers on videos with several sound tracks, odd channels and little speech."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from sounds import Track, voice_of, write

from student.predict.__main__ import main
from student.predict.answer import MIN_FRAMES, doubt
from student.predict.evidence import Eyes

TEACHERS = ["--teacher-only", "--no-words", "--corpus", "grid:grid_s1"]


@pytest.fixture(scope="module")
def videos(clips, tmp_path_factory):
    """The clip with its own sound second, after another clip's; and with channels in opposite phase."""
    folder = tmp_path_factory.mktemp("videos")
    source = clips / "clips" / "bbaf2n.mp4"
    voice, other = 0.5 * voice_of(source), 0.5 * voice_of(clips / "clips" / "lgas5a.mp4")
    dub = Track(other[None], language="deu", title="Dub", marks=("default",))
    write(folder / "dub.mkv", source, dub, Track(voice[None], language="eng"))
    write(folder / "opposite.mkv", source, Track(np.stack([voice, -voice])))
    return folder


def answers(videos, *options):
    found = CliRunner().invoke(main, [str(videos), *TEACHERS, *options, "--json", "-"])
    assert found.exit_code in (0, 3), found.output
    return {one["path"].rpartition("/")[2]: one for one in json.loads(found.stdout)["videos"]}


def test_the_track_recorded_with_the_picture_is_judged(videos):
    found = answers(videos)
    assert [found[name]["decision"] for name in ("dub.mkv", "opposite.mkv")] == ["real", "real"]
    (note,) = found["dub.mkv"]["notes"]
    assert note["kind"] == "several_tracks"
    assert '1 (deu, "Dub", pcm_s16le, dub, default), 2 (eng, pcm_s16le); track 2 was taken' in note["text"]
    assert [note["kind"] for note in found["opposite.mkv"]["notes"]] == ["channel_mix"]


def test_another_track_can_be_asked_for(videos):
    found = answers(videos, "--audio-track", "1")
    assert found["dub.mkv"]["decision"] == "fake"
    assert "track 1 was taken (as asked for)" in found["dub.mkv"]["notes"][0]["text"]


def test_a_wrong_track_is_one_line_that_lists_them(videos):
    path = str(videos / "dub.mkv")
    found = CliRunner().invoke(main, [path, *TEACHERS, "--audio-track", "3"])
    assert found.exit_code == 2
    (line,) = [line for line in found.output.splitlines() if "dub.mkv" in line]
    assert 'no sound track 3; its sound tracks are 1 (deu, "Dub", pcm_s16le, dub, default), 2 (eng' in line


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", "65", "²", ""])
def test_what_is_no_number_of_a_track_is_refused(number, videos):
    found = CliRunner().invoke(main, [str(videos), *TEACHERS, "--audio-track", number])
    assert found.exit_code == 2
    assert "neither auto nor the number of a sound track" in found.output


def test_a_little_too_little_does_not_sound_like_enough():
    on, off = np.ones(75, bool), np.zeros(75, bool)
    nearly = np.arange(75) < MIN_FRAMES - 1
    assert doubt(on[: MIN_FRAMES - 1], on[: MIN_FRAMES - 1], on[: MIN_FRAMES - 1], None, None)[1].startswith(
        "the video lasts 0.96 s; at least"
    )
    assert doubt(on, nearly, on, None, None)[1] == "somebody speaks for 0.96 s; at least 1 s is needed"
    assert doubt(nearly, on, nearly, None, None)[1].startswith(
        "a face is seen for 0.96 s while somebody speaks; at least 1 s"
    )
    assert doubt(on, off, on, None, None)[0] == "no speech"


class Dying(Eyes):
    """A reader that dies on every file, and whose library says why."""

    def __call__(self, asked):
        import os

        os.write(2, b"double free or corruption (!prev)\n")
        os.abort()


def test_a_file_that_kills_its_reader_costs_one_line(videos, monkeypatch, capfd):
    monkeypatch.setattr("student.predict.evidence.Eyes", Dying)
    found = CliRunner().invoke(main, [str(videos / "dub.mkv"), *TEACHERS])
    assert found.exit_code == 2
    assert [line for line in found.output.splitlines() if "dub.mkv" in line] == [
        f"{videos / 'dub.mkv'}: cannot decide: unreadable: its worker crashed (SIGABRT); check the file"
    ]
    said = capfd.readouterr()
    assert "double free" not in said.out + said.err + found.output
    assert "Fatal Python error" not in said.out + said.err + found.output
