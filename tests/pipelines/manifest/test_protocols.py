"""Protocols: no people and clips on two sides if the protocol says so, all dropped clips reported, the same splits for
one seed."""

import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from some_rows import clips

from pipelines.audit import leaks
from pipelines.corpora import manifest
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row
from pipelines.manifest import protocols
from pipelines.manifest.protocols import Options, splits

FAVC = [name for name in protocols.PROTOCOLS if name.startswith("favc-") or name in ("groups", "own")]
CLEAN = [name for name in FAVC if name.endswith("-clean") or name == "groups"]


def made(rows, name, seed=0, options=None):
    """The splits, or None where these rows have too little for the protocol."""
    try:
        return splits(rows, name, options, seed)
    except ManifestError:
        return None


@settings(deadline=None, max_examples=60)
@given(rows=clips(), name=st.sampled_from(FAVC), seed=st.integers(0, 3))
def test_every_row_has_one_split_or_a_reason_and_reals_stand_on_one_side(rows, name, seed):
    found = made(rows, name, seed)
    if found is None:
        return
    assert set(found.of) <= {row.id for row in rows}
    assert set(found.of.values()) <= {"train", "val", "test"}
    assert len(found.of) + sum(found.left_out.values()) == len(rows)
    chosen = found.rows(rows)
    sides = {}
    for row, first in zip(chosen, leaks.first_copies(chosen), strict=True):
        if row.label == 0:
            assert sides.setdefault(first, row.split) == row.split
    if name != "own":
        assert len(set(leaks.first_copies(chosen))) == len(chosen)


@settings(deadline=None, max_examples=60)
@given(rows=clips(), name=st.sampled_from(CLEAN), seed=st.integers(0, 3))
def test_clean_protocols_have_nobody_on_two_sides(rows, name, seed):
    found = made(rows, name, seed)
    if found is None:
        return
    where = {}
    for row in found.rows(rows):
        for person in row.identities:
            assert where.setdefault(person, row.split) == row.split


@settings(deadline=None, max_examples=40)
@given(rows=clips(), name=st.sampled_from(FAVC), seed=st.integers(0, 3), data=st.data())
def test_splits_depend_on_the_seed_and_not_on_the_order_of_rows(rows, name, seed, data):
    found = made(rows, name, seed)
    other = made(data.draw(st.permutations(rows)), name, seed)
    assert (found and found.of) == (other and other.of)
    assert (found and found.left_out) == (other and other.left_out)


def many(num=60):
    """Reals and fakes of `num` people; every fake shows the person and the next one but two."""
    rows = []
    for k in range(num):
        for category, method, who in (
            ("RVRA", "", (k,)), ("RVFA", "rtvc", (k,)), ("FVRA", "wav2lip", (k, k + 3)), ("FVRA", "faceswap", (k, k + 3)),
            ("FVRA", "fsgan", (k,)), ("FVFA", "wav2lip", (k,)), ("FVFA", "faceswap-wav2lip", (k, k + 3)),
            ("FVFA", "fsgan-wav2lip", (k,)),
        ):  # fmt: skip
            name = f"{category}/id{k}/{method or 'real'}_{k}x.mp4"
            rows.append(
                Row(
                    f"/data/set/{name}",
                    label=int(bool(method)),
                    method=method,
                    category=category,
                    identities=tuple(f"id{p % num}" for p in who),
                    id=f"fakeavceleb:x/{name}",
                    corpus="fakeavceleb:x",
                )
            )
    return manifest.with_groups(rows)


def test_seeds_give_other_splits():
    assert len({tuple(sorted(splits(many(), "favc-70-30", seed=seed).of.items())) for seed in range(3)}) == 3


def test_70_30_has_the_shares_of_each_kind():
    chosen = splits(many(), "favc-70-30").rows(many())
    count = Counter((row.category, row.method, row.split) for row in chosen)
    assert {(k[2], n) for k, n in count.items()} == {("train", 42), ("test", 18)}


@pytest.mark.parametrize("name", protocols.LEFT_OUT)
def test_what_is_left_out_is_the_whole_test_and_its_reals_are_new(name):
    category, method = protocols.LEFT_OUT[name]
    chosen = splits(many(), f"favc-loco-{name}").rows(many())
    fakes = [row for row in chosen if row.label]
    assert {(row.category, row.method) for row in fakes if row.split == "test"} == {(category, method)}
    assert sum(row.split == "test" for row in fakes) == 60
    assert sum(row.split == "train" for row in fakes) == 6 * 60
    reals = {split: {row.id for row in chosen if not row.label and row.split == split} for split in ("train", "test")}
    assert (len(reals["train"]), len(reals["test"])) == (42, 18)


