"""Hostile files of all kinds, read in a child that is watched; `python -m benchmarks hostile` runs a thousand of them.

And what single ones of them ask for, each refused in one line before it takes memory or time.
"""

import os
import struct
import zipfile

import numpy as np
import pandas as pd
import pytest

from benchmarks.hostile.child import Watch
from benchmarks.survival import hostile
from pipelines.corpora import manifest
from pipelines.corpora.fields import ManifestError
from pipelines.tables import ledger
from student.checkpoint import CheckpointError
from student.models import weights
from teachers import TeacherError
from teachers.files import arrays
from teachers.whisper import ctranslate2

CASES = 90


def test_hostile_files_run_nothing_reach_nothing_and_take_little(tmp_path):
    outcomes = hostile.run(CASES, 0, hostile.sound_store(tmp_path / "s.zarr"))
    assert len(outcomes) == CASES
    assert [o for o in outcomes if o.is_bad] == []
    assert {o.what for o in outcomes} >= {"read", "refused"}  # some are sound enough to be read


def test_the_harness_notices_what_it_looks_for(tmp_path):
    """A file outside that is opened, and one that is made."""
    watch = Watch()
    watch.begin(tmp_path / "case")
    (tmp_path / "made").write_text("x")
    os.mkdir(tmp_path / "folder")
    (tmp_path / "made").read_text()
    os.environ["HOSTILE"] = "1"
    watch.end()
    del os.environ["HOSTILE"]
    assert [act.split()[0] for act in watch.acts] == ["open", "os.mkdir", "open", "changed"]


def archive_of(path, members, **options):
    with zipfile.ZipFile(path, "w", **{"compression": zipfile.ZIP_DEFLATED, **options}) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def npy(shape, kind="'<f4'", data=bytes(16)):
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def bomb():
    """An .npy of 300 MB of zeros."""
    return npy(f"({300 << 20},)", "'|u1'", bytes(300 << 20))


ARCHIVES = {
    "bomb": lambda p: archive_of(p, [("video.npy", bomb())], compresslevel=1),
    "promise": lambda p: archive_of(p, [("video.npy", npy("(1000000000000,)"))]),
    "negative": lambda p: archive_of(p, [("video.npy", npy("(-4,)"))]),
    "text": lambda p: archive_of(p, [("video.npy", npy("('a',)"))]),
    "deep": lambda p: archive_of(p, [("video.npy", npy("(" * 5000 + ")" * 5000))]),
    "cut": lambda p: archive_of(p, [("video.npy", npy("((4,"))]),
    "objects": lambda p: archive_of(p, [("video.npy", npy("(1,)", "'|O'"))]),
    "nothing wide": lambda p: archive_of(p, [("video.npy", npy("(99999999999,)", "'<U0'", b""))]),
    "packed": lambda p: archive_of(p, [("video.npy", npy("(4,)"))], compression=zipfile.ZIP_BZIP2),
    "version": lambda p: archive_of(p, [("video.npy", b"\x93NUMPY\x09\x00" + bytes(20))]),
    "no array": lambda p: archive_of(p, [("video.npy", b"hello")]),
}


@pytest.mark.parametrize("make", ARCHIVES.values(), ids=ARCHIVES)
def test_archives_that_promise_or_unpack_too_much_are_one_line(tmp_path, make):
    path = make(tmp_path / "w.npz")
    with pytest.raises(CheckpointError, match=r"w\.npz is damaged or not a file of weights"):
        weights.read(path)
    with pytest.raises(arrays.ArraysError, match=r"w\.npz"):
        arrays.load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")  # as asked
def test_encrypted_and_doubled_members_are_one_line(tmp_path):
    doubled = archive_of(tmp_path / "w.npz", [("video.npy", npy("(4,)"))] * 2)
    with pytest.raises(CheckpointError, match="two members of one name"):
        weights.read(doubled)
    data = bytearray(archive_of(tmp_path / "w.npz", [("video.npy", npy("(4,)"))]).read_bytes())
    for start, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(start) + at] |= 1
    (tmp_path / "w.npz").write_bytes(data)
    with pytest.raises(CheckpointError, match="encrypted"):
        weights.read(tmp_path / "w.npz")


