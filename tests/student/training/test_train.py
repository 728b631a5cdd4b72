"""The training command: learns, stops, resumes with the same bits, refuses invalid options, imports nothing heavy."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from small_store import make_store

import store
from student import checkpoint, evaluate, run_state
from student.config import TrainConfig, differences, read_options
from student.predict import __main__ as predict
from student.run.outputs import Outputs
from student.train import main

ROOT = Path(__file__).parents[3]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
QUICK = ["--epochs", "2", "--window", "30", "--batch-size", "6", "--threads", "1"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("train") / "s.zarr", {"train": 26, "test": 6}, frames=(30, 45), fakes=4)


def train(path, output, *options, code=0):
    result = CliRunner().invoke(main, ["--store", str(path), "--output", str(output), *QUICK, *options])
    assert result.exit_code == code, result.output
    return result


def weights(output):
    """The newest training checkpoint's weights and optimizer, and the detector."""
    last = run_state.checkpoints(Path(output))[-1]
    moments = load_file(last / "optimizer.safetensors")
    return {**load_file(last / "model.safetensors"), **moments, **load_file(Path(output) / "model.safetensors")}


def assert_same_bits(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def calm(path, tmp_path_factory):
    """A run that nothing disturbs."""
    output = tmp_path_factory.mktemp("calm")
    train(path, output, "--checkpointing_steps", "2")
    return output


def test_a_run_leaves_detector_config_log_and_results(calm, path):
    model, header = checkpoint.load_model(calm)
    assert not model.training
    assert header.store["path"] == str(path)
    assert {"threshold", "temperature", "config", "versions", "window"} <= header.told.keys()
    results = json.loads((calm / "results.json").read_text())
    assert results["finished"]
    assert [e["epoch"] for e in results["history"]] == [1, 2]
    said = (calm / "MODEL_CARD.md").read_text()
    for part in (
        "`lite`",
        "synthetic",
        "other sound (",
        "auc swap 0.",
        "made-up-asr:x",
        "licence not recorded",
        "## Limits",
    ):
        assert part in said
    assert f"After epoch {results['best']['epoch']}, on {results['best']['trials']} trials" in said
    assert 0 < results["loader_share"] < 1
    assert results["clips"]["train"]["used"] + results["clips"]["val"]["used"] + results["too_short"] == 30
    config = json.loads((calm / "config.json").read_text())
    assert TrainConfig.from_dict(config["config"]).output == str(calm)
    assert (calm / "model.safetensors").stat().st_mode == (calm / "config.json").stat().st_mode
    lines = [json.loads(x) for x in (calm / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "detection", "correlation", "contrastive", "lr", "grad_norm"} <= lines[0].keys()


def test_the_last_line_says_where_the_detector_lies_and_what_to_type_next(path, tmp_path):
    """Words of a shell, whatever the folders are called; the command is one that is accepted."""
    output = tmp_path / "my run"
    said = train(path, output, "--max-steps", "1", "--epochs", "1").stdout.splitlines()[-1]
    first, _, command = said.partition("; next: ")
    assert first.startswith(f"the detector is {output / 'model.safetensors'}")
    assert command.startswith("python -m student.evaluate")
    config = TrainConfig(store="/data/my store", output=str(output), splits="it's.csv")
    for rows, module in (([1], evaluate), ([], predict)):
        told = Outputs(output, config, None, SimpleNamespace(rows={"test": rows}), None).next_step()
        words = shlex.split(told.partition("; next: ")[2].partition(" (")[0])
        assert ("(there are no test clips" in told) == (not rows)
        assert words[:3] == ["python", "-m", module.__name__.removesuffix(".__main__")]
        context = module.main.make_context("next", words[3:])
        assert context.params["checkpoint"] == output


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(calm, path, tmp_path):
    train(path, tmp_path / "again", "--checkpointing_steps", "epoch", "--keep-checkpoints", "1")
    assert_same_bits(calm, tmp_path / "again")
    assert len(run_state.checkpoints(tmp_path / "again")) == 1
    train(path, tmp_path / "other", "--seed", "1", "--max-steps", "2")
    first = load_file(tmp_path / "other" / "model.safetensors")
    assert not torch.equal(first["head.logit.weight"], load_file(calm / "model.safetensors")["head.logit.weight"])


@pytest.mark.parametrize("steps", [1, pytest.param(4, marks=pytest.mark.slow), 5])
def test_stopped_after_any_step_and_resumed_it_ends_with_the_same_bits(calm, path, tmp_path, steps):
    """Within the first epoch, at its end, and within the second."""
    train(path, tmp_path, "--max-steps", str(steps))
    assert run_state.checkpoints(tmp_path)[-1].name == f"checkpoint-{steps}"
    train(path, tmp_path, "--resume_from_checkpoint", "latest")
    assert_same_bits(calm, tmp_path)
    steps_logged = [json.loads(x)["step"] for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps_logged == sorted(set(steps_logged))


def start(path, output, *options, launcher=(sys.executable,), cwd=None):
    command = [
        *launcher,
        str(ROOT / "student" / "train.py"),
        "--store",
        str(path),
        "--output",
        str(output),
        *QUICK,
        *options,
    ]
    return subprocess.Popen(command, env=ENV, cwd=cwd, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(process, condition):
    """Wait until `condition()` holds or the process has ended."""
    while not condition() and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.slow
def test_with_pseudo_fakes_a_stopped_run_ends_with_the_same_bits_and_has_both_branches(path, tmp_path):
    options = ("--pseudo-share", "0.6", "--balance", "source", "--checkpointing_steps", "2", "--keep", "last")
    train(path, tmp_path / "calm", *options)
    train(path, tmp_path / "stopped", *options, "--max-steps", "7")
    train(path, tmp_path / "stopped", *options, "--resume_from_checkpoint", "latest")
    assert_same_bits(tmp_path / "calm", tmp_path / "stopped")
    model, header = checkpoint.load_model(tmp_path / "calm")
    card = (tmp_path / "calm" / "MODEL_CARD.md").read_text()
    assert "Of 60% a pseudo-fake was made" in card
    assert "Weights of both branches, threshold and temperature were chosen on these clips" in card
    assert header.step == json.loads((tmp_path / "calm" / "results.json").read_text())["steps"], "the last is kept"
    assert model.texture is not None
    assert (model.fusion > 0).any()
    assert not torch.equal(model.fusion, torch.ones(2)), "validation weighs the branches"
    assert "texture" in json.loads((tmp_path / "calm" / "metrics.jsonl").read_text().splitlines()[0])


def test_killed_from_any_folder_and_resumed_it_ends_with_the_same_bits(calm, path, tmp_path):
    output = tmp_path / "run"
    process = start(path, output, "--checkpointing_steps", "1", cwd=tmp_path)
    wait_for(process, lambda: len(run_state.checkpoints(output)) >= 2)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    train(path, output, "--checkpointing_steps", "2", "--resume-from-checkpoint", "latest")
    assert_same_bits(calm, output)


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_saves_and_ends_with_its_code(calm, path, tmp_path, number, code):
    process = start(path, tmp_path)
    wait_for(process, lambda: (tmp_path / "metrics.jsonl").exists())
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == code, error
    assert "--resume_from_checkpoint latest" in error
    assert run_state.checkpoints(tmp_path)
    train(path, tmp_path, "--resume_from_checkpoint", "latest")
    assert_same_bits(calm, tmp_path)


@pytest.mark.slow
def test_two_processes_start_stop_and_resume_to_the_same_bits(path, tmp_path):
    """`configs/cpu2.yaml` really starts two, which the usual flags do not."""
    accelerate = [str(Path(sys.executable).with_name("accelerate")), "launch"]
    two = [*accelerate, "--config_file", str(ROOT / "configs" / "cpu2.yaml")]
    for output, rounds in (("calm", [[]]), ("stopped", [["--max-steps", "1"], ["--resume_from_checkpoint", "latest"]])):
        for options in rounds:
            process = start(path, tmp_path / output, "--batch-size", "4", *options, launcher=two)
            error = process.communicate()[1]
            assert process.returncode == 0, error
    assert_same_bits(tmp_path / "calm", tmp_path / "stopped")
    results = json.loads((tmp_path / "calm" / "results.json").read_text())
    assert results["processes"] == 2
    assert results["clips"]["val"]["used"] > 0


@pytest.mark.slow
def test_two_processes_train_with_a_term_switched_off(path, tmp_path):
    """Parameters that only that term reaches must not make the others wait."""
    two = [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node", "2"]
    process = start(path, tmp_path, "--batch-size", "4", "--max-steps", "3", "--w-detection", "0", launcher=two)
    error = process.communicate()[1]
    assert process.returncode == 0, error


@pytest.mark.slow
def test_one_process_where_two_were_asked_for_is_told(path, tmp_path):
    accelerate = [str(Path(sys.executable).with_name("accelerate")), "launch"]
    process = start(path, tmp_path, "--max-steps", "1", launcher=[*accelerate, "--cpu", "--num_processes", "2"])
    error = process.communicate()[1]
    assert process.returncode == 0, error
    assert "configs/cpu2.yaml" in error


def test_accumulated_micro_batches_make_fewer_steps(path, tmp_path):
    train(path, tmp_path, "--gradient_accumulation_steps", "3", "--epochs", "1")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == 2  # five micro-batches of an epoch


@pytest.mark.parametrize(
    "options",
    [
        ["--losses", "paper"],
        ["--w-detection", "0"],
        ["--w-correlation", "0"],
        ["--w_contrastive", "0"],
        ["--no-augment", "--pair-share", "0"],
        ["--num-workers", "1"],
    ],
    ids=" ".join,
)
def test_every_switch_trains(path, tmp_path, options):
    train(path, tmp_path, "--max-steps", "2", *options)
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.slow
def test_mixed_precision_trains(path, tmp_path):
    """In a process of its own: accelerate keeps the precision of the first run of a process."""
    process = start(path, tmp_path, "--max-steps", "2", "--mixed-precision", "bf16")
    error = process.communicate()[1]
    assert process.returncode == 0, error
    saved = json.loads((tmp_path / "config.json").read_text())["config"]
    assert saved["mixed_precision"] == "bf16"


def test_soft_labels_need_a_fit_and_detection_alone_does_not(tmp_path):
    bare = make_store(tmp_path / "s.zarr", {"train": 12}, fit=False)
    result = train(bare, tmp_path / "run", code=2)
    assert "--refit" in result.output
    assert len(result.output.strip().splitlines()) == 1
    train(bare, tmp_path / "run", "--w-correlation", "0", "--w-contrastive", "0", "--max-steps", "2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "3"], "--window"),
        (["--model", "heavy"], "unknown model heavy"),
        (["--checkpointing_steps", "often"], "--checkpointing_steps"),
        (["--splits", "nowhere.csv"], "nowhere.csv"),
        (["--resume_from_checkpoint", "nowhere"], "no checkpoint at nowhere"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--colour"], "--colour"),
    ],
)
def test_wrong_options_end_with_code_2_and_a_line(path, tmp_path, options, message):
    result = train(path, tmp_path / "run", *options, code=2)
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_missing_store_ends_with_code_2(tmp_path):
    result = train(tmp_path / "none.zarr", tmp_path / "run", code=2)
    assert "none.zarr" in result.output


def test_a_folder_with_a_run_is_neither_overwritten_nor_mixed(calm, path, tmp_path):
    assert "--resume_from_checkpoint latest" in train(path, calm, code=2).output
    result = train(path, calm, "--resume_from_checkpoint", "latest", "--lr", "0.5", code=2)
    assert "lr 0.001 -> 0.5" in result.output
    other = make_store(tmp_path / "other.zarr", {"train": 26}, seed=5)
    assert "another store" in train(other, calm, "--resume_from_checkpoint", "latest", code=2).output


def test_resuming_a_finished_run_changes_nothing(calm, path):
    before = weights(calm)
    train(path, calm, "--resume_from_checkpoint", "latest")
    after = weights(calm)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_options_come_from_a_file_and_the_command_line_wins(calm, tmp_path):
    flat = read_options(calm / "config.json")
    assert flat["window"] == 30
    assert flat["losses"] == "default"
    file = tmp_path / "run.yaml"
    file.write_text("batch-size: 6\nepochs: 1\nw_contrastive: 0.0\n")
    store_path = json.loads((calm / "config.json").read_text())["config"]["store"]
    arguments = [
        "--config",
        str(file),
        "--store",
        store_path,
        "--output",
        str(tmp_path / "run"),
        "--window",
        "30",
        "--threads",
        "1",
    ]
    result = CliRunner().invoke(main, [*arguments, "--max-steps", "1"])
    assert result.exit_code == 0, result.output
    saved = TrainConfig.from_dict(json.loads((tmp_path / "run" / "config.json").read_text())["config"])
    assert (saved.data.batch_size, saved.epochs, saved.losses.w_contrastive) == (6, 1, 0.0)
    assert differences(saved, saved) == []
    file.write_text("batches: 6\n")
    assert "batches" in CliRunner().invoke(main, arguments).output


def test_the_detector_of_a_foreign_file_is_refused(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="no model at"):
        checkpoint.load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(checkpoint.CheckpointError, match="is not a detector"):
        checkpoint.load_model(tmp_path)


def test_training_needs_neither_ray_nor_the_teachers_libraries():
    code = (
        "import sys, student.train, student.training.trainer, student.evaluate, student.data.dataset, student.models.lite\n"
        "print([m for m in ('ray', 'whisper', 'fairseq', 'mediapipe', 'teachers', 'pipelines') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_it_learns_to_tell_real_pairs_from_made_ones(tmp_path):
    learnable = make_store(tmp_path / "s.zarr", {"train": 90, "val": 12}, frames=40, seed=3)
    train(learnable, tmp_path / "run", "--epochs", "3", "--window", "40", "--lr", "0.002")
    best = max(e["auc"] for e in json.loads((tmp_path / "run" / "results.json").read_text())["history"])
    assert best > 0.9
    assert len(store.open(learnable)) == 102


def test_the_published_recipe_is_made_of_options():
    values = read_options(ROOT / "configs" / "paper.yaml")
    config = TrainConfig.from_options(store="s", output="o", **values)
    assert (config.losses.preset, config.losses.w_contrastive) == ("paper", 1.0)
    assert (config.lr, config.weight_decay, config.schedule, config.epochs) == (1e-5, 0.0, "paper", 100)
    assert (config.data.window * config.data.batch_size, config.data.pair_share) == (2000, 0.0)


def test_the_recipe_for_strangers_is_made_of_options():
    config = TrainConfig.from_options(store="s", output="o", **read_options(ROOT / "configs" / "strangers.yaml"))
    assert (config.model, config.data.balance, config.data.pseudo_share, config.keep) == ("lite", "source", 2.0, "last")


@pytest.mark.parametrize(
    ("content", "says"), [("{", "cannot be read"), ("[]", "cannot be read"), ("{}", "has no config")]
)
def test_a_damaged_checkpoint_is_named_in_one_line(path, tmp_path, content, says):
    train(path, tmp_path, "--max-steps", "1")
    state = tmp_path / "checkpoint-1" / "trainer.json"
    state.write_text(content)
    result = train(path, tmp_path, "--resume_from_checkpoint", "latest", code=2)
    assert f"{state} {says}" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_finished_run_says_that_nothing_is_left_to_do(path, tmp_path, caplog):
    train(path, tmp_path, "--epochs", "1")
    kept = (tmp_path / "model.safetensors").read_bytes()
    with caplog.at_level("INFO"):
        train(path, tmp_path, "--epochs", "1", "--resume_from_checkpoint", "latest")
    assert "there is nothing left to do" in caplog.text
    assert (tmp_path / "model.safetensors").read_bytes() == kept
