"""The arithmetic of `python -m benchmarks.wild`: windows over many pairs at once, intervals by person, partners, shares."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.strangers import figures, sound
from benchmarks.strangers.figures import Values
from benchmarks.strangers.forged import Ranked, comparable
from benchmarks.strangers.listed import Listed, few
from pipelines.corpora.manifest import Row, with_groups
from store import similarity
from store.similarity import Fit


def fit(dims=4):
    none = np.zeros(0, np.float32)
    return Fit("cosine", 0, none, none, none, none, np.ones(dims, np.float32), {})


def clip(rng, frames, share):
    """Evidence of a made clip: projections, and face and voice in a share of its frames."""
    return SimpleNamespace(
        clip=SimpleNamespace(num_frames=frames),
        vsr_projection=rng.standard_normal((frames, 4)).astype(np.float16),
        asr_projection=rng.standard_normal((frames, 4)).astype(np.float16),
        evident=rng.random(frames) < share,
        voice=rng.random(frames) < share,
    )


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.3, 1.0])), min_size=1, max_size=5), st.data())
def test_many_pairs_at_once_score_as_each_alone(shapes, data):
    rng = np.random.default_rng(len(shapes))
    clips = [clip(rng, frames, share) for frames, share in shapes]
    places = st.integers(0, len(clips) - 1)
    some = data.draw(st.lists(st.tuples(places, places, st.sampled_from([0, 4, -4, 8, -8, 50])), max_size=8))
    found = sound.scored(clips, some, fit())
    for window in similarity.WINDOWS:
        expected, who = [], []
        for i, j, shift in some:
            a, b, _ = similarity.shifted(clips[i].clip.num_frames, clips[j].clip.num_frames, shift)
            mask = clips[i].evident[a] & clips[j].voice[b]
            value = similarity.scores(clips[i].vsr_projection[a], clips[j].asr_projection[b], fit(), window, mask)
            value = value[mask][:1] if window == "clip" else value[mask]
            expected += value.tolist()
            who += [i] * len(value)
        assert found.score[window] == pytest.approx(np.array(expected), abs=1e-5)
        assert found.clip[window].tolist() == who


@settings(max_examples=40)
@given(st.integers(0, 2), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 99))
def test_sound_is_moved_to_where_predict_would_move_it(within, share, seed):
    rng = np.random.default_rng(seed)
    clips = [clip(rng, frames, share) for frames in (3, 30, 20)]
    some = [(i, j, 0) for i in range(3) for j in range(3)]
    for (i, j, _), (a, b, shift) in zip(some, sound.in_time(clips, some, fit(), within), strict=True):
        assert (i, j) == (a, b)
        try:
            pair = clips[i].vsr_projection, clips[j].asr_projection, fit(), clips[i].evident, clips[j].voice
            best = similarity.best_offset(*pair, within)
        except ValueError:  # nothing to compare
            assert shift == 0
        else:
            assert shift == best.frames


def test_a_shift_that_is_asked_for_is_moved_from_there():
    rng = np.random.default_rng(0)
    one = clip(rng, 40, 1.0)
    one.asr_projection = one.vsr_projection
    moved = sound.in_time([one], [(0, 0, s) for s in (-8, -4, -2, -1, 0, 1, 2)], fit(), 2)
    assert [s for _, _, s in moved][2:] == [0] * 5
    assert all(abs(s - asked) <= 2 for (_, _, s), asked in zip(moved, (-8, -4), strict=False))


def test_pairs_are_scored_in_parts_alike(monkeypatch):
    rng = np.random.default_rng(0)
    clips = [clip(rng, 30, 0.8) for _ in range(6)]
    some = [(i, j, 0) for i in range(6) for j in range(6)]
    whole = sound.scored(clips, some, fit())
    monkeypatch.setattr(sound, "ROWS", 40)
    parts = sound.scored(clips, some, fit())
    for window in similarity.WINDOWS:
        assert np.allclose(whole.score[window], parts.score[window], atol=1e-12)
        assert np.array_equal(whole.clip[window], parts.clip[window])


# -- intervals -----------------------------------------------------------------------------------------------------------


def of_people(people, clips, seed=0):
    """Own and other scores of `clips` clips each of `people` people, who differ a lot, and whose own clips hardly do."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), clips)
    level = rng.standard_normal(people)[person]
    own, other = (level + shift + 0.01 * rng.standard_normal(len(person)) for shift in (1.0, 0.0))
    return own, other, person


