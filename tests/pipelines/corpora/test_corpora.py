"""Adapters on small trees in the published layouts: each fault is told, nothing crashes, no clip is lost."""

from pathlib import Path

import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.audit.measurer import Measurer
from pipelines.corpora import (
    avdeepfake1m,
    cmdfd,
    dfdc,
    faceforensics,
    fakeavceleb,
    fields,
    join,
    kodf,
    lavdf,
    lrs3,
    manifest,
    polyglotfake,
    voxceleb2,
)
from pipelines.manifest import check


def read(adapter, root, tmp_path):
    """{id: row}, completed, after a way through a manifest file that must change nothing."""
    rows = manifest.complete(adapter.rows(root), "c:x", root)
    manifest.write(rows, tmp_path / "round.csv")
    assert manifest.read(tmp_path / "round.csv") == rows
    return {row.id.removeprefix("c:x/"): row for row in rows}


def kinds(row):
    return {fault.kind for fault in row.faults}


def test_fakeavceleb(tmp_path):
    got = read(fakeavceleb, trees.fakeavceleb(tmp_path / "t"), tmp_path)
    fake = got["FakeVideo-FakeAudio/Asian (East)/men/id00001/00001_id00002_id00003_wavtolip.mp4"]
    assert (fake.label, fake.category, fake.method, kinds(fake)) == (1, "FVFA", "wav2lip", {"listed_twice"})
    assert fake.identities == ("id00001", "id00002", "id00003")
    assert "Asian_East" in fake.path
    assert kinds(got["FakeVideo-FakeAudio/Asian (East)/men/id00001/00009_id00004_wavtolip.mp4"]) == {"not_listed"}
    assert kinds(got["RealVideo-FakeAudio/Asian (East)/men/id00001/gone.mp4"]) == {"missing_media"}
    assert got["RealVideo-RealAudio/Asian (East)/men/id00001/00001.mp4"].label == 0
    assert len(got) == 4


def test_fakeavceleb_ids_do_not_depend_on_how_race_folders_are_spelled(tmp_path):
    names = ("Asian (East)", "Asian_East", "Asian-East")
    found = [set(read(fakeavceleb, trees.fakeavceleb(tmp_path / n, n), tmp_path)) for n in names]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("columns", ["path,", "filename,path", "filename,folder"])
def test_fakeavceleb_tells_each_fault_and_reads_renamed_columns(tmp_path, columns):
    got = read(fakeavceleb, trees.fakeavceleb_faults(tmp_path / "t", columns), tmp_path)
    told = {path.rpartition("/")[2]: kinds(row) for path, row in got.items() if "Asian_East" not in path}
    assert told == {
        "conflict_wavtolip.mp4": {"label_conflict"},
        "real.mp4": {"label_conflict"},
        "twice.mp4": {"listed_twice", "list_conflict"},
        "two_spellings.mp4": set(),
        "no_hint.mp4": {"method_unknown", "not_listed"},
    }
    again = got["RealVideo-RealAudio/Asian_East/men/id00001/two_spellings.mp4"]
    assert (again.label, kinds(again)) == (0, {"found_twice"})
    twice = got["FakeVideo-RealAudio/Asian (East)/men/id00001/twice.mp4"]
    assert (twice.method, twice.identities) == ("faceswap", ("id00001", "id00002"))
    assert len(got) == 6


def test_fakeavceleb_double_lines_are_one_clip_each(tmp_path):
    got = read(fakeavceleb, trees.fakeavceleb_doubles(tmp_path / "t"), tmp_path)
    assert len(got) == 44
    assert sum(kinds(row) == {"listed_twice"} for row in got.values()) == 22
    assert sum(row.faults == () for row in got.values()) == 22


def test_fakeavceleb_with_both_spellings_of_a_race_and_no_list_keeps_both_clips(tmp_path):
    trees.touch(tmp_path / "t", *(f"RealVideo-RealAudio/Asian{mark}East/men/id00001/a.mp4" for mark in "-_"))
    got = read(fakeavceleb, tmp_path / "t", tmp_path)
    assert sorted(map(sorted, map(kinds, got.values()))) == [[], ["found_twice"]]


