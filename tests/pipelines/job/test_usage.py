"""Spans added up: workers, padding, a timeline that stays small, and seconds by part of a run."""

import pytest

from pipelines.job import usage
from pipelines.job.usage import Parts, Usage
from pipelines.workers.work import Span


def span(stage="face", worker="a:1", begun=0.0, ended=4.0, clips=8, frames=600, padded=660):
    return Span(stage, worker, begun, ended, clips, frames, padded)


def added(*spans, begun=0.0, now=1e9):
    total = Usage(begun=begun)
    total.add(spans, now)
    return total


def test_a_worker_is_idle_between_its_spans():
    stage = added(span(begun=0, ended=4), span(begun=6, ended=10)).stages["face"]
    assert (stage.clips, stage.frames, stage.busy_s) == (16, 1200, 8)
    assert stage.utilisation == pytest.approx(0.8)
    assert stage.padding == pytest.approx(0.1)


def test_workers_that_came_in_place_of_others_count_once():
    first, second = span(worker="a:1", begun=0, ended=5), span(worker="a:2", begun=1, ended=6)
    third = span(worker="b:3", begun=6, ended=9)
    assert added(first, second, third).stages["face"].most_workers == 2


def test_the_timeline_keeps_its_size_and_loses_nothing_however_long_a_run_is():
    total = Usage(begun=0.0)
    for k in range(3000):
        total.add([span(begun=37.0 * k, ended=37.0 * k + 30)], now=1e9)
        total.add([span("asr", begun=37.0 * k + 30, ended=37.0 * k + 31)], now=1e9)
    for stage in total.stages.values():
        assert len(stage.clips_in) == len(stage.busy_in) == usage.BINS
        assert sum(stage.clips_in) == pytest.approx(stage.clips)
        assert sum(stage.busy_in) == pytest.approx(stage.busy_s)
    assert usage.BINS * total.bin_s >= 37 * 3000
    assert max(total.stages["face"].busy_in) <= total.bin_s + 1e-6  # one worker


def test_a_spans_clips_are_spread_over_its_time():
    stage = added(span(begun=10, ended=14)).stages["face"]
    assert stage.clips_in[9:15] == [0, 2, 2, 2, 2, 0]


def test_a_node_with_a_wrong_clock_does_not_stretch_the_timeline():
    total = added(span(begun=-5e6, ended=-4e6), span(begun=5e6, ended=6e6), span(begun=3, ended=3), now=100)
    assert total.bin_s == usage.BIN_S
    assert sum(total.stages["face"].clips_in) == pytest.approx(24)


def test_a_part_inside_another_stops_its_clock(monkeypatch):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(usage.time, "perf_counter", lambda: next(now))
    parts = Parts()
    with parts.part("fit"), parts.part("labels", jobs=4):
        pass
    with parts.part("fit"):
        pass
    assert parts.seconds == {"fit": 30, "labels": 10}
    assert parts.jobs_s == {"fit": 30, "labels": 40}
    assert parts.broken == ""


def test_the_part_that_an_error_ended_is_known_until_another_begins():
    parts = Parts()
    with pytest.raises(ValueError, match="x"), parts.part("fit"), parts.part("labels"):
        raise ValueError("x")
    assert parts.broken == "labels"
    with parts.part("words"):
        assert parts.broken == ""
