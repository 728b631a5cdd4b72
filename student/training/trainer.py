"""The training loop: streaming windows, three losses, exact resume, validation every epoch.

What a step does is a function of (weights, seed, epoch, position in the epoch, rank): the data are (student.data.dataset),
torch's generator is seeded anew for each step, the learning rate is a function of progress. So a checkpoint is weights,
optimizer and two numbers, and a run that was killed anywhere ends with the same bits as one that was not (same number of
processes and threads, CPU). Signals are agreed on by all processes at the end of a step; then the state is saved.
"""

from __future__ import annotations

import json
import logging
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

import store
from concord import files, plain_json
from student import checkpoint, run_state
from student.config import ConfigError, TrainConfig, differences
from student.data import augment
from student.data.dataset import Corpus, Keys, Windows, loader
from student.data.order import class_weights, expected_shares
from student.data.picture import OF_FACES, choose
from student.data.spans import spans, window_for
from student.data.splits import split
from student.models import PAPER, build, weights
from student.scoring import score
from student.training import launch
from student.training.losses import Targets, total
from student.training.optimize import average, decay_groups, rate
from student.training.outputs import Outputs
from student.training.progress import Progress
from student.training.record import check_output, claim, keep_lines, shards_digest, store_identity
from student.training.resume import Found, find_detector
from student.training.stop import Stop, kept_from_children
from student.training.validate import validate
from student.training.watch import Watch

log = logging.getLogger(__name__)

LOG_STEPS = 10  # between lines of metrics.jsonl


