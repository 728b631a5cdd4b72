"""Last lines, exit codes, the timeline picture, and the one command in front of all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import store
from pipelines import picture, report
from pipelines.ledger import Entry
from pipelines.request import Config
from pipelines.usage import Summary
from store import layout, similarity

FAILED = Entry("c/a.mp4", "/a.mp4", "decode", "truncated", "/a.mp4 is incomplete")


@pytest.mark.parametrize(("failed", "allowed", "code"), [(0, 0.0, 0), (1, 0.0, 3), (2, 0.02, 0), (3, 0.02, 3)])
def test_exit_code_is_3_for_more_failures_than_allowed(failed, allowed, code):
    assert report.exit_code(Summary(clips=100, done=100 - failed, failed=[FAILED] * failed), allowed) == code


def test_last_lines_name_failures_and_where_all_are():
    said = report.text(
        Summary(clips=20, done=8, worked=8, seconds=4, video_seconds=24, failed=[FAILED] * 12), Config(Path("/s"))
    )
    assert "6.0 times real time" in said
    assert "12 failed: 12 decode/truncated" in said
    assert "c/a.mp4: /a.mp4 is incomplete" in said
    assert "2 more" in said
    assert "/s/ledger.parquet" in said


def test_nothing_to_do_is_said():
    assert "nothing to do" in report.text(Summary(clips=2, done=2), Config(Path("/s")))


@pytest.fixture
def small(tmp_path):
    """A store of one clip of noise, with a fit and two words."""
    rng = np.random.default_rng(0)
    attrs = {"teachers": {"asr": {"dim": 6}, "vsr": {"dim": 4}}, "similarity": {}, "corpora": ["c"]}
    writer = store.create(tmp_path / "s.zarr", {"asr": 6, "vsr": 4}, attrs)
    columns = {
        "id": ["c/x"],
        "corpus": ["c"],
        "label": [0],
        "offset": [0],
        "capacity": [75],
        "length": [75],
        "done": [1],
    }
    writer.append_clips(columns)
    writer.grow_rows(75)
    writer.ensure_projections(3)
    shard = writer.blank_shard()
    shard["mouth"][:75] = rng.integers(0, 255, (75, 96, 96))
    shard["audio"][:75] = rng.integers(-9000, 9000, (75, 640))
    shard["flags"][:75] = layout.IN_USE | layout.FACE_DETECTED
    shard["flags"][20:60] |= layout.VOICE_ACTIVE
    for name in layout.PROJECTIONS:
        shard[name][:75] = rng.standard_normal((75, 3))
    shard["similarity"][:75] = 0.5
    writer.write_shard(0, shard)
    zero, one = np.zeros(4), np.ones((4, 3))
    fit = similarity.Fit("cca", 0, zero, one, np.zeros(6), np.ones((6, 3)), np.ones(3)).calibrated(
        "c", {"5": (2.0, 0.0)}
    )
    writer.write_fit(fit.to_arrays())
    writer.write_words(
        {"clip": [0, 0], "start": [0.8, 1.2], "end": [1.1, 1.6], "text": ["hello", "you"], "probability": [1, 1]}
    )
    return store.open(tmp_path / "s.zarr")


def test_timeline_is_drawn(small, tmp_path):
    from matplotlib import image

    picture.timeline(small, 0, tmp_path / "t.png", "a clip")
    drawn = image.imread(tmp_path / "t.png")
    assert drawn.shape[1] > 1000
    assert len(np.unique(drawn.reshape(-1, drawn.shape[-1]), axis=0)) > 100


@pytest.mark.parametrize("name", ["precompute", "train", "evaluate", "inspect"])
def test_every_command_has_help_with_an_example(name):
    done = subprocess.run([sys.executable, "-m", "concord", name, "--help"], capture_output=True, text=True, check=True)
    assert "Example" in done.stdout or "example" in done.stdout
