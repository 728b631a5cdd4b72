"""Pseudo-fakes: every kind redraws the mouth and nothing else, the same every time, and the loader pairs them rightly."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import make_store

import store
from store.dataset.spans import spans
from student.config import ConfigError, DataConfig, TrainConfig
from student.data import drawn, pseudo_fakes
from student.data.corpus import Corpus
from student.data.dataset import Keys, Windows, loader
from student.data.order import Key
from student.data.pseudo_fakes import KINDS, Kind, Window, forge

CLIP = Path(__file__).parents[2] / "data" / "grid" / "clips"
KIND = sorted(KINDS)


@cache
def window(k: int = 0, frames: int = 25) -> Window:
    """Frames of a real mouth, and a mouth-like ring of points that opens and closes."""
    import av

    with av.open(str(sorted(CLIP.glob("*.mp4"))[k])) as container:
        found = np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])[20 : 20 + frames]
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    height = 6 + 3 * np.sin(np.arange(frames) / 2 + k)[:, None]
    points = 48 + np.stack([18 * np.cos(angle)[None].repeat(frames, 0), height * np.sin(angle)], -1)
    return Window(found[:, 180:276, 132:228].copy(), points.astype(np.float32))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def detail(x: np.ndarray) -> float:
    """Mean square of neighbouring pixels' differences around the mouth."""
    return float(np.square(np.diff(x[:, 30:66, 20:76].astype(float), axis=2)).mean())


@pytest.mark.parametrize("kind", KIND)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**32), frames=st.integers(1, 12), level=st.integers(0, 255))
def test_any_pictures_keep_their_shape_and_the_input_stays(kind, seed, frames, level):
    mouth = rng(seed).integers(0, level + 1, (frames, 96, 96), dtype=np.uint8)
    lips = np.zeros((frames, 40, 2)) if level % 2 else rng(seed).normal(0, 12, (frames, 40, 2))
    one, other = Window(mouth, pseudo_fakes.in_crop(lips)), window(1, 5)
    before = mouth.copy()
    mouth.flags.writeable = False
    made = forge(one, other, rng(seed), kind)
    assert (made.mouth.shape, made.mouth.dtype, made.kind) == (mouth.shape, np.uint8, kind)
    assert np.array_equal(mouth, before)
    assert np.array_equal(made.mouth, forge(one, other, rng(seed), kind).mouth)
    assert made.changed.any()
    assert np.array_equal(made.mouth[~made.changed], mouth[~made.changed])


@pytest.mark.parametrize("kind", KIND)
def test_every_kind_redraws_the_mouth_and_keeps_what_is_around_it(kind, monkeypatch):
    monkeypatch.setattr(pseudo_fakes, "WHOLE", 0.0)
    one, other = window(0), window(1)
    for seed in range(5):
        made = forge(one, other, rng(seed), kind)
        far = np.abs(made.mouth.astype(int) - one.mouth)[made.changed]
        assert far[:, 38:58, 28:68].mean() > 0.15, f"{kind} leaves the mouth as it is"
        assert far[:, :6].max() <= 1, f"{kind} changes what is far from the mouth"


def test_a_part_is_forged_in_some_windows_and_marked(monkeypatch):
    monkeypatch.setattr(pseudo_fakes, "PART", 1.0)
    sizes = set()
    for seed in range(20):
        made = forge(window(), window(1), rng(seed), "few pixels")
        places = np.flatnonzero(made.changed)
        sizes.add(len(places))
        assert pseudo_fakes.SHORTEST <= len(places) < 25
        assert np.array_equal(places, np.arange(places[0], places[-1] + 1))
    assert len(sizes) > 4


def test_what_each_kind_is_for():
    one, other = window(), window(1)
    sharp = detail(one.mouth)
    for kind in ("few pixels", "smooth", "few components", "like lips"):
        assert detail(KINDS[kind].draw(one, other, rng())) < sharp
    soft = KINDS["few pixels"].draw(one, other, rng())
    assert detail(KINDS["sharpened"].draw(one, other, rng())) > detail(soft)
    moment = KINDS["other moment"].draw(one, other, rng())
    assert all(any(np.array_equal(frame, own) for own in one.mouth) for frame in moment)
    assert np.median([np.abs(a - b).mean() for a, b in zip(moment, one.mouth.astype(float), strict=True)]) > 0.5
    still = KINDS["still"].draw(one, other, rng())
    assert np.abs(np.diff(still[:, 85:], axis=0)).max() < np.abs(np.diff(one.mouth[:, 85:].astype(float), axis=0)).max()