def test_fakeavceleb_of_v1_0_needs_no_list(tmp_path):
    root = tmp_path / "t"
    trees.touch(root, "FAKE_FSGAN_C/Asian/MEN/id00001/yt/00001_id00002_x.mp4", "REAL_A/Asian/MEN/id00001/yt/00001.mp4")
    got = read(fakeavceleb, root, tmp_path)
    assert sorted((row.label, row.category, row.method) for row in got.values()) == [
        (0, "RVRA", ""),
        (1, "FVRA", "fsgan"),
    ]


def test_lavdf(tmp_path):
    for name in lavdf.LISTS:
        got = read(lavdf, trees.lavdf(tmp_path / name, name), tmp_path)
        assert len(got) == 6
        assert got["dev/2.mp4"].audio_segments == ((1.0, 1.5),)
        assert (got["dev/2.mp4"].split, got["dev/2.mp4"].group) == ("val", got["train/1.mp4"].group)
        assert kinds(got["dev/2.mp4"]) == {"listed_twice"}
        assert kinds(got["dev/3.mp4"]) == {"declared_rate", "label_conflict"}
        assert kinds(got["dev/4.mp4"]) == {"bad_segment", "no_audio"}
        assert kinds(got["test/5.mp4"]) == {"missing_media"}
        assert kinds(got["dev/6.mp4"]) == {"not_listed"}


def test_avdeepfake1m(tmp_path):
    got = read(avdeepfake1m, trees.avdeepfake1m(tmp_path / "t"), tmp_path)
    both = got["train/id00001/yt/1/both.mp4"]
    assert (both.category, both.audio_segments, both.video_segments) == ("FVFA", ((0.5, 1.0),), ((1.0, 1.5),))
    assert kinds(both) == {"listed_twice"}
    moved = got["val/vox_celeb_2/id00002/yt/1/a.mp4"]
    assert (moved.category, moved.faults) == ("RVFA", ())
    assert moved.path.endswith("moved/vox_celeb_2/id00002/yt/1/a.mp4")
    assert kinds(got["val/lrs3/abc/1/x.mp4"]) == {"label_unknown", "missing_media"}
    assert got["test/000001.mp4"].label == -1
    assert kinds(got["train/id00001/yt/1/extra.mp4"]) == {"not_listed"}
    assert len(got) == 6


def test_avdeepfake1m_reads_one_json_a_clip(tmp_path):
    got = read(avdeepfake1m, trees.avdeepfake1m_clip_by_clip(tmp_path / "t"), tmp_path)
    start = "train/id00001/yt/1/"
    assert {path.removeprefix(start).removesuffix(".mp4"): kinds(row) for path, row in got.items()} == {
        "real": {"found_twice"},
        "moved/id00001/yt/1/real": {"not_listed"},
        "unnamed": set(),
        "forged_real": {"label_conflict"},
        "whole": {"no_segments"},
        "late": {"late_segment"},
        "bad": {"bad_segment"},
        "gone": {"missing_media"},
    }
    assert got["train/id00001/yt/1/bad.mp4"].audio_segments == ((1.0, 2.0),)
    assert {row.split for path, row in got.items() if path.startswith(start)} == {"train"}


def test_avdeepfake1m_adds_what_the_list_leaves_to_the_clips_own_json(tmp_path):
    root = trees.avdeepfake1m(tmp_path / "t")
    trees.put(
        root, "train_metadata/id00001/yt/1/extra.json", {"modify_type": "audio_modified", "fake_segments": [[0, 1]]}
    )
    trees.put(root, "train_metadata/id00001/yt/1/real.json", {"modify_type": "audio_modified"})
    got = read(avdeepfake1m, root, tmp_path)
    assert len(got) == 6
    assert (got["train/id00001/yt/1/extra.mp4"].label, got["train/id00001/yt/1/extra.mp4"].faults) == (1, ())
    assert got["train/id00001/yt/1/real.mp4"].label == 0


