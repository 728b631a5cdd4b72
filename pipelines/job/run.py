"""The precompute job: manifests in, a complete store out; when run again it does only what is missing.

The driver reads headers and plans slots, streams batches through Ray and packs shards whose batches are all staged. It
is the only process that writes the clips table and the ledger; `clips/done` comes last. Then the second pass learns a
shared space and writes soft labels, and --words transcribes. Whatever fails, the next run finds staged batches, packed
shards and the ledger, and continues from there.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar, TypeVarTuple

import numpy as np

import store
from concord.errors import ConcordError
from concord.text import counted
from pipelines.errors import RunError, UsageError
from pipelines.job import opening, report_data, request, space
from pipelines.job.books import Books, unread_entry
from pipelines.job.first_pass import FirstPass
from pipelines.job.planning import Planner
from pipelines.job.request import Config, Request
from pipelines.job.splits import lacks_real
from pipelines.job.usage import Summary
from pipelines.labels import words
from pipelines.labels.learn import gather
from pipelines.labels.second_pass import Wish, foreign_shards, label_shard, second_pass
from pipelines.reasons import OVERFLOW
from pipelines.tables import traces
from pipelines.ui import progress
from pipelines.workers import alone, cluster, plan
from pipelines.workers.address import ENVIRONMENT, reach, resolve
from pipelines.workers.chain import Chain, Hands
from pipelines.workers.headers import Unread, probe_rows
from pipelines.workers.work import traceback_of
from store import layout, seen, staging
from store.creation import unmake
from store.layout import FPS
from store.place import Place

log = logging.getLogger(__name__)

T = TypeVar("T")
Args = TypeVarTuple("Args")

SMALL: set[Callable[..., object]] = {probe_rows, gather, label_shard}  # jobs that take a second or two
FEW = 256  # clips that a machine alone does without Ray, whose start takes as long as some hundred of them


def run(config: Config) -> Summary:
    """Do everything that is missing. Raises NoCluster, UsageError, ManifestError, StoreError, TeacherError before anything
    is changed, RunError afterwards."""
    reach(config.address)
    asked = request.check(replace(config, store=config.store.confined()))
    root = asked.config.store
    if config.dry_run:
        return _dry_run(asked)
    if resolve(config.address) != "local":  # a cluster may refuse this driver, for its version of Ray
        cluster.connect(config.address)
    with opening.lock(root, asked.exists):
        # Opened a second time: another driver may have changed the store before this one had the lock.
        writer = store.Writer.open(root) if asked.exists else opening.create(asked)
        opening.mend_store(config, writer)
        job = _Job(asked, writer)
        try:
            with report_data.kept(job.summary, asked.config, job.books.entries) as job.books.tell:
                return job.run()
        except UsageError:
            if not asked.exists and not writer.num_clips:  # remove the new, empty store
                unmake(root)
            raise
        except Exception as error:  # from here on the store may have changed
            _check_there(root, error)
            if isinstance(error, RunError):
                raise
            if isinstance(error, ConcordError) and error.exit_code != RunError.exit_code:
                raise RunError(str(error)) from error
            if traces.add(root, [traces.Trace("", "run", traceback_of(error))]):
                log.warning("the traceback of the error that ended this run is in %s", root / traces.FILE)
            raise


def _check_there(root: Place, error: Exception) -> None:
    """Raises RunError if the store was moved or removed during the run, whatever error that led to."""
    try:
        is_there = (root / "zarr.json").exists()
    except (OSError, store.StoreError):  # a disk or network cannot be reached, as `error` says
        return
    if not is_there:
        raise RunError(
            f"{root} is gone: the store was moved or removed while this run wrote to it; put it back where it was"
        ) from error


class _Job:
    """One run over one open store."""

    def __init__(self, asked: Request, writer: store.Writer) -> None:
        """Reads the books and cleans up after a run that died."""
        self.asked, self.config, self.writer = asked, asked.config, writer
        self.summary = Summary(arrays=asked.arrays, splits=asked.splits.lines)
        self.begun = time.perf_counter()
        reader = store.open(asked.config.store)
        self.foreign = foreign_shards(reader)  # asked while the inventory is closed
        self.books = Books(writer, reader, asked.rows, self.summary)
        writer.tidy()
        config = self.config
        self.planner = Planner(self.books, asked.arrays, config.clip_timeout, config.attempts, self._spread)

    def run(self) -> Summary:
        root, config = self.config.store, self.config
        self._reopen_damaged()
        pending = self.books.unfinished(config.retry_failed)
        known = {row.id for row in self.books.rows}
        new = [row for row in self.asked.rows if row.id not in known]
        rule = self.config.split_by
        if new and rule is None and (by := self.writer.attrs.get("splits_by")):
            raise UsageError(
                f"the splits of {root} were made by {by}, and {counted(len(new), 'clip')} of this command not in it, such as "
                f"{new[0].id}: give that option again, or --splits FILE with theirs"
            )
        if new and rule is not None:
            self.books.note_rule(rule.name)
        if new:
            pending += self.planner.append(new, pending)
        self.writer.begin()  # from here on the store changes; a request that is refused before leaves it complete
        if rule is not None:
            self.books.note_rule(rule.name)
        if self.asked.splits.moved:
            self.books.resplit(self.asked.splits.moved)
        self.books.add_corpora()
        learned = config.fit_from or self.writer.attrs.get("similarity")
        rows = ((row.label, row.split) for row in self.books.rows)
        if pending and not learned and (warning := lacks_real(rows, config.limit)):
            log.warning("%s", warning)
        if pending:
            with self.summary.parts.part("pass one"):
                self._first_pass(pending)
        with self.summary.parts.part("fit"):
            wish = Wish(config.similarity, config.refit, config.fit_from, config.seed)
            note = second_pass(root, self.writer, wish, self._spread, self.foreign)
        self.summary.labelled, self.summary.similarity = bool(note), note
        if note and report_data.WORK & set(self.summary.parts.seconds):
            self.summary.seen = seen.by_split(store.open(root))
        if config.words:
            words.transcribe(root, self.writer, self.asked.asr.name, self._spread, self.summary.usage.add)
        staging.discard(root, staging.staged(root))  # left by attempts with another plan
        self.writer.consolidate()
        return self.books.close(time.perf_counter() - self.begun)

    def _reopen_damaged(self) -> None:
        """Clips of missing or truncated shards are marked as not done, and the teachers' output is computed again.

        This checks sizes and indexes, which is cheap; `store.inspect --verify` reads every byte.
        """
        reader = store.open(self.config.store)
        given = [name for name in reader.names if name not in layout.LEARNED_ARRAYS]
        damaged = reader.damaged_shards(given)
        shards = sorted({shard for found in damaged.values() for shard in found})
        clips = sorted({clip for shard in shards for clip in plan.clips_of_shard(reader.clips, shard)})
        if clips:
            name = next(iter(damaged))
            log.warning(
                "%s damaged, the first: %s; processing again %s",
                counted(len(shards), "shard is", "shards are"),
                reader.shard_damage(name, damaged[name][0]),
                counted(len(clips), "clip"),
            )
            self.books.reopen(clips)

    def _first_pass(self, pending: list[int]) -> None:
        config, asked = self.config, self.asked
        names = {"face": request.face_backend(self.writer.attrs), "asr": asked.asr.name, "vsr": asked.vsr.name}
        limits = config.clip_timeout, config.attempts
        chain = Chain(config.store, names, asked.arrays, config.pools, *limits, asked.mouth_crops)
        first_pass = FirstPass(self.books, chain, self.summary, self._hands)
        late = first_pass.run(self.planner.slots(pending))
        # Their headers were wrong: new slots after everything else, in manifest order.
        again = sorted(i for i in late if self.books.entries[self.books.rows[i].id].reason == OVERFLOW)
        if again:
            first_pass.run(self.planner.rehouse([(i, late[i]) for i in again]))

    def _hands(self) -> Hands:
        """What does the work: Ray, which is joined or started first, or for a few clips this machine alone."""
        if alone_is_enough(self.config, max(len(self.books.rows), len(self.asked.rows))) and not _has_gpu():
            return alone
        with self.summary.parts.part("start"):
            cluster.connect(self.config.address)
        return cluster

    def _spread(self, function: Callable[[*Args], T], jobs: Sequence[tuple[*Args]], gpu: bool = False) -> Iterator[T]:
        """A `Spread` over what does the work, with progress. A single small job needs no other process."""
        if not jobs:
            return
        here = len(jobs) == 1 and function in SMALL and resolve(self.config.address) == "local"
        hands = None if here else self._hands()
        name, unit, sizes = _progress(function, jobs)
        with (
            self.summary.parts.part(name, min(len(jobs), cluster.IN_FLIGHT)),
            progress.shown(progress.Pass(name, sum(sizes), unit=unit)) as show,
        ):
            answers = hands.spread(function, jobs, gpu) if hands else iter([alone.call(function, *jobs[0])])
            for answer, size in zip(answers, sizes, strict=True):
                show.advance(size)
                yield answer


def alone_is_enough(config: Config, clips: int) -> bool:
    """Whether no cluster is named, and there are only a few clips."""
    return config.address is None and not os.environ.get(ENVIRONMENT) and clips <= FEW


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _progress(function: Callable[..., object], jobs: Sequence[Sequence[object]]) -> tuple[str, str, list[int]]:
    """The name of the work that is spread over the cluster, its unit, and the number of units in each job."""
    ones = [1] * len(jobs)
    if function is label_shard:
        return "labels", "shards", ones
    names: dict[Callable[..., object], str] = {probe_rows: "headers", words.decode: "words"}
    if function not in names:
        return "fit", "parts", ones
    clips = [len(next(value for value in job if isinstance(value, list))) for job in jobs]
    return names[function], "clips", clips


def _dry_run(asked: Request) -> Summary:
    """The work of a run, from headers only."""
    config = asked.config
    reader = store.open(config.store) if asked.exists else None
    has = reader.clips if reader else {name: np.array([]) for name in ("id", "label", "split")}
    known = set(has["id"].tolist())
    new = [row for row in asked.rows if row.id not in known]
    labels = [*zip(has["label"].tolist(), has["split"].tolist(), strict=True), *((row.label, row.split) for row in new)]
    learned = config.fit_from or (reader and reader.attrs.get("similarity"))
    found = probe_rows(new, config.clip_timeout, config.attempts, config.store.options)
    return Summary(
        clips=len(new),
        video_seconds=sum(frames for frames in found if isinstance(frames, int)) / FPS,
        failed=[unread_entry(one) for one in found if isinstance(one, Unread)],
        cpus=space.cpus(config.address),
        dims=asked.dims,
        arrays=asked.arrays,
        splits=asked.splits.lines,
        warning="" if learned else lacks_real(labels, config.limit),
    )
