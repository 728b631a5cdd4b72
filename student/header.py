"""The header of a detector as a record, checked once when it is read, so that no other code handles untrusted JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from concord import plain_json
from store import seen
from store.dataset.spans import TRIMS
from store.similarity.grounds import Grounds
from store.similarity.strangers import Strangers
from student.data.picture import SIDES

NOT_FITTED = "nothing: no validation trials"  # value of `fitted_on` if there were no validation trials
TAUGHT = ("train", "val")  # splits of a detector's own clips: those it learned from, and those that set its threshold
MOST_WINDOW = 100_000  # frames
MOST_LOGIT = 1e6


@dataclass(frozen=True)
class Header:
    """A detector's name, sizes, calibration and origin.

    P(fake) = sigmoid((logit - threshold) / temperature). `config` is the training run's, perhaps of another release;
    `seed`, `trim` and `picture` are taken from it. `fitted_on` and `grounds` are None if an older detector does not
    record what it was fitted on, or whom it was calibrated on; `corpora` counts the real clips of that calibration by
    corpus. `clips` has the keys u8 [n, 2] (`store.seen`) of the clips of TAUGHT, if they are recorded. `strangers` is what
    people scored whom training had not seen, minus the logit, None if that was not measured. `told` is the whole header as
    it was read.
    """

    model: str
    options: Mapping[str, Any]
    threshold: float
    temperature: float
    window: int  # frames
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    trim: str = "none"
    picture: str = "mouth"
    fitted_on: str | None = None
    grounds: Grounds | None = None
    corpora: Mapping[str, int] = field(default_factory=dict)
    strangers: Strangers | None = None
    store: Mapping[str, Any] = field(default_factory=dict)
    clips: Mapping[str, np.ndarray] = field(default_factory=dict)
    step: int = 0
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_fitted(self) -> bool:
        """Whether threshold and temperature were fitted on any trials."""
        return self.fitted_on != NOT_FITTED

    @classmethod
    def read(cls, text: str) -> Header:
        """From the JSON text of a header. Raises ValueError if it cannot be used."""
        told = plain_json.parse_exact(text)
        if not isinstance(told, dict):
            raise ValueError("its header is not a JSON object")
        return cls.parse(told)

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Header:
        """From the header's names and values. Raises ValueError, which names the first that cannot be used."""

        def check(name: str, right: bool) -> None:
            if not right:
                raise ValueError(f"its header has no valid {name}")

        check("model", isinstance(told.get("model"), str))
        check("options", isinstance(told.get("options"), dict))
        check("threshold", _is_number(told.get("threshold")))
        check("temperature", _is_number(told.get("temperature")) and told["temperature"] > 0)
        check("window", _is_whole(told.get("window")) and 1 <= told["window"] <= MOST_WINDOW)
        config = told.get("config")
        check("config", isinstance(config, dict) and isinstance(config.get("data", {}), dict))
        assert isinstance(config, dict)
        seed, trim = config.get("seed", 0), config.get("data", {}).get("trim", "none")
        check("seed", _is_whole(seed) and seed >= 0)
        check("trim", trim in TRIMS)
        check("picture", picture(told) in tuple(SIDES))
        for name in ("store", "versions"):
            check(name, isinstance(told.get(name, {}), dict))
        check("fitted_on", isinstance(told.get("fitted_on", ""), str))
        note = told.get("calibrated_on")
        corpora = note.get("corpora") if isinstance(note, dict) else None
        return cls(
            model=told["model"],
            options=told["options"],
            threshold=told["threshold"],
            temperature=told["temperature"],
            window=told["window"],
            config=config,
            seed=seed,
            trim=trim,
            picture=picture(told),
            fitted_on=told.get("fitted_on"),
            grounds=Grounds.of(note) if note else None,
            corpora={str(k): v for k, v in corpora.items() if isinstance(v, int)} if isinstance(corpora, dict) else {},
            strangers=Strangers.of(told, MOST_LOGIT),
            store=told.get("store", {}),
            clips=_clips(told.get("clips")),
            step=told["step"] if isinstance(told.get("step"), int) else 0,
            told=told,
        )


def picture(told: Mapping[str, Any]) -> str:
    """The picture that a detector with that header, or a run with that state, uses (`student.data.picture`)."""
    found: str = told["config"].get("data", {}).get("picture", "mouth")  # older detectors had no choice
    return found


def _clips(note: Any) -> dict[str, np.ndarray]:
    """Keys of clips by split; those that are not recorded, or not as this release records them, are left out."""
    found = {name: seen.unpacked(note.get(name)) for name in TAUGHT} if isinstance(note, dict) else {}
    return {name: keys for name, keys in found.items() if keys is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
