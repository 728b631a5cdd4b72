"""The `concord` command: every command of the project under one name, each loaded only when it is called."""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import importlib

import click

from concord.command import Group
from concord.commands import COMMANDS
from concord.text import did_you_mean


class Lazy(Group):
    """A group whose commands import their modules when asked for: training must not load Ray, nor inspecting torch."""

    def list_commands(self, ctx: click.Context | None) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context | None, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = did_you_mean(args[0], COMMANDS) or f"; the commands are {', '.join(COMMANDS)}"
            raise click.UsageError(f'no command "{args[0]}"{near}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, does) for name, (_, _, does) in COMMANDS.items()])


@click.command(cls=Lazy, epilog="Example: concord inspect /data/grid.zarr")
def main() -> None:
    """Teacher labels and light students for cross-modal deepfake detection."""


if __name__ == "__main__":
    main()
