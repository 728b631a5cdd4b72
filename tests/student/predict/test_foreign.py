"""A detector, fit or store from another person decides neither which files are read nor which hosts are contacted."""

import hashlib
import os
import shutil
import socket
import sys

import pytest
import torch
from click.testing import CliRunner
from small_store import make_store

import store
from pipelines.job import request
from store.place import place
from store.similarity import fitfile
from student import checkpoint
from student.models import build
from student.predict.__main__ import main, predict
from student.predict.basis import basis
from student.run.identity import store_identity
from teachers import TeacherError, recorded
from teachers.files import weights
from teachers.files.weights import OtherWeights
from teachers.whisper import teacher as whisper

KINDS = [("asr", "whisper:{}@3"), ("asr", "whisper-exact:{}"), ("vsr", "avhubert:{}@9"), ("asr", "avhubert-audio:{}"),
         ("vsr", "deep_avsr-video:{}"), ("asr", "deep_avsr-audio:{}"), ("vsr", "deep_avsr-video:x.pt,{}")]  # fmt: skip
OPENED: list[str] = []
sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event == "open" else None)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """$CONCORD_WEIGHTS and the cache as empty folders; another folder, with a file that nobody offered, is the working one."""
    for name in ("weights", "cache", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("CONCORD_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "home")
    (tmp_path / "home" / "secret.pt").write_bytes(b"the user's own")
    OPENED.clear()
    return tmp_path


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def opened(name):
    return [path for path in OPENED if path.endswith(name)]


# -- teachers that are files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "name"), KINDS, ids=lambda x: x)
@pytest.mark.parametrize(
    "where", ["{}/home/secret.pt", "secret.pt", "../home/secret.pt", "https://127.0.0.1:9/secret.pt"]
)
def test_a_path_in_a_fit_is_not_opened_and_nobody_tells_whether_it_is_there(folders, side, name, where):
    if "x.pt" in name:
        (folders / "weights" / "x.pt").write_bytes(b"x")
    said = []
    record = {"name": name.format(where.format(folders)), "sha256": sha256(b"the user's own"), "dim": 4}
    for _ in range(2):
        with pytest.raises(TeacherError) as error:
            recorded.load(record, foreign=True)
        said.append(str(error.value))
        (folders / "home" / "secret.pt").unlink(missing_ok=True)
    assert said[0] == said[1]
    assert not opened("secret.pt")


def test_the_command_opens_no_path_that_a_fit_tells(folders, tmp_path):
    fit, made_by, note = fitfile.default()
    vsr = {**made_by["vsr"], "name": f"avhubert:{folders}/home/secret.pt", "sha256": sha256(b"the user's own")}
    fitfile.save(tmp_path / "evil.npz", fit, {**made_by, "vsr": vsr}, note)
    for _ in range(2):
        shutil.copy(tmp_path / "evil.npz", tmp_path / "v.mp4")
        options = ["--teacher-only", "--cpu", "--fit-from", str(tmp_path / "evil.npz")]
        result = CliRunner().invoke(main, [str(tmp_path / "v.mp4"), *options])
        assert result.exit_code == 2, result.output
        assert "no weights 'secret.pt': put the file into $CONCORD_WEIGHTS or" in result.output
        assert "Traceback" not in result.output
        (folders / "home" / "secret.pt").unlink(missing_ok=True)
    assert not opened("secret.pt")


def refuse(path):
    raise AssertionError(f"{path} was parsed")


@pytest.mark.parametrize("foreign", [True, False])
def test_weights_are_compared_before_they_are_parsed(folders, monkeypatch, foreign):
    monkeypatch.setattr("teachers.files.checkpoint.read", refuse)
    (folders / "weights" / "w.pt").write_bytes(b"others")
    path = "w.pt" if foreign else str(folders / "weights" / "w.pt")
    for _, name in KINDS[:-1]:
        with pytest.raises(OtherWeights, match="is not what was recorded"):
            recorded.load({"name": name.format(path), "sha256": sha256(b"these")}, foreign=foreign)
        with pytest.raises(OtherWeights):  # a record without a sum licenses nothing
            recorded.load({"name": name.format(path)}, foreign=foreign)
    with pytest.raises(AssertionError, match=r"w\.pt was parsed"):
        recorded.load({"name": f"whisper:{path}", "sha256": sha256(b"others")}, foreign=foreign)


def test_a_teacher_is_found_by_its_name_where_weights_lie(folders, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    known = weights.resolve("tiny.en.pt", package=whisper.PACKAGES["tiny.en"])
    os.symlink(known.path, folders / "weights" / "mine.pt")
    record = {"name": "whisper:/somewhere/else/mine.pt@3", "sha256": weights.sha256_of(known.path)}
    teacher = recorded.load(record, foreign=True)
    assert teacher.provenance()["sha256"] == record["sha256"]
    assert weights.is_given(str(folders / "weights" / "mine.pt"))  # what was open for that is closed


def test_a_second_file_is_compared_too(folders):
    record = {"name": "deep_avsr-video:v.pt,f.pt", "sha256": "a", "options": {"visual_frontend": {"sha256": "b"}}}
    assert set(recorded._sums(record)) == {"a", "b"}


def test_weights_from_a_url_are_used_where_the_cache_has_them(folders, monkeypatch):
    monkeypatch.setattr("teachers.files.weights.download", lambda *_, **__: refuse("a URL"))
    url = "https://127.0.0.1:9/a/w.pt"
    with weights.recorded([sha256(b"w")], foreign=True):
        with pytest.raises(weights.WeightsError, match="no weights"):
            weights.resolve("w.pt", url=url)
        with pytest.raises(weights.WeightsError, match="no weights"):
            weights.resolve("w.pt", url=url, sha256="of another")
        weights.cached_path("w.pt", url).parent.mkdir()
        weights.cached_path("w.pt", url).write_bytes(b"w")
        assert weights.resolve("w.pt", url=url).sha256 == sha256(b"w")


def test_a_teacher_of_another_package_gets_no_path_of_a_fit(monkeypatch):
    class Point:
        value = "other.package:make"

        @staticmethod
        def load():
            return lambda *_: refuse("an argument")

    monkeypatch.setattr("teachers.base.entry_point", lambda kind: Point)
    with pytest.raises(TeacherError, match="a path is opened only where you give"):
        recorded.load({"name": "theirs:/etc/passwd"}, foreign=True)


def test_the_stores_own_teacher_is_compared_before_it_is_parsed(folders, monkeypatch):
    monkeypatch.setattr("teachers.files.checkpoint.read", refuse)
    path = make_store(folders / "s.zarr", {"train": 2})
    (folders / "w.pt").write_bytes(b"others")
    writer = store.Writer.open(path)
    record = {"name": f"whisper:{folders}/w.pt", "sha256": sha256(b"these"), "dim": 6}
    made_by = {"asr": record, "vsr": {"name": "lips", "sha256": None, "dim": 6}, "face": {"options": {}}}
    writer.update_attrs({"teachers": made_by})
    with pytest.raises(request.UsageError, match=r"w\.pt here are not those that .* was made with: .* restore"):
        request.check(request.Config(place(path)))
    writer.update_attrs({"teachers": {**made_by, "asr": {**record, "sha256": sha256(b"others")}}})
    with pytest.raises(AssertionError, match="was parsed"):
        request.check(request.Config(place(path)))


def test_other_weights_of_a_fit_are_one_line(folders):
    (folders / "weights" / "w.pt").write_bytes(b"others")
    fit, made_by, note = fitfile.default()
    fitfile.save(
        folders / "f.npz", fit, {**made_by, "asr": {"name": "whisper:w.pt", "sha256": sha256(b"x"), "dim": 384}}, note
    )
    with pytest.raises(
        TeacherError, match=r"not those that the fit of .*f\.npz was learned with: .*w\.pt.* --fit-from"
    ):
        next(predict(["x.mp4"], basis(None, str(folders / "f.npz"))))


def test_a_fit_that_names_no_teacher_is_refused(tmp_path):
    fit, made_by, note = fitfile.default()
    for bad in ({}, {"asr": made_by["asr"]}, {"asr": {}, "vsr": made_by["vsr"]}, {**made_by, "vsr": None}):
        fitfile.save(tmp_path / "f.npz", fit, bad, note)
        with pytest.raises(store.StoreError, match=r"does not say which teacher|is not a concord-av fit"):
            basis(None, str(tmp_path / "f.npz"))


# -- the store of a detector's header ----------------------------------------------------------------------------------


@pytest.fixture
def detector(tmp_path):
    """Writes a detector whose header tells of such a store; gives its folder."""

    def made(**told):
        torch.manual_seed(0)
        about = {"threshold": 0.1, "temperature": 2.0, "fitted_on": "x", "window": 25, "config": {}, "store": told}
        checkpoint.save_model(tmp_path, build("lite"), "lite", about)
        return tmp_path

    return made


def test_the_store_of_its_training_is_used_and_named(detector, tmp_path, caplog):
    path = make_store(tmp_path / "s.zarr", {"train": 4})
    caplog.set_level("INFO")
    assert basis(detector(**store_identity(store.open(path)))).source == str(path)
    assert f"the fit of {path}" in caplog.text


@pytest.mark.parametrize("told", ["other", "none", "number"])
def test_another_stores_fit_is_not_taken_for_the_detectors(detector, tmp_path, caplog, told):
    path = make_store(tmp_path / "s.zarr", {"train": 4})
    header = store_identity(store.open(path)) | {"fit": {"other": "0" * 16, "none": None, "number": 7}[told]}
    on = basis(detector(**header))
    assert on.source.startswith("the package")
    assert f"--fit-from {path}" in caplog.text
    assert basis(tmp_path, fit_from=str(path)).source == str(path)  # the user's word


def test_nothing_tells_whether_a_header_s_path_is_there(detector, tmp_path, caplog):
    (tmp_path / "x").mkdir()
    basis(detector(path=str(tmp_path / "x"), fit="0" * 16))
    first = caplog.text.replace("/x", "/y")
    caplog.clear()
    basis(detector(path=str(tmp_path / "y"), fit="0" * 16))
    assert caplog.text == first
    for odd in ("\0", "x" * 5000, "~", "/dev/stdin", "", 7, ["a"]):
        assert basis(detector(path=odd, fit="0" * 16)).source.startswith("the package")


@pytest.mark.parametrize("url", ["s3://evil/x", "gs://evil/x", "file:///{}"])
def test_a_header_sends_no_request(detector, tmp_path, monkeypatch, caplog, url):
    path = make_store(tmp_path / "s.zarr", {"train": 4})
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        for name, value in {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}", "AWS_ALLOW_HTTP": "true",
                            "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("store.open", refuse)
        on = basis(detector(**store_identity(store.Reader(path)) | {"path": url.format(path)}))
        assert on.source.startswith("the package")
        with pytest.raises(BlockingIOError):
            server.accept()
    assert f"--fit-from {url.format(path)}" in caplog.text
