"""Of several people the one is judged whose lips fit the voice; if none does clearly better, there is no answer."""

from dataclasses import replace

import numpy as np
import people
import pytest

from pipelines.media.facts import Fact
from store import layout
from store.similarity import fitfile
from student.predict import agreement as faces
from student.predict.__main__ import line, predict
from student.predict.answer import SEVERAL_FACES
from student.predict.basis import basis
from student.predict.evidence import Evidence
from student.predict.words import advice, headline
from teachers import ClipMedia

OURS = "grid:grid_s1"
CASES = ["two_faces_equal.mp4", "two_faces_smaller_speaks.mp4"]


def answers(*paths):
    return [
        (said, seen) for said, seen, _ in predict([str(path) for path in paths], basis(None, None, OURS), words=False)
    ]


def two(tmp_path, heard, *films):
    return people.written(tmp_path / "two.mp4", people.side_by_side(*films), heard)


@pytest.fixture(scope="module")
def films(clips):
    return {name: people.pictures(clips / "clips" / f"{name}.mp4") for name in ("bbaf2n", "lgas5a", "pbwj2n")}


def test_the_speaker_of_the_cases_is_judged(shared):
    for said, _ in answers(*(shared / "cases" / name for name in CASES)):
        assert (said.decision, said.reason) == ("real", "")
        assert [note.text for note in said.notes] == [
            "2 faces are seen; the one that fits the voice clearly better was taken"
        ]


@pytest.mark.parametrize("scale", [1.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_a_speaker_beside_one_who_moves_his_lips_is_judged(films, clips, scale, tmp_path):
    small = [people.scaled(p, scale) for p in films["bbaf2n"]]
    path = two(tmp_path, clips / "clips" / "bbaf2n.mp4", films["lgas5a"], small)
    ((said, seen),) = answers(path)
    ((alone, _),) = answers(clips / "clips" / "bbaf2n.mp4")
    assert said.decision == alone.decision == "real"
    assert said.teachers.similarity == pytest.approx(alone.teachers.similarity, abs=0.2)
    assert "2 faces are seen" in line(said)
    assert seen.clip.lips[:, :, 0].any()


def test_a_voice_that_fits_neither_face_is_not_decided(films, clips, tmp_path):
    path = two(tmp_path, clips / "clips" / "pbwj2n.mp4", films["lgas5a"], films["bbaf2n"])
    ((said, _),) = answers(path)
    assert (said.decision, said.reason) == ("cannot decide", SEVERAL_FACES)
    assert said.probability is None
    assert line(said).startswith(f"{path}: cannot decide: 2 faces, none fits the voice clearly better")
    assert headline(said)[1] == "No answer: it is not clear which face speaks"
    assert advice(said)
    assert said.to_json()["notes"][0]["kind"] == "several_faces"


def test_a_forged_speaker_beside_a_listener_is_judged(films, clips, tmp_path):
    """The listener's lips do not move, so the face that moves is the speaker, and does not fit."""
    listener = [films["bbaf2n"][abs(k % 14 - 7)] for k in range(75)]
    ((said, _),) = answers(two(tmp_path, clips / "clips" / "pbwj2n.mp4", listener, films["lgas5a"]))
    assert said.decision == "fake"
    assert "the one whose lips move with the voice was taken" in line(said)


# -- the rule alone ----------------------------------------------------------------------------------------------------

FIT = fitfile.default()[0]


def evidence(vectors, voices, flags=None):
    """Evidence of one face for each of `vectors`, which point where the sound's do or not."""
    n = 50
    none = np.zeros((n, 0))
    draw = np.random.default_rng(0)
    sound = draw.normal(size=(n, FIT.dims)).astype(np.float16)
    noise = [draw.normal(size=(n, FIT.dims)).astype(np.float16) for _ in vectors]
    made = [
        Evidence(
            "/v.mp4",
            ClipMedia("v", none, none, none, none, np.full(n, voice, np.uint8), num_faces=len(vectors)),
            sound if fits else other,
            sound,
            [],
            0.0,
            (Fact("several_faces", "2 faces are seen; it is not clear which one speaks"),),
        )
        for fits, other, voice in zip(vectors, noise, voices, strict=True)
    ]
    return replace(made[0], others=tuple(made[1:]))


ALL = layout.IN_USE | layout.FACE_DETECTED | layout.VOICE_ACTIVE | layout.AUDIO_PRESENT


def test_the_face_that_fits_is_taken():
    given = evidence([False, True, False], [ALL] * 3)
    found = faces.settled(given, FIT)
    assert found.vsr_projection is given.others[0].vsr_projection
    assert (found.unsettled, found.others) == ("", ())
    assert found.facts[0].text == "2 faces are seen; the one that fits the voice clearly better was taken"


@pytest.mark.parametrize("fits", [(False, False), (True, True)])
def test_faces_that_fit_alike_are_not_settled(fits):
    given = evidence(fits, [ALL] * 2)
    found = faces.settled(given, FIT)
    assert found.unsettled == "2 faces, none fits the voice clearly better"
    assert found.vsr_projection is given.vsr_projection


def test_a_face_that_is_hardly_seen_is_not_compared():
    given = evidence([True, False], [layout.IN_USE | layout.VOICE_ACTIVE, ALL])
    assert faces.settled(given, FIT).vsr_projection is given.others[0].vsr_projection
    alone = evidence([True], [ALL])
    assert faces.settled(alone, FIT) is alone


def test_numbers_that_are_none_are_left_to_the_answer():
    given = evidence([True, False], [ALL] * 2)
    given.others[0].vsr_projection[:] = np.nan
    assert faces.settled(given, FIT) is given
