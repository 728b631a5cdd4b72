"""The precompute job: manifests in, a complete store out; run again it does only what is missing.

The driver plans slots, streams batches through Ray, packs shards whose batches are all staged, and alone writes the clips
table and the ledger; `clips/done` comes last. Whatever dies, the next run finds staged batches, packed shards and the ledger,
and goes on from there.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import store
from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row
from pipelines.errors import RunError, UsageError
from pipelines.job import kept, ledger, report_data, request, space, traces, words
from pipelines.job.headers import Failure, probe_rows
from pipelines.job.ledger import Entry
from pipelines.job.request import Config
from pipelines.job.usage import Summary, first_line
from pipelines.labels import second_pass as labels
from pipelines.ui import progress
from pipelines.workers import cluster, pack, plan
from pipelines.workers.work import INFRASTRUCTURE, OVERFLOW, Receipt, Work, traceback_of
from store import layout, staging
from store.creation import unmake
from store.layout import FPS
from store.place import Place
from teachers import TeacherError

log = logging.getLogger(__name__)

PROBES = 256  # headers read by one task
WAVE = 2048  # batches that Ray Data is given at once: its books, like the driver's memory, do not grow with the corpus
FRUITLESS = 3  # times that work is lost before anything is done, after which the run ends
MARK_EVERY_S = 20.0  # a mark writes the whole ledger


def _wish(config: Config) -> labels.Wish:
    return labels.Wish(config.similarity, config.refit, config.fit_from, config.seed)


def run(config: Config) -> Summary:
    """Do all that is missing. Raises UsageError, ManifestError, StoreError, TeacherError before anything is changed,
    RunError after."""
    config = replace(config, store=config.store.confined())
    rows = request.rows(config)
    exists = request.check_place(config)
    arrays = request.optional_arrays(config, exists)
    asr, vsr = request.load_teachers(config, exists)
    if config.dry_run:
        return _dry_run(config, rows, exists, asr.dim + vsr.dim, arrays)
    with request.lock(config.store, exists):
        writer = store.Writer.open(config.store) if exists else request.create(config, asr, vsr)
        request.mend_store(config, writer)
        names = {"face": request.face_backend(writer), "asr": asr.name, "vsr": vsr.name}
        job = _Job(config, writer, names, arrays, rows)
        try:
            with report_data.kept(job.summary, config, job.entries) as job.tell:
                return job.run(rows)
        except UsageError:
            if not exists and not writer.num_clips:  # what was made for the run goes with it
                unmake(config.store)
            raise
        except Exception as error:  # from here on the store may have changed
            _check_there(config.store, error)
            if isinstance(error, store.StoreError | TeacherError):
                raise RunError(str(error)) from error
            if isinstance(error, RunError):
                raise
            if traces.add(config.store, [traces.Trace("", "run", traceback_of(error))]):
                log.warning("the traceback of what ended this run is in %s", config.store / traces.FILE)
            raise


def _check_there(root: Place, error: Exception) -> None:
    """Raises RunError where the store was moved or removed meanwhile, whatever error that led to."""
    try:
        is_there = (root / "zarr.json").exists()
    except (OSError, store.StoreError):  # a disk or network that is away, of which `error` tells
        return
    if not is_there:
        raise RunError(
            f"{root} is gone: the store was moved or removed while this run wrote to it; put it back where it was"
        ) from error


class _Job:
    """One run over one store."""

    def __init__(
        self, config: Config, writer: store.Writer, names: dict[str, str], arrays: tuple[str, ...], rows: list[Row]
    ) -> None:
        self.config, self.writer, self.names, self.arrays = config, writer, names, arrays
        self.root = config.store
        self.reader = store.open(self.root)
        self.foreign = labels.foreign_shards(self.reader)
        tables = kept.read(self.reader, rows)
        self.rows, self.entries = tables.rows, tables.entries
        writer.begin()
        if tables.anew:
            manifest.write(self.rows, self.root / kept.MANIFEST)
            self._write_ledger()
        self.summary = Summary(arrays=arrays)
        self.tell: Callable[[], None] = lambda: None  # keeps the report fresh
        self.packed: list[str] = []  # staged batches whose shards are written and whose clips are not entered yet
        self.receipts: dict[str, list[dict[str, Any]]] = {}  # of batches that this run staged, until they are entered
        self.begun, self.marked = time.perf_counter(), time.monotonic()
        writer.tidy()
        columns = self.reader.clips  # a run that died may have given slots and not yet the rows for them
        self.top = int((columns["offset"] + columns["capacity"]).max(initial=0))
        writer.grow_rows(self.top)

    def run(self, rows: list[Row]) -> Summary:
        self._reopen_damaged()
        known = {row.id for row in self.rows}
        new = [row for row in rows if row.id not in known]
        columns = self.reader.clips
        again = {"", OVERFLOW, *INFRASTRUCTURE}
        failed = {row.id for row in self.rows if (e := self.entries.get(row.id)) and e.reason not in again}
        if self.config.retry_failed:
            failed = set()
        pending = [i for i, row in enumerate(self.rows) if not columns["done"][i] and row.id not in failed]
        if new:
            pending += self._append(new, pending)
        if pending:
            with self.summary.parts.part("pass one"):
                self._first_pass(pending)
        with self.summary.parts.part("fit"):
            note = labels.second_pass(self.root, self.writer, _wish(self.config), self._spread, self.foreign)
        self.summary.labelled, self.summary.similarity = bool(note), note
        if self.config.words:
            words.transcribe(self.root, self.writer, self.names["asr"], self._spread)
        staging.discard(self.root, staging.staged(self.root))  # of attempts that were planned otherwise
        self.writer.consolidate()
        return self._close()

    def _spread(
        self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], gpu: bool = False
    ) -> Iterator[Any]:
        """`cluster.spread`, the cluster joined when there is something to do on it; its progress is shown."""
        if not jobs:
            return
        self._connect()
        name, unit, sizes = _progress(function, jobs)
        with (
            self.summary.parts.part(name, min(len(jobs), cluster.IN_FLIGHT)),
            progress.shown(progress.Pass(name, sum(sizes), unit=unit)) as show,
        ):
            for answer, size in zip(cluster.spread(function, jobs, gpu), sizes, strict=True):
                show.advance(size)
                yield answer

    def _connect(self) -> None:
        with self.summary.parts.part("start"):
            cluster.connect(self.config.address)

    # -- planning

    def _reopen_damaged(self) -> None:
        """Clips of shards that are missing or cut short are not done: what the teachers gave is worked out again.

        Sizes and indexes tell, which is cheap; `store.inspect --verify` reads every byte.
        """
        given = [name for name in self.reader.names if name not in layout.LEARNED_ARRAYS]
        damaged = self.reader.damaged_shards(given)
        shards = sorted({shard for found in damaged.values() for shard in found})
        clips = sorted({clip for shard in shards for clip in plan.clips_of_shard(self.reader.clips, shard)})
        if not clips:
            return
        name = next(iter(damaged))
        log.warning(
            "%d shards are damaged, the first for this: %s; working on their %d clips again",
            len(shards),
            self.reader.shard_damage(name, damaged[name][0]),
            len(clips),
        )
        done = self.reader.clips["done"].copy()
        done[clips] = 0
        self.writer.write_clips(0, {"done": done})
        self.reader = store.open(self.root)

    def _append(self, new: list[Row], pending: list[int]) -> list[int]:
        """Probe headers, reserve slots, and enter the new clips into manifest and clips table; their rows. Raises UsageError
        where the disk has no room for them and for those that are `pending`."""
        log.info("reading the headers of %d new clips", len(new))
        first = len(self.rows)
        found = self._probe(new)
        waiting = set(pending)
        promised = sum(slot.frames for slot in plan.placed(self.reader.clips) if slot.clip in waiting)
        promised += sum(n for n in found if isinstance(n, int))
        warning = space.check(self.root, promised, space.dims(self.writer.frame_arrays), self.arrays)
        if warning:
            log.warning("%s", warning)
        wanted = [(first + k, frames) for k, frames in enumerate(found) if isinstance(frames, int)]
        slots = {slot.clip: slot for slot in self._place(wanted)}
        self.rows += new
        manifest.write(self.rows, self.root / kept.MANIFEST)
        for frames in found:
            if not isinstance(frames, int):
                self.entries[frames.id] = replace(frames, attempts=self._attempts(frames.id))
        columns = {name: [getattr(row, name) for row in new] for name in _TEXT}
        columns["identities"] = [json.dumps(list(row.identities), ensure_ascii=False) for row in new]
        for name in ("label", "audio_fake", "video_fake"):
            columns[name] = [getattr(row, name) for row in new]
        placed = [slots.get(first + k, plan.Slot(first + k, -1, 0, 0)) for k in range(len(new))]
        columns["offset"], columns["capacity"] = [s.offset for s in placed], [s.capacity for s in placed]
        columns["duration"] = [s.frames / FPS for s in placed]  # as promised, until it is known
        self.writer.append_clips(columns)
        self.writer.grow_rows(self.top)
        self._write_ledger()
        corpora = list(dict.fromkeys([*self.writer.attrs["corpora"], *(row.corpus for row in new)]))
        self.writer.update_attrs({"corpora": corpora})
        self.reader = store.open(self.root)
        return sorted(slots)

    def _probe(self, rows: list[Row]) -> list[int | Entry]:
        """What the headers promise, read by the cluster's workers."""
        config = self.config
        how = config.clip_timeout, config.attempts, config.store.options
        chunks = [(rows[k : k + PROBES], *how) for k in range(0, len(rows), PROBES)]
        found = [answer for chunk in self._spread(probe_rows, chunks) for answer in chunk]
        self._keep(traces.Trace(f.id, f.stage, f.trace) for f in found if isinstance(f, Failure))
        return found

    # -- pass one: decode, face, teachers, packing

    def _first_pass(self, pending: list[int]) -> None:
        late = self._pass(self._slots(pending))
        # Headers lied about these: new slots after everything else, in manifest order.
        again = sorted(i for i in late if self.entries[self.rows[i].id].reason == OVERFLOW)
        if again:
            self._pass(self._rehouse([(i, late[i]) for i in again]))

    def _slots(self, pending: list[int]) -> list[plan.Slot]:
        """Slots of clips to work on; clips that never had one (they could not be probed) are probed again first."""
        self.reader = store.open(self.root)
        homeless = [i for i in pending if self.reader.clips["offset"][i] < 0]
        waiting = set(pending)
        slots = [slot for slot in plan.placed(self.reader.clips) if slot.clip in waiting]
        found = self._probe([self.rows[i] for i in homeless])
        wanted = []
        for i, frames in zip(homeless, found, strict=True):
            if isinstance(frames, int):
                wanted.append((i, frames))
            else:
                self.entries[frames.id] = replace(frames, attempts=self._attempts(frames.id))
        if wanted:
            slots += self._rehouse(wanted)
        return slots

    def _place(self, wanted: list[tuple[int, int]]) -> list[plan.Slot]:
        """New slots after all there are."""
        slots = plan.place(wanted, self.top)
        self.top = max(self.top, plan.num_rows(slots))
        return slots

    def _rehouse(self, wanted: list[tuple[int, int]]) -> list[plan.Slot]:
        """New slots for clips that are in the table already."""
        slots = self._place(wanted)
        for slot in slots:
            promised = slot.frames / FPS
            new: dict[str, list[Any]] = {
                "offset": [slot.offset],
                "capacity": [slot.capacity],
                "duration": [promised],
            }
            self.writer.write_clips(slot.clip, new)
        self.writer.grow_rows(self.top)
        return slots

    def _pass(self, slots: list[plan.Slot]) -> dict[int, int]:
        """Work on these slots; the decoded length of each clip that did not fit its slot, by row."""
        import ray

        groups = plan.groups(slots)
        if not groups:
            self._write_ledger()
            return {}
        self._connect()
        staged = staging.staged(self.root)
        missing = {g.first: {b.name for b in plan.batches(g)} for g in groups}
        group_of = {name: g for g in groups for name in missing[g.first]}
        todo = {b.name: b for g in groups for b in plan.batches(g) if b.name not in staged}
        kept = sum(len(g.slots) for g in groups) - sum(len(b.slots) for b in todo.values())
        if kept:
            log.info("%d clips are staged from an earlier run and only need packing", kept)
        names = {g.first: sorted(missing[g.first]) for g in groups}
        late: dict[int, int] = {}
        tally = cluster.tally()
        packing: dict[Any, plan.ShardGroup] = {}
        packer = ray.remote(num_cpus=cluster.SMALL_CPUS, max_retries=cluster.RETRIES)(pack.pack)

        def collect(block: bool) -> None:
            while packing:
                ready, _ = ray.wait(list(packing), num_returns=1, timeout=None if block else 0)
                if not ready:
                    return
                ray.get(ready[0])
                self.packed += names[packing.pop(ready[0]).first]
                if time.monotonic() - self.marked > MARK_EVERY_S:
                    late.update(self._mark())

        def finish(name: str) -> None:
            group = group_of[name]
            missing[group.first].discard(name)
            if not missing[group.first]:
                packing[packer.remote(self.root, group, names[group.first])] = group
            collect(block=len(packing) > 2)

        frames = {b.name: b.frames for b in todo.values()}
        clips = sum(len(b.slots) for b in todo.values())
        pass_one = progress.Pass("pass one", clips, sum(frames.values()), ("face", "asr", "vsr"))
        with progress.shown(pass_one, lambda: ray.get(tally.read.remote(), timeout=5)) as show:
            for name in [n for n in group_of if n in staged]:
                finish(name)
            for done in self._stream(todo, tally):
                self.receipts[done.name] = done.receipts
                finish(done.name)
                show.advance(len(done.receipts), frames[done.name], done.receipts)
                self.summary.usage.add(done.spans)
            collect(block=True)
        late.update(self._mark())
        self._write_ledger()
        return late

    def _stream(self, todo: dict[str, plan.Batch], tally: Any) -> Iterator[cluster.Staged]:
        """Batches as they are staged, until all are. What the infrastructure breaks off is taken up again where it stands."""
        config = self.config
        chain = cluster.Chain(self.root, self.names, self.arrays, config.pools, config.clip_timeout, config.attempts)
        fruitless = 0
        while todo:
            now = [self._work(batch) for batch in itertools.islice(todo.values(), WAVE)]
            before = len(todo)
            try:
                for done in cluster.stream(now, chain, tally):
                    del todo[done.name]
                    yield done
            except Exception as error:
                if not cluster.lost(error):
                    raise
                self.summary.breaks += 1
                log.warning("workers were lost (%s); going on with %d batches", first_line(error), len(todo))
            fruitless = fruitless + 1 if len(todo) == before else 0
            if fruitless == FRUITLESS:
                raise RunError(f"workers are lost before they finish anything, {FRUITLESS} times in a row")

    def _work(self, batch: plan.Batch) -> Work:
        rows = [self.rows[slot.clip] for slot in batch.slots]
        receipts = [Receipt(slot.clip, row.id, row.path) for slot, row in zip(batch.slots, rows, strict=True)]
        return Work(batch.name, list(batch.slots), rows, receipts)

    def _mark(self) -> dict[int, int]:
        """Enter the clips of packed batches into table and ledger, call them done, drop their staging; the decoded length of
        each that did not fit its slot, by row.

        Ledger and table are written whole, so this is done now and then; each column in one write, so that a kill leaves
        the clips all done or none, and the next run packs again what is still staged.
        """
        names, self.packed, self.marked = self.packed, [], time.monotonic()
        brought = [name for name in names if name not in self.receipts]
        self.receipts |= zip(
            brought, self.root.map(lambda name: staging.receipts(self.root, name), brought), strict=True
        )
        receipts = [Receipt(**r) for name in names for r in self.receipts.pop(name)]
        finished = [r for r in receipts if r.ok]
        for receipt in receipts:
            before = self.entries.get(receipt.id)
            message = receipt.message
            if receipt.ok and before and before.reason == OVERFLOW:
                message = before.message  # the one thing worth telling of a clip that is done
            self.entries[receipt.id] = Entry(
                receipt.id,
                receipt.path,
                receipt.stage,
                receipt.reason,
                message,
                self._attempts(receipt.id) - 1 + receipt.attempts,
                round(receipt.seconds, 3),
                receipt.worker,
            )
        self._keep(traces.Trace(r.id, r.stage, r.trace) for r in receipts)
        self._write_ledger()
        if finished:
            columns = store.open(self.root).clips
            first, last = min(r.clip for r in finished), max(r.clip for r in finished)
            new = {
                name: columns[name][first : last + 1].copy()
                for name in ("length", "duration", "start_skew", "quality", "done")
            }
            for r in finished:
                k = r.clip - first
                new["length"][k], new["duration"][k] = r.length, r.length / FPS
                new["start_skew"][k], new["quality"][k], new["done"][k] = r.start_skew, r.quality, 1
            self.writer.write_clips(first, new)
        self.summary.worked += len(finished)
        self.summary.video_seconds += sum(r.length for r in finished) / FPS
        staging.discard(self.root, names)
        self.tell()
        return {r.clip: r.length for r in receipts if r.reason == OVERFLOW}

    def _keep(self, found: Iterable[traces.Trace]) -> None:
        """Tracebacks of errors that nobody foresaw, beside the ledger."""
        if traces.add(self.root, found):
            self.summary.traces = str(self.root / traces.FILE)

    def _attempts(self, clip_id: str) -> int:
        before = self.entries.get(clip_id)
        return 1 + (before.attempts if before else 0)

    def _write_ledger(self) -> None:
        ledger.write(self.root, [self.entries[row.id] for row in self.rows if row.id in self.entries])

    def _close(self) -> Summary:
        reader = store.open(self.root)
        self.summary.clips, self.summary.done = len(reader), int((reader.clips["done"] == 1).sum())
        self.summary.failed = [e for row in self.rows if (e := self.entries.get(row.id)) and e.reason]
        self.summary.seconds = time.perf_counter() - self.begun
        return self.summary


_TEXT = ("id", "path", "corpus", "split", "method", "category", "group")


def _dry_run(config: Config, rows: list[Row], exists: bool, dims: int, arrays: tuple[str, ...]) -> Summary:
    """What a run would do, from headers alone."""
    known = set(store.open(config.store).clips["id"].tolist()) if exists else set()
    new = [row for row in rows if row.id not in known]
    found = probe_rows(new, config.clip_timeout, config.attempts, config.store.options)
    frames = [n for n in found if isinstance(n, int)]
    return Summary(
        clips=len(new),
        worked=0,
        video_seconds=sum(frames) / FPS,
        failed=[e for e in found if isinstance(e, Entry)],
        cpus=space.cpus(config.address),
        dims=dims,
        arrays=arrays,
    )


def _progress(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> tuple[str, str, list[int]]:
    """What to call the work that is spread over the cluster, what it is counted in, and how many there are in each job."""
    clips = [len(next((value for value in job if isinstance(value, list)), [None])) for job in jobs]
    known = {probe_rows: ("headers", "clips", clips), words.decode: ("words", "clips", clips)}
    ones = [1] * len(jobs)
    return known.get(function, ("labels", "shards", ones) if function is labels.label_shard else ("fit", "parts", ones))
