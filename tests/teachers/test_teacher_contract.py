"""The contract that ships for writers of teachers: a right one passes each test, and each fault is found by its test."""

import pytest

from teachers.testing.contract import TeacherContract

TOY = '''
import itertools
import numpy as np
from teachers import TeacherError

FAULTS = ["", "short", "double", "infinite", "neighbours", "drifts", "random", "reversed", "watches", "writes", "unnamed",
          "vague", "unhashed", "lists", "no clips", "faced"]
calls = itertools.count()

class Toy:
    stream, dim = "audio", 2

    def __init__(self, fault):
        self.fault, self.drawn = fault, next(calls) if fault == "random" else 0
        self.name = "toy" if fault == "unnamed" else f"toy:{fault}"
        self.dim = 2.0 if fault == "vague" else 2

    def embed(self, clips):
        if not clips and self.fault == "no clips":
            raise IndexError("no clips")
        return [self.rows(clip, len(clips)) for clip in clips]

    def rows(self, clip, count):
        """Loudness and roughness of each frame."""
        sound = clip.audio.reshape(-1, 640) / 32768
        rows = np.stack([abs(sound).mean(axis=1), sound.std(axis=1)], axis=1).astype(np.float32)
        if self.fault == "writes":
            clip.audio[:] = 0
        if self.fault == "faced":
            len(clip.face)
        if self.fault == "watches":
            rows += clip.mouth.mean(axis=(1, 2), dtype=np.float32)[:, None]
        with np.errstate(all="ignore"):
            return {
                "short": rows[1:], "double": rows.astype(np.float64), "infinite": 1 / rows, "neighbours": rows + count,
                "drifts": rows + next(calls), "random": rows + self.drawn, "reversed": rows[::-1],
            }.get(self.fault, rows)

    def provenance(self):
        record = dict(name=self.name, layer=None, source=None, sha256=None, options={}, dim=2, licence="MIT")
        changed = {"unhashed": {"source": "a file"}, "lists": {"options": (1, 2)}}
        return {**record, **changed.get(self.fault, {})}

def load(argument, device):
    if argument not in FAULTS:
        raise TeacherError(f"toy: no fault '{argument}'")
    return Toy(argument)
'''
TESTS = [name for name in vars(TeacherContract) if name.startswith("test_")]
FOUND_BY = {
    "short": "test_a_clip_of_any_length_gives_one_finite_row_a_frame",
    "double": "test_a_clip_of_any_length_gives_one_finite_row_a_frame",
    "infinite": "test_silence_and_frames_without_a_face_give_finite_rows",
    "neighbours": "test_a_clip_gives_the_same_rows_beside_others",
    "drifts": "test_the_same_clip_gives_the_same_bits",
    "random": "test_the_same_clip_gives_the_same_bits",
    "reversed": "test_row_k_is_about_frame_k",
    "watches": "test_it_looks_at_nothing_but_its_stream",
    "writes": "test_the_clips_stay_as_they_were",
    "unnamed": "test_it_is_found_by_its_name",
    "vague": "test_it_says_what_it_looks_at_and_how_wide_it_is",
    "unhashed": "test_provenance_tells_what_the_rows_depend_on",
    "lists": "test_provenance_tells_what_the_rows_depend_on",
    "no clips": "test_no_clips_and_a_clip_without_frames_give_no_rows",
    "faced": "test_a_clip_without_whole_faces_gives_finite_rows",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A package with the toy teacher, installed as packages are."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toy_teacher.py").write_text(TOY)
    info = folder / "toy_teacher-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-teacher\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[concord.teachers]\ntoy = toy_teacher:load\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.mark.usefixtures("toy")
class TestToy(TeacherContract):
    name = "toy:"


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(("fault", "test"), FOUND_BY.items())
def test_every_fault_is_found(fault, test):
    contract = TeacherContract()
    contract.name = f"toy:{fault}"
    with pytest.raises((AssertionError, IndexError, TypeError)):
        getattr(contract, test)()


def test_every_test_finds_a_fault():
    by_argument = {"test_an_argument_that_makes_no_sense_is_refused_in_one_line"}
    assert set(FOUND_BY.values()) | by_argument == set(TESTS)


@pytest.mark.usefixtures("toy")
def test_a_teacher_that_takes_any_argument_is_found(monkeypatch):
    import toy_teacher

    contract = TeacherContract()
    contract.name = "toy:"
    monkeypatch.setattr(toy_teacher, "load", lambda argument, device: toy_teacher.Toy(argument))
    with pytest.raises(AssertionError, match="was loaded; expected a TeacherError"):
        contract.test_an_argument_that_makes_no_sense_is_refused_in_one_line()