def test_polyglotfake(tmp_path):
    got = read(polyglotfake, trees.polyglotfake(tmp_path / "t"), tmp_path)
    fake, real = got["manipulated_content/to_ru/videos/es_1_to_ru_Xtts.mp4"], got["original_content/es/videos/es_1.mp4"]
    assert (fake.method, fake.category, fake.group) == ("Xtts", "FVFA", real.group)
    assert kinds(real) == {"listed_twice"}
    assert kinds(got["manipulated_content/to_ru/videos/gone.mp4"]) == {"missing_media"}
    assert kinds(got["manipulated_content/to_ru/videos/es_2_to_ru_Bark.mp4"]) == {"not_listed"}


def test_cmdfd(tmp_path):
    got = read(cmdfd, trees.cmdfd(tmp_path / "t"), tmp_path)
    assert kinds(got["MakeItTalk/id00001-id00002.mp4"]) == {"missing_media", "declared_rate", "listed_twice"}
    assert kinds(got["wav2lip/id00001-id00002.mp4"]) == {"missing_sound"}
    assert got["origin/id00001_a.mp4"].faults == ()
    assert len({row.group for row in got.values()}) == 1


def test_a_line_of_cmdfd_without_a_video_is_a_row_with_a_fault(tmp_path):
    root = trees.cmdfd(tmp_path / "t")
    with (root / "csvfile/W2L.csv").open("a") as file:
        file.write("x,/elsewhere/a.wav,,1,0,1,0,1,100,64000,25.0,16000\n")
    got = read(cmdfd, root, tmp_path)
    row = got["W2L.csv/line 4"]
    assert (row.label, kinds(row)) == (1, {"no_video_listed"})
    assert "line 4 of W2L.csv has no Video_Path" in row.faults[0].text
    assert not Path(row.path).exists()


def test_corpora_without_sound_or_marks(tmp_path):
    root = tmp_path / "t"
    trees.touch(root / "k", "fsgan/a.mp4", "original_videos/7/b.mp4", "dfl/c.mp4", "other/d.mp4")
    got = read(kodf, root / "k", tmp_path)
    assert [kinds(got[n]) for n in ("fsgan/a.mp4", "other/d.mp4", "dfl/c.mp4")] == [
        {"no_audio"},
        {"label_unknown"},
        set(),
    ]
    trees.touch(root / "f", "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4")
    trees.put(root / "f", "splits/train.json", [["000", "003"]])
    (row,) = read(faceforensics, root / "f", tmp_path).values()
    assert (row.split, row.identities, kinds(row)) == ("train", ("000", "003"), {"no_audio"})
    listed = {"a.mp4": {"label": "FAKE", "split": "train", "original": "b.mp4"}, "b.mp4": {"label": "REAL"}}
    trees.put(root / "d", "dfdc_train_part_0/metadata.json", listed)
    trees.touch(root / "d", "dfdc_train_part_0/a.mp4")
    got = read(dfdc, root / "d", tmp_path)
    assert kinds(got["dfdc_train_part_0/a.mp4"]) == {"modality_unmarked"}
    assert kinds(got["dfdc_train_part_0/b.mp4"]) == {"missing_media"}


def test_corpora_of_real_speech(tmp_path):
    root = tmp_path / "t"
    trees.touch(root / "l", "pretrain/s/1.mp4", "pretrain/s/1.txt", "test/t/2.txt", "test/t/3.mp4")
    got = read(lrs3, root / "l", tmp_path)
    assert [kinds(got[n]) for n in ("pretrain/s/1.mp4", "test/t/2.mp4", "test/t/3.mp4")] == [
        set(),
        {"missing_media"},
        {"not_listed"},
    ]
    trees.touch(root / "v", "dev/mp4/id1/yt/1.mp4", "dev/aac/id1/yt/1.m4a", "dev/aac/id1/yt/2.m4a")
    got = read(voxceleb2, root / "v", tmp_path)
    assert got["dev/mp4/id1/yt/1.mp4"].audio_path.endswith("dev/aac/id1/yt/1.m4a")
    assert kinds(got["dev/mp4/id1/yt/2.mp4"]) == {"missing_media"}


@pytest.mark.parametrize("adapter", [avdeepfake1m, cmdfd, dfdc, faceforensics, fakeavceleb, lavdf, polyglotfake])
def test_a_folder_that_is_no_such_corpus_is_said_to_be_none(adapter, tmp_path):
    with pytest.raises(fields.ManifestError, match=str(tmp_path)):
        list(adapter.rows(tmp_path))