def test_sound_archives_are_read(tmp_path):
    given = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.eye(3, dtype="f4"))}
    given |= {"c": np.array(3), "d": np.zeros((0, 5))}
    np.savez_compressed(tmp_path / "w.npz", **given)
    found = weights.read(tmp_path / "w.npz")
    for name, array in given.items():
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_a_ctranslate2_file_that_promises_more_than_it_has_is_one_line(tmp_path):
    path = tmp_path / "model.bin"
    text = lambda t: struct.pack("<H", len(t) + 1) + t.encode() + b"\0"  # noqa: E731
    start = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 1)
    for rest in (
        text("w") + b"\x01" + struct.pack("<I", 2**31) + b"\0" + struct.pack("<I", 2**32 - 1),
        text("w") + b"\xff",
        b"\xff\xff",
        text("w") + b"\x01" + struct.pack("<I", 1) + b"\x09" + struct.pack("<I", 4) + bytes(4),
    ):
        path.write_bytes(start + rest)
        with pytest.raises(TeacherError, match=r"model\.bin is not a whole CTranslate2 file"):
            ctranslate2.read(path)
    path.write_bytes(struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 0) + struct.pack("<I", 0))
    with pytest.raises(TeacherError, match=r"model\.bin does not hold a whole Whisper model"):
        ctranslate2.convert(path)


# -- manifests -------------------------------------------------------------------------------------------------------------


def one_line(path):
    with pytest.raises(ManifestError) as caught:
        manifest.load(f"csv:{path}")
    assert "\n" not in str(caught.value)
    str(caught.value).encode()
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("audio_segments", "[[0, Infinity]]"),
        ("video_segments", "[[1e999, 1e999]]"),
        ("audio_segments", "[[NaN, 1]]"),
        ("audio_segments", "[" * 100_000),
        ("audio_segments", "{}x"),
        ("audio_segments", "[1, 2]"),
        ("identities", "[" * 100_000),
        ("identities", "[[1], 2]"),
        ("identities", '["a", null]'),
        ("label", "2"),
        ("label", "yes"),
        ("label", "nan"),
        ("listed_frames", "-5"),
        ("listed_fps", "inf"),
        ("split", "other"),
        ("id", "x" * 70_000),
    ],
    ids=lambda value: value[:20],
)
def test_cells_of_a_manifest_without_a_meaning_are_one_line(tmp_path, column, value):
    quoted = '"' + value.replace('"', '""') + '"'
    (tmp_path / "m.csv").write_text(f"path,{column}\na.mp4,{quoted}\n")
    assert column in one_line(tmp_path / "m.csv")


@pytest.mark.parametrize(
    "data",
    [
        b"path,label\na\0b.mp4,0\n",
        b'path,label\n"a.mp4,0\nb.mp4,1\n' * 3,
        "path\na.mp4\n".encode("utf-16"),
        b"path\n\xff\xfe.mp4\n",
        b"path" + b",x" * 1_000_000 + b"\na.mp4\n",
        b"",
        b"\n\n",
        b"label\n0\n",
        b"PAR1",
    ],
    ids=["NUL", "unclosed", "UTF-16", "Latin", "a million columns", "empty", "lines", "no path", "Parquet"],
)
def test_files_that_are_no_manifest_are_one_line(tmp_path, data):
    for name in ("m.csv", "m.parquet"):
        (tmp_path / name).write_bytes(data)
        assert name in one_line(tmp_path / name)


