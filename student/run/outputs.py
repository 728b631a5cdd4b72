"""The files in a run's folder for people and for later commands: config.json, results.json, the detector and its card.

`student.run_state` writes checkpoints, `student.run.lines` the log.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from store import Reader, seen
from store.similarity import grounds
from store.similarity.strangers import NAME
from student import checkpoint
from student.config import TrainConfig, write_json
from student.data.splits import Split
from student.header import NOT_FITTED, TAUGHT
from student.models.weights import Loaded
from student.run import card
from student.run.identity import peak_memory, store_identity, versions
from student.run.state import Best, Facts, State, Validation
from student.scoring.score import MIN_FRAMES


@dataclass(frozen=True)
class Outputs:
    """The folder of one run, and the facts that are constant during it."""

    folder: Path
    config: TrainConfig
    reader: Reader
    split: Split
    facts: Facts

    def begin(self, model: nn.Module, init_from: Loaded | None) -> None:
        """Write config.json: the options of the run, and its data."""
        clips = {name: len(rows) for name, rows in self.split.rows.items()}
        asked = {
            "config": self.config.to_dict(),
            "init_from": asdict(init_from) if init_from else None,
            "model_options": checkpoint.options_of(model),
        }
        write_json(self.folder / "config.json", asked | {"clips": clips} | self._always())

    def detector(self, model: nn.Module, best: Best | None, epoch: int, step: int) -> None:
        """Write the weights, with everything that scoring needs in their header, and the model card.

        `best`: validation figures of these weights; None if nothing was validated.
        """
        figures = best.figures if best else Validation()
        fitted = figures.trials > 0
        about = {
            "threshold": figures.threshold,
            "temperature": figures.temperature,
            "fitted_on": f"validation, {figures.trials} trials" if fitted else NOT_FITTED,
            "calibrated_on": self._grounds(figures.alarms) if fitted else {},
            **({NAME: figures.strangers.told()} if fitted and figures.strangers else {}),
            "window": self.facts.window,
            "epoch": epoch,
            "step": step,
            "config": self.config.to_dict(),
            "store": store_identity(self.reader),
            "clips": self._keys,
            "versions": versions(),
        }
        checkpoint.save_model(self.folder, model, self.config.model, about)
        card.write(self.folder, card.Run(self.reader, self.split.rows, self.config, self.facts, best))

    def results(self, state: State, best: Best | None, epochs_done: float, finished: bool) -> None:
        """Write results.json: progress of the run, its figures by epoch, and the use of time.

        `best` belongs to the detector in the folder; `epochs_done` includes parts of an epoch.
        """
        clips = {name: {"used": len(rows), "listed": self.split.listed[name]} for name, rows in self.split.rows.items()}
        figures, seconds = best.figures if best else Validation(), state.seconds
        write_json(
            self.folder / "results.json",
            {
                "finished": finished,
                "epochs": state.epoch,
                "steps": state.step,
                "history": [line.to_json() for line in state.history],
                "best": best.shown() if best else {},
                "threshold": figures.threshold,
                "temperature": figures.temperature,
                "seconds": seconds.to_json(),
                "seconds_per_epoch": seconds.train / max(1e-9, epochs_done),
                "loader_share": seconds.loader / max(1e-9, seconds.train),
                "peak_memory_mib": peak_memory(),
                "clips": clips,
                "seed": self.config.seed,
            }
            | self._always(),
        )

    def next_step(self) -> str:
        """Where the detector lies, and the command to type next: its evaluation, or a video where there are no test clips."""
        run, path = shlex.quote(str(self.folder)), shlex.quote(self.config.store)
        splits = f" --splits {shlex.quote(self.config.splits)}" if self.config.splits else ""
        command = f"python -m student.evaluate --store {path} --checkpoint {run}{splits}"
        if not len(self.split.rows.get("test", ())):
            command = f"python -m student.predict VIDEO --checkpoint {run} (there are no test clips to evaluate it on)"
        return f"the detector is {self.folder / checkpoint.MODEL_FILE}, its card {card.CARD_FILE} beside it; next: {command}"

    def _grounds(self, alarms: float | None) -> dict[str, Any]:
        long_enough = self.reader.clips["length"] >= MIN_FRAMES
        train, val = self.split.rows["train"], self.split.rows["val"]
        return grounds.of_validation(self.reader.clips, train, val[long_enough[val]], alarms)

    @cached_property
    def _keys(self) -> dict[str, str]:
        """Keys of the clips that it was trained and tuned on, for the header; without them if there are too many."""
        rows = {name: self.split.rows[name] for name in TAUGHT}
        if sum(map(len, rows.values())) > seen.MOST:
            return {}
        return {name: seen.packed(seen.keys(self.reader, mine)) for name, mine in rows.items()}

    def _always(self) -> dict[str, Any]:
        return {**self.facts.to_json(), "store": store_identity(self.reader), "versions": versions()}
