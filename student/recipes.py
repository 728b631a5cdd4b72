"""The configurations that come with the package (`student/configs`), found by name from any folder: `python -m
student.recipes`.

Recipes are options of `student.train` (`--config strangers`); the others are for `accelerate launch --config_file`,
which wants a path: this command prints it.
"""

from __future__ import annotations

from pathlib import Path

import click

from concord.command import Command, put, say
from student.config import ConfigError

FOLDER = Path(__file__).parent / "configs"
ACCELERATE = "compute_environment:"  # a line that only Accelerate's have


def names(recipe: bool) -> list[str]:
    """Names of the recipes, or of Accelerate's configurations, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if (ACCELERATE not in path.read_text()) == recipe)


def find(given: Path) -> Path:
    """The file of a recipe: `given` itself if it exists, else the packaged one called so, as a name (strangers) or as
    it is called in a checkout (configs/strangers.yaml). Raises ConfigError if there is neither."""
    if given.is_file():
        return given
    name = given.name.removesuffix(".yaml")
    if name in names(recipe=True) and str(given) in (name, f"configs/{name}.yaml"):
        return FOLDER / f"{name}.yaml"
    raise ConfigError(
        f"there is no configuration {given}: give a file, or the name of a recipe ({', '.join(names(recipe=True))})"
    )


@click.command(
    cls=Command,
    epilog='\b\nExample:\n  accelerate launch --config_file "$(concord configs gpus)" -m student.train --store STORE '
    "--output RUN",
)
@click.argument("name", required=False)
def main(name: str | None) -> None:
    """List the configurations that come with the package, or print the path of the one called NAME."""
    if name is None:
        for recipe, use in ((True, "concord train --config"), (False, "accelerate launch --config_file")):
            for one in names(recipe):
                first = (FOLDER / f"{one}.yaml").read_text().partition("\n")[0]
                say(f"{one:10} {first.lstrip('# ').partition(':')[0]} ({use})")
        return
    if name not in (known := names(True) + names(False)):
        raise ConfigError(f"there is no configuration '{name}'; there is {', '.join(sorted(known))}")
    put(str(FOLDER / f"{name}.yaml"))


if __name__ == "__main__":
    main()
