"""List all benchmarks, run one, or all speeds at once: `python -m benchmarks`, `python -m benchmarks NAME [options]`,
`python -m benchmarks --quick`, `python -m benchmarks --all`.

A benchmark is a module with a click command `main`, in a folder of `benchmarks` or beside this file; its name is the module's,
and the first sentence of its docstring is what the list shows. Only the module that runs is imported.
"""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import ast
import importlib
import sys
from pathlib import Path

import click

from concord.command import Group, json_option
from concord.text import first_sentence

FOLDER = Path(__file__).parent
NAMES = ("formats", "workers", "growth", "teachers", "training", "precompute")  # of the parts of --quick and --all
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


@click.command(
    cls=Benchmarks,
    invoke_without_command=True,
    epilog="\b\nExamples:\n  python -m benchmarks --quick --plot speed.png\n  python -m benchmarks student --rounds 3\n"
    "Exit codes of --quick and --all: 0 all was measured; 3 some was not, and the table says why.",
)
@click.option("--quick", is_flag=True, help="All speeds on small samples: one table, a few minutes.")
@click.option("--all", "everything", is_flag=True, help="All speeds as docs/performance.md shows them: about an hour.")
@click.option(
    "--part", "chosen", multiple=True, type=click.Choice(NAMES), help="Of those only this one; may be repeated."
)
@click.option("--corpus", metavar="KIND:ROOT", help="Clips for precompute.  [default: the shipped ones, repeated]")
@click.option("--minutes", type=click.FloatRange(0.01), help="For all parts together.  [default: 12 quick, 90 all]")
@json_option("Write every figure of --quick or --all as JSON; - for standard output, without the table.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png", help="Draw them, too.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
@click.pass_context
def main(
    ctx: click.Context, quick: bool, everything: bool, chosen: tuple[str, ...], corpus: str | None,
    minutes: float | None, json_file: Path | None, plot: Path | None,
) -> None:  # fmt: skip
    """Run one benchmark, or all speeds at once; without either, list them. `python -m benchmarks NAME --help` shows the options
    of one."""
    if ctx.invoked_subcommand is not None:
        if quick or everything:
            raise click.UsageError("--quick and --all run all speeds; leave them out to run one benchmark by its name")
        return
    if not quick and not everything:
        if chosen or corpus or minutes or json_file or plot:
            raise click.UsageError("say how much to measure: --quick or --all")
        click.echo(ctx.get_help())
        return
    if quick and everything:
        raise click.UsageError("take one of --quick and --all")
    from benchmarks.suite import everything as suite

    sys.exit(suite.run(quick, chosen, corpus, minutes, {"json": json_file, "plot": plot}))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
