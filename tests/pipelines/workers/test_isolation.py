"""Children that crash, hang or are killed cost the clips that did it, and nothing else."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipelines.corpora.manifest import Row
from pipelines.reasons import INFRASTRUCTURE
from pipelines.workers import isolation
from pipelines.workers.headers import probe_rows
from pipelines.workers.isolation import Child, ChildLost
from pipelines.workers.plan import Slot
from pipelines.workers.work import Receipt, Work, check_device, traceback_of


class Stage:
    """Fails as a clip's path says; a batch is recorded in `seen` when it came through."""

    def __init__(self, seen: str) -> None:
        self.seen = Path(seen)

    def __call__(self, work: Work) -> Work:
        live = [i for i, receipt in enumerate(work.receipts) if receipt.ok]
        for i in live:
            match work.rows[i].path.split(":"):
                case ["crash"]:
                    os.kill(os.getpid(), signal.SIGSEGV)
                case ["hang"]:
                    signal.pause()
                case ["once", mark] if not Path(mark).exists():
                    Path(mark).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                case ["device", mark] if not Path(mark).exists():
                    Path(mark).touch()
                    check_device(RuntimeError("CUDA error: device-side assert triggered"))
                case ["device"]:
                    check_device(RuntimeError("CUDA error: an illegal memory access was encountered"))
                case ["io"]:
                    work.fail(i, "decode", "io", "the network disk is gone")
        with self.seen.open("a") as f:
            f.write(" ".join(work.rows[i].path for i in live) + "\n")
        with self.seen.with_suffix(".pids").open("a") as f:
            f.write(f"{os.getpid()}\n")
        return work


def batch(*paths):
    rows = [Row(path, id=path) for path in paths]
    slots = [Slot(i, 100 * i, 100, 75) for i in range(len(rows))]
    return Work("batch", slots, rows, [Receipt(i, row.id, row.path) for i, row in enumerate(rows)])


@pytest.fixture
def child(tmp_path):
    started = Child(partial(Stage, str(tmp_path / "seen")))
    yield started
    started.close()


def seen(tmp_path):
    return (tmp_path / "seen").read_text().splitlines()


@pytest.mark.parametrize("apart", [True, False])
def test_a_clip_that_crashes_its_worker_fails_alone(child, tmp_path, apart):
    work = isolation.run(child, batch("a", "crash", "b"), "asr", 20, 2, apart)
    assert [r.reason for r in work.receipts] == ["", "crash", ""]
    poison = work.receipts[1]
    assert (poison.stage, poison.attempts) == ("asr", 2)
    assert "SIGSEGV" in poison.message
    assert "2 times" in poison.message
    if not apart:  # the others' results come from one batch, as in a run where the clip had failed before
        assert seen(tmp_path)[-1] == "a b"


def test_a_clip_that_hangs_its_worker_fails_alone(child):
    work = isolation.run(child, batch("a", "hang", "b"), "face", 0.5, 1, apart=True)
    assert [r.reason for r in work.receipts] == ["", "timeout", ""]
    assert "0.5 s" in work.receipts[1].message


@pytest.mark.parametrize("apart", [True, False])
def test_a_batch_whose_worker_was_killed_is_run_again_whole(child, tmp_path, apart):
    work = isolation.run(child, batch("a", f"once:{tmp_path / 'mark'}", "b"), "asr", 20, 2, apart)
    assert all(r.ok for r in work.receipts)
    if not apart:
        assert [len(line.split()) for line in seen(tmp_path)] == [3]


def test_an_error_of_the_machine_is_tried_again_and_says_how_often(child, tmp_path):
    work = isolation.run(child, batch("io"), "face", 20, 3, apart=True)
    assert (work.receipts[0].reason, work.receipts[0].attempts) == ("io", 3)
    assert len(seen(tmp_path)) == 3


@pytest.mark.parametrize("apart", [True, False])
def test_a_device_that_failed_costs_a_child_and_no_clip(child, tmp_path, apart):
    child(batch("first"), 20)
    work = isolation.run(child, batch("a", f"device:{tmp_path / 'mark'}", "b"), "vsr", 20, 2, apart)
    assert all(r.ok for r in work.receipts)
    before, *_, after = (tmp_path / "seen.pids").read_text().split()
    assert before != after


@pytest.mark.parametrize("apart", [True, False])
def test_a_clip_that_breaks_the_device_each_time_fails_alone_and_is_tried_in_the_next_run(child, tmp_path, apart):
    work = isolation.run(child, batch("a", "device", "b"), "vsr", 20, 2, apart)
    assert [r.reason for r in work.receipts] == ["", "device", ""]
    found = work.receipts[1]
    assert found.attempts == 2
    assert "illegal memory access" in found.message
    assert "check_device" in found.trace
    assert found.reason in INFRASTRUCTURE
    if not apart:
        assert seen(tmp_path)[-1] == "a b"


