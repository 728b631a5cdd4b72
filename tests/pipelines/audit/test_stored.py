"""Auditing a store: rows and numbers in the order of its table, what is kept in its root, copies among its crops and sound."""

import dataclasses
import io
import json
import os

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from small_store import make_store

import store
from pipelines.audit import stored
from pipelines.audit.__main__ import main
from pipelines.corpora import manifest
from pipelines.corpora.faults import Fault
from pipelines.corpora.manifest import Row
from pipelines.tables import ledger
from store import layout, seen
from store.place import place


@pytest.fixture
def small(tmp_path):
    return make_store(tmp_path / "s.zarr", {"": 8, "test": 8}, frames=40, fakes=4, groups=8, broken=1)


def run(*options):
    return CliRunner().invoke(main, [str(option) for option in options])


def test_soft_labels_of_clips_that_the_fit_learned_from_are_apart(small):
    reader, writer = store.open(small), store.Writer.open(small)
    writer.write_fit(dataclasses.replace(reader.fit, seen=seen.keys(reader, range(3))).to_arrays())
    writer.consolidate()
    count = {name: sum(n) for name, n in stored.from_store(store.open(small)).soft_labels.items()}
    assert count == {"other sound": 7 * 40, "real": 13 * 40, "real (learned from)": 3 * 40}


def test_an_audit_of_a_store_is_kept_in_its_root(small):
    done = run("--store", small)
    assert done.exit_code == 0, done.output
    found = json.loads((small / "audit.json").read_text())
    assert (found["rows"], found["clips"]) == (24, 24)
    assert found["counts"]["split"] == {"train": 12, "test": 12}
    assert [(f["kind"], f["count"]) for f in found["faults"]] == [("not_done", 1)]
    assert set(found["soft_labels"]["methods"]) == {"real", "other sound"}
    real, fake = (np.array(found["soft_labels"]["methods"][k]) for k in ("real", "other sound"))
    assert (real.sum(), fake.sum()) == (16 * 40, 7 * 40)  # one fake is not done
    middle = (np.arange(stored.BINS) + 0.5) / stored.BINS
    assert (real @ middle) / real.sum() > (fake @ middle) / fake.sum() + 0.2
    table = pd.read_parquet(small / "nuisances.parquet")
    assert list(table["id"]) == list(store.open(small).clips["id"])
    assert table.iloc[0]["duration"] == pytest.approx(1.6)
    assert table.iloc[-1].drop("id").isna().all()
    assert "Soft labels" in done.output
    assert store.open(small).clips["id"][0] == "none000r"  # what was added does not trouble a reader


def test_a_store_that_cannot_be_written_gives_one_warning(small, monkeypatch):
    if os.geteuid() == 0:  # whom no permission stops: a file where a folder would have to be

        def refused(self):
            raise PermissionError(30, "Read-only file system")

        monkeypatch.setattr("store.place.Folder.writing", refused)
    else:
        small.chmod(0o500)
    done = run("--store", small, "--json", "-")
    small.chmod(0o700)
    assert done.exit_code == 0
    assert [line[:8] for line in done.stderr.splitlines()] == ["Warning:"]
    assert json.loads(done.stdout)["rows"] == 24
    assert not (small / "audit.json").exists()


def test_what_the_manifest_lists_is_used_too(small):
    reader = store.open(small)
    ids = [str(name) for name in reader.clips["id"]]
    rows = [Row(f"/nowhere/{k}.mp4", id=name, listed_frames=40.0 + k, listed_fps=25.0) for k, name in enumerate(ids)]
    rows = [r if k else Row(r.path, id=r.id, faults=(Fault("odd", "it is odd"),)) for k, r in enumerate(rows)]
    manifest.write(rows, small / "manifest.parquet")
    ledger.write(small, [ledger.Entry(ids[-1], "p", "decode", "truncated", "it is cut")])
    found = stored.rows(reader)
    assert [row.id for row in found] == ids
    assert (found[3].listed_frames, found[3].label, found[3].split) == (43.0, 0, "train")
    run("--store", small)
    assert [f["kind"] for f in json.loads((small / "audit.json").read_text())["faults"]] == ["odd", "truncated"]
    assert pd.read_parquet(small / "nuisances.parquet")["frame_rate"].iloc[1] == 25.0


def test_copies_in_a_store_are_one_content_and_others_are_not(small):
    found = stored.from_store(store.open(small))
    assert [p is not None for p in found.prints] == [True] * 23 + [False]
    from pipelines.audit import fingerprint

    assert fingerprint.keys(found.prints) == [*range(23), None]
    assert fingerprint.keys([*found.prints, found.prints[4]])[-1] == 4


def test_silences_and_missing_sound_are_told_from_flags(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 4}, frames=50)
    writer, reader = store.Writer.open(path), store.open(path)
    block = {name: reader.rows(0, reader.num_rows, [name])[name] for name in reader.names}
    begin = int(reader.clips["offset"][1])
    block["audio"][begin : begin + 10] = 0
    block["flags"][begin : begin + 5] &= ~np.uint8(4)
    block["flags"][begin + 45 : begin + 50] &= ~np.uint8(4)
    writer.write_shard(0, {name: values[: reader.shard_rows] for name, values in block.items()})
    row = stored.from_store(store.open(path)).table.iloc[1]
    assert (row["soundless_start"], row["soundless_end"]) == (0.2, 0.2)
    assert row["leading_silence_0001"] == pytest.approx(0.4, abs=0.01)
    assert row["trailing_silence_0001"] < 0.05


