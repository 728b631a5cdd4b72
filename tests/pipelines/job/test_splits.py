"""Splits that a run sets before its fit: what a file or a protocol decides, and what is refused."""

import shutil
from collections import Counter

import numpy as np
import pytest
from small_store import make_store

import store
from pipelines.corpora import manifest
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row
from pipelines.corpora.splits import Rule, Splits, of_file
from pipelines.errors import UsageError
from pipelines.job.books import Books
from pipelines.job.splits import decide
from pipelines.job.usage import Summary
from pipelines.labels.second_pass import Wish, second_pass
from pipelines.tables import kept
from store.place import place


def here(function, jobs, gpu=False):
    """A `Spread` in this process."""
    return (function(*job) for job in jobs)


def rows(*names, **more):
    return [Row(f"/x/{name}", id=f"c/{name}", corpus="c", label=0, **more) for name in names]


def rule(**of):
    """A rule that gives these splits to clips of corpus c."""
    wanted = {f"c/{name}": split for name, split in of.items()}
    return Rule(
        "--splits x.csv", lambda some: Splits({r.id: wanted[r.id] for r in some if r.id in wanted}, Counter(absent=1))
    )


def test_new_clips_get_their_splits_and_those_without_one_are_left_out():
    decided = decide(rule(a="train", b="test"), rows("a", "b", "z"), [], "S", False, False)
    assert [(row.id, row.split) for row in decided.rows] == [("c/a", "train"), ("c/b", "test")]
    assert decided.moved == {}
    assert "left out without a split: 1 clip (1 absent)" in "\n".join(decided.lines)


def test_the_same_again_changes_nothing_and_an_empty_split_is_train():
    have = [*rows("a"), *rows("b", split="test")]
    assert decide(rule(a="train", b="test"), rows("a", "b"), have, "S", False, True).moved == {}


def test_other_splits_need_a_new_fit_and_say_so():
    have = [*rows("a", split="train"), *rows("b", split="test")]
    with pytest.raises(UsageError, match=r"other splits for 2 clips, such as c/a: train.*test.*--refit"):
        decide(rule(a="test", b="train"), [], have, "S", False, True)
    assert decide(rule(a="test", b="train"), [], have, "S", True, True).moved == {"c/a": "test", "c/b": "train"}
    assert decide(rule(a="test", b="train"), [], have, "S", False, False).moved  # there is no fit to contradict


def test_clips_of_the_store_that_would_be_left_without_a_split_are_not_silently_train():
    with pytest.raises(UsageError, match="gives no split to 1 clip that S has, such as c/b"):
        decide(rule(a="train"), [], rows("a", "b"), "S", True, True)
    other = decide(rule(a="train"), rows("a"), rows("b", split="val"), "S", False, True)  # b is of another corpus
    assert [row.id for row in other.rows] == ["c/a"]


def test_a_rule_sees_all_clips_together_with_the_people_they_share():
    seen = []

    def make(some):
        seen.extend(some)
        return Splits({row.id: "train" for row in some})

    decide(Rule("r", make), rows("a", identities=("p", "q")), rows("b", identities=("q",)), "S", False, False)
    assert {row.id: row.group for row in seen} == {"c/a": "p", "c/b": "p"}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_of_the_manifest_command_is_read(suffix, tmp_path):
    from pipelines.manifest.__main__ import write_splits

    file = tmp_path / f"s.{suffix}"
    write_splits(str(file), [*rows("a", split="train"), *rows("b", split="test"), *rows("gone", split="val")])
    found = of_file(place(file), rows("a", "b", "z"))
    assert found.of == {"c/a": "train", "c/b": "test"}
    assert found.left_out == {"not listed": 1}
    assert "lists 1 clip not found here" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,split\nother/x,train\n", "lists no clip of these corpora: its ids are like other/x, they have c/a"),
        ("id,split\nc/a,dev\n", "split 'dev'; use train, val, test"),
        ("path\nx\n", "no column id and split"),
        ("id,split\nc/a,train\nc/a,test\n", "more than once"),
    ],
)
def test_a_file_that_cannot_decide_is_refused(text, said, tmp_path):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ManifestError, match=said):
        of_file(place(tmp_path / "s.csv"), rows("a"))
    with pytest.raises(ManifestError, match="does not exist"):
        of_file(place(tmp_path / "none.csv"), rows("a"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with a cca fit and the manifest of a run."""
    path = make_store(
        tmp_path_factory.mktemp("splits") / "s.zarr", {"train": 24, "test": 6}, groups=50, shard_rows=4200
    )
    second_pass(place(path), store.Writer.open(path), Wish(kind="cca", refit=True), here)
    clips = store.open(path).clips
    listed = [
        Row(str(clips["path"][k]), id=str(clips["id"][k]), corpus="synthetic", label=0, split=str(clips["split"][k]))
        for k in range(len(clips["id"]))
    ]
    manifest.write(listed, path / kept.MANIFEST)
    store.Writer.open(path).consolidate()
    return path


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made, tmp_path / "s.zarr")


def resplit(path, moved):
    reader = store.open(path)
    Books(store.Writer.open(path), reader, [], Summary()).resplit(moved)


def test_a_fit_by_new_splits_has_not_seen_what_left_train(path):
    reader = store.open(path)
    old = store.seen.by_split(reader)
    assert (old["train"].clips, old["test"].clips) == (24, 0)
    names = reader.clips["id"].astype(str)
    moved = dict.fromkeys(names[:6], "test") | dict.fromkeys(names[24:], "train")
    resplit(path, moved)
    second_pass(place(path), store.Writer.open(path), Wish(refit=True), here)
    store.Writer.open(path).consolidate()
    again = store.open(path)
    assert again.clips["split"].tolist() == ["test"] * 6 + ["train"] * 24
    new = store.seen.by_split(again)
    assert (new["train"].clips, new["test"].clips) == (24, 0)
    assert np.flatnonzero(~store.seen.by_fit(again, np.arange(30))).tolist() == list(range(6))
    assert [row.split for row in kept.read(again, []).rows] == again.clips["split"].tolist()


def test_after_a_kill_between_splits_and_fit_the_next_run_learns_again(path):
    name = str(store.open(path).clips["id"][0])
    resplit(path, {name: "test"})
    with pytest.raises(store.StoreError, match="is being replaced"):
        _ = store.open(path).fit
    second_pass(place(path), store.Writer.open(path), Wish(), here)  # a plain run, without --refit
    store.Writer.open(path).consolidate()
    assert not store.seen.by_fit(store.open(path), np.array([0]))[0]


def test_a_manifest_that_a_kill_left_behind_follows_the_table(path):
    before = (path / kept.MANIFEST).read_bytes()
    resplit(path, {str(store.open(path).clips["id"][0]): "val"})
    (path / kept.MANIFEST).write_bytes(before)
    tables = kept.read(store.open(path), [])
    assert tables.anew
    assert tables.rows[0].split == "val"
