"""The command that tries a student's weights, and the strict reading of weights that others wrote."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import rule_weights
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from concord import __main__ as commands
from student.check import check, main, talknet_stages
from student.checkpoint import CheckpointError, save_model
from student.models import PAPER, build, weights

TALKNET_ASD = ("lossA.FC.weight", "lossA.FC.bias", "lossV.FC.weight", "lossV.FC.bias")
ABSENT_THERE = ("lossCont_Spea.", "log_scale", "bias")


@pytest.fixture(scope="module")
def state():
    """What the authors' checkpoint holds, teachers apart."""
    found = rule_weights.state(build("talknet"))
    return {key: value for key, value in found.items() if key not in ("log_scale", "bias")}


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(3)
    path = tmp_path / "in.npz"
    np.savez(path, faces=rng.integers(0, 256, (2, 3, 112, 112), np.uint8), mfcc=rng.normal(0, 9, (2, 12, 13)))
    return path


def run(*options, code=0):
    result = CliRunner().invoke(main, [str(x) for x in options])
    assert result.exit_code == code, result.output
    return result


def save(state: dict, path: Path) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    elif path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".model", ".npz", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_kind_of_file_gives_the_same_weights(state, tmp_path, suffix, prefix):
    path = save({prefix + key: value for key, value in state.items()}, tmp_path / f"weights{suffix}")
    model = build("talknet")
    loaded = weights.load(model, "talknet", path)
    assert (loaded.taken, loaded.left_aside, loaded.kept) == (487, (), ("log_scale", "bias"))
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items())


def test_the_older_container_of_torch_is_read(state, tmp_path):
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert weights.load(build("talknet"), "talknet", tmp_path / "old.pth").taken == 487


def test_teachers_and_talknets_own_heads_are_left_aside_and_named(state, tmp_path):
    for name, extra in {
        "authors": {"ASRmodel.outputConv.weight": torch.zeros(40, 512, 1), "VSRmodel.outputConv.bias": torch.zeros(40)},
        "talknet": {key: torch.zeros(2) for key in TALKNET_ASD},
    }.items():
        kept = {k: v for k, v in state.items() if name == "authors" or not k.startswith(ABSENT_THERE)}
        path = save({**kept, **extra}, tmp_path / f"{name}.model")
        loaded = weights.load(build("talknet"), "talknet", path)
        assert loaded.left_aside == tuple(extra)
        assert len(loaded.kept) == (2 if name == "authors" else 6)
        assert next(iter(extra)).partition(".")[0] in str(loaded)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("model.crossA2V.norm1.bias"), "lacks model.crossA2V.norm1.bias of the model talknet"),
        (lambda s: s.update({"model.extra.weight": torch.zeros(2)}), "holds model.extra.weight"),
        (lambda s: s.update({"lossAV.FC.bias": torch.zeros(3)}), r"lossAV.FC.bias has the shape \[3\].*needs \[2\]"),
        (lambda s: s.update({"lossAV.FC.bias": torch.tensor([0, float("nan")])}), "lossAV.FC.bias holds values"),
        (lambda s: s.update({"module.lossAV.FC.bias": torch.zeros(2)}), "holds lossAV.FC.bias twice"),
        (lambda s: s.update({"epoch": 3}), "epoch is a int"),
        (
            lambda s: [s.pop(k) for k in list(s) if "audioEncoder" in k],
            r"lacks model.audioEncoder.conv1.weight and \d+ more",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(state, tmp_path, change, said):
    changed = dict(state)
    change(changed)
    with pytest.raises(CheckpointError, match=said):
        weights.load(build("talknet"), "talknet", save(changed, tmp_path / "w.pt"))


class Sly:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_pickle_that_asks_for_more_than_tensors_is_refused(tmp_path, capsys):
    (tmp_path / "sly.pt").write_bytes(pickle.dumps({"weight": Sly()}))
    torch.save({"weight": Sly()}, tmp_path / "zipped.pt")
    for name in ("sly.pt", "zipped.pt"):
        with pytest.raises(CheckpointError, match="holds more than tensors"):
            weights.read(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".safetensors"])
