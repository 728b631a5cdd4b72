"""The doctor: real checks of this machine, what it says of broken ones, and of the nodes of a cluster."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.doctor import __main__ as doctor
from pipelines.doctor import asking, checks, machine, nodes, packages
from pipelines.doctor.asking import Answer
from pipelines.doctor.checks import Request
from pipelines.doctor.machine import Finding
from teachers import voice
from teachers.face import tracker as face
from teachers.files import face_model, weights
from teachers.whisper import teacher as whisper


def test_this_machine_is_fit(tmp_path, clips):
    """What the other tests need is here, so every check must be ok or worth a look at most."""
    arguments = ["--store", str(tmp_path / "labels.zarr"), "--corpus", f"grid:{clips}", "--teacher", "lips", "--json"]
    done = CliRunner().invoke(doctor.main, arguments, env={"RAY_ADDRESS": None})
    told = json.loads(done.stdout)
    found = {finding["check"]: finding for finding in told["findings"]}
    assert [finding for finding in told["findings"] if finding["level"] == "fail"] == []
    assert (done.exit_code, told["ok"]) == (0, True)
    assert {"python", "packages", "libraries", "teachers", "corpora", "code"} <= found.keys()
    assert {"face model", "whisper", "voice", "face stage", "lips", "corpus", "store"} <= found.keys()
    assert {"disk", "memory", "object store", "open files", "gpu"} <= found.keys()
    assert "whisper" in found["teachers"]["says"]
    assert not list(tmp_path.iterdir()), "the probe file was left behind"


def test_code_that_differs_anywhere_has_another_mark(tmp_path, monkeypatch):
    assert {"concord", "pipelines", "store", "teachers", "setup.cfg"} <= {path.name for path in checks.HERE.iterdir()}
    for package in ("concord", "pipelines", "store", "teachers"):
        shutil.copytree(checks.HERE / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    here = checks.code().facts
    monkeypatch.setattr(checks, "HERE", tmp_path)
    assert checks.code().facts == here
    with (tmp_path / "pipelines" / "media" / "sound.py").open("a") as file:
        file.write("# changed\n")
    assert checks.code().facts != here


def test_another_python_fails():
    assert [checks.python((3, minor, 4)).level for minor in (10, 11, 12, 13, 14)] == ["fail", "ok", "ok", "ok", "fail"]
    assert "python3.11" in checks.python((3, 10, 4)).mend


def test_a_package_of_another_version_fails_and_the_range_is_named():
    wrong, *_ = packages.check(["numpy<2,>=1", "no-such-package==2.0", "xarray==1.0; extra == 'dev'"])
    assert wrong.level == "fail"
    assert wrong.mend == "pip install 'numpy<2,>=1' 'no-such-package==2.0'"
    assert "no-such-package is missing" in wrong.says
    assert "xarray" not in wrong.says


def test_an_extra_that_is_not_there_is_worth_a_look_and_fails_only_where_it_is_needed():
    lines = ["numpy", "no-such-package>=2; extra == 'predict'", "concord-av[predict]; extra == 'precompute'"]
    lines += ["another>=1; extra == 'precompute'", "one-more; python_version < '3' and extra == 'predict'"]
    found = packages.check(lines)
    assert [(finding.check, finding.level) for finding in found[:3]] == [
        ("packages", "ok"), ("predict", "warn"), ("precompute", "warn"),
    ]  # fmt: skip
    assert [finding.mend for finding in found[1:3]] == [
        "pip install 'concord-av[predict]'", "pip install 'concord-av[precompute]'",
    ]  # fmt: skip
    assert "no-such-package" in found[1].says
    assert "another" in found[2].says
    assert [finding.level for finding in packages.check(lines, needs=("precompute",))[:3]] == ["ok", "warn", "fail"]


def test_a_part_with_a_wrong_version_names_its_range():
    found = packages.check(["numpy", "scipy<1; extra == 'predict'"])[1]
    assert (found.level, found.mend) == ("warn", "pip install 'scipy<1'")


def test_ranges_newer_than_the_installation_count(tmp_path):
    assert packages.check(here=packages.HERE)[0].level == "ok"
    (tmp_path / "setup.cfg").write_text("[options]\ninstall_requires =\n    # why\n    numpy==1.0.0\n")
    assert packages.check(here=tmp_path)[0].mend == "pip install 'numpy==1.0.0'"


def test_a_local_build_satisfies_its_range():
    has = machine.version_of("torch").partition("+")[0]
    assert packages.check([f"torch=={has}"])[0].level == "ok"


def test_without_the_extra_no_model_is_looked_for(monkeypatch):
    monkeypatch.setattr(packages, "declared", lambda here: ["numpy", "no-such-package; extra == 'predict'"])
    found = {finding.check: finding for finding in checks.run(Request())}
    assert found["predict"].level == "warn"
    assert found.keys().isdisjoint({"face model", "whisper", "voice", "face stage"})


def test_a_missing_system_library_fails_and_its_package_is_named():
    finding = checks.libraries({"libnosuch.so.7": "libnosuch7", "libc.so.6": "libc6"})
    assert (finding.level, finding.mend) == ("fail", "sudo apt-get install -y libnosuch7")
    assert "libc.so.6" not in finding.says


@pytest.fixture
def no_models(tmp_path, monkeypatch):
    """A machine without any model: an empty cache, no folder of the user's, no package that ships them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CONCORD_WEIGHTS", raising=False)
    absent = weights.Package("no-such-package", "no_such_package", "nothing")
    for module in (face_model, voice):
        monkeypatch.setattr(module, "PACKAGE", absent)
    monkeypatch.setitem(whisper.PACKAGES, whisper.DEFAULT, absent)