def test_a_still_follows_the_lips():
    """Points that move down by 4 pixels take the picture with them."""
    lips = np.repeat(window().lips[:1], 3, 0)
    lips[2, :, 1] += 4
    one = Window(np.repeat(window().mouth[:1], 3, 0), lips)
    moved = KINDS["still"].draw(one, one, rng(3))
    gap = {by: np.abs(moved[2, 44 + by : 56 + by, 34:62] - moved[0, 44:56, 34:62]).mean() for by in (0, 3, 4)}
    assert min(gap[3], gap[4]) < 0.5 * gap[0]


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="unknown kind of pseudo-fake dubbed; there are few pixels"):
        forge(window(), window(1), rng(), "dubbed")


# -- real and forged under one nuisance -------------------------------------------------------------------------------


@pytest.fixture
def nothing(monkeypatch):
    """A kind that redraws the mouth as it is."""
    monkeypatch.setitem(KINDS, "nothing", Kind(lambda w, o, r: w.mouth.astype(np.float32)))
    monkeypatch.setattr(pseudo_fakes, "draw_kind", lambda r: "nothing")


@pytest.mark.parametrize("seed", range(12))
def test_a_pseudo_fake_that_changes_nothing_looks_like_its_real_window(nothing, seed):
    one, face = window(), np.ones(25, bool)
    real, fake = drawn.of_real(one, face, lambda r: window(1), rng(seed))
    assert np.abs(real.picture.astype(int) - fake.picture).max() <= 1  # matching the brightness may round
    assert not real.forged.any()
    assert fake.forged.any()
    assert real.picture.shape == (25, 88, 88)


def test_the_nuisance_is_drawn_anew_for_each_window_and_keeps_the_window_s_length():
    seen = [drawn.disturb(window().mouth, seed) for seed in range(6)]
    assert all(x.shape == (25, 96, 96) for x in seen)
    assert all(not np.array_equal(a, b) for a, b in pairwise(seen))


def test_repeated_frames_show_the_one_before():
    found = drawn.repeated(window().mouth, rng(2))
    same = [k for k in range(1, 25) if np.array_equal(found[k], found[k - 1])]
    assert same
    assert np.array_equal(found[0], window().mouth[0])
    assert all(np.array_equal(found[k], window().mouth[k]) for k in range(25) if k not in same)


def test_no_window_gives_one_that_is_off():
    found = drawn.together([], 21)
    assert found["drawn"].shape == (1, 21, 88, 88)
    assert not found["drawn_mask"].any()
    assert found["drawn_of"].tolist() == [-1]


# -- in batches -------------------------------------------------------------------------------------------------------


CONFIG = DataConfig(window=25, batch_size=4, augment=False, pseudo_share=0.5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "s.zarr", {"train": 10}, frames=(36, 60), fakes=2)


def windows(path, config=CONFIG, pictured=None):
    reader = store.open(path)
    rows = np.arange(len(reader))
    corpus = Corpus.of(reader, rows, np.ones(len(reader)), spans(reader, rows, "none"), config.window)
    if pictured is not None:
        corpus = replace(corpus, pictured=np.full(len(reader), pictured))
    return Windows(str(path), corpus, config, 0, True, (1.0, 1.0)), corpus


def test_a_share_of_real_windows_gets_a_pseudo_fake_and_soft_labels_stay(path):
    config = replace(CONFIG, pair_share=0.5)
    data, corpus = windows(path, config)
    plain, _ = windows(path, replace(config, pseudo_share=0.0))
    made = total = 0
    for position in range(30):
        key = Key(0, (position,), (int(corpus.rows[position % len(corpus.rows)]),))
        batch, without = data[key], plain[key]
        assert all(np.array_equal(batch[name], without[name]) for name in ("soft", "label", "clip", "start"))
        forged = batch["drawn_forged"].any(1)
        made, total = made + int(forged.sum()), total + 1
        assert len(forged) == (2 if forged.any() else 1)
        assert np.array_equal(forged.numpy(), [False, True][: len(forged)])
        assert batch["drawn_of"].tolist() == [-1, 0][: len(forged)]
    assert 6 < made < 24
    assert "drawn" not in without


