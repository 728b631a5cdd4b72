"""`python -m benchmarks.wild`: a store or the files give the figures of a plain computation, and what is missing is said."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import people
import pytest
from awkward import frames_of, sound_of, write_clip
from click.testing import CliRunner
from eyes_here import eyes_here
from small_store import make_store

import store
import teachers
from benchmarks.strangers import decider, evidence, forged, listed, sound, trivial
from benchmarks.strangers.decider import Decider
from benchmarks.wild import main
from pipelines.audit.measurer import Measurer
from pipelines.corpora.manifest import Row
from pipelines.workers.work import SECOND
from store import similarity
from store.similarity import fitfile
from store.similarity.limits import Scores
from store.similarity.strangers import NAME, PEOPLE, WITHIN, Length, Strangers
from student import checkpoint
from student.models import build
from student.predict.__main__ import predict
from student.predict.basis import basis

OURS = "grid:grid_s1"  # the corpus that the packaged fit was calibrated on
KEYS = {"format", "version", "own_sound", "decisions", "forgeries", "baselines", "rests_on"}


def listing(path, rows):
    """A manifest of rows {column: value}, at `path`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(*options):
    """The command's result and its JSON."""
    result = CliRunner().invoke(main, [*map(str, options), "--json", "-"])
    return result, json.loads(result.stdout) if result.stdout.startswith("{") else {}


# -- a synthetic store ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Reader of a store with 24 real clips and 6 forged ones, one of which is not done, and its manifest: 12 people."""
    folder = tmp_path_factory.mktemp("wild")
    reader = store.open(make_store(folder / "s.zarr", {"train": 9, "test": 15}, frames=(50, 60), fakes=3, broken=1))
    rows = [
        {
            "path": clip.path, "label": clip.label, "method": clip.method and f"by {k % 2}", "corpus": clip.corpus,
            "identities": json.dumps([f"p{k % 12}"]), "source": "both" if k % 3 else "",
        }
        for k, clip in enumerate(map(reader.clip, range(len(reader))))
    ]  # fmt: skip
    return reader, listing(folder / "m.csv", rows), rows


@pytest.fixture(scope="module")
def told(made):
    return run("--manifest", made[1], "--store", made[0].path)


def test_the_json_has_its_keys_and_says_what_is_missing(told):
    result, found = told
    assert result.exit_code == 3
    assert found.keys() == KEYS
    assert {"auc", "low", "high", "methods", "by_source"} <= found["forgeries"].keys()
    assert found["forgeries"]["by_source"].keys() == {"both"}
    whole = found["forgeries"]
    assert whole["sources"]["count"] == 1  # clips without a source are no source
    assert whole["sources"]["low"] is None
    assert found["forgeries"]["methods"].keys() == {"by 0", "by 1"} == found["baselines"]["methods"].keys()
    assert {"5", "25", "clip", "corpora"} <= found["own_sound"].keys()
    assert {"false_alarms", "misses", "decided", "real", "swapped", "corpora"} <= found["decisions"].keys()
    assert found["rests_on"]["lost"]["reasons"] == {"not finished": 1}
    assert found["rests_on"]["people"] == {"named": 12, "clips_of_unknown_people": 0}
    assert found["rests_on"]["fit_has_seen"] == 9
    assert "NaN" not in result.stdout


def test_own_sound_is_what_the_store_says_pair_by_pair(made, told):
    reader, file, _ = made
    clips, _ = listed.read(file)
    rows = {path: i for i, path in enumerate(reader.clips["path"].tolist())}
    real = [clip for clip in clips if clip.is_real]
    numbers = [rows[clip.row.path] for clip in real]
    partners = sound.partners(real, 5, 0).of
    for window in ("5", "25", "clip"):
        kinds = {
            "own": [(i, i, 0) for i in range(len(real))],
            "others": [(i, j, 0) for i in range(len(real)) for j in partners[i]],
            "shift_4": [(i, i, s) for i in range(len(real)) for s in (4, -4)],
            "shift_8": [(i, i, s) for i in range(len(real)) for s in (8, -8)],
        }
        values = {}
        for kind, some in kinds.items():
            found = []
            for i, j, shift in some:
                value = reader.pair_similarity(numbers[i], numbers[j], shift, window)
                value = value[np.isfinite(value)]
                found.append(value[:1] if window == "clip" else value)  # every frame of this store has face and voice
            values[kind] = np.concatenate(found)
        for kind in ("others", "shift_4", "shift_8"):
            mine = told[1]["own_sound"][window][kind]
            assert mine["auc"] == pytest.approx(similarity.auc(values["own"], values[kind]), abs=2e-3)
            assert mine["brier"] == pytest.approx(similarity.brier(values["own"], values[kind]), abs=1e-5)
            assert (mine["own"], mine["against"]) == (len(values["own"]), len(values[kind]))
            assert mine["low"] <= mine["auc"] <= mine["high"]
            assert mine["people"] == 12