@pytest.mark.parametrize("options", [["--corpus", "grid:/x"], ["--media"]])
def test_a_store_is_audited_alone(small, options):
    done = run("--store", small, *options)
    assert done.exit_code == 2
    assert "Error: " in done.output


def test_a_place_without_a_store_exits_2(tmp_path):
    done = run("--store", tmp_path)
    assert done.exit_code == 2
    assert done.output.startswith("Error: ")


@pytest.mark.slow
def test_a_store_in_a_bucket_is_audited_and_keeps_the_audit(s3):
    url = f"{s3}/s.zarr"
    make_store(url, {"train": 4, "test": 4}, fakes=2)
    done = run("--store", url)
    assert done.exit_code == 0, done.output
    assert json.loads((place(url) / "audit.json").read())["clips"] == 12
    assert len(pd.read_parquet(io.BytesIO((place(url) / "nuisances.parquet").read()))) == 12


@pytest.mark.parametrize("name", ["manifest.parquet", "ledger.parquet"])
@pytest.mark.parametrize("how", ["changed", "gone", "flipped"])
def test_a_table_that_is_not_what_the_run_wrote_is_told_as_damage(small, name, how):
    """And not as faults of the corpus."""
    ids = [str(i) for i in store.open(small).clips["id"]]
    manifest.write([Row("p", id=i) for i in ids], small / "manifest.parquet")
    ledger.write(small, [ledger.Entry(i, "p", "done") for i in ids])
    store.Writer.open(small).consolidate()
    assert run("--store", small).exit_code == 0
    if how == "changed" and name == "manifest.parquet":
        manifest.write([Row("p", id=i, faults=(Fault("no_audio", "invented"),)) for i in ids], small / name)
    elif how == "changed":
        ledger.write(small, [ledger.Entry(i, "p", "decode", "truncated", "invented") for i in ids])
    elif how == "gone":
        (small / name).unlink()
    else:
        data = bytearray((small / name).read_bytes())
        data[len(data) // 2] ^= 1
        (small / name).write_bytes(data)
    (small / "audit.json").unlink()
    done = run("--store", small)
    assert done.exit_code == 2
    assert name in done.stderr
    assert "run precompute.py" in done.stderr
    assert "invented" not in done.output
    assert len(done.stderr.splitlines()) == 1
    assert not (small / "audit.json").exists()


def test_held_pictures_and_notes_of_the_ledger_are_told_and_break_no_strict_audit(small):
    reader, writer = store.open(small), store.Writer.open(small)
    fakes = [i for i in range(len(reader) - 1) if reader.clips["label"][i] == 1]
    for shard in range(reader.num_rows // reader.shard_rows):
        first = shard * reader.shard_rows
        flags = reader.rows(first, first + reader.shard_rows, ["flags"])["flags"]
        for i in fakes[:2]:
            offset = int(reader.clips["offset"][i]) - first
            if 0 <= offset < len(flags):
                flags[offset : offset + 40] |= layout.HELD
        writer.write_shard(shard, {"flags": flags})
    writer.consolidate()
    names = [str(name) for name in reader.clips["id"]]
    said = "the picture stands still throughout\nthe file has two sound tracks"
    ledger.write(
        small, [ledger.Entry(name, "/x.mp4", "done", notes=said * (i == fakes[0])) for i, name in enumerate(names)]
    )
    found = stored.from_store(store.open(small))
    told = {(fault.kind, fault.id, fault.text) for fault in found.faults}
    assert {("held_pictures", names[i], "the picture stands still throughout") for i in fakes[:2]} < told
    assert ("note", names[fakes[0]], "the file has two sound tracks") in told
    assert found.table["has_held_pictures"].sum() == 2
    assert np.isnan(found.table["has_held_pictures"].iloc[-1])  # it is not done
    done = run("--store", small, "--strict")
    assert "held_pictures" in done.output
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("taught", "code"), [("train", 0), ("test", 1)])
def test_a_fit_that_has_seen_test_clips_is_a_finding(tmp_path, taught, code):
    path = make_store(tmp_path / "s.zarr", {"train": 6, "test": 5}, frames=40)
    reader, writer = store.open(path), store.Writer.open(path)
    seen = store.seen.keys(reader, np.flatnonzero(reader.clips["split"] == taught))
    writer.write_fit(dataclasses.replace(reader.fit, seen=seen).to_arrays())
    writer.consolidate()
    done = run("--store", path, "--strict", "--json", tmp_path / "a.json", "--html", tmp_path / "a.html")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["fit_seen"]["test"] == {"seen": 5 if taught == "test" else 0, "of": 5}
    assert done.exit_code == code, done.output
    assert ("test: the fit has seen 5 of these 5 clips" in found["findings"]) == (taught == "test")
    assert "the fit has seen" in done.output
    assert "the fit has seen" in (tmp_path / "a.html").read_text()