def test_several_pseudo_fakes_of_one_window_differ_in_kind_or_nuisance(path):
    data, corpus = windows(path, replace(CONFIG, pseudo_share=2.5))
    counts = set()
    for position in range(12):
        batch = data[Key(0, (position,), (int(corpus.rows[position % len(corpus.rows)]),))]
        places = np.arange(len(batch["drawn"]))
        assert batch["drawn_of"].tolist() == np.where(places % 2, places - 1, -1).tolist()
        assert all(not np.array_equal(batch["drawn"][0], one) for one in batch["drawn"][2::2])
        counts.add(len(places))
    assert counts == {4, 6}


def test_forgeries_of_the_sound_are_real_pictures_and_forged_pictures_need_no_pseudo_fake(path):
    data, corpus = windows(path, replace(CONFIG, pseudo_share=1.0))
    reader = store.open(path)
    fake = int(np.flatnonzero(reader.clips["label"] == 1)[0])  # their picture is real
    assert corpus.pictured[fake] == 0
    assert data[Key(0, (0,), (fake,))]["drawn_forged"].any(1).tolist() == [False, True]
    data, _ = windows(path, CONFIG, pictured=1)
    batch = data[Key(0, (0,), (fake,))]
    assert np.array_equal(batch["drawn_forged"] > 0, batch["drawn_mask"])
    assert batch["drawn_mask"].any()
    data, _ = windows(path, CONFIG, pictured=-1)
    assert not data[Key(0, (0,), (fake,))]["drawn_mask"].any()


def test_a_forged_clip_of_which_nothing_is_said_of_the_picture_is_not_used(path):
    reader = store.open(path)
    fake = int(np.flatnonzero(reader.clips["label"] == 1)[0])
    for known in (0, 1, -1):
        reader.clips["video_fake"][fake] = known
        corpus = Corpus.of(reader, np.arange(len(reader)), np.ones(len(reader)), spans(reader, [fake], "none"), 25)
        assert corpus.pictured[fake] == known
    assert (corpus.pictured[reader.clips["label"] == 0] == 0).all()


def test_pseudo_fakes_depend_neither_on_workers_nor_on_the_batch(path):
    data, corpus = windows(path)
    keys = Keys(corpus, CONFIG, 0, 0, 1)
    apart = [{k: v.clone() for k, v in batch.items()} for batch in loader(data, keys, 0, False)]
    beside = [{k: v.clone() for k, v in batch.items()} for batch in loader(data, keys, 1, False)]
    assert len(apart) == len(beside) > 1
    for a, b in zip(apart, beside, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in ("drawn", "drawn_mask", "drawn_forged"))
    alone = Windows.__getitem__(windows(path)[0], Key(0, (1,), (int(next(iter(keys)).clips[1]),)))
    whole = data[next(iter(keys))]
    if alone["drawn_mask"].any():
        assert any(np.array_equal(alone["drawn"][0], one) for one in whole["drawn"])


def test_lips_that_are_not_finite_are_named(path, monkeypatch):
    data, corpus = windows(path, replace(CONFIG, pseudo_share=1.0))
    frames = data.reader.frames

    def damaged(row, start, stop, names):
        found = frames(row, start, stop, names)
        return {**found, "lips": np.full_like(found["lips"], np.nan)} if "lips" in found else found

    monkeypatch.setattr(data.reader, "frames", damaged)
    with pytest.raises(store.StoreError, match="frames/lips is not finite at frame"):
        data[Key(0, (0,), (int(corpus.rows[0]),))]


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="--pseudo-share is a number"):
        DataConfig(pseudo_share=4.5)
    with pytest.raises(ConfigError, match="--pseudo-share needs the model lite"):
        TrainConfig(store="s", output="o", model="talknet", data=CONFIG)
