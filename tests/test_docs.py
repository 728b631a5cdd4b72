"""The docs keep true: links, images, options and modules are there, examples run, and the walks name what exists."""

import ast
import functools
import importlib
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
from house import MODULES, ROOT, folder_of
from small_store import make_store

import concord
import teachers
from benchmarks.__main__ import main as benchmarks
from concord.__main__ import Lazy
from concord.commands import COMMANDS

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
MOST_BYTES_OF_AN_IMAGE = 1 << 20
SCRIPTS = {"precompute.py": "precompute", "student/train.py": "train"}  # run by their paths
NO_COMMAND = {"pytest", "venv", "build", "teachers.fetch", "tests.support.house"}  # without options of ours
ELSEWHERE = {  # options of other programs that the docs mention outside a command line
    "--cpu", "--num_processes", "--nproc_per_node", "--machine_rank", "--main_process_ip", "--config_file",  # accelerate
    "--tmux", "--working-dir", "--shm-size", "--index-url",  # ray, docker, pip
}  # fmt: skip

per_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(line.lstrip("#")) for line in page.read_text().splitlines() if re.match(r"#{1,6} ", line)}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", page.read_text())


def blocks(page: Path) -> list[tuple[str, str]]:
    """Fenced Python of a page, each with the comment before it that says what it is."""
    return re.findall(r"(?:<!-- (.*?) -->\n)?```python\n(.*?)```", page.read_text(), re.DOTALL)


def block(page: str, mark: str) -> str:
    return next(code for said, code in blocks(ROOT / page) if said == mark)


