"""Work on this machine without Ray: order, errors, one thread each, and no process that is left over."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipelines.corpora.manifest import Row
from pipelines.job import run
from pipelines.job.request import Config
from pipelines.job.usage import Usage
from pipelines.workers import alone, chain
from pipelines.workers.chain import Chain, Pools
from pipelines.workers.plan import Slot
from pipelines.workers.work import Receipt, Work
from store.place import place


def square(x):
    return x * x, os.getpid()


def threads(_):
    from threadpoolctl import threadpool_info

    return {one["num_threads"] for one in threadpool_info()} | {int(os.environ["OMP_NUM_THREADS"])}


def fails(x):
    raise ValueError(f"no {x}")


def dies(_):
    os.abort()


def test_answers_come_in_the_order_of_the_jobs_from_other_processes():
    answers = list(alone.spread(square, [(np.arange(k),) for k in range(5)]))
    assert [got.tolist() for got, _ in answers] == [[i * i for i in range(k)] for k in range(5)]
    assert os.getpid() not in {pid for _, pid in answers}


def test_every_library_has_one_thread():
    assert list(alone.spread(threads, [(0,)])) == [{1}]


@pytest.mark.parametrize(("job", "says"), [(fails, "no 1"), (dies, "crashed")])
def test_the_error_of_a_job_is_raised(job, says):
    with pytest.raises(Exception, match=says):
        list(alone.spread(job, [(1,), (1,)]))


def test_a_ticket_holds_the_result():
    ticket = alone.begin(square, 3)
    assert alone.ended([ticket], wait=False) is ticket
    assert alone.ended([], wait=True) is None
    assert alone.answer(ticket) == (9, os.getpid())


@dataclass
class Adds:
    """A stage that writes its name into the receipts, or fails."""

    name: str
    breaks: str = ""

    def __call__(self, work):
        if self.name == self.breaks:
            raise ValueError("broken stage")
        work.receipts = [Receipt(r.clip, r.id, r.path, message=r.message + self.name[0]) for r in work.receipts]
        return work


class Builder:
    """The builds of a chain of `Adds`."""

    def __init__(self, name, breaks):
        self.name, self.breaks = name, breaks

    def __call__(self):
        return Adds(self.name, self.breaks)


class Small(Chain):
    """A chain whose stages need no model."""

    breaks = ""

    def builds(self, device):
        return {name: Builder(name, self.breaks) for name in ("face", "asr", "vsr")}


class Broken(Small):
    breaks = "asr"


def works(count):
    return [
        Work(f"{k:012d}", [Slot(k, k * 10, 10, 10)], [Row("a.mp4")], [Receipt(k, f"{k}", "a.mp4")])
        for k in range(count)
    ]


def settings(kind, root):
    return kind(place(root), {}, (), Pools(face=(1, 2)), 60.0, 1)


@pytest.fixture
def no_staging(monkeypatch):
    """Batches are not written anywhere."""
    monkeypatch.setattr(chain, "staged_receipts", lambda root, name: None)
    monkeypatch.setattr(chain, "stage", lambda work, root: work.receipts)


def children():
    """Processes whose parent is this one."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z" and int(parent) == os.getpid():
                found.add(path.parent.name)
    return found


@pytest.fixture
def leaves_no_child():
    """The workers' children end, which their threads see to; other tests of this process may have their own."""
    before = children()
    yield
    ends = time.monotonic() + 60
    while (left := children() - before) and time.monotonic() < ends:
        threading.Event().wait(0.05)
    assert not left


def test_batches_pass_through_every_stage_and_no_process_is_left(tmp_path, no_staging, leaves_no_child):
    tally = alone.tally()
    staged = list(alone.stream(works(7), settings(Small, tmp_path), tally))
    assert sorted(one.name for one in staged) == [f"{k:012d}" for k in range(7)]
    assert {receipt.message for one in staged for receipt in one.receipts} == {"fav"}
    assert set(alone.counts(tally)) == {"face", "asr", "vsr"}


def test_workers_in_one_process_are_counted_each_so_none_is_busy_more_than_all_the_time(tmp_path, no_staging):
    usage = Usage()
    for one in alone.stream(works(7), settings(Small, tmp_path), alone.tally()):
        usage.add(one.spans)
    assert len({name for stage in usage.stages.values() for name in stage.workers}) >= 3  # of three stages
    assert all(0 < stage.utilisation <= 1 for stage in usage.stages.values())


def test_the_error_of_a_stage_ends_the_stream_and_its_processes(tmp_path, no_staging, leaves_no_child):
    with pytest.raises(ValueError, match="broken stage"):
        list(alone.stream(works(7), settings(Broken, tmp_path), alone.tally()))


def test_a_batch_that_cannot_be_staged_ends_the_stream(tmp_path, no_staging, monkeypatch):
    def full(work, root):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chain, "stage", full)
    with pytest.raises(OSError, match="No space left"):
        list(alone.stream(works(2), settings(Small, tmp_path), alone.tally()))


@pytest.mark.parametrize(
    ("address", "environment", "clips", "few"),
    [
        (None, None, 4, True),
        (None, None, run.FEW + 1, False),
        ("local", None, 4, False),
        ("auto", None, 4, False),
        (None, "10.0.0.1:6379", 4, False),
    ],
)
def test_a_few_clips_need_no_ray_unless_one_was_named(address, environment, clips, few, monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert run.alone_is_enough(Config(place(tmp_path), address=address), clips) is few