def test_damaged_and_missing_files_are_named(state, tmp_path, suffix):
    path = save(dict(list(state.items())[:5]), tmp_path / f"w{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=f"w{suffix} is damaged"):
        weights.read(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"w{suffix} is damaged"):
        weights.read(path)
    with pytest.raises(CheckpointError, match="no weights at"):
        weights.read(tmp_path / f"none{suffix}")


def test_the_command_writes_every_stage_as_the_published_network_runs(state, tmp_path, arrays):
    path = save(state, tmp_path / "rule.model")
    said = run("talknet", "--init-from", path, "--input", arrays, "--output", tmp_path / "out.npz").output
    for part in ("15,743,451", "487 tensors", "frame_logits [2, 3, 2]", "clips/s", "frames/s"):
        assert part in said
    model = build("talknet", **PAPER["talknet"]).eval()
    model.load_state_dict(state, strict=False)
    given = np.load(arrays)
    with torch.no_grad():
        expected = talknet_stages(model, torch.from_numpy(given["faces"]), torch.from_numpy(given["mfcc"]).float())
    with np.load(tmp_path / "out.npz") as found:
        assert set(found.files) == set(expected)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value.numpy(), atol=1e-5, err_msg=key)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_shortest_clips_run(tmp_path, frames):
    np.savez(tmp_path / "in.npz", faces=np.zeros((1, frames, 112, 112), "u1"), mfcc=np.zeros((1, 4 * frames, 13), "f4"))
    run("talknet", "--input", tmp_path / "in.npz", "--output", tmp_path / "out.npz")
    assert np.load(tmp_path / "out.npz")["frame_logits"].shape == (1, frames, 2)


def test_lite_runs_from_a_runs_folder_in_the_sizes_that_it_tells(tmp_path):
    model = build("lite", width=64, temporal_layers=1)
    save_model(tmp_path, model, "lite", {"threshold": 0.0, "temperature": 1.0})
    said = run("lite", "--init-from", tmp_path, "--output", tmp_path / "out.npz").output
    assert "embedding_audio [2, 25, 64]" in said
    assert np.load(tmp_path / "out.npz")["clip_logits"].shape == (2,)
    result = run("talknet", "--init-from", tmp_path, code=2)
    assert "lacks model.visualFrontend" in result.output


def test_errors_are_one_line_with_exit_code_2(state, tmp_path, arrays):
    faces, mfcc = (np.load(arrays)[key] for key in ("faces", "mfcc"))
    bad = {
        "holds no array mfcc": {"faces": faces},
        "mfcc has the shape [2, 11, 13], with 2 clips of 3 frames it needs [2, 12, 13]": {
            "faces": faces,
            "mfcc": mfcc[:, 1:],
        },
        "faces has the shape [2, 3, 96, 96]": {"faces": faces[:, :, :96, :96], "mfcc": mfcc},
        "must hold integers from 0 to 255": {"faces": faces / 255.0, "mfcc": mfcc},
        "mfcc must hold finite numbers": {"faces": faces, "mfcc": np.full_like(mfcc, np.nan)},
        "needs at least one clip and one frame": {"faces": faces[:0], "mfcc": mfcc[:0]},
        "holds object [1], expected numbers": {"faces": np.array([{}]), "mfcc": mfcc},
    }
    for said, given in bad.items():
        np.savez(tmp_path / "bad.npz", **given)
        result = run("talknet", "--input", tmp_path / "bad.npz", code=2)
        assert said in result.output
        assert len(result.output.strip().splitlines()) == 1
    for said, options in {
        "unknown model heavy; there is lite, lite-causal, talknet": ("heavy",),
        "no weights at": ("talknet", "--init-from", tmp_path / "none.pt"),
        "is missing or not an .npz file": ("talknet", "--input", tmp_path / "none.npz"),
        "is a folder": ("talknet", "--output", tmp_path),
        "no device": ("talknet", "--device", "cuda:9"),
    }.items():
        result = run(*options, code=2)
        assert said in result.output
    assert commands.main.get_command(None, "check-student") is main
    with pytest.raises(CheckpointError):
        check("talknet", tmp_path / "none.pt")


def test_lite_causal_runs_too():
    said = run("lite-causal").output
    assert "lite-causal: 1,026,652 parameters" in said
