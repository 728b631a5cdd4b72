"""Nothing that a run left is taken for whole when it is not, and reading it runs nothing."""

import errno
import json
import os
import pickle
import resource
import struct
from collections import Counter

import damaged_runs
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from small_store import make_store
from test_train import train

from student import checkpoint, evaluate, export, run_state
from student.check import main as check_student
from student.models import build, weights

ABOUT = {
    "threshold": 0.25, "temperature": 1.5, "fitted_on": "nothing", "window": 25, "store": {}, "versions": {},
    "config": {"seed": 0, "data": {"trim": "leading"}},
}  # fmt: skip
SMALL = {"width": 16, "trunk": (4, 8), "temporal_layers": 1, "mels": 16}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "s.zarr", {"train": 20, "test": 4}, frames=(30, 45), fakes=3)


@pytest.fixture
def detector(tmp_path):
    """The folder of a small detector."""
    torch.manual_seed(0)
    checkpoint.save_model(tmp_path, build("lite", **SMALL), "lite", ABOUT)
    return tmp_path


def signed(folder, **change):
    """The detector of that folder with another header that has its right checksum, as somebody could make it."""
    file = folder / checkpoint.MODEL_FILE
    state, about = load_file(file), {**checkpoint.about(folder), **change}
    text = json.dumps(about)
    save_file(state, file, {checkpoint.HEADER: text, checkpoint.DIGEST: checkpoint._digest(text, state)})


def resaved(folder, metadata=None, **tensors):
    """The detector with other tensors."""
    file = folder / checkpoint.MODEL_FILE
    text = json.dumps(checkpoint.about(folder))
    state = {**load_file(file), **tensors}
    save_file(state, file, metadata or {checkpoint.HEADER: text, checkpoint.DIGEST: checkpoint._digest(text, state)})


# -- the detector -----------------------------------------------------------------------------------------------------


def test_a_damaged_detector_never_answers(detector):
    model, header = checkpoint.load_model(detector)
    wanted = {key: value.clone() for key, value in model.state_dict().items()}
    came = Counter()
    for file, kind, dice in damaged_runs.plan(detector, seed=1, count=80):
        with damaged_runs.damaged(file, kind, dice) as what:
            outcome = damaged_runs.detector_outcome(detector, wanted, header)
        assert outcome == damaged_runs.REFUSED, f"{file.name}, {what}: {outcome}"
        came[kind] += 1
    assert set(came) == set(damaged_runs.KINDS)
    assert damaged_runs.detector_outcome(detector, wanted, header) == damaged_runs.SAME


def test_every_bit_of_a_detectors_header_counts(detector):
    file = detector / checkpoint.MODEL_FILE
    data = file.read_bytes()
    size = 8 + struct.unpack("<Q", data[:8])[0]
    model, header = checkpoint.load_model(detector)
    wanted = {key: value.clone() for key, value in model.state_dict().items()}
    for at in range(0, 8 * size, 331):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        file.write_bytes(changed)
        assert damaged_runs.detector_outcome(detector, wanted, header) == damaged_runs.REFUSED, f"bit {at}"


def test_weights_that_are_not_finite_are_neither_written_nor_loaded(detector, tmp_path):
    before = (detector / checkpoint.MODEL_FILE).read_bytes()
    for value in (float("nan"), float("inf")):
        model = build("lite", **SMALL)
        model.head.logit.bias.data.fill_(value)
        with pytest.raises(checkpoint.SaveError, match=r"head\.logit\.bias are not finite"):
            checkpoint.save_model(detector, model, "lite", ABOUT)
    with pytest.raises(checkpoint.SaveError, match="threshold is nan"):
        checkpoint.save_model(detector, build("lite", **SMALL), "lite", {**ABOUT, "threshold": float("nan")})
    assert (detector / checkpoint.MODEL_FILE).read_bytes() == before
    resaved(detector, **{"head.logit.bias": torch.tensor([float("nan")])})
    with pytest.raises(checkpoint.CheckpointError, match=r"head\.logit\.bias are not finite"):
        checkpoint.load_model(detector)


