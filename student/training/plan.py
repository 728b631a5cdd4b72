"""The data of a run, chosen before anything is created: splits, spans, length of windows, and the kind of picture."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

import store
from concord.commands import as_called
from concord.text import counted
from store.dataset.spans import Spans, spans, window_for
from student import run_state
from student.config import ConfigError, DataConfig, TrainConfig
from student.data.corpus import Corpus
from student.data.picture import OF_FACES, choose
from student.data.splits import Split, split
from student.header import picture
from student.run.identity import shards_digest, store_identity

log = logging.getLogger(__name__)

FEW = 20  # validation clips, each judged in a pair or more, below which an AUC may be anything


@dataclass(frozen=True)
class Plan:
    """`config` is the run's, with the chosen picture; `data` is its data section, with a window for which the clips are
    long enough.

    `split` and `corpus` have the training clips that are long enough for a window; `too_short` counts the others.
    """

    config: TrainConfig
    reader: store.Reader
    split: Split
    spans: Spans
    data: DataConfig
    corpus: Corpus
    too_short: int

    @classmethod
    def of(cls, config: TrainConfig, resume: str | None) -> Plan:
        """Open the store and plan the run.

        Raises StoreError, SplitError, CheckpointError, and ConfigError if soft labels are requested and there are none.
        """
        reader = store.open(config.store)
        config = replace(config, data=replace(config.data, picture=_picture(reader, config, resume)))
        if config.needs_projections and reader.fit is None:
            raise ConfigError(
                f"store {config.store} has no fit, so its similarity is NaN: run python precompute.py --store {config.store} "
                "with --refit where clips are known to be real, else with --fit-from, or train without soft labels "
                "(--w-correlation 0 --w-contrastive 0)"
            )
        chosen = split(reader, Path(config.splits) if config.splits else None, config.seed)
        train, val = chosen.rows["train"], chosen.rows["val"]
        inside = spans(reader, np.r_[train, val], config.data.trim)
        label, method = (np.asarray(reader.clips[k])[train].astype(str) for k in ("label", "method"))
        kinds = np.char.add(np.char.add(label, " "), method)
        data = replace(config.data, window=window_for(inside.length[train], kinds, config.data.window))
        corpus = Corpus.of(reader, train, chosen.weight, inside, data.window)
        chosen = replace(chosen, rows={**chosen.rows, "train": corpus.rows})
        return cls(config, reader, chosen, inside, data, corpus, len(train) - len(corpus.rows))

    def check(self, processes: int, main: bool) -> None:
        """Raises ConfigError if this number of processes cannot train on it; `main` logs how many clips are left
        out."""
        clips, config = len(self.corpus.rows), self.config
        if not clips + self.too_short:
            raise ConfigError(
                f"store {config.store} has no finished clip in its train split; mark some or give --splits"
            )
        if not clips:
            raise ConfigError(
                f"no training clip of {config.store} has {self.data.window} frames inside both tracks with --trim "
                f"{self.data.trim}; choose a smaller --window or --trim none"
            )
        if main and (self.too_short or self.data.window < config.data.window):
            log.warning(
                "windows have %d frames, which nearly all clips hold with --trim %s; of %s %d %s shorter and not used",
                self.data.window, self.data.trim, counted(clips + self.too_short, "training clip"), self.too_short,
                "is" if self.too_short == 1 else "are",
            )  # fmt: skip
        if clips < 2 * processes:
            raise ConfigError(
                f"{counted(clips, 'training clip is', 'training clips are')} too few for "
                f"{counted(processes, 'process', 'processes')}"
            )
        if config.losses.w_detection and not (self.corpus.label[self.corpus.rows] >= 0).any():
            raise ConfigError(
                "no training clip has a label, so there is nothing to detect: label them, or use --w-detection 0"
            )

    @cached_property
    def identity(self) -> dict[str, str]:
        """The training data as hashes: a run that resumes must find the same."""
        read = [self.data.picture, "audio", "flags", "fake"]
        read += ["asr_projection", "vsr_projection"] if self.config.needs_projections else []
        read += ["lips"] if self.data.pseudo_share else []
        shards = shards_digest(self.reader, read)
        found = {**store_identity(self.reader), "frames": self.spans.labels, "shards": shards}
        if self.data.balance == "source":
            found["strata"] = hashlib.sha256(self.corpus.stratum.tobytes()).hexdigest()[:16]
        return found

    def say_picture(self) -> None:
        """Log the kind of picture that the student uses."""
        few = self.config.model in OF_FACES and "face" not in self.reader.names
        hint = as_called(", enlarged: the store has no whole faces (precompute.py --arrays face)") if few else ""
        log.info("%s looks at frames/%s%s", self.config.model, self.data.picture, hint)

    def say_validation(self) -> None:
        """A warning where validation has so few clips that its figures are chance."""
        count = len(self.split.rows["val"])
        if 0 < count < FEW:
            chosen = "" if self.config.keep == "last" else ", the epoch that is kept"
            log.warning(
                "validation has %s: its AUC%s and the threshold are of chance; give val at least %d",
                counted(count, "clip"), chosen, FEW,
            )  # fmt: skip


def _picture(reader: store.Reader, config: TrainConfig, resume: str | None) -> str:
    """The kind of picture: that of the run that is resumed, else the choice of `student.data.picture`."""
    path = run_state.find(Path(config.output), resume) if resume else None
    if path is None:
        return choose(config.model, reader.names)
    name = picture(run_state.read_state(path))
    if name not in reader.names:
        raise ConfigError(
            f"{path.name} looks at frames/{name}, which {config.store} does not have; name the store it was trained on"
        )
    return name
