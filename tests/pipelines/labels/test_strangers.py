"""What strangers score: nobody is scored by a fit that learned from them, and each person weighs the same."""

import json
import shutil

import numpy as np
import pytest
from small_store import make_store

import store
from pipelines.labels import leave_out, strangers
from pipelines.labels.learn import learn, training_clips
from pipelines.labels.leave_out import deal
from pipelines.labels.people import people
from pipelines.labels.second_pass import Wish, second_pass
from store import layout
from store.place import place
from store.similarity import Fit, fitfile
from store.similarity.grounds import LEAST
from store.similarity.strangers import CORPORA, NAME, PEOPLE, WITHIN, Strangers
from teachers import learn_projector


def here(function, jobs, gpu=False):
    """A `Spread` in this process."""
    return (function(*job) for job in jobs)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """66 clips of 22 people, 30 to 60 frames."""
    path = tmp_path_factory.mktemp("strangers") / "s.zarr"
    return make_store(path, {"train": 66, "val": 4}, frames=(30, 60), groups=22, people=22, shard_rows=4000)


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made, tmp_path / "s.zarr")


def relabelled(path, **columns):
    """The reader with columns of its clips replaced."""
    reader = store.open(path)
    for name, values in columns.items():
        reader.clips[name] = np.array(values, object)
    return reader


def dealt_of(reader):
    clips = training_clips(reader)
    return deal(reader, clips, people(reader, clips))


class TestDealing:
    def test_no_fold_learns_from_the_people_that_it_scores(self, path):
        reader = store.open(path)
        dealt = dealt_of(reader)
        assert (dealt.how, dealt.guessed, dealt.count) == (PEOPLE, False, leave_out.FOLDS)
        names = people(reader, np.arange(len(reader))).names
        scored = []
        for fold in range(dealt.count):
            judged, units = dealt.judged(fold)
            taught = dealt.taught(dealt.clips.tolist(), fold)
            assert [names[clip] for clip in judged] == units
            assert not set(units) & {names[clip] for clip in taught}
            assert len(taught) + len(judged) == 66
            scored += judged
        assert sorted(scored) == dealt.clips.tolist()

    def test_an_unnamed_clip_teaches_nobody_of_its_corpus(self, path):
        names = [f'["p{k}"]' if k < 40 else "[]" for k in range(70)]
        corpora = ["a" if k < 50 else "b" for k in range(70)]
        reader = relabelled(path, identities=names, corpus=corpora)
        dealt = dealt_of(reader)
        for fold in range(dealt.count):
            taught = set(dealt.taught(dealt.clips.tolist(), fold))
            assert not taught & set(range(40, 50))  # they may be anybody of corpus a
            judged = set(dealt.judged(fold)[0])
            # corpus b names nobody, and those who look alike there are one person
            assert set(range(50, 66)) <= judged or set(range(50, 66)) <= taught
            assert not judged & set(range(40, 50))

    def test_too_few_people_are_not_dealt(self, path):
        reader = relabelled(path, identities=[f'["p{k % (LEAST - 1)}"]' for k in range(70)])
        assert dealt_of(reader) is None

    def test_unnamed_clips_are_left_out_by_corpus_if_there_are_several(self, path):
        nobody = ["[]"] * 70
        reader = relabelled(path, identities=nobody)
        assert dealt_of(reader) is None
        reader = relabelled(path, identities=nobody, corpus=["ab"[k % 2] for k in range(70)])
        dealt = dealt_of(reader)
        assert (dealt.how, dealt.count) == (CORPORA, 2)
        assert {k % 2 for k in dealt.taught(dealt.clips.tolist(), 0)} == {1}