def test_a_detector_of_before_is_loaded_with_a_note_where_it_is_finite(detector, caplog):
    about = {key: value for key, value in checkpoint.about(detector).items() if key != "format"}
    resaved(detector, {checkpoint.HEADER: json.dumps(about)})
    checkpoint.load_model(detector)
    assert "has no checksum" in caplog.text
    resaved(detector, {checkpoint.HEADER: json.dumps({**about, "format": 2})})
    with pytest.raises(checkpoint.CheckpointError, match="is damaged"):
        checkpoint.load_model(detector)
    resaved(detector, {checkpoint.HEADER: json.dumps(about)}, **{"bias": torch.tensor(float("nan"))})
    with pytest.raises(checkpoint.CheckpointError, match="bias are not finite"):
        checkpoint.load_model(detector)


@pytest.mark.parametrize(
    ("number", "says"), [(99, "has format 99; this release reads up to 2"), ("2", "is damaged"), (True, "is damaged")]
)
def test_a_detector_of_a_newer_release_is_refused(detector, number, says):
    resaved(detector, metadata := {checkpoint.HEADER: json.dumps({**checkpoint.about(detector), "format": number})})
    metadata[checkpoint.DIGEST] = checkpoint._digest(
        metadata[checkpoint.HEADER], load_file(detector / checkpoint.MODEL_FILE)
    )
    resaved(detector, metadata)
    for read in (checkpoint.load_model, lambda folder: checkpoint.check_intact(folder / checkpoint.MODEL_FILE)):
        with pytest.raises(checkpoint.CheckpointError, match=says):
            read(detector)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": "abc"}, {"threshold": None}, {"threshold": float("nan")}, {"threshold": 10**400},
        {"temperature": 0}, {"temperature": -1.0}, {"temperature": [1]}, {"window": "25"}, {"window": 0}, {"window": 10**9},
        {"window": True}, {"config": []}, {"config": {"data": 3}}, {"config": {"data": {"trim": ["leading"]}}},
        {"config": {"data": {"picture": "moon"}}}, {"config": {"seed": "x"}}, {"model": ["lite"]}, {"model": "heavy"},
        {"model": "talknet"}, {"options": []}, {"options": {"width": "16"}}, {"options": {"width": 10**9, "groups": 1}},
        {"options": {"temporal_layers": 10**9}}, {"options": {"mels": 10**9}}, {"options": {"trunk": 7}},
        {"options": {"trunk": [4096] * 12}}, {"options": {"trunk": [4, "x"]}}, {"options": {"trunk": [4] * 1_000}},
        {"options": {"channels": 10**9}}, {"options": {"dropout": None}}, {"store": "x"}, {"versions": 1}, {"fitted_on": 5},
        {"note": "\ud800"},
    ],
    ids=lambda change: str(change)[:40].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_a_header_that_means_nothing_is_one_line(detector, path, change):
    signed(detector, **change)
    result = CliRunner().invoke(evaluate.main, ["--store", str(path), "--checkpoint", str(detector), "--cpu"])
    assert result.exit_code == 2, result.output
    assert "is not a detector of this project" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4_000_000  # KiB


def test_a_header_nested_too_deep_or_too_long_is_one_line(detector):
    file = detector / checkpoint.MODEL_FILE
    state = load_file(file)
    for text in ("[" * 100_000, '{"a":' * 50_000, "1" * 5_000, "null", "[]", ""):
        save_file(state, file, {checkpoint.HEADER: text})
        with pytest.raises(checkpoint.CheckpointError, match="is not a detector"):
            checkpoint.load_model(detector)
        assert checkpoint.about(detector) == {}
    with file.open("r+b") as opened:  # a header that claims more than there is, in a file that is mostly a hole
        opened.write(struct.pack("<Q", 1 << 40))
        opened.truncate(1 << 41)
    with pytest.raises(checkpoint.CheckpointError, match="is not a detector"):
        checkpoint.load_model(detector)


def test_another_models_sizes_are_refused_by_check_student_too(detector):
    signed(detector, options={"width": 4096, "groups": 4})
    result = CliRunner().invoke(check_student, ["lite", "--init-from", str(detector)])
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1


def test_a_damaged_detector_is_no_start_for_another_run(detector):
    model = build("lite", **SMALL)
    weights.load(model, "lite", detector)
    file = detector / checkpoint.MODEL_FILE
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    with pytest.raises(checkpoint.CheckpointError, match="is damaged"):
        weights.load(model, "lite", detector)


