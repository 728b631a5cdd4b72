"""List all benchmarks, or run one: `python -m benchmarks`, `python -m benchmarks NAME [options]`.

A benchmark is a module with a click command `main`, in a folder of `benchmarks` or beside this file; its name is the module's,
and the first sentence of its docstring is what the list shows. Only the module that runs is imported.
"""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import ast
import importlib
from pathlib import Path

import click

from concord.command import Group
from concord.text import first_sentence

FOLDER = Path(__file__).parent
WIDTH = 13  # letters of the longest name


def found() -> dict[str, str]:
    """Module of every benchmark by the benchmark's name, folder by folder."""
    files = [*sorted(FOLDER.glob("*/*.py")), *sorted(FOLDER.glob("*.py"))]
    return {
        path.stem: ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
        for path in files
        if path != Path(__file__) and _has_main(path)
    }


def _has_main(path: Path) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(path.read_text()).body)


def described(module: str) -> str:
    """First sentence of a module's docstring, read without importing it."""
    text = FOLDER.parent.joinpath(*module.split(".")).with_suffix(".py").read_text()
    return first_sentence(ast.get_docstring(ast.parse(text)) or "")


class Benchmarks(Group):
    """A group whose commands are the benchmarks, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(found())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        module = found().get(name)
        return importlib.import_module(module).main if module else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        folder = ""
        for name, module in found().items():
            if module.split(".")[-2] != folder:
                folder = module.split(".")[-2]
                formatter.write(f"\n{folder}\n")
            formatter.write(f"  {name:<{WIDTH}} {described(module)}\n")


@click.command(cls=Benchmarks, invoke_without_command=True, epilog="Example: python -m benchmarks student --rounds 3")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Run one benchmark; without a name, list them all. `python -m benchmarks NAME --help` shows the options of one."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
