"""CSV: what is written comes back the same, whatever it is, and no cell is a formula for a spreadsheet."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import make_store

import store
from pipelines.corpora import fields, manifest
from pipelines.corpora.manifest import Row
from pipelines.manifest import match
from pipelines.manifest.__main__ import write_splits
from store.formats import table
from student.data.splits import SplitError, split

NAMES = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=x",
    "\r=x",
    "  =x",
    "＝x",
    "'=x",
    "''=x",
    "'x",
    "'",
    "a\rb",
    "a\r\nb",
    "a\nb",
    ' "q", x ',
    "NA",
    "None",
    "nan",
    "1e5",
    "007",
    "\x1b[2J",
    "\x00",
    "\u2028",
    "\ufeffx",
    "#x",
    "é漢",
]
cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(NAMES)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6))
def test_every_value_is_read_back_as_it_was(rows):
    first, second = zip(*rows, strict=True)
    data = table.to_csv({"id": first, "name": second})
    found = table.read_csv(data)
    if any(a or b for a, b in rows):  # pandas skips a line that is all empty
        kept = [(a, b) for a, b in rows]
        assert list(zip(found["id"], found["name"], strict=True)) == kept
    for line in csv.reader(io.StringIO(data.decode(), newline="")):
        assert not any(cell.lstrip(" \u00a0")[:1] in tuple("=+-@\t\r\n＝＋－＠") for cell in line)


@given(cells)
def test_escaping_is_undone_exactly(value):
    assert table.unescape(table.escape(value)) == value


def test_ordinary_files_look_as_they_did():
    data = table.to_csv({"id": ["c/a.mp4", "c/ü,1.mp4"], "split": ["", "test"], "weight": [1.0, np.nan]})
    assert data.decode() == 'id,split,weight\nc/a.mp4,,1.0\n"c/ü,1.mp4",test,\n'


def test_half_a_surrogate_pair_is_named():
    with pytest.raises(ValueError, match=r"\\ud800.* is not Unicode text"):
        table.to_csv({"id": ["a\ud800"]})


def test_a_manifest_of_hostile_names_comes_back(tmp_path):
    rows = [
        Row(
            path=f"/v/{k}.mp4", method=name, category=name, identities=(name,), group=name, id=f"{name}{k}", corpus=name
        )
        for k, name in enumerate(NAMES)
        if name.strip() and "\x00" not in name  # no manifest holds NUL
    ]
    for file in ("m.csv", "m.parquet"):
        manifest.write(rows, tmp_path / file)
        assert manifest.read(tmp_path / file) == rows
        write_splits(str(tmp_path / f"s-{file}"), [Row("p", id=row.id, split="test") for row in rows])
    found = table.read_csv((tmp_path / "s-m.csv").read_bytes())
    assert sorted(found["id"]) == sorted(row.id for row in rows)
    assert not any(line.startswith((b"=", b"+", b"-", b"@")) for line in (tmp_path / "m.csv").read_bytes().split(b"\n"))


@pytest.fixture
def hostile_store(tmp_path):
    """A store whose clips are called as in NAMES."""
    make_store(tmp_path / "s.zarr", {"train": len(NAMES)}, frames=(30, 31), fakes=2)
    store.Writer.open(tmp_path / "s.zarr").write_clips(0, {"id": NAMES})
    return store.open(tmp_path / "s.zarr")


def test_splits_reach_clips_of_any_name(hostile_store, tmp_path):
    for file in ("s.csv", "s.parquet"):
        rows = [Row("p", id=name, split="val" if k % 2 else "train") for k, name in enumerate(NAMES)]
        write_splits(str(tmp_path / file), rows)
        found = split(hostile_store, tmp_path / file)
        assert found.rows["val"].tolist() == list(range(1, len(NAMES), 2))
        assert found.listed == {"train": (len(NAMES) + 1) // 2, "val": len(NAMES) // 2, "test": 0}


@pytest.mark.parametrize("weight", ["abc", "-1", "inf", "nan", "[1]"])
def test_a_weight_that_is_none_is_named(hostile_store, tmp_path, weight):
    (tmp_path / "s.csv").write_text(f"id,split,weight\n007,train,{weight}\n")
    with pytest.raises(SplitError, match=r"clip 007 has weight .*; it must be 0 or more"):
        split(hostile_store, tmp_path / "s.csv")


def test_an_empty_weight_counts_one(hostile_store, tmp_path):
    (tmp_path / "s.csv").write_text("id,split,weight\n007,train,\nNA,train,2\n")
    found = split(hostile_store, tmp_path / "s.csv")
    assert found.weight[[NAMES.index("007"), NAMES.index("NA")]].tolist() == [1, 2]


def test_measured_numbers_find_clips_of_any_name_and_come_from_no_network(tmp_path):
    rows = [Row("p", id=name) for name in NAMES]
    data = table.to_csv({"id": NAMES, "duration": [float(k) for k in range(len(NAMES))]})
    (tmp_path / "n.csv").write_bytes(data)
    assert match.table_of(rows, tmp_path / "n.csv")["duration"].tolist() == list(range(len(NAMES)))
    with pytest.raises(fields.ManifestError, match="https:// is not known"):
        match.table_of(rows, "https://127.0.0.1:1/n.csv")
