"""`python -m benchmarks.gpu`: agreement means what it says, and the rehearsal runs every part."""

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from house import ROOT

from benchmarks.device import forward, networks, training
from benchmarks.device.forward import Work
from benchmarks.gpu import NAMES, main

SMALL = Work(clips=2, frames=12, rounds=1, product=64)


def test_agreement_is_relative_to_the_expected_rows():
    expected = {"rows": torch.tensor([[3.0, 4.0], [0.0, -5.0]]), "logits": torch.tensor([[1.0], [-1.0], [2.0]])}
    found = {"rows": torch.tensor([[3.0, 4.0], [0.5, -5.0]]), "logits": 2 * expected["logits"]}
    figures = forward.agreement(found, expected)
    assert figures["rows"] == pytest.approx(
        {"max apart": 0.5 / 5, "mean apart": 0.5 / 12, "least cosine": 5 / (25.25**0.5)}, rel=1e-6
    )
    assert figures["logits"] == pytest.approx({"max apart": 1.0, "mean apart": 1.0, "least cosine": 1.0})


def test_a_student_agrees_with_itself_and_nearly_in_half_precision():
    rows = list(forward.rows_of(networks.student("lite"), "cpu", ("fp32", "bf16"), SMALL))
    by = {row.name: row.figures for row in rows}
    assert list(by) == [f"lite, {kind}, {name}" for kind in ("fp32", "bf16") for name in ("embeddings", "frame logits")]
    assert by["lite, fp32, embeddings"]["max apart"] < 1e-5
    half = by["lite, bf16, embeddings"]
    assert 1e-4 < half["max apart"] < 0.2
    assert 0.99 < half["least cosine"] < 1
    assert half["frames/s"] > 0
    assert half["TFLOP/s"] / half["of ceiling"] > 0
    assert half["MiB"] is None  # of a CPU


def test_operations_are_those_of_the_layers():
    left, right = torch.randn(8, 16), torch.randn(16, 4)
    assert forward.timing.operations(lambda: left @ right) == 2 * 8 * 16 * 4


@pytest.mark.parametrize("name", ["lite", "lite with texture"])
def test_a_step_has_the_same_loss_and_gradient_on_the_cpu(name):
    before = torch.are_deterministic_algorithms_enabled()
    try:
        (row, half) = training.steps("cpu", [name], [2], SMALL)
    finally:
        torch.use_deterministic_algorithms(before)
    assert row.name == f"{name}, fp32, 2 windows"
    assert row.figures["loss apart"] < 1e-6
    assert row.figures["gradient's cosine"] > 0.9999
    assert 0.9 < half.figures["gradient's cosine"] < 1


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr("concord.extras.find_spec", lambda name: None)
    for make, extra in ((networks.whisper, "predict"), (networks.avhubert, "avhubert")):
        with pytest.raises(Exception, match=rf"pip install 'concord-av\[{extra}\]'"):
            make("rehearsal")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_told_so_in_one_line():
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "torch sees no CUDA device" in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.slow
def test_the_rehearsal_measures_every_part(tmp_path):
    file = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--minutes", "20"]
    done = subprocess.run([*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert [part["name"] for part in found["parts"]] == list(NAMES)
    assert all(part["rows"] and not part["ended"] for part in found["parts"])
    for part in found["parts"][1:4]:
        assert all(row["figures"]["least cosine"] > 0.9 for row in part["rows"])
    assert "Whisper's encoder" in done.stdout