# -- checkpoints ------------------------------------------------------------------------------------------------------

STATE = {"config": {}, "store": {}, "step": 3, "epoch": 1, "position": 2, "best": {"auc": 0.5, "brier": float("nan")}}


@pytest.fixture
def saved(tmp_path):
    """A checkpoint with a running average, what it holds by part, and its state."""
    model, optimizer, mean = damaged_runs.fresh(0.9)
    for p in model.parameters():
        p.data.add_(0.01)
    wanted = damaged_runs.parts(model, optimizer, mean)
    folder = run_state.save_state(tmp_path, 3, STATE, 3, run_state.Tensors(model, optimizer, mean))
    return folder, wanted, run_state.read_state(folder)


def test_a_damaged_checkpoint_is_refused_before_any_of_it_is_loaded(saved):
    folder, wanted, state = saved
    assert damaged_runs.checkpoint_outcome(folder, wanted, state, 0.9) == damaged_runs.SAME
    assert sorted(p.name for p in folder.iterdir()) == [
        "average.safetensors", "model.safetensors", "optimizer.safetensors", "trainer.json",
    ]  # fmt: skip
    came = Counter()
    for file, kind, dice in damaged_runs.plan(folder, seed=2, count=48):
        with damaged_runs.damaged(file, kind, dice) as what:
            outcome = damaged_runs.checkpoint_outcome(folder, wanted, state, 0.9)
        assert outcome == damaged_runs.REFUSED, f"{file.name}, {what}: {outcome}"
        came[file.name, kind] += 1
    assert len(came) == 4 * len(damaged_runs.KINDS)
    assert damaged_runs.checkpoint_outcome(folder, wanted, state, 0.9) == damaged_runs.SAME


def test_what_is_loaded_lies_in_memory_as_what_was_trained_does(saved):
    """Not in the buffer that was read: kernels may round by alignment, and a run that goes on must end with the same bits."""
    model, optimizer, mean = damaged_runs.fresh(0.9)
    run_state.load_state(saved[0], run_state.Tensors(model, optimizer, mean))
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert len(moments) > 20
    assert all(x.data_ptr() % 64 == torch.zeros_like(x).data_ptr() % 64 for x in moments)


class Sly:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


OLD = ("custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl", "scheduler.bin", "sampler.bin", "scaler.pt",
       "dl_state_dict.bin", "pytorch_model.bin", "note.txt")  # fmt: skip


def test_a_resume_runs_nothing_and_reads_nothing_foreign(path, tmp_path):
    """Pickles under every name that accelerate would read, and in place of our own files."""
    run, ran = tmp_path / "run", tmp_path / "ran"
    options = ("--ema", "0.9", "--max-steps", "1", "--checkpointing_steps", "1")
    train(path, run, *options)
    last = run_state.checkpoints(run)[-1]
    assert {p.suffix for p in last.iterdir()} == {".safetensors", ".json"}
    sly = pickle.dumps({"state": Sly(ran)})
    for name in OLD:
        (last / name).write_bytes(sly)
    result = train(path, run, *options, "--resume_from_checkpoint", "latest", code=2)
    assert f"holds '{min(OLD)}', which does not belong to a checkpoint" in result.output
    for name in OLD:
        (last / name).unlink()
    for name, old in (("model.safetensors", True), ("optimizer.safetensors", False), ("average.safetensors", False)):
        kept = (last / name).read_bytes()
        torch.save({"x": Sly(ran)}, last / name, _use_new_zipfile_serialization=not old)
        train(path, run, *options, "--resume_from_checkpoint", "latest", code=2)
        (last / name).write_bytes(kept)
    assert not ran.exists()


def test_each_pickle_beside_the_files_of_a_checkpoint_is_refused(saved, tmp_path):
    folder, wanted, state = saved
    for name in OLD:
        (folder / name).write_bytes(pickle.dumps({"state": Sly(tmp_path / "ran")}))
        assert damaged_runs.checkpoint_outcome(folder, wanted, state, 0.9) == damaged_runs.REFUSED
        (folder / name).unlink()
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_an_earlier_release_is_refused_with_a_way_on(saved):
    folder = saved[0]
    state = {key: value for key, value in saved[2].items() if key != "files"}
    (folder / "trainer.json").write_text(json.dumps(state))
    with pytest.raises(checkpoint.CheckpointError, match=r"of an earlier release.*--init-from .*model\.safetensors"):
        run_state.read_state(folder)