def test_five_folds_test_each_person_once_and_draw_one_clip_a_category():
    tests = [[row for row in splits(many(), f"favc-folds-{k}").rows(many()) if row.split == "test"] for k in range(5)]
    people = [{row.identities[0] for row in rows} for rows in tests]
    assert [len(some) for some in people] == [12] * 5
    assert len(set().union(*people)) == 60
    assert Counter(row.category for rows in tests for row in rows) == dict.fromkeys(
        ("RVRA", "RVFA", "FVRA", "FVFA"), 60
    )
    whole = splits(many(), "favc-folds-0")
    sources = {}
    for row in whole.rows(many()):
        assert sources.setdefault(row.identities[0], row.split) == row.split
    assert whole.left_out == {"not drawn: one clip per person and category": 60 * 4}


def test_groups_stay_whole_where_they_can_and_are_dealt_by_person_where_one_is_too_big():
    apart = [row for row in many() if len(row.identities) == 1]
    found = splits(manifest.with_groups([dataclasses.replace(row, group="") for row in apart]), "groups")
    assert not found.left_out
    shares = Counter(found.of.values())
    assert [round(shares[s] / len(apart), 1) for s in ("train", "val", "test")] == [0.7, 0.1, 0.2]
    linked = [
        Row(
            f"/d/s/{k}_{p}a.mp4",
            label=1,
            method="m",
            identities=(f"p{k}", f"p{p}"),
            id=f"c:x/{k}-{p}",
            corpus="c:x",
        )
        for k in range(30)
        for p in range(k)
    ]
    found = splits(manifest.with_groups(linked), "groups", Options((50, 0, 50)))
    assert "assigned one by one" in found.notes[0]
    assert found.left_out["people on two sides"] == 15 * 15
    assert Counter(found.of.values()) == {"train": 15 * 14 // 2, "test": 15 * 14 // 2}


def cmdfd():
    rows = []
    for k in range(40):
        for method, who in [("", (k,))] + [
            (t + s, (k, k if s else k + 1)) for t in protocols.TYPES for s in ("", "_Self")
        ]:
            rows.append(
                Row(
                    f"/m/c/{method or 'origin'}/id{k}_{who[-1]}y.mp4",
                    label=int(bool(method)),
                    method=method,
                    category="FVRA" if method else "RVRA",
                    identities=tuple(dict.fromkeys(f"id{p % 40}" for p in who)),
                    id=f"cmdfd:c/{method}/{k}",
                    corpus="cmdfd:c",
                )
            )
    return manifest.with_groups(rows)


@pytest.mark.parametrize("name", protocols.TYPES)
def test_one_cmdfd_type_trains_and_the_others_test(name):
    chosen = splits(cmdfd(), f"cmdfd-{name}").rows(cmdfd())
    train = {row.method.removesuffix("_Self") for row in chosen if row.label and row.split == "train"}
    test = {row.method.removesuffix("_Self") for row in chosen if row.label and row.split == "test"}
    assert (train, test) == ({name}, set(protocols.TYPES) - {name})


def test_across_corpora_one_trains_and_the_rest_tests():
    both = manifest.with_groups([*many(), *cmdfd()])
    for name, options in (("cmdfd-from-favc", None), ("cross-corpus", Options(train_on="fakeavceleb"))):
        sides = {(row.corpus, row.split) for row in splits(both, name, options).rows(both)}
        assert sides == {("fakeavceleb:x", "train"), ("cmdfd:c", "test")}
        clean = splits(both, f"{name}-clean", options)
        people = {s: {p for r in clean.rows(both) if r.split == s for p in r.identities} for s in ("train", "test")}
        assert not people["train"] & people["test"]
        assert clean.left_out["people of the test"]


def test_own_leaves_a_real_clip_on_its_later_side_alone():
    rows = [
        Row("/d/TRAIN/a/real_7z.mp4", label=0, identities=("p",), split="train", id="c/1", corpus="c"),
        Row("/d/TEST/a/real_7z.mp4", label=0, identities=("p",), split="test", id="c/2", corpus="c"),
        Row("/d/TEST/a/other_8z.mp4", label=0, split="", id="c/3", corpus="c"),
    ]
    found = splits(rows, "own")
    assert found.of == {"c/2": "test"}
    assert found.notes == ("test has no fake clip",)
    assert found.left_out == {"no split of its own": 1, "real on an earlier side too": 1}


def test_clips_that_are_numbered_alike_are_not_taken_for_copies():
    rows = [Row(f"/d/{k}/train/video.mp4", label=0, id=f"c/{k}", corpus="c", split="train") for k in range(50)]
    assert len(splits(rows, "own").of) == 50


@pytest.mark.parametrize(
    ("rows", "name", "says"),
    [
        (many(), "favc", "there are own, groups, favc-70-30"),
        (many(), "cmdfd-Wav2Lip", "needs clips of a corpus cmdfd:; there are fakeavceleb:x"),
        (many(), "own", "no clip has one"),
        (many(), "cross-corpus", "--train-on names the training corpus"),
        (many(), "cmdfd-from-favc", "and one more"),
        ([row for row in many() if row.method != "rtvc"], "favc-loco-RVFA", "found no clip to t.* FVFA wav2lip"),
    ],
)  # fmt: skip
def test_a_protocol_that_cannot_be_made_says_what_it_needs(rows, name, says):
    with pytest.raises(ManifestError, match=says):
        splits(rows, name)


# -- speakers -------------------------------------------------------------------------------------------------------------


def reals(**speakers):
    """So many real clips of each speaker."""
    return manifest.with_groups(
        [
            Row(f"/x/{name}/{k}.mp4", id=f"c/{name}/{k}", corpus="c", label=0, identities=(name,))
            for name, count in speakers.items()
            for k in range(count)
        ]
    )


def sides(found, rows):
    """Splits by speaker."""
    return {row.group: {found.of[r.id] for r in rows if r.group == row.group} for row in rows if row.id in found.of}


@pytest.mark.parametrize(
    "counts", [{"a": 5, "b": 5, "c": 5}, {"a": 90, "b": 3, "c": 3, "d": 3}, dict.fromkeys("abcdefghij", 4)]
)
def test_speakers_of_a_real_corpus_stay_whole_and_every_split_has_one(counts):
    rows = reals(**counts)
    found = splits(rows, "speakers")
    assert all(len(some) == 1 for some in sides(found, rows).values())
    assert set(found.of.values()) == {"train", "val", "test"}
    assert len(found.of) == len(rows)
    assert any("speakers stay whole" in note for note in found.notes)
    assert not any("has no fake" in note for note in found.notes)


def test_one_speaker_is_split_by_clip_and_that_is_said():
    rows = reals(s1=40)
    found = splits(rows, "speakers")
    assert Counter(found.of.values()) == {"train": 28, "val": 4, "test": 8}
    assert "says nothing about other people" in found.notes[0]
    assert "s1" in found.notes[0]
    with pytest.raises(ManifestError, match="2 clips cannot be divided"):
        splits(reals(s1=2), "speakers")


def test_nobody_named_is_split_by_clip_and_unlabelled_clips_too():
    rows = manifest.with_groups([Row(f"/x/{k}.mp4", id=f"c/{k}", corpus="c") for k in range(20)])
    found = splits(rows, "speakers")
    assert len(found.of) == 20
    assert "no clip names its speaker" in found.notes[0]


def test_forged_clips_go_with_their_speaker():
    rows = [*reals(**dict.fromkeys("abcdef", 3))]
    rows += [dataclasses.replace(row, id=row.id + "f", path=row.path + "f", label=1, method="m") for row in rows]
    found = splits(rows, "speakers")
    assert all(len(some) == 1 for some in sides(found, rows).values())


def test_folders_of_a_folder_are_taken_for_speakers(tmp_path):
    for name in ("real/ann/1", "real/ann/2", "real/bob/1", "real/cid/1", "fake/lipsync/ann/1", "real/loose"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.mp4").touch()
    rows = manifest.load(f"folder:{tmp_path}", "f")
    assert {row.id: row.group for row in rows}["f/fake/lipsync/ann/1.mp4"] == "ann"
    found = splits(rows, "speakers")
    ann = {found.of[row.id] for row in rows if row.group == "ann"}
    assert len(ann) == 1
    assert any("each taken for one speaker" in note for note in found.notes)
    assert any("1 clip names no speaker and was assigned" in note for note in found.notes)


def test_a_grid_root_may_hold_several_speakers(tmp_path):
    for name in ("s1/clips/a", "s1/clips/b", "s2/clips/a", "s3/clips/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.mp4").touch()
    rows = manifest.load(f"grid:{tmp_path}", "g")
    assert [(row.id, row.identities) for row in rows][:2] == [
        ("g/s1/clips/a.mp4", ("s1",)),
        ("g/s1/clips/b.mp4", ("s1",)),
    ]
    assert set(splits(rows, "speakers").of.values()) == {"train", "val", "test"}


def test_a_manifest_written_and_read_again_gives_the_same_splits(tmp_path):
    rows = [dataclasses.replace(row, source="a page", path=f"/x/{k}.mp4") for k, row in enumerate(reals(a=3, b=3, c=3))]
    rows = manifest.complete(rows, "c", tmp_path)
    for name in ("m.csv", "m.parquet"):
        manifest.write(rows, tmp_path / name)
        assert manifest.load(f"csv:{tmp_path / name}", "another") == rows
        assert (
            splits(manifest.load(f"csv:{tmp_path / name}"), "speakers", seed=2).of
            == splits(rows, "speakers", seed=2).of
        )


# -- sources --------------------------------------------------------------------------------------------------------------


def of_sources(some):
    return [
        Row(
            path=f"{k}.mp4", label=label, method="m" * label, source=source and f"s{source}", corpus="c", id=f"c/{k}",
            identities=(f"p{person}",), group=f"g{person % 6}",
        )
        for k, (label, source, person) in enumerate(some)
    ]  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(
    some=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 19)), min_size=2, max_size=40),
    out=st.sampled_from(["0", "1", "4", "s2"]),
    seed=st.integers(0, 3),
)
def test_sources_of_validation_and_test_are_not_in_training(some, out, seed):
    rows = of_sources(some)
    found = made(rows, "leave-one-source-out", seed, Options(leave_out=out))
    if found is None:
        return
    assert len(found.of) + sum(found.left_out.values()) == len(rows)
    sides, groups, people = {}, {}, {}
    size = Counter(row.group for row in rows)
    for row in found.rows(rows):
        if row.split:
            assert sides.setdefault(row.source or row.corpus, row.split) == row.split
            assert people.setdefault(row.identities, row.split) == row.split
            if size[row.group] <= len(rows) / 2:  # else it links nearly everybody, and people are told apart by name
                assert groups.setdefault(row.group, row.split) == row.split
    if out == "s2":
        assert {name for name, side in sides.items() if side == "test"} == {"s2"}


