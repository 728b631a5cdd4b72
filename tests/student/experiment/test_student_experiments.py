"""Experiments with a student on small stores: their tables say what the trained detectors score, and refuse what they lack."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_store import make_store

import store
from student.config import TrainConfig
from student.data.dataset import in_sync
from student.experiment import accents, arms, judging
from student.experiment.__main__ import main
from student.experiment.asked import QUICK, Asked, ExperimentError
from student.experiment.parts import hold_out, parts
from student.scoring.metrics import auc


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    first = make_store(folder / "a.zarr", {"train": 14, "val": 3, "test": 5}, frames=(36, 60), fakes=2)
    return first, make_store(folder / "b.zarr", {"": 4}, frames=(36, 60), seed=3)


def asked(protocol, output, *paths, options=(), code=0):
    named = [word for path in paths for word in ("--store", str(path))]
    words = ["--protocol", protocol, *named, "--output", str(output), "--quick", "--threads", "1", *options]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


def figures(output, protocol):
    return json.loads((output / f"{protocol}.json").read_text())


@pytest.fixture(scope="module")
def soft(stores, tmp_path_factory):
    output = tmp_path_factory.mktemp("soft") / "out"
    page = asked("soft-labels", output, *stores, options=("--seeds", "2"))
    return output, page


def test_the_table_has_the_aucs_of_the_trained_detectors(soft, stores):
    output, _ = soft
    told = figures(output, "soft-labels")["figures"]["judged"]
    chosen = parts(store.open(stores[0]), QUICK)
    sets = judging.trial_sets(str(stores[0]), chosen.test, 12, (judging.SWAPS, judging.SHIFTS, judging.FORGERIES))
    assert [name for name in told if "b.zarr" in name] == [f"synthetic of b.zarr: {t}" for t in ("swaps", "shifts")]
    assert list(sets[0].tasks) == [judging.SWAPS, judging.SHIFTS, judging.FORGERIES]
    for task, use in sets[0].tasks.items():
        row = told[f"synthetic of a.zarr: {task}"]
        for arm in ("with", "without"):
            mine = [
                auc(judging.student_scores(output / "runs" / f"{arm}-{seed}", sets)[0][use], sets[0].labels[use])
                for seed in (0, 1)
            ]
            assert row["auc"][arm]["by_seed"] == pytest.approx(mine)
            assert row["auc"][arm]["value"] == pytest.approx(np.mean(mine))
        apart = row["difference"]["with - without"]
        assert apart["value"] == pytest.approx(row["auc"]["with"]["value"] - row["auc"]["without"]["value"])
        assert apart["low"] <= apart["value"] <= apart["high"]
        assert (row["real"], row["fake"]) == tuple((sets[0].labels[use] == y).sum() for y in (0, 1))


def test_arms_differ_in_the_labels_alone(soft):
    output, _ = soft
    read = {
        arm: TrainConfig.from_dict(json.loads((output / "runs" / f"{arm}-1" / "config.json").read_text())["config"])
        for arm in ("with", "without")
    }
    a, b = (config.options() for config in read.values())
    assert {name for name in a if a[name] != b[name]} == {"output", "w_correlation", "w_contrastive", "w_projection"}
    assert (b["w_correlation"], b["w_contrastive"], a["seed"]) == (0, 0, 1)


def test_files_say_what_they_rest_on(soft, stores):
    output, page = soft
    told = figures(output, "soft-labels")
    assert (told["format"], told["protocol"], told["settings"]["seeds"]) == ("concord-av experiment", "soft-labels", 2)
    assert [one["path"] for one in told["stores"]] == [str(path) for path in stores]
    assert told["command"].startswith("python -m student.experiment")
    assert "concord-av" in told["versions"]
    assert told["limits"]
    assert "Not shown by this:" in page
    assert "figures mean nothing" in page
    assert (output / "soft-labels.md").read_text().startswith(page.rstrip("\n"))


def test_trained_runs_are_kept_and_others_are_refused(soft, stores):
    output, page = soft
    before = {path: path.stat().st_mtime_ns for path in output.glob("runs/*/model.safetensors")}
    assert len(before) == 4
    assert asked("soft-labels", output, *stores, options=("--seeds", "2")).splitlines()[8:] == page.splitlines()[8:]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    said = asked("soft-labels", output, *stores, options=("--seeds", "2", "--steps", "9"), code=2)
    assert "holds a run with other options (epochs 1 -> " in said


def test_a_run_on_another_store_of_the_same_name_is_refused(stores, tmp_path):
    path = tmp_path / "s.zarr"
    shutil.copytree(stores[0], path)
    ask = Asked("soft-labels", (str(path),), tmp_path / "out", QUICK, threads=1)
    splits = tmp_path / "splits.csv"
    ids = store.open(path).clips["id"].astype(str)
    splits.write_text("id,split\n" + "".join(f"{i},{'val' if k < 2 else 'train'}\n" for k, i in enumerate(ids)))
    arms.train(ask, arms.Arm("a", ""), 0, splits)
    shutil.rmtree(path)
    make_store(path, {"train": 14, "val": 3, "test": 5}, frames=(36, 60), fakes=2, seed=9)
    with pytest.raises(ExperimentError, match="the store's clips have changed"):
        arms.train(ask, arms.Arm("a", ""), 0, splits)


def test_sync_labels_are_one_for_the_own_sound_in_time_alone():
    clip = np.array([[4, 4], [4, 4], [7, 9], [9, 9]])
    start = np.array([[10, 10], [10, 11], [3, 3], [3, 3]])
    found = in_sync(clip, start, 5)
    assert found.shape == (4, 4, 5)
    assert (found == found[..., :1]).all()
    expected = np.zeros((4, 4))
    expected[0, 0] = 1
    expected[1, 0] = 1  # the same moment of the same clip from another row of the batch
    expected[3, 2] = expected[3, 3] = 1  # the sound that row 2 borrowed is row 3's own
    assert np.array_equal(found[..., 0], expected)


@pytest.mark.slow
def test_content_or_sync_trains_on_the_labels_it_names(stores, tmp_path):
    asked("content-or-sync", tmp_path / "out", stores[0])
    told = figures(tmp_path / "out", "content-or-sync")["figures"]
    assert list(told["judged"]) == [f"synthetic: {task}" for task in ("swaps", "swaps at the best offset", "shifts")]
    for name, labels, weight in (("content", "content", 0), ("sync", "sync", 0), ("sync-both", "sync", 0.5)):
        config = json.loads((tmp_path / "out" / "runs" / f"{name}-0" / "config.json").read_text())["config"]
        assert (config["data"]["labels"], config["losses"]["w_contrastive"]) == (labels, weight)


def test_at_the_best_offset_swaps_and_twins_stay_alike_and_agree_more(stores):
    reader = store.open(stores[0])
    chosen = parts(reader, QUICK)
    (one,) = judging.trial_sets(str(stores[0]), chosen.test, 12, (judging.SWAPS, judging.AT_BEST))
    moved = [t for t, use in zip(one.items, one.tasks[judging.AT_BEST], strict=True) if use]
    by_id = {t.id: t for t in moved}
    plain = {t.id: t for t in one.items}
    teacher = dict(zip(plain, judging.teacher_scores([one])[0], strict=True))
    swaps = [t for t in moved if t.label == 1]
    assert len(swaps) == len(moved) / 2 > 4
    for t in swaps:
        name = t.id.removesuffix("|best")
        twin = by_id[f"{name}|own|best"]
        assert (twin.lips, twin.lips_start, twin.length) == (t.lips, t.lips_start, t.length)
        was = plain[name]
        assert was.sound_start <= t.sound_start <= t.sound_start + t.length <= was.sound_start + was.length
    assert np.mean([teacher[t.id] for t in swaps]) < np.mean([teacher[t.id.removesuffix("|best")] for t in swaps])


@pytest.mark.slow
def test_accents_fits_on_each_corpus_that_is_large_enough_and_judges_on_all(stores, tmp_path):
    two = make_store(tmp_path / "c.zarr", {"train": 40}, frames=40, seed=5)
    writer = store.Writer.open(two)
    writer.write_clips(0, {"corpus": ["other"] * 40})
    writer.consolidate()
    asked("accents", tmp_path / "out", stores[0], two, options=("--similarity", "cca"))
    told = figures(tmp_path / "out", "accents")["figures"]
    assert list(told["fits"]) == ["other"]  # the first store has 17 clips to learn from
    assert set(told["fits"]["other"]) == {"synthetic", "other"}
    every = accents.corpora(Asked("accents", (str(stores[0]), str(two)), tmp_path, QUICK, kind="cca"))
    assert not set(every[1].taught.tolist()) & set(every[1].judged.tolist())
    assert told["fits"]["other"]["other"]["5"]["value"] > 0.8  # the hidden signal stands in both embeddings
    assert list(told["students"]) == ["synthetic: swaps", "synthetic: shifts", "other: swaps", "other: shifts"]
    for row in told["students"].values():
        assert list(row["auc"]) == ["trained on other"]


def test_others_are_of_other_people_where_there_are_any():
    groups = ["a", "a", "b", "a", "b"]
    for i, name in enumerate(groups):
        found = accents.others(i, groups)
        assert i not in found
        assert len(found) == accents.OTHERS
        assert all(groups[j] != name for j in found)
    assert accents.others(0, ["a", "a"]) == [1]


@pytest.mark.parametrize(
    ("groups", "by"),
    [(["a"] * 10 + ["b"] * 5 + ["c"] * 5, "group"), ([str(k) for k in range(20)], "clip"), (["a"] * 20, "clip")],
)
def test_held_out_clips_are_whole_groups_where_people_are_known(groups, by):
    held, found = hold_out(np.array(groups), 0.2)
    assert found == by
    assert 2 <= held.sum() <= 10
    if by == "group":
        names = np.array(groups)
        assert not set(names[held]) & set(names[~held])


def test_a_store_without_a_fit_is_refused_and_nothing_is_made(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 8, "test": 4}, fit=False)
    for protocol in ("soft-labels", "content-or-sync", "corrupted"):
        said = asked(protocol, tmp_path / "out", path, code=2)
        assert "no soft labels: run python precompute.py" in said
    assert not (tmp_path / "out").exists()


def test_what_a_protocol_lacks_is_said(stores, tmp_path):
    out = tmp_path / "out"
    assert "needs --store" in asked("soft-labels", out, code=2)
    assert "cost needs videos" in asked("cost", out, code=2)
    assert "are for --protocol cost" in asked("accents", out, stores[0], options=("--manifest", "x.csv"), code=2)
    assert "takes one --store" in asked("corrupted", out, *stores, code=2)
    assert "no corruption smoke" in asked("corrupted", out, stores[0], options=("--corruption", "smoke"), code=2)
    assert "unknown model small" in asked("soft-labels", out, stores[0], options=("--model", "small"), code=2)
    assert "1 corpus with real clips to judge" in asked("accents", out, stores[1], code=2)
    assert not out.exists()


def test_other_files_are_not_replaced(stores, tmp_path):
    (tmp_path / "soft-labels.md").write_text("mine")
    assert "soft-labels.md" in asked("soft-labels", tmp_path, stores[0], code=2)
    assert (tmp_path / "soft-labels.md").read_text() == "mine"
    assert "lies in the store" in asked("soft-labels", Path(stores[0]) / "out", stores[0], code=2)