@pytest.mark.parametrize(
    ("adapter", "name", "content"),
    [
        (lavdf, "metadata.json", "{}"),
        (lavdf, "metadata.json", "[1]"),
        (dfdc, "metadata.json", "[]"),
        (avdeepfake1m, "train_metadata.json", "{"),
        (avdeepfake1m, "train_metadata/a.json", "[]"),
    ],
)
def test_a_damaged_list_is_an_error_that_says_so(adapter, name, content, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(fields.ManifestError, match="list"):
        list(adapter.rows(tmp_path))


def test_a_list_whose_entry_names_no_file_is_an_error_that_says_so(tmp_path):
    trees.put(tmp_path, "metadata.json", [{"n_fakes": 0}])
    with pytest.raises(fields.ManifestError, match="names no file"):
        list(lavdf.rows(tmp_path))


def test_cmdfd_fakeavceleb_lists_name_list_split_and_method(tmp_path):
    line = "i,/a/{0}/ARRANGED_RAW_VIDEO/FAKE_W2L_C/A/MEN/id00001/y/1_id00002_z_wavtolip.mp4"
    line = f"{line.replace('.mp4', '_16khz.wav')},{line.removeprefix('i,')},1,0,1,0,1,100,64000,25.0,16000\n"
    for split in ("train", "test"):
        trees.put(tmp_path, f"FAV_{split}_FAKE_W2L_C.csv", trees.CMDFD + line.format(split.upper()))
    rows = manifest.complete(cmdfd.favc_rows(tmp_path), "c:x", tmp_path)
    tail = "FAKE_W2L_C/A/MEN/id00001/y/1_id00002_z_wavtolip.mp4"
    assert [row.id for row in rows] == [f"c:x/FAV_{split}_FAKE_W2L_C/{tail}" for split in ("test", "train")]
    assert [(row.split, row.method, row.identities) for row in rows] == [
        (split, "wav2lip", ("id00001", "id00002")) for split in ("test", "train")
    ]


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"videos": [{"duration": 1}]}', '{"videos": ["a.mp4"]}', '{"videos": 3}', "{"]
)
def test_a_damaged_list_of_polyglotfake_is_named(tmp_path, content):
    folder = tmp_path / "original_content" / "es"
    folder.mkdir(parents=True)
    (folder / "es.json").write_text(content)
    with pytest.raises(fields.ManifestError, match="list"):
        list(polyglotfake.rows(tmp_path))


def _fakeavceleb(root, listed, present):
    folder = "FakeVideo-RealAudio/African/men/id00001"
    lines = (f"id00001,-,-,fsgan,C,x,African,men,{name}.mp4,FakeAVCeleb/{folder}\n" for name in listed)
    trees.put(root, "meta_data.csv", trees.META + "".join(lines))
    trees.touch(root, f"{folder}/always.mp4", *(f"{folder}/{name}.mp4" for name in present))


def _lavdf(root, listed, present):
    trees.put(root, "metadata.json", [{"file": f"train/{name}.mp4"} for name in listed])
    trees.touch(root, "train/always.mp4", *(f"train/{name}.mp4" for name in present))


def _avdeepfake1m(root, listed, present):
    trees.put(root, "train_metadata.json", [{"file": f"{name}.mp4"} for name in [*listed, "always"]])
    trees.touch(root, "train/always.mp4", *(f"train/{name}.mp4" for name in present))


def _avdeepfake1m_by_clip(root, listed, present):
    for name in [*listed, "always"]:
        trees.put(root, f"train_metadata/{name}.json", {"modify_type": "real"})
    trees.touch(root, "train/always.mp4", *(f"train/{name}.mp4" for name in present))


def _dfdc(root, listed, present):
    trees.put(root, "dfdc_train_part_0/metadata.json", {f"{name}.mp4": {} for name in listed})
    trees.touch(root, "dfdc_train_part_0/always.mp4", *(f"dfdc_train_part_0/{name}.mp4" for name in present))


def _polyglotfake(root, listed, present):
    trees.put(root, "original_content/es/es.json", {"videos": [{"filename": f"{name}.mp4"} for name in listed]})
    trees.touch(root, *(f"original_content/es/videos/{name}.mp4" for name in [*present, "always"]))


