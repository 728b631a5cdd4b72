"""A run resumes only in its own folder, from a checkpoint with its own name, beside its own detector, on the same
data."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_store import make_store
from test_train import train

import store
from student import checkpoint, run_state
from student.config import TrainConfig
from student.run.identity import shards_digest
from student.training.step import method

FILE = "model.safetensors"
OPTIONS = ("--checkpointing_steps", "epoch", "--epochs", "2")
LATEST = ("--resume_from_checkpoint", "latest")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "s.zarr", {"train": 16, "val": 4}, frames=(30, 36), fakes=2)


@pytest.fixture(scope="module")
def finished(path, tmp_path_factory):
    """Two finished runs, of seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate("ab"):
        train(path, folder / name, *OPTIONS, "--seed", str(seed))
    return folder


@pytest.fixture
def runs(finished, tmp_path):
    """A copy of both, to be spoilt."""
    shutil.copytree(finished, tmp_path / "runs", ignore=shutil.ignore_patterns(".concord*"))
    return tmp_path / "runs"


def content(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".concord")}


def refused(folder, result):
    said = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.output
    assert len(said) == 1, result.output
    return said[0]


def set_best(run, epoch, weights=None):
    """Rewrite detector and last checkpoint as if the run's best epoch had been that one (1 or 2)."""
    found = run_state.checkpoints(run)
    state = run_state.read_state(found[-1])
    then = state["history"][epoch - 1]
    model, header = checkpoint.load_model(run)
    model.load_state_dict(load_file(found[epoch - 1 if len(found) > 1 else 0] / FILE))
    told = {k: then[k] for k in ("step", "epoch", "threshold", "temperature")}
    checkpoint.save_model(run, model, "lite", {**header.told, **told})
    digest = weights or checkpoint.weights_digest(model.state_dict())
    state["best"] = {**then, "rank": [2.0, 0.0], "weights": digest}
    (found[-1] / "trainer.json").write_text(json.dumps({**state, "sha256": checkpoint.sum_of(state)}))


# -- the folder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["1", "3"])
def test_a_checkpoint_of_another_run_is_refused_and_nothing_is_touched(runs, path, keep):
    foreign = run_state.checkpoints(runs / "a")[0]
    before = content(runs)
    for target in (runs / "b", runs / "new"):
        more = (*OPTIONS, "--keep-checkpoints", keep, "--resume_from_checkpoint", str(foreign))
        said = refused(runs, train(path, target, *more, code=2))
        assert f"give --output {foreign.parent}" in said
        assert "--init-from" in said
    assert content(runs) == before
    assert not (runs / "new").exists()


def test_a_link_to_another_runs_checkpoint_is_refused(runs, path):
    foreign = run_state.checkpoints(runs / "a")[0]
    (runs / "b" / "checkpoint-1").symlink_to(foreign)
    more = ("--resume_from_checkpoint", str(runs / "b" / "checkpoint-1"))
    refused(runs, train(path, runs / "b", *OPTIONS, *more, code=2))


def test_an_earlier_checkpoint_of_the_run_and_a_copied_folder_go_on(runs, path):
    wanted = load_file(runs / "a" / FILE)
    shutil.copytree(runs / "a", runs / "copy")
    first = run_state.checkpoints(runs / "copy")[0]
    train(path, runs / "copy", *OPTIONS, "--resume_from_checkpoint", str(first) + "/")
    assert all(torch.equal(value, wanted[key]) for key, value in load_file(runs / "copy" / FILE).items())


def test_a_checkpoint_of_another_run_in_this_folder_is_refused(runs, path):
    last = run_state.checkpoints(runs / "b")[-1]
    shutil.rmtree(runs / "a" / last.name)
    shutil.copytree(last, runs / "a" / last.name)
    before = content(runs)
    for seed in ("0", "1"):
        refused(runs, train(path, runs / "a", *OPTIONS, *LATEST, "--seed", seed, code=2))
    assert content(runs) == before


@pytest.mark.parametrize("name", ["checkpoint-99", "checkpoint-1", "checkpoint-0{}"])
def test_a_checkpoint_under_another_name_is_refused(runs, path, name):
    last = run_state.checkpoints(runs / "a")[-1]
    step = last.name.removeprefix("checkpoint-")
    other = last.with_name(name.format(step))
    last.rename(other)
    said = refused(runs, train(path, runs / "a", *OPTIONS, "--resume_from_checkpoint", str(other), code=2))
    assert f"holds step {step}: rename the folder to checkpoint-{step}" in said
    if name != "checkpoint-1":
        assert said == refused(runs, train(path, runs / "a", *OPTIONS, *LATEST, code=2))