def test_links_in_a_checkpoint_are_refused_and_links_beside_it_stay(saved, tmp_path):
    folder, wanted, state = saved
    model = folder / "model.safetensors"
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    assert damaged_runs.checkpoint_outcome(folder, wanted, state, 0.9) == damaged_runs.REFUSED
    (tmp_path / "elsewhere").replace(model)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "trainer.json").write_text("{}")
    (tmp_path / "checkpoint-1").symlink_to(outside)
    for step in (4, 5, 6):
        run_state.save_state(tmp_path, step, STATE, 1, damaged_runs.fresh(0.9))
    assert [p.name for p in run_state.checkpoints(tmp_path)] == ["checkpoint-6"]
    assert (outside / "trainer.json").read_text() == "{}"


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 50_000, '"\ud800"'.encode("utf-8", "surrogatepass"), '{"step": "\\ud800"}', "1" * 5000],
)
def test_a_state_that_means_nothing_is_one_line(saved, text):
    folder, wanted, state = saved
    (folder / "trainer.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert damaged_runs.checkpoint_outcome(folder, wanted, state, 0.9) == damaged_runs.REFUSED


def test_tensors_that_are_not_finite_are_not_saved_and_nothing_is_rotated(saved, tmp_path):
    for spoil in range(3):
        model, optimizer, mean = damaged_runs.fresh(0.9)
        tensor = (
            model.bias.data,
            next(iter(optimizer.state.values()))["exp_avg"],
            mean.module.bias.data,
        )[spoil]
        tensor.view(-1)[0] = float("inf")
        with pytest.raises(checkpoint.SaveError, match="is not finite"):
            run_state.save_state(tmp_path, 4, STATE, 1, run_state.Tensors(model, optimizer, mean))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-3"]
    assert damaged_runs.checkpoint_outcome(*saved, 0.9) == damaged_runs.SAME


def small_files(limit):
    """A disk that takes files of `limit` bytes and no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_a_run_with_one_line_and_keeps_its_checkpoints(path, tmp_path):
    train(path, tmp_path, "--max-steps", "2", "--checkpointing_steps", "1")
    before = {p: p.read_bytes() for p in tmp_path.rglob("checkpoint-*/*")}
    more = small_files(1_000_000)
    try:
        options = ("--max-steps", "4", "--checkpointing_steps", "1", "--resume_from_checkpoint", "latest")
        result = train(path, tmp_path, *options, code=1)
    finally:
        more()
    assert "checkpoint-3 could not be written: File too large; earlier checkpoints are intact" in result.output
    assert [line.partition(":")[0] for line in result.output.splitlines() if "step 3 of" not in line] == ["Error"]
    assert {p: p.read_bytes() for p in tmp_path.rglob("checkpoint-*/*")} == before
    assert not list(tmp_path.glob(".concord-partial*"))
    train(path, tmp_path, *options)
    assert [p.name for p in run_state.checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]


def test_a_run_cut_short_resumes_or_says_one_line_whatever_is_damaged(path, tmp_path):
    """The whole command, over every file that a run leaves."""
    options = ("--checkpointing_steps", "1", "--keep-checkpoints", "2", "--ema", "0.9", "--epochs", "1")
    train(path, tmp_path / "whole", *options, "--max-steps", "2")
    calm = damaged_runs.copied(tmp_path / "whole", tmp_path / "calm")
    train(path, calm, *options, "--resume_from_checkpoint", "latest")
    wanted = load_file(calm / "model.safetensors")
    kinds = {"checkpoint-1/model.safetensors": "cut", "checkpoint-2/trainer.json": "cut", "config.json": "cut",
             "checkpoint-2/model.safetensors": "cut", "checkpoint-2/optimizer.safetensors": "flip",
             "metrics.jsonl": "flip", "model.safetensors": "flip", "results.json": "remove"}  # fmt: skip
    for k, (name, kind) in enumerate(kinds.items()):
        run = damaged_runs.copied(tmp_path / "whole", tmp_path / f"run{k}")
        what = damaged_runs.damage(run / name, kind, np.random.default_rng([7, k]))
        bad = "checkpoint-2" in name
        result = train(path, run, *options, "--resume_from_checkpoint", "latest", code=2 if bad else 0)
        if bad:
            assert str(run / name) in result.output, what
            assert len(result.output.strip().splitlines()) == 1
        else:
            found = load_file(run / "model.safetensors")
            assert all(torch.equal(found[key], value) for key, value in wanted.items()), f"{name}: {what}"


# -- what is not finite ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_logits_that_are_no_numbers_are_no_figure(detector, path, tmp_path):
    """Weights may be finite and still overflow."""
    large = {key: torch.full_like(value, 3e38) for key, value in load_file(detector / "model.safetensors").items()}
    resaved(
        detector, **{key: large[key] for key in ("head.logit.weight", "head.second.weight") if key in large} or large
    )
    output = tmp_path / "report.json"
    arguments = ["--store", str(path), "--checkpoint", str(detector), "--output", str(output), "--cpu"]
    result = CliRunner().invoke(evaluate.main, arguments)
    assert result.exit_code == 1, result.output
    assert "the detector answers" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not output.exists()
    if pytest.importorskip("onnx"):
        arguments = ["--checkpoint", str(detector), "--output", str(tmp_path / "d.onnx")]
        result = CliRunner().invoke(export.main, arguments)
        assert result.exit_code == 1, result.output
        assert "not finite" in result.output
        assert not list(tmp_path.glob("*d.onnx*"))


# -- other people's files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--output", "--markdown", "--plot"])
def test_evaluation_writes_over_its_own_files_alone(detector, path, tmp_path, option):
    arguments = ["--store", str(path), "--checkpoint", str(detector), "--cpu"]
    for content in (b'{\n  "finished": true}', b"\x89PNG\r\n my holiday", b"# My notes\n"):
        (tmp_path / "mine").write_bytes(content)
        result = CliRunner().invoke(evaluate.main, [*arguments, option, str(tmp_path / "mine")])
        assert result.exit_code == 2, result.output
        assert "choose another name" in result.output
        assert (tmp_path / "mine").read_bytes() == content
    (tmp_path / "mine").write_bytes(b"")
    for _ in range(2):
        assert CliRunner().invoke(evaluate.main, [*arguments, option, str(tmp_path / "mine")]).exit_code == 0
    assert not list(tmp_path.glob(".concord*"))
    weights = (detector / "model.safetensors").read_bytes()
    assert CliRunner().invoke(evaluate.main, [*arguments, option, str(detector / "model.safetensors")]).exit_code == 2
    assert (detector / "model.safetensors").read_bytes() == weights


def test_exports_and_stages_write_over_their_own_files_alone(detector, tmp_path):
    for command, *options in ((export.main, "--checkpoint"), (check_student, "lite", "--init-from")):
        for name in ("model.safetensors", "mine.npz"):
            (tmp_path / "mine.npz").write_bytes(b"PK\x03\x04 my arrays")
            before = (tmp_path / name).read_bytes()
            result = CliRunner().invoke(command, [*options, str(detector), "--output", str(tmp_path / name)])
            assert result.exit_code == 2, result.output
            assert "choose another name" in result.output
            assert (tmp_path / name).read_bytes() == before
    for _ in range(2):
        options = ["lite", "--init-from", str(detector), "--output", str(tmp_path / "stages.npz")]
        assert CliRunner().invoke(check_student, options).exit_code == 0


def test_a_locked_disk_without_locks_is_told_from_another_run(path, tmp_path, monkeypatch):
    """ENOLCK and ENOTSUP are what network disks say; none is at hand here."""
    for number, said in ((errno.ENOLCK, "No locks available"), (errno.ENOTSUP, "not supported")):
        with monkeypatch.context() as patch:
            patch.setattr("fcntl.flock", lambda *_, n=number: (_ for _ in ()).throw(OSError(n, os.strerror(n))))
            result = train(path, tmp_path / "run", code=2)
        assert said in result.output
        assert "another run" not in result.output
