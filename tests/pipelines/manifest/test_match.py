"""Matched test sets: the remaining clips cannot be told apart by the chosen number, and without similar clips none
remain."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from some_rows import clips

from pipelines.audit.shortcuts import auc
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row
from pipelines.manifest import match


def drawn(seed, num=400, shift=0.5, corpus="c:x"):
    """Rows and two numbers, the first shifted in fakes."""
    rng = np.random.default_rng(seed)
    fake = rng.random(num) < 0.6
    rows = [
        Row(f"/d/s/{k}q.mp4", label=int(y), method="m" if y else "", id=f"{corpus}/{k}", corpus=corpus)
        for k, y in enumerate(fake)
    ]
    return rows, pd.DataFrame({"a": rng.normal(shift * fake, 1), "b": rng.normal(0, 1, num).round(1)})


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    num=st.integers(4, 300),
    shift=st.floats(-3, 3),
    by=st.sampled_from(["pairs", "weights"]),
    names=st.sampled_from([["a"], ["b"], ["a", "b"]]),
)
def test_what_is_left_does_not_tell(seed, num, shift, by, names):
    rows, table = drawn(seed, num, shift)
    if len({row.label for row in rows}) < 2:
        return
    weight, (line,) = match.match(rows, table, names, by, seed)
    assert set(weight) <= {row.id for row in rows}
    assert all(w > 0 for w in weight.values())
    assert len(weight) == line.kept_reals + line.kept_fakes
    for name in names:
        assert not weight or line.after[name] <= 0.52 + 1e-9
    if by == "pairs":
        assert line.kept_reals == line.kept_fakes
        assert set(weight.values()) <= {1.0}
    total = {y: sum(weight.get(row.id, 0) for row in rows if row.label == y) for y in (0, 1)}
    assert total[0] == pytest.approx(total[1])


@settings(deadline=None, max_examples=30)
@given(rows=clips(), by=st.sampled_from(["pairs", "weights"]), data=st.data())
def test_one_seed_gives_one_set_whatever_the_order_of_rows(rows, by, data):
    if len({row.label for row in rows}) < 2:
        return
    names = ["duration"]
    weight, lines = match.match(rows, match.table_of(rows), names, by, 1)
    mixed = data.draw(st.permutations(rows))
    again, others = match.match(mixed, match.table_of(mixed), names, by, 1)
    assert weight == again
    assert repr(lines) == repr(others)


def test_most_clips_stay_where_reals_and_fakes_are_alike():
    rows, table = drawn(1, 1000, shift=0.0)
    _, (line,) = match.match(rows, table, ["a"])
    assert line.kept_reals > 0.85 * line.reals
    assert match.match(rows, table, ["a"], seed=1)[0] != match.match(rows, table, ["a"], seed=2)[0]


def test_a_total_difference_leaves_nothing_and_says_so():
    rows, table = drawn(0, 200, shift=50.0)
    weight, (line,) = match.match(rows, table, ["a"])
    assert weight == {}
    assert (line.before["a"], line.kept_reals, line.kept_fakes) == (1.0, 0, 0)
    assert np.isnan(line.after["a"])


def test_each_method_is_matched_by_itself_and_reals_weigh_as_much_as_their_fakes():
    rows = [Row(f"/d/s/{k}r.mp4", label=0, id=f"c/{k}r", corpus="c") for k in range(50)]
    rows += [Row(f"/d/s/{k}{m}.mp4", label=1, method=m, id=f"c/{k}{m}", corpus="c") for k in range(50) for m in "xy"]
    table = pd.DataFrame({"n": list(range(50)) + [k + shift for k in range(50) for shift in (0, 25)]})
    weight, (x, y, every) = match.match(rows, table, ["n"])
    assert (x.method, x.kept_fakes, y.method, y.kept_fakes) == ("x", 50, "y", 25)
    assert (every.method, every.kept_fakes, every.kept_reals) == ("all", 75, 50)
    assert sorted(weight[row.id] for row in rows if row.label == 0) == [1.0] * 25 + [2.0] * 25
    assert every.after["n"] == 0.5


def test_words_are_matched_as_they_are_and_unknown_numbers_are_left_out_and_counted():
    rows, table = drawn(3, 200)
    table["codec"] = np.where(np.arange(200) % 3 == 0, "h264", "mpeg4")
    table.loc[:9, "a"] = np.nan
    weight, (line,) = match.match(rows, table, ["codec", "a"])
    assert line.unknown == 10
    assert not {row.id for row in rows[:10]} & set(weight)
    kept = [(word, row.label) for row, word in zip(rows, table["codec"], strict=True) if row.id in weight]
    for word in ("h264", "mpeg4"):
        assert kept.count((word, 0)) == kept.count((word, 1)) > 0


def test_weighted_auc_is_that_of_repeated_clips():
    rng = np.random.default_rng(0)
    x, fake, times = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.5, rng.integers(0, 4, 60)
    repeated, _ = auc(np.repeat(x, times), np.repeat(fake, times), np.arange(times.sum()), draws=0)
    assert match.weighted_auc(x, fake, times) == pytest.approx(repeated)
    assert np.isnan(match.weighted_auc(x, np.ones(60, bool), times))


def test_a_table_of_measured_numbers_goes_before_the_lists(tmp_path):
    rows = [Row(f"/d/{k}", id=f"c/{k}", listed_frames=50.0, listed_fps=25.0) for k in range(3)]
    pd.DataFrame({"id": ["c/2", "c/0", "z"], "duration": [1.5, 2.5, 9], "silence": [0.1, 0.2, 9]}).to_csv(
        tmp_path / "n.csv", index=False
    )
    table = match.table_of(rows, tmp_path / "n.csv")
    assert table["duration"].tolist()[::2] == [2.5, 1.5]
    assert np.isnan(table["duration"][1])
    assert table["frame_count"].tolist() == [50.0] * 3
    assert "silence" in table


def test_what_cannot_be_matched_is_an_error_that_says_so(tmp_path):
    rows, table = drawn(0, 40)
    with pytest.raises(ManifestError, match='nuisance "c" is not known; there are a, b'):
        match.match(rows, table, ["c"])
    reals = [row for row in rows if row.label == 0]
    with pytest.raises(ManifestError, match="nothing to match"):
        match.match(reals, match.table_of(reals), ["duration"])
    (tmp_path / "n.csv").write_text("id,x\nother,1\n")
    with pytest.raises(ManifestError, match="have none of the 40 clips"):
        match.table_of(rows, tmp_path / "n.csv")
    (tmp_path / "n.csv").write_text("id,x\na,1\na,2\n")
    with pytest.raises(ManifestError, match="names each clip once"):
        match.table_of(rows, tmp_path / "n.csv")
