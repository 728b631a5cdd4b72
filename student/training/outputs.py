"""What a run leaves in its folder for people and for later commands: config.json, results.json, the detector and its card.

Checkpoints, from which a run goes on, are `student.checkpoint`'s; lines of the log `student.training.record`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from store import Reader
from store.similarity import grounds
from student import checkpoint
from student.config import TrainConfig, write_json
from student.data.splits import Split
from student.scoring.score import MIN_FRAMES
from student.training import card
from student.training.record import peak_memory, store_identity, versions


@dataclass(frozen=True)
class Outputs:
    """The folder of one run, and what stays the same throughout it.

    `facts` stand in every file as they are: window, too_short, validation_by, parameters, processes, threads, device.
    """

    folder: Path
    config: TrainConfig
    reader: Reader
    split: Split
    facts: Mapping[str, Any]

    def begin(self, model_options: Mapping[str, Any], init_from: Mapping[str, Any] | None) -> None:
        """Write config.json: how the run was asked for, and on what."""
        clips = {name: len(rows) for name, rows in self.split.rows.items()}
        asked = {"config": self.config.to_dict(), "init_from": init_from, "model_options": dict(model_options)}
        write_json(self.folder / "config.json", asked | {"clips": clips} | self._always())

    def detector(self, model: nn.Module, best: Mapping[str, Any], epoch: int, step: int) -> None:
        """Write the weights, with all that scoring needs in their header, and the model card.

        `best`: validation figures of these weights; empty where nothing was validated.
        """
        trials = best.get("trials", 0)
        about = {
            "threshold": best.get("threshold", 0.0),
            "temperature": best.get("temperature", 1.0),
            "fitted_on": f"validation, {trials} trials" if trials else checkpoint.NOT_FITTED,
            "calibrated_on": self._grounds(best.get("alarms")) if trials else {},
            "window": self.facts["window"],
            "epoch": epoch,
            "step": step,
            "config": self.config.to_dict(),
            "store": store_identity(self.reader),
            "versions": versions(),
        }
        checkpoint.save_model(self.folder, model, self.config.model, about)
        known = {"config": self.config.to_dict(), "best": best, **self.facts}
        card.write(self.folder, self.reader, self.split.rows, known)

    def results(
        self, finished: bool, epoch: int, step: int, epochs_done: float, best: Mapping[str, Any],
        history: list[dict[str, Any]], seconds: Mapping[str, float],
    ) -> None:  # fmt: skip
        """Write results.json: how far the run is, its figures by epoch, where its time went. `epochs_done` counts parts."""
        clips = {name: {"used": len(rows), "listed": self.split.listed[name]} for name, rows in self.split.rows.items()}
        write_json(
            self.folder / "results.json",
            {
                "finished": finished,
                "epochs": epoch,
                "steps": step,
                "history": history,
                "best": {k: v for k, v in best.items() if k not in ("rank", "weights")},
                "threshold": best.get("threshold", 0.0),
                "temperature": best.get("temperature", 1.0),
                "seconds": dict(seconds),
                "seconds_per_epoch": seconds["train"] / max(1e-9, epochs_done),
                "loader_share": seconds["loader"] / max(1e-9, seconds["train"]),
                "peak_memory_mib": peak_memory(),
                "clips": clips,
                "seed": self.config.seed,
            }
            | self._always(),
        )

    def _grounds(self, alarms: float | None) -> dict[str, Any]:
        long_enough = self.reader.clips["length"] >= MIN_FRAMES
        train, val = self.split.rows["train"], self.split.rows["val"]
        return grounds.of_validation(self.reader.clips, train, val[long_enough[val]], alarms)

    def _always(self) -> dict[str, Any]:
        return {**self.facts, "store": store_identity(self.reader), "versions": versions()}
