"""The house as its imports draw it: modules, folders and arrows, for tests/test_imports.py and docs/architecture.md.

python tests/support/house.py     # draws the tree and the arrows in docs/architecture.md anew
"""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

from concord.text import first_sentence

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PACKAGES = ("concord", "concord_av", "store", "teachers", "pipelines", "student")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MODULES = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in FILES}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def folder_of(path: Path) -> str:
    """The folder within its package, "" for a module beside the folders."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if len(parts) > 2 else ""


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """Full names that a file imports, modules where they are ours, and whether inside a function; not those for types alone."""
    tree = ast.parse(path.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    skipped = {id(node) for block in typing for node in ast.walk(block)}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.append((name if name in MODULES else str(node.module), id(node) in inside))
    return found


def said_of(path: Path) -> str:
    """The first sentence of a module's docstring."""
    return first_sentence(ast.get_docstring(ast.parse(path.read_text())) or "")


def tree() -> str:
    """Every module with the first sentence of its docstring."""
    lines = []
    for path in FILES:
        name = relative(path.parent) + "/" if path.name == "__init__.py" else "  " + path.name
        depth = len(path.relative_to(ROOT).parts) - 2
        lines.append(f"{'  ' * depth}{name:<{26 - 2 * depth}} {said_of(path)}".rstrip())
    return "```text\n" + "\n".join(lines) + "\n```\n"


def arrows() -> str:
    """One line a folder: which others it imports from; modules beside the folders are their package's name alone."""
    found = defaultdict(set)
    for name, path in MODULES.items():
        here = name.partition(".")[0], folder_of(path)
        for other in {o for o, _ in imports(path) if o in MODULES}:
            there = other.partition(".")[0], folder_of(MODULES[other])
            if here != there:
                found["/".join(filter(None, here))].add("/".join(filter(None, there)))
    lines = [f"{name:<20} -> {', '.join(sorted(found[name]))}" for name in sorted(found)]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def drawn(text: str) -> str:
    """A page with the parts between `<!-- tree -->` or `<!-- arrows -->` and `<!-- end -->` drawn anew."""
    for name, new in {"tree": tree(), "arrows": arrows()}.items():
        begin = text.index(f"<!-- {name} -->\n") + len(f"<!-- {name} -->\n")
        end = text.index("<!-- end -->", begin)
        text = text[:begin] + new + text[end:]
    return text


if __name__ == "__main__":
    ARCHITECTURE.write_text(drawn(ARCHITECTURE.read_text()))
