"""`predict --reference`: a person's genuine videos calibrate the answer, and it says on how much it rests."""

import json
import shutil

import pytest
from click.testing import CliRunner

from student.predict.__main__ import main
from student.predict.records import BETWEEN, Answer, Calibration
from student.predict.reference import decided


def asked(*words, json_file=None):
    options = ["--teacher-only", "--no-words", "--cpu", *(["--json", json_file] if json_file else [])]
    return CliRunner().invoke(main, [str(word) for word in (*words, *options)])


def test_too_little_says_how_much_is_needed_and_answers_as_without(tmp_path, clips):
    folder = tmp_path / "person"
    folder.mkdir()
    for name in ("lgas5a", "pbwj2n"):
        shutil.copy(clips / "clips" / f"{name}.mp4", folder)
    shutil.copy(folder / "lgas5a.mp4", folder / "twin.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    judged = clips / "clips" / "bbaf2n.mp4"
    found = asked(judged, "--reference", folder, "--reference", judged, json_file=tmp_path / "a.json")
    assert found.exit_code == 3, found.output
    (said,) = json.loads((tmp_path / "a.json").read_text())["videos"]
    assert said["reason"] == "uncalibrated"  # as without a reference
    known = said["reference"]
    assert (known["used"], known["videos"], known["pieces"]) == (False, 2, 2)
    assert 2 < known["seconds"] < 5
    assert known["false_alarms"] is known["misses"] is None
    reasons = {one["path"].rpartition("/")[2]: one["reason"] for one in known["left_out"]}
    assert set(reasons) == {"twin.mp4", "broken.mp4", "bbaf2n.mp4"}
    assert reasons["twin.mp4"] == "the same file as lgas5a.mp4"
    assert reasons["bbaf2n.mp4"] == "it is the judged video itself"
    assert "s of speech in 2 pieces of at least 1 s; 20 pieces are needed: 18 s more in long videos" in found.output
    assert "calibrated on one speaker" in found.output


@pytest.mark.parametrize("options", [["--checkpoint", "run"], ["--teacher-only", "--corpus", "grid:grid_s1"]])
def test_it_stands_alone(clips, options):
    clip = str(clips / "clips" / "bbaf2n.mp4")
    found = CliRunner().invoke(main, [clip, "--reference", clip, *options])
    assert found.exit_code == 2
    assert "use it with --teacher-only alone" in found.output


def given(fake):
    known = Calibration(["this person"], True, "", True, 1, "calibrated on 94 s of this person in 3 videos")
    return Answer("/x.mp4", "real" if fake < 0.5 else "fake", "", "", fake, calibration=known, rests_on="teachers")


@pytest.mark.parametrize(
    ("fake", "decision"),
    [(0.9, "fake"), (0.81, "fake"), (0.79, "cannot decide"), (0.4, "cannot decide"), (0.3, "real")],
)
def test_the_limits_decide(fake, decision):
    said = decided(given(fake), 0.2, 0.7)
    assert said.decision == decision
    if decision == "cannot decide":
        assert said.reason == BETWEEN
        assert said.probability is None
        assert "is between 0.20" in said.message
        said.to_json()


def test_an_answer_without_a_decision_stays():
    said = Answer("/x.mp4", "cannot decide", "no speech", "nobody speaks")
    assert decided(said, 0.2, 0.7) is said


@pytest.mark.slow
def test_a_persons_own_videos_decide_for_them(tmp_path, grid):
    """24 clips of the GRID speaker; another of his, one with the sound of a third, and one of the references itself."""
    from people import pictures, written

    names = sorted((grid / "clips").glob("*.mp4"))[5::10]
    folder = tmp_path / "person"
    folder.mkdir()
    for name in names[:24]:
        shutil.copy(name, folder)
    forged = written(tmp_path / "forged.mp4", pictures(names[25]), names[26])
    found = asked(names[24], forged, names[0], "--reference", folder, json_file=tmp_path / "a.json")
    assert found.exit_code == 0, found.output
    own, other, known = json.loads((tmp_path / "a.json").read_text())["videos"]
    assert [own["decision"], other["decision"], known["decision"]] == ["real", "fake", "real"]
    assert (own["reference"]["videos"], known["reference"]["videos"]) == (24, 23)
    assert known["reference"]["left_out"][0]["reason"] == "it is the judged video itself"
    assert own["reference"]["false_alarms"] <= 0.1
    assert own["calibration"]["text"].startswith(
        f"calibrated on {own['reference']['seconds']:.0f} s of this person in 24 videos"
    )