def test_each_source_is_in_the_test_of_one_fold():
    rows = of_sources([(k % 2, k % 8, k) for k in range(64)])
    rows = [dataclasses.replace(row, group=row.id, identities=()) for row in rows]
    tests = [splits(rows, "leave-one-source-out", Options(leave_out=str(k))) for k in range(5)]
    tested = [{row.source for row in found.rows(rows) if row.split == "test"} for found in tests]
    assert sum(len(names) for names in tested) == len(set().union(*tested)) == 8
    for found in tests:
        assert set(found.of.values()) == {"train", "val", "test"}
        assert any(note.startswith("test on ") for note in found.notes)


def test_a_source_or_fold_that_is_not_there_is_said():
    rows = of_sources([(0, 1, 1), (1, 2, 2), (0, 3, 3)])
    for wrong in ("3", "s9"):
        with pytest.raises(
            ManifestError, match=f"takes a fold, 0 to 2, a source, or none, not {wrong}; there is s1, s2, s3"
        ):
            splits(rows, "leave-one-source-out", Options(leave_out=wrong))
    with pytest.raises(ManifestError, match="needs clips of two sources; all are of s1"):
        splits(rows[:1], "leave-one-source-out")


def test_a_detector_for_use_needs_no_test():
    rows = of_sources([(k % 2, k % 8, k) for k in range(64)])
    rows = [dataclasses.replace(row, group=row.id, identities=()) for row in rows]
    found = splits(rows, "leave-one-source-out", Options(leave_out="none"))
    assert len(found.of) == len(rows)
    assert set(found.of.values()) == {"train", "val"}
    assert "no test" in found.notes


