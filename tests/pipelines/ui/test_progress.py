"""Time left from work done, rates of the last minute, what waits where, and what logs and terminals get to see."""

import logging
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines.ui import progress
from pipelines.ui.progress import Pass

ROOT = Path(__file__).parents[3]
STAGES = ("face", "asr", "vsr")


class Clock:
    """A time that only the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def counts(face, asr, vsr):
    return {stage: {"clips": n} for stage, n in zip(STAGES, (face, asr, vsr), strict=True)}


def test_time_left_is_of_frames_and_not_of_clips(clock):
    now = Pass("pass one", 100, 10_000, STAGES, clock=clock)
    clock.now += 10
    now.advance(90, 1_000)  # the short ones came first
    assert now.left_s() == pytest.approx(90)
    assert now.left() == "1:30 left"


def test_nothing_is_promised_before_the_first_batch_is_through(clock):
    now = Pass("pass one", 100, 10_000, STAGES, clock=clock)
    clock.now += 30
    now.sample(counts(8, 0, 0))
    assert now.left() == "starting"


def test_the_start_of_the_workers_is_soon_forgotten(clock):
    now = Pass("pass one", 100, 1_000, clock=clock)
    clock.now += 100  # weights are loaded
    for _ in range(6):
        clock.now += 1
        now.advance(1, 10)
    assert now.left_s() == pytest.approx(94)  # a batch a second, and not one in 17 seconds


def test_time_left_follows_the_speed_of_the_last_minutes_and_grows_while_nothing_comes(clock):
    now = Pass("pass one", 10_000, clock=clock)
    for _ in range(1000):
        clock.now += 0.1
        now.advance(1)
    for _ in range(200):
        clock.now += 1
        now.advance(1)
    assert now.left_s() == pytest.approx(8_800, rel=0.01)  # ten times as slow as in the first minutes
    clock.now += 1000
    assert now.left_s() > 50_000


def test_rates_are_those_of_the_last_minute(clock):
    now = Pass("pass one", 1000, stages=STAGES, clock=clock)
    for second in range(1, 301):
        clock.now += 1
        now.sample(counts(min(second, 200) * 4, min(second, 200) * 4, 0))
    assert now.rate("face") == pytest.approx(0)
    assert now.rate("vsr") == 0
    for second in range(1, 121):
        clock.now += 1
        now.sample(counts(800 + 2 * second, 800, 0))
    assert now.rate("face") == pytest.approx(2)


def test_a_rate_does_not_count_the_time_before_the_stage_had_anything(clock):
    now = Pass("pass one", 1000, stages=STAGES, clock=clock)
    for _ in range(20):
        clock.now += 1
        now.sample({})
    for k in range(1, 11):
        clock.now += 1
        now.sample(counts(3 * k, 0, 0))
    assert now.rate("face") == pytest.approx(3)


def test_one_line_says_it_all(clock):
    now = Pass("pass one", 300, 22_500, STAGES, clock=clock)
    for k in range(1, 61):
        clock.now += 1
        now.sample(counts(130 / 60 * k, 2 * k, 2 * k))
    now.advance(120, 9_000, ["face", "asr"])
    said = now.line()
    assert said == (
        "pass one: 120 of 300 clips, 2 failed; face 2.2 clips/s (169 waiting); asr 2.0 clips/s (9 waiting); "
        "vsr 2.0 clips/s (0 waiting); 1:30 left"
    )


def test_work_that_was_done_again_never_makes_a_queue_negative(clock):
    now = Pass("pass one", 10, stages=STAGES, clock=clock)
    now.sample(counts(12, 14, 8))
    assert now.waiting() == [0, 0, 6]


def test_the_view_has_a_bar_and_a_line_for_each_stage(clock):
    now = Pass("pass one", 100, 1000, STAGES, clock=clock)
    clock.now += 10
    now.advance(10, 500, [])
    bar, *stages = now.lines()
    assert bar.count("━") == bar.count("╌") == progress.BAR // 2
    assert [line.split()[0] for line in stages] == list(STAGES)
    assert Pass("labels", 12, unit="shards", clock=clock).lines() == [
        f"labels  {'╌' * progress.BAR}  0 of 12 shards  starting"
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (84.4, "1:24"), (3725, "1:02:05"), (90_000, "1 d 01:00:00")]
)
def test_times_are_written_as_people_do(seconds, said):
    assert progress.clock(seconds) == said


def test_logs_get_one_line_now_and_then_and_one_at_the_end(monkeypatch, caplog):
    monkeypatch.setattr(progress, "POLL_S", 0.001)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    said = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record):
            said.set()

    heard = Heard()
    with caplog.at_level(logging.INFO, "pipelines.ui.progress"):
        progress.log.addHandler(heard)
        try:
            with progress.shown(Pass("pass one", 2, stages=STAGES), lambda: counts(1, 0, 0)) as now:
                assert said.wait(30)
                now.advance(2)
        finally:
            progress.log.removeHandler(heard)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("pass one: 0 of 2 clips, 0 failed; face ")
    assert lines[-1] == "pass one: 2 of 2 clips, 0 failed in 0:00"


def test_the_same_line_is_not_said_twice(monkeypatch, caplog):
    monkeypatch.setattr(progress, "POLL_S", 0.001)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    sampled = threading.Semaphore(0)
    monkeypatch.setattr(progress, "_sample", lambda now, read: sampled.release())
    with caplog.at_level(logging.INFO, "pipelines.ui.progress"), progress.shown(Pass("videos", 4, unit="videos")):
        for _ in range(5):
            assert sampled.acquire(timeout=30)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "videos: 0 of 4; starting"
    assert len(lines) == 2  # and the last one


def test_counts_that_cannot_be_read_do_not_end_the_run(monkeypatch, caplog):
    monkeypatch.setattr(progress, "POLL_S", 0.001)
    asked = threading.Event()

    def read():
        asked.set()
        raise RuntimeError("no cluster")

    with progress.shown(Pass("pass one", 2), read) as now:
        assert asked.wait(30)
        now.advance(2)


def test_a_pass_that_breaks_off_says_how_far_it_came(caplog):
    def stopped():
        with progress.shown(Pass("words", 5)) as now:
            now.advance(3)
            raise KeyboardInterrupt

    with caplog.at_level(logging.INFO, "pipelines.ui.progress"), pytest.raises(KeyboardInterrupt):
        stopped()
    assert caplog.records[-1].getMessage() == "words: stopped at 3 of 5 clips, after 0:00"


SCRIPT = """
import logging, threading
from pipelines.ui import progress
logging.basicConfig(level=logging.INFO, format="%(message)s")
progress.POLL_S, progress.LOG_EVERY_S = 0.01, 0.0
seen = threading.Event()
def read():
    read.times += 1
    if read.times > 100:
        seen.set()
    return {"face": {"clips": 4}, "asr": {"clips": 3}}
