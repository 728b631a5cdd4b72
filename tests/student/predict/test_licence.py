"""No verdict without a licence: people in a calibration, the user's statement, and numbers that are not finite."""

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from awkward import frames_of, sound_of, write_clip
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from small_store import make_store

import store
from pipelines.labels import learn
from pipelines.labels.calibrate import calibrate
from store.similarity import fitfile, grounds
from store.similarity.grounds import LEAST, Grounds
from student import checkpoint
from student.checkpoint import CheckpointError
from student.header import Header
from student.models import build
from student.predict import page as predict_page
from student.predict import words as predict_words
from student.predict.__main__ import exit_code, line, main
from student.predict.answer import answer, verdict
from student.predict.basis import Basis, basis
from student.predict.records import Judged

OURS = "grid:grid_s1"
MANY = Grounds(real=200, speakers=40, strangers=40, alarms=0.02)
NUMBERS = st.none() | st.floats()


# -- numbers become an answer ------------------------------------------------------------------------------------------


@given(NUMBERS, st.lists(NUMBERS, max_size=5), st.sampled_from(["", "calibrated on one speaker"]))
@example(math.nan, [], "")
@example(math.inf, [], "")
@example(0.2, [math.nan], "")
@example(0.2, [None, -math.inf], "")
def test_a_verdict_comes_of_finite_numbers_and_a_licence_alone(fake, numbers, lacks):
    decision, reason, message = verdict(fake, numbers, lacks)
    sound = all(x is None or math.isfinite(x) for x in (fake, *numbers))
    if sound and fake is not None and 0 <= fake <= 1 and not lacks:
        assert (decision, reason) == ("fake" if fake >= 0.5 else "real", "")
    else:
        assert decision == "cannot decide"
        assert reason
        assert message


