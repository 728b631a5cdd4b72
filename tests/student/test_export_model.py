"""ONNX export: the file answers as torch does, for any batch and length, and carries its threshold."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from student import checkpoint, export
from student.models import build

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")

ABOUT = {
    "threshold": 0.25, "temperature": 1.5, "fitted_on": "nothing", "window": 25, "store": {}, "versions": {},
    "config": {"seed": 0, "data": {"trim": "leading"}},
}  # fmt: skip


@pytest.fixture(scope="module", params=[("lite", 0), ("lite-causal", 0), ("lite", 8), ("lite-causal", 8)])
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(3)
    name, texture = request.param
    checkpoint.save_model(folder, build(name, texture=texture), name, ABOUT)
    result = CliRunner().invoke(export.main, ["--checkpoint", str(folder), "--output", str(folder / "d.onnx")])
    assert result.exit_code == 0, result.output
    assert "differs from torch by" in result.output
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (1, 33), (2, 120), (5, 11)])
def test_onnxruntime_answers_as_torch_does(exported, batch, frames):
    model, _ = checkpoint.load_model(exported)
    arrays = export._example(batch, frames, seed=7)
    found = export._session(exported / "d.onnx").run(None, dict(zip(export.INPUTS, arrays, strict=True)))
    with torch.no_grad():
        wanted = model(*map(torch.from_numpy, arrays))
    np.testing.assert_allclose(found[3], wanted.clip_logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(found[2][arrays[2]], wanted.frame_logits.numpy()[arrays[2]], atol=1e-4)


@pytest.mark.slow
def test_the_file_says_how_to_read_it(exported):
    props = {p.key: p.value for p in onnx.load(exported / "d.onnx").metadata_props}
    said = json.loads(props["concord-av"])
    assert (said["threshold"], said["temperature"], said["window"], said["trim"]) == (0.25, 1.5, 25, "leading")
    assert not list(exported.glob(".*partial"))


def test_what_differs_is_not_written(tmp_path, monkeypatch):
    checkpoint.save_model(tmp_path, build("lite"), "lite", ABOUT)
    monkeypatch.setattr(export, "_write", lambda model, path, about: path.write_bytes(b""))
    monkeypatch.setattr(export, "_difference", lambda model, path: 0.1)
    result = CliRunner().invoke(export.main, ["--checkpoint", str(tmp_path), "--output", str(tmp_path / "d.onnx")])
    assert result.exit_code == 2
    assert "differ by 0.1; the file was not written" in result.output
    assert not list(tmp_path.glob("*.onnx*"))


def test_no_checkpoint_is_one_line(tmp_path):
    result = CliRunner().invoke(export.main, ["--checkpoint", str(tmp_path), "--output", str(tmp_path / "d.onnx")])
    assert result.exit_code == 2
    assert "no model at" in result.output


def test_what_is_not_exported_is_one_line(tmp_path):
    checkpoint.save_model(tmp_path, build("talknet"), "talknet", ABOUT)
    result = CliRunner().invoke(export.main, ["--checkpoint", str(tmp_path), "--output", str(tmp_path / "d.onnx")])
    assert result.exit_code == 2
    assert "talknet cannot be exported; models that can: lite, lite-causal" in result.output