def test_the_forgeries_are_ranked_by_similarity_and_margin(made, told):
    reader, _, rows = made
    similar, margin, label = [], [], []
    for i, row in enumerate(rows):
        if reader.clip(i).done:
            similar.append(-float(reader.pair_similarity(i, i, window="clip")[0]))
            margin.append(-round(reader.best_offset(i).margin, 4))
            label.append(row["label"])
    scores, fake = np.array([similar, margin]), np.array(label) == 1
    for name, values in zip(("similarity", "margin"), scores, strict=True):
        expected = similarity.auc(values[fake], values[~fake])
        assert told[1]["forgeries"]["scorers"][name]["auc"] == pytest.approx(expected, abs=1e-3)
    assert told[1]["forgeries"]["auc"] == told[1]["forgeries"]["scorers"]["similarity"]["auc"] > 0.9


def test_the_decisions_are_those_of_predict_and_all_are_counted(told):
    found = told[1]["decisions"]
    assert found["real"]["clips"] == found["swapped"]["clips"] == 24
    assert found["forged"]["clips"] == 5
    for kind in ("real", "swapped", "forged"):
        assert found[kind]["undecided"] == sum(found[kind]["reasons"].values()) == found[kind]["clips"]
    assert "uncalibrated" in found["real"]["reasons"]  # this store does not say on whom it was calibrated


def test_the_page_shows_all_of_it(made):
    result = CliRunner().invoke(main, ["--manifest", str(made[1]), "--store", str(made[0].path)])
    assert result.exit_code == 3
    for text in ("Own sound against other sound", "Decisions of predict", "within both", "not read: 1", "best trivial"):
        assert text in result.output
    assert max(map(len, result.output.splitlines())) <= 200
    assert len(result.output.splitlines()) < 60


def test_sound_is_scored_as_it_is_and_moved_as_the_limits_were_measured(made, told, tmp_path):
    reader, file, _ = made
    scores = [Scores.of(np.linspace(low, low + 0.4, 40)) for low in (0.5, 0.0)]
    record = Strangers(PEOPLE, False, ("news",), (Length(25, *scores),), {"5": (8.0, -2.0), "25": (8.0, -2.0)}, WITHIN)
    fitfile.save(tmp_path / "f.npz", reader.fit, reader.attrs["teachers"], {NAME: record.told()})
    options = ["--manifest", str(file), "--store", str(reader.path), "--fit-from", str(tmp_path / "f.npz")]
    _, found = run(*options)
    assert found["rests_on"]["sound_moved_within"] == WITHIN
    assert told[1]["rests_on"]["sound_moved_within"] == 0
    assert "moved" not in told[1]["own_sound"]
    for window in ("5", "25", "clip"):
        as_it_is, moved = (one[window]["others"] for one in (found["own_sound"], found["own_sound"]["moved"]))
        assert as_it_is["auc"] == told[1]["own_sound"][window]["others"]["auc"]  # the yardstick itself stays
        assert moved["against"] > 0
    brier = [one["5"]["brier"] for one in (found["own_sound"], found["own_sound"]["moved"])]
    assert brier[0] != brier[1]  # the best of five offsets is higher, of others' sounds above all
    shown = " ".join(CliRunner().invoke(main, options).output.split())
    assert "clip, moved" in shown
    assert "by up to 2 frames to where it fits best" in shown


def test_a_limit_takes_so_many_of_each_kind(made):
    result, found = run("--manifest", made[1], "--store", made[0].path, "--limit", 2)
    assert found["rests_on"]["clips"]["asked"] == 6  # real, by 0, by 1
    assert found["rests_on"]["clips"]["listed"] == 30
    assert found["rests_on"]["limit"] == 2
    assert result.exit_code in (0, 3)