def evidence(value=None, frames=75, where=()):
    """Projections of a made clip whose lips and voice agree, with `value` in the rows `where` of the lips."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((frames, 4)).astype(np.float16)
    lips = rows.copy()
    lips[list(where)] = value if where else 0
    on = np.ones(frames, bool)
    clip = SimpleNamespace(flags=np.full(frames, 0b11101, np.uint8))
    return SimpleNamespace(
        path="/x.mp4",
        clip=clip,
        vsr_projection=lips,
        asr_projection=rows,
        words=[],
        start_skew_s=0.0,
        face=on,
        evident=on,
        voice=on,
        facts=(),
        unsettled="",
    )


def small_fit(lines=(8.0, -2.0)):
    from store.similarity import Fit

    none = np.zeros(0, np.float32)
    maps = {"c": dict.fromkeys(("5", "25", "clip"), lines)}
    return Fit("cosine", 0, none, none, none, none, np.ones(4, np.float32), maps)


def on(fit_, known=MANY, corpus=None, detector=None):
    return Basis(fit_, {}, "here", 0, corpus, detector, {"c": known} if known else {})


def said_of(seen, basis_, judge=None):
    return answer(seen, basis_.fit, basis_.map_of, basis_.calibration(), judge)


def test_with_a_licence_the_made_clip_is_real():
    assert said_of(evidence(), on(small_fit())).decision == "real"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [(0,), (30,), range(75)])
def test_projections_that_are_no_numbers_decide_nothing(value, where):
    said = said_of(evidence(value, where=where), on(small_fit()))
    assert (said.decision, said.reason, said.probability) == ("cannot decide", "not finite", None)
    json.dumps(said.to_json(), allow_nan=False)
    page = predict_page.page(said, {"teachers": {}, "fit": {"kind": "", "from": ""}, "student": None}, [], None)
    assert "No answer" in page
    assert "nan" not in page.lower()
    assert "cannot decide: not finite" in line(said)
    assert exit_code([said]) == 3


def test_a_map_that_is_no_number_decides_nothing():
    said = said_of(evidence(), on(small_fit((math.nan, 0.0))))
    assert (said.decision, said.reason) == ("cannot decide", "not finite")


@pytest.mark.parametrize(
    ("probability", "logit"), [(math.nan, math.nan), (0.0, math.nan), (1.0, math.inf), (0.0, -math.inf)]
)
def test_a_students_numbers_that_are_none_decide_nothing(probability, logit):
    said = said_of(evidence(), on(small_fit()), lambda clip, shift: Judged(probability, logit, 9))
    assert (said.decision, said.reason, said.probability) == ("cannot decide", "not finite", None)
    json.dumps(said.to_json(), allow_nan=False)


def test_a_student_without_frames_is_still_too_short():
    said = said_of(evidence(), on(small_fit()), lambda clip, shift: Judged(None, None, 0))
    assert said.reason == "too short"


def test_a_damaged_fit_is_refused(tmp_path):
    good, made_by, note = fitfile.default()
    maps = {OURS: {**good.calibration[OURS], "clip": (math.inf, 0.0)}}
    matrix = good.vsr_matrix.copy()
    matrix[3, 3] = math.nan
    for k, bad in enumerate((replace(good, calibration=maps), replace(good, vsr_matrix=matrix))):
        fitfile.save(tmp_path / f"{k}.npz", bad, made_by, note)
        with pytest.raises(store.StoreError, match=r"not finite"):
            basis(None, str(tmp_path / f"{k}.npz"))


@pytest.mark.parametrize(
    "scale",
    [
        {"threshold": math.nan},
        {"threshold": math.inf},
        {"temperature": math.inf},
        {"temperature": 0.0},
        {"threshold": None},
    ],
)
def test_a_scale_that_makes_no_probability_is_refused(scale, tmp_path):
    about = {"threshold": 0.1, "temperature": 2.0, "fitted_on": "x", "window": 25, "config": {}, "store": {"path": ""}}
    torch.manual_seed(0)

    def write_and_load():
        checkpoint.save_model(tmp_path, build("lite"), "lite", about | scale)
        basis(tmp_path)

    with pytest.raises((CheckpointError, checkpoint.SaveError), match=next(iter(scale))):
        write_and_load()


@pytest.mark.parametrize("hostile", [{"calibrated_on": [1], "clip_frames": "x"}, {"calibrated_on": {OURS: math.nan}},
                                     {"clip_frames": math.nan}, {"calibrated_on": {OURS: {"real": True}}}])  # fmt: skip
def test_a_hostile_note_licenses_nothing_and_raises_nothing(hostile, tmp_path):
    good, made_by, note = fitfile.default()
    fitfile.save(tmp_path / "f.npz", good, made_by, {k: v for k, v in note.items() if k != "calibrated_on"} | hostile)
    for corpus in (None, OURS, ""):
        try:
            fitfile.load(tmp_path / "f.npz")
        except store.StoreError:  # refused already: a note of wrong types
            return
        told = basis(None, str(tmp_path / "f.npz"), corpus).calibration()
        assert told.lacks
        assert not told.teachers


# -- who was calibrated on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (Grounds(), "not calibrated on clips that are known to be real"),
        (Grounds(real=500), "unnamed people"),
        (Grounds(500, 1, 0, 0.0), "calibrated on one speaker"),
        (Grounds(500, LEAST - 1, LEAST - 1, 0.0), f"calibrated on {LEAST - 1} speakers"),
        (Grounds(500, 60, 3, 0.0), "3 of them new"),
        (Grounds(500, 60, 60, 0.2), "20 in 100"),
        (Grounds(500, 60, 60, None), "unknown share"),
        (Grounds(500, LEAST, LEAST, 0.05), ""),
    ],
)
def test_strangers_need_strangers(known, says):
    found = known.lacks_for_strangers()
    assert says in found
    assert bool(found) == bool(says)


def test_a_stated_corpus_needs_clips_enough():
    assert not Grounds(real=LEAST).lacks_for_its_own()
    assert "19 real clips of 20 needed" in Grounds(real=LEAST - 1).lacks_for_its_own()


@pytest.mark.parametrize(("clips", "command"), [(LEAST, "--corpus c"), (7, "")])
def test_the_corpus_is_advised_only_where_stating_it_helps(clips, command):
    said = said_of(evidence(), on(small_fit(), Grounds(real=clips, speakers=1)))
    text, typed = predict_words.advice(said)[1]
    assert typed == command
    assert ("say so" in text) == bool(command)
    assert command or text.endswith("7 real clips of it calibrated this; 20 are needed.")


def here(work, jobs):
    """As `pipelines.workers.cluster` spreads work, in this process."""
    for job in jobs:
        yield work(*job)


def learned(tmp_path, people, monkeypatch):
    """Note of a cca fit on clips of so many people, group = person, as `learn.learn` calibrates it."""
    path = tmp_path / f"{people}.zarr"
    make_store(path, {"train": 40}, frames=40, groups=people or 40, fit=False, shard_rows=2000)
    read = store.open

    def with_names(*args):
        reader = read(*args)
        of = reader.clips["group"].astype(str)
        reader.clips["identities"] = np.array([json.dumps([g]) if people else "[]" for g in of], object)
        return reader

    monkeypatch.setattr(store, "open", with_names)
    return learn.learn(store.place.place(path), here, "cca", 0)


@pytest.mark.parametrize(
    ("people", "speakers", "strangers"),
    [(40, 40, 40), pytest.param(8, 8, 8, marks=pytest.mark.slow), (1, 1, 0), (0, None, None)],
)
def test_a_fit_says_how_many_people_it_was_calibrated_on(people, speakers, strangers, tmp_path, monkeypatch):
    made, note = learned(tmp_path, people, monkeypatch)
    told = note["calibrated_on"]["synthetic"]
    assert (told["real"], told["speakers"], told["strangers"]) == (40, speakers, strangers)
    assert 0 <= told["alarms"] <= 1
    assert note["fitted_on"]["speakers"] == speakers
    assert note["fitted_on"]["corpora"] == ["synthetic"]
    lacks = Basis(made, {}, "x", calibrated_on={"synthetic": Grounds.of(told)}).fit_lacks()
    assert bool(lacks) == (people != 40 or told["alarms"] > grounds.ALARMS)


def test_people_on_both_sides_of_a_fold_are_no_strangers(tmp_path, monkeypatch):
    """Three groups make folds by clip, so each person teaches what judges them."""
    _, note = learned(tmp_path, 3, monkeypatch)
    assert note["calibrated_on"]["synthetic"]["strangers"] == 0


def test_a_borrowed_fit_knows_the_people_of_the_corpora_it_learned_from(tmp_path, monkeypatch):
    made, _ = learned(tmp_path, 40, monkeypatch)
    root = store.place.place(tmp_path / "40.zarr")
    for corpora, strangers in ((["synthetic"], 0), (["other"], 40), (None, 0)):
        kept = {"kind": "cca", "fitted_on": {"clips": 9} | ({"corpora": corpora} if corpora else {})}
        _, found = calibrate(root, replace(made, calibration={}), kept, None, ["synthetic"])
        assert found["calibrated_on"]["synthetic"]["strangers"] == strangers


def test_a_detectors_header_counts_people_that_training_did_not_have():
    clips = {
        "label": np.array([0, 1, 0, 0, 0, 1]),
        "corpus": np.array(["a", "a", "a", "b", "b", "b"], object),
        "identities": np.array(['["p1"]', '["p1", "p9"]', '["p2"]', '["p9"]', '["p3"]', '["p4"]'], object),
    }
    told = grounds.of_validation(clips, np.array([0, 1]), np.array([2, 3, 4, 5]), 0.25)
    assert told == {"real": 3, "speakers": 3, "strangers": 2, "alarms": 0.25, "corpora": {"a": 1, "b": 2}}
    assert grounds.of_validation(clips, np.array([0]), np.array([2]), math.nan)["alarms"] is None


@pytest.mark.parametrize(
    ("on_whom", "corpus", "lacks"),
    [
        (None, None, "does not say"),
        ({"real": 40, "corpora": {"a": 40}, "speakers": 1, "strangers": 0, "alarms": 0.0}, None, "one speaker"),
        ({"real": 40, "corpora": {"a": 40}, "speakers": 1, "strangers": 0, "alarms": 0.0}, "a", ""),
        ({"real": 40, "corpora": {"a": 40}, "speakers": 1, "strangers": 0, "alarms": 0.0}, "b", "not on b"),
        ({"real": 40, "corpora": {"a": 5, "b": 35}, "speakers": 1, "strangers": 0, "alarms": 0.0}, "a", "5 real clips"),
        ({"real": 40, "corpora": {"a": 40}, "speakers": 25, "strangers": 25, "alarms": 0.0}, None, ""),
        ({"real": 40, "corpora": "a", "speakers": "many"}, "a", "unnamed people"),
        (["a"], "a", "not calibrated on clips"),
    ],
)
def test_a_detector_needs_its_own_licence(on_whom, corpus, lacks):
    from student.predict.basis import Detector

    about = {"model": "lite", "options": {}, "threshold": 0.0, "temperature": 1.0, "window": 25, "config": {}}
    about |= {"fitted_on": "validation, 9 trials"} | ({} if on_whom is None else {"calibrated_on": on_whom})
    detector = Detector(None, Header.parse(about), "run", torch.device("cpu"))
    told = on(small_fit(), corpus=corpus, detector=detector).calibration()
    assert lacks in told.lacks
    assert told.this_kind == (not lacks)
    assert told.teachers  # the fit's licence is its own


# -- what is said without one ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stranger(clips, tmp_path_factory):
    """The command over a real clip, one with another's sound and one whose picture stands still, of whom the user says
    nothing; JSON by name, and pages."""
    folder = tmp_path_factory.mktemp("strangers")
    files = [clips / "clips" / f"{name}.mp4" for name in ("bbaf2n", "lgas5a")]
    shutil.copy(files[0], folder / "own.mp4")
    write_clip(folder / "swapped.mkv", frames_of(files[0]), sound_of(files[1]))
    write_clip(folder / "still.mkv", [frames_of(files[0])[30]] * 75, sound_of(files[0]))
    out = folder / "out"
    out.mkdir()
    asked = [str(folder / name) for name in ("own.mp4", "swapped.mkv", "still.mkv")]
    options = ["--teacher-only", "--json", str(out / "o.json"), "--html", str(out / "pages"), "--cpu"]
    result = CliRunner().invoke(main, [*asked, *options])
    videos = json.loads((out / "o.json").read_text())["videos"]
    pages = {path.stem: path.read_text() for path in (out / "pages").glob("*.html") if path.name != "index.html"}
    return result, dict(zip(("own", "swapped", "still"), videos, strict=True)), pages


def test_the_packaged_fit_gives_no_verdict_on_anybodys_video(stranger):
    result, answers, _ = stranger
    assert result.exit_code == 3, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    for text in lines[:2]:
        assert (
            ": cannot decide: calibrated on one speaker; strangers' real videos score like fakes; similarity " in text
        )
        assert "ranks videos of one session and is not a probability of forgery" in text
    assert ": cannot decide: still picture: the picture stands still for " in lines[2]
    assert (answers["still"]["reason"], answers["still"]["probability"]) == ("still picture", None)
    for said in (answers["own"], answers["swapped"]):
        assert (said["decision"], said["reason"], said["probability"]) == ("cannot decide", "uncalibrated", None)
        assert said["teachers"]["probability"] is None
        assert said["disagreeing_words"] == said["passages"] == []
        assert {word["verdict"] for word in said["words"]} <= {"not judged"}
        assert said["calibration"]["speakers"] == 1
        assert not said["calibration"]["this_kind"]


def test_the_similarity_still_ranks(stranger):
    ranks = {name: said["ranking"] for name, said in stranger[1].items()}
    assert {rank["by"] for rank in ranks.values()} == {"similarity"}
    assert ranks["own"]["value"] > ranks["swapped"]["value"]
    assert ranks["own"]["value"] == stranger[1]["own"]["teachers"]["similarity"]


def test_pages_without_a_licence_accuse_nobody(stranger):
    for name, page in stranger[2].items():
        body = page.partition("</style>")[2]
        assert '<header class="plain">' in body
        assert "calibrated on one speaker" in body
        assert "neither suspected nor cleared" in body
        judged = "still" not in name
        assert ("not a probability of forgery" in body) == ("--corpus grid:grid_s1" in body) == judged
        for accusing in ("disagree", "do not belong", "belong together", "forged mouth", "≠"):
            assert accusing not in body.partition("What this cannot tell")[0], (name, accusing)
        for colour in (
            'class="no"',
            'class="yes"',
            'class="maybe"',
            'class="bad',
            'class="good',
            'class="up',
            'class="down',
        ):
            assert colour not in body, (name, colour)


def test_nothing_is_said_of_words_by_a_fit_that_is_not_calibrated_for_them():
    """A detector with a licence decides; the teachers beside it, without one, neither contradict it nor mark words."""
    detector = SimpleNamespace(
        lacks=lambda corpus: "", corpora={"c": 40}, header=SimpleNamespace(grounds=MANY, strangers=None, is_fitted=True)
    )
    judge = lambda clip, shift: Judged(0.9, 2.0, 70)  # noqa: E731
    seen = evidence()
    seen.words = [SimpleNamespace(start_s=0.4, end_s=0.8, text="blue", probability=0.9)]
    said = said_of(seen, on(small_fit(), known=None, detector=detector), judge)
    assert (said.decision, said.probability, said.teachers.probability) == ("fake", 0.9, None)
    assert [word.verdict for word in said.words] == ["not judged"]
    assert "contradict" not in line(said)
    assert predict_words.headline(said)[1].startswith("Lips and voice")


def test_the_map_of_most_strangers_reads_the_scores():
    two = small_fit().calibrated("d", dict.fromkeys(("5", "25", "clip"), (2.0, 0.0)))
    known = {"c": Grounds(500, 1, 0, 0.0), "d": MANY}
    assert Basis(two, {}, "x", calibrated_on=known).map_of == "d"
    assert not Basis(two, {}, "x", calibrated_on=known).fit_lacks()
    assert Basis(two, {}, "x", corpus="c", calibrated_on=known).map_of == "c"
    assert Basis(two, {}, "x", calibrated_on={}).fit_lacks()


def test_a_trained_detector_carries_on_whom_it_was_validated(tmp_path):
    from student.config import TrainConfig
    from student.data.splits import split
    from student.run.outputs import Outputs
    from student.run.state import Best, Facts, Validation

    reader = store.open(make_store(tmp_path / "s.zarr", {"train": 6, "val": 4}, fakes=1, shard_rows=500))
    facts = Facts(window=25, too_short=0, validation_by="store", parameters=1)
    outputs = Outputs(
        tmp_path, TrainConfig(store=str(tmp_path / "s.zarr"), output=str(tmp_path)), reader, split(reader), facts
    )
    figures = Validation(trials=8, auc=0.9, brier=0.1, threshold=0.1, alarms=0.25)
    for best, real in ((Best(figures.rank, 1, 1, "", figures), 4), (None, 0)):
        outputs.detector(build("lite"), best, 1, 1)
        header = checkpoint.load_model(tmp_path)[1]
        assert header.grounds == (Grounds(real, None, None, 0.25) if real else None)
        assert header.corpora == ({"synthetic": 4} if real else {})
        assert basis(tmp_path, corpus="synthetic").calibration().lacks  # four clips are too few
