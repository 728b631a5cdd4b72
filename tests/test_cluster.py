"""The example cluster is one that Ray accepts, with nothing open that need not be; stages without a cluster."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines import stages
from pipelines.manifest import Row

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_the_example(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_the_dashboard_stays_on_the_heads_loopback(config):
    start = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert all("--dashboard-host=127.0.0.1" in line for line in start)


def test_every_node_installs_the_project(config):
    assert "." in config["file_mounts"].values()
    assert any("make install" in line for line in config["setup_commands"])


@pytest.mark.parametrize(
    ("row", "forged"),
    [
        (Row("a", label=0), []),
        (Row("a", label=1), list(range(10))),
        (Row("a", label=1, video_segments=((0.08, 0.16),)), [2, 3]),
        (Row("a", label=1, audio_segments=((0.0, 0.03),), video_segments=((0.31, 0.39),)), [0, 8, 9]),
        # Frames 7 and 8 end at 0.32 and 0.36 s; the segment ends before the middle of 8 and holds the middle of 7.
        (Row("a", label=1, video_segments=((0.29, 0.33),)), [7]),
    ],
)
def test_a_forged_segment_labels_the_frames_whose_middle_it_holds(row, forged):
    assert np.flatnonzero(stages.frame_labels(row, 10) == 1).tolist() == forged


def test_unknown_clips_have_unknown_frames():
    assert (stages.frame_labels(Row("a"), 3) == -1).all()
