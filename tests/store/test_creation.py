"""Making a store: in an empty folder alone, by one driver, and nothing of anybody else's is ever touched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_store import make_store

import store
from store.arrays import inventory
from store.creation import CREATION, is_taken, mark, unmake
from store.layout import StoreError
from store.place import lease, place

ROOT = Path(store.__file__).parent.parent
WIDTHS = {"asr": 3, "vsr": 4}


def tree(folder):
    """Every file below with its bytes, and every link with its target."""
    found = {}
    for file in sorted(Path(folder).rglob("*")):
        found[str(file.relative_to(folder))] = (
            os.readlink(file) if file.is_symlink() else file.is_file() and file.read_bytes()
        )
    return found


@pytest.mark.parametrize(
    "names",
    [
        ["clips/a.mp4"],
        ["frames/a.png"],
        ["clips/a.mp4", "frames/zarr.json"],
        [".lock"],
        ["zarr.jsn"],
        ["_staging/x.npz"],
        ["fit/notes"],
        [".hidden"],
        [inventory.FILE],
        ["clips/zarr.json"],
        ["clips/id/zarr.json", "clips/id/c/0"],
    ],
)
def test_a_folder_that_holds_anything_is_refused_and_stays_as_it_is(tmp_path, names):
    for name in names:
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_text("mine")
    before = tree(tmp_path)
    assert is_taken(place(tmp_path / "s"))
    with pytest.raises(StoreError, match="exists already and is not empty"):
        store.create(tmp_path / "s", WIDTHS, {})
    assert tree(tmp_path) == before


def test_files_beside_the_mark_of_a_creation_are_not_its_own(tmp_path):
    root = place(tmp_path / "s").confined()
    mark(root, ["clips/zarr.json", "clips/id/zarr.json", "zarr.json"])
    (root / "clips/zarr.json").write(b"{}")
    assert not is_taken(root)
    (tmp_path / "s/clips/mine.mp4").write_bytes(b"mine")
    assert is_taken(root)
    with pytest.raises(StoreError, match="is not empty"):
        store.create(root, WIDTHS, {})
    assert (tmp_path / "s/clips/mine.mp4").read_bytes() == b"mine"


MARKS = [b"", b"{", b"[]", b'{"files": 3}', b"[" * 100_000]
MARKS += [b'{"files": ["../outside/zarr.json", "/etc/x", "clips/../../outside"]}']


@pytest.mark.parametrize("text", MARKS)
def test_a_mark_that_makes_no_sense_gives_nothing_away(tmp_path, text):
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "s/clips").mkdir(parents=True)
    (tmp_path / "s/clips/zarr.json").write_text("mine")
    (tmp_path / "s" / CREATION).write_bytes(text)
    before = tree(tmp_path)
    with pytest.raises(StoreError):
        store.create(tmp_path / "s", WIDTHS, {})
    assert tree(tmp_path) == before
    (tmp_path / "s/clips/zarr.json").unlink()
    store.create(tmp_path / "s", WIDTHS, {})
    assert (tmp_path / "outside").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["clips", "frames", "_staging", "frames/mouth", "clips/id", "fit", "zarr.json", "inventory.json"]
)
def test_links_inside_a_store_are_followed_neither_to_read_nor_to_write(tmp_path, name):
    path = make_store(tmp_path / "s", {"train": 6})
    outside = tmp_path / "outside"
    if (path / name).exists():
        (path / name).rename(outside)
    else:
        outside.mkdir()
    (path / name).symlink_to(outside)
    before = tree(tmp_path / "outside") if outside.is_dir() else outside.read_bytes()

    def everything():
        writer = store.Writer.open(path)
        writer.tidy()
        writer.append_clips({"id": ["new"]})
        writer.ensure_projections(5)
        writer.write_fit(store.open(path).fit.to_arrays())
        writer.grow_rows(writer.num_rows + 1)
        for shard in range(writer.num_rows // writer.shard_rows):
            writer.write_shard(shard, writer.blank_shard())
        writer.consolidate()

    with pytest.raises(StoreError, match=r"is a symbolic link|has no array id"):
        everything()
    assert (tree(tmp_path / "outside") if outside.is_dir() else outside.read_bytes()) == before


def test_the_lock_is_no_link_and_nothing_is_written_to_it(tmp_path):
    path = make_store(tmp_path / "s", {"train": 6})
    (tmp_path / "precious").write_text("mine")
    (path / lease.FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="symbolic link"), lease.held(path):
        pass
    assert (tmp_path / "precious").read_text() == "mine"
    (path / lease.FILE).unlink()
    (path / lease.FILE).write_text("somebody's")
    with lease.held(path), pytest.raises(lease.Held), lease.held(path):
        pass
    assert (path / lease.FILE).read_text() == "somebody's"
    (path / lease.FILE).unlink()
    os.mkfifo(path / lease.FILE)
    with pytest.raises(StoreError, match="is not a regular file"), lease.held(path):
        pass


def test_a_disk_without_locks_is_not_taken_for_another_run(tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)  # such a disk cannot be mounted here
    with pytest.raises(StoreError, match="cannot be locked") as error, lease.held(tmp_path):
        pass
    assert not isinstance(error.value, lease.Held)


def test_what_was_made_for_a_run_that_ends_at_once_goes_and_nothing_else(tmp_path):
    root = store.create(tmp_path / "s", WIDTHS, {}).place
    (tmp_path / "s/clips/mine.mp4").write_bytes(b"mine")
    (tmp_path / "s/notes.txt").write_text("mine")
    unmake(root)
    assert sorted(tree(tmp_path / "s")) == [CREATION, "clips", "clips/mine.mp4", "notes.txt"]
    (tmp_path / "s/clips/mine.mp4").unlink()
    (tmp_path / "s/notes.txt").unlink()
    store.create(root, WIDTHS, {})
    unmake(root)
    assert not (tmp_path / "s").exists()


TWO = """
import sys
from store import create
from store.creation import mark
from store.place import lease, place
root = place(sys.argv[1])
mark(root)
print("marked", flush=True)
sys.stdin.readline()
try:
    with lease.held(root):
        if not (root / "zarr.json").exists():
            create(root, {"asr": int(sys.argv[2]), "vsr": 4}, {"made_by": sys.argv[2]})
        print("made", flush=True)
        sys.stdin.readline()
except lease.Held as error:
    print(error)
"""


def test_of_two_creations_at_once_one_is_told_of_the_other(tmp_path):
    def start(width):
        command = [sys.executable, "-c", TWO, str(tmp_path / "s"), str(width)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    with start(3) as first, start(5) as second:
        for child in (first, second):  # both found an empty folder
            assert child.stdout.readline() == "marked\n"
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.stdout.readline() == "made\n"
        out, _ = second.communicate("\n", timeout=60)
        assert "another run is writing" in out
        first.communicate("\n", timeout=60)
    reader = store.open(tmp_path / "s")
    assert reader.attrs["made_by"] == "3"
    assert {reader.array("asr").shape[1], reader.array("vsr").shape[1]} == {3, 4}


def test_two_creations_in_a_bucket_do_not_mix(s3):
    root = place(f"{s3}/s")
    mark(root)
    with lease.held(root):
        assert not is_taken(root)
        store.create(root, WIDTHS, {"made_by": "first"})
    assert json.loads((root / "zarr.json").read())["attributes"]["made_by"] == "first"
    with pytest.raises(StoreError, match="is not empty"):
        store.create(root, {"asr": 5, "vsr": 5}, {"made_by": "second"})