@pytest.mark.parametrize(
    "kind", ["cca", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("contrast", "fused")), "cosine"]
)
def test_a_fit_carries_what_strangers_score(kind, path, tmp_path, monkeypatch):
    monkeypatch.setattr(learn_projector, "STEPS", 30)
    note = second_pass(path, store.Writer.open(path), Wish(kind=kind, refit=True), here)
    found = Strangers.of(note)
    assert (found.how, found.people, found.guessed, found.corpora) == (PEOPLE, 22, False, ("synthetic",))
    assert [length.frames for length in found.lengths[:3]] == [15, 20, 25]
    for length in found.lengths:
        assert length.units == 22
        assert length.joined == (length.frames > 25) or length.frames == 50  # clips have 30 to 60 frames
        assert length.own.clips <= 66
        assert length.auc() > (0.2 if kind == "cosine" else 0.95)
    assert set(found.maps) == {"5", "25"}
    assert found.within == WITHIN
    reader = store.open(path)
    assert Strangers.of(reader.attrs["similarity"]) == found
    fitfile.save(tmp_path / "fit.npz", reader.fit, reader.attrs["teachers"], reader.attrs["similarity"])
    assert Strangers.of(fitfile.load(tmp_path / "fit.npz")[2]) == found
    if kind == "cca":
        assert learn(place(path), here, kind, 0)[1][NAME] == note[NAME]


@pytest.mark.slow
def test_the_fit_itself_is_the_one_without_names(path, monkeypatch):
    """Measuring strangers must not change the fit."""
    monkeypatch.setattr(learn_projector, "STEPS", 20)
    named, note = learn(place(path), here, "fused", 0)
    monkeypatch.setattr(leave_out, "deal", lambda reader, clips, who: None)
    plain, without = learn(place(path), here, "fused", 0)
    assert NAME in note
    assert NAME not in without
    for a, b in (
        (named.vsr_matrix, plain.vsr_matrix),
        *zip(named.network.values(), plain.network.values(), strict=True),
    ):
        np.testing.assert_array_equal(a, b)
    assert named.calibration == plain.calibration


def test_a_clip_is_compared_where_its_sound_fits_best():
    rng = np.random.default_rng(0)
    none = np.zeros(0, np.float32)
    fit = Fit("cosine", 0, none, none, none, none, np.ones(4, np.float32))
    rows = rng.standard_normal((60, 4)).astype(np.float16)
    seen = np.where(rng.random(60) < 0.9, layout.FACE_DETECTED, 0).astype(np.uint8)
    heard = np.where(rng.random(60) < 0.8, layout.VOICE_ACTIVE | layout.AUDIO_PRESENT, 0).astype(np.uint8)
    for late in range(-3, 4):
        by_offset, windows = strangers._compared(rows, np.roll(rows, late, axis=0), fit, seen, heard)
        assert by_offset.shape == (5, (seen.astype(bool) & heard.astype(bool)).sum())
        best = strangers._means(by_offset)
        if abs(late) <= WITHIN:
            assert best.argmax() == WITHIN - late
            assert best.max() > 0.9
            assert windows["5"].mean() > 0.8
        else:
            assert best.max() < 0.5


class TestPieces:
    def heard(self, *clips):
        empty = {w: (np.zeros(0), np.zeros(0)) for w in strangers.WINDOWS}
        return [strangers.Heard(unit, np.array(own, np.float32, ndmin=2), [], empty) for unit, own in clips]

    def pieces(self, heard, frames, joined=False):
        return strangers._pieces(heard, frames, [[one.own] for one in heard], joined)

    def test_are_means_of_so_many_frames_a_few_a_clip(self):
        found = self.pieces(self.heard(("a", [0.1] * 50 + [0.3] * 50)), 50)
        assert (found.units, found.clips) == (1, 1)
        assert set(np.round(found.levels, 4)) == {0.1, 0.3}
        assert self.pieces(self.heard(("a", [0.1] * 49)), 50) is None

    def test_of_short_clips_are_joined_by_person_alone(self):
        heard = self.heard(("a", [0.1] * 30), ("b", [0.9] * 30), ("a", [0.3] * 30))
        found = self.pieces(heard, 60, joined=True)
        assert (found.units, found.clips) == (1, 2)
        assert found.levels[0] == pytest.approx(0.2)

    def test_a_swap_has_another_persons_sound_of_like_length(self):
        who, frames = ["a", "a", "b", "b", "c"], [80, 20, 80, 20, 80]
        found = strangers._partners(who, frames)
        for k, others in enumerate(found):
            assert len({who[other] for other in others} - {who[k]}) == len(others) == 2
        assert frames[found[0][0]] == 80


def test_the_record_is_small(path):
    note = learn(place(path), here, "cca", 0)[1]
    assert len(json.dumps(note[NAME])) < 40_000
