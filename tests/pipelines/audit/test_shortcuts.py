"""Shortcuts: planted cues are found and named, chance is not, and the published lists give the figures known of them."""

import numpy as np
import pandas as pd
import pytest
from published import cmdfd, favc

from pipelines.audit import nuisances, shortcuts
from pipelines.corpora.manifest import Row
from store.similarity import auc as plain_auc

SEEDS = range(10)
FEW = [pytest.param(seed, marks=[pytest.mark.slow] if seed > 1 else []) for seed in SEEDS]  # for what takes seconds


def rows(num: int = 400, people: int = 40) -> list[Row]:
    return [
        Row(f"/c/{k}.mp4", label=k // people % 2, method="swap" if k // people % 4 == 1 else "sync" if k // people % 2 else "",
            identities=(f"p{k % people}",), group=f"p{k % people}", id=f"c/{k}", corpus="c")
        for k in range(num)
    ]  # fmt: skip


def clean(seed: int, clips: list[Row]) -> pd.DataFrame:
    """Nuisances that know nothing of the label, some of them the person's own."""
    rng = np.random.default_rng(seed)
    person = np.array([int(row.identities[0][1:]) for row in clips])
    return pd.DataFrame(
        {
            "duration": rng.gamma(4, 2, len(clips)),
            "loudness": rng.normal(-20, 3, 40)[person] + rng.normal(0, 1, len(clips)),
            "leading_silence_005": rng.exponential(0.1, len(clips)),
            "codec": rng.choice(["h264", "mpeg4", "vp9"], len(clips)),
            "sample_rate": np.full(len(clips), 16000.0),
        }
    )


@pytest.mark.parametrize("seed", FEW)
def test_nothing_is_found_where_nothing_is_planted(seed):
    clips = rows()
    found = shortcuts.find(clips, clean(seed, clips), seed=seed)
    assert found
    assert [s for s in found if s.above(0.6)] == []
    assert "sample_rate" not in {s.nuisance for s in found}


@pytest.mark.parametrize("seed", FEW)
def test_planted_silence_is_found_for_its_method_alone(seed):
    clips = rows()
    table = clean(seed, clips)
    swap = np.array([row.method == "swap" for row in clips])
    table.loc[swap, "leading_silence_005"] += 0.8
    found = {(s.nuisance, s.method) for s in shortcuts.find(clips, table, seed=seed) if s.above(0.6)}
    assert ("leading_silence_005", "swap") in found
    assert ("together", "swap") in found
    assert not {nuisance for nuisance, method in found if method == "sync"}
    assert {nuisance for nuisance, _ in found} == {"leading_silence_005", "together"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_word_is_found(seed):
    clips = rows()
    table = clean(seed, clips)
    table["codec"] = ["hevc" if row.label == 1 and k % 7 else "h264" for k, row in enumerate(clips)]
    best = {s.nuisance: s for s in shortcuts.find(clips, table, seed=seed, together=False) if s.method == "all"}
    assert best["codec"].above(0.6)
    assert best["codec"].auc == pytest.approx(0.5 + 3 / 7, abs=0.02)


def test_two_halves_of_a_cue_are_found_together_only():
    clips = rows(2000, 40)
    rng = np.random.default_rng(0)
    label = np.array([row.label for row in clips])
    one, two = rng.normal(size=2000), rng.normal(size=2000)
    two = np.where((one * two > 0) == (label == 1), two, -two)
    found = {
        s.nuisance: s for s in shortcuts.find(clips, pd.DataFrame({"duration": one, "peak": two})) if s.method == "all"
    }
    assert not found["duration"].above(0.6)
    assert not found["peak"].above(0.6)
    assert found["together"].above(0.6)
    assert found["together"].auc > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_auc_equals_the_plain_one_and_its_draws_equal_repeated_clips(seed):
    rng = np.random.default_rng(seed)
    scores, fake, group = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4, rng.integers(0, 12, 60)
    value, drawn = shortcuts.auc(scores, fake, group, seed, draws=5)
    assert value == pytest.approx(plain_auc(scores[fake], scores[~fake]))
    numbers = np.unique(group)
    times = np.random.default_rng(seed).multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=5)
    for k in range(5):
        again = np.repeat(np.arange(60), times[k][np.searchsorted(numbers, group)])
        assert drawn[k] == pytest.approx(plain_auc(scores[again][fake[again]], scores[again][~fake[again]]), abs=1e-6)


def test_few_clips_are_never_sure():
    clips = rows(12, 3)
    table = pd.DataFrame({"duration": [float(row.label) for row in clips]})
    found = shortcuts.find(clips, table)
    assert {s.auc for s in found} == {1.0}
    assert not any(s.above(0.6) for s in found)


