"""Local files appear whole or not at all, also where a write fails halfway; devices, pipes and what is others' stay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from concord import command, files

ROOT = Path(__file__).parents[2]


def test_a_file_is_replaced_whole(tmp_path):
    target = tmp_path / "a.json"
    files.write(target, b"one")
    files.write(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.json"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), files.writing(target) as file:
        file.write(b"%d" % (1 // 0))
    with pytest.raises(ZeroDivisionError), files.replacing(target) as partial:
        partial.write_bytes(b"half" * (1 // (partial.write_bytes(b"half") - 4)))
    with pytest.raises(FileNotFoundError), files.replacing(target):
        pass  # nothing was written
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_library_may_write_by_name(tmp_path):
    with files.replacing(tmp_path / "a.npz") as partial:
        assert partial.parent == tmp_path
        assert files.is_unfinished(partial.name)
        partial.write_bytes(b"arrays")
        assert not (tmp_path / "a.npz").exists()
    assert (tmp_path / "a.npz").read_bytes() == b"arrays"


def test_the_error_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(OSError, match=r"nowhere/a cannot be written: No such file"):
        files.write(tmp_path / "nowhere" / "a", b"")
    with pytest.raises(OSError, match="/dev/full cannot be written") as caught:
        files.write(Path("/dev/full"), b"x")
    assert command.told(caught.value) == (
        "/dev/full cannot be written: No space left on device; make room and run it again"
    )


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_an_open_file_goes_on_where_it_is(tmp_path, name):
    """As a shell's `> log` with --output /dev/stdout: the log keeps what stands there, and stays the same file."""
    with (tmp_path / "log").open("wb") as log:
        log.write(b"before ")
        log.flush()
        files.write(Path(name.format(log.fileno())), b"after")
    assert (tmp_path / "log").read_bytes() == b"before after"
    assert os.listdir(tmp_path) == ["log"]


def test_standard_output_is_no_file_to_replace(tmp_path):
    code = "import sys; from pathlib import Path; from concord import files; files.write(Path('/dev/stdout'), b'text')"
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, cwd=ROOT, check=True)
    assert (tmp_path / "log").read_bytes() == b"text"
    assert Path("/dev/stdout").is_symlink() or not Path("/dev/stdout").exists()


def test_a_pipe_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write(tmp_path / "pipe", b"text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_in_a_store_a_link_or_pipe_of_that_name_is_replaced(tmp_path):
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with files.replacing(tmp_path / name) as partial:
            partial.write_bytes(b"new")
        assert files.is_plain(tmp_path / name)
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_folders_and_files_are_flushed_in_order(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (done.append(name), real(*args)))
    files.make_folder(tmp_path / "a" / "b")
    files.write(tmp_path / "a" / "b" / "c", b"")
    assert done == ["fsync", "fsync", "fsync", "replace", "fsync"]


def test_unfinished_files_are_known_by_name(tmp_path):
    ours = [files.unfinished(tmp_path).name, files.unfinished(tmp_path, "7").name, f".zarr.json.{'0' * 32}.partial"]
    others = [
        ".concord-partial-notes",
        f".concord-partial-{'0' * 11}",
        "notes.partial",
        ".notes.partial",
        "concord-partial-1",
        f"zarr.json.{'0' * 32}.partial",
    ]
    assert all(map(files.is_unfinished, ours))
    assert not any(map(files.is_unfinished, others))
