"""The distribution as people install it: its wheel, and a folder of theirs in which it must work."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from house import PACKAGES, ROOT

NAMES = (*PACKAGES, "precompute")  # at the top of site-packages


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would bring the checkout onto a search path."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **more}


def built(folder: Path) -> Path:
    """The wheel, built from a copy of what it needs, so that nothing is left in the checkout."""
    source, out = folder / "source", folder / "out"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "tests").mkdir()
    (source / "tests" / "__init__.py").touch()
    for name in ("precompute.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


def full_of_our_names(folder: Path) -> Path:
    """A folder with modules called like ours, each of which fails if it is imported."""
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('the {name} of the current folder')")
    for name in ("numpy", "click", "secrets"):
        (folder / f"{name}.py").write_text("raise RuntimeError('a module of the current folder')")
    return folder