def test_missing_models_are_named_and_nothing_is_downloaded(no_models, monkeypatch):
    """The face model is fetched by the first run; the others come with an extra."""
    monkeypatch.setattr(weights, "download", lambda *a, **k: pytest.fail("the doctor downloads"))
    found = checks.models()
    assert [finding.level for finding in found] == ["warn", "fail", "fail"]
    assert [finding.mend for finding in found] == ["concord fetch", *["pip install 'concord-av[offline]'"] * 2]


def test_a_model_that_is_not_the_right_one_fails(no_models, tmp_path):
    cached = weights.cached_path(face.MODEL)
    cached.parent.mkdir()
    cached.write_bytes(b"something else")
    finding = checks.models()[0]
    assert finding.level == "fail"
    assert str(cached) in finding.says
    assert finding.mend.startswith("remove that file")


def test_an_unknown_teacher_fails():
    assert checks.teacher("nosuch:thing").level == "fail"


def test_shared_memory_that_is_too_small_for_rays_objects_is_worth_a_look(tmp_path):
    finding = machine.shared_memory(1 << 60)
    assert finding.level == "warn"
    assert "--shm-size" in finding.mend
    assert machine.shared_memory(1).level == "ok"
    assert machine.shared_memory(1, tmp_path / "none").level == "warn"


