"""Experiments that read videos, on the four real clips: costs add up, corrupted clips are what they are said to be."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from grid_store import make_grid_store

import store
from student.experiment import corrupting
from student.experiment.__main__ import main
from student.experiment.asked import ExperimentError
from student.experiment.corrupted import misled, pairs_of
from student.experiment.judging import SWAPS, TrialSet
from student.experiment.tables import TEACHERS
from student.scoring.score import Trial

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(tmp_path_factory, clips):
    return make_grid_store(tmp_path_factory.mktemp("grid") / "g.zarr", clips / "clips")


def run(protocol, output, *options):
    words = ["--protocol", protocol, "--output", str(output), "--quick", "--threads", "1", *map(str, options)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return json.loads((output / f"{protocol}.json").read_text())["figures"]


def test_cost_of_an_answer_with_and_without_teachers(path, clips, tmp_path):
    for k, source in enumerate((("--store", path), ("--corpus", f"folder:{clips}/clips"))):
        told = run("cost", tmp_path / f"out{k}", *source)
        assert (told["videos"], told["lost"], told["seconds_of_video"]) == (2, 0, 6.0)
        assert told["parts"]["sound teacher"]["student alone"] == []
        for way, whole in told["all"].items():
            assert whole[0] == pytest.approx(sum(part[way][0] for part in told["parts"].values() if part[way]))
        assert told["ratio"][0] == pytest.approx(told["all"]["with teachers"][0] / told["all"]["student alone"][0])
        assert min(part["with teachers"][0] for part in told["parts"].values()) > 0
        assert min(told["memory_mib"].values()) > 100


def test_corrupted_clips_go_through_the_pipeline_again(path, tmp_path):
    reader = store.open(path)
    rows = np.array([0, 1, 2, 3, 6])
    made = corrupting.make(reader, rows, tmp_path, ["darkness", "babble"])
    theirs, right = store.open(made.theirs), store.open(made.right)
    assert made.lost == 0
    assert set(made.picture[rows]) == {"darkness"}
    assert set(made.sound[rows]) == {"babble"}
    assert len(theirs) == len(reader)
    assert np.flatnonzero(theirs.clips["done"]).tolist() == rows.tolist()
    for row in (0, 6):
        n = int(reader.clips["length"][row])
        names = ["mouth", "audio", "asr", "vsr", "asr_projection", "flags"]
        clean, bad, known = (r.frames(row, 0, n, names) for r in (reader, theirs, right))
        assert bad["mouth"].mean() < 0.3 * clean["mouth"].mean()
        assert 0.2 < np.corrcoef(bad["audio"].ravel(), clean["audio"].ravel())[0, 1] < 0.95  # not moved in time
        assert np.array_equal(known["mouth"], bad["mouth"])  # the same input in both
        assert np.array_equal(known["audio"], bad["audio"])
        assert np.allclose(known["asr_projection"], clean["asr_projection"], atol=2e-2)
        assert np.array_equal(known["flags"], clean["flags"])
        assert np.abs(bad["asr"].astype(float) - clean["asr"]).mean() > 0.05
    again = corrupting.make(reader, rows, tmp_path, ["darkness", "babble"])
    assert again.theirs == made.theirs
    assert not (tmp_path / "parts").exists()
    with pytest.raises(ExperimentError, match="holds other clips or corruptions"):
        corrupting.make(reader, rows[:3], tmp_path, ["darkness", "babble"])


def test_corrupted_end_to_end(path, tmp_path):
    told = run("corrupted", tmp_path / "out", "--store", path, "--corruption", "blur", "--corruption", "mp3")
    assert list(told["judged"]) == [
        f"grid, {how}: {task}" for how in ("clean", "corrupted") for task in ("swaps", "shifts")
    ]
    for row in told["judged"].values():
        for pair, apart in row["difference"].items():
            a, b = pair.split(" - ")
            assert apart["value"] == pytest.approx(row["auc"][a]["value"] - row["auc"][b]["value"])
    both = [told["misled"][f"grid, corrupted: swaps, teachers {what}"]["pairs"] for what in ("err", "are right")]
    assert sum(both) == told["judged"]["grid, corrupted: swaps"]["fake"]


def test_pairs_that_the_teachers_order_wrongly_are_counted_apart():
    items, scores = [], {TEACHERS: [], "clean": [], "right-labels": [], "their-labels": [], "no-labels": []}
    for k, (teacher, student) in enumerate([(1, 1), (1, 0), (0, 1), (0, 0), (0, 1)]):
        items += [Trial(f"{k}", k, k + 1, 0, 0, 30, 1, "made swap"), Trial(f"{k}|own", k, k, 0, 0, 30, 0, "made swap")]
        scores[TEACHERS] += [teacher, 0]  # 0 for both is a tie: an error
        for arm in list(scores)[1:]:
            scores[arm] += [student, 0.5]
    one = TrialSet("x", None, items, np.array([str(t.lips) for t in items]), {SWAPS: np.ones(10, bool)}, 5)
    fakes, twins = pairs_of(one)
    assert [items[k].id for k in twins] == [f"{items[k].id}|own" for k in fakes]
    _, told = misled([one], {arm: [np.array([values])] for arm, values in scores.items()})
    wrong, right = (told[f"x: swaps, teachers {what}"] for what in ("err", "are right"))
    assert (wrong["pairs"], right["pairs"]) == (3, 2)
    assert wrong["right"]["their-labels"]["value"] == pytest.approx(2 / 3)
    assert right["right"]["their-labels"]["value"] == pytest.approx(1 / 2)
    assert wrong["difference"]["their-labels - no-labels"]["value"] == 0