# -- the detector ------------------------------------------------------------------------------------------------------


def test_a_detector_that_is_lost_comes_back_from_the_checkpoint_that_holds_it(runs, path):
    run = runs / "a"
    set_best(run, 2)
    wanted, header = checkpoint.load_model(run)
    for name in (FILE, "MODEL_CARD.md"):
        (run / name).unlink()
    train(path, run, *OPTIONS, *LATEST)
    found, told = checkpoint.load_model(run)
    assert all(torch.equal(value, wanted.state_dict()[key]) for key, value in found.state_dict().items())
    assert (told.threshold, told.temperature, told.step) == (header.threshold, header.temperature, header.step)
    assert (run / "MODEL_CARD.md").is_file()


def test_a_detector_that_is_lost_for_good_is_said_and_the_way_on_works(runs, path):
    run = runs / "a"
    first, last = run_state.checkpoints(run)
    set_best(run, 1)
    train(path, run, *OPTIONS, *LATEST)  # as it is, all is well
    (run / FILE).unlink()
    before = content(run)
    said = refused(run, train(path, run, *OPTIONS, *LATEST, code=2))
    assert f"{run / FILE} is missing, and {last.name} does not hold the best weights so far" in said
    assert f"resume from {first}" in said
    assert content(run) == before
    train(path, run, *OPTIONS, "--resume_from_checkpoint", str(first))
    checkpoint.load_model(run)
    shutil.rmtree(first)
    set_best(run, 1, weights="0" * 64)
    (run / FILE).unlink()
    assert "start a new --output" in refused(run, train(path, run, *OPTIONS, *LATEST, code=2))


@pytest.mark.parametrize("best", [1, 2])
def test_the_detector_of_another_run_is_refused_and_stays(runs, path, best):
    run = runs / "a"
    set_best(run, best)
    shutil.copy(runs / "b" / FILE, run / FILE)
    before = content(runs)
    said = refused(run, train(path, run, *OPTIONS, *LATEST, code=2))
    assert f"{run / FILE} is the detector of another run" in said
    assert "move it away" in said
    assert content(runs) == before
    (run / FILE).unlink()
    train(path, run, *OPTIONS, *LATEST, code=2 if best == 1 else 0)


def test_a_damaged_detector_is_refused(runs, path):
    run = runs / "a"
    data = bytearray((run / FILE).read_bytes())
    data[-1000] ^= 4
    (run / FILE).write_bytes(data)
    before = content(run)
    assert "is damaged" in refused(run, train(path, run, *OPTIONS, *LATEST, code=2))
    assert content(run) == before


def test_another_threshold_is_another_detector(runs, path):
    run = runs / "a"
    model, header = checkpoint.load_model(run)
    checkpoint.save_model(run, model, "lite", {**header.told, "threshold": header.threshold + 1})
    before = content(run)
    refused(run, train(path, run, *OPTIONS, *LATEST, code=2))
    assert content(run) == before


@pytest.mark.parametrize(
    "change",
    [
        {"best": {"step": "x"}}, {"best": {"step": 3, "epoch": 1, "rank": [[], 1]}}, {"best": []}, {"step": "6"}, {"step": -1},
        {"history": {}}, {"seconds": 3}, {"threads": None}, {"config": 7}, {"epoch": 1.5}, {"position": []},
    ],
)  # fmt: skip
def test_a_sealed_state_of_wrong_types_is_one_line(runs, path, change):
    last = run_state.checkpoints(runs / "a")[-1]
    state = {**run_state.read_state(last), **change}
    (last / "trainer.json").write_text(json.dumps({**state, "sha256": checkpoint.sum_of(state)}))
    assert "can be used" in refused(runs, train(path, runs / "a", *OPTIONS, *LATEST, code=2))


@pytest.mark.parametrize("begun", ["", "lite 1"])
def test_a_run_that_another_release_began_is_not_finished_in_another_way(runs, path, begun):
    first, last = run_state.checkpoints(runs / "a")[0], run_state.checkpoints(runs / "a")[-1]
    for saved in (first, last):
        state = {**run_state.read_state(saved), "method": begun}
        (saved / "trainer.json").write_text(json.dumps({**state, "sha256": checkpoint.sum_of(state)}))
    train(path, runs / "a", *OPTIONS, *LATEST)  # finished: nothing is left to do
    before = content(runs / "a")
    said = refused(runs, train(path, runs / "a", *OPTIONS, "--resume_from_checkpoint", str(first), code=2))
    assert f"--init-from {first}/model.safetensors" in said
    assert content(runs / "a") == before


