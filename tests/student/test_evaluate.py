"""Scores and figures: each trial once, fair negatives, NaN where there is nothing, the same from any number of processes."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from small_store import make_store

import store
from store.dataset.spans import spans
from student import checkpoint
from student.evaluate import Asked, evaluate, main
from student.evaluate import report as evaluation
from student.models import build
from student.scoring import score, tables

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(
        tmp_path_factory.mktemp("eval") / "s.zarr", {"train": 6, "test": 8}, frames=(36, 66), fakes=3, broken=1
    )


@pytest.fixture(scope="module")
def reader(path):
    return store.open(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of an untrained detector."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    about = {
        "threshold": 0.1, "temperature": 1.0, "fitted_on": "nothing", "window": 25,
        "config": {"seed": 0}, "store": {}, "versions": {},
    }  # fmt: skip
    checkpoint.save_model(folder, build("lite"), "lite", about)
    return folder


def rows_of(reader, split):
    return np.flatnonzero((reader.clips["split"] == split) & (reader.clips["done"] == 1))


def trials(reader, seed=0, **more):
    rows = rows_of(reader, "test")
    return score.trials(reader, rows, spans(reader, rows, "none"), seed, **more)


def test_made_pairs_have_twins_of_the_same_lips_and_length(reader):
    items = trials(reader, swaps=2, shifts=3)
    fakes = [t for t in items if t.made and t.label == 1]
    twins = {t.id: t for t in items if t.made and t.label == 0}
    assert len(fakes) == len(twins) == 8 * 5
    for t in fakes:
        twin = twins[t.id + "|own"]
        assert (twin.lips, twin.lips_start, twin.length) == (t.lips, t.lips_start, t.length)
        assert (twin.sound, twin.sound_start) == (t.lips, t.lips_start)
        for row, first in ((t.lips, t.lips_start), (t.sound, t.sound_start)):
            assert 3 <= first <= first + t.length <= reader.clips["length"][row] - 3
        if t.method == "made shift":
            assert 5 <= abs(t.lips_start - t.sound_start) <= 15
        else:
            assert t.sound != t.lips
    assert items == trials(reader, swaps=2, shifts=3)
    assert items != trials(reader, seed=1, swaps=2, shifts=3)


@pytest.mark.parametrize("length", [1, 74, 75, 76, 150, 151, 1000])
def test_windows_hold_every_frame_and_have_one_length(length):
    cuts = score.windows(length, 75)
    assert sorted({k for a, b in cuts for k in range(a, b)}) == list(range(length))
    assert {b - a for a, b in cuts} == {min(length, 75)}
    for (_, last), (first, _) in itertools.pairwise(cuts):
        assert last - first >= 75 // 2  # half in common
    assert len(cuts) <= max(1, 2 * length / 75)


def test_a_trials_score_does_not_depend_on_its_company(reader, run):
    model, _ = checkpoint.load_model(run)
    items = trials(reader)
    together = score.logits(model, reader, items, 25, torch.device("cpu"), batch_size=7)
    alone = np.concatenate([score.logits(model, reader, [t], 25, torch.device("cpu")) for t in items[:6]])
    np.testing.assert_allclose(together[:6], alone, atol=2e-5)


def test_teacher_scores_are_the_stores_clip_similarity(reader):
    items = trials(reader)
    logits = score.teacher_scores(reader, items)[0]
    for t, z in zip(items, logits, strict=True):
        if not t.made:
            names = ["vsr_projection", "asr_projection", "flags"]
            read = reader.frames(t.lips, t.lips_start, t.lips_start + t.length, names)
            mask = store.layout.labelled(read["flags"], read["flags"])
            pair = read["vsr_projection"], read["asr_projection"]
            whole = store.similarity.compare(*pair, reader.fit, "clip", mask, "synthetic")[0]
            assert 1 / (1 + np.exp(z)) == pytest.approx(float(whole), abs=1e-4)
    labels = np.array([t.label for t in items])
    assert logits[labels == 1].mean() > 0 > logits[labels == 0].mean()


def test_report_counts_coverage_and_tells_methods_apart(path, run):
    report = evaluate(str(path), run, "test")
    assert report["coverage"] == {"listed": 11, "done": 10, "too_short": 0, "scored": 10, "pairs": 16}
    assert set(report["methods"]) == {"overall", "category RVFA", "other sound", "made swap", "made shift"}
    overall, swap = report["methods"]["overall"], report["methods"]["made swap"]
    assert (overall["student"]["num_real"], overall["student"]["num_fake"]) == (8, 2)
    assert (swap["student"]["num_real"], swap["student"]["num_fake"]) == (8, 8)
    assert overall["teacher"]["auc"] == 1.0
    assert overall["student"]["prevalence"] == pytest.approx(0.2)
    assert len({t["id"] for t in report["trials"]}) == len(report["trials"]) == 10 + 4 * 8


def test_weights_of_a_splits_file_count(path, run, reader, tmp_path):
    names = [str(x) for x in reader.clips["id"]]
    fakes = [n for n, label in zip(names, reader.clips["label"], strict=True) if label == 1 and n.startswith("test")][
        :2
    ]
    reals = [n for n, label in zip(names, reader.clips["label"], strict=True) if label == 0 and n.startswith("test")][
        :2
    ]
    lines = [f"{name},test,{weight}" for name, weight in zip(fakes + reals, (3, 1, 2, 0.5), strict=True)]
    (tmp_path / "matched.csv").write_text("\n".join(["id,split,weight", *lines]))
    report = evaluate(str(path), run, "test", splits_file=tmp_path / "matched.csv")
    overall = report["methods"]["overall"]["student"]
    assert (overall["num_real"], overall["num_fake"]) == (2, 2)
    assert overall["prevalence"] == pytest.approx(4 / 6.5)


def test_the_strongest_trivial_baseline_stands_beside(tmp_path, run):
    audited = store.open(make_store(tmp_path / "s.zarr", {"test": 6}, fakes=4, fit=False))
    clips = audited.clips
    found = [{"corpus": "synthetic", "nuisance": "peak", "method": m, "auc": 1.0} for m in ("other sound", "all")]
    (audited.path / "audit.json").write_text(json.dumps({"shortcuts": found}))
    table = pd.DataFrame({"id": clips["id"].astype(str), "peak": 1.0 - clips["label"]})
    table.to_parquet(audited.path / "nuisances.parquet")
    report = evaluate(str(audited.path), run, "test")
    for name in ("overall", "other sound"):
        assert report["methods"][name]["trivial"]["auc"] == 1.0
        assert report["methods"][name]["trivial"]["nuisance"] == "peak"
    assert "trivial" not in report["methods"]["made swap"]
    shown = CliRunner().invoke(main, ["--store", str(audited.path), "--checkpoint", str(run)]).output
    assert "one number: peak" in shown
    assert "no trivial baselines" not in shown


@pytest.mark.slow
def test_cut_uncut_and_matched_clips_stand_side_by_side(path, run, reader, tmp_path):
    names = [str(reader.clips["id"][row]) for row in rows_of(reader, "test")]
    kept = [n for n in names if n.endswith("f")] + [n for n in names if n.endswith("r")][:3]
    (tmp_path / "matched.csv").write_text("\n".join(["id,split,weight", *(f"{n},test,2" for n in kept)]))
    report = evaluate(str(path), run, "test", trims=("leading", "none"), matched=tmp_path / "matched.csv")
    assert [(v["trim"], v["clips"]) for v in report["variants"]] == [
        ("leading", "all"), ("leading", "matched"), ("none", "all"), ("none", "matched"),
    ]  # fmt: skip
    assert [v["coverage"]["scored"] for v in report["variants"]] == [10, 5, 10, 5]
    assert report["methods"] == report["variants"][0]["methods"]
    whole, matched = (v["methods"]["overall"]["student"] for v in report["variants"][:2])
    assert (whole["num_real"], matched["num_real"], matched["num_fake"]) == (8, 3, 2)
    asked = Asked(str(path), run, trims=("leading", "none"), matched=tmp_path / "matched.csv")
    text = tables.markdown(evaluation(asked))
    assert text.count("| overall |") == 4
    assert "matched clips, 5 clips scored of 5 listed" in text
    (tmp_path / "other.csv").write_text("id,split\ntrain000r,test")
    with pytest.raises(ValueError, match="have no clip in common"):
        evaluate(str(path), run, "test", matched=tmp_path / "other.csv")


def test_student_and_teachers_together_and_the_offset(path, run):
    report = evaluate(str(path), run, "test")
    for t in report["trials"]:
        assert t["both"] == pytest.approx(t["student"] + t["teacher"])  # temperature 1
        assert abs(t["offset"]) <= 15
    moved = [t["offset"] for t in report["trials"] if "|shift|" in t["id"] and not t["id"].endswith("own")]
    told = [int(t["id"].split("|shift|")[1]) for t in report["trials"] if t["method"] == "made shift" and t["label"]]
    assert np.mean(np.array(moved) == -np.array(told)) > 0.8
    assert set(report["methods"]["overall"]) == {"student", "teacher", "teacher_offset", "teacher_margin", "both"}
    assert report["methods"]["category RVFA"]["student"]["num_fake"] == 2


def test_real_clips_alone_are_scored_against_made_pairs(tmp_path, run):
    real = make_store(tmp_path / "s.zarr", {"test": 6})
    report = evaluate(str(real), run, "test")
    assert report["methods"]["overall"]["student"]["num_fake"] == 12
    bare = evaluate(str(real), run, "test", swaps=0, shifts=0)
    assert np.isnan(bare["methods"]["overall"]["student"]["auc"])


def test_a_store_without_a_fit_has_no_teacher_row(tmp_path, run):
    report = evaluate(str(make_store(tmp_path / "s.zarr", {"test": 6}, fit=False)), run, "test")
    assert "teacher" not in report["methods"]["overall"]


def test_the_command_writes_table_json_and_plot(path, run, tmp_path):
    output, plot = tmp_path / "r.json", tmp_path / "r.png"
    options = ["--store", str(path), "--checkpoint", str(run), "--output", str(output), "--plot", str(plot)]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    assert "10 clips scored of 11 listed" in result.output
    assert "other sound" in result.output
    report = json.loads(output.read_text())
    assert report["methods"]["made swap"]["student"]["auc"] is not None
    assert plot.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--split": "val"}, "no labelled clip"),
        ({"--checkpoint": "nowhere"}, "no model at nowhere"),
        ({"--store": "nowhere.zarr"}, "nowhere.zarr"),
        ({"--splits": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_what_cannot_be_scored_ends_with_code_2_and_a_line(tmp_path, run, change, message):
    only_test = make_store(tmp_path / "s.zarr", {"test": 3})
    options = {"--store": str(only_test), "--checkpoint": str(run), **change}
    result = CliRunner().invoke(main, [x for pair in options.items() for x in pair])
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.slow
def test_two_processes_count_every_trial_once(path, run, tmp_path):
    output = tmp_path / "two.json"
    accelerate = [
        str(Path(sys.executable).with_name("accelerate")),
        "launch",
        "--config_file",
        str(ROOT / "configs" / "cpu2.yaml"),
    ]
    command = [
        *accelerate,
        "-m",
        "student.evaluate",
        "--store",
        str(path),
        "--checkpoint",
        str(run),
        "--output",
        str(output),
    ]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = evaluate(str(path), run, "test"), json.loads(output.read_text())
    assert [t["id"] for t in two["trials"]] == [t["id"] for t in one["trials"]]
    np.testing.assert_allclose([t["student"] for t in two["trials"]], [t["student"] for t in one["trials"]], atol=2e-5)
    assert done.stdout.count("clips scored of") == 1
