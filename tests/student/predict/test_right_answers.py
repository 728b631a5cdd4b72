"""The answers to the shared folder of awkward files, all of one speaker on whom the packaged fit was calibrated: real where
lips and voice can be judged, and else the reason why not."""

import pytest

from student.predict.__main__ import predict
from student.predict.basis import basis

STILL = ("still_photo.mp4", "one_picture_a_second.mp4", "freezes_at_1_2s.mp4")
SEVERAL = ("two_faces_equal.mp4", "two_faces_smaller_speaks.mp4")


@pytest.fixture(scope="module")
def answers(shared):
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}")
    paths = sorted(str(path) for path in folder.iterdir() if path.suffix != ".md")
    on = basis(None, None, "grid:grid_s1")
    return {said.path.rsplit("/", 1)[1]: said for said, _, _ in predict(paths, on, words=False)}


def test_every_file_gets_the_right_answer(answers):
    wrong = {}
    for name, said in answers.items():
        if name in STILL:
            right = said.reason == "still picture"
        elif name == "crash_7_1_pcm.mov":  # it has one second, and half a second of voice
            right = said.reason == "no speech"
        elif name in SEVERAL:
            right = said.decision == "real" or "2 faces" in f"{said.reason} {said.message}"
        else:
            right = said.decision == "real"
        if not right:
            wrong[name] = (said.decision, said.reason, said.message, said.probability)
    assert not wrong


def test_what_a_person_should_know_is_said(answers):
    told = {name: {note.kind for note in said.notes} for name, said in answers.items()}
    for name, kind in {
        "first_silent.mp4": "several_tracks",
        "first_hiss.mov": "several_tracks",
        "dub_first.mkv": "several_tracks",
        "antiphase_stereo.mp4": "channel_mix",
        "two_faces_equal.mp4": "several_faces",
        "clock_jumps_1h.ts": "clock_repaired",
        "hdr_pq.mp4": "hdr",
        "still_photo.mp4": "held_pictures",
    }.items():
        assert kind in told[name], name
