"""The published CMDFD lists through their adapters: every list parses, and the counts are those of its README."""

from collections import Counter

import pytest

from pipelines.corpora import cmdfd, manifest

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def lists(shared):
    return shared / "data" / "cmdfd_lists"


def test_cmdfd_lists_have_8792_distinct_clips(lists):
    rows = manifest.complete(cmdfd.rows(lists), "cmdfd:lists", lists)
    assert len(rows) == len({row.path for row in rows}) == 8792
    assert Counter(row.label for row in rows) == {1: 7792, 0: 1000}
    assert Counter(row.method for row in rows) == {
        "": 1000,
        "Audio2Head": 1000,
        "Audio2Head_Self": 1000,
        "MakeItTalk": 978,
        "MakeItTalk_Self": 978,
        "VideoReTalk": 918,
        "VideoReTalk_Self": 924,
        "Wav2Lip": 998,
        "Wav2Lip_Self": 996,
    }
    assert all(row.category == ("FVRA" if row.label else "RVRA") for row in rows)
    assert all(row.identities and row.audio_path and row.listed_frames and row.listed_samples for row in rows)
    kinds = Counter(fault.kind for row in rows for fault in row.faults)
    assert kinds == {"missing_media": 8792, "declared_rate": 2 * 978, "length_conflict": 144 + 134}


def test_cmdfd_root_is_the_folder_with_the_lists_or_its_parent(lists):
    assert list(cmdfd.rows(lists)) == list(cmdfd.rows(lists / "csvfile"))


def test_cmdfd_faces_and_voices_are_named(lists):
    row = next(row for row in cmdfd.rows(lists) if row.method == "Wav2Lip")
    assert row.id == "wav2lip/id07434-id07445.mp4"
    assert row.identities == ("id07434", "id07445")
    assert row.audio_path == "/data2/caiyu/data/My_Test/origin/id07445_cKsB2dym7Ms.wav"


def test_fakeavceleb_lists_have_one_row_a_list_and_clip(lists):
    rows = manifest.complete(cmdfd.favc_rows(lists), "cmdfd_favc:lists", lists)
    names = [row.id.split("/")[1] for row in rows]
    assert len(rows) == 2 * 4266 + 14987
    assert Counter(names)["FAV_test"] == 4266
    parts = [row for row, name in zip(rows, names, strict=True) if name != "FAV_test"]
    assert Counter(row.split for row in parts) == {"test": 4266, "train": 14987}
    assert sum(row.label == 0 for row in parts) == 489
    wav2lip = [row for row in parts if "wav2lip" in row.method]
    assert len(wav2lip) == 15432
    tails = {split: {row.id.split("/", 2)[2] for row in parts if row.split == split} for split in ("train", "test")}
    assert len(tails["test"] & tails["train"]) == 784
    folders = {split: {row.identities[0] for row in parts if row.split == split} for split in ("train", "test")}
    assert len(folders["test"]) == 187
    assert len(folders["test"] & folders["train"]) == 180
    everyone = {split: {name for row in parts if row.split == split for name in row.identities} for split in folders}
    assert len(everyone["test"]) == len(everyone["test"] & everyone["train"]) == 445


def test_fakeavceleb_full_test_list_equals_its_parts(lists):
    clips = {True: set(), False: set()}
    for row in cmdfd.favc_rows(lists):
        if row.split == "test":
            name, _, tail = row.id.partition("/")
            clips[name == "FAV_test"].add((tail, row.method, row.label))
    assert clips[True] == clips[False]