@per_page
def test_every_link_leads_somewhere(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_image_is_shown_and_small():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    images = [path for path in (ROOT / "docs" / "images").iterdir() if not path.name.startswith(".")]
    assert [path.name for path in images if path.resolve() not in shown] == []
    assert max(path.stat().st_size for path in images) < MOST_BYTES_OF_AN_IMAGE


# ------------------------------------------------------------------------------------------------ options and commands


@functools.cache
def command(name: str) -> click.Command:
    """A command by what the docs call it: a name of `concord`, or a module."""
    if name in COMMANDS:
        found = Lazy().get_command(None, name)
        assert found is not None
        return found
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    return module.main


def options(of: click.Command) -> set[str]:
    return {"--help", *(name for param in of.params for name in (*param.opts, *param.secondary_opts))}


@functools.cache
def all_options() -> frozenset[str]:
    names = [
        *(name for name in COMMANDS if COMMANDS[name][1]),
        "pipelines.demo",
        "pipelines.default_fit",
    ]
    ours = set().union(options(benchmarks), *(options(command(name)) for name in names))
    return frozenset(ours).union(
        *(options(benchmarks.get_command(None, name)) for name in benchmarks.list_commands(None))
    )


def command_lines(text: str) -> list[tuple[click.Command, str]]:
    """Every command of ours in a page, with the rest of its line (or of its `...`)."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for part in re.split(r"[`|;]|&&|  # |   #", line):
            words = part.split()
            for k, word in enumerate(words):
                rest = " ".join(words[k + 1 :])
                before = words[k - 1] if k else ""
                if word in SCRIPTS:
                    found.append((command(SCRIPTS[word]), rest))
                elif before == "concord" and word in COMMANDS and COMMANDS[word][1]:
                    found.append((command(word), rest))
                elif before == "-m" and word == "benchmarks" and rest[:1].islower():
                    name, _, rest = rest.partition(" ")
                    found.append((benchmarks.get_command(None, name), rest))
                elif before == "-m" and re.fullmatch(r"[a-z_.]+", word) and word not in {*NO_COMMAND, "benchmarks"}:
                    found.append((command(word.rstrip(".,")), rest))
    return found


def used(rest: str) -> list[str]:
    return re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", rest)


@per_page
def test_every_option_in_a_command_line_is_there(page):
    for of, rest in command_lines(page.read_text()):
        for option in used(rest):
            assert option in options(of), f"{of.name} {rest}"


def test_command_lines_are_found():
    text = "run `python -m pipelines.audit --html X`, then\n"
    text += "    ray submit c.yaml precompute.py --address auto --refit  # --not\n"
    text += "    concord doctor --json\n    python -m benchmarks step --large\n"
    found = [(of.name, used(rest)) for of, rest in command_lines(text)]
    assert [options for _, options in found] == [["--html"], ["--address", "--refit"], ["--json"], ["--large"]]


@per_page
def test_every_option_that_is_mentioned_is_there(page):
    known = all_options() | ELSEWHERE
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text()):
        words = shlex.split(code, posix=False) if code.startswith("-") else []
        for option in words[:1]:
            if re.fullmatch(r"--[a-z][\w-]*|-o", option):
                assert option in known, code


# ------------------------------------------------------------------------------------------------ examples


@per_page
def test_python_compiles(page):
    for _, code in blocks(page):
        compile(code, page.name, "exec")


def test_the_readme_reads_a_store(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 4}, frames=80)
    code = block("README.md", "").replace("/tmp/grid.zarr", str(path))
    compiled = compile(code, "README.md", "exec")
    exec(compiled, {})


def module(name: str, code: str, monkeypatch) -> types.ModuleType:
    """A module of the docs, importable until the test ends."""
    made = types.ModuleType(name)
    exec(compile(code, name, "exec"), made.__dict__)
    monkeypatch.setitem(sys.modules, name, made)
    package, _, last = name.rpartition(".")
    monkeypatch.setattr(sys.modules[package], last, made, raising=False)
    return made


@pytest.mark.parametrize(("group", "name"), [("teachers", "loudness"), ("corpora", "talkshow")])
def test_the_toys_of_contributing_keep_their_contracts(group, name, monkeypatch, tmp_path):
    """With the entry point of the page, in an installed package of its own."""
    line = re.search(rf"^ +({name} = (.+):\w+)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    package = tmp_path / "site" / "toy-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[concord.{group}]\n{line[1]}\n")
    monkeypatch.syspath_prepend(package.parent)
    what = {"teachers": "teacher", "corpora": "corpus"}[group]
    importlib.import_module("pipelines.corpora.manifest")
    module(line[2], block("CONTRIBUTING.md", f"toy {what}"), monkeypatch)
    test = tmp_path / f"test_{name}.py"
    test.write_text(block("CONTRIBUTING.md", f"toy {what}'s test"))
    assert pytest.main(["-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(test)]) == 0


def test_the_toy_teacher_takes_no_argument(monkeypatch):
    made = module("teachers.loudness", block("CONTRIBUTING.md", "toy teacher"), monkeypatch)
    with pytest.raises(teachers.TeacherError, match="takes no argument, got 'x'"):
        made.load("x", "cpu")


def test_git_ignores_what_the_commands_of_the_readme_leave_here():
    text = (ROOT / "README.md").read_text()
    left = {f"{name}/x" for name in re.findall(r"--output (\w[\w/]*)", text)} | set(
        re.findall(r"open (demo/\S+)", text)
    )
    left |= set(re.findall(r"[\w.-]+\.whl", text)) | {".venv/bin/python", "concord_av.egg-info/PKG-INFO", "build/lib"}
    assert left >= {"runs/first/x", "demo/report/index.html", "concord_av-0.1.0-py3-none-any.whl"}
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    done = subprocess.run(["git", "check-ignore", *left], cwd=ROOT, capture_output=True, text=True)
    assert set(done.stdout.split()) == left


# ------------------------------------------------------------------------------------------------ walks


def walks() -> dict[str, list[tuple[str, str]]]:
    """Of each walk in docs/architecture.md its steps as (file, name in it)."""
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## Four walks")[2].partition("\n## ")[0]
    found = {}
    for part in re.split(r"\n### ", text)[1:]:
        rows = re.findall(r"^\| `([\w/]+\.py)` \| `([\w.]+)` \|", part, re.MULTILINE)
        found[part.partition("\n")[0]] = rows
    return found


def test_there_are_four_walks():
    assert len(walks()) == 4
    assert all(len(steps) > 4 for steps in walks().values())


@pytest.mark.parametrize("walk", walks())
def test_a_walk_names_what_exists(walk):
    for file, name in walks()[walk]:
        assert (ROOT / file).is_file(), file
        tree: ast.AST = ast.parse((ROOT / file).read_text())
        for part in name.split("."):
            kinds = ast.ClassDef | ast.FunctionDef
            inner = [node for node in tree.body if isinstance(node, kinds) and node.name == part]
            assert inner, f"{file}: {name}"
            tree = inner[0]


@pytest.mark.parametrize("walk", walks())
def test_a_walk_turns_back_across_a_folder_once_at_most(walk):
    places = []
    for file, _ in walks()[walk]:
        path = ROOT / file
        place = f"{file.partition('/')[0]}/{folder_of(path)}" if path in MODULES.values() else file
        if not places or places[-1] != place:
            places.append(place)
    returns = len(places) - len(set(places))
    assert returns <= 1, places


# ------------------------------------------------------------------------------------------------ release


def test_the_version_is_the_same_everywhere():
    def found(file: str, pattern: str) -> set[str]:
        return set(re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE))

    assert found("CITATION.cff", r"^version: (\S+)$") == {concord.__version__}
    for file in ("docs/cluster.md", "docs/kuberay.yaml", "docs/Dockerfile"):
        assert found(file, r"concord-av:(\d[\w.]*)") == {concord.__version__}, file
    assert concord.__version__ in found("CHANGELOG.md", r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$")


def test_pages_that_messages_name_are_there():
    named = {
        (path.relative_to(ROOT), page, anchor)
        for path in MODULES.values()
        for page, anchor in re.findall(r"\b(docs/\w+\.md)(?:#([\w-]+))?", path.read_text())
    }
    assert len(named) > 5
    for path, page, anchor in sorted(named):
        assert (ROOT / page).is_file(), f"{path}: {page}"
        assert not anchor or anchor in anchors(ROOT / page), f"{path}: {page}#{anchor}"
