"""What a command writes takes nothing from anybody: no file that was there, no input, no store, no other output."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_store import make_store

import store
from pipelines.audit import __main__ as audit
from pipelines.manifest import __main__ as manifest_command
from store import inspect, output
from store.layout import CREATION
from store.output import Output, check, check_folder
from store.place import place

ROOT = Path(__file__).parents[2]
NOTE = "of the user's own\n"
OURS = output.marked("notes of ours", b"ours ", b"mark")


def ran(main, *words):
    return CliRunner().invoke(main, [str(word) for word in words])


def contents(folder):
    """Every file below, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def corpus(tmp_path):
    """A corpus of two files, a manifest by hand, and notes beside them."""
    for kind in ("real", "fake"):
        (tmp_path / "corp" / kind).mkdir(parents=True)
        (tmp_path / "corp" / kind / "clip.mp4").write_bytes(b"\0\0\0\x18ftyp" + kind.encode())
    (tmp_path / "rows.csv").write_text(
        "path,label,mood\n" + "".join(f"{tmp_path}/corp/{k}/clip.mp4,{k},sad\n" for k in ("real", "fake"))
    )
    for name in ("notes.txt", "t.png", "me.html", "me.json"):
        (tmp_path / name).write_text(NOTE)
    return tmp_path


# -- the rule


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
    assert "is there and is not notes of ours" in refused([Output(path, OURS)])
    output.write(path, b"ours " + bytes(1 << 17) + b" mark")
    check([Output(path, OURS)])
    assert "read by this very run" in refused([Output(path, OURS)], [tmp_path / "." / "a"])
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
    assert "no folder that exists; make" in refused([Output(tmp_path / "x" / "y", OURS)])
    assert "is no folder" in refused([Output(tmp_path / "a" / "y", OURS)])
    assert "cannot be written" in refused([Output(tmp_path / ("n" * 300), OURS)])
    with pytest.raises(output.Refused, match="is no folder"):
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


def test_a_file_that_takes_what_is_printed_is_no_output(corpus):
    """The shell has made it, and empty, before the command begins."""
    words = [sys.executable, "-m", "pipelines.audit", "--manifest", "rows.csv", "--json", "out.json"]
    with open(corpus / "out.json", "w") as out:
        done = subprocess.run(words, stdout=out, stderr=subprocess.PIPE, text=True, cwd=corpus, env=environment())
    assert (done.returncode, "takes what this command prints" in done.stderr) == (2, True)


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


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


# -- the commands


def test_a_manifest_takes_the_place_of_none(corpus):
    before = contents(corpus)
    rows = ("--manifest", corpus / "rows.csv")
    for words in (
        (*rows, "-o", corpus / "rows.csv"),
        (*rows, "--where", "label=real", "-o", corpus / "rows.csv", "--overwrite"),
        (*rows, "--protocol", "own", "-o", corpus / "corp" / ".." / "rows.csv", "--overwrite"),
        (*rows, "-o", corpus / "corp" / "real" / "clip.mp4"),
        (*rows, "--where", "label=fake", "-o", corpus / "corp" / "real" / "clip.mp4", "--overwrite"),
        ("--corpus", f"folder:{corpus / 'corp'}", "-o", corpus / "corp" / "fake" / "clip.mp4", "--overwrite"),
        (*rows, "-o", corpus / "notes.txt"),
        (*rows, "--picture", corpus / "t.png"),
        (*rows, "-o", corpus / "n.png", "--picture", corpus / "n.png"),
        (*rows, "-o", corpus),
    ):
        done = ran(manifest_command.main, *words)
        assert done.exit_code == 2, (words, done.output)
        assert len(done.stderr.splitlines()) == 1
        assert contents(corpus) == before
    new = ("--manifest", corpus / "rows.csv", "-o", corpus / "new.csv", "--picture", corpus / "new.svg")
    assert ran(manifest_command.main, *new).exit_code == 0
    assert "--overwrite" in ran(manifest_command.main, *new).stderr
    assert ran(manifest_command.main, *new, "--overwrite").exit_code == 0
    assert ran(manifest_command.main, *rows, "--picture", corpus / "p.png").exit_code == 0
    assert ran(manifest_command.main, *rows, "--picture", corpus / "p.png").exit_code == 0