COLUMNS = {
    "path": ([1, 2], [["a"], ["b"]], [b"a", b"b"], [1.5, 2.5], [True, False]),
    "label": ([["a"], ["b"]], [{"a": 1}, {"a": 2}], [2, 3], [float("inf"), 0.0]),
    "id": ([["a"], ["b"]], [{"a": 1}, {"a": 2}], [True, False], [b"\xff", b"b"]),
    "identities": ([1, 2], [[[1]], [[2]]], [{"a": 1}, {"a": 2}], [pd.Timestamp("2020-01-01")] * 2),
    "group": ([["a"], ["b"]], [pd.Timestamp("2020-01-01")] * 2),
    "audio_segments": ([1, 2], ["x", "y"], [[0.0, 1.0], [0.0, 1.0]], [[[0.0, float("inf")]]] * 2),
    "listed_frames": ([["a"], ["b"]], [-1, 2], ["x", "y"]),
}


@pytest.mark.parametrize(
    ("name", "column"), [(name, column) for name, columns in COLUMNS.items() for column in columns]
)
def test_columns_of_the_wrong_type_are_one_line(tmp_path, name, column):
    pd.DataFrame({"path": ["a.mp4", "b.mp4"], name: column}).to_parquet(tmp_path / "m.parquet")
    assert name in one_line(tmp_path / "m.parquet")


def test_a_parquet_file_of_many_rows_is_refused_before_it_is_unpacked(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    none = pa.nulls(200_000_000, pa.null())
    pq.write_table(pa.table({"path": none}), tmp_path / "m.parquet")
    assert "too many for its size" in one_line(tmp_path / "m.parquet")


def test_sound_parquet_columns_are_read(tmp_path):
    table = {
        "path": ["a.mp4", "b.mp4"],
        "label": [0, None],
        "group": [3, 4],
        "id": ["x", "y"],
        "listed_frames": [75, None],
    }
    table |= {"identities": [["p", "q"], None], "audio_segments": [[[0.0, 1.0]], None]}
    pd.DataFrame(table).to_parquet(tmp_path / "m.parquet")
    first, second = manifest.load(f"csv:{tmp_path / 'm.parquet'}")
    assert (first.label, second.label) == (0, -1)
    assert first.audio_segments == ((0.0, 1.0),)
    assert (first.identities, first.listed_frames) == (("p", "q"), 75.0)


def test_names_that_are_no_unicode_end_in_manifest_and_ledger(tmp_path):
    folder = tmp_path / os.fsdecode(b"c\xff")
    (folder / "fake" / os.fsdecode(b"m\xfe")).mkdir(parents=True)
    (folder / "fake" / os.fsdecode(b"m\xfe") / os.fsdecode(b"v\xfd.mp4")).write_bytes(b"x")
    (row,) = manifest.load(f"folder:{folder}")
    for text in (row.id, row.path, row.method, row.corpus, row.group):
        text.encode()
    manifest.write([row], tmp_path / "m.csv")
    manifest.write([row], tmp_path / "m.parquet")
    entry = ledger.Entry(row.id, row.path, "probe", "broken", f"cannot read {os.fsdecode(b'v%c' % 0xFD)}")
    ledger.write(tmp_path, [entry])
    assert ledger.read(tmp_path)[row.id].message == "cannot read v\\udcfd"


def test_lists_of_corpora_with_odd_values_are_one_line(tmp_path):
    root = tmp_path / "lavdf"
    root.mkdir()
    for text in (
        "[" * 100_000,
        "{}",
        "[1]",
        '[{"file": 3}]',
        '[{"file": "a.mp4", "fake_periods": 5}]',
        '[{"file": ["a"]}]',
    ):
        (root / "metadata.json").write_text(text)
        with pytest.raises(ManifestError) as caught:
            manifest.load(f"lavdf:{root}")
        assert "\n" not in str(caught.value)
    periods = '[{"file": "a.mp4", "modify_video": true, "n_fakes": 1, "fake_periods": [[0, 1e999]]}]'
    (root / "metadata.json").write_text(periods)
    (row,) = manifest.load(f"lavdf:{root}")
    assert row.video_segments == ()
    assert any(fault.kind == "bad_segment" for fault in row.faults)