def test_unnamed_people_count_one_by_one_and_it_is_said(made, tmp_path):
    rows = [{name: row[name] for name in ("path", "label", "method")} for row in made[2]]
    _, found = run("--manifest", listing(tmp_path / "m.csv", rows), "--store", made[0].path)
    assert found["rests_on"]["people"] == {"named": 0, "clips_of_unknown_people": 29}
    assert found["own_sound"]["pairs"] == {"another person": 0, "unknown": 24 * 5, "the same person": 0}
    assert found["own_sound"]["clip"]["others"]["people"] == 24
    assert found["forgeries"]["by_source"] == {}


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_figures_of_forgeries(made, tmp_path, label):
    rows = [row for row in made[2] if row["label"] == label]
    result, found = run("--manifest", listing(tmp_path / "m.csv", rows), "--store", made[0].path)
    assert result.exit_code == 3 - 3 * (label == 0)
    assert found["forgeries"]["auc"] is None
    assert found["baselines"]["strongest"] is None
    assert (found["own_sound"]["clip"]["others"]["auc"] is None) == (label == 1)
    assert (found["decisions"]["false_alarms"] is None) == (label == 1)


def test_real_and_forged_of_different_corpora_are_compared_only_if_there_is_nothing_else(made, tmp_path):
    apart = [{**row, "corpus": f"of {row['label']}"} for row in made[2]]
    found = run("--manifest", listing(tmp_path / "apart.csv", apart), "--store", made[0].path)[1]["forgeries"]
    assert found["mixed_corpora"]
    assert found["scorers"]["similarity"]["real"] == 24
    part = [{**row, "corpus": "a" if k % 2 or row["label"] else "b"} for k, row in enumerate(made[2])]
    found = run("--manifest", listing(tmp_path / "part.csv", part), "--store", made[0].path)[1]["forgeries"]
    assert not found["mixed_corpora"]
    assert found["scorers"]["similarity"]["real"] < 24


def test_a_student_is_judged_on_the_same_clips(made, tmp_path):
    import torch

    torch.manual_seed(0)
    about = {
        "threshold": 0.0, "temperature": 1.0, "fitted_on": "nothing", "window": 25, "store": {"path": "/nowhere"},
        "config": {"data": {"trim": "none"}}, "versions": {},
    }  # fmt: skip
    checkpoint.save_model(tmp_path, build("lite"), "lite", about)
    _, found = run("--manifest", made[1], "--store", made[0].path, "--checkpoint", tmp_path, "--limit", 4)
    assert found["forgeries"]["by"] == "both"
    assert found["forgeries"]["auc"] == found["forgeries"]["scorers"]["both"]["auc"]
    for kind, most in (("others", 4 * 3), ("shift_4", 8), ("shift_8", 8)):
        student = found["own_sound"]["student"][kind]
        teachers = student.pop("teachers")
        counts = ("own", "against", "people")
        assert [student[name] for name in counts] == [teachers[name] for name in counts]
        assert student["own"] == 4
        assert 4 <= student["against"] <= most
        if student["against"] == len(found["own_sound"]["clip"][kind]):
            assert teachers["auc"] == pytest.approx(found["own_sound"]["clip"][kind]["auc"])
    assert set(found["forgeries"]["scorers"]) == {"similarity", "margin", "student", "both"}


def test_the_student_and_half_the_margin_are_added_by_their_deviations():
    rng = np.random.default_rng(0)
    logit, margin = rng.normal(3, 40, 200), rng.normal(-1, 0.01, 200)
    fused = forged.both(logit, margin)
    alone = np.corrcoef([fused, logit, margin])
    assert alone[0, 1] / alone[0, 2] == pytest.approx(2, rel=0.3)  # whatever their scales
    np.testing.assert_allclose(forged.both(7 * logit - 5, 100 * margin), fused, atol=1e-9)
    lacking = forged.both(logit, np.full(200, np.nan))
    assert (np.argsort(lacking) == np.argsort(logit)).all()  # nothing is lost without a margin
    margin[3] = np.nan
    assert np.isfinite(forged.both(logit, margin)).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--store", "nowhere.zarr"], "nowhere.zarr"),
        (["--json", "m.csv"], "is not figures of benchmarks.wild"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(made, tmp_path, monkeypatch, options, text):
    shutil.copy(made[1], tmp_path / "m.csv")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["--manifest", "m.csv", "--store", str(made[0].path), *options])
    assert result.exit_code == 2
    assert text in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("fit", [fitfile.DEFAULT, "package"])
def test_a_fit_of_other_teachers_is_refused(made, fit):
    result, _ = run("--manifest", made[1], "--store", made[0].path, "--fit-from", fit)
    assert result.exit_code == 2
    assert "the fit" in result.stderr
    assert "--fit-from" in result.stderr