def test_unknown_values_and_clips_listed_twice_are_left_out():
    clips = rows(200)
    table = pd.DataFrame({"duration": np.arange(200.0)})
    table.loc[:9, "duration"] = np.nan
    once = [s for s in shortcuts.find(clips, table) if s.method == "all"]
    twice = [s for s in shortcuts.find(clips * 2, pd.concat([table, table], ignore_index=True)) if s.method == "all"]
    assert once == twice
    assert once[0].reals + once[0].fakes == 190


def test_one_giant_group_gives_way_to_the_first_named_person():
    clips = rows()
    linked = [Row(**{**row.__dict__, "group": "all"}) for row in clips]
    assert np.array_equal(shortcuts.groups(linked), shortcuts.groups(clips))
    assert len(set(shortcuts.groups(linked))) == 40


def test_a_table_of_another_length_is_refused():
    with pytest.raises(ValueError, match="has 1 rows for 400 clips"):
        shortcuts.find(rows(), pd.DataFrame({"duration": [1.0]}))


def test_listed_lengths_are_picture_minus_sound_in_seconds():
    clip = Row("/a", listed_frames=50.0, listed_fps=25.0, listed_samples=40000.0, listed_sample_rate=16000.0)
    table = nuisances.listed([clip, Row("/b"), Row("/c", listed_frames=5.0, listed_fps=0.0)])
    assert table.loc[0].to_dict() == {
        "length_difference": -0.5, "length_difference_abs": 0.5, "duration": 2.0, "sound_duration": 2.5,
        "frame_count": 50.0, "frame_rate": 25.0, "sample_rate": 16000.0,
    }  # fmt: skip
    assert table.loc[1].isna().all()
    assert np.isnan(table.loc[2, "duration"])
    assert table.loc[2, "frame_count"] == 5


def test_a_shortcut_says_what_it_means():
    said = shortcuts.Shortcut("c", "leading_silence_005", "swap", 0.976, 0.97, 0.98, 10, 10).text()
    assert "silence before the first sound (level 0.05) alone picks the fake 97.6 times in 100" in said


def _best(found, method):
    return max(s.auc for s in found if s.method == method and s.nuisance.startswith("length_difference"))


@pytest.mark.golden
def test_the_published_cmdfd_lists_give_the_known_lengths(shared):
    clips = cmdfd(shared)
    assert len(clips) == 8792
    found = shortcuts.find(
        clips, nuisances.listed(clips)[["length_difference", "length_difference_abs"]], together=False
    )
    known = {"MakeItTalk": 1.0, "VideoReTalk": 1.0, "W2L": 0.976, "Audio2Head": 0.545}
    for method, value in known.items():
        assert _best(found, method) == pytest.approx(value, abs=0.005)
        assert any(s.above(0.6) for s in found if s.method == method) == (value > 0.6)


@pytest.mark.golden
def test_the_published_fakeavceleb_lists_give_the_known_lengths(shared):
    clips = favc(shared)
    found = shortcuts.find(
        clips, nuisances.listed(clips)[["length_difference", "length_difference_abs"]], together=False
    )
    touched = [s.method for s in found if "W2L" in s.method]
    assert len(set(touched)) == 4
    assert all(_best(found, method) == pytest.approx(1.0, abs=0.005) for method in touched)
    assert _best(found, "FAKE_RTVC_B") == pytest.approx(0.996, abs=0.005)
    assert not any(s.above(0.6) for s in found if s.method in ("FAKE_FACESWAP_C", "FAKE_FSGAN_C"))


@pytest.mark.parametrize(
    ("reals", "fakes", "wrong", "sure"),
    [(23, 7, 0, True), (25, 5, 0, True), (26, 3, 0, False), (8, 8, 0, False), (15, 15, 1, True), (23, 7, 8, False)],
)
def test_of_few_clips_chance_is_counted_out(reals, fakes, wrong, sure):
    """Four standard errors lie above an AUC of 1 for seven fakes of thirty; yet 1 in a million is not chance."""
    clips = [Row(f"/c/{k}.mp4", label=int(k >= reals), id=f"c/{k}", corpus="c") for k in range(reals + fakes)]
    values = np.r_[np.arange(reals), np.full(fakes, 1000)].astype(float)
    values[-1] = reals - 1 - wrong + 0.5 if wrong else 1000
    (found,) = shortcuts.find(clips, pd.DataFrame({"silence": values}), together=False)
    assert found.auc == pytest.approx(1 - wrong / (reals * fakes))
    assert found.above(0.6) == sure


def test_it_is_said_why_there_is_nothing_to_compare():
    assert "no clip is known to be fake" in shortcuts.why_none({"real": 9})
    assert "no clip is known to be real" in shortcuts.why_none({"fake": 9, "unknown": 1})
    assert "no number" in shortcuts.why_none({"real": 1, "fake": 1})
