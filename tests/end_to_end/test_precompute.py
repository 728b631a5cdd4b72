"""The command from end to end with real clips, real teachers and a real Ray: awkward inputs, second runs, kills, refusals."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import awkward
import numpy as np
import pytest
import zarr
from command_runs import ran, refused

import store
from pipelines.job import request
from pipelines.tables import ledger
from pipelines.workers.watch import Watcher
from precompute import main
from store import layout

ROOT = Path(__file__).parents[2]
GOOD, OTHER = "bbaf2n.mp4", "lgas5a.mp4"


def precompute(*options: object, code: int | None = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "precompute.py"), *map(str, options)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=500)
    if code is not None:
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def wait_until(condition, run: subprocess.Popen) -> None:
    """Until the condition holds or the process ends."""
    while not condition():
        try:
            run.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
        break


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, clips):
    """A folder of two good real clips and every awkward file; {file name: reason}."""
    folder = tmp_path_factory.mktemp("corpus")
    expected = awkward.build(folder, clips / "clips" / GOOD, clips / "clips" / OTHER)
    for name in (GOOD, OTHER):
        shutil.copy(clips / "clips" / name, folder / "real" / name)
        expected[name] = ""
    return folder, expected


@pytest.fixture(scope="module")
def made(tmp_path_factory, corpus):
    """The store of that folder, made by Ray, and what the command said."""
    path = tmp_path_factory.mktemp("store") / "calm.zarr"
    return path, precompute("--corpus", f"folder:{corpus[0]}", "--store", path, "--words", "--address", "local", code=3)


def test_every_input_ends_in_the_ledger_with_its_reason(made, corpus):
    entries = {e.id.partition("/real/")[2]: e for e in ledger.read(made[0]).values()}
    assert {name: e.reason for name, e in entries.items()} == corpus[1]
    for entry in entries.values():
        assert entry.attempts == (2 if entry.path.endswith("/joined.mkv") else 1)
        assert (entry.stage == "done") == (entry.reason == "")
        if entry.reason:
            assert entry.message
            assert f"  {entry.id}: {entry.message}" in made[1].stdout.splitlines()
    assert sum(bool(entry.reason) for entry in entries.values()) == 10  # as many as the last lines name


def test_a_clip_longer_than_its_header_says_gets_a_new_slot_and_the_ledger_says_so(made):
    reader = store.open(made[0])
    row = next(i for i in range(len(reader)) if reader.clip(i).path.endswith("/joined.mkv"))
    entry = next(e for e in ledger.read(made[0]).values() if e.path.endswith("/joined.mkv"))
    assert (entry.stage, entry.reason) == ("done", "")
    assert "new slot" in entry.message
    clip = reader.clip(row)
    assert (clip.length, clip.capacity) == (75, 75)
    assert clip.offset >= layout.SHARD
    assert clip.offset == max(reader.clips["offset"])


def test_failed_clips_are_rows_that_are_not_done(made, corpus):
    reader = store.open(made[0])
    assert len(reader) == len(corpus[1])
    done = {
        str(i).partition("/real/")[2]: bool(d) for i, d in zip(reader.clips["id"], reader.clips["done"], strict=True)
    }
    assert done == {name: not reason for name, reason in corpus[1].items()}


def test_arrays_are_the_contracts(made):
    group = zarr.open(str(made[0]), mode="r")
    assert set(group["clips"].array_keys()) >= set(layout.CLIP_ARRAYS)
    frames = {
        "mouth",
        "audio",
        "asr",
        "vsr",
        "asr_projection",
        "vsr_projection",
        "similarity",
        "fake",
        "flags",
        "lips",
        "blendshapes",
    }
    assert set(group["frames"].array_keys()) >= frames
    assert set(group["words"].array_keys()) == {"clip", "start", "end", "text", "probability"}
    assert group.attrs["teachers"]["asr"]["name"] == "whisper:tiny.en@3"
    assert len({array.shape[0] for _, array in group["frames"].arrays()}) == 1
    assert "mouth" in str(group.tree())


def test_done_clips_hold_picture_sound_embeddings_and_labels(made):
    reader = store.open(made[0])
    for i in np.flatnonzero(reader.clips["done"] == 1):
        clip = reader.clip(i)
        got = reader.frames(i, 0, clip.length, reader.names)
        assert clip.length == 75
        assert (got["flags"] & layout.IN_USE).all()
        assert got["mouth"].std() > 5
        assert got["audio"].any()
        assert (got["fake"] == 0).all()
        for name in ("asr", "vsr", "asr_projection", "vsr_projection", "similarity", "lips", "blendshapes"):
            assert np.isfinite(got[name]).all(), name
        assert ((got["similarity"] >= 0) & (got["similarity"] <= 1)).all()
        rows = slice(clip.offset, clip.offset + clip.length)
        np.testing.assert_array_equal(zarr.open(str(made[0]), mode="r")["frames/lips"][rows], got["lips"])
        own = reader.pair_similarity(i, i)
        np.testing.assert_allclose(own, got["similarity"], atol=1e-3)


def test_words_are_heard_where_they_are_spoken(made, clips):
    from pipelines.corpora import grid

    reader = store.open(made[0])
    row = next(i for i in range(len(reader)) if reader.clip(i).path.endswith(f"/{GOOD}"))
    heard = reader.words(row)
    assert heard
    spoken = grid.words(clips / "align" / f"{Path(GOOD).stem}.align")
    assert abs(heard[0]["start"] - spoken[0].start_s) < 0.4
    assert heard[-1]["end"] <= reader.clip(row).duration + 0.1


def test_a_second_run_has_nothing_to_do(made, corpus):
    before = {p: p.stat().st_mtime_ns for p in (made[0] / "frames").rglob("*") if p.is_file()}
    again = precompute("--corpus", f"folder:{corpus[0]}", "--store", made[0], code=3)
    assert "nothing to do" in again.stdout
    assert before == {p: p.stat().st_mtime_ns for p in (made[0] / "frames").rglob("*") if p.is_file()}
    assert ran(main, "--store", made[0], "--max-failures", 0.9).exit_code == 0


def equal(a: Path, b: Path, but: tuple[str, ...] = ()) -> None:
    """Every array of two stores has the same values."""
    one, two = zarr.open(str(a), mode="r"), zarr.open(str(b), mode="r")
    for table in ("clips", "frames", "fit"):
        assert set(one[table].array_keys()) == set(two[table].array_keys())
        for name, array in one[table].arrays():
            if name not in but:
                np.testing.assert_array_equal(array[:], two[table][name][:], err_msg=f"{table}/{name}")


def test_a_killed_run_goes_on_to_the_same_values(made, corpus, tmp_path):
    (folder, _), (calm, _) = corpus, made
    path = tmp_path / "killed.zarr"
    command = [sys.executable, str(ROOT / "precompute.py"), "--corpus", f"folder:{folder}", "--store", str(path)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        wait_until(lambda: list((path / "_staging").glob("*.npz")), run)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not (store.open(path).clips["done"] == 1).all()
    precompute("--corpus", f"folder:{folder}", "--store", path, code=3)
    equal(calm, path)


@pytest.mark.slow
def test_small_jobs_in_the_driver_give_the_values_of_workers(made, corpus, tmp_path):
    path = tmp_path / "spread.zarr"
    words = ["precompute.py", "--corpus", f"folder:{corpus[0]}", "--store", str(path), "--address", "local"]
    code = f"import sys; sys.argv = {words}; from pipelines.job import run; run.SMALL.clear()"
    code += "; from precompute import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3, done.stderr
    equal(made[0], path)


@pytest.mark.slow
def test_a_retried_clip_joins_a_shard_that_is_full_of_others(made, corpus, tmp_path, clips):
    folder, path = tmp_path / "corpus", tmp_path / "retry.zarr"
    (folder / "real").mkdir(parents=True)
    for source in sorted((clips / "clips").glob("*.mp4")):
        shutil.copy(source, folder / "real" / source.name)
    whole = (folder / "real" / GOOD).read_bytes()
    (folder / "real" / GOOD).write_bytes(whole[: len(whole) // 2])
    precompute("--corpus", f"folder:{folder}", "--store", path, code=3)
    reader, names = store.open(path), ("mouth", "audio", "asr", "vsr")
    done = np.flatnonzero(reader.clips["done"] == 1).tolist()
    before = {i: reader.frames(i, 0, 75, names) for i in done}
    (folder / "real" / GOOD).write_bytes(whole)
    precompute("--store", path, "--retry-failed", "--refit")
    after = store.open(path)
    assert (after.clips["done"] == 1).all()
    entry = next(e for e in ledger.read(path).values() if e.path.endswith(GOOD))
    assert (entry.reason, entry.attempts) == ("", 2)
    for i in done:
        for name, values in after.frames(i, 0, 75, names).items():
            np.testing.assert_array_equal(before[i][name], values)


@pytest.mark.slow
def test_a_later_corpus_appends_and_keeps_the_fit(made, clips, tmp_path):
    path = tmp_path / "both.zarr"
    shutil.copytree(made[0], path)
    precompute("--corpus", f"grid:{clips}", "--store", path, code=3)
    old, new = store.open(made[0]), store.open(path)
    assert len(new) == len(old) + 4
    np.testing.assert_array_equal(new.fit.vsr_matrix, old.fit.vsr_matrix)
    assert {"grid:grid"} <= set(new.fit.calibration)
    assert new.clips["offset"][len(old)] % layout.SHARD == 0
    for i in np.flatnonzero(old.clips["done"] == 1):
        a, b = (r.frames(i, 0, 75, ["similarity", "asr_projection"]) for r in (old, new))
        np.testing.assert_array_equal(a["similarity"], b["similarity"])


@pytest.mark.slow
def test_unlabelled_clips_are_embedded_and_the_last_line_says_what_is_missing(clips, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    shutil.copy(clips / "clips" / GOOD, folder)
    done = precompute("--corpus", f"folder:{folder}", "--store", tmp_path / "s.zarr")
    assert "no soft labels yet" in done.stdout.splitlines()[-1]
    reader = store.open(tmp_path / "s.zarr")
    assert reader.fit is None
    assert np.isnan(reader.frames(0, 0, 75, ["similarity"])["similarity"]).all()


@pytest.mark.slow
def test_a_fit_can_be_borrowed(made, clips, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for name in (GOOD, OTHER):
        shutil.copy(clips / "clips" / name, folder)
    precompute("--corpus", f"folder:{folder}", "--store", tmp_path / "s.zarr", "--fit-from", made[0])
    reader = store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(reader.fit.asr_matrix, store.open(made[0]).fit.asr_matrix)
    assert np.isfinite(reader.frames(0, 0, 75, ["similarity"])["similarity"]).all()


@pytest.mark.slow
def test_a_refit_by_the_network_repeats_and_travels_in_one_file(made, clips, tmp_path):
    """Four clips teach nothing worth having; that the same command gives the same bytes is what is asked here."""
    one, two = tmp_path / "one.zarr", tmp_path / "two.zarr"
    for path in (one, two):
        shutil.copytree(made[0], path)
        done = precompute("--store", path, "--refit", "--similarity", "contrast", "--seed", 3, code=3)
        assert "clips again with noise" in done.stderr
    equal(one, two)
    fit = store.open(one).fit
    assert (fit.kind, store.open(one).attrs["similarity"]["seed"]) == ("contrast", 3)
    assert store.open(one).array("vsr_projection").shape[1] == fit.dims

    file = tmp_path / "fit.npz"
    saved = subprocess.run(
        [sys.executable, "-m", "store.inspect", str(one), "--save-fit", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert saved.returncode == 0, saved.stderr
    folder = tmp_path / "some"
    folder.mkdir()
    for name in (GOOD, OTHER):
        shutil.copy(clips / "clips" / name, folder)
    precompute("--corpus", f"folder:{folder}", "--store", tmp_path / "s.zarr", "--fit-from", file)
    reader = store.open(tmp_path / "s.zarr")
    for name, array in fit.network.items():
        np.testing.assert_array_equal(reader.fit.network[name], array)
    assert np.isfinite(reader.frames(0, 0, 75, ["similarity"])["similarity"]).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--similarity", "contrast"), "--refit"),
        (("--similarity", "cosine", "--refit"), "one space"),
        (("--similarity", "posterior", "--refit"), "deep_avsr-audio"),
        (("--fit-from", ROOT / "README.md"), "not a concord-av fit"),
    ],
)
def test_a_kind_that_does_not_suit_the_store_changes_nothing(made, options, says):
    before = store.open(made[0]).attrs
    assert says in refused("--store", made[0], *options)
    assert store.open(made[0]).attrs == before


@pytest.mark.slow
def test_damage_found_in_the_middle_of_a_run_is_no_usage_error(made, tmp_path):
    path = tmp_path / "damaged.zarr"
    shutil.copytree(made[0], path)
    with (path / "frames" / "asr" / "c" / "0" / "0").open("r+b") as shard:  # a chunk, which the index says nothing of
        shard.seek(100)
        shard.write(bytes(64))
    done = precompute("--store", path, "--refit", code=1)
    assert "frames/asr" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_shards_that_are_cut_short_or_gone_are_written_anew(made, tmp_path):
    path = tmp_path / "damaged.zarr"
    shutil.copytree(made[0], path)
    shard = path / "frames" / "mouth" / "c" / "0" / "0" / "0"
    os.truncate(shard, shard.stat().st_size // 2)
    (path / "frames" / "similarity" / "c" / "0").unlink()
    done = precompute("--store", path, code=3)
    assert "frames/mouth" in done.stderr
    assert "damaged" in done.stderr
    equal(made[0], path)


@pytest.mark.slow
def test_a_run_mends_tables_and_metadata_and_names_what_mends_the_rest(made, corpus, tmp_path):
    path = tmp_path / "damaged.zarr"
    shutil.copytree(made[0], path)
    want, command = store.open(made[0]), ("--corpus", f"folder:{corpus[0]}", "--store", path)
    (path / "fit/calibration").rename(tmp_path / "away")
    said = precompute("--store", path, code=2).stderr
    assert "fit/calibration" in said
    assert "precompute.py --refit" in said
    (tmp_path / "away").rename(path / "fit/calibration")

    for name in ("ledger.parquet", "manifest.parquet", "clips/label/zarr.json"):
        (path / name).write_bytes(b"PAR1")
    (path / "frames/vsr/zarr.json").unlink()
    said = precompute("--store", path, code=2).stderr  # what the manifest held is not in the store
    assert "the manifest of" in said
    assert "--corpus" in said
    said = precompute(*command, code=3)
    assert "ledger of the store was rebuilt" in said.stderr
    assert list(ledger.read(path)) == [str(i) for i in want.clips["id"]]
    assert store.open(path).inventory.complete
    equal(made[0], path)


def test_a_store_keeps_the_face_backend_it_was_made_with(made, tmp_path):
    path = tmp_path / "s.zarr"
    shutil.copytree(made[0], path)
    writer = store.Writer.open(path)
    noted = writer.attrs["teachers"]
    assert request.face_backend(writer.attrs) == Watcher().tracker.provenance()["options"]["backend"]
    assert Watcher("mediapipe").tracker.provenance()["options"]["backend"] == "mediapipe"
    noted["face"]["options"]["backend"] = "abacus"
    writer.update_attrs({"teachers": noted})
    said = refused("--store", path)
    assert "abacus" in said
    assert "not installed" in said


def test_a_store_of_other_teachers_is_refused(made, clips):
    said = refused("--corpus", f"grid:{clips}", "--store", made[0], "--vsr", "blendshapes")
    assert "--vsr lips" in said
    assert len(said.strip().splitlines()[-1]) < 400


def test_two_drivers_cannot_write_one_store(made):
    import fcntl

    with (made[0] / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = precompute("--store", made[0], "--retry-failed", code=2)
    assert "another run" in done.stderr


def test_sigterm_ends_with_143_and_the_run_goes_on_later(corpus, tmp_path):
    path = tmp_path / "s.zarr"
    command = [sys.executable, str(ROOT / "precompute.py"), "--corpus", f"folder:{corpus[0]}", "--store", str(path)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    wait_until((path / "manifest.parquet").exists, run)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 143
    assert "to continue" in said