def test_an_interval_draws_people_not_clips():
    own, other, person = of_people(12, 50)
    by_person = figures.auc(Values(own, person), Values(other, person))
    alone = np.arange(len(own))
    by_clip = figures.auc(Values(own, alone), Values(other, alone))
    assert by_person.auc == by_clip.auc == similarity.auc(own, other)
    assert (by_person.people, by_clip.people) == (12, 600)
    assert by_person.high - by_person.low > 3 * (by_clip.high - by_clip.low)


def test_more_clips_of_the_same_people_hardly_narrow_an_interval():
    widths = []
    for clips in (5, 50):
        own, other, person = of_people(12, clips)
        found = figures.auc(Values(own, person), Values(other, person))
        widths.append(found.high - found.low)
    assert widths[1] > 0.7 * widths[0]


def test_one_person_tells_nothing_of_others():
    own, other, person = np.ones(50), np.zeros(50), np.zeros(50, int)
    found = figures.auc(Values(own, person), Values(other, person))
    assert (found.auc, found.people) == (1.0, 1)
    assert found.low < 0.3


def test_without_one_kind_there_is_no_figure():
    none = Values(np.zeros(0), np.zeros(0, int))
    found = figures.auc(Values(np.ones(3), np.arange(3)), none)
    assert np.isnan([found.auc, found.low, found.high]).all()
    assert np.isnan(figures.brier(np.ones(3), none.value))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30))
def test_a_share_lies_in_its_interval_which_always_has_a_width(clips):
    hit = np.array([one for one, _ in clips])
    found = figures.share(hit, [str(person) for _, person in clips])
    assert 0 <= found.low <= found.share <= found.high <= 1
    assert found.high - found.low > 0.1  # six people at most
    assert found.count == hit.sum()


def test_a_share_by_person_is_wider_than_by_clip():
    hit = np.arange(100) < 20
    alone, three = (
        figures.share(hit, [str(k) for k in range(100)]),
        figures.share(hit, [str(k % 3) for k in range(100)]),
    )
    assert three.low < alone.low < alone.share < alone.high < three.high
    assert np.isnan(figures.share(np.zeros(0, bool), []).share)


# -- who -----------------------------------------------------------------------------------------------------------------


def rows(*people, corpus="c", **more):
    made = [
        Row(f"/{k}.mp4", id=f"{corpus}/{k}", corpus=corpus, identities=(name,) if name else (), **more)
        for k, name in enumerate(people)
    ]
    return [Listed(row) for row in with_groups(made)]


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=12), st.integers(0, 3))
def test_partners_are_other_people_where_the_list_names_them(people, seed):
    clips = rows(*people)
    found = sound.partners(clips, 3, seed)
    assert found.of == sound.partners(clips, 3, seed).of
    assert sum(found.who.values()) == sum(map(len, found.of))
    for k, others in enumerate(found.of):
        assert k not in others
        assert len(set(others)) == len(others)
        assert bool(others) == (len(people) > 1)
        strangers = [j for j, name in enumerate(people) if people[k] and name and name != people[k]]
        if strangers:
            assert set(others) <= set(strangers)
            assert len(others) == min(3, len(strangers))


def test_partners_stay_in_their_corpus():
    clips = rows("a", "b", "c") + rows("d", "e", corpus="other")
    assert all((j < 3) == (k < 3) for k, others in enumerate(sound.partners(clips, 5, 0).of) for j in others)


def test_people_are_components_of_identities():
    made = [Row("/a", id="1", identities=("x", "y")), Row("/b", id="2", identities=("y",)), Row("/c", id="3")]
    people = [Listed(row) for row in with_groups(made)]
    assert people[0].person == people[1].person != people[2].person
    assert [one.is_known for one in people] == [True, True, False]
    grouped = Listed(with_groups([Row("/d", id="4", group="show 7")])[0])
    assert grouped.is_known


def test_a_limit_spreads_over_the_list():
    clips = [Listed(Row(f"/{k}", id=str(k), label=k % 2, method="m" if k % 2 else "")) for k in range(20)]
    kept = few(clips, 3)
    assert [one.row.id for one in kept if one.is_real] == ["0", "8", "18"]
    assert sum(one.is_forged for one in kept) == 3
    assert few(clips, 50) == clips


def test_only_corpora_with_both_classes_are_compared():
    clips = rows("a", "b", label=0) + rows("c", label=1) + rows("d", "e", corpus="news", label=0)
    ranked = Ranked(clips, {"similarity": np.arange(5.0)}, [{}] * 5)
    assert [one.row.corpus for one in comparable(ranked).listed] == ["c", "c", "c"]
    assert not comparable(ranked).mixed
    apart = ranked.of(np.array([False, False, True, True, True]))
    assert comparable(apart).mixed