class Trainer:
    """One run. `Trainer(config, resume).run()` returns the exit code: 0, or 128 + signal after a clean stop."""

    def __init__(self, config: TrainConfig, resume: str | None) -> None:
        self.output = Path(config.output)
        self.reader = store.open(config.store)
        config = self.config = replace(config, data=replace(config.data, picture=self._picture(config, resume)))
        if config.losses.needs_soft_labels and self.reader.fit is None:
            raise ConfigError(
                f"store {config.store} has no fit, so its similarity is NaN: run python precompute.py --store {config.store} "
                "with --refit where clips are known to be real, else with --fit-from, or train without soft labels "
                "(--w-correlation 0 --w-contrastive 0)"
            )
        self.split = split(self.reader, Path(config.splits) if config.splits else None, config.seed)
        train, val = self.split.rows["train"], self.split.rows["val"]
        self.spans = spans(self.reader, np.r_[train, val], config.data.trim)
        label, method = (np.asarray(self.reader.clips[k])[train].astype(str) for k in ("label", "method"))
        kinds = np.char.add(np.char.add(label, " "), method)
        window = window_for(self.spans.length[train], kinds, config.data.window)
        self.data = replace(config.data, window=window)
        corpus = Corpus.of(self.reader, train, self.split.weight, self.spans, window)
        self.too_short = len(train) - len(corpus.rows)
        self.accelerator = launch.accelerator(config)
        self.main = self.accelerator.is_main_process
        self.on_gpu = self.accelerator.device.type != "cpu"
        self._check_trainable(corpus)
        self.split = replace(self.split, rows={**self.split.rows, "train": corpus.rows})
        self._claim_output(resume)
        try:
            self._prepare(corpus, resume)
        except BaseException:
            self._release()
            raise

    def _prepare(self, corpus: Corpus, resume: str | None) -> None:
        """Model, optimizer, data and the state that a resumed run goes on from."""
        config = self.config
        self.threads = launch.set_threads(config.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(config.seed)
        model = build(config.model, **(PAPER.get(config.model, {}) if config.losses.preset == "paper" else {}))
        few = config.model in OF_FACES and "face" not in self.reader.names
        hint = ", enlarged: the store has no whole faces (precompute.py --arrays face)" if few else ""
        log.info("%s looks at frames/%s%s", config.model, config.data.picture, hint)
        self.init_from: dict[str, Any] | None = None
        if config.init_from and not (resume and run_state.find(self.output, resume)):
            loaded = weights.load(model, config.model, config.init_from)
            log.info("starting from %s", loaded)
            self.init_from = asdict(loaded)
        optimizer = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=config.lr)
        self.average = average(model, config.ema).to(self.accelerator.device) if config.ema else None
        if config.compile:
            model.compile()
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        self.keys = Keys(corpus, self.data, config.seed, rank, world)
        balance = class_weights(*expected_shares(corpus, self.data))
        if self.main and self.data.augment:
            augment.report_missing()
        windows = Windows(config.store, corpus, self.data, config.seed, config.losses.needs_soft_labels, balance)
        workers = (
            config.num_workers if config.num_workers >= 0 else (4 if self.accelerator.device.type == "cuda" else 0)
        )
        self.loader = loader(windows, self.keys, workers, pin_memory=self.accelerator.device.type == "cuda")
        facts = {
            "window": self.data.window,
            "too_short": self.too_short,
            "validation_by": self.split.by,
            "parameters": sum(p.numel() for p in model.parameters()),
            "processes": world,
            "threads": self.threads,
            "device": str(self.accelerator.device),
        }
        self.outputs = Outputs(self.output, config, self.reader, self.split, facts)
        self.trials = score.trials(self.reader, self.split.rows["val"], self.spans, config.seed)
        self.step = self.epoch = self.position = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.found = Found.KEPT  # what became of the detector of a run that goes on
        self.seconds = {"train": 0.0, "loader": 0.0, "validation": 0.0}
        self.watch = Watch(scaled=config.mixed_precision == "fp16")
        if resume:
            self._resume(resume)
        self.start_step = self.step

    # -- before and after ---------------------------------------------------------------------------------------------

    def _check_trainable(self, corpus: Corpus) -> None:
        labels = corpus.label[corpus.rows]
        if not len(self.split.rows["train"]):
            raise ConfigError(
                f"store {self.config.store} has no finished clip in its train split; mark some or give --splits"
            )
        if not len(corpus.rows):
            raise ConfigError(
                f"no training clip of {self.config.store} has {self.data.window} frames inside both tracks with --trim "
                f"{self.data.trim}; choose a smaller --window or --trim none"
            )
        if self.main and (self.too_short or self.data.window < self.config.data.window):
            log.warning(
                "windows have %d frames, which nearly all clips hold with --trim %s; %d of %d training clips are shorter and "
                "take no part",
                self.data.window, self.data.trim, self.too_short, len(self.split.rows["train"]),
            )  # fmt: skip
        least = 2 * self.accelerator.num_processes
        if len(corpus.rows) < least:
            raise ConfigError(
                f"{len(corpus.rows)} training clips are too few for {self.accelerator.num_processes} processes"
            )
        if self.config.losses.w_detection and not (labels >= 0).any():
            raise ConfigError(
                "no training clip has a label, so there is nothing to detect: label them, or use --w-detection 0"
            )

    def _picture(self, config: TrainConfig, resume: str | None) -> str:
        """What the student looks at: as the run that goes on did, else as `student.data.picture` chooses."""
        path = run_state.find(self.output, resume) if resume else None
        if path is None:
            return choose(config.model, self.reader.names)
        name = checkpoint.picture(run_state.read_state(path))
        if name not in self.reader.names:
            raise ConfigError(
                f"{path.name} looks at frames/{name}, which {config.store} has not; name the store it was trained on"
            )
        return name

    def _claim_output(self, resume: str | None) -> None:
        """One run writes to a folder at a time, and a new run never mixes with the leavings of another."""
        problem = None
        if self.main:
            try:
                check_output(self.output, self.config, resume)  # before anything is made there
                self._lock = claim(self.output)
                try:
                    check_output(self.output, self.config, resume)  # another run may have ended while we waited
                    files.sweep(self.output)
                except BaseException:
                    self._release()
                    raise
            except (ConfigError, OSError) as error:
                problem = str(error)
        problem = gather_object([problem])[0]
        if problem:
            raise ConfigError(problem)

    def _release(self) -> None:
        if self.main:
            self._lock.close()

    def _resume(self, wanted: str) -> None:
        path = run_state.find(self.output, wanted)
        if path is None:
            log.info("no checkpoint in %s yet: starting at the beginning", self.output)
            return
        saved = run_state.read_state(path)
        try:
            changed = differences(TrainConfig.from_dict(saved["config"]), self.config)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise checkpoint.CheckpointError(f"{path.name} holds options of another release ({error})") from error
        if changed:
            raise ConfigError(
                f"{path.name} was made with other options ({'; '.join(changed)}): leave them as they were"
            )
        self._check_labels(path.name, saved["store"])
        if saved["threads"] != self.threads or saved["processes"] != self.accelerator.num_processes:
            log.warning(
                "processes x threads of each were %d x %d and are %d x %d now: the run goes on, not to the same bits",
                saved["processes"], saved["threads"], self.accelerator.num_processes, self.threads,
            )  # fmt: skip
        own = self.accelerator.unwrap_model(self.model)
        state = run_state.load_state(path, own, self.optimizer, self.average)
        if self.accelerator.scaler is not None and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.epoch, self.position = state["step"], state["epoch"], state["position"]
        self.history, self.best, self.seconds = state["history"], state["best"], state["seconds"]
        self.init_from = state.get("init_from")
        self._find_detector(path)
        if self.epoch >= self.config.epochs:
            log.info("%s is the end of the run: nothing is left to do", path.name)
        else:
            log.info("going on from %s: epoch %d, step %d", path.name, self.epoch + 1, self.step)

    def _find_detector(self, path: Path) -> None:
        """See that the detector in the folder is the one that this run's figures are of."""
        problem, found = None, Found.KEPT
        if self.main:
            own = checkpoint.weights_digest(self._detector().state_dict())
            try:
                found = find_detector(path, self.step, self.best, own, self.config, self._identity())
            except checkpoint.CheckpointError as error:
                problem = str(error)
        problem, self.found = gather_object([(problem, found)])[0]
        if problem:
            raise checkpoint.CheckpointError(problem)

    def _check_labels(self, name: str, saved: dict[str, str]) -> None:
        """Raise ConfigError where a run that goes on would learn something else than it began with."""
        now = self._identity()
        if saved.get("clips") != now["clips"]:
            raise ConfigError(
                f"{name} was trained on another store, or the store has other clips, labels or splits now: start a new --output"
            )
        if self.config.losses.needs_soft_labels and saved.get("fit") != now["fit"]:
            raise ConfigError(
                f"the fit of {self.config.store} is not the one that {name} was trained with (a --refit, or other teachers): "
                "its soft labels are others: start a new --output, or bring back the store as it was"
            )
        if saved.get("frames") != now["frames"]:
            raise ConfigError(
                f"flags or labels of frames in {self.config.store} are not those that {name} was trained with: start a new "
                "--output, or bring back the store as it was"
            )
        if now["shards"] and saved.get("shards") and saved["shards"] != now["shards"]:
            raise ConfigError(
                f"pictures, sound or projections in {self.config.store} are not those that {name} was trained with: start a "
                "new --output, or bring back the store as it was"
            )

    def _identity(self) -> dict[str, str]:
        read = [self.config.data.picture, "audio", "flags", "fake"]
        read += ["asr_projection", "vsr_projection"] if self.config.losses.needs_soft_labels else []
        return {
            **store_identity(self.reader),
            "frames": self.spans.labels,
            "shards": shards_digest(self.reader, read),
        }

    def _save(self) -> None:
        """Write a checkpoint from the main process; where that fails, all processes raise."""
        self.watch.check()
        scaler = self.accelerator.scaler
        state = {
            "step": self.step, "epoch": self.epoch, "position": self.position, "history": self.history, "best": self.best,
            "seconds": self.seconds, "threads": self.threads, "processes": self.accelerator.num_processes,
            "config": self.config.to_dict(), "init_from": self.init_from, "store": self._identity(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }  # fmt: skip
        problem = None
        if self.main:
            own, keep = self.accelerator.unwrap_model(self.model), self.config.keep_checkpoints
            try:
                run_state.save_state(self.output, self.step, state, keep, own, self.optimizer, self.average)
            except checkpoint.SaveError as error:
                problem = str(error)
        problem = gather_object([problem])[0]
        if problem:
            raise checkpoint.SaveError(problem)
        self._saved_step = self.step

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Train to the end, or to the signal; 0 or 128 + signal."""
        stop = Stop()
        self._saved_step = self.start_step if self.start_step else -1
        try:
            if self.main:
                self.outputs.begin(self.accelerator.unwrap_model(self.model).config.__dict__, self.init_from)
                self._start_tracker()
                if self.found is Found.TO_RESTORE:
                    log.warning(
                        "%s is written anew from the checkpoint, which holds it", self.output / checkpoint.MODEL_FILE
                    )
                    self.outputs.detector(self._detector(), self.best, self.best["epoch"], self.best["step"])
                keep_lines(self.output / "metrics.jsonl", self.step)
            with Progress(self._total_steps(), self.step, self.main) as self.progress:
                code = self._epochs(stop)
            if code == 0 and not self.best and self.main:
                # a run of a few steps leaves its detector too
                self.outputs.detector(self._detector(), {}, self.epoch, self.step)
            if self.main:
                self._write_results(finished=code == 0)
            self.accelerator.wait_for_everyone()
            return code
        finally:
            stop.restore()
            self._release()
            self.accelerator.end_training()

    def _total_steps(self) -> int:
        """Optimizer steps of the whole run, as far as it may go."""
        a = self.config.gradient_accumulation_steps
        self.keys.position = self.position
        here = math.ceil(len(self.keys) / a) if self.epoch < self.config.epochs else 0
        self.keys.position = 0
        rest = max(0, self.config.epochs - self.epoch - 1) * math.ceil(len(self.keys) / a)
        whole = self.step + here + rest
        return min(whole, self.config.max_steps or whole)

    def _epochs(self, stop: Stop) -> int:
        c = self.config
        while self.epoch < c.epochs:
            waited = self.epoch - self.best["epoch"] if self.best and self.found is not Found.LATER else 0
            if c.patience and waited >= c.patience:
                if self.main:
                    self.progress.say(f"no better detector for {waited} epochs: ending (--patience {c.patience})")
                return self._end_early(0)
            self.keys.epoch, self.keys.position = self.epoch, self.position
            ends = self.keys.ends(self.position)
            groups = [
                ends[k : k + c.gradient_accumulation_steps] for k in range(0, len(ends), c.gradient_accumulation_steps)
            ]
            with kept_from_children():
                batches = iter(self.loader)
            for group in groups:
                if c.max_steps and self.step >= c.max_steps:
                    return self._end_early(0)
                self._one_step(batches, group)
                every = c.checkpointing_steps
                if every != "epoch" and self.step % int(every) == 0:
                    self._save()
                if number := stop.asked(self.accelerator):
                    return self._end_early(128 + number)
            # an exhausted iterator lets the workers go idle; a fresh one is made for the next epoch
            self.epoch, self.position = self.epoch + 1, 0
            self._validate()
            if c.checkpointing_steps == "epoch" or self.epoch == c.epochs:
                self._save()
            if number := stop.asked(self.accelerator):
                return self._end_early(128 + number)
        return 0

    def _end_early(self, code: int) -> int:
        if self._saved_step != self.step:
            self._save()
        return code

    def _one_step(self, batches: Any, group: list[int]) -> None:
        """One optimizer step over the micro-batches that end at the positions of `group`."""
        c, began = self.config, time.perf_counter()
        self.model.train()
        sums: dict[str, torch.Tensor] = {}
        for k, end in enumerate(group):
            waited = time.perf_counter()
            batch = next(batches)
            self.seconds["loader"] += time.perf_counter() - waited
            batch = {name: value.to(self.accelerator.device, non_blocking=True) for name, value in batch.items()}
            torch.manual_seed(_step_seed(c.seed, self.epoch, self.position, self.accelerator.process_index))
            last = k == len(group) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                output = self.model(batch["picture"], batch["audio"], batch["mask"])
                targets = Targets(*(batch[name] for name in Targets._fields))
                loss, terms = total(output, targets, c.losses)
                self.accelerator.backward(loss / len(group))
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / len(group)
            self.position = end
        for g in self.optimizer.param_groups:
            g["lr"] = c.lr * rate(c.schedule, self.epoch + self.position / self.keys.windows, c.epochs, c.warmup)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), c.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        self.step += 1
        self.seconds["train"] += time.perf_counter() - began
        self.watch.add(self.step, sums["loss"], norm)
        on_line = self.step % LOG_STEPS == 0 or self.step == self.start_step + 1
        if on_line or not self.on_gpu:
            self.watch.check()
        if not self.main:
            return
        if on_line:
            line = {name: round(float(value), 5) for name, value in sums.items()}
            line |= {"grad_norm": round(float(norm), 4), "lr": self.optimizer.param_groups[0]["lr"]}
            if self.step % LOG_STEPS == 0 or self.step == 1:
                self._log(plain_json.cleaned({"step": self.step, "epoch": self.epoch + 1, **line}))
                if c.with_tracking:
                    self.accelerator.log({f"train/{name}": value for name, value in line.items()}, step=self.step)
        self.progress.step(self.step, lambda: f"loss {float(sums['loss']):.3f}")

    def _log(self, line: dict[str, Any]) -> None:
        path = self.output / "metrics.jsonl"
        try:
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise files.named(error, path) from error

    def _detector(self) -> torch.nn.Module:
        """What is validated and kept: the running average of the weights where there is one, else the weights."""
        return self.accelerator.unwrap_model(self.model) if self.average is None else self.average.module

    # -- validation and files -----------------------------------------------------------------------------------------

    def _validate(self) -> None:
        """Score the validation trials; keep the best detector."""
        self.watch.check()
        began = time.perf_counter()
        figures = validate(
            self.accelerator, self._detector(), self.reader, self.trials, self.data.window, self.data.picture
        )
        self.seconds["validation"] += time.perf_counter() - began
        self.history.append({"epoch": self.epoch, "step": self.step, "seconds": dict(self.seconds), **figures})
        # near 1 the AUC says no more: three digits of it, then calibration
        rank = [round(figures["auc"], 3), -figures["brier"]] if math.isfinite(figures["auc"]) else [0.0, -1.0]
        if not self.best or self.found is Found.LATER or rank >= self.best["rank"]:
            self.found = Found.KEPT
            digest = checkpoint.weights_digest(self._detector().state_dict())
            self.best = {"rank": rank, "epoch": self.epoch, "step": self.step, "weights": digest}
            self.best |= {k: v for k, v in figures.items() if k not in self.best}
            if self.main:
                self.outputs.detector(self._detector(), self.best, self.epoch, self.step)
        if self.main:
            if self.config.with_tracking:
                numbers = {k: v for k, v in figures.items() if math.isfinite(v)}
                self.accelerator.log({f"validation/{k}": v for k, v in numbers.items()}, step=self.step)
            self._write_results(finished=False)
            measured = {k: v for k, v in figures.items() if k.startswith("auc") and math.isfinite(v)}
            told = ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in measured.items())
            told = told or f"of {figures['trials']} trials, too few to say how well it tells them apart"
            self.progress.say(f"epoch {self.epoch} of {self.config.epochs}: validation {told}")

    def _start_tracker(self) -> None:
        """TensorBoard's files go to OUTPUT/tracking; the settings become the run's hyperparameters."""
        if self.config.with_tracking:
            plain = {k: v for k, v in self.config.options().items() if isinstance(v, int | float | str)}
            self.accelerator.init_trackers("tracking", config=plain)

    def _write_results(self, finished: bool) -> None:
        done = self.epoch + self.position / max(1, self.keys.windows)
        best = {} if self.found is Found.LATER else self.best  # figures of a detector that is not there
        self.outputs.results(finished, self.epoch, self.step, done, best, self.history, self.seconds)


def _step_seed(seed: int, epoch: int, position: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, position, rank, 3]).generate_state(1, np.uint64)[0] >> 1)