def test_a_crash_leaves_its_place_with_the_clip_and_nothing_on_the_terminal(tmp_path, capfd):
    child = Child(partial(Stage, str(tmp_path / "seen")))
    work = isolation.run(child, batch("crash"), "face", 20, 1, apart=True)
    child.close()
    assert "test_isolation.py" in work.receipts[0].trace
    assert "in __call__" in work.receipts[0].trace
    said = capfd.readouterr()
    assert said.out + said.err == ""


def deep():
    def call(value):
        return {}[value]

    return call


def test_an_error_of_the_child_brings_its_traceback():
    child = Child(deep)
    with pytest.raises(KeyError) as caught:
        child("key", 20)
    child.close()
    assert "return {}[value]" in traceback_of(caught.value)


class Grow:
    """Gives an array of so many bytes, and says how much memory the process took at most meanwhile."""

    def __call__(self, asked):
        if isinstance(asked, np.ndarray):
            return resident()
        return {"rows": np.ones((asked, 1000), np.uint8)}


def resident():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def test_arrays_cross_to_and_from_a_child_without_a_second_copy():
    size = 200_000_000
    child = Child(Grow)
    Path("/proc/self/clear_refs").write_text("5")  # what was reached by other tests does not count
    before = resident()
    rows = child(size // 1000, 30)["rows"]
    assert rows.shape == (size // 1000, 1000)
    assert rows.flags.writeable
    assert rows[-1].all()
    assert resident() - before < 1.3 * size
    at_rest = child(np.ones(1), 30)
    assert child(rows, 30) - at_rest < 0.3 * size  # it held as much before
    child.close()


def raising():
    raise ValueError("no weights here")


def echo():
    return lambda value: value


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def odd():
    def call(value):
        raise Odd("not", value)

    return call


def test_errors_of_the_child_are_raised_here():
    with pytest.raises(ValueError, match="no weights here"):
        Child(raising)
    child = Child(odd)
    with pytest.raises(RuntimeError, match="Odd: not picklable"):
        child("picklable", 20)
    child.close()


def test_messages_may_be_large():
    child = Child(echo)
    assert child(bytes(5_000_000), 20) == bytes(5_000_000)
    child.close()


def test_a_child_lost_between_calls_is_started_anew():
    child = Child(pids)
    first = child(None, 20)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(ChildLost, match="killed from outside"):
        child(None, 20)
    assert child(None, 20) != first
    child.close()


def pids():
    return lambda _: os.getpid()


def test_a_child_is_stopped_while_another_thread_waits_for_its_answer(tmp_path):
    child = Child(Announced(str(tmp_path / "began")))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(child, None, 60)
        while not (tmp_path / "began").exists() and not waiting.done():
            time.sleep(0.01)
        files = set(os.listdir("/proc/self/fd"))
        child.stop()
        with pytest.raises(ChildLost, match="killed"):
            waiting.result(20)
        assert len(files) - len(set(os.listdir("/proc/self/fd"))) == 2  # the pipe and the dump, once, by the thread
        again = pool.submit(child, None, 60)
        with pytest.raises(ChildLost, match="stopped"):  # nothing is started any more
            again.result(20)
    child.close()


class Announced:
    """Says that it has begun, and hangs."""

    def __init__(self, mark: str) -> None:
        self.mark = Path(mark)

    def __call__(self) -> Callable[[object], None]:
        return self.hang

    def hang(self, _: object) -> None:
        self.mark.touch()
        signal.pause()


def test_a_child_dies_with_its_parent_even_while_it_hangs(tmp_path):
    script = (
        "import sys; sys.path[:] = {path!r}\n"
        "from functools import partial\n"
        "from test_isolation import Stage, batch, isolation, Child\n"
        "child = Child(partial(Stage, {seen!r}))\n"
        "print(child._process.pid, flush=True)\n"
        "isolation.run(child, batch('hang'), 'face', 60, 1, True)\n"
    )
    import sys

    path = [str(Path(__file__).parent), *sys.path]
    code = script.format(path=path, seen=str(tmp_path / "seen"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.01)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_headers_are_read_in_a_child(clips, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    frames, failed = probe_rows(
        [Row(str(next(iter(sorted((clips / "clips").glob("*.mp4")))))), Row(str(text), id="t")], None, 3
    )
    assert frames == 75
    assert (failed.id, failed.reason, failed.attempts) == ("t", "unreadable", 1)


def dying():
    os.kill(os.getpid(), signal.SIGABRT)


def test_a_child_that_never_starts_is_an_error_that_says_how_it_ended():
    with pytest.raises(ChildLost, match="SIGABRT"):
        Child(dying)


def test_a_batch_of_failed_clips_is_handed_on_untouched(child, tmp_path):
    work = batch("a")
    work.fail(0, "decode", "unreadable", "no video")
    assert isolation.run(child, work, "asr", None, 3, apart=False).receipts[0].reason == "unreadable"
    assert not (tmp_path / "seen").exists()