def test_a_corpus_file_that_cannot_be_read_fails(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert checks.media([str(tmp_path / "a.mp4")], {}).level == "ok"
    finding = checks.media([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")], {})
    assert finding.level == "fail"
    assert "b.mp4" in finding.says


def test_a_node_that_does_not_see_the_stores_place_fails(tmp_path):
    request = Request(probe=str(tmp_path / "elsewhere" / ".doctor-1"), mark=".doctor-1.node")
    assert checks.shared_place(request).level == "fail"
    assert not (tmp_path / "elsewhere").exists(), "a mount that is missing must not be hidden by a folder"


def test_a_store_in_a_bucket_is_written_to_and_left_as_it_was(s3):
    from store.place import place

    answers = doctor.examine(None, Request(), store=f"{s3}/labels.zarr")
    (told,) = [answer.finding for answer in answers if answer.finding.check == "store"]
    assert told.level == "ok"
    assert f"{s3}/labels.zarr" in told.says
    assert place(s3).files() == {}


def test_a_bucket_that_is_not_there_fails(s3):
    probe, finding = doctor._written("s3://no-such-bucket/labels.zarr", Request())
    assert probe is None
    assert finding.level == "fail"
    assert "no-such-bucket" in finding.says


def test_a_corpus_in_a_bucket_is_read(s3, clips):
    from store.place import place

    (place(s3) / "a.mp4").write(next(clips.glob("clips/*.mp4")).read_bytes())
    (place(s3) / "list.csv").write(f"path\n{s3}/a.mp4\n{s3}/none.mp4\n".encode())
    paths, problem = doctor._media(f"csv:{s3}/list.csv", Request())
    assert problem is None
    assert paths == (f"{s3}/a.mp4", f"{s3}/none.mp4")
    assert checks.media(paths[:1], {}).level == "ok"
    assert checks.media(paths, {}).level == "fail"


def test_a_node_whose_writing_is_not_seen_fails(tmp_path):
    request = Request(probe=str(tmp_path / ".doctor-1"), mark=".doctor-1.node")
    told = [Finding("store", "ok", "can be read and written")]
    assert nodes._seen(request, list(told))[0].level == "fail"
    (tmp_path / ".doctor-1.node").write_bytes(b"here")
    assert nodes._seen(request, list(told))[0].level == "ok"


def test_a_store_in_a_folder_that_is_not_there_fails(tmp_path):
    probe, finding = doctor._written(str(tmp_path / "a" / "b.zarr"), Request())
    assert probe is None
    assert (finding.level, finding.mend) == ("fail", f"mkdir -p {tmp_path / 'a'}")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("off", "level"), [(0.0, "ok"), (5.0, "warn"), (-120.0, "fail")])
def test_a_clock_that_is_off(off, level):
    assert nodes._skew(lambda: time.time() + off).level == level


def test_checks_that_do_not_run_are_a_finding():
    (finding,) = asking.findings_of((1, "", "Traceback\nModuleNotFoundError: No module named 'pipelines'\n"))
    assert finding.level == "fail"
    assert "No module named 'pipelines'" in finding.says


def test_nodes_that_agree_share_a_line_and_a_difference_is_named():
    same = Finding("code", "ok", "0.1", facts={"code": "aaaa"})
    other = Finding("code", "ok", "0.2", facts={"code": "bbbb"})
    bad = Finding("libraries", "fail", "cannot be loaded: libEGL.so.1", "sudo apt-get install -y libegl1")
    answers = [Answer(node, same) for node in "abcdef"] + [Answer("g", other)] + [Answer(node, bad) for node in "bc"]
    (differs,) = [a.finding for a in nodes._same(answers) if a.finding.check == "code"]
    assert differs.level == "fail"
    assert "aaaa on a, b, c, d and 2 more" in differs.says
    assert "bbbb on g" in differs.says
    lines = list(doctor.text(answers))
    assert len(lines) == 4
    assert "(b, c)" in lines[1]
    assert lines[2].strip() == "fix:  sudo apt-get install -y libegl1"
    assert lines[3] == "7 ok, 0 to look at, 2 failed on 7 nodes"


def test_no_cluster_fails(monkeypatch):
    done = CliRunner().invoke(doctor.main, ["--address", "127.0.0.1:1"])
    assert done.exit_code == 1
    assert "no cluster at 127.0.0.1:1" in done.output


@pytest.mark.slow
def test_every_node_of_a_cluster_is_asked(tmp_path, clips):
    """Three nodes on this machine: a good one, one whose face model is damaged, one whose installation is broken."""
    from ray.cluster_utils import Cluster

    damaged, shadow = tmp_path / "weights", tmp_path / "shadow"
    damaged.mkdir()
    (damaged / face.MODEL).write_bytes(b"damaged")
    broken = shadow / "pipelines" / "doctor"
    broken.mkdir(parents=True)
    for package in (broken.parent, broken):
        (package / "__init__.py").write_text("")
    (broken / "checks.py").write_text("import no_such_package")
    store = tmp_path / "stores"
    store.mkdir()
    size = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        cluster.add_node(**size, env_vars={"CONCORD_WEIGHTS": str(damaged)})
        cluster.add_node(**size, env_vars={"PYTHONPATH": str(shadow)})
        command = [sys.executable, "-m", "pipelines.doctor", "--json", "--address", cluster.address]
        command += ["--store", str(store / "labels.zarr"), "--corpus", f"grid:{clips}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], env=os.environ)
    finally:
        cluster.shutdown()
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)["findings"]
    failed = {(f["node"], f["check"]): f["says"] for f in told if f["level"] == "fail"}
    nodes = {f["node"] for f in told} - {"cluster", asking.HERE}
    assert len(nodes) == 3
    assert sorted(check for _, check in failed) == ["checks", "face model"]
    assert len({node for node, _ in failed}) == 2
    assert any("mismatch" in says for says in failed.values())
    assert any("no_such_package" in says for says in failed.values())
    levels = {(f["node"], f["check"]): f["level"] for f in told}
    good = next(node for node in nodes if node not in {name for name, _ in failed})
    assert {levels[good, check] for check in ("store", "corpus", "clock", "face stage")} == {"ok"}
    assert levels["cluster", "dashboard"] == "ok"
    assert not list(store.iterdir())


def test_the_checks_run_where_every_library_is_missing():
    """A node's Python may lack all of them; the findings say which."""
    ours = {"concord", "pipelines", "store", "teachers"}
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] not in {{*sys.stdlib_module_names, *{ours!r}}}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from pipelines.doctor import checks, machine\n"
        "print(machine.disk().level, machine.memory().level)\n"
    )
    root = Path(__file__).parents[3]
    run = [sys.executable, "-P", "-c", code]
    done = subprocess.run(run, cwd=root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2