def _lrs3(root, listed, present):
    trees.touch(root, *(f"test/s/{name}.txt" for name in [*listed, "always"]))
    trees.touch(root, *(f"test/s/{name}.mp4" for name in present))


def _voxceleb2(root, listed, present):
    trees.touch(root, *(f"dev/aac/id1/y/{name}.m4a" for name in [*listed, "always"]))
    trees.touch(root, *(f"dev/mp4/id1/y/{name}.mp4" for name in present))


def _cmdfd(root, listed, present):
    line = "x,/m/My_Test/origin/{0}.wav,/m/My_Test/origin/{0}.mp4,0,0,0,1,1,100,64000,25.0,16000\n"
    trees.put(root, "W2L.csv", trees.CMDFD + "".join(line.format(name) for name in [*listed, "always"]))
    trees.touch(root, *(f"origin/{name}.mp4" for name in present if name in listed))  # its lists alone name clips


def _files_alone(top):
    return lambda root, listed, present: trees.touch(
        root, *(f"{top}/{name}.mp4" for name in [*listed, *present, "always"])
    )


TREES = [
    (fakeavceleb, _fakeavceleb), (lavdf, _lavdf), (avdeepfake1m, _avdeepfake1m), (avdeepfake1m, _avdeepfake1m_by_clip),
    (dfdc, _dfdc), (polyglotfake, _polyglotfake), (lrs3, _lrs3), (voxceleb2, _voxceleb2), (cmdfd, _cmdfd),
    (kodf, _files_alone("fsgan")), (faceforensics, _files_alone("manipulated_sequences/Deepfakes/c23/videos")),
]  # fmt: skip
NAMES = st.sampled_from(["a", "B", "id00001_x", "00001_id00002_wavtolip", "no.dots", "two words", "ü", "always"])


@pytest.mark.parametrize(("adapter", "tree"), TREES, ids=lambda x: getattr(x, "__name__", "").rpartition(".")[2])
@settings(deadline=None, max_examples=25)
@given(listed=st.lists(NAMES, max_size=8), present=st.sets(NAMES))
def test_no_listed_and_no_present_clip_is_lost_or_counted_twice(adapter, tree, tmp_path_factory, listed, present):
    root = tmp_path_factory.mktemp("corpus")
    tree(root, listed, sorted(present))
    rows = manifest.complete(adapter.rows(root), "c:x", root)
    named = {*listed, *(() if adapter is cmdfd else present), "always"}
    assert sorted(Path(row.path).stem for row in rows) == sorted(named)
    if adapter not in (kodf, faceforensics):
        gone = {Path(row.path).stem for row in rows if "missing_media" in kinds(row)}
        here = {Path(path).stem for path in root.rglob("*.mp4")}
        assert gone == named - here


def test_a_list_without_a_column_says_which_columns_it_has(tmp_path):
    (tmp_path / "list.tsv").write_text("file\tfake method\na.mp4\twav2lip\n")
    assert join.table(tmp_path / "list.tsv", ["file"], delimiter="\t") == [{"file": "a.mp4", "fake method": "wav2lip"}]
    with pytest.raises(fields.ManifestError, match=r"has no column 'method'; it has 'file', 'fake method'"):
        join.table(tmp_path / "list.tsv", ["file", "method"], delimiter="\t")
    with pytest.raises(fields.ManifestError, match=r"has no column 'file'; it has 'file\\tfake method'"):
        join.table(tmp_path / "list.tsv", ["file"])


def test_a_row_that_names_no_file_is_not_looked_for(tmp_path):
    root = tmp_path / "t"
    root.mkdir()
    head = "Video_Path,Audio_Path,ENtire_Label,Audio_Label,Video_Label,FPS,Frame_Len,AudioSamRate,Audio_Len\n"
    (root / "W2L.csv").write_text(f"{head},,1,1,0,25,75,16000,48000\n")
    rows = manifest.complete(cmdfd.rows(root), "cmdfd:t", root)
    assert [(row.label, row.method) for row in rows] == [(1, "Wav2Lip")]
    assert [fault.kind for fault in check.check(rows)[0]] == ["no_video_listed"]
    assert Measurer()(rows[0]).faults == []