def test_an_audit_takes_the_place_of_its_own_alone(corpus):
    before = contents(corpus)
    rows = ("--manifest", corpus / "rows.csv")
    for words in (
        ("--json", corpus / "corp" / "real" / "clip.mp4", "--html", corpus / "me.html"),
        ("--html", corpus / "me.html"),
        ("--json", corpus / "me.json"),
        ("--json", corpus / "rows.csv"),
        ("--json", corpus / "x", "--html", corpus / "x"),
        ("--json", "-", "--html", "/dev/stdout"),
    ):
        done = ran(audit.main, *rows, *words)
        assert done.exit_code == 2, (words, done.output)
        assert contents(corpus) == before
    own = (*rows, "--json", corpus / "a.json", "--html", corpus / "a.html")
    assert [ran(audit.main, *own).exit_code for _ in range(2)] == [0, 0]
    assert ran(audit.main, *rows, "--json", corpus / "a.html").exit_code == 2
    assert ran(audit.main, *rows, "--html", corpus / "a.json").exit_code == 2
    done = ran(audit.main, *rows, "--html", "/dev/full", "--json", corpus / "b.json")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: /dev/full: No space left on device; make room and run it again\n",
    )
    assert json.loads((corpus / "b.json").read_text())["rows"] == 2


def test_a_fit_takes_the_place_of_a_fit(tmp_path):
    shutil.copy(store.similarity.fitfile.DEFAULT, tmp_path / "fit.npz")
    np.savez(tmp_path / "mine.npz", a=np.zeros(3))
    (tmp_path / "notes.txt").write_text(NOTE)
    root = make_store(tmp_path / "s.zarr", {"train": 2})
    before = contents(tmp_path)
    for name in ("s.zarr/zarr.json", "s.zarr/new", "notes.txt", "mine.npz", "nowhere/x"):
        done = ran(inspect.main, root, "--save-fit", tmp_path / name)
        assert done.exit_code == 2, (name, done.output)
        assert contents(tmp_path) == before
    check([Output(tmp_path / "fit.npz", store.similarity.fitfile.KIND)])


def test_predict_looks_at_its_outputs_before_it_loads_anything(corpus):
    from student.predict import __main__ as predict

    (corpus / "v.mp4").write_text(NOTE)
    (corpus / "pg").mkdir()
    (corpus / "pg" / "v.html").write_text(NOTE)
    before, video = contents(corpus), corpus / "v.mp4"
    for words in (
        ("--json", video),
        ("--html", corpus / "pg"),
        ("--html", corpus / "me.html"),
        ("--html", corpus / "notes.txt"),
        ("--json", corpus / "x", "--html", corpus / "x"),
        ("--json", corpus / "x.html", "--html", corpus / "x.html"),
        ("--json", corpus / "new" / "v.html", "--html", corpus / "new"),
        ("--json", corpus / "me.json"),
        ("--html", corpus / "corp" / "real" / "clip.mp4" / "x"),
    ):
        done = ran(predict.main, video, "--teacher-only", "--fit-from", corpus / "no fit", *words)
        assert done.exit_code == 2, (words, done.output)
        assert "no fit" not in done.stderr, words  # which is looked at later
        assert contents(corpus) == before
        assert not (corpus / "x").exists()
    done = ran(predict.main, video, corpus / "corp" / "real" / "clip.mp4", "--teacher-only", "--html", "/dev/full")
    assert (done.exit_code, "takes a folder where there are several videos" in done.stderr) == (2, True)


def test_training_starts_in_no_file_and_in_no_store(tmp_path):
    from student import train

    root = make_store(tmp_path / "s.zarr", {"train": 2})
    (tmp_path / "clip.mp4").write_text(NOTE)
    for name, says in (
        ("clip.mp4", "is no folder"),
        ("s.zarr/fit/run", "lies in the store"),
        ("s.zarr", "lies in the"),
    ):
        done = ran(train.main, "--store", root, "--output", tmp_path / name, "--cpu")
        assert (done.exit_code, says in done.stderr) == (2, True), done.output
        assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "clip.mp4").read_text() == NOTE


