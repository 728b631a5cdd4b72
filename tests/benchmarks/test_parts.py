"""`benchmarks.parts`: a part that fails, hangs or crashes is a line in the table, and what it measured before is kept."""

import os
import select
import signal
import subprocess

import pytest

from benchmarks import parts
from benchmarks.parts import Part, Result, Row

pytestmark = pytest.mark.filterwarnings("default")


def measured(count):
    for k in range(count):
        yield Row(f"row {k}", {"frames/s": 10.0 * k, "MiB": None}, "as planned")


def broken(count):
    yield from measured(count)
    raise ValueError("no such network")


def crashed():
    yield Row("before", {"frames/s": 1.0})
    os.kill(os.getpid(), signal.SIGKILL)


def endless(fifo):
    with open(fifo, "wb") as file:
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    yield Row("before", {"frames/s": 1.0})
    signal.pause()


def test_every_part_has_its_line_and_the_rest_goes_on(tmp_path):
    """In one run, since every part starts a process."""
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    told = []
    found = parts.run(
        [
            Part("fine", "A part", measured, {"count": 2}),
            Part("broken", "One that fails", broken, {"count": 1}),
            Part("crashed", "One that crashes", crashed),
            Part("endless", "One that does not end", endless, {"fifo": str(fifo)}, share=5e-5),
            Part("last", "Another", measured, {"count": 1}),
        ],
        minutes=1000,
        watch=lambda results, row: told.append((results[-1].name, row and row.name)),
    )
    by = {result.name: result for result in found}
    assert [len(by[name].rows) for name in ("fine", "broken", "crashed", "last")] == [2, 1, 1, 1]
    assert len(by["endless"].rows) <= 1  # none where the machine is so busy that it has not begun
    assert by["fine"].ended == by["last"].ended == ""
    assert by["fine"].processor_s > 0
    assert by["broken"].ended == "failed: ValueError: no such network"
    assert "in broken" in by["broken"].trace
    assert by["crashed"].ended == "its process died (SIGKILL: out of memory, or a crash)"
    assert by["endless"].ended.startswith("stopped after ")
    assert told[:3] == [("fine", "row 0"), ("fine", "row 1"), ("fine", None)]
    assert parts.failed(found)[0] == "broken: failed: ValueError: no such network"
    if by["endless"].rows:  # then what it had started is gone, too: nobody holds the other end of the pipe
        assert select.select([reading], [], [], 60)[0]
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_without_time_nothing_begins():
    (found,) = parts.run([Part("fine", "A part", measured, {"count": 1})], minutes=0)
    assert (found.rows, found.ended) == ([], "not begun: the time was used up; give it more --minutes")


def test_the_table_lines_up_and_leaves_unknown_figures_blank():
    rows = [Row("a", {"frames/s": 1234.5, "MiB": None}), Row("longer", {"MiB": 0.00123}, "a note")]
    lines = parts.table([Result("part", "Title", rows, 3.0, 1.0, "stopped")]).splitlines()
    assert lines[0] == "Title (3 s, 1 s of the processor)"
    assert [line.split() for line in lines[1:]] == [
        ["part", "frames/s", "MiB"], ["a", "1,234"], ["longer", "1.2e-03", "a", "note"], ["stopped"],
    ]  # fmt: skip
    assert (
        len({line.index(text) + len(text) for line, text in zip(lines[1:3], ("frames/s", "1,234"), strict=True)}) == 1
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (0.0, "0"),
        (12345.6, "12,346"),
        (42.34, "42.3"),
        (1.234, "1.23"),
        (0.5678, "0.568"),
    ],
)
def test_figures_have_three_digits(value, text):
    assert parts.shown(value) == text