def test_only_runs_whose_steps_have_changed_are_those_of_another_release():
    lite, talknet = (TrainConfig(store="s.zarr", output="run", model=name) for name in ("lite", "talknet"))
    drawn = replace(lite, data=replace(lite.data, pseudo_share=1.0))
    assert method(talknet) == ""  # as in checkpoints that do not say it
    assert len({method(one) for one in (talknet, lite, drawn)}) == 3


@pytest.mark.parametrize("config", [{"lr": float("inf")}, {}, {"data": {"window": "x"}}, {"losses": {"preset": []}}])
def test_a_foreign_detectors_odd_header_is_one_line(runs, path, config):
    run = runs / "a"
    model, header = checkpoint.load_model(run)
    checkpoint.save_model(run, model, "lite", {**header.told, "config": config, "threshold": 9.0, "step": "x"})
    assert "of another run" in refused(run, train(path, run, *OPTIONS, *LATEST, code=2))


@pytest.mark.slow
def test_killed_between_a_validation_and_its_checkpoint_it_ends_with_the_same_bits(path, tmp_path):
    """The detector in the folder is then of a later step than the newest checkpoint."""
    options = ("--checkpointing_steps", "2", "--epochs", "2", "--keep-checkpoints", "9")
    train(path, tmp_path / "calm", *options)
    wanted = load_file(tmp_path / "calm" / FILE)
    found = run_state.checkpoints(tmp_path / "calm")
    for last in range(1, len(found)):
        run = tmp_path / str(last)
        shutil.copytree(tmp_path / "calm", run, ignore=shutil.ignore_patterns(".concord*"))
        for folder in found[last:]:
            shutil.rmtree(run / folder.name)
        early = train(path, run, *options, *LATEST, "--max-steps", found[last - 1].name.partition("-")[2])
        assert early.exit_code == 0
        best = json.loads((run / "results.json").read_text())["best"]
        assert not best or best["step"] == checkpoint.load_model(run)[1].step  # never figures of another detector
        train(path, run, *options, *LATEST)
        assert all(torch.equal(value, wanted[key]) for key, value in load_file(run / FILE).items())
        best = json.loads((run / "results.json").read_text())["best"]
        assert best == json.loads((tmp_path / "calm" / "results.json").read_text())["best"]


# -- the data ----------------------------------------------------------------------------------------------------------


def test_the_digest_of_shards_is_of_the_arrays_that_are_read():
    def of(names, **shards):
        return shards_digest(SimpleNamespace(inventory=SimpleNamespace(shards=shards)), names)

    assert of(["mouth"], mouth="a", asr="b") == of(["mouth"], mouth="a", asr="c") != of(["mouth"], mouth="d", asr="b")
    assert of(["mouth", "audio"], mouth="a", audio="b") == of(["audio", "mouth"], audio="b", mouth="a")
    assert of(["mouth"]) == "" == shards_digest(SimpleNamespace(inventory=SimpleNamespace()), ["mouth"])


@pytest.mark.parametrize("name", ["mouth", pytest.param("audio", marks=pytest.mark.slow), "asr_projection"])
def test_shards_that_were_exchanged_under_a_run_are_noticed(path, tmp_path, name):
    here = tmp_path / "s.zarr"
    shutil.copytree(path, here)
    store.Writer.open(here).consolidate()
    train(here, tmp_path / "run", *OPTIONS, "--max-steps", "1")
    train(here, tmp_path / "run", *OPTIONS, *LATEST, "--max-steps", "2")  # unchanged: no alarm
    writer = store.Writer.open(here)
    writer.begin()
    rows = writer.blank_shard([name])[name]
    reader = store.open(here)
    old = np.concatenate([reader.frames(i, 0, int(n), [name])[name] for i, n in enumerate(reader.clips["length"])])
    size = min(len(rows), len(old))
    rows[:size] = old[::-1][:size]
    writer.write_shard(0, {name: rows})
    writer.consolidate()
    said = refused(tmp_path, train(here, tmp_path / "run", *OPTIONS, *LATEST, code=2))
    assert "are not those that" in said


def test_lips_count_as_data_only_where_pseudo_fakes_are_made(monkeypatch):
    from student.training import plan

    monkeypatch.setattr(plan, "shards_digest", lambda _, names: " ".join(names))
    monkeypatch.setattr(plan, "store_identity", lambda _: {})
    for share in (0.0, 1.0):
        data = SimpleNamespace(picture="mouth", pseudo_share=share, balance="clips")
        config, spans = SimpleNamespace(needs_projections=False), SimpleNamespace(labels="")
        one = SimpleNamespace(data=data, config=config, spans=spans, reader=None)
        assert ("lips" in plan.Plan.identity.func(one)["shards"].split()) == bool(share)
