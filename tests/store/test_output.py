"""Where an output may be written: nothing that is there is lost, whatever it is, and a write is whole or not at all."""

import errno
import os
import subprocess
import sys

import pytest
from command_runs import contents, environment
from small_store import make_store

from store import output
from store.layout import CREATION
from store.output import Output, check, check_folder

NOTE = "of the user's own\n"
OURS = output.marked("notes of ours", b"ours ", b"mark")


def refused(outputs, inputs=(), folders=()):
    with pytest.raises(output.Refused) as raised:
        check(outputs, inputs, folders)
    return str(raised.value)


def test_a_new_name_an_empty_file_and_an_earlier_output_may_be_written(tmp_path):
    path = tmp_path / "a"
    check([Output(path, OURS)])
    path.touch()
    check([Output(path, OURS)])
    output.write(path, b"ours, with the mark")
    assert "exists and is not notes of ours" in refused([Output(path, OURS)])
    output.write(path, b"ours " + bytes(1 << 17) + b" mark")
    check([Output(path, OURS)])
    assert "read by this run" in refused([Output(path, OURS)], [tmp_path / "." / "a"])
    check([Output(path, OURS)], [tmp_path])  # a folder of inputs holds no output of ours by mistake


def test_what_bears_no_mark_needs_a_word(tmp_path):
    path, table = tmp_path / "a.csv", output.unmarked("a table")
    path.write_text(NOTE)
    assert "--overwrite" in refused([Output(path, table, False)])
    check([Output(path, table, True)])
    for read in (path, tmp_path, os.path.join(tmp_path, "x", "..", "a.csv")):
        (tmp_path / "x").mkdir(exist_ok=True)
        assert "would be lost" in refused([Output(path, table, True)], [read])
    os.link(path, tmp_path / "b.csv")
    assert "would be lost" in refused([Output(path, table, True)], [tmp_path / "b.csv"])


def test_links_folders_disks_and_missing_folders_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"ours, mark")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "lost").symlink_to("nowhere")
    for name in ("link", "lost"):
        assert "symbolic link" in refused([Output(tmp_path / name, OURS)])
    assert "is a folder" in refused([Output(tmp_path, OURS)])
    assert "not in a folder that exists; make" in refused([Output(tmp_path / "x" / "y", OURS)])
    assert "is not a folder" in refused([Output(tmp_path / "a" / "y", OURS)])
    assert "cannot be written" in refused([Output(tmp_path / ("n" * 300), OURS)])
    with pytest.raises(output.Refused, match="is not a folder"):
        check_folder(tmp_path / "a", "pages")
    check([Output("/dev/null", OURS), Output("/dev/null", OURS), Output("/dev/full", OURS)])


def test_no_two_outputs_share_a_place(tmp_path):
    (tmp_path / "sub").mkdir()
    both = [Output(tmp_path / "a", OURS), Output(tmp_path / "sub" / ".." / "a", output.unmarked("a table"))]
    assert "both notes of ours and a table" in refused(both)
    assert "both" in refused([Output(tmp_path / "a", OURS)], folders=[(tmp_path / "a", output.unmarked("pages"))])
    assert "two outputs" in refused([Output("/dev/stdout", OURS), Output("/dev/fd/1", OURS)])
    check([Output(tmp_path / "new" / "b", OURS)], folders=[(tmp_path / "new", OURS)])


@pytest.mark.parametrize("kind", ["sound", "broken", "gone", "made", "linked"])
def test_nothing_of_others_goes_into_a_store(tmp_path, kind):
    root = make_store(tmp_path / "s.zarr", {"train": 2})
    if kind == "broken":
        (root / "zarr.json").write_text("{")
    if kind == "gone":
        (root / "zarr.json").unlink()
    if kind == "made":
        root = tmp_path / "t.zarr"
        root.mkdir()
        (root / CREATION).write_text("{}")
    if kind == "linked":
        (tmp_path / "way").symlink_to(root / "fit")
        (root / "fit").mkdir(exist_ok=True)
        assert "lies in the store" in refused([Output(tmp_path / "way" / "x", OURS)])
    (root / "notes").mkdir()
    for name in ("x", "manifest.parquet", "notes/x"):
        assert "lies in the store" in refused([Output(root / name, output.unmarked("a table"), True)])
    with pytest.raises(output.Refused, match="lies in the store"):
        check_folder(root / "pages", "pages")
    assert "lies in the store" not in refused([Output(tmp_path, OURS)])


def test_standard_output_by_its_name_goes_on_where_it_is(tmp_path):
    """A file of its own under that name would begin anew, and as root even take the name's place in /dev."""
    code = "import sys; from store import output; output.write('/dev/stdout', b'new\\n')"
    with open(tmp_path / "log", "w") as log:
        log.write("old\n")
        log.flush()
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True, env=environment())
    assert (tmp_path / "log").read_text() == "old\nnew\n"
    assert os.path.islink("/dev/stdout")


def test_what_cannot_be_written_leaves_what_was_there_and_is_named(tmp_path):
    with pytest.raises(OSError, match="/dev/full") as raised:
        output.write("/dev/full", bytes(1 << 16))
    assert raised.value.errno == errno.ENOSPC
    path = tmp_path / ("é" * 120)  # 240 bytes of the 255 that a name may have
    output.write(path, b"old")
    code = (
        "import resource, signal, sys; from store import output; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); output.write(sys.argv[1], bytes(5000))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], stderr=subprocess.PIPE, text=True, env=environment())
    assert "File too large" in done.stderr.splitlines()[-1]
    assert path.name in done.stderr.splitlines()[-1]
    assert contents(tmp_path) == {path.name: b"old"}
