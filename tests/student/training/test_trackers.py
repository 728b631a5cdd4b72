"""Trackers: what they write is what the run's own log says, read by their own readers; one that is missing or cannot start
costs nothing."""

import json
import math

import pytest
from test_train import path, train  # noqa: F401 - a fixture

from student.config import ConfigError, TrainConfig
from student.training import launch


def lines(run):
    """The last line of the run's log, which has its step."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_tensorboards_reader_finds_the_losses_of_the_log(path, tmp_path):  # noqa: F811
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(path, tmp_path / "run", "--with-tracking", "--report-to", "tensorboard", "--epochs", "1")
    read = EventAccumulator(str(tmp_path / "run" / "tracking"))
    read.Reload()
    first = lines(tmp_path / "run")[0]
    found = {name: read.Scalars(name)[0] for name in read.Tags()["scalars"]}
    assert found["train/loss"].step == first["step"] == 1
    assert found["train/loss"].value == pytest.approx(first["loss"])
    assert found["train/correlation"].value == pytest.approx(first["correlation"])
    (epoch,) = json.loads((tmp_path / "run" / "results.json").read_text())["history"]
    assert found["validation/auc"].value == pytest.approx(epoch["auc"])
    assert found["validation/auc"].step == epoch["step"]


@pytest.mark.slow
def test_weights_and_biases_keeps_a_run_without_a_network(path, tmp_path, monkeypatch):  # noqa: F811
    pytest.importorskip("wandb", reason="pip install wandb, or 'concord-av[dev]'")
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    train(path, tmp_path / "first", "--with_tracking", "--report_to", "wandb", "--epochs", "1")
    assert {entry.name for entry in tmp_path.iterdir()} == {"first"}  # nothing of it in the current folder
    (file,) = (tmp_path / "first" / "wandb").glob("offline-run-*/run-*.wandb")
    store, rows, name = DataStore(), [], ""
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        name = name or record.run.display_name
        rows.append(
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        )
    store.close()
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert name == "first"
    assert losses[0] == pytest.approx(lines(tmp_path / "first")[0]["loss"])
    assert any(math.isfinite(row["validation/auc"]) for row in rows if "validation/auc" in row)
    train(path, tmp_path / "first", "--epochs", "1", "--resume_from_checkpoint", "latest")  # its folder is the run's


@pytest.mark.parametrize(
    ("name", "there", "says"),
    [
        ("nobody", ["tensorboard"], "is not a tracker that Accelerate supports; there is all, "),
        (
            "tensorboard",
            ["wandb"],
            "package is not installed, so nothing was begun: pip install 'concord-av[tracking]'",
        ),
        ("wandb", ["tensorboard"], "package is not installed, so nothing was begun: pip install wandb"),
        ("all", [], "pip install 'concord-av[tracking]'"),
    ],
)
def test_a_tracker_that_is_missing_is_one_sentence_before_anything_begins(
    path,  # noqa: F811
    tmp_path, monkeypatch, name, there, says,
):  # fmt: skip
    monkeypatch.setattr(launch, "get_available_trackers", lambda: there)
    result = train(path, tmp_path / "run", "--with-tracking", "--report-to", name, code=2)
    assert says in result.output
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_start_is_one_sentence_and_the_folder_stays_free(path, tmp_path, monkeypatch):  # noqa: F811
    class Refusing:
        is_main_process = True

        def init_trackers(self, project, config, init_kwargs):
            raise RuntimeError("No API key configured.\nUse `wandb login`")

    monkeypatch.setattr(launch, "gather_object", list)
    config = TrainConfig(store=str(path), output=str(tmp_path / "run"), with_tracking=True, report_to="wandb")
    with pytest.raises(
        ConfigError, match=r"could not start: No API key configured\.; log in with wandb login, or set W"
    ):
        launch.start_tracking(Refusing(), config)
    monkeypatch.setattr(launch, "start_tracking", lambda *_: (_ for _ in ()).throw(ConfigError("no")))
    train(path, tmp_path / "run", "--max-steps", "1", "--epochs", "1", code=2)
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == [".concord-run.lock"]
