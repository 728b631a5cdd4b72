"""The contract of teachers, as tests that ship with the package: the author of a teacher inherits them.

A complete test file for a teacher whose entry point is installed (`pip install -e .` after a line in setup.cfg):

    # test_my_teacher.py; run it by: python -m pytest test_my_teacher.py
    from teachers.testing.contract import TeacherContract


    class TestMyTeacher(TeacherContract):
        name = "my-teacher:small@3"  # the name for precompute.py --asr or --vsr


    class TestMyTeacherOnTheGpu(TestMyTeacher):
        device = "cuda"
        tolerance = 1e-2  # half precision

The clips are synthetic (`teachers.testing.synthetic`), so no media file, face model or network is needed. The tests do
not show whether the rows are meaningful; `python -m teachers.check NAME --media FILE` and a store's similarity do.
"""

import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache

import numpy as np

from concord.frames import FACE, VOICE_ACTIVE
from teachers import base
from teachers.base import ClipMedia, Teacher, TeacherError
from teachers.testing import synthetic

SHORT = 25  # frames of a clip, if the length does not matter
RECORD = {"name", "layer", "source", "sha256", "options", "dim", "licence"}  # keys of a provenance
STREAMS = {"audio": {"audio"}, "video": {"mouth", "lips", "blendshapes", "face"}}  # the arrays that each may use
STREAMS["both"] = STREAMS["audio"] | STREAMS["video"]
ABSENT = "/there/is/no/such/file.pt@999999"  # an argument that is invalid for every teacher


