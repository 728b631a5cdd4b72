"""Who is in each clip, by name or by looks."""

import numpy as np
import pytest
from small_store import make_store

import store
from pipelines.labels import people as module
from pipelines.labels.learn import folds
from pipelines.labels.people import groups, people


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("people") / "s.zarr", {"train": 12}, frames=30, groups=12, people=12)


def with_mouths(reader, monkeypatch, kinds):
    """The reader, in which clip k shows a mouth of kind kinds[k] in changing light."""
    draw = np.random.default_rng(0)
    shapes = draw.normal(size=(max(kinds) + 1, 10, 10)).repeat(8, axis=1).repeat(8, axis=2) * 25
    plain = reader.frames

    def frames(clip, start, stop, names):
        got = plain(clip, start, stop, names)
        if "mouth" in names:
            light = np.linspace(-30, 30, 80)[:, None] * (clip % 3 - 1) + 10 * (clip % 5)
            mouth = np.zeros((stop - start, 96, 96), np.uint8)
            mouth[:, 8:-8, 8:-8] = np.clip(128 + shapes[kinds[clip]] + light, 0, 255)
            got["mouth"] = mouth
        return got

    monkeypatch.setattr(reader, "frames", frames)
    return reader


def test_names_are_believed(path):
    found = people(store.open(path), np.arange(12))
    assert not found.guessed
    assert len(set(found.names)) == 12


def test_those_who_look_alike_are_one_person_in_any_light(path, monkeypatch):
    kinds = [k % 4 for k in range(12)]
    reader = with_mouths(store.open(path), monkeypatch, kinds)
    reader.clips["identities"] = np.array(["[]"] * 12, object)
    found = people(reader, np.arange(12))
    assert found.guessed
    assert len(set(found.names)) == 4
    assert all((found.names[a] == found.names[b]) == (kinds[a] == kinds[b]) for a in range(12) for b in range(12))


def test_nobody_is_guessed_in_a_corpus_that_names_people(path):
    reader = store.open(path)
    reader.clips["identities"] = np.array(['["a"]', *["[]"] * 11], object)
    found = people(reader, np.arange(12))
    assert (found.names, found.guessed) == (["a", *[""] * 11], False)


def test_many_clips_join_the_groups_of_some(monkeypatch):
    draw = np.random.default_rng(1)
    centres = draw.normal(size=(5, 40))
    looks = centres[np.arange(200) % 5] + 0.1 * draw.normal(size=(200, 40))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    monkeypatch.setattr(module, "MOST", 50)
    found = groups(looks)
    assert len(set(found.tolist())) == 5
    assert all(len(set(found[k::5].tolist())) == 1 for k in range(5))


def test_one_clip_is_one_person():
    assert groups(np.ones((1, 4)) / 2).tolist() == [0]


def test_every_part_has_clips_of_every_corpus(path):
    """One speaker with many clips does not become the part that is held out."""
    reader = store.open(path)
    reader.clips["corpus"] = np.array(["a"] * 6 + ["b"] * 6, object)
    reader.clips["identities"] = np.array(['["one"]'] * 6 + [f'["p{k}"]' for k in range(6)], object)
    reader.clips["group"] = np.array(["one"] * 6 + [f"p{k}" for k in range(6)], object)
    parts = folds(reader, np.arange(12), 3)
    assert set(parts[:6].tolist()) == set(parts[6:].tolist()) == {0, 1, 2}
