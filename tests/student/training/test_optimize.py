"""Course of the learning rate, running average, early end: what a long run needs beside its loss."""

import json
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from test_train import assert_same_bits, path, train  # noqa: F401 - a fixture

from student import checkpoint, run_state
from student.models import build
from student.training.optimize import average, decay_groups, rate


def test_cosine_rises_and_falls_to_nothing():
    course = [rate("cosine", k / 100, 10, 0.1) for k in range(1001)]
    assert course[0] == 0
    assert max(course) == pytest.approx(1, abs=1e-3)
    assert course.index(max(course)) == 100
    assert course[-1] == pytest.approx(0, abs=1e-9)
    assert all(a >= b for a, b in pairwise(course[100:]))


def test_the_papers_rate_falls_by_a_twentieth_an_epoch():
    assert [rate("paper", k, 100, 0.05) for k in (0, 0.9, 1, 1.5, 99)] == pytest.approx([1, 1, 0.95, 0.95, 0.95**99])


def test_norms_and_biases_do_not_decay():
    model = build("lite")
    decayed, kept = decay_groups(model, 0.1)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)


def test_the_average_is_of_few_steps_at_first_and_then_decays():
    model = torch.nn.Linear(1, 1, bias=False)
    mean = average(model, 0.5)
    expected = None
    for n, value in enumerate((1.0, 3.0, -2.0, 5.0)):
        with torch.no_grad():
            model.weight.fill_(value)
        mean.update_parameters(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert mean.module.weight.item() == pytest.approx(expected)


@pytest.mark.slow
def test_a_resumed_average_ends_with_the_same_bits(path, tmp_path):  # noqa: F811
    options = ("--ema", "0.9", "--checkpointing_steps", "2")
    train(path, tmp_path / "calm", *options)
    train(path, tmp_path / "twice", *options, "--max-steps", "3")
    train(path, tmp_path / "twice", *options, "--resume_from_checkpoint", "latest")
    assert_same_bits(tmp_path / "calm", tmp_path / "twice")
    last = run_state.checkpoints(tmp_path / "calm")[-1]
    weights, kept = load_file(last / "model.safetensors"), load_file(tmp_path / "calm" / "model.safetensors")
    assert any(not torch.equal(weights[name], kept[name]) for name in weights)  # what is kept is the average


def test_a_run_ends_when_nothing_gets_better(path, tmp_path):  # noqa: F811
    options = ("--epochs", "30", "--lr", "1e-12", "--patience", "2")  # it cannot get better, nor worse
    train(path, tmp_path / "run", *options)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["finished"]
    assert results["epochs"] - results["best"]["epoch"] == 2
    assert results["epochs"] < 30
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    train(path, tmp_path / "run", *options, "--resume_from_checkpoint", "latest")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # of torch.compile itself
def test_a_compiled_student_trains(path, tmp_path):  # noqa: F811
    train(path, tmp_path / "run", "--compile", "--max-steps", "2")
    checkpoint.load_model(tmp_path / "run")
