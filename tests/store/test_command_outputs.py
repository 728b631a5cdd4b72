"""Outputs of commands replace nothing: no existing file, no input, no store, no other output."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_runs import contents, environment, ran
from small_store import make_store

import store
from pipelines.audit import __main__ as audit
from pipelines.manifest import __main__ as manifest_command
from store import inspect, output
from store.output import Output, check

NOTE = "of the user's own\n"


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


def test_a_file_that_takes_what_is_printed_is_no_output(corpus):
    """The shell has made it, and empty, before the command begins."""
    words = [sys.executable, "-m", "pipelines.audit", "--manifest", "rows.csv", "--json", "out.json"]
    with open(corpus / "out.json", "w") as out:
        done = subprocess.run(words, stdout=out, stderr=subprocess.PIPE, text=True, cwd=corpus, env=environment())
    assert (done.returncode, "receives what this command prints" in done.stderr) == (2, True)


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
    assert (done.exit_code, "must be a folder if there are several videos" in done.stderr) == (2, True)


def test_training_starts_in_no_file_and_in_no_store(tmp_path):
    from student import train

    root = make_store(tmp_path / "s.zarr", {"train": 2})
    (tmp_path / "clip.mp4").write_text(NOTE)
    for name, says in (
        ("clip.mp4", "is not a folder"),
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


def test_inspecting_with_closed_streams_is_as_with_open_ones(tmp_path):
    root = make_store(tmp_path / "s.zarr", {"train": 2})
    for close in (">&-", "2>&-", ">&- 2>&-"):
        words = ["sh", "-c", f'exec "$@" {close}', "sh", sys.executable, "-m", "store.inspect", root, "--verify"]
        done = subprocess.run(words, capture_output=True, text=True, env=environment())
        assert (done.returncode, done.stderr) == (0, ""), close
