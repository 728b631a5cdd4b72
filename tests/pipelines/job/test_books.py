"""The books of a run: attempts add up, done clips are marked whole, and errors in the middle of a run are not usage
errors."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_store import make_store

import store
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row
from pipelines.errors import RunError, UsageError
from pipelines.job import report, run, space
from pipelines.job.books import Books
from pipelines.job.planning import Planner
from pipelines.job.request import Config
from pipelines.job.usage import Summary
from pipelines.reasons import OVERFLOW
from pipelines.tables import ledger
from pipelines.workers.headers import Unread
from pipelines.workers.plan import Slot
from pipelines.workers.work import Receipt
from store import staging
from store.arrays import inventory
from store.place import place

CLIP = Path(__file__).parents[2] / "data" / "grid" / "clips" / "bbaf2n.mp4"
BATCH = "000000000000-000000000-1"


@pytest.fixture
def books(tmp_path):
    """Of a store of four clips, the last of which is not done."""
    path = make_store(tmp_path / "s.zarr", {"train": 4}, broken=1)
    reader = store.open(path)
    ids, paths = reader.clips["id"].tolist(), reader.clips["path"].tolist()
    rows = [Row(path, id=i, corpus="synthetic") for i, path in zip(ids, paths, strict=True)]
    return Books(store.Writer.open(path), reader, rows, Summary())


def unread(clip_id, attempts):
    return Unread(clip_id, "/x.mp4", "crash", "its worker crashed", attempts, 1.0, "host:1", "Fatal Python error")


def test_attempts_of_all_runs_add_up(books):
    last = books.rows[3].id
    books.enter_unread([unread(last, 3)])
    books.enter_unread([unread(last, 3)])
    books.write_ledger()
    entry = ledger.read(books.root)[last]
    assert (entry.stage, entry.reason, entry.attempts) == ("probe", "crash", 6)
    assert books.summary.traces.endswith("errors.jsonl")
    assert books.unfinished(retry_failed=False) == []
    assert books.unfinished(retry_failed=True) == [3]


def test_a_mark_enters_clips_whole(books):
    row = books.rows[3]
    books.bring(BATCH, [Receipt(3, row.id, row.path, length=31, start_skew=0.5, quality=0.25, seconds=2.0, worker="w")])
    assert books.mark([BATCH]) == {}
    table = books.table()
    assert [table[name][3] for name in ("length", "start_skew", "quality", "done")] == [31, 0.5, 0.25, 1]
    assert table["duration"][3] == pytest.approx(31 / 25)
    assert books.entries[row.id].reason == ""
    assert (books.summary.worked, books.summary.video_seconds) == (1, 31 / 25)


def test_a_clip_longer_than_its_slot_is_told_and_its_new_slot_remembered(books):
    row = books.rows[3]
    books.bring(BATCH, [Receipt(3, row.id, row.path, "slot", OVERFLOW, "too long", length=99)])
    assert books.mark([BATCH]) == {3: 99}
    books.rehouse([Slot(3, 500, 100, 99)])
    books.bring(BATCH, [Receipt(3, row.id, row.path, length=99)])
    books.mark([BATCH])
    assert books.entries[row.id].message == "too long"  # of a clip that is done
    assert books.entries[row.id].attempts == 2
    assert (books.table()["offset"][3], books.table()["capacity"][3]) == (500, 100)


def test_a_request_that_is_refused_for_lack_of_space_leaves_the_store_complete(books, monkeypatch):
    books.writer.consolidate()
    assert inventory.is_closed(books.root)
    fresh = Books(store.Writer.open(books.root), store.open(books.root), books.rows, Summary())

    def full(*_):
        raise UsageError("no space")

    monkeypatch.setattr(space, "check", full)
    planner = Planner(fresh, (), None, 1, lambda function, jobs, gpu=False: iter([[75]]))
    with pytest.raises(UsageError):
        planner.append([Row("/new.mp4", id="new", corpus="other")], [])
    assert inventory.is_closed(books.root)
    assert store.open(books.root).inventory.complete


def test_corpora_that_a_killed_run_did_not_add_are_added(books):
    books.append([Row("/new.mp4", id="new", corpus="other")], [Slot(4, 1000, 100, 75)], [])  # and the run is killed
    again = Books(store.Writer.open(books.root), store.open(books.root), books.rows, Summary())
    again.add_corpora()
    assert store.Writer.open(books.root).attrs["corpora"] == ["synthetic", "other"]


def test_new_slots_are_one_write_a_column(books, monkeypatch):
    writes = []
    write = books.writer.write_clips
    monkeypatch.setattr(
        books.writer, "write_clips", lambda first, columns: writes.append(first) or write(first, columns)
    )
    before = books.table()["offset"].tolist()
    books.rehouse([Slot(3, 900, 100, 99), Slot(1, 700, 100, 99)])
    assert writes == [1]
    assert books.table()["offset"].tolist() == [before[0], 700, before[2], 900]
    assert books.table()["capacity"][[1, 3]].tolist() == [100, 100]


def test_a_batch_that_another_version_staged_is_computed_again(books):
    staging.stage(books.root, BATCH, [{}], [{"clip": 0, "id": "a", "path": "/a", "colour": "red"}])
    mine = BATCH.replace("-1", "-2")
    staging.stage(books.root, mine, [{}], [{"clip": 0, "id": "a", "path": "/a"}])
    assert books.staged() == {mine}
    assert set(staging.staged(books.root)) == {mine}


def test_clips_of_damaged_shards_are_done_again(books):
    assert books.unfinished(retry_failed=False) == [3]
    books.reopen([1])
    assert books.unfinished(retry_failed=False) == [1, 3]


def test_an_error_of_ours_after_the_store_was_made_is_one_of_the_run(tmp_path, monkeypatch):
    """Else its exit code would say that nothing was changed."""
    (tmp_path / "corpus" / "real").mkdir(parents=True)
    shutil.copy(CLIP, tmp_path / "corpus" / "real")

    def refused(self, rows):
        raise ManifestError("the list is gone")

    monkeypatch.setattr(Planner, "_probe", refused)
    with pytest.raises(RunError, match="the list is gone"):
        run.run(Config(place(tmp_path / "s.zarr"), (f"folder:{tmp_path / 'corpus'}",)))
    assert (tmp_path / "s.zarr" / "zarr.json").exists()


def test_a_corpus_without_real_clips_is_told_before_the_work(tmp_path, monkeypatch, caplog):
    for folder, name in (("fake", "a"), ("real", "b")):
        (tmp_path / "corpus" / folder).mkdir(parents=True)
        shutil.copy(CLIP, tmp_path / "corpus" / folder / f"{name}.mp4")

    def works(self, pending):
        assert "no clip of train is known to be real" in caplog.text
        assert "ROOT/real/**" in caplog.text
        assert "--limit" in caplog.text
        raise ManifestError("hours of work")

    monkeypatch.setattr(run._Job, "_first_pass", works)
    asked = Config(place(tmp_path / "s.zarr"), (f"folder:{tmp_path / 'corpus'}",), limit=1)
    dry = replace(asked, dry_run=True)
    assert "no clip of train is known to be real" in report.text(run.run(dry), dry)
    whole = replace(dry, limit=None)
    assert "real" not in report.text(run.run(whole), whole)
    with pytest.raises(RunError, match="hours of work"):
        run.run(asked)