class TeacherContract:
    """Subclass it as Test..., set `name`, and run pytest on the file."""

    name: str
    device = "cpu"
    lengths = (1, 12, 75, 300)  # frames of the clips; a teacher that is slow on a CPU may omit the longest
    tolerance = 1e-5  # of a value, between its clip alone and in a batch

    def teacher(self) -> Teacher:
        """The teacher under test; it is loaded once for all tests of the class."""
        return _loaded(self.name, self.device)

    def test_it_is_found_by_its_name(self) -> None:
        kind = self.name.partition(":")[0]
        assert kind in base.known(), f"no entry point '{kind}' in the group {base.GROUP} is installed"
        assert self.teacher().name == self.name, f"`name` is '{self.teacher().name}'; expected what the user wrote"

    def test_an_argument_that_makes_no_sense_is_refused_in_one_line(self) -> None:
        name = f"{self.name.partition(':')[0]}:{ABSENT}"
        error = _refusal(name, self.device)
        assert error is not None, f"'{name}' was loaded; expected a TeacherError"
        assert "\n" not in str(error), f"the error has several lines: {error}"
        assert str(pickle.loads(pickle.dumps(error))) == str(error), "the error changes on its way between processes"

    def test_it_says_what_it_looks_at_and_how_wide_it_is(self) -> None:
        teacher = self.teacher()
        assert teacher.stream in STREAMS, f"`stream` is {teacher.stream!r}; expected one of {', '.join(STREAMS)}"
        assert type(teacher.dim) is int, f"`dim` is a {type(teacher.dim).__name__}; expected an int"
        assert teacher.dim > 0, f"`dim` is {teacher.dim}"

    def test_a_clip_of_any_length_gives_one_finite_row_a_frame(self) -> None:
        for frames in self.lengths:
            self._embed([synthetic.clip(frames)])

    def test_no_clips_and_a_clip_without_frames_give_no_rows(self) -> None:
        assert self._embed([]) == []
        self._embed([synthetic.clip(0)])

    def test_a_clip_gives_the_same_rows_beside_others(self) -> None:
        clips = [synthetic.clip(frames, seed) for seed, frames in enumerate((*self.lengths, self.lengths[-1]))]
        for clip, rows in zip(clips, self._embed(clips), strict=True):
            (alone,) = self._embed([clip])
            np.testing.assert_allclose(rows, alone, atol=self.tolerance)

    def test_the_same_clip_gives_the_same_bits(self) -> None:
        clip = synthetic.clip(SHORT)
        (rows,) = self._embed([clip])
        np.testing.assert_array_equal(self._embed([clip])[0], rows, "a second call gave other values")
        (fresh,) = base.load(self.name, self.device).embed([clip])
        np.testing.assert_array_equal(fresh, rows, "the teacher gave other values when it was loaded again")

    def test_row_k_is_about_frame_k(self) -> None:
        """If the media of the second half are replaced, the rows there change more than those of the first half."""
        clip, other = synthetic.clip(2 * SHORT, 0), synthetic.clip(2 * SHORT, 1)
        mixed = _changed(clip, {name: _joined(one, two) for name, one, two in _media(clip, other)})
        change = np.abs(self._embed([mixed])[0] - self._embed([clip])[0]).mean(axis=1)
        first, second = change[:SHORT].mean(), change[SHORT:].mean()
        assert second > first, (
            f"other media in the second half changed its rows by {second:.3g}, the first half's by {first:.3g}"
        )

    def test_silence_and_frames_without_a_face_give_finite_rows(self) -> None:
        clip = synthetic.clip(SHORT)
        silent = replace(clip, audio=np.zeros_like(clip.audio), flags=clip.flags & ~np.uint8(VOICE_ACTIVE))
        blank = {name: np.zeros_like(getattr(clip, name)) for name in STREAMS["video"]}
        faceless = replace(clip, **blank, flags=clip.flags & ~np.uint8(FACE))
        half = replace(clip, flags=np.where(np.arange(SHORT) < 12, faceless.flags, clip.flags))
        neither = replace(silent, **blank, flags=clip.flags & ~np.uint8(FACE | VOICE_ACTIVE))
        loud = replace(clip, audio=np.where(clip.audio < 0, -32768, 32767).astype(np.int16))
        self._embed([silent, faceless, half, neither, loud])

    def test_a_clip_without_whole_faces_gives_finite_rows(self) -> None:
        """Stores keep whole faces only on request."""
        self._embed([replace(synthetic.clip(SHORT), face=None)])

    def test_it_looks_at_nothing_but_its_stream(self) -> None:
        clip, other = synthetic.clip(SHORT, 0), synthetic.clip(SHORT, 1)
        looked_at = STREAMS[self.teacher().stream]
        changed = {name: theirs for name, _, theirs in _media(clip, other) if name not in looked_at}
        (rows,), (same,) = self._embed([clip]), self._embed([_changed(clip, changed)])
        np.testing.assert_array_equal(same, rows, f"rows depend on {', '.join(sorted(changed))}")

    def test_the_clips_stay_as_they_were(self) -> None:
        clip = synthetic.clip(SHORT)
        before = {name: array.copy() for name, array in _arrays(clip)}
        self._embed([clip])
        for name, array in _arrays(clip):
            np.testing.assert_array_equal(array, before[name], f"`{name}` of the clip was changed")

    def test_provenance_tells_what_the_rows_depend_on(self) -> None:
        record = self.teacher().provenance()
        assert record.keys() >= RECORD, f"provenance lacks {', '.join(sorted(RECORD - record.keys()))}"
        assert json.loads(json.dumps(record, allow_nan=False)) == record, "provenance changes on its way through JSON"
        assert record["name"] == self.name
        assert record["dim"] == self.teacher().dim
        sha256 = record["sha256"]
        if sha256 is None:
            assert record["source"] is None, (
                "weights have a source and no SHA-256 (None is for a teacher without weights)"
            )
        else:
            assert re.fullmatch("[0-9a-f]{64}", sha256), f"`sha256` is {sha256!r}; expected 64 hexadecimal digits"
        self._embed([synthetic.clip(12)])
        assert self.teacher().provenance() == record, "provenance changed after something was embedded"

    def _embed(self, clips: list[ClipMedia]) -> list[np.ndarray]:
        """Rows of the clips; checks their shape, type and values."""
        teacher = self.teacher()
        rows = teacher.embed(clips)
        assert len(rows) == len(clips), f"{len(rows)} arrays for {len(clips)} clips"
        for clip, array in zip(clips, rows, strict=True):
            shape = (clip.num_frames, teacher.dim)
            assert array.shape == shape, f"rows of shape {array.shape} for {clip.num_frames} frames; expected {shape}"
            assert array.dtype == np.float32, f"rows are {array.dtype}; expected float32"
            assert np.isfinite(array).all(), f"rows of {clip.num_frames} frames are not finite"
        return rows


@cache
def _loaded(name: str, device: str) -> Teacher:
    return base.load(name, device)


def _refusal(name: str, device: str) -> TeacherError | None:
    try:
        base.load(name, device)
    except TeacherError as error:
        return error
    return None


def _changed(clip: ClipMedia, arrays: dict[str, np.ndarray]) -> ClipMedia:
    """The same clip with these arrays replaced."""
    values = {field.name: getattr(clip, field.name) for field in fields(clip)}
    return ClipMedia(**{**values, **arrays})


def _arrays(clip: ClipMedia) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays of a clip."""
    for field in fields(clip):
        if isinstance(value := getattr(clip, field.name), np.ndarray):
            yield field.name, value


def _media(clip: ClipMedia, other: ClipMedia) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The media arrays of two clips, in pairs: (name, of the first, of the second)."""
    for name, array in _arrays(clip):
        if name in STREAMS["both"]:
            yield name, array, getattr(other, name)


def _joined(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The first half of one array and the second half of another."""
    half = len(one) // 2
    return np.concatenate([one[:half], two[half:]])
