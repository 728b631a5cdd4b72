"""The direction of imports: which top-level package may import which, and what training must never load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"store", "teachers", "pipelines", "student", "precompute", "concord", "benchmarks"}
ALLOWED = {
    "store": set(),
    "teachers": set(),
    "pipelines": {"teachers", "store"},
    "student": {"store"},
}
# Modules that may reach further, inside functions only.
INSIDE_FUNCTIONS = {
    "student/predict/__main__.py": {"pipelines", "teachers"},
    "student/experiment.py": {"pipelines", "teachers"},
    "student/models/weights.py": {"teachers"},  # the reader of checkpoints that runs nothing
    "teachers/check.py": {"pipelines", "store"},
}
ONLY_IN = {"ray": "pipelines", "accelerate": "student", "zarr": "store"}


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module.partition(".")[0]]
    return []


def imports(path: Path) -> list[tuple[str, bool]]:
    """Top-level names that a file imports, and whether it does so inside a function."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    return [(name, id(node) in inside) for node in ast.walk(tree) for name in imported(node)]


FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    relative = path.relative_to(ROOT).as_posix()
    package = path.relative_to(ROOT).parts[0]
    for name, in_function in imports(path):
        if name in OURS and name != package:
            further = INSIDE_FUNCTIONS.get(relative, set()) if in_function else set()
            assert name in ALLOWED[package] | further, f"{relative} imports {name}"
        if name in ONLY_IN:
            assert package == ONLY_IN[name], f"{relative} imports {name}, which belongs in {ONLY_IN[name]}/"


def test_similarity_is_numpy_alone():
    for module in ("similarity", "posteriors"):
        names = {name for name, _ in imports(ROOT / "store" / f"{module}.py")}
        assert names <= {"numpy", "__future__", "dataclasses", "typing", "collections", "store"}
    assert "from store import posteriors\n" in (ROOT / "store" / "similarity.py").read_text()


def loads(module: str) -> set[str]:
    """Top-level names of everything that a fresh interpreter has loaded after importing a module."""
    code = f"import sys, {module}; print(' '.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_training_needs_no_teacher_and_no_cluster():
    assert not loads("student.train") & {"ray", "whisper", "fairseq", "mediapipe", "av", "teachers", "pipelines"}


def test_the_store_needs_no_torch():
    assert not loads("store") & {"torch", "ray", "accelerate", "mediapipe"}


def test_every_module_can_be_imported():
    """Benchmarks, too, which no other test runs."""
    files = [path for top in (*ALLOWED, "benchmarks") for path in sorted((ROOT / top).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    found = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