def test_tables_pictures_arrays_and_pages_know_their_own(tmp_path):
    """What each command writes, it may replace; what another wrote, it may not."""
    from pipelines.demo import timeline as picture
    from pipelines.manifest import picture as manifest_picture
    from student.predict import page as predict_page
    from student.scoring import plots

    kinds = {
        "evaluate.png": output.picture(plots.COMMAND),
        "manifest.png": output.picture(manifest_picture.COMMAND),
        "demo.png": output.picture(picture.COMMAND),
        "predict.html": output.page(predict_page.COMMAND),
        "check.npz": output.arrays("student.check"),
    }
    from matplotlib.figure import Figure

    for name in ("evaluate", "manifest", "demo"):
        command = {"evaluate": plots, "manifest": manifest_picture, "demo": picture}[name].COMMAND
        for form in ("png", "svg", "pdf"):
            file = tmp_path / f"{name}.{form}"
            Figure().savefig(file, metadata=output.picture_metadata(command, form))
            assert kinds[f"{name}.png"].is_ours(file)
    Figure().savefig(tmp_path / "users.png")
    (tmp_path / "predict.html").write_text(output.head(predict_page.COMMAND) + "<title>x</title>")
    import io

    packed = io.BytesIO()
    np.savez(packed, clip_logits=np.arange(3))
    output.write(tmp_path / "check.npz", output.npz(packed, "student.check"))
    assert np.load(tmp_path / "check.npz")["clip_logits"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "users.npz", clip_logits=np.arange(3))
    for name, kind in kinds.items():
        assert {
            file.name for file in tmp_path.iterdir() if kind.is_ours(file) and file.suffix == Path(name).suffix
        } == {name}


# -- stores within stores


def test_no_store_is_made_in_another(tmp_path):
    root = make_store(tmp_path / "o.zarr", {"train": 2})
    (tmp_path / "way").symlink_to(root / "frames")
    for inside in (root / "fit" / "mine.zarr", tmp_path / "way" / "mine.zarr", root / "fit"):
        with pytest.raises(store.StoreError, match=r"lies in the store|holds something"):
            store.create(inside, {"asr": 2, "vsr": 2}, {})
        assert not (inside / "zarr.json").exists() or inside == root / "fit"


def test_precompute_makes_no_store_in_another(tmp_path):
    import precompute

    root = make_store(tmp_path / "o.zarr", {"train": 2})
    (tmp_path / "corp" / "real").mkdir(parents=True)
    (tmp_path / "corp" / "real" / "a.mp4").write_bytes(b"x")
    before = contents(root)
    words = ("--corpus", f"folder:{tmp_path / 'corp'}", "--store", root / "fit" / "mine.zarr")
    for more in ((), ("--dry-run",)):
        done = ran(precompute.main, *words, *more)
        assert (done.exit_code, "lies in the store" in done.stderr) == (2, True), done.output
        assert contents(root) == before


def test_a_store_within_a_group_outlives_the_group(tmp_path):
    from store.arrays.nodes import delete_node

    inner = make_store(tmp_path / "s", {"train": 2})
    root = make_store(tmp_path / "o.zarr", {"train": 2})
    (root / "words" / "deep").mkdir(parents=True)
    shutil.move(inner, root / "words" / "deep" / "mine.zarr")
    (root / "words" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    before = contents(root / "words" / "deep")
    delete_node(place(root / "words"))
    assert contents(root / "words" / "deep") == before
    assert not (root / "words" / "zarr.json").exists()


def test_inspecting_with_closed_streams_is_as_with_open_ones(tmp_path):
    root = make_store(tmp_path / "s.zarr", {"train": 2})
    for close in (">&-", "2>&-", ">&- 2>&-"):
        words = ["sh", "-c", f'exec "$@" {close}', "sh", sys.executable, "-m", "store.inspect", root, "--verify"]
        done = subprocess.run(words, capture_output=True, text=True, env=environment())
        assert (done.returncode, done.stderr) == (0, ""), close


def test_a_store_that_is_moved_during_a_run_is_said_to_be_gone(tmp_path, monkeypatch):
    """Its driver reads and writes nothing at the old place any more, whatever the first thing is that fails."""
    import precompute
    from pipelines.job.planning import Planner

    def moved(self, rows):
        os.rename(tmp_path / "s.zarr", tmp_path / "moved.zarr")
        return [75 for _ in rows]

    monkeypatch.setattr(Planner, "_probe", moved)
    clips = tmp_path / "corp" / "real"
    clips.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "data" / "grid" / "clips" / "bbaf2n.mp4", clips)
    done = ran(precompute.main, "--corpus", f"folder:{tmp_path / 'corp'}", "--store", tmp_path / "s.zarr")
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    assert f"{tmp_path / 's.zarr'} is gone: the store was moved or removed" in last
    assert (tmp_path / "moved.zarr" / "zarr.json").exists()
    assert not (tmp_path / "s.zarr").exists()