@pytest.mark.parametrize("out", ["none", "s1"])
def test_validation_has_as_many_people_as_verdicts_on_strangers_take(out):
    """One source of a few clips has a tenth of the forged ones, and next to nobody."""
    some = [(0, 1 + k % 9, k) for k in range(54)] + [(1, 10 + k % 3, 100 + k) for k in range(30)]
    rows = [dataclasses.replace(row, group=row.id) for row in of_sources(some)]
    for seed in range(5):
        found = splits(rows, "leave-one-source-out", Options(leave_out=out), seed).rows(rows)
        real = {row.identities for row in found if row.split == "val" and row.label == 0}
        assert 20 <= len(real) <= 30


def test_validation_leaves_most_clips_of_both_classes_to_train():
    """A source with most real clips must not make a tenth of the clips mean all other sources."""
    some = [(0, 0, 100 + k) for k in range(300)] + [(k % 2, 1 + k % 4, 500 + k // 2) for k in range(60)]
    rows = [dataclasses.replace(row, group=row.id, identities=()) for row in of_sources(some)]
    for seed in range(4):
        found = splits(rows, "leave-one-source-out", Options(leave_out="s1"), seed)
        kept = Counter((row.split, row.label) for row in found.rows(rows))
        assert kept["train", 1] >= kept["val", 1] > 0
        assert kept["train", 0] > 200


def test_a_misspelt_protocol_names_the_near_one():
    with pytest.raises(ManifestError, match=r"did you mean speakers\?"):
        protocols.splits([Row("/a.mp4", id="a")], "speaker", protocols.Options(), 0)
