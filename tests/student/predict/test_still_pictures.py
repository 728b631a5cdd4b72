"""Held pictures are no evidence: photographs, slide shows and freezes get no decision, and the answer says why."""

import json

import numpy as np
import pytest
from awkward import frames_of, sound_of, write_clip
from click.testing import CliRunner

from student.predict.__main__ import main

OURS = "grid:grid_s1"


def answers(files, folder):
    """{stem: answer} of the command, and the pages that it wrote."""
    options = ["--teacher-only", "--cpu", "--no-words", "--corpus", OURS]
    options += ["--json", str(folder / "o.json"), "--html", str(folder / "pages")]
    result = CliRunner().invoke(main, [*map(str, files), *options])
    assert result.exit_code == 3, result.output
    found = json.loads((folder / "o.json").read_text())["videos"]
    pages = {page.stem: page.read_text() for page in (folder / "pages").glob("*.html")}
    return dict(zip((file.stem for file in files), found, strict=True)), pages


@pytest.fixture(scope="module")
def cases(shared, tmp_path_factory):
    names = ("still_photo", "one_picture_a_second", "freezes_at_1_2s", "antiphase_stereo")
    return answers([shared / "cases" / f"{name}.mp4" for name in names], tmp_path_factory.mktemp("cases"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("still_photo", "the picture stands still throughout"),
        ("one_picture_a_second", "the picture stands still throughout"),
        ("freezes_at_1_2s", "the picture stands still from 1.1 s to 3.0 s"),
    ],
)
def test_pictures_that_stand_still_are_not_judged(cases, name, text):
    said = cases[0][name]
    assert (said["decision"], said["reason"], said["probability"]) == ("cannot decide", "still picture", None)
    assert "the picture stands still for" in said["message"]
    assert {"kind": "held_pictures", "text": text} in said["notes"]
    assert said["held_share"] > 0.6
    assert said["face_share"] == 1
    held = [moment for moment in said["timeline"] if moment["held"]]
    assert len(held) / len(said["timeline"]) == pytest.approx(said["held_share"], abs=1e-3)
    assert all(moment["similarity"] is None for moment in held)


def test_the_page_says_it_and_shades_the_time(cases):
    page = next(text for name, text in cases[1].items() if name.startswith("still_photo"))
    assert "No answer: the picture stands still" in page
    assert "Use a part in which the speaker is filmed" in page
    assert ">still</text>" in page


def test_a_moving_picture_has_no_such_note(cases):
    said = cases[0]["antiphase_stereo"]
    assert said["held_share"] == 0
    assert not [note for note in said["notes"] if note["kind"] == "held_pictures"]


def test_made_ones_too(clips, tmp_path):
    """A photograph with a new grain in every frame, a slow zoom over it, three pictures a second, and as a control the clip
    itself in twelve per second."""
    file = clips / "clips" / "bbaf2n.mp4"
    pictures, sound = frames_of(file), sound_of(file)
    rng = np.random.default_rng(0)
    photo = pictures[40].astype(np.float32)
    grainy = [np.clip(photo + rng.normal(0, 4, photo.shape), 0, 255).astype(np.uint8) for _ in pictures]

    def zoomed(share):
        rows, columns = (
            np.clip(((np.arange(n) - n / 2) / share + n / 2).round().astype(int), 0, n - 1) for n in photo.shape[:2]
        )
        return pictures[40][rows][:, columns]

    def at(rate):
        return [pictures[int(int((k + 0.5) / 25 * rate) / rate * 25)] for k in range(len(pictures))]

    made = {
        "grainy": grainy,
        "zoomed": [zoomed(1 + 0.05 * k / 25) for k in range(len(pictures))],
        "three": at(3),
        "twelve": at(12),
    }
    for name, shown in made.items():
        write_clip(tmp_path / f"{name}.mkv", shown, sound)
    found, _ = answers([tmp_path / f"{name}.mkv" for name in made], tmp_path)
    assert [found[name]["reason"] for name in ("grainy", "zoomed", "three")] == ["still picture"] * 3
    assert found["twelve"]["held_share"] < 0.1
    assert found["twelve"]["reason"] == ""