read.times = 0
with progress.shown(progress.Pass("pass one", 8, 800, ("face", "asr", "vsr")), read) as now:
    now.advance(3, 300)
    logging.getLogger("x").info("a remark")
    seen.wait(30)
    now.advance(5, 500)
"""


def run(stderr, **environment):
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "TERM", "COLUMNS")}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(command, cwd=ROOT, env={**kept, **environment}, stderr=stderr, check=True)


@pytest.mark.parametrize("environment", [{"TERM": "xterm"}, {"CI": "true", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_logs_ci_and_plain_terminals_get_no_control_characters(environment):
    if environment == {"TERM": "xterm"}:
        said = run(subprocess.PIPE, **environment).stderr
    else:
        said = in_terminal(**environment)
    text = said.decode().replace("\r\n", "\n")
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "pass one: 3 of 8 clips, 0 failed; " in text
    assert "pass one: 8 of 8 clips, 0 failed in" in text.splitlines()[-1]


def in_terminal(**environment) -> bytes:
    """Everything that the script writes to a terminal."""
    ours, theirs = pty.openpty()
    said = bytearray()

    def listen():
        try:
            while data := os.read(ours, 65536):
                said.extend(data)
        except OSError:  # how a terminal says that the other end is closed
            return

    listener = threading.Thread(target=listen)
    listener.start()
    run(theirs, **environment)
    os.close(theirs)
    listener.join()
    os.close(ours)
    return bytes(said)


def test_a_terminal_gets_one_view_that_is_redrawn_and_gone_at_the_end():
    said = in_terminal(TERM="xterm-256color").decode()
    assert "\x1b[" in said
    assert "3 of 8 clips, 0 failed" in said
    assert "waiting" in said
    assert said.count("a remark") == 1
    assert "\x1b[2K" in said.rpartition("waiting")[2]  # erased
    assert "pass one: 8 of 8 clips, 0 failed in" in said.rpartition("\x1b[2K")[2]
