"""Files that the trainer does not touch, what it checks when a run resumes, and how it ends on errors and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from safetensors.torch import load_file
from small_store import make_store
from test_train import ENV, ROOT, train

import store
from concord import files
from student import checkpoint, run_state
from student.config import ConfigError, TrainConfig, read_options
from student.data import splits
from student.run.lines import keep_lines
from student.training.progress import Progress
from student.training.watch import Diverged, Watch


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small(tmp_path_factory.mktemp("store") / "s.zarr")


def small(path):
    return make_store(path, {"train": 20, "val": 4}, frames=(30, 45), fakes=3)


def errors(result):
    assert "Traceback" not in result.output
    return [line for line in result.output.splitlines() if line.startswith("Error: ")]


# -- other people's files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "results.json", "config.json", "model.safetensors", "metrics.jsonl", "partial-notes.txt", "partial-results/a",
        "x.txt",
    ],
)  # fmt: skip
def test_a_folder_that_holds_anything_is_refused_and_keeps_it(path, tmp_path, name):
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / name).write_text("mine")
    result = train(path, run, "--max-steps", "1", code=2)
    assert "choose another --output" in errors(result)[0]
    assert [p for p in run.rglob("*") if p.is_file()] == [run / name]
    assert (run / name).read_text() == "mine"
    if name in ("results.json", "config.json", "model.safetensors", "metrics.jsonl"):
        train(path, run, "--max-steps", "1", "--resume_from_checkpoint", "latest", code=2)
        assert (run / name).read_text() == "mine"


def test_a_run_that_goes_on_touches_nothing_but_its_own(path, tmp_path):
    run = tmp_path / "run"
    options = ("--checkpointing_steps", "1", "--keep-checkpoints", "1")
    train(path, run, "--max-steps", "1", *options)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("mine")
    mine = (
        "partial-notes.txt",
        "partial-results/a",
        "partial-7/b",
        "results.json.partial",
        "checkpoint-old/c",
        ".lock",
    )
    for name in mine:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine")
    (run / f"{files.MARK}link").symlink_to(outside)
    (run / f"{files.MARK}5-0123456789ab").mkdir()
    (run / f"{files.MARK}5-0123456789ab" / "model.safetensors").write_text("cut off")
    train(path, run, "--max-steps", "3", *options, "--resume_from_checkpoint", "latest")
    assert all((run / name).read_text() == "mine" for name in mine)
    assert (outside / "kept").read_text() == "mine"
    assert not (run / f"{files.MARK}5-0123456789ab").exists()
    assert [p.name for p in run_state.checkpoints(run)] == ["checkpoint-3"]


def test_a_finished_run_outlives_the_loss_of_its_checkpoints(path, tmp_path):
    train(path, tmp_path, "--epochs", "1")
    for folder in run_state.checkpoints(tmp_path):
        files.remove(folder)
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    for more in ((), ("--resume_from_checkpoint", "latest")):
        result = train(path, tmp_path, "--epochs", "1", *more, code=2)
        assert "no checkpoint to continue from" in errors(result)[0]
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_a_run_killed_before_its_first_checkpoint_begins_again(path, tmp_path):
    train(path, tmp_path, "--max-steps", "2")
    files.remove(run_state.checkpoints(tmp_path)[0])
    (tmp_path / "results.json").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "notes.txt").unlink()
    assert "start it again with --resume_from_checkpoint latest" in train(path, tmp_path, code=2).output
    other = train(path, tmp_path, "--resume_from_checkpoint", "latest", "--lr", "0.5", code=2)
    assert "choose another --output" in other.output
    train(path, tmp_path, "--max-steps", "2", "--resume_from_checkpoint", "latest")


def test_what_is_written_replaces_a_link_and_never_what_it_points_to(tmp_path):
    (tmp_path / "real").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.write(tmp_path / "link", b"new")
    assert (tmp_path / "real").read_text() == "mine"
    files.write(Path("/dev/null"), b"new")
    assert not Path("/dev/null").is_file()
    with pytest.raises(OSError, match="nowhere/x cannot be written: No such file"):
        files.write(tmp_path / "nowhere" / "x", b"")


# -- going on ---------------------------------------------------------------------------------------------------------


def rewritten(path, name, change):
    store.Writer.open(path).begin()  # as a run would: a store at rest is held to what was written
    array = zarr.open_array(str(path / name), mode="r+")
    array[:] = change(np.asarray(array[:]))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("fit/calibration/synthetic/5", lambda x: x + 0.1, "the fit of"),
        ("fit/vsr_matrix", lambda x: x * 1.5, "the fit of"),
        ("clips/label", lambda x: np.where(np.arange(len(x)) == 3, 1 - x, x), "labels or splits"),
        ("clips/split", lambda x: np.where(np.arange(len(x)) == 3, "val", x), "labels or splits"),
        ("frames/fake", lambda x: np.where(x == 1, 0, x), "labels of frames"),
    ],
)
def test_labels_that_changed_under_a_run_are_noticed(path, tmp_path, name, change, says):
    here = small(tmp_path / "s.zarr")
    options = ("--max-steps", "1", "--checkpointing_steps", "1")
    train(here, tmp_path / "run", *options)
    rewritten(here, name, change)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    result = train(here, tmp_path / "run", *options, "--resume_from_checkpoint", "latest", code=2)
    assert says in errors(result)[0]
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_a_refit_does_not_concern_a_run_without_soft_labels(tmp_path):
    here = small(tmp_path / "s.zarr")
    options = ("--w-correlation", "0", "--w-contrastive", "0", "--epochs", "1")
    train(here, tmp_path / "run", *options, "--max-steps", "1")
    rewritten(here, "fit/vsr_matrix", lambda x: x * 1.5)
    train(here, tmp_path / "run", *options, "--resume_from_checkpoint", "latest")


def test_lines_that_a_kill_left_in_the_log_do_not_stop_a_run(tmp_path, caplog):
    log = tmp_path / "metrics.jsonl"
    good = [json.dumps({"step": k}) for k in (1, 10, 20)]
    log.write_bytes("\n".join(good).encode() + b'\n{"step": 3\n[1]\n{"step": "x"}\n\xff\n' + b"[" * 100_000 + b'\n{"st')
    keep_lines(log, 10)
    assert log.read_text().splitlines() == good[:2]
    assert "6 lines" in caplog.text


# -- what is not finite -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "workers"), [("vsr_projection", "0"), pytest.param("asr_projection", "1", marks=pytest.mark.slow)]
)
def test_a_label_that_is_no_number_ends_the_run_and_names_its_clip(tmp_path, name, workers):
    here = small(tmp_path / "s.zarr")
    options = ("--checkpointing_steps", "1", "--epochs", "4", "--keep-checkpoints", "1", "--num-workers", workers)
    train(here, tmp_path / "run", *options, "--max-steps", "1")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("checkpoint-*/*")}
    reader = store.open(here)
    row = int(np.flatnonzero((reader.clips["label"] == 0) & (reader.clips["split"] == "train"))[3])
    first = int(reader.clips["offset"][row])

    def spoil(x):
        x[first : first + int(reader.clips["length"][row])] = np.nan
        return x

    rewritten(here, f"frames/{name}", spoil)
    result = train(here, tmp_path / "run", *options, "--resume_from_checkpoint", "latest", code=1)
    (line,) = errors(result)
    assert f"clip {reader.clips['id'][row]}: frames/{name} is not finite at frame" in line
    kept = run_state.checkpoints(tmp_path / "run")
    assert len(kept) == 1
    assert all(torch.isfinite(x).all() for x in checkpoint.load_model(tmp_path / "run")[0].state_dict().values())
    if kept[0].name == "checkpoint-1":  # the clip was in the next batch
        assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("checkpoint-*/*")} == before


def test_a_fit_that_gives_no_number_is_named(tmp_path):
    here = small(tmp_path / "s.zarr")
    rewritten(here, "fit/calibration/synthetic/5", lambda x: x * np.nan)
    result = train(here, tmp_path / "run", code=2)
    assert "a calibration holds float64 that are not finite numbers" in errors(result)[0]
    assert not run_state.checkpoints(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "says"), [("clips/label", "its label is 7"), ("frames/fake", "frames/fake is 7 at frame")]
)
def test_labels_that_are_none_are_named(tmp_path, name, says):
    here = small(tmp_path / "s.zarr")
    rewritten(here, name, lambda x: np.where(x == 1, 7, x))
    assert says in errors(train(here, tmp_path / "run", code=2 if name == "clips/label" else 1))[0]


def test_weights_that_diverge_end_the_run_and_are_not_saved(path, tmp_path):
    options = (
        "--lr",
        "1e30",
        "--warmup",
        "0",
        "--checkpointing_steps",
        "1",
        "--keep-checkpoints",
        "1",
        "--epochs",
        "4",
    )
    result = train(path, tmp_path, *options, code=1)
    assert "--lr" in errors(result)[0]
    assert "step" in errors(result)[0]
    for folder in run_state.checkpoints(tmp_path):
        assert all(torch.isfinite(x).all() for x in load_file(folder / "model.safetensors").values())
    assert not list(tmp_path.glob(f"{files.MARK}*"))


def test_every_step_is_looked_at_in_one_reading():
    watch = Watch(scaled=False)
    for step in range(1, 6):
        watch.add(step, torch.tensor(1.0), torch.tensor(2.0))
    watch.check()
    watch.add(6, torch.tensor(1.0), torch.tensor(2.0))
    watch.add(7, torch.tensor(float("nan")), torch.tensor(2.0))
    watch.add(8, torch.tensor(1.0), torch.tensor(2.0))
    with pytest.raises(Diverged, match="step 7: the loss is nan"):
        watch.check()
    watch.add(9, torch.tensor(1.0), torch.tensor(float("inf")))
    with pytest.raises(Diverged, match="step 9: the gradient is inf"):
        watch.check()


def test_steps_that_the_scaler_skips_are_allowed():
    watch = Watch(scaled=True)
    watch.add(1, torch.tensor(float("nan")), torch.tensor(float("inf")))
    watch.check()
    for step in (2, 3):
        watch.add(step, torch.tensor(float("inf") if step == 2 else 1.0), torch.tensor(float("nan")))
    watch.check()
    for step in (4, 5):
        watch.add(step, torch.tensor(float("inf")), torch.tensor(1.0))
    with pytest.raises(Diverged, match="step 4"):
        watch.check()


# -- what is said -----------------------------------------------------------------------------------------------------


def test_progress_tells_the_figures_of_the_step_it_names(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("student.training.progress.time.monotonic", lambda: now[0])
    progress = Progress(42, 20, True)
    asked = []
    for step in (21, 22, 23):
        now[0] += 20.0 if step != 22 else 1.0
        progress.step(step, lambda s=step: asked.append(s) or f"loss {s}.000")
    assert capsys.readouterr().err.splitlines() == [
        "step 21 of 42, loss 21.000, 7 min left", "step 23 of 42, loss 23.000, 4 min left"
    ]  # fmt: skip
    assert asked == [21, 23]
    fresh = Progress(42, 20, True)
    now[0] += 20
    fresh.step(20, lambda: "loss 1.000")
    assert capsys.readouterr().err == "step 20 of 42, loss 1.000\n"


@pytest.mark.slow
def test_a_resumed_run_tells_its_loss_and_no_figure_that_is_none(path, tmp_path):
    train(path, tmp_path / "run", "--max-steps", "2", "--checkpointing_steps", "1")
    result = train(path, tmp_path / "run", "--resume_from_checkpoint", "latest")
    first = next(line for line in result.output.splitlines() if line.startswith("step "))
    assert first.startswith("step 3 of ")
    assert ", loss " in first
    assert ", ," not in result.output
    one = make_store(tmp_path / "one.zarr", {"train": 12, "val": 1}, frames=40)
    result = train(one, tmp_path / "other", "--epochs", "1")
    assert "nan" not in result.output
    assert "validation auc" in result.output
    none = make_store(tmp_path / "none.zarr", {"train": 12, "val": 1}, frames=12 + 30)
    store.Writer.open(none).write_clips(12, {"label": [-1]})
    result = train(none, tmp_path / "third", "--epochs", "1")
    assert "validation of 0 trials" in result.output


# -- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    ["[" * 20_000, "{a: " * 5_000, "epochs: [1]", 'store: "\\ud800"', "epochs: " + "9" * 5_000, "a: &a [x]\nlr: *a",
     "lr: 2001-99-99", "seed: x", "lr: .nan", "lr: .inf", "x" * 2_000_000],
    ids=lambda x: x[:12],
)  # fmt: skip
def test_a_configuration_that_means_nothing_is_one_line(path, tmp_path, content):
    (tmp_path / "c.yaml").write_text(content)
    result = train(path, tmp_path / "run", "--config", str(tmp_path / "c.yaml"), code=2)
    assert len(errors(result)) == 1
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_none_are_no_options():
    for name in ("lr", "weight_decay", "warmup", "clip_norm", "ema"):
        for value in (float("nan"), float("inf")):
            with pytest.raises(ConfigError, match="finite"):
                TrainConfig(store="s", output="o", **{name: value})
    with pytest.raises(ConfigError, match="cannot read"):
        read_options(Path("/nowhere.yaml"))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"id": [["a"]], "split": ["train"]}, "a value of id is a"),
        ({"id": ["train000r"], "split": [["train"]]}, "a value of split is a"),
        ({"id": ["train000r"], "split": [1.5]}, "a value of split is a float"),
        ({"id": ["train000r"], "split": ["x" * 100_000]}, "unknown split"),
        ({"id": ["train000r"], "split": ["train"], "weight": ["heavy"]}, "has weight heavy"),
        ({"id": ["train000r"], "split": ["train"], "weight": [[1.0]]}, "has weight"),
        ({"id": ["train000r"], "split": ["train"], "weight": [float("inf")]}, "has weight inf"),
        ({"id": ["train000r"], "split": ["train"], "weight": [-1.0]}, "has weight -1"),
        ({"id": np.arange(1_200_000), "split": ["train"] * 1_200_000}, "rows"),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_splits_of_wrong_types_are_one_line(path, tmp_path, columns, says, suffix):
    file = tmp_path / f"splits{suffix}"
    if suffix == ".csv":
        file.write_text("\n".join([",".join(columns), ",".join(str(v[0]) for v in columns.values())]))
        if "heavy" not in says and "-1" not in says and "inf" not in says and "unknown" not in says:
            says = "lists no clip of this store" if "id" in says or "rows" in says else ""
    else:
        pd.DataFrame(columns).to_parquet(file)
    with pytest.raises(splits.SplitError, match=says or None) as told:
        splits.split(store.open(path), file)
    assert len(str(told.value)) < 1_000
    assert len(str(told.value).splitlines()) == 1


def test_weights_may_be_missing_and_ids_numbers(path, tmp_path):
    reader = store.open(path)
    names = [str(x) for x in reader.clips["id"]]
    pd.DataFrame(
        {"id": names, "split": ["train"] * len(names), "weight": [None, 2.0] + [1.0] * (len(names) - 2)}
    ).to_parquet(tmp_path / "s.parquet")
    found = splits.split(reader, tmp_path / "s.parquet", need_val=False)
    assert found.weight[:3].tolist() == [1.0, 2.0, 1.0]


# -- signals ----------------------------------------------------------------------------------------------------------

LAUNCH = [str(Path(sys.executable).with_name("accelerate")), "launch"]
ONE = [
    *LAUNCH,
    "--cpu",
    "--num_processes",
    "1",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
]
TWO = [*LAUNCH, "--config_file", str(ROOT / "configs" / "cpu2.yaml")]


def stopped(path, output, launcher, number, whole_group, *more):
    """Exit code of what was started, and everything that it and its children said, for a signal in the middle of a run."""
    options = ["--epochs", "2000", "--window", "30", "--batch-size", "4", "--threads", "1", "--cpu", *more]
    command = [*launcher, str(ROOT / "student" / "train.py"), "--store", str(path), "--output", str(output), *options]
    run = subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (output / "metrics.jsonl").exists() and run.poll() is None:
        time.sleep(0.01)
    os.killpg(run.pid, number) if whole_group else run.send_signal(number)
    said = run.communicate()[1]  # until the last of them has closed it
    return run.returncode, said


def check_stopped(path, output, said, number, ours=True):
    """The trainer saved, said so, and printed no traceback of its own."""
    assert f"stopped by signal {int(number)}; state saved" in said or not ours
    assert 'student/train.py", line' not in said
    assert "student/training/trainer.py" not in said
    assert "DataLoader" not in said
    assert len(run_state.checkpoints(output)) == 1
    assert not list(output.glob(f"{files.MARK}*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_run_with_readers_saves(path, tmp_path, number):
    """As a terminal sends Ctrl-C, and a scheduler SIGTERM: readers get it, too."""
    code, said = stopped(path, tmp_path, [sys.executable], number, True, "--num-workers", "2")
    assert code == 128 + number
    assert "Traceback" not in said
    check_stopped(path, tmp_path, said, number)


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
@pytest.mark.slow
def test_a_signal_under_accelerate_launch_saves(path, tmp_path, number, whole_group):
    """The launcher ends by the signal itself, before or after; what it prints is its own."""
    code, said = stopped(path, tmp_path, ONE, number, whole_group)
    assert code in (-number, 1)
    check_stopped(path, tmp_path, said, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [True, False])
def test_a_signal_to_two_processes_saves_once(path, tmp_path, number, whole_group):
    code, said = stopped(path, tmp_path, TWO, number, whole_group)
    assert code == 1
    check_stopped(path, tmp_path, said, number)


def test_a_signal_while_it_starts_ends_without_a_traceback(path, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "student" / "train.py"),
        "--store",
        str(path),
        "--output",
        str(tmp_path / "run"),
    ]
    run = subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while b"numpy" not in Path(f"/proc/{run.pid}/maps").read_bytes():
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    said = run.communicate()[1]
    assert run.returncode == 130
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_clip_is_named_whichever_process_reads_it(tmp_path):
    here = small(tmp_path / "s.zarr")
    rewritten(here, "frames/vsr_projection", lambda x: np.where(np.arange(len(x))[:, None] % 9 == 4, np.nan, x))
    command = [*TWO, str(ROOT / "student" / "train.py"), "--store", str(here), "--output", str(tmp_path / "run")]
    done = subprocess.run([*command, "--window", "30", "--batch-size", "4"], env=ENV, capture_output=True, text=True)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert any("frames/vsr_projection is not finite at frame" in line for line in said)
    assert not run_state.checkpoints(tmp_path / "run")
