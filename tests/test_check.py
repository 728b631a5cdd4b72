"""The command that loads one teacher and embeds a file or raw arrays."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import teachers
from teachers import check


def run(*options):
    return CliRunner().invoke(check.main, [str(option) for option in options])


@pytest.fixture
def arrays(tmp_path):
    """Writes an .npz of these arrays; its path."""

    def write(**given):
        path = tmp_path / "in.npz"
        np.savez(path, **given)
        return path

    return write


def noise(batch, frames, size=96, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "video": draw.integers(0, 256, (batch, frames, size, size), np.uint8),
        "audio": draw.normal(0, 3000, (batch, 640 * frames)).astype(np.int16),
    }


def test_a_real_clip_is_embedded_as_the_pipeline_does(clips, tmp_path):
    for name, dim in (("lips", 80), ("whisper:tiny.en@3", 384)):
        done = run(name, "--media", clips / "clips" / "bbaf2n.mp4", "--output", tmp_path / "o.npz")
        assert done.exit_code == 0, done.output
        for word in ("frames/s", "times real time", "sha256", "licence", "MB", "finite"):
            assert word in done.output
        with np.load(tmp_path / "o.npz") as found:
            assert found["embedding"].shape == (1, 75, dim)
            assert found["embedding"].dtype == np.float32
            assert found["embedding"].std() > 0


def test_arrays_give_what_the_teacher_gives_for_each_clip_cut_to_its_length(arrays, tmp_path):
    given = noise(3, 30)
    lengths = np.array([30, 12, 0])
    done = run("whisper:tiny.en@3", "--input", arrays(**given, lengths=lengths), "--output", tmp_path / "rows")
    assert done.exit_code == 0, done.output
    teacher = teachers.load("whisper:tiny.en@3")
    with np.load(tmp_path / "rows") as found:
        assert found["embedding"].shape == (3, 30, 384)
        np.testing.assert_array_equal(found["lengths"], lengths)
        assert not found["embedding"][1, 12:].any()
        for i, length in enumerate(lengths):
            none = np.zeros((length, 0))
            clip = teachers.ClipMedia(
                "x", given["audio"][i, : 640 * length], none, none, none, np.full(length, 29, "u1")
            )
            np.testing.assert_allclose(found["embedding"][i, :length], teacher.embed([clip])[0], atol=1e-5)


def test_sound_alone_gives_its_whole_frames(arrays, tmp_path):
    done = run(
        "whisper:tiny.en@3", "--input", arrays(audio=np.ones((2, 640 * 9 + 200), "i2")), "--output", tmp_path / "o"
    )
    assert done.exit_code == 0, done.output
    assert np.load(tmp_path / "o")["embedding"].shape == (2, 9, 384)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("whisper:tiny.en", {"video": np.zeros((1, 9, 88, 88), "u1")}, "give audio"),
        ("lips", {"audio": np.zeros((1, 6400), "i2")}, "give video, lips or blendshapes"),
        ("lips", {"video": np.zeros((1, 9, 88, 88), "f4")}, "expected 4 axes of u1"),
        ("lips", {"video": np.zeros((9, 88, 88), "u1")}, "expected 4 axes"),
        ("lips", {"video": np.zeros((1, 9, 80, 80), "u1")}, "expected .batch, frames, n, n."),
        ("lips", {"sound": np.zeros((1, 6400), "i2")}, "unknown array 'sound'"),
        ("lips", {"lips": np.zeros((1, 9, 40, 2), "f4"), "lengths": np.array([10])}, "between 0 and 9"),
        (
            "lips",
            {"lips": np.zeros((1, 9, 40, 2), "f4"), "audio": np.zeros((2, 640), "i2")},
            "different numbers of clips",
        ),
        ("lips", {"lips": np.zeros((1, 9, 68, 2), "f4")}, "40, 2"),
        ("lips", {"lips": np.array([[None]])}, "without pickle"),
        ("lipsync", {"lips": np.zeros((1, 9, 40, 2), "f4")}, "unknown teacher"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arrays, tmp_path, name, given, says):
    done = subprocess.run(
        [sys.executable, "-m", "teachers.check", name, "--input", arrays(**given), "--output", tmp_path / "o.npz"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("teachers.check: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o.npz").exists()
    assert re.search(says, lines[-1]), lines[-1]


def test_a_checkpoint_that_would_run_a_command_is_refused_by_name(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"cfg": {"model": Trap()}, "model": {}}, tmp_path / "trap.pt")
    done = run(f"avhubert:{tmp_path / 'trap.pt'}")
    assert done.exit_code == 2
    assert "posix.system" in done.output
    assert not (tmp_path / "ran").exists()


@pytest.mark.golden
@pytest.mark.parametrize("model", ["pretrain", "seq2seq"])
@pytest.mark.parametrize("layer", ["@1", "@2", "@3", ""])
def test_avhubert_by_the_command_equals_the_published_rows(shared, arrays, tmp_path, model, layer):
    with np.load(shared / "golden" / "avhubert_features.npz") as golden:
        video, lengths = golden[f"{model}/in/video_u8"], golden[f"{model}/in/lengths"]
        key = f"layer{layer[1:]}" if layer else "final"
        alone, padded = golden[f"{model}/nopad/video/{key}"], golden[f"{model}/pad/video/{key}"]
    name = f"avhubert:{shared / 'golden' / f'avhubert_tiny_{model}.pt'}{layer}"
    assert run(name, "--input", arrays(video=video), "--output", tmp_path / "o.npz").exit_code == 0
    np.testing.assert_allclose(np.load(tmp_path / "o.npz")["embedding"], alone, atol=3e-5, rtol=1e-5)
    assert run(name, "--input", arrays(video=video, lengths=lengths), "--output", tmp_path / "o.npz").exit_code == 0
    found = np.load(tmp_path / "o.npz")["embedding"]
    for rows, theirs, length in zip(found, padded, lengths, strict=True):
        np.testing.assert_allclose(rows[:length], theirs[:length], atol=3e-5, rtol=1e-5)
