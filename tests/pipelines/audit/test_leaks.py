"""Leaks between splits: planted ones are found, clean copies and look-alikes give none."""

import dataclasses
import random

import pytest
from published import favc

from pipelines.audit import leaks
from pipelines.corpora.manifest import Row

SEEDS = range(10)


def clean(seed: int, clips: int = 120) -> list[Row]:
    """Clips of 20 people, half fake, split by person; the two splits lie on two machines."""
    rng = random.Random(seed)
    people = [f"id{n:05d}" for n in range(20)]
    rng.shuffle(people)
    rows = []
    for n in range(clips):
        face, split = people[n % 20], "train" if n % 20 < 14 else "test"
        folder = {"train": "/data2/a/set/TRAIN/videos", "test": "/home/b/set/TEST/videos"}[split]
        rows.append(
            Row(
                f"{folder}/{face}/{rng.randrange(16**9):09x}.mp4",
                label=n // 20 % 2,
                identities=(face,),
                split=split,
                id=f"c/{n}",
            )
        )
    return rows


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clean_split_has_no_leak(seed):
    assert leaks.find(clean(seed)) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_clips_planted_in_both_splits_are_found_as_files_and_as_people(seed):
    rows = clean(seed)
    chosen = random.Random(seed + 100).sample([row for row in rows if row.split == "train"], 3)
    for k, row in enumerate(chosen):
        path = row.path.replace("/data2/a/set/TRAIN", "/home/b/set/TEST")
        rows.append(dataclasses.replace(row, path=path, split="test", id=f"c/planted {k}"))
    tests = sum(row.split == "test" for row in rows)
    by_kind = {leak.kind: leak for leak in leaks.find(rows)}
    assert set(by_kind) == {"file", "identity"}
    assert (by_kind["file"].splits, by_kind["file"].count, by_kind["file"].of) == (("train", "test"), 3, tests)
    assert {e.early for e in by_kind["file"].examples} == {row.id for row in chosen}
    faces = {row.identities[0] for row in chosen}
    assert (by_kind["identity"].count, by_kind["identity"].of) == (len(faces), 6 + len(faces))
    assert {e.what for e in by_kind["identity"].examples} == faces


@pytest.mark.parametrize("seed", SEEDS)
def test_a_target_of_a_fake_counts_as_a_person(seed):
    rows = clean(seed)
    k = next(k for k, row in enumerate(rows) if row.split == "test")
    seen = next(row.identities[0] for row in rows if row.split == "train")
    rows[k] = dataclasses.replace(rows[k], identities=(*rows[k].identities, seen), label=1)
    (leak,) = leaks.find(rows)
    assert (leak.kind, leak.who, leak.count, leak.of) == ("identity", "any", 1, 7)


def test_equal_fingerprints_are_a_content_leak():
    rows = clean(0)
    prints = [f"print {k}" for k in range(len(rows))]
    train = next(k for k, row in enumerate(rows) if row.split == "train")
    test = next(k for k, row in enumerate(rows) if row.split == "test")
    prints[test] = prints[train]
    (leak,) = leaks.find(rows, prints=prints)
    assert (leak.kind, leak.count) == ("content", 1)
    assert leak.examples[0].early == rows[train].id
    assert leak.examples[0].late == rows[test].id


def test_running_numbers_in_split_folders_are_no_leak():
    rows = [
        Row(f"/d/{split}/real/{n:04d}.mp4", split=split, id=f"{split}{n}")
        for split in ("train", "test")
        for n in range(9)
    ]
    assert leaks.find(rows) == []


@pytest.mark.parametrize(
    "other",
    [{"listed_frames": 81.0}, {"label": 1}, {"method": "b"}, {"identities": ("q",)}],
    ids=lambda o: next(iter(o)),
)
def test_equal_tails_that_contradict_each_other_are_no_file_leak(other):
    row = Row("/d/train/x/song.mp4", label=0, method="a", identities=("p",), listed_frames=80.0, split="train", id="1")
    twin = dataclasses.replace(row, path="/d/test/x/song.mp4", split="test", id="2")
    assert [leak.kind for leak in leaks.find([row, twin])] == ["file", "identity"]
    assert "file" not in [leak.kind for leak in leaks.find([row, dataclasses.replace(twin, **other)])]


def test_roots_without_split_folders_are_matched_by_the_fewest_parts_that_tell_clips_apart():
    names = ["a/song.mp4", "b/song.mp4", "b/talk.mp4"]
    rows = [Row(f"/one/u/set/{name}", split="train", id=f"1{name}") for name in names]
    rows += [Row(f"/two/w/deep/er/{name}", split="test", id=f"2{name}") for name in names[:2]]
    (leak,) = leaks.find(rows)
    assert (leak.kind, leak.count, leak.of) == ("file", 2, 2)


def test_files_that_are_here_are_compared_by_bytes_not_by_name(tmp_path):
    texts = {
        "train/song.mp4": "one",
        "test/song.mp4": "two",
        "train/x.mp4": "same",
        "test/y.mp4": "same",
        "test/z.mp4": "longer",
    }
    rows = []
    for name, said in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(said)
        rows.append(Row(str(tmp_path / name), split=name.partition("/")[0], id=name))
    (leak,) = leaks.find(rows, files=leaks.hashes(rows))
    assert (leak.count, leak.of) == (1, 3)
    assert (leak.examples[0].early, leak.examples[0].late) == ("train/x.mp4", "test/y.mp4")


def test_files_that_are_missing_are_compared_by_their_path():
    rows = [Row(f"/nowhere/{split}/x/song.mp4", split=split, id=split) for split in ("train", "test")]
    assert leaks.hashes(rows) == [None, None]
    assert [leak.kind for leak in leaks.find(rows, files=leaks.hashes(rows))] == ["file"]


def test_another_number_of_prints_is_refused():
    with pytest.raises(ValueError, match="2 prints for 1 rows"):
        leaks.find([Row("/x")], prints=["a", "b"])


@pytest.mark.golden
def test_the_published_fakeavceleb_lists_share_clips_and_people(shared):
    found = {(leak.kind, leak.who): leak for leak in leaks.find(favc(shared))}
    assert (found["file", ""].count, found["file", ""].of) == (784, 4266)
    assert (found["identity", "source"].count, found["identity", "source"].of) == (180, 187)
    assert (found["identity", "any"].count, found["identity", "any"].of) == (445, 445)
