"""The manifest command: manifests made, checked, put together and chosen; splits and matched test sets that a run accepts."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import trees
from click.testing import CliRunner
from small_store import make_store

import store
from concord.__main__ import main as concord
from pipelines.audit import leaks
from pipelines.corpora import manifest
from pipelines.corpora.faults import Fault
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row
from pipelines.manifest import edit as manifest_edit
from pipelines.manifest import summary
from pipelines.manifest.__main__ import main
from pipelines.manifest.protocols import splits
from student.data.splits import split

ROOT = Path(__file__).parents[3]


def run(*options, code=0):
    """What the command says, after a look at its exit code."""
    found = CliRunner().invoke(main, [str(option) for option in options])
    assert found.exit_code == code, found.output
    return found.output


def some(num=40, corpus="c:x"):
    rows = []
    for k in range(num):
        fake = k % 2
        rows.append(
            Row(
                f"/data/set/id{k // 2}/clip_{k}z.mp4",
                audio_path=f"/data/set/id{k // 2}/clip_{k}z.wav" if fake else "",
                label=fake,
                audio_fake=0,
                video_fake=fake,
                method="abc"[k % 3] if fake else "",
                category="FVRA" if fake else "RVRA",
                identities=(f"id{k // 2}",),
                split="train" if k < num * 0.7 else "test",
                id=f"{corpus}/{k}",
                corpus=corpus,
                listed_frames=50.0 + k,
                listed_fps=25.0,
                listed_samples=640.0 * (50 + k),
                listed_sample_rate=16000.0,
            )
        )
    return manifest.with_groups(rows)


def written(tmp_path, rows, name="m.csv"):
    manifest.write(rows, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_corpora_become_a_manifest_that_reads_back_the_same(tmp_path, suffix):
    root, out = trees.fakeavceleb(tmp_path / "t"), tmp_path / f"m.{suffix}"
    said = run("--corpus", f"fakeavceleb:{root}", "-o", out)
    assert manifest.load(f"csv:{out}") == manifest.load(f"fakeavceleb:{root}")
    assert "4 rows" in said
    assert "fault missing_media: 1" in said


def test_the_summary_counts_clips_people_and_hours_of_each_kind(tmp_path):
    said = run("--manifest", written(tmp_path, some()))
    lines = [line.split() for line in said.splitlines()]
    assert ["label", "category", "method", "train", "test", "clips", "people", "hours"] in lines
    assert ["real", "RVRA", "-", "14", "6", "20", "20", "0.0"] in lines
    assert ["all", "-", "-", "28", "12", "40", "20", "0.0"] in lines


def test_several_inputs_are_put_together_and_grouped_anew(tmp_path):
    one, two = some(4, "c:one"), some(4, "c:two")
    run("--manifest", written(tmp_path, one), "--manifest", written(tmp_path, two, "n.csv"), "-o", tmp_path / "o.csv")
    both = manifest.read(tmp_path / "o.csv")
    assert {row.id for row in both} == {row.id for row in one + two}
    assert {row.group for row in both} == {"id0", "id1"}


def test_an_id_of_two_inputs_is_one_clear_error_and_nothing_is_written(tmp_path):
    first, second = written(tmp_path, some(4)), written(tmp_path, some(2), "n.csv")
    said = run("--manifest", first, "--manifest", second, "-o", tmp_path / "o.csv", code=2)
    assert "both have the id c:x/0" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "o.csv").exists()


def test_where_keeps_or_drops_by_value():
    rows = some()
    assert {row.method for row in manifest_edit.where(rows, "method=a,c")} == {"a", "c"}
    assert {row.label for row in manifest_edit.where(rows, "method=real")} == {0}
    assert {row.method for row in manifest_edit.where(rows, "method!=a")} == {"", "b", "c"}
    assert len(manifest_edit.where(rows, "label=fake")) == len(manifest_edit.where(rows, "label=1")) == 20
    assert len(manifest_edit.where(rows, "corpus=c")) == len(manifest_edit.where(rows, "corpus=c:x")) == 40
    assert {row.id for row in manifest_edit.where(rows, "identities=id1")} == {"c:x/2", "c:x/3"}
    for wrong, says in (
        ("method=wav2lip", 'no row has the method "wav2lip"; there are , a, b'),
        ("size=1", "fields are"),
    ):
        with pytest.raises(ManifestError, match=says):
            manifest_edit.where(rows, wrong)


def test_rows_with_a_fault_can_be_dropped(tmp_path):
    rows = [
        Row("/a", id="c/a", faults=(Fault("bad_segment", "x"),)),
        Row("/b", id="c/b", faults=(Fault("missing_media", "y"),)),
    ]
    said = run("--manifest", written(tmp_path, rows), "--drop-fault", "missing_media", "-o", tmp_path / "o.csv")
    assert "--drop-fault missing_media: 1 row dropped" in said
    assert [row.path for row in manifest.read(tmp_path / "o.csv")] == ["/a"]


def test_remap_moves_picture_and_sound_and_drops_faults_of_what_is_there(tmp_path):
    trees.touch(tmp_path / "new", "a.mp4", "a.wav", "b.mp4")
    gone = (Fault("missing_media", "not there"), Fault("listed_twice", "two lines"))
    rows = [
        Row("/old/a.mp4", audio_path="/old/a.wav", id="c/a", corpus="c", faults=gone),
        Row("/old/b.mp4", audio_path="/old/b.wav", id="c/b", corpus="c", faults=gone),
        Row("/old/c.mp4", id="c/c", corpus="c", faults=gone),
        Row("/older/d.mp4", id="c/d", corpus="c", faults=gone),
        Row(
            str(tmp_path / "new" / "b.mp4"),
            audio_path="/old/a.wav",
            id="c/e",
            faults=(Fault("missing_sound", "not there"),),
        ),
    ]
    run("--manifest", written(tmp_path, rows), "--remap", f"/old={tmp_path}/new", "-o", tmp_path / "o.csv")
    a, b, c, d, e = manifest.read(tmp_path / "o.csv")
    assert (a.path, a.audio_path) == (f"{tmp_path}/new/a.mp4", f"{tmp_path}/new/a.wav")
    assert a.faults == gone[1:]
    assert [fault.kind for fault in b.faults] == ["listed_twice", "missing_sound"]
    assert (c.path, c.faults) == (f"{tmp_path}/new/c.mp4", gone)
    assert (d.path, d.faults) == ("/older/d.mp4", gone)
    assert e.faults == ()
    assert [row.id for row in (a, b, c, d)] == [row.id for row in rows[:4]]


def test_remap_of_a_folder_that_no_row_has_is_an_error_that_says_what_there_is(tmp_path):
    said = run("--manifest", written(tmp_path, some(2)), "--remap", "/dat=/x", code=2)
    assert "no path begins with the folder /dat; most begin with /data/set/id0" in said
    assert "OLD=NEW" in run("--manifest", written(tmp_path, some(2)), "--remap", "/data", code=2)


def test_validate_finds_every_value_that_cannot_be_used(tmp_path):
    (tmp_path / "m.csv").write_text(
        "path,label,split,video_segments,listed_fps,id\n"
        'a.mp4,2,dev,,,\nb.mp4,1,,"[[2, 1]]",fast,\nc.mp4,0,,,,x\nd.mp4,0,,,,x\n,0,,,,\n'
    )
    said = run("--manifest", tmp_path / "m.csv", "--validate", code=2)
    for kind in ("bad_label", "bad_split", "bad_video_segments", "bad_listed_fps", "no_path", "double_id"):
        assert f"1 {kind}: " in said
    assert "unusable: 6 values" in said


def test_validate_says_what_is_wrong_with_rows_that_can_be_used(tmp_path):
    trees.touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4")
    columns = "path,audio_path,label,audio_fake,video_fake,category,video_segments,listed_frames,listed_fps,faults\n"
    (tmp_path / "m.csv").write_text(
        columns + "a.mp4,,0,1,,,,,,\n"  # contradicts itself
        'b.mp4,,1,0,1,FVRA,"[[1, 9]]",50,25,\n'  # a part after the end
        "c.mp4,c.wav,0,,,,,,,\n"  # no sound
        'd.mp4,,,,,,,,,"[""listed_twice: twice""]"\n'  # no label
        'e.mp4,,0,,,,"[[0, 1]]",,,\n'  # real with a forged part
        "f.mp4,,1,1,0,FVRA,,,,\n"  # no file, and another category
        "s3://bucket/g.mp4,,0,,,,,,,\n"
    )
    said = run("--manifest", tmp_path / "m.csv", "--validate", code=3)
    count = dict(line.split(" ")[::-1] for line in said.splitlines() if line[0].isdigit() and line.count(" ") == 1)
    assert count == {
        "label_conflict": "3", "late_segment": "1", "missing_sound": "1", "label_unknown": "1", "listed_twice": "1",
        "missing_media": "1",
    }  # fmt: skip
    assert "1 clip is in a bucket" in said
    (tmp_path / "clean.csv").write_text("path,label\na.mp4,0\n")
    assert run("--manifest", tmp_path / "clean.csv", "--validate") == "1 clean row\n"


def test_validate_and_remap_together_look_where_files_are_now(tmp_path):
    trees.touch(tmp_path / "new", "a.mp4")
    file = written(
        tmp_path, [Row("/old/a.mp4", label=0, id="c/a", corpus="c", faults=(Fault("missing_media", "gone"),))]
    )
    run("--manifest", file, "--validate", code=3)
    run("--manifest", file, "--validate", "--remap", f"/old={tmp_path}/new")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_splits_of_a_protocol_are_accepted_by_the_trainer(tmp_path, suffix):
    path = make_store(tmp_path / "s.zarr", {"": 12}, fakes=4, frames=20)
    reader = store.open(path)
    c = reader.clips
    rows = [
        Row(str(c["path"][k]), label=int(c["label"][k]), method=str(c["method"][k]), group=str(k % 8), id=str(name))
        for k, name in enumerate(c["id"])
    ]
    rows = [Row(**{**vars(row), "id": f"c/{row.id}", "corpus": "c"}) for row in rows]
    out = tmp_path / f"splits.{suffix}"
    run("--manifest", written(tmp_path, rows), "--protocol", "groups", "--shares", "50,25,25", "-o", out)
    table = pd.read_parquet(out) if suffix == "parquet" else pd.read_csv(out)
    assert list(table.columns) == ["id", "split", "weight"]
    table["id"] = table["id"].str.removeprefix("c/")  # the small store's ids have no corpus
    table.to_parquet(out) if suffix == "parquet" else table.to_csv(out, index=False)
    got = split(reader, out)
    assert got.by == "file"
    assert {name: len(found) for name, found in got.rows.items()} == dict(Counter(table["split"]))


def test_a_protocol_says_what_it_left_out_and_what_still_leaks(tmp_path):
    rows = some()
    rows.append(Row(**{**vars(rows[-1]), "path": "/data2/set/id19/clip_39z.mp4", "id": "c:x/again"}))
    said = run("--manifest", written(tmp_path, rows), "--protocol", "own")
    assert "without: 1 listed again" in said
    assert "nothing that was compared is on two sides" in said
    rows[0] = Row(**{**vars(rows[0]), "split": "test"})
    assert "leak: 1 of 7 people" in run("--manifest", written(tmp_path, rows), "--protocol", "own")


def test_protocols_are_listed_with_a_line_each_and_an_unknown_one_lists_them(tmp_path):
    said = run("--protocol", "list")
    names = [line.split()[0] for line in said.splitlines()]
    assert {"own", "favc-70-30", "favc-loco-FVRA-GAN", "favc-folds-4", "cmdfd-Wav2Lip", "cross-corpus"} <= set(names)
    assert all(len(line.split()) > 3 for line in said.splitlines())
    said = run("--manifest", written(tmp_path, some(4)), "--protocol", "best", code=2)
    assert all(name in said for name in names)


def test_match_writes_a_test_set_and_tells_what_is_left_of_each_method(tmp_path):
    said = run("--manifest", written(tmp_path, some()), "--match", "-o", tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv")
    assert set(table["split"]) == {"test"}
    assert (table["weight"] > 0).all()
    assert [line.split()[0] for line in said.splitlines()[2:6]] == ["a", "b", "c", "all"]


def test_match_after_a_protocol_leaves_training_alone(tmp_path):
    said = run("--manifest", written(tmp_path, some()), "--protocol", "own", "--match", "-o", tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv")
    assert (table["split"] == "train").sum() == 28
    fake = table["id"].str.rpartition("/")[2].astype(int) % 2 == 1
    test = table["split"] == "test"
    assert (fake & test).sum() == table["weight"][~fake & test].sum() == 6  # as many pairs, some of one real
    assert "2 of 6" in said


def test_match_needs_names_and_the_output_a_place(tmp_path):
    file = written(tmp_path, some(4))
    assert "takes names of nuisances" in run("--manifest", file, "--match", "", code=2)
    assert "cannot be written" in run("--manifest", file, "-o", file / "x.csv", code=2)


def test_match_of_what_differs_altogether_writes_nothing_and_says_so(tmp_path):
    rows = [Row(**{**vars(row), "listed_samples": row.listed_samples + 5000 * row.label}) for row in some()]
    said = run("--manifest", written(tmp_path, rows), "--match", "length_difference", "-o", tmp_path / "t.csv", code=2)
    assert "a: rows kept 0" in said
    assert "no test clips with equal" in said
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_is_drawn_with_and_without_lengths(tmp_path, suffix):
    for rows in (some(), [Row("/a.mp4", id="c/a", corpus="c")]):
        run("--manifest", written(tmp_path, rows), "--picture", tmp_path / f"p.{suffix}")
        start = (tmp_path / f"p.{suffix}").read_bytes()[:60]
        assert start.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    run("--manifest", written(tmp_path, some(4)), "--picture", tmp_path / "p.pdf", code=2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "name a --corpus"),
        (["--manifest", "m.csv", "--validate", "-o", "x.csv"], "only checks"),
        (["--manifest", "m.csv", "--protocol", "groups", "--shares", "1,2"], "70,10,20"),
        (["--manifest", "m.csv", "--protocol", "groups", "--shares", "0,0,0"], "must be above 0"),
        (["--manifest", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--manifest", "nowhere.csv", "--validate"], "nowhere.csv does not exist"),
    ],
)
def test_wrong_options_say_what_to_do(options, says):
    assert says in run(*options, code=2)


def test_the_module_and_concord_run_the_same_command(tmp_path):
    file = written(tmp_path, some(4))
    command = [sys.executable, "-m", "pipelines.manifest", "--manifest", str(file), "-o", str(tmp_path / "o.parquet")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stderr == ""
    assert manifest.load(f"csv:{tmp_path}/o.parquet") == manifest.load(f"csv:{file}")
    said = CliRunner().invoke(
        concord, ["manifest", "--manifest", str(file), "-o", str(tmp_path / "o.parquet"), "--overwrite"]
    )
    assert said.output == found.stdout


@pytest.fixture(scope="module")
def favc(shared):
    return manifest.load(f"cmdfd_favc:{shared}/data/cmdfd_lists")


@pytest.mark.golden
def test_published_fakeavceleb_lists_hold_18469_clips_and_70_30_leaks_everyone(favc, tmp_path):
    assert len(set(leaks.first_copies(favc))) == 18469
    file = written(tmp_path, favc, "m.parquet")
    said = run("--manifest", file, "--protocol", "favc-70-30", "-o", tmp_path / "s.csv")
    assert "without: 5,050 listed again" in said
    assert "490 of 490 people in test are also in train" in said
    assert len(pd.read_csv(tmp_path / "s.csv")) == 18469
    assert leaks.find(splits(favc, "favc-70-30-clean").rows(favc)) == []


@pytest.mark.golden
def test_published_fakeavceleb_lists_keep_swaps_alone_once_length_no_longer_tells(favc, tmp_path):
    said = run("--manifest", written(tmp_path, favc, "m.parquet"), "--match", "-o", tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv").merge(pd.DataFrame(map(vars, favc))[["id", "method"]])
    count = Counter(table["method"].fillna(""))
    assert count["fsgan"] == count[""] == 489
    assert count["faceswap"] >= 460
    assert set(count) == {"", "fsgan", "faceswap"}
    for method in ("wav2lip", "faceswap-wav2lip", "fsgan-wav2lip", "rtvc"):
        assert f"{method}: rows kept 0" in said


@pytest.mark.golden
def test_published_lists_train_on_fakeavceleb_and_test_on_cmdfd(favc, shared):
    cmdfd = manifest.load(f"cmdfd:{shared}/data/cmdfd_lists")
    both = manifest.with_groups(favc + cmdfd)
    found = splits(both, "cmdfd-from-favc")
    assert Counter(found.of.values()) == {"train": 18469, "test": 8792}
    assert leaks.find(found.rows(both))[-1].text().startswith("74 of 1,000 people in test are also in train")
    assert leaks.find(splits(both, "cmdfd-from-favc-clean").rows(both)) == []
    found = splits(both, "cmdfd-Wav2Lip")
    assert Counter(found.of.values()) == {"train": 998 + 996 + 700, "test": 7792 - 1994 + 300}


def test_the_summary_does_not_call_clips_people():
    clips = [Row(f"/d/{k}.mp4", id=f"c/{k}", corpus="c", group=f"c/{k}") for k in range(4)]
    assert list(summary.summary(clips))[-1] == "4 rows; no people are named; each clip is its own group"
    two = [replace(row, group=f"g{k % 2}") for k, row in enumerate(clips)]
    assert list(summary.summary(two))[-1].startswith(
        "4 rows; no people are named; 2 groups of clips, the biggest holds 50"
    )
    named = [replace(row, identities=(row.group,)) for row in two]
    assert "2 groups of people" in list(summary.summary(named))[-1]
