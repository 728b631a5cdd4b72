"""What an experiment is asked: stores, sizes, seeds, and where its tables go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from concord.errors import ConcordError


class ExperimentError(ConcordError):
    """An experiment cannot be made from these stores or options; one line that says what it needs."""


@dataclass(frozen=True)
class Sizes:
    """How large an experiment is: seeds, steps of training, clips to train on, clips of each corpus to judge on, and how
    many methods or sources are held out in turn: the largest, or those of `held`."""

    seeds: int
    steps: int
    clips: int
    judged: int
    folds: int = 10
    held: tuple[str, ...] = ()


FULL = Sizes(seeds=3, steps=400, clips=800, judged=200)
QUICK = Sizes(seeds=1, steps=2, clips=24, judged=12, folds=2)  # to see that everything works; its figures mean nothing


@dataclass(frozen=True)
class Asked:
    """One request. `stores`: the first is trained on, all are judged. `videos`: files for `cost`. `kind`, `students`: of
    `accents`, the similarity that is fitted, and whether students are trained too. `arms`: of those that hold something out,
    all if empty. `config`: a file of options of student.train, or the name of a recipe, for all of these arms. `command`: as
    typed.
    """

    protocol: str
    stores: tuple[str, ...]
    output: Path
    sizes: Sizes
    videos: tuple[str, ...] = ()
    model: str = "lite"
    threads: int = 0
    kind: str = "fused"
    students: bool = True
    corruptions: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    config: Path | None = None
    quick: bool = False
    command: str = ""

    @property
    def seeds(self) -> range:
        return range(self.sizes.seeds)
