"""The training run, top to bottom: prepare, resume from a checkpoint, step, save, validate, end.

A step is a function of (weights, seed, epoch, position in the epoch, rank): so are its data (student.data.dataset),
torch's generator is seeded for each step, and the learning rate depends only on progress. So a checkpoint consists of
weights, optimizer and two numbers, and a run that was killed anywhere ends with the same bits as one that was not (same
number of processes and threads, on the CPU). All processes agree on a signal at the end of a step; then the state is
saved.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from concord.text import counted
from student import checkpoint, run_state
from student.config import ConfigError, TrainConfig
from student.data import augment
from student.data.dataset import Keys, Windows, loader
from student.data.order import class_weights, expected_shares
from student.run.claim import claim
from student.run.detector import Found
from student.run.lines import LOG_FILE, add_line, keep_lines
from student.run.outputs import Outputs
from student.run.state import Best, Epoch, Facts, State, Validation
from student.scoring import score
from student.training import launch, saving
from student.training.learner import Learner
from student.training.plan import Plan
from student.training.progress import Progress
from student.training.step import Stepped, one_step
from student.training.stop import Stop, kept_from_children
from student.training.validate import validate
from student.training.watch import Watch

log = logging.getLogger(__name__)

LOG_STEPS = 10  # between lines of metrics.jsonl
GPU_READERS = 4  # reading processes beside a GPU; on a CPU reading is a few percent of a step


class Trainer:
    """One run. `Trainer(config, resume).run()` returns the exit code: 0, or 128 + signal after a clean stop."""

    def __init__(self, config: TrainConfig, resume: str | None) -> None:
        """Raises ConfigError, SplitError, StoreError or CheckpointError if the run cannot begin; then nothing is
        changed."""
        self.output = Path(config.output)
        self.plan = Plan.of(config, resume)
        self.config, self.data = self.plan.config, self.plan.data
        self.accelerator = launch.accelerator(config)
        self.main = self.accelerator.is_main_process
        self.plan.check(self.accelerator.num_processes, self.main)
        self.lock = launch.by_main(
            self.accelerator, lambda: claim(self.output, self.config, resume), raises=ConfigError
        )
        try:
            self._prepare(resume)
        except BaseException:
            self._release()
            raise

    # -- before the first step ----------------------------------------------------------------------------------------

    def _prepare(self, resume: str | None) -> None:
        """Model, optimizer, data, and the state from which a resumed run continues."""
        plan, config = self.plan, self.config
        self.threads = launch.set_threads(config.threads)
        path = run_state.find(self.output, resume) if resume else None
        plan.say_picture()
        if self.main:
            plan.say_validation()
        self.learner = Learner.of(config, self.accelerator, fresh=path is None)
        self.keys = Keys(
            plan.corpus, self.data, config.seed, self.accelerator.process_index, self.accelerator.num_processes
        )
        self.loader = self._loader()
        self.outputs = Outputs(self.output, config, plan.reader, plan.split, self._facts())
        self.trials = score.trials(plan.reader, plan.split.rows["val"], plan.spans, config.seed)
        self.watch = Watch(scaled=config.mixed_precision == "fp16")
        self.state, self.found = State(), Found.KEPT
        if path is not None:
            self.state, self.found = saving.go_on(path, plan, self.learner, self.threads)
        elif resume:
            log.info("no checkpoint in %s yet: starting at the beginning", self.output)
        launch.start_tracking(self.accelerator, config)
        self.start_step = self.state.step
        self.saved_step = self.start_step if self.start_step else -1

    def _loader(self) -> DataLoader[dict[str, torch.Tensor]]:
        plan, config = self.plan, self.config
        balance = class_weights(*expected_shares(plan.corpus, self.data))
        if self.main and self.data.augment:
            augment.report_missing()
        windows = Windows(config.store, plan.corpus, self.data, config.seed, config.losses.needs_soft_labels, balance)
        on_gpu = self.accelerator.device.type == "cuda"
        workers = config.num_workers if config.num_workers >= 0 else (GPU_READERS if on_gpu else 0)
        return loader(windows, self.keys, workers, pin_memory=on_gpu)

    def _facts(self) -> Facts:
        return Facts(
            window=self.data.window,
            too_short=self.plan.too_short,
            validation_by=self.plan.split.by,
            parameters=sum(p.numel() for p in self.learner.student.parameters()),
            processes=self.accelerator.num_processes,
            threads=self.threads,
            device=str(self.accelerator.device),
        )

    def _release(self) -> None:
        if self.lock is not None:
            self.lock.close()

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Train to the end, or until a signal; 0 or 128 + signal."""
        stop = Stop()
        try:
            if self.main:
                self._begin_outputs()
            with Progress(self._total_steps(), self.state.step, self.main) as self.progress:
                code = self._epochs(stop)
            if code == 0 and self.state.best is None and self.main:
                # so that even a run of a few steps writes a detector
                self.outputs.detector(self.learner.detector, None, self.state.epoch, self.state.step)
            if self.main:
                self._write_results(finished=code == 0)
            self.accelerator.wait_for_everyone()
            return code
        finally:
            stop.restore()
            self._release()
            self.accelerator.end_training()

    def _epochs(self, stop: Stop) -> int:
        config, state = self.config, self.state
        while state.epoch < config.epochs:
            if self._is_out_of_patience():
                return self._end_early(0)
            self.keys.epoch, self.keys.position = state.epoch, state.position
            with kept_from_children():
                batches = iter(self.loader)
            for ends in self._steps():
                if config.max_steps and state.step >= config.max_steps:
                    return self._end_early(0)
                self._after_step(one_step(self.learner, config, state, batches, ends, self.keys.windows))
                every = config.checkpointing_steps
                if every != "epoch" and state.step % int(every) == 0:
                    self._save()
                if number := stop.asked(self.accelerator):
                    return self._end_early(128 + number)
            # with an exhausted iterator the workers are idle; the next epoch gets a new one
            state.epoch, state.position = state.epoch + 1, 0
            self._validate()
            if config.checkpointing_steps == "epoch" or state.epoch == config.epochs:
                self._save()
            if number := stop.asked(self.accelerator):
                return self._end_early(128 + number)
        return 0

    def _steps(self) -> list[list[int]]:
        """For each remaining step of the epoch, the positions at which its micro-batches end."""
        ends, size = self.keys.ends(self.state.position), self.config.gradient_accumulation_steps
        return [ends[k : k + size] for k in range(0, len(ends), size)]

    def _total_steps(self) -> int:
        """Optimizer steps of the whole run, at most."""
        state, size = self.state, self.config.gradient_accumulation_steps
        left = self.config.epochs - state.epoch
        here = len(self._steps()) if left > 0 else 0
        rest = max(0, left - 1) * math.ceil(len(self.keys.ends(0)) / size)
        whole = state.step + here + rest
        return min(whole, self.config.max_steps or whole)

    def _is_out_of_patience(self) -> bool:
        best, patience = self._shown_best(), self.config.patience
        waited = self.state.epoch - best.epoch if best else 0
        if not patience or waited < patience:
            return False
        if self.main:
            self.progress.say(f"no better detector for {counted(waited, 'epoch')}: ending (--patience {patience})")
        return True

    def _end_early(self, code: int) -> int:
        if self.saved_step != self.state.step:
            self._save()
        return code

    def _after_step(self, stepped: Stepped) -> None:
        """Check the loss, write a line of the log every LOG_STEPS steps, and show progress."""
        step = self.state.step
        self.watch.add(step, stepped.loss, stepped.norm)
        on_line = step % LOG_STEPS == 0 or step == self.start_step + 1
        if on_line or self.accelerator.device.type == "cpu":
            self.watch.check()
        if not self.main:
            return
        if step % LOG_STEPS == 0 or step == 1:
            line = stepped.line()
            add_line(self.output / LOG_FILE, {"step": step, "epoch": self.state.epoch + 1, **line})
            self._track("train", line)
        self.progress.step(step, lambda: f"loss {float(stepped.loss):.3f}")

    def _save(self) -> None:
        self.watch.check()
        saving.save(self.output, self.plan, self.learner, self.state, self.threads)
        self.saved_step = self.state.step

    # -- validation and files -----------------------------------------------------------------------------------------

    def _validate(self) -> None:
        """Score the validation trials; keep the best detector."""
        self.watch.check()
        state, began = self.state, time.perf_counter()
        figures = validate(self.accelerator, self.learner.detector, self.plan, self.trials)
        state.seconds.validation += time.perf_counter() - began
        state.history.append(Epoch(state.epoch, state.step, replace(state.seconds), figures))
        before = self._shown_best()
        if before is None or figures.rank >= before.rank or self.config.keep == "last":
            self.found = Found.KEPT
            digest = checkpoint.weights_digest(self.learner.detector.state_dict())
            state.best = Best(figures.rank, state.epoch, state.step, digest, figures)
            if self.main:
                self.outputs.detector(self.learner.detector, state.best, state.epoch, state.step)
        if self.main:
            self._track("validation", figures.finite())
            self._write_results(finished=False)
            self._say_figures(figures)

    def _say_figures(self, figures: Validation) -> None:
        measured = {k: v for k, v in figures.finite().items() if k.startswith("auc")}
        told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in measured.items())
        told = told or f"of {counted(figures.trials, 'trial')}, too few to say how well it separates them"
        self.progress.say(f"epoch {self.state.epoch} of {self.config.epochs}: validation {told}")

    def _shown_best(self) -> Best | None:
        """The best so far, None if its detector is not there because the run resumed from an earlier step."""
        return None if self.found is Found.LATER else self.state.best

    def _begin_outputs(self) -> None:
        """Write config.json, restore a lost detector from the checkpoint, and cut the log at this step."""
        self.outputs.begin(self.learner.student, self.learner.init_from)
        best = self.state.best
        if self.found is Found.TO_RESTORE and best is not None:
            file = self.output / checkpoint.MODEL_FILE
            log.warning("%s is restored from the checkpoint, which holds it", file)
            self.outputs.detector(self.learner.detector, best, best.epoch, best.step)
        keep_lines(self.output / LOG_FILE, self.state.step)

    def _track(self, kind: str, figures: dict[str, float]) -> None:
        if self.config.with_tracking:
            self.accelerator.log({f"{kind}/{name}": value for name, value in figures.items()}, step=self.state.step)

    def _write_results(self, finished: bool) -> None:
        done = self.state.epoch + self.state.position / max(1, self.keys.windows)
        self.outputs.results(self.state, self._shown_best(), done, finished)
