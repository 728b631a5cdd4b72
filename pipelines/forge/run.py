"""A run: real clips first, because they say which clips can be taken from; then the forgeries; then sheets and lists."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row
from pipelines.forge import folder, plan, sheet
from pipelines.forge.plan import REAL, Request, Source
from pipelines.forge.work import Opening, Outcome, Task, people
from pipelines.media.files import MediaError
from pipelines.tables import ledger
from pipelines.tables.ledger import Entry
from pipelines.ui.progress import Pass, shown
from pipelines.workers.isolation import Child, ChildLost

log = logging.getLogger(__name__)

LIMIT_S = 900.0  # for one output: a clip of 10 s takes at most one minute
ATTEMPTS = 2  # after a crash


@dataclass(frozen=True)
class Report:
    """Counts of a run: real clips and forgeries that are there, and the entries of those that failed."""

    real: int
    forged: int
    failed: tuple[Entry, ...]


class Pool:
    """Child processes; each takes the next task when it is free."""

    def __init__(self, root: Path, request: Request, workers: int) -> None:
        self.opening = Opening(root.absolute(), request.seed)
        self.workers = workers
        self.stopped = False
        self.children: list[Child[Task, Outcome]] = []
        self.free: SimpleQueue[Child[Task, Outcome] | None] = SimpleQueue()
        for _ in range(workers):
            self.free.put(None)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """End all processes, whatever they are doing; the threads that wait for them go on at once."""
        self.stopped = True
        for child in self.children:
            child.stop()

    def close(self) -> None:
        """End all processes, when no thread uses them."""
        for child in self.children:
            child.close()

    def do(self, tasks: Sequence[Task], name: str) -> dict[str, Outcome]:
        """The outcome of each task, by its id. Raises ChildLost if no process can be started, and TeacherError."""
        found: dict[str, Outcome] = {}
        with shown(Pass(name, len(tasks))) as passed, ThreadPoolExecutor(self.workers) as threads:
            futures = {threads.submit(self._one, task): task for task in tasks}
            try:
                for future, task in futures.items():
                    found[task.id] = future.result()
                    passed.advance(failed=[name] if found[task.id].reason else [])
            except BaseException:  # a signal, too: the processes end now, not after their task
                for future in futures:
                    future.cancel()
                self.stop()
                raise
        return found

    def _one(self, task: Task) -> Outcome:
        child = self.free.get()
        try:
            if child is None:
                child = Child(self.opening)
                self.children.append(child)
                if self.stopped:  # while it started
                    child.stop()
            for left in reversed(range(ATTEMPTS)):
                try:
                    return child(task, LIMIT_S)
                except ChildLost as error:
                    if self.stopped or not left:
                        return Outcome(error.reason, f"{task.source.row.path}: {error}, tried {ATTEMPTS} times")
        finally:
            self.free.put(child)
        raise AssertionError("every attempt returns or fails")


def run(root: Path, request: Request, workers: int) -> Report:
    """Fill a folder that `folder.prepare` has made. Raises TeacherError and ChildLost; running it again continues."""
    with Pool(root, request, workers) as pool:
        reals = [Task(source, REAL) for source in request.sources]
        outcomes = pool.do(reals, "real clips")
        usable = {task.source.name: task.source for task in reals if not outcomes[task.id].reason}
        forged = _tasks(root, request, usable)
        outcomes |= pool.do(forged, "forgeries") if forged else {}
    unread: dict[str, MediaError] = {}
    for method in request.methods:
        unread |= sheet.write(root, method, [source.name for source in request.sources])
    again = "remove it, and the next run makes it again"
    outcomes |= {name: Outcome(error.reason, f"{error}; {again}") for name, error in unread.items()}
    write_manifest(root, request, unread)
    entries = [_entry(task, outcomes[task.id]) for task in [*reals, *forged]]
    ledger.write(root, entries)
    real, made = (sum(not outcomes[task.id].reason for task in tasks) for tasks in (reals, forged))
    return Report(real, made, tuple(entry for entry in entries if entry.reason))


def _tasks(root: Path, request: Request, usable: dict[str, Source]) -> list[Task]:
    lengths = {name: (folder.read_note(folder.note(root, REAL, name)) or {}).get("frames", 0) for name in usable}
    pools = plan.donors({name: (source, lengths[name]) for name, source in usable.items()}, request.seed)
    tasks = []
    for method in request.methods:
        for name, source in usable.items():
            pool = pools[name]
            number = int(plan.seed_of(request.seed, name, f"donor of {method}").integers(max(len(pool), 1)))
            tasks.append(Task(source, method, pool[number] if pool else None))
    return tasks


def _entry(task: Task, outcome: Outcome) -> Entry:
    stage = "done" if not outcome.reason else "real" if task.method == REAL else task.method
    source = task.source.row.path
    return Entry(task.id, source, stage, outcome.reason, outcome.message, seconds=outcome.seconds)


def write_manifest(root: Path, request: Request, unread: Container[str] = ()) -> None:
    """manifest.csv of everything that is finished in the folder, methods of earlier runs included, but for METHOD/NAME that
    cannot be read."""
    rows: list[Row] = []
    more: dict[str, list[str]] = {"seed": [], "made_from": [], "taken_from": [], "drawn": []}
    for method in plan.folders():
        for source in request.sources:
            about = folder.read_note(folder.note(root, method, source.name))
            finished = folder.is_finished(root, method, source.name) and Task(source, method).id not in unread
            if about is None or not finished:
                continue
            rows.append(_row(root, method, source, about))
            for name, value in zip(more, (about["seed"], source.row.id, about["donor"], about["note"]), strict=True):
                more[name].append(str(value))
    manifest.write(manifest.with_groups(rows), root / folder.MANIFEST, more)


def _row(root: Path, method: str, source: Source, about: dict) -> Row:
    fake = int(method != REAL)
    labels = about["video_fake"], about["audio_fake"]
    segments = [tuple(tuple(part) for part in about[f"{kind}_segments"]) for kind in ("audio", "video")]
    return Row(
        path=f"{method}/{source.name}{plan.SUFFIX}",
        label=fake,
        audio_fake=labels[1],
        video_fake=labels[0],
        method=method if fake else "",
        category=manifest.CATEGORIES[labels],
        identities=tuple(dict.fromkeys([*people(source), *about["donor_people"]])),
        split=source.row.split,
        audio_segments=segments[0],
        video_segments=segments[1],
        corpus=f"forge:{root.absolute().name}",
        source=source.row.source,
    )
