"""The demonstration corpus: what it shows, that it is the same again, and that nothing but the content tells it apart."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
import pytest

from concord.frames import FPS
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row, load
from pipelines.demo import __main__ as command
from pipelines.demo import build, film, plan, visemes
from pipelines.demo import rows as demo
from pipelines.demo.lip_curves import lip_curves
from pipelines.demo.sentences import GROUPS
from pipelines.demo.speech import Phone, Speech, _phones

TINY = {"train": plan.Size(1, {"real": 2, "swap": 1, "shift": 1, "reanimated": 1, "partial": 1})}
U = np.linspace(-1, 1, 41)


def gap(shape: np.ndarray) -> float:
    """Largest opening between the lips, canvas pixels."""
    curves = lip_curves(shape, U)
    return float((curves.lower_inner - curves.upper_inner)[:, 1].max())


def width(shape: np.ndarray) -> float:
    curves = lip_curves(shape, U)
    return float(np.ptp(curves.upper_outer[:, 0]))


def auc(real: np.ndarray, fake: np.ndarray) -> float:
    return float((fake[:, None] > real).mean() + 0.5 * (fake[:, None] == real).mean())


def check_cues(values: dict[str, list[float]], where: str) -> None:
    """Values of one cue by method: between real clips and each kind of fake its AUC is chance, to 3.5 standard errors."""
    real = np.array(values["real"])
    for method, fake in values.items():
        bound = 3.5 * np.sqrt((len(real) + len(fake) + 1) / (12 * len(real) * len(fake)))
        assert abs(auc(real, np.array(fake)) - 0.5) < bound, f"{where} tells {method} from real"


def sound_cues(samples: np.ndarray) -> dict[str, float]:
    """Leading, trailing and all silence at two levels, loudness; samples in [-1, 1]."""
    cues = {"rms": float(np.sqrt(np.mean(samples**2))), "peak": float(np.abs(samples).max())}
    for level in (0.002, 0.02):
        loud = np.flatnonzero(np.abs(samples) > level)
        cues[f"leading silence {level}"] = float(loud[0])
        cues[f"trailing silence {level}"] = float(len(samples) - loud[-1])
        cues[f"silence {level}"] = 1 - len(loud) / len(samples)
    return cues


def decoded(path: Path) -> tuple[int, np.ndarray]:
    with av.open(str(path)) as container:
        num_frames = sum(1 for _ in container.decode(video=0))
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return num_frames, samples


@pytest.fixture(scope="module")
def spoken() -> Callable[[str], list[Speech]]:
    pytest.importorskip("piper")
    known: dict[str, list[Speech]] = {}

    def speak(group: str) -> list[Speech]:
        if group not in known:
            known[group] = build.speak(group, 0)
        return known[group]

    return speak


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("piper")
    root = tmp_path_factory.mktemp("made") / "demo"
    build.build(root, sizes=TINY, processes=1)
    return root


def test_plan_keeps_groups_of_sentences_in_one_split_and_shows_every_method_where_it_is_judged():
    clips = plan.plan()
    splits: dict[str, set[str]] = {}
    for clip in clips:
        splits.setdefault(clip.group, set()).add(clip.split)
    assert all(len(names) == 1 for names in splits.values())
    for split in ("val", "test"):
        assert {clip.method for clip in clips if clip.split == split} == set(plan.METHODS)
    assert 90 <= len(clips) <= 110
    assert clips == plan.plan() != plan.plan(seed=1)


def test_no_sentence_is_in_two_groups():
    sentences = [sentence for group in GROUPS.values() for sentence in group]
    assert len(set(sentences)) == len(sentences)


def test_lengths_levels_and_noise_are_spread_alike_over_methods():
    clips = plan.plan()
    for name in ("num_frames", *plan.NUISANCES):
        by_method: dict[str, list[float]] = {}
        for clip in clips:
            value = clip.num_frames if name == "num_frames" else clip.nuisances[name]
            by_method.setdefault(clip.method, []).append(value)
        for method, values in by_method.items():
            assert abs(auc(np.array(by_method["real"]), np.array(values)) - 0.5) < 0.03, (name, method)


@pytest.mark.parametrize(
    ("symbol", "closed", "narrow"), [("m", True, False), ("ɑ", False, False), ("u", False, True), ("i", False, False)]
)
def test_mouth_follows_the_phoneme(symbol: str, closed: bool, narrow: bool):
    rest = np.zeros(8)
    phones = [Phone("ə", 0.0, 0.2), Phone(symbol, 0.2, 0.4, True), Phone("ə", 0.4, 0.6)]
    shape = visemes.mouth_shapes(phones, 0.0, 15, visemes.Manner())[7]
    assert (gap(shape) < 1.5) == closed
    assert (width(shape) < 0.8 * width(rest)) == narrow
    if symbol == "i":
        assert width(shape) > 1.05 * width(rest)
    if symbol == "ɑ":
        assert gap(shape) > 12


def test_lower_lip_meets_the_teeth_for_f():
    phones = [Phone("ə", 0.0, 0.2), Phone("f", 0.2, 0.4), Phone("ə", 0.4, 0.6)]
    shape = visemes.mouth_shapes(phones, 0.0, 15, visemes.Manner())[7]
    closed, now = lip_curves(np.zeros(8), U), lip_curves(shape, U)
    middle = len(U) // 2
    assert now.upper_inner[middle, 1] < closed.upper_inner[middle, 1] - 1.5  # the upper lip lets the teeth be seen
    assert now.lower_inner[middle, 1] < closed.lower_inner[middle, 1] + 1.5  # the lower lip goes up to them


def test_lip_edges_never_cross():
    rng = np.random.default_rng(0)
    for shape in rng.uniform(0, [1.25] * 5 + [1.0] * 3, (200, 8)):
        curves = lip_curves(shape, U)
        assert (curves.upper_outer[:, 1] <= curves.upper_inner[:, 1] + 1e-6).all()
        assert (curves.upper_inner[:, 1] <= curves.lower_inner[:, 1] + 1e-6).all()
        assert (curves.lower_inner[:, 1] <= curves.lower_outer[:, 1] + 1e-6).all()


def test_other_words_in_step_keep_the_rhythm_and_change_the_content(spoken):
    voice, other = spoken("harbour")[0], spoken("harbour")[1]
    phones = visemes.in_step(voice.phones, other.phones)
    assert phones[0].start_s == voice.phones[0].start_s
    assert phones[-1].end_s == pytest.approx(voice.phones[-1].end_s)
    for before, after in itertools.pairwise(phones):
        assert after.start_s == pytest.approx(before.end_s)
        assert after.end_s > after.start_s
    pauses = [(p.start_s, p.end_s) for p in voice.phones if not p.symbol]
    assert np.allclose([(p.start_s, p.end_s) for p in phones if not p.symbol], pauses)
    vowels = [p for p in voice.phones if p.symbol in visemes.VOWELS]
    moved = [p for p in phones if p.symbol in visemes.VOWELS]
    assert len(vowels) == len(moved)
    assert all(abs(a.end_s - b.end_s) < 1e-6 for a, b in zip(vowels[:-1], moved[:-1], strict=True))
    manner = visemes.Manner()
    true, false = (visemes.mouth_shapes(p, 0.0, 60, manner) for p in (voice.phones, phones))
    assert np.abs(true - false)[:, :3].mean() > 0.06


def test_mouth_of_other_words_moves_with_the_voice_more_than_any_other_mouth(spoken):
    speech = spoken("harbour")
    manner = visemes.Manner()

    def jaw(phones):
        return visemes.mouth_shapes(phones, 0.1, 50, manner)[:, 0]

    pairs = [(a, b) for a in speech for b in speech if a is not b]
    true = [np.corrcoef(jaw(a.phones), jaw(visemes.in_step(a.phones, b.phones)))[0, 1] for a, b in pairs]
    chance = [np.corrcoef(jaw(a.phones), jaw(b.phones))[0, 1] for a, b in pairs]
    assert 0.9 > np.mean(true) > np.mean(chance) + 0.1


def test_phonemes_cover_the_sound_and_belong_to_words(spoken):
    for speech in spoken("harbour"):
        assert speech.phones[0].start_s == 0
        assert speech.phones[-1].end_s == pytest.approx(speech.duration_s)
        for before, after in itertools.pairwise(speech.phones):
            assert after.start_s == pytest.approx(before.end_s)
        said = [phone.word for phone in speech.phones if phone.symbol]
        assert said == sorted(said)
        assert set(said) == set(range(len(speech.words)))


def test_words_that_the_phonemizer_joins_share_their_group_by_length():
    marks = [(symbol, 2205) for symbol in "^ɪnðə haʊs$"]
    words = [phone.word for phone in _phones(marks, ("in", "the", "house")) if phone.symbol]
    assert words == [0, 0, 1, 1, 2, 2, 2, 2]


@pytest.mark.slow
def test_sound_alone_and_mouth_alone_tell_no_method(spoken):
    """Composed, not filmed: more clips than a test could draw, in two groups of sentences."""
    sizes = {"train": plan.Size(2, {"real": 60, "swap": 30, "shift": 30, "reanimated": 30, "partial": 30})}
    found: dict[str, dict[str, list[float]]] = {}
    for clip in plan.plan(sizes=sizes):
        take = build.compose(clip, spoken(clip.group))
        assert len(take.sound) == clip.num_frames * film.SAMPLES_PER_FRAME
        assert len(take.shapes) == clip.num_frames
        cues = sound_cues(take.sound / 32768)
        cues["mouth opening"] = float(take.shapes[:, 0].mean())
        cues["mouth speed"] = float(np.abs(np.diff(take.shapes[:, :3], axis=0)).mean())
        for name, value in cues.items():
            found.setdefault(name, {}).setdefault(clip.method, []).append(value)
    for name, values in found.items():
        check_cues(values, name)


def test_methods_forge_what_they_say(spoken):
    real = plan.plan(sizes={"train": plan.Size(1, {"real": 1})})[0]
    speech = spoken(real.group)
    takes = {m: build.compose(dataclasses.replace(real, method=m), speech) for m in plan.METHODS}
    for method in ("swap", "shift"):
        assert (takes[method].shapes == takes["real"].shapes).all()
        assert not (takes[method].sound == takes["real"].sound).all()
    for method in ("reanimated", "partial"):
        assert (takes[method].sound == takes["real"].sound).all()
        assert takes[method].words == takes["real"].words
    assert np.abs(takes["reanimated"].shapes - takes["real"].shapes).mean() > 0.03
    start, end = takes["partial"].segments[0]
    changed = np.abs(takes["partial"].shapes - takes["real"].shapes).max(axis=1) > 1e-9
    times = (np.arange(real.num_frames) + 0.5) / FPS
    assert not changed[(times < start - 0.1) | (times > end + 0.1)].any()
    assert changed[(times > start) & (times < end)].all()
    # Shifted sound is the same sound: somewhere between 0.3 and 0.6 s away it fits.
    a, b = takes["real"].sound.astype(float), takes["shift"].sound.astype(float)
    spectrum = np.fft.irfft(np.fft.rfft(a, 2 * len(a)).conj() * np.fft.rfft(b, 2 * len(a)))
    lag = int(np.abs(spectrum).argmax())
    lag = min(lag, 2 * len(a) - lag)
    assert 0.3 <= lag / film.SAMPLE_RATE <= 0.61


def test_every_clip_has_the_same_file_structure_and_exact_lengths(corpus: Path):
    rows = list(demo.rows(corpus))
    planned = {clip.name: clip for clip in plan.plan(sizes=TINY)}
    described = set()
    for row in rows:
        path = corpus / row.path
        num_frames, samples = decoded(path)
        assert num_frames == planned[row.path].num_frames
        assert 0 <= len(samples) / film.SAMPLE_RATE - num_frames / FPS < 0.05  # AAC pads its last frame
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert video.duration * video.time_base == Fraction(num_frames, FPS)
            assert audio.duration * audio.time_base == Fraction(num_frames, FPS)
            described.add(
                (
                    video.start_time,
                    audio.start_time,
                    video.time_base,
                    audio.time_base,
                    video.codec_context.name,
                    audio.codec_context.name,
                    video.width,
                    video.height,
                    audio.rate,
                    tuple(sorted(container.metadata.items())),
                )
            )
    assert len(described) == 1


def test_rows_say_what_was_forged(corpus: Path):
    rows = {row.method: row for row in demo.rows(corpus)}
    assert {m: (r.category, r.audio_fake, r.video_fake, r.label) for m, r in rows.items()} == {
        "real": ("RVRA", 0, 0, 0),
        "swap": ("RVFA", 1, 0, 1),
        "shift": ("RVFA", 1, 0, 1),
        "reanimated": ("FVRA", 0, 1, 1),
        "partial": ("FVRA", 0, 1, 1),
    }
    assert rows["partial"].video_segments
    assert not rows["reanimated"].video_segments
    readme = (corpus / "README.md").read_text()
    assert "not for any scientific claim" in readme
    assert "public domain" in readme


def test_manifest_loads_as_a_corpus_with_one_group_a_topic(corpus: Path):
    rows = load(f"demo:{corpus}")
    assert all(Path(row.path).is_file() for row in rows)
    assert len({row.group for row in rows}) == 1
    assert load(f"csv:{corpus / 'manifest.csv'}")[0].path == rows[0].path


def test_words_have_times_within_the_clip(corpus: Path):
    for row in demo.rows(corpus):
        words = json.loads((corpus / "align" / row.path).with_suffix(".json").read_text())
        assert len(words) >= 5
        assert all(0 <= word["start"] < word["end"] <= 4 for word in words)
        assert [word["start"] for word in words] == sorted(word["start"] for word in words)


def test_face_is_found_in_every_frame_and_the_lips_move(corpus: Path, tracker):
    from pipelines.media.picture import Video

    for row in list(demo.rows(corpus))[:3]:
        track = tracker.track(Video(corpus / row.path))
        assert track.detected.all()
        assert track.num_faces == 1
        height = np.ptp(track.lips[..., 1], axis=1)
        assert np.ptp(height) > 4  # pixels of the 256 x 256 mean face


@pytest.mark.slow
def test_same_corpus_from_two_processes(corpus: Path, tmp_path: Path):
    again = tmp_path / "again"
    build.build(again, sizes=TINY, processes=2)
    files = sorted(p.relative_to(corpus) for p in corpus.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for name in files:
        assert (corpus / name).read_bytes() == (again / name).read_bytes(), name


def test_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(build, "make_group", full)
    with pytest.raises(OSError, match="no space left"):
        build.build(tmp_path / "demo", sizes=TINY, processes=1)
    assert list(tmp_path.iterdir()) == []


def test_folder_with_other_files_is_refused(tmp_path: Path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(ManifestError, match="not empty"):
        list(demo.rows(tmp_path))
    assert (tmp_path / "holiday.txt").read_text() == "mine"


def test_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    from pipelines.demo.speech import Voice

    monkeypatch.setitem(sys.modules, "piper", None)
    with pytest.raises(RuntimeError, match=r"concord-av\[demo\]"):
        Voice()


def test_reading_and_planning_load_no_piper():
    code = "import sys, pipelines.demo.rows, pipelines.demo.build; assert 'piper' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3], env=dict(os.environ))


@pytest.mark.slow
def test_files_of_the_default_corpus_tell_no_method(tmp_path: Path):
    pytest.importorskip("piper")
    root = tmp_path / "demo"
    rows: list[Row] = build.build(root)
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        path = root / row.path
        num_frames, samples = decoded(path)
        size = path.stat().st_size
        cues = {
            "duration": num_frames / FPS,
            "size": size,
            "bit rate": size / num_frames,
            "picture minus sound": num_frames / FPS - len(samples) / film.SAMPLE_RATE,
            **sound_cues(samples),
        }
        for name, value in cues.items():
            found.setdefault(name, {}).setdefault(row.method, []).append(value)
    for name, values in found.items():
        check_cues(values, name)


def test_a_table_of_an_earlier_version_may_be_replaced_and_no_other_file(tmp_path: Path):
    table = tmp_path / "table.md"
    row = "| method |\n|---|\n| real |\n\n"
    earlier = "A demonstration: one synthetic face, one synthetic voice, forgeries of our own making. It shows"
    for text in (f"{row}{earlier}\n", f"{row}{command.CAVEAT}\n"):
        table.write_text(text, encoding="utf-8")
        command.check(tmp_path)
    table.write_text(f"{row}My own notes\n", encoding="utf-8")
    with pytest.raises(click.UsageError, match=r"table\.md"):
        command.check(tmp_path)
