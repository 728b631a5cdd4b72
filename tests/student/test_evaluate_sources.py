"""Evaluation by source: a row for each source with both classes, and the overall interval that draws sources."""

import json

import numpy as np
import pytest
import torch
from small_store import make_store

import store
from student import checkpoint
from student.evaluate import Asked, show
from student.evaluate import report as evaluation
from student.models import build
from student.scoring import score, tables
from student.scoring.metrics import auc
from student.scoring.report import Coverage, Variant


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    path = make_store(folder / "s.zarr", {"test": 8}, frames=(36, 50), fakes=5)
    writer = store.Writer.open(path)
    source = ["a", "b", "a", "b", "c", "", "a", "b", "a", "a", "b", "d", ""]
    writer.write_clips(0, {"source": source})
    writer.consolidate()
    torch.manual_seed(0)
    about = {
        "threshold": 0.1, "temperature": 1.0, "fitted_on": "nothing", "window": 25,
        "config": {"seed": 0}, "store": {}, "versions": {},
    }  # fmt: skip
    (folder / "run").mkdir()
    checkpoint.save_model(folder / "run", build("lite"), "lite", about)
    return evaluation(Asked(str(path), folder / "run")), np.array(source)


def test_each_source_with_both_classes_has_its_auc(found):
    report, source = found
    methods = report.variants[0].methods
    assert [name for name in methods if name.startswith("source ")] == ["source a", "source b"]
    clips = [trial for trial in report.trials if not trial.made]
    for name in ("a", "b"):
        mine = [trial for trial, of in zip(clips, source, strict=True) if of == name]
        scores, labels = np.array([t.scores["student"] for t in mine]), np.array([t.label for t in mine])
        line = methods[f"source {name}"]["student"]
        assert line.figures.auc == pytest.approx(auc(scores, labels))
        assert (line.figures.num_real, line.figures.num_fake) == ((labels == 0).sum(), (labels == 1).sum())
        assert np.isnan(line.source_low)  # one source


def test_the_overall_interval_draws_sources(found):
    report, _ = found
    line = report.variants[0].methods["overall"]["student"]
    assert line.sources == 4
    assert line.source_low <= line.figures.auc <= line.source_high
    said = " ".join(tables.warnings(report.variants[0]))
    assert "95 % for other sources, drawing the 4 known ones whole: student 0." in said
    told = json.loads(json.dumps(report.to_json(), default=float))
    assert told["methods"]["overall"]["student"]["sources"]["count"] == 4


def test_tables_show_the_largest_sources(found):
    report, _ = found
    row = report.variants[0].methods["source a"]
    many = {"overall": row, **{f"source {k:02d}": row for k in range(tables.SHOWN + 3)}}
    assert len({line[0] for line in tables.lines(many)} - {""}) == tables.SHOWN + 1


@pytest.mark.parametrize(
    ("groups", "people", "says"),
    [
        (1, 1, "95 %: -, since these clips are of one group"),
        (3, 3, "95 %: of other clips of these 3 groups (people, sources); that"),
        (20, 20, ""),
        (20, 1, "95 %: of other clips of this person"),
        (40, 0, ""),
    ],
)
def test_the_interval_says_of_whom_it_is(groups, people, says):
    labels, rng = np.arange(40) % 2, np.random.default_rng(0)
    items = [score.Trial(f"{k}", k, k, 0, 0, 40, int(y), "x" if y else "") for k, y in enumerate(labels)]
    trials = tables.Trials(
        items,
        {"student": rng.standard_normal(40) + labels},
        categories=np.full(40, ""),
        groups=np.array([f"g{k % groups}" for k in range(40)]),
        weights=np.ones(40),
        sources=np.full(40, ""),
        people=np.array([f"p{k % people}" if people else "" for k in range(40)]),
    )
    variant = Variant("none", "all", Coverage(40, 40, 0), tables.table(trials, None))
    assert np.isnan(variant.methods["overall"]["student"].auc_low) == (groups == 1)
    told = [text for text in tables.warnings(variant) if text.startswith("95 %")]
    assert [text[: len(says)] for text in told] == [says] * bool(says)


@pytest.mark.parametrize("width", [80, 100, 120, 150])
def test_a_narrow_terminal_shows_counts_auc_and_interval_whole(found, width, capsys):
    report, _ = found
    show(report, width)
    said = capsys.readouterr().out
    lines = [line for row in report.variants[0].methods.values() for line in row.values()]
    for line in lines:
        wanted = (
            f"{line.figures.num_real:>4} │ {line.figures.num_fake:>4} │ {line.figures.auc:.3f} │ {line.auc_low:.3f}-"
        )
        assert wanted in said
    assert all(len(row) <= width for row in said.splitlines() if "│" in row)
    assert ("Too narrow for" in said) == (width < 150)
