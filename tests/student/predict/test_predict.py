"""Single videos: each gets its answer, whatever it is; the JSON is stable, exit codes say how it went."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from awkward import frames_of, sound_of, write_clip
from click.testing import CliRunner
from eyes_here import eyes_apart

from pipelines.workers import isolation
from store import output
from store.similarity import Offset, fitfile
from store.similarity.grounds import Grounds
from student import checkpoint
from student.header import NOT_FITTED
from student.models import build
from student.predict import evidence, words
from student.predict.__main__ import exit_code, line, main, predict
from student.predict.agreement import out_of_sync
from student.predict.answer import doubt, passages, refusal
from student.predict.basis import basis
from student.predict.records import Answer, Passage, Teachers

HOSTILE = 'a"<script>alert(1)</script>\u202e.mp4'
NAMES = ("bbaf2n", "lgas5a")
OURS = "grid:grid_s1"  # the corpus that the packaged fit was calibrated on: the clips here are of its one speaker


@pytest.fixture(scope="module")
def folder(clips, tmp_path_factory):
    """Videos made of two real clips, one a way in which a video may be; sound stays as it is but where that is the point."""
    folder = tmp_path_factory.mktemp("videos")
    files = [clips / "clips" / f"{name}.mp4" for name in NAMES]
    shutil.copy(files[0], folder / HOSTILE.replace("/", "\u2215"))
    pictures, sounds = frames_of(files[0]), [sound_of(file) for file in files]
    late = np.concatenate([np.zeros(4800, np.int16), sounds[0]])[: len(sounds[0])]
    write_clip(folder / "swapped.mkv", pictures, sounds[1])
    write_clip(folder / "late.mkv", pictures, late)
    write_clip(folder / "no_face.mkv", [np.full_like(p, 90) for p in pictures], sounds[0])
    write_clip(folder / "no_voice.mkv", pictures, np.zeros_like(sounds[0]))
    write_clip(folder / "no_sound.mkv", pictures, None)
    write_clip(folder / "under_a_second.mkv", pictures[20:40], sounds[0][20 * 640 : 40 * 640])
    (folder / "junk.mp4").write_bytes(bytes(range(256)) * 20)
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def told(folder, tmp_path_factory):
    """The command over the folder, once, which reads in a child: its result, its JSON by file name, its folder of pages."""
    out = tmp_path_factory.mktemp("out")
    options = ["--teacher-only", "--json", str(out / "o.json"), "--html", str(out / "pages"), "--cpu", "--corpus", OURS]
    with eyes_apart():
        result = CliRunner().invoke(main, [str(folder), *options])
    found = json.loads((out / "o.json").read_text())
    return result, {Path(said["path"]).name: said for said in found["videos"]}, found, out / "pages"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of an untrained detector."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    about = {
        "threshold": 0.1, "temperature": 2.0, "fitted_on": "nothing", "window": 25,
        "config": {"data": {"trim": "leading"}}, "store": {"path": "/nowhere/s.zarr"}, "versions": {},
    }  # fmt: skip
    checkpoint.save_model(folder, build("lite"), "lite", about)
    return folder


def licensed(detector):
    """The detector as if its threshold had been set on clips of this corpus."""
    return replace(detector, header=replace(detector.header, grounds=Grounds(20), corpora={OURS: 20}))


def of(answers, stem):
    return next(said for name, said in answers.items() if name.startswith(stem))


def test_a_real_clip_agrees_and_another_sound_does_not(told):
    answers = told[1]
    real, fake = of(answers, "a"), of(answers, "swapped")
    assert (real["decision"], real["reason"]) == ("real", "")
    assert (fake["decision"], fake["reason"]) == ("fake", "")
    assert real["probability"] < 0.1
    assert fake["probability"] > 0.5
    assert real["disagreeing_words"] == []
    assert len(fake["disagreeing_words"]) >= len(fake["words"]) / 2 > 0
    assert real["passages"] == []
    assert fake["passages"]


def test_late_sound_is_told_and_is_no_forgery(told):
    late = of(told[1], "late")
    assert (late["decision"], late["reason"], late["probability"]) == ("cannot decide", "out of sync", None)
    assert 280 <= late["offset"]["sound_late_ms"] <= 380
    assert "late by" in late["message"]
    assert late["offset"]["similarity"] > 0.8 > late["teachers"]["similarity"]
    assert late["disagreeing_words"] == []  # they are judged with the sound moved
    moved = [m["similarity_moved"] for m in late["timeline"] if m["similarity_moved"] is not None]
    assert np.mean(moved) > 0.8


def test_sound_a_little_late_is_judged_where_it_fits(folder, clips, tmp_path):
    """80 ms, which people let pass, must not read as a forgery."""
    file = clips / "clips" / "bbaf2n.mp4"
    sound = sound_of(file)
    write_clip(tmp_path / "a.mkv", frames_of(file), np.concatenate([np.zeros(1280, np.int16), sound])[: len(sound)])
    [(said, _, _)] = list(predict([str(tmp_path / "a.mkv")], basis(None, corpus=OURS), words=False))
    assert 0 < said.offset.sound_late_ms <= 160
    if said.offset.sound_late_ms < 120:  # the sound's own priming comes on top, in steps of a frame
        assert said.decision == "real"
        assert said.probability < 0.5
    else:
        assert said.reason == "out of sync"


def test_sound_in_pieces_is_the_sound_where_one_piece_holds_it(clips):
    import teachers

    rng = np.random.default_rng(0)
    flags = np.full(200, 0b11101, np.uint8)
    none = np.zeros((200, 1, 1), np.float32)
    clip = teachers.ClipMedia("x", (3000 * rng.standard_normal(200 * 640)).astype(np.int16), none, none, none, flags)
    teacher = teachers.load("whisper:tiny.en@3")
    whole = teacher.embed([clip])[0]
    assert np.array_equal(evidence.in_pieces(teacher, clip, 0), whole)
    assert np.array_equal(evidence.in_pieces(teacher, clip, 200), whole)
    found = evidence.in_pieces(teacher, clip, 75)
    assert found.shape == whole.shape
    first, last = (teacher.embed([evidence._part(clip, start, 75)])[0] for start in (0, 125))
    assert np.array_equal(found[:50], first[:50])
    assert np.array_equal(found[-25:], last[-25:])


@pytest.mark.parametrize(
    ("stem", "reason"),
    [
        ("no_face", "no face"),
        ("no_voice", "no speech"),
        ("no_sound", "no speech"),
        ("under_a_second", "too short"),
        ("junk", "unreadable"),
    ],
)
def test_what_cannot_be_decided_says_why(told, stem, reason):
    said = of(told[1], stem)
    assert (said["decision"], said["reason"], said["probability"]) == ("cannot decide", reason, None)
    assert said["message"]


def test_files_that_are_no_videos_are_left_out_of_a_folder(told):
    assert len(told[1]) == 8
    assert not any(name.endswith(".txt") for name in told[1])


def test_every_answer_has_one_line_and_the_run_its_exit_code(told):
    result = told[0]
    assert result.exit_code == 3, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 8
    assert "\u202e" not in result.stdout
    assert any("(calibrated on grid:grid_s1)" in text for text in lines)


def test_the_json_says_what_it_rests_on(told):
    found = told[2]
    assert (found["format"], found["version"]) == ("concord-av prediction", 1)
    assert found["basis"]["teachers"]["asr"]["name"] == "whisper:tiny.en@3"
    assert found["basis"]["fit"]["from"].startswith("the package")
    real = of(told[1], "a")
    assert real["rests_on"] == "teachers"
    assert real["calibration"] == {
        "corpora": ["grid:grid_s1"],
        "this_kind": True,
        "lacks": "",
        "teachers": True,
        "speakers": 1,
        "text": "calibrated on grid:grid_s1",
    }
    assert found["basis"]["calibrated_on"]["grid:grid_s1"]["speakers"] == 1
    assert {
        "path", "decision", "reason", "message", "probability", "ranking", "rests_on", "calibration", "student", "teachers",
        "duration", "face_share", "held_share", "voice_share", "seconds_judged", "start_skew", "notes", "offset", "limits",
        "words", "disagreeing_words", "passages", "timeline",
    } == set(real)  # fmt: skip
    assert len(real["timeline"]) == 75
    assert set(real["timeline"][0]) == {
        "time",
        "similarity",
        "similarity_1s",
        "similarity_moved",
        "face",
        "voice",
        "held",
    }
    for moment in real["timeline"]:
        known = moment["face"] and moment["voice"]
        assert (moment["similarity"] is not None) == known
        assert not known or 0 <= moment["similarity"] <= 1


def test_pages_stand_alone_and_escape_what_files_are_called(told):
    pages = {path.stem: path.read_text() for path in told[3].glob("*.html") if path.name != "index.html"}
    assert len(pages) == 8
    for text in pages.values():
        assert "default-src 'none'" in text
        assert "<script" not in text
        assert "\u202e" not in text
        assert "http://" not in text
        assert "https://" not in text
        assert len(text) < 1_500_000
    assert "&lt;script&gt;" in next(text for name, text in pages.items() if name.startswith("a"))
    assert pages["swapped"].count("data:image/jpeg") > 4


def test_the_same_file_gives_the_same_answer_alone(told, folder):
    again = CliRunner().invoke(
        main, [str(folder / "swapped.mkv"), "--teacher-only", "--json", "-", "--cpu", "--corpus", OURS]
    )
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["videos"] == [of(told[1], "swapped")]


def test_a_named_corpus_makes_it_calibrated(folder):
    on = basis(None, corpus="grid:grid_s1")
    assert on.calibration().this_kind
    assert on.calibration().text == "calibrated on grid:grid_s1"
    assert not basis(None, corpus="grid:else").calibration().this_kind


def test_a_detector_fitted_on_nothing_is_calibrated_for_nothing(run):
    detector = basis(run).detector
    known = replace(detector.header, grounds=Grounds(30, 1, 0, 0.0), corpora={"grid:grid_s1": 30})
    detector = replace(detector, header=known)
    fitted = replace(basis(run), detector=detector, corpus="grid:grid_s1")
    assert fitted.calibration().this_kind
    bare = replace(detector, header=replace(known, fitted_on=NOT_FITTED))
    said = replace(fitted, detector=bare).calibration()
    assert not said.this_kind
    assert "were not fitted" in said.text


def test_the_students_logit_is_evaluates(run, folder, tmp_path):
    """The logit of a clip without a store is the one that `student.scoring.score` reads from arrays of the same values."""
    from store.dataset import spans
    from student.scoring import metrics, score

    on = basis(run, corpus=OURS)
    on = replace(on, detector=licensed(on.detector))
    assert on.source.startswith("the package")  # the store of its training is not here
    [(said, seen, _)] = list(predict([str(next(folder.glob("a*")))], on, words=False))
    assert said.rests_on == "student"
    assert said.words == []
    first, last = spans.span(seen.clip.flags, "leading")
    total = 0.0
    for a, b in score.windows(last - first, 25):
        rows = slice(first + a, first + b)
        arrays = seen.clip.mouth[rows], seen.clip.audio.reshape(-1, 640)[rows].reshape(-1), np.ones(b - a, bool)
        with torch.no_grad():
            total += on.detector.model(*(torch.from_numpy(x)[None] for x in arrays)).clip_logits.item() * (b - a)
    logit = total / sum(b - a for a, b in score.windows(last - first, 25))
    assert said.student.logit == pytest.approx(logit, abs=2e-4)
    assert said.probability == pytest.approx(float(metrics.probability(np.array(logit), 0.1, 2.0)), abs=2e-4)
    assert said.student.frames == last - first


def test_a_file_that_kills_its_reader_costs_its_own_answer(folder, monkeypatch, tmp_path):
    """A child that dies on a file is started anew for the next."""
    monkeypatch.setattr(evidence, "Eyes", Deadly)
    on = basis(None, corpus=OURS)
    paths = [str(tmp_path / "deadly.mp4"), str(folder / "swapped.mkv")]
    first, second = (said for said, _, _ in predict(paths, on, words=False))
    assert (first.decision, first.reason) == ("cannot decide", "unreadable")
    assert "crashed" in first.message
    assert second.decision == "fake"


class Deadly(evidence.Eyes):
    """Dies of a file called deadly, as a decoder might."""

    def __call__(self, asked):
        if "deadly" in asked.path:
            import os

            os.abort()
        return super().__call__(asked)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--teacher-only"),
        (["--teacher-only", "--checkpoint", "runs/x"], "--teacher-only"),
        (["--checkpoint", "/nowhere/run"], "no model at"),
        (["--teacher-only", "--fit-from", "/nowhere/s.zarr"], "/nowhere/s.zarr"),
        (["--teacher-only", "--json", "/nowhere/o.json"], "/nowhere"),
        (["--teacher-only", "--html", "/nowhere/o.html"], "/nowhere"),
    ],
)
def test_wrong_options_exit_2(options, says, clips):
    found = CliRunner().invoke(main, [str(clips / "clips" / "bbaf2n.mp4"), *options])
    assert found.exit_code == 2
    assert says in found.output


def test_several_videos_need_a_folder_for_their_pages(clips, tmp_path):
    target = tmp_path / "one.html"
    found = CliRunner().invoke(main, [str(clips / "clips"), "--teacher-only", "--html", str(target)])
    assert found.exit_code == 2
    assert "folder" in found.output
    assert not target.exists()


def test_an_empty_folder_and_a_missing_file(tmp_path):
    assert CliRunner().invoke(main, [str(tmp_path), "--teacher-only"]).exit_code == 2
    gone = str(tmp_path / "gone.mp4")
    found = CliRunner().invoke(main, [gone, f"{gone}/x.mp4", "--teacher-only", "--cpu"])
    assert found.exit_code == 2
    assert found.output.splitlines() == [f"Error: {gone} does not exist, nor does the other"]
    assert evidence.videos([gone, __file__]) == [gone, __file__]  # one among others has its own answer


def test_exit_codes():
    fine = Answer("v.mp4", "real", "", "")
    doubtful, broken = (Answer("v.mp4", "cannot decide", reason, "") for reason in ("no face", "unreadable"))
    assert exit_code([fine, fine]) == 0
    assert exit_code([fine, doubtful]) == exit_code([fine, broken]) == exit_code([doubtful]) == 3
    assert exit_code([broken]) == 2


def test_a_student_that_contradicts_the_teachers_is_no_plain_answer():
    from student.predict.words import headline

    said = Answer("v.mp4", "real", "", "", probability=0.1, teachers=Teachers(0.2, 0.9))
    assert headline(said)[1].startswith("Unclear")
    assert headline(replace(said, teachers=Teachers(0.9, 0.05)))[1].startswith("Lips and voice")
    assert headline(replace(said, decision="fake", probability=0.95))[0] == "bad"


def test_lines_show_no_marks_that_steer_a_terminal():
    said = Answer("\x1b[31m\udcff.mp4", "cannot decide", "no face", "none")
    assert line(said) == "\\x1b[31m\\udcff.mp4: cannot decide: no face: none"


def test_a_clear_offset_alone_is_out_of_sync():
    assert out_of_sync(Offset(-8, 0.6, 0.1, 0.4), 0.9)
    assert not out_of_sync(Offset(-2, 0.6, 0.5, 0.4), 0.9)  # real clips differ by as much
    assert not out_of_sync(Offset(-8, 0.6, 0.1, 0.1), 0.9)  # other offsets fit as well
    assert not out_of_sync(Offset(-8, 0.2, 0.1, 0.4), 0.2)  # it does not fit there either
    assert not out_of_sync(Offset(-8, 0.6, 0.1, float("nan")), 0.9)


def test_doubts_come_in_order():
    on, off = np.ones(75, bool), np.zeros(75, bool)
    half = np.arange(75) < 37
    assert doubt(on[:20], on[:20], on[:20], None, None)[0] == "too short"
    assert doubt(off, off, off, None, None)[0] == "no speech"
    assert doubt(half, ~half, half, None, None)[0] == "no face"  # seen, but not while somebody speaks
    assert doubt(on, on, half & (np.arange(75) >= 20), None, None)[0] == "still picture"  # under a second moves
    assert doubt(on, on, half, None, None)[0] == "still picture"  # under half of the time
    assert doubt(on, on, on, Offset(0, 0.6, 0.6, 0.4), 0.9) == ("", "")


def test_passages_join_over_gaps_without_evidence_and_end_where_lips_agree():
    second = np.full(200, 0.9)
    both = np.ones(200, bool)
    second[20:40] = second[45:60] = 0.1
    both[40:45] = False
    second[100:110] = 0.1  # too short
    assert passages(second, both) == [Passage(0.8, 2.4, 0.1)]
    both[40:45] = True
    assert [p.start for p in passages(second, both)] == [0.8, 1.8]


def test_the_fit_can_come_from_a_file(tmp_path):
    fit, made_by, note = fitfile.default()
    fitfile.save(tmp_path / "f.npz", fit, made_by, note)
    assert basis(None, str(tmp_path / "f.npz")).source == str(tmp_path / "f.npz")


@pytest.mark.slow
def test_clips_that_the_fit_never_saw(grid, tmp_path):
    """Ten clips of the hold-out are real by themselves and not with the sound of the next one."""
    files = sorted((grid / "clips").glob("*.mp4"))[5::60]
    own = [said.decision for said, _, _ in predict([str(f) for f in files], basis(None, corpus=OURS), words=False)]
    assert own == ["real"] * 10
    for k, file in enumerate(files):
        write_clip(tmp_path / f"{k}.mkv", frames_of(file), sound_of(files[k - 1]))
    paths = [str(tmp_path / f"{k}.mkv") for k in range(10)]
    swapped = [said.decision for said, _, _ in predict(paths, basis(None, corpus=OURS), words=False)]
    assert swapped.count("fake") >= 9


def test_a_page_that_cannot_be_written_costs_no_other_answer(tmp_path, monkeypatch):
    write, pages = output.write, tmp_path / "pages"

    def full(path, data):
        if str(path).endswith("a.html"):
            raise OSError(28, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(output, "write", full)
    videos = [tmp_path / f"{name}.mp4" for name in "ab"]
    for video in videos:
        video.write_bytes(bytes(range(256)) * 20)
    words = [*map(str, videos), "--teacher-only", "--cpu", "--html", str(pages), "--json", str(tmp_path / "x.json")]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 1
    assert f"Error: {pages / 'a.html'}: No space left on device; make room" in found.stderr
    assert {path.name for path in pages.iterdir()} == {"b.html", "index.html", "index.csv"}
    assert [one["path"] for one in json.loads((tmp_path / "x.json").read_text())["videos"]] == [str(v) for v in videos]
    found = CliRunner().invoke(main, [*words[:1], "--teacher-only", "--cpu", "--html", "/dev/full"])
    assert (found.exit_code, "Error: /dev/full: No space left on device" in found.stderr) == (1, True)
    again = CliRunner().invoke(main, words)  # over its own pages and answers
    assert "exists and is not" not in again.stderr


def test_debug_shows_the_traceback_of_what_nobody_foresaw(folder, monkeypatch, caplog):
    def broken(child, work, limit_s):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(isolation.Child, "__call__", broken)
    for options, shown in (([], False), (["--debug"], True)):
        caplog.clear()
        with eyes_apart():
            said = CliRunner().invoke(main, [str(folder / "late.mkv"), "--teacher-only", "--cpu", *options])
        assert "of ours" in said.output
        assert ("in broken" in caplog.text) == shown


@pytest.mark.parametrize(
    ("ledger", "reason", "advice"),
    [("mouth_only", "mouth only", "--mouth-crops"), ("no_track", "no track", "--audio-track")],
)
def test_a_refused_video_is_told_what_it_lacks(ledger, reason, advice):
    said = refusal("/v.mp4", ledger, "/v.mp4: m")
    assert (said.reason, said.message) == (reason, "m")
    assert words.headline(said)[1].startswith("No answer: ")
    assert any(advice in f"{text} {command}" for text, command in words.advice(said))
