"""The teachers of AV-HuBERT: rows, layers, windows of long clips, crops of other sizes."""

import json

import numpy as np
import pytest
import torch
from small_avhubert import clip

import teachers
from teachers import ClipMedia, TeacherError
from teachers.avhubert import features, loading
from teachers.avhubert.teacher import OVERLAP, WINDOW, AVHubertTeacher
from teachers.windows import Piece

KINDS = {"video": "avhubert", "audio": "avhubert-audio", "both": "avhubert-both"}


class TestTeachers:
    """Every stream: finite rows that depend on their own clip and stream alone."""

    @pytest.fixture(params=["video", "audio", "both"])
    def teacher(self, request, tiny):
        return teachers.load(f"{KINDS[request.param]}:{tiny}")

    def test_rows_for_clips_of_any_lengths(self, teacher):
        lengths = [12, 5, 1, 12, 0]
        clips = [clip(frames, seed) for seed, frames in enumerate(lengths)]
        rows = teacher.embed(clips)
        assert [row.shape for row in rows] == [(frames, 48) for frames in lengths]
        assert all(row.dtype == np.float32 and np.isfinite(row).all() for row in rows)
        for one, row in zip(clips, rows, strict=True):
            np.testing.assert_allclose(teacher.embed([one])[0], row, atol=1e-5)
        assert teacher.embed([]) == []

    def test_a_padded_batch_gives_what_each_clip_gives_alone(self, teacher):
        """As on a GPU, where clips of like lengths share a batch."""
        pieces = [Piece(k, clip(n, seed=k), 0, n, 0, n) for k, n in enumerate((14, 9, 13))]
        with torch.inference_mode():
            together = teacher._forward(pieces, False)
            for piece, rows in zip(pieces, together, strict=True):
                assert len(rows) == piece.num_frames
                np.testing.assert_allclose(rows, teacher._forward([piece], False)[0], atol=2e-5)

    def test_only_its_own_stream_matters(self, teacher):
        one, other = clip(seed=1), clip(seed=2)
        mixed = ClipMedia("mixed", one.audio, other.mouth, one.lips, one.blendshapes, one.flags)
        same_sound = np.allclose(teacher.embed([mixed])[0], teacher.embed([one])[0])
        same_sight = np.allclose(teacher.embed([mixed])[0], teacher.embed([other])[0])
        assert (same_sound, same_sight) == {"audio": (True, False), "video": (False, True), "both": (False, False)}[
            teacher.stream
        ]

    def test_provenance_is_complete(self, teacher, tiny):
        record = teacher.provenance()
        assert record.keys() == {"name", "layer", "source", "sha256", "options", "dim", "licence"}
        assert record["name"] == teacher.name == f"{KINDS[teacher.stream]}:{tiny}"
        assert (record["dim"], record["layer"], len(record["sha256"])) == (48, None, 64)
        assert record["options"]["stream"] == teacher.stream
        assert ("image_mean" in record["options"]) == (teacher.stream != "audio")
        assert ("normalize" in record["options"]) == (teacher.stream != "video")
        json.dumps(record)


def test_layers_differ_and_the_last_has_one_more_norm(tiny):
    given = clip(9)
    rows = [AVHubertTeacher("audio", f"{tiny}{at}").embed([given])[0] for at in ("@0", "@1", "@2", "")]
    for k, one in enumerate(rows):
        assert all(not np.allclose(one, other, atol=1e-3) for other in rows[:k])
    model, _ = loading.load(tiny)
    norm = model.encoder.layer_norm
    np.testing.assert_allclose(norm(torch.from_numpy(rows[2])).numpy(), rows[3], atol=1e-5)


def test_windows_of_long_clips_are_joined_where_both_have_context(tiny):
    teacher = AVHubertTeacher("audio", f"{tiny}@0")  # rows without context: windows must not show at all
    given = clip(WINDOW + 300)
    (rows,) = teacher.embed([given])
    expected = features.sound(given.audio, given.num_frames)
    with torch.inference_mode():
        whole = teacher._model(audio=torch.from_numpy(expected).T[None], layer=0)[0].numpy()
    np.testing.assert_allclose(rows, whole, atol=1e-5)
    assert OVERLAP // 2 >= 64  # what the positional convolution sees on each side


def test_the_sound_of_a_window_is_that_of_the_clip_to_its_last_row(tiny):
    teacher = AVHubertTeacher("audio", str(tiny))
    given = clip(60)
    whole = features.sound(given.audio, 60)
    found = teacher._sound(Piece(0, given, 20, 45, 20, 45))
    np.testing.assert_allclose(found[1:], whole[21:45], atol=1e-5)  # the first sample lacks the one before it
    np.testing.assert_array_equal(teacher._sound(Piece(0, given, 0, 60, 0, 60)), whole)


@pytest.mark.parametrize("size", [88, 96, 112])
def test_larger_crops_are_cut_centrally(tiny, size):
    teacher = AVHubertTeacher("video", str(tiny))
    inner = clip(3, size=88)
    outer = clip(3, seed=9, size=size)
    edge = (size - 88) // 2
    outer.mouth[:, edge : edge + 88, edge : edge + 88] = inner.mouth
    np.testing.assert_array_equal(teacher.embed([outer])[0], teacher.embed([inner])[0])


def test_small_crops_are_errors(tiny):
    with pytest.raises(TeacherError, match=r"clip narrow: mouth crops of 64 x 64 pixels; avhubert:.* needs 88 x 88"):
        AVHubertTeacher("video", str(tiny)).embed([clip(3, size=64, name="narrow")])
