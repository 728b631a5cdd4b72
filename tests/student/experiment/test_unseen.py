"""What training has not seen is not in it: methods, sources, people; and the tables say what the detectors score."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import make_store

import store
from store.dataset.spans import spans
from student.config import TrainConfig
from student.experiment import arms, folds, judging, unseen
from student.experiment.__main__ import main
from student.experiment.asked import FULL, QUICK, Asked, ExperimentError, Sizes
from student.experiment.folds import Clips
from student.experiment.trivial import Numbers
from student.scoring import score
from student.scoring.metrics import auc

SIZES = Sizes(seeds=1, steps=2, clips=1000, judged=1000, folds=9)


def clips_of(some):
    """Clips from (method number or 0, source number or 0, person)."""
    method, source, person = (np.array(x) for x in zip(*some, strict=True))
    fake = method > 0
    return Clips(
        rows=np.arange(len(some)) * 3,
        is_fake=fake,
        method=np.where(fake, np.char.add("m", method.astype(str)), ""),
        source=np.where(source > 0, np.char.add("s", source.astype(str)), ""),
        corpus=np.array(["c"] * len(some)),
        group=np.char.add("p", person.astype(str)),
        stratum=method * 10 + source,
    )


def made(clips, how, sizes=SIZES):
    try:
        return how(clips, sizes)
    except ExperimentError:
        return [], {}


some_clips = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 60)), min_size=40, max_size=120)
HOW = st.sampled_from([folds.by_method, folds.by_source, folds.of_reals])


@settings(deadline=None, max_examples=60)
@given(some_clips, HOW)
def test_what_is_held_out_is_not_in_training(some, how):
    clips = clips_of(some)
    found, left = made(clips, how)
    names = set(clips.method[clips.is_fake]) if how is not folds.by_source else set(clips.source[clips.is_fake]) - {""}
    if found:
        assert {fold.name for fold in found} | set(left) <= names
    place = {int(row): k for k, row in enumerate(clips.rows)}
    for fold in found:
        train, val, test = ([place[int(row)] for row in rows] for rows in (fold.train, fold.val, fold.test))
        assert not {*train} & {*val}
        assert not ({*train} | {*val}) & {*test}
        taught = [*train, *val]
        if "people alone" not in fold.note:
            assert not set(clips.group[taught]) & set(clips.group[test])
        assert len(set(clips.is_fake[test].tolist())) == 2
        fakes = [k for k in test if clips.is_fake[k]]
        if how is folds.by_source:
            assert fold.name not in clips.source[taught]
            assert set(clips.source[fakes]) == {fold.name}
        else:
            assert fold.name not in clips.method[taught]
            assert set(clips.method[fakes]) == {fold.name}
        if how is folds.of_reals:
            assert not clips.is_fake[taught].any()
        reals = clips.source[~clips.is_fake]
        matched = {s for s in set(clips.source[fakes]) - {""} if (reals == s).mean() <= folds.BIG}
        assert not matched & set(clips.source[[k for k in taught if not clips.is_fake[k]]])


def test_clips_of_many_people_in_one_group_are_told_apart_by_name(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"": 12}, fakes=6, groups=1, people=9)
    reader = store.open(path)
    found = Clips.of(reader)
    assert len(set(found.group)) == 9


def test_a_method_made_of_everybody_is_judged_on_held_out_people():
    some = [(0, 0, p) for p in range(60)] + [(m, 0, p) for m in (1, 2) for p in range(60)]
    clips = clips_of(some)
    found, _ = folds.by_method(clips, SIZES)
    for fold in found:
        assert "held-out people alone" in fold.note
        of = np.searchsorted(clips.rows, fold.test), np.searchsorted(clips.rows, fold.train)
        assert not set(clips.group[of[0]]) & set(clips.group[of[1]])
        assert (clips.is_fake[of[1]]).sum() > 20
        assert fold.name not in clips.method[of[1]]


@pytest.mark.parametrize("how", [folds.by_method, folds.of_reals])
def test_named_methods_are_held_out_alone_as_they_are_among_all(how):
    clips = clips_of([(min(p // 20, 3), p % 3, p) for p in range(20, 120)] + [(0, 1, 200 + p) for p in range(60)])
    every, _ = how(clips, SIZES)
    some, left = how(clips, replace(SIZES, held=("m3", "m1"), folds=1))
    assert [fold.name for fold in some] == ["m3", "m1"]
    assert left == {"m2": "not asked for (--hold-out)"}
    whole = {fold.name: fold for fold in every}
    for fold in some:
        assert all(np.array_equal(getattr(fold, k), getattr(whole[fold.name], k)) for k in ("train", "val", "test"))
    with pytest.raises(ExperimentError, match="--hold-out m9: no forged clip is of it; there is m3, m1, m2"):
        how(clips, replace(SIZES, held=("m9",)))


def test_few_clips_are_taken_from_every_source():
    some = [(0, 1, k) for k in range(80)] + [(0, 2, 100 + k) for k in range(6)] + [(1, 3, 200 + k) for k in range(60)]
    some += [(2, 4, 300 + k) for k in range(40)]
    clips = clips_of(some)
    found, left = folds.by_method(clips, replace(SIZES, clips=20, judged=5, folds=1))
    assert [fold.name for fold in found] == ["m1"]
    assert left == {"m2": "not among the 1 largest (--folds)"}
    train = np.searchsorted(clips.rows, found[0].train)
    assert (len(train), clips.is_fake[train].sum(), len(found[0].test)) == (20, 10, 10)
    assert (clips.source[train] == "s2").sum() >= 2


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unseen")
    path = make_store(folder / "s.zarr", {"": 26}, frames=(36, 50), fakes=14, groups=40)
    writer = store.Writer.open(path)
    n, fakes = 40, range(26, 40)
    writer.write_clips(
        0,
        {
            "method": [""] * 26 + ["a" if k % 2 else "b" for k in fakes],
            "source": [f"s{k % 4}" if k < 20 else "" for k in range(26)] + [f"s{k % 2}" for k in fakes],
            "group": [f"g{k}" for k in range(n)],
        },
    )
    writer.consolidate()
    return path


def run(protocol, path, output, *options):
    words = [
        "--protocol",
        protocol,
        "--store",
        str(path),
        "--output",
        str(output),
        "--quick",
        "--threads",
        "1",
        *options,
    ]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return result.stdout, json.loads((output / f"{protocol}.json").read_text())


@pytest.mark.slow
def test_the_table_has_what_the_detectors_score(path, tmp_path):
    page, told = run("leave-one-method-out", path, tmp_path / "out", "--folds", "1")
    found = told["figures"]
    (name,) = found["held_out"]
    row = found["held_out"][name]
    reader = store.open(path)
    clips = Clips.of(reader)
    (fold,), _ = folds.by_method(clips, replace(QUICK, folds=1))
    items = score.trials(reader, fold.test, spans(reader, fold.test, "leading"), 0, swaps=0, shifts=0)
    labels = np.array([t.label for t in items])
    test = judging.TrialSet("x", reader, items, np.zeros(len(items)), {}, len(items))
    runs = {one["arm"]: one for one in found["runs"]}
    for arm in runs:
        (logits,) = judging.student_scores(tmp_path / "out" / "runs" / f"{arm}-without-{name}-0", [test])
        assert row["auc"][arm]["value"] == pytest.approx(auc(logits, labels))
    for pair, apart in row["difference"].items():
        a, b = pair.split(" - ")
        assert apart["value"] == pytest.approx(row["auc"][a]["value"] - row["auc"][b]["value"])
        assert apart["low"] <= apart["value"] <= apart["high"]
    assert row["coverage"] == {"listed": fold.listed, "chosen": len(fold.test), "scored": len(items)}
    assert row["trivial"] == Numbers(reader).strongest([t.lips for t in items]).to_json()
    assert set(row["within"]) <= {"s0", "s1"}
    assert row["within"]
    assert runs["sync"]["config"]["data"]["labels"] == "sync"
    weights = [runs[arm]["config"]["losses"]["w_correlation"] for arm in ("detection", "correlation")]
    assert weights == [0, 1]
    assert {"arm", "seed", "config", "seconds", "folder", "without"} == set(runs["sync"])
    assert found["commit"] is not None
    assert "Does learning correlation generalise to forgery types that training has not seen?" in page
    assert f"| {name}, within s" in page
    assert "pseudo-fakes" in runs


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["leave-one-source-out", "real-only"])
def test_other_protocols_run_and_go_on(path, tmp_path, protocol):
    page, told = run(protocol, path, tmp_path / "out")
    found = told["figures"]
    assert sorted(found["held_out"]) == (["s0", "s1"] if protocol == "leave-one-source-out" else ["a", "b"])
    forged = [one["forged"] for one in found["held_out"].values()]
    assert forged == sorted(forged, reverse=True)  # the largest first
    assert len(found["runs"]) == len(unseen.ARMS) * (2 if protocol == "leave-one-source-out" else 1)
    for name, mean in found["mean"]["difference"].items():
        each = [one["difference"][name]["value"] for one in found["held_out"].values()]
        assert mean["value"] == pytest.approx(np.mean(each))
        assert mean["low"] <= mean["value"] <= mean["high"]
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("runs/*/model.safetensors")}
    again, _ = run(protocol, path, tmp_path / "out")
    assert again == page
    assert before == {file: file.stat().st_mtime_ns for file in before}


@pytest.mark.slow
def test_some_of_the_arms_are_enough(path, tmp_path):
    page, told = run("real-only", path, tmp_path / "out", "--arm", "correlation", "--arm", "detection")
    assert {one["arm"] for one in told["figures"]["runs"]} == {"detection", "correlation"}
    assert list(told["figures"]["mean"]["difference"]) == ["correlation - detection"]
    assert "Does learning correlation generalise" in page
    page, told = run("real-only", path, tmp_path / "out", "--arm", "detection")
    assert told["figures"]["mean"]["difference"] == {}
    assert "Does learning correlation generalise" not in page


def test_an_arm_that_is_not_there_is_named(tmp_path):
    words = ["--protocol", "real-only", "--store", str(tmp_path / "s.zarr"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*words, "--arm", "content"])
    assert result.exit_code == 2
    assert "unknown arm content; there is detection, correlation" in result.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr: 0.001\nsplits: mine.csv\n", "sets splits, which the experiment chooses"),
        ("pseudo: 1\n", "sets pseudo, which is not an option of student.train"),
        ("lr: fast\n", "has a value that cannot be used"),
        ("- lr\n", "must hold names and values"),
    ],
)
def test_options_that_arms_cannot_share_are_named(tmp_path, text, says):
    (tmp_path / "arms.yaml").write_text(text)
    words = ["--protocol", "real-only", "--store", str(tmp_path / "s.zarr"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*words, "--config", str(tmp_path / "arms.yaml")])
    assert result.exit_code == 2
    assert says in result.output


def test_arms_share_the_options_of_a_recipe(tmp_path):
    asked = Asked("real-only", ("s.zarr",), tmp_path, FULL, config=Path("strangers"))
    found = arms.shared(asked)
    assert found["balance"] == "source"
    assert not found.keys() & {"epochs", "model"}
    assert TrainConfig.from_options(store="s.zarr", output="out", **found).data.pseudo_share == 2.0


@pytest.mark.parametrize(
    ("gain", "auc_low", "answer"),
    [
        ((-0.1, 0.2), 0.6, "Not shown"),
        ((0.01, 0.2), 0.6, "Yes"),
        ((-0.2, -0.1), 0.6, "No, it"),
        ((0.1, 0.2), 0.4, "No: b"),
    ],
)
def test_the_answer_follows_from_the_interval(gain, auc_low, answer):
    mean = {
        "difference": {"correlation - detection": {"value": 0.05, "low": gain[0], "high": gain[1]}},
        "auc": {"correlation": {"value": 0.7, "low": auc_low, "high": 0.9}},
    }
    assert f"not seen? {answer}" in unseen.verdict(mean, "method")


def test_names_of_runs_are_safe_and_differ():
    names = ["Wav2Lip", "a/b", "a:b", "../x", "", "é" * 300]
    found = [unseen.slug(name) for name in names]
    assert found[0] == "Wav2Lip"
    assert len(set(found)) == len(names)
    assert all("/" not in name and len(name) < 60 for name in found)


def test_what_a_store_lacks_is_said(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"": 12})
    words = ["--protocol", "leave-one-method-out", "--store", str(path), "--output", str(tmp_path / "out"), "--quick"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "12 real and 0 forged clips with labels" in result.output