def test_what_a_fit_of_a_name_has_seen_is_not_known(made):
    assert decider.seen_by_fit([], "package") is None
    assert decider.seen_by_fit([], str(made[0].path)) == 0
    with pytest.raises(store.StoreError, match="no fit of that name"):
        decider.seen_by_fit([], "packages")


def test_a_manifest_none_of_whose_clips_is_there_is_refused(tmp_path):
    file = listing(tmp_path / "m.csv", [{"path": "/nowhere/a.mp4", "label": 0}])
    result, _ = run("--manifest", file)
    assert result.exit_code == 2
    assert "(1 clip) could be read" in result.stderr
    assert "/nowhere/a.mp4" in result.stderr


# -- real clips ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(clips, tmp_path_factory):
    """Two real clips, a longer one of both, one with two people, one without sound, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    files = sorted((clips / "clips").glob("*.mp4"))[:2]
    for file in files:
        shutil.copy(file, folder)
    pictures, sounds = [frames_of(file) for file in files], [sound_of(file) for file in files]
    sounds = [np.resize(sound, 640 * len(film)) for film, sound in zip(pictures, sounds, strict=True)]
    write_clip(folder / "long.mkv", [*pictures[0], *pictures[1]], np.concatenate(sounds))
    write_clip(folder / "silent.mkv", pictures[0], None)
    people.written(folder / "two.mp4", people.side_by_side(*pictures), files[0])
    (folder / "junk.mp4").write_bytes(bytes(range(256)) * 20)
    rows = [{"path": path.name, "label": 0, "corpus": "mine"} for path in sorted(folder.iterdir())]
    rows[0] |= {"label": 1, "method": "made"}
    return folder, listing(folder / "m.csv", rows)


@pytest.fixture(scope="module")
def from_files(videos):
    return run("--manifest", videos[1], "--corpus", OURS)


@pytest.fixture(scope="module")
def stored(videos, watcher, tmp_path_factory):
    """A store of the readable files, as precompute fills it: both faces, and embeddings of whole clips."""
    on = basis(None, None, OURS)
    asr, vsr = (teachers.load(on.teachers[side]["name"]) for side in ("asr", "vsr"))
    rows, clips, arrays = [], [], []
    for path in sorted(videos[0].iterdir()):
        if path.name not in ("junk.mp4", "silent.mkv", "m.csv"):
            seen = watcher.watch(path)
            clip = seen.clip
            rows.append((path, seen))
            clips.append(clip)
            values = {name: getattr(clip, name) for name in ("mouth", "lips", "blendshapes", "flags")}
            values |= {name: getattr(clip, name) for name in SECOND if getattr(clip, name) is not None}
            values |= {"audio": clip.audio.reshape(-1, 640), "asr": asr.embed([clip])[0], "vsr": vsr.embed([clip])[0]}
            arrays.append(values)
    root = tmp_path_factory.mktemp("store") / "s.zarr"
    writer = store.create(root, {"asr": asr.dim, "vsr": vsr.dim}, {"teachers": dict(on.teachers)}, shard_rows=1000)
    lengths = [clip.num_frames for clip in clips]
    offsets = np.cumsum([0, *lengths[:-1]]).tolist()
    writer.append_clips(
        {
            "id": [path.name for path, _ in rows], "path": [str(path) for path, _ in rows], "label": [0] * len(rows),
            "offset": offsets, "capacity": lengths, "length": lengths, "done": [1] * len(rows),
            "start_skew": [seen.start_skew_s for _, seen in rows], "num_faces": [clip.num_faces for clip in clips],
        }
    )  # fmt: skip
    writer.grow_rows(sum(lengths))
    block = writer.blank_shard()
    for offset, length, values in zip(offsets, lengths, arrays, strict=True):
        for name, value in values.items():
            block[name][offset : offset + length] = value
    writer.write_shard(0, block)
    writer.consolidate()
    return root


@pytest.mark.slow
def test_files_are_answered_as_predict_answers_them(videos, from_files):
    result, found = from_files
    assert result.exit_code == 3
    assert found["rests_on"]["lost"]["reasons"] == {"no_audio": 1, "unreadable": 1}
    files = [str(p) for p in sorted(videos[0].glob("*.m[pk]*"))]
    with eyes_here():
        said = [one for one, _, _ in predict(files, basis(None, None, OURS), False)]
    expected = [one.decision for one in said[1:]]  # the first is marked as forged
    real = found["decisions"]["real"]
    assert real["clips"] == len(expected) == 5
    assert [real["real"], real["fake"], real["undecided"]] == [
        expected.count(decision) for decision in ("real", "fake", "cannot decide")
    ]
    assert real["reasons"]["no speech"] == real["reasons"]["unreadable"] == 1
    assert found["decisions"]["forged"]["clips"] == 1
    assert found["decisions"]["swapped"]["clips"] == 3


def test_a_store_gives_the_figures_of_the_files(videos, from_files, stored):
    """The clips that both have; embeddings are rounded once more in a store."""
    _, found = run("--manifest", videos[1], "--corpus", OURS, "--store", stored)
    assert found["rests_on"]["evidence"]["sound_in_pieces"] == 1
    assert found["rests_on"]["lost"]["reasons"] == {"not in the store": 2}
    for kind in ("swapped", "forged"):
        assert found["decisions"][kind] == from_files[1]["decisions"][kind]
    for window in ("5", "25", "clip"):
        for kind in ("others", "shift_4", "shift_8"):
            mine, theirs = (told["own_sound"][window][kind] for told in (found, from_files[1]))
            assert mine["auc"] == pytest.approx(theirs["auc"], abs=0.01)
            assert mine["brier"] == pytest.approx(theirs["brier"], abs=0.01)
            assert mine["own"] == theirs["own"]


@pytest.fixture(scope="module")
def seen(videos):
    """Evidence on three files by name, with pictures and sound, and the sound itself."""
    with eyes_here():
        source = evidence.FromFiles(basis(None, None, OURS), keeps=True)
    try:
        names = ("bbaf2n.mp4", "long.mkv", "two.mp4")
        return {name: source(Row(str(videos[0] / name), id=name)) for name in names}
    finally:
        source.close()


@pytest.mark.parametrize("name", ["long.mkv", "two.mp4"])
def test_evidence_of_a_store_is_that_of_the_file(videos, stored, seen, name):
    here = evidence.FromStore(store.open(stored), basis(None, None, OURS))
    (mine, sound), (theirs, same) = here(Row(str(videos[0] / name), id=name)), seen[name]
    assert np.array_equal(sound, same)
    assert np.array_equal(mine.clip.flags, theirs.clip.flags)
    for side in ("vsr_projection", "asr_projection"):
        assert np.allclose(getattr(mine, side), getattr(theirs, side), atol=0.02)
    assert len(mine.others) == len(theirs.others) == (name == "two.mp4")
    for a, b in zip(mine.others, theirs.others, strict=True):
        assert np.array_equal(a.clip.flags, b.clip.flags)
        assert np.allclose(a.vsr_projection, b.vsr_projection, atol=0.02)
    shown = here.pictured(mine).clip
    assert np.array_equal(shown.mouth, theirs.clip.mouth)
    assert np.array_equal(shown.audio, theirs.clip.audio)


def test_a_swap_has_the_lips_of_one_and_the_sound_of_the_other(seen):
    a, b = seen["bbaf2n.mp4"][0], seen["long.mkv"][0]
    for lips, heard in ((a, b), (b, a)):
        made = evidence.swapped(lips, heard)
        assert made.clip.num_frames == 75
        assert np.array_equal(made.evident, lips.evident[:75])
        assert np.array_equal(made.voice, heard.voice[:75])
        assert np.array_equal(made.clip.mouth, lips.clip.mouth[:75])
        assert np.array_equal(made.clip.audio, heard.clip.audio[: 75 * 640])
        assert np.array_equal(made.asr_projection, heard.asr_projection[:75])
    decides = Decider(basis(None, None, OURS))
    assert decides(evidence.swapped(a, a)) == decides(replace(a, facts=()))


def test_numbers_of_a_files_packets_are_those_of_the_audit(clips):
    path = str(clips / "clips" / "bbaf2n.mp4")
    mine = trivial.of_file(path)
    assert all(trivial.of_file(path) == mine for _ in range(20))
    theirs = Measurer()(Row(path, id="x")).values
    for name in ("width", "height", "codec", "audio_codec", "sample_rate", "encoder", "frame_count"):
        assert mine[name] == theirs[name], name
    for name in ("duration", "sound_duration", "length_difference"):
        assert mine[name] == pytest.approx(theirs[name], abs=0.03), name
    assert mine["frame_rate"] == pytest.approx(theirs["frame_rate"], rel=0.01)
    assert trivial.of_file(str(Path(__file__))) == {}
