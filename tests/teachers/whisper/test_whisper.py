"""The Whisper teacher: converted weights, trimmed and batched encoding, transcripts."""

import importlib.util
import os
import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from teachers import ClipMedia, TeacherError, windows
from teachers.files import weights
from teachers.voice import VoiceActivity
from teachers.whisper import ctranslate2
from teachers.whisper.teacher import OVERLAP, PACKAGES, WINDOW, ExactWhisper, Whisper, load_exact

DIGITS = dict(zip("0123456789", "zero one two three four five six seven eight nine".split(), strict=True))


@pytest.fixture(scope="module")
def last():
    return Whisper("tiny.en")


@pytest.fixture(scope="module")
def block3():
    return Whisper("tiny.en@3")


@pytest.fixture(scope="module")
def sounds(clips):
    """{name: i2 [640 * 75]} of the four clips."""
    found = {}
    for path in sorted((clips / "clips").glob("*.mp4")):
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
            parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        found[path.stem] = np.concatenate(parts)[: 640 * 75]
    return found


def media(sound, name="clip", voiced=True):
    frames = len(sound) // 640
    return ClipMedia(
        id=name,
        audio=sound,
        mouth=np.zeros((frames, 96, 96), np.uint8),
        lips=np.zeros((frames, 40, 2), np.float32),
        blendshapes=np.zeros((frames, 52), np.float32),
        flags=np.full(frames, 0b11101 if voiced else 0b10101, np.uint8),
    )


def pieces(*sounds):
    """Each sound as a clip that is one window."""
    return [piece for i, sound in enumerate(sounds) for piece in windows.cut(i, media(sound), WINDOW, OVERLAP)]


def padded(model, sound):
    """Rows of the model's own encoder on sound padded to 30 s, averaged by pairs: f4 [750, dim]."""
    from whisper.audio import log_mel_spectrogram, pad_or_trim

    with torch.inference_mode():
        wave = pad_or_trim(torch.from_numpy(sound.astype(np.float32) / 32768))
        rows = model._model.encoder(log_mel_spectrogram(wave, model._model.dims.n_mels)[None])[0].numpy()
    return rows.reshape(750, 2, -1).mean(axis=1)


def test_thirty_seconds_equal_the_models_own_encoder(last, sounds):
    sound = np.tile(np.concatenate(list(sounds.values())), 3)[: 640 * WINDOW]
    np.testing.assert_allclose(last.embed([media(sound)])[0], padded(last, sound), atol=1e-4)


@pytest.mark.parametrize("kind", [Whisper, ExactWhisper])
def test_a_long_clip_is_the_same_in_any_batch(kind, sounds):
    """160 s of sound, alone and between short clips; rows and pieces are all that grows with the length."""
    teacher = kind("tiny.en@1")
    long = media(np.tile(np.concatenate(list(sounds.values())), 14)[: 640 * 4000], "long")
    short = [media(sound, name) for name, sound in sounds.items()]
    most = []
    hook = teacher._encoder.conv1.register_forward_pre_hook(lambda _, given: most.append(given[0].shape[0::2]))
    try:
        (alone,) = teacher.embed([long])
        beside = teacher.embed([short[0], long, *short[1:]])
    finally:
        hook.remove()
    assert alone.shape == (4000, 384)
    np.testing.assert_array_equal(beside[1], alone)
    for clip, rows in zip(short, [beside[0], *beside[2:]], strict=True):
        np.testing.assert_allclose(rows, teacher.embed([clip])[0], atol=1e-5)
    assert all(clips * columns <= 4 * max(windows.BATCH_FRAMES, WINDOW) for clips, columns in most)


@pytest.mark.parametrize("layer", ["@0", *(pytest.param(f"@{k}", marks=pytest.mark.slow) for k in (1, 2, 3, 4)), ""])
def test_exact_equals_openai_whisper_after_every_block(layer, sounds):
    from whisper.audio import log_mel_spectrogram, pad_or_trim

    exact = ExactWhisper(f"tiny.en{layer}")
    encoder = exact._model.encoder
    given = [sound[: 640 * frames] for sound, frames in zip(sounds.values(), (75, 33), strict=False)]
    seen = {}
    hooks = [encoder.blocks[0].register_forward_pre_hook(lambda _, given: seen.update({"@0": given[0]}))]
    for k, block in enumerate(encoder.blocks, 1):
        hooks.append(block.register_forward_hook(lambda _, __, rows, k=k: seen.update({f"@{k}": rows})))
    expected = []
    with torch.inference_mode():
        for sound in given:
            wave = pad_or_trim(torch.from_numpy(sound.astype(np.float32) / 32768))
            seen[""] = encoder(log_mel_spectrogram(wave)[None])
            rows = seen[layer][0].numpy().reshape(750, 2, -1).mean(axis=1)
            expected.append(rows[: len(sound) // 640])
    for hook in hooks:
        hook.remove()
    for rows, theirs in zip(exact.embed([media(sound) for sound in given]), expected, strict=True):
        np.testing.assert_allclose(rows, theirs, atol=1e-4)


def test_the_store_is_told_which_sound_was_encoded(last):
    assert last.provenance()["options"]["sound"] == "trimmed"
    assert load_exact("tiny.en@3", "cpu").provenance()["options"]["sound"] == "padded"


def test_trimmed_rows_resemble_padded_ones(last, sounds):
    for sound in sounds.values():
        trimmed, full = last.embed([media(sound)])[0], padded(last, sound)
        assert np.isfinite(full).all()
        cosine = (trimmed * full[:75]).sum(axis=1) / np.linalg.norm(trimmed, axis=1) / np.linalg.norm(full[:75], axis=1)
        assert cosine.mean() > 0.9


def test_padding_in_a_batch_changes_nothing(block3, last, sounds):
    lengths = [75, 10, 33, 60]
    cut = [sound[: 640 * frames] for sound, frames in zip(sounds.values(), lengths, strict=True)]
    for teacher, tolerance in [(block3, 1e-5), (last, 1e-4)]:  # the last norm enlarges rounding
        with torch.inference_mode():
            together = teacher._forward(pieces(*cut), half=False)
        for sound, rows in zip(cut, together, strict=True):
            np.testing.assert_allclose(teacher.embed([media(sound)])[0], rows, atol=tolerance)


def test_half_precision_gives_nearly_the_same_rows(block3, sounds):
    cut = [sound[: 640 * frames] for sound, frames in zip(sounds.values(), [75, 10, 33, 60], strict=True)]
    with torch.inference_mode():
        given = pieces(*cut)
        for half, single in zip(block3._forward(given, True), block3._forward(given, False), strict=True):
            assert half.dtype == np.float32
            assert np.abs(half - single).max() < 0.05 * np.abs(single).max()


@pytest.fixture
def one_thread():
    """As in workers: sums stay in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_rows_do_not_depend_on_neighbours_at_all_on_the_cpu(block3, sounds):
    given = [media(sound[: 640 * frames]) for sound, frames in zip(sounds.values(), [75, 10, 33, 75], strict=True)]
    for one, rows in zip(given, block3.embed(given), strict=True):
        np.testing.assert_allclose(block3.embed([one])[0], rows, atol=1e-6)


def test_rows_are_local_in_time(block3, sounds):
    """Other sound in the last second changes the rows there most: row k belongs to frame k."""
    first, second = list(sounds.values())[:2]
    mixed = np.concatenate([first[: 640 * 50], second[640 * 50 :]])
    change = np.linalg.norm(block3.embed([media(mixed)])[0] - block3.embed([media(first)])[0], axis=1)
    assert change[52:].mean() > 2 * change[:45].mean()


def test_long_clip_is_joined_from_windows(block3, sounds):
    sound = np.tile(np.concatenate(list(sounds.values())), 5)[: 640 * 1400]
    rows = block3.embed([media(sound)])[0]
    assert rows.shape == (1400, 384)
    first = block3.embed([media(sound[: 640 * WINDOW])])[0]
    join = WINDOW - OVERLAP // 2
    np.testing.assert_allclose(rows[:join], first[:join], atol=1e-5)
    second = block3.embed([media(sound[640 * (WINDOW - OVERLAP) :])])[0]
    np.testing.assert_allclose(rows[join:], second[OVERLAP // 2 :], atol=1e-5)


def test_layers_are_counted_from_the_convolutions(sounds):
    sound = media(next(iter(sounds.values())))
    rows = {layer: Whisper(f"tiny.en{layer}").embed([sound])[0] for layer in ("@0", "@4", "")}
    assert all(np.isfinite(value).all() for value in rows.values())
    model = Whisper("tiny.en@4")._encoder
    with torch.inference_mode():
        normed = model.ln_post(torch.from_numpy(rows["@4"])).numpy()
    # Averaging by pairs and the norm do not commute, but nearly.
    assert np.corrcoef(normed.ravel(), rows[""].ravel())[0, 1] > 0.99
    assert not np.allclose(rows["@0"], rows["@4"])


def test_silence_gives_finite_rows_and_no_words(last):
    silent = np.zeros(640 * 50, np.int16)
    assert np.isfinite(last.embed([media(silent)])[0]).all()
    assert last.transcribe([media(silent, voiced=False)])[0] == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("tiny.en@5", r"no layer 5; this model has @0 to @4"),
        ("tiny.en@last", r"'last' is not a layer"),
        ("huge", r"no such model or file; names are .*tiny\.en"),
        ("/absent/file.pt", r"/absent/file\.pt does not exist"),
    ],
)
def test_wrong_names_say_what_is_wrong(argument, message):
    with pytest.raises(TeacherError, match=message):
        Whisper(argument)


def test_file_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "notes.pt").write_text("not weights")
    with pytest.raises(TeacherError, match=r"notes\.pt is not a PyTorch checkpoint"):
        Whisper(str(tmp_path / "notes.pt"))
    content = torch.load(weights.resolve("tiny.en.pt", package=PACKAGES["tiny.en"]).path, weights_only=True)
    dims, state = content["dims"], content["model_state_dict"]
    for wrong, message in [
        ({"model": state}, "has no dims and no model_state_dict"),
        ({"dims": {**dims, "n_text_state": 10}, "model_state_dict": state}, "is not a Whisper checkpoint"),
        ({"dims": {"n_mels": 80}, "model_state_dict": state}, "is not a Whisper checkpoint.*missing"),
        ({"dims": 3, "model_state_dict": state}, "is not a Whisper checkpoint"),
    ]:
        torch.save(wrong, tmp_path / "notes.pt")
        with pytest.raises(TeacherError, match=rf"notes\.pt.* {message}"):
            Whisper(str(tmp_path / "notes.pt"))


def test_checkpoint_that_runs_a_command_is_refused_and_runs_nothing(tmp_path):
    class Command:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for zipped in (True, False):
        path = tmp_path / f"bad{zipped}.pt"
        torch.save({"dims": {}, "model_state_dict": Command()}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(TeacherError, match=rf"bad{zipped}\.pt asks for 'posix\.system'"):
            Whisper(str(path))
    assert not (tmp_path / "ran").exists()


def test_checkpoint_given_by_path_is_the_same_model(block3, sounds):
    path = weights.resolve("tiny.en.pt", package=PACKAGES["tiny.en"]).path
    sound = media(next(iter(sounds.values())))
    np.testing.assert_array_equal(Whisper(f"{path}@3").embed([sound])[0], block3.embed([sound])[0])


def test_converted_checkpoint_fills_every_weight():
    content = torch.load(weights.resolve("tiny.en.pt", package=PACKAGES["tiny.en"]).path, weights_only=True)
    from whisper.model import ModelDimensions
    from whisper.model import Whisper as Model

    model = Model(ModelDimensions(**content["dims"]))
    assert {name: tuple(value.shape) for name, value in content["model_state_dict"].items()} == {
        name: tuple(value.shape) for name, value in model.state_dict().items()
    }
    assert all(torch.isfinite(value).all() for value in content["model_state_dict"].values())


def test_converted_file_is_the_same_each_time():
    spec = importlib.util.find_spec(PACKAGES["tiny.en"].module)
    source = Path(spec.submodule_search_locations[0]) / PACKAGES["tiny.en"].file
    assert ctranslate2.convert(source) == ctranslate2.convert(source)


def _variable(name, array, kind):
    data = array.tobytes()
    text = name.encode() + b"\0"
    return (
        struct.pack("<H", len(text))
        + text
        + struct.pack("<B", array.ndim)
        + struct.pack(f"<{array.ndim}I", *array.shape)
        + struct.pack("<BI", kind, len(data))
        + data
    )


def test_ctranslate2_file_is_read_and_bad_ones_are_refused(tmp_path):
    head = struct.pack("<IH", 6, 12) + b"WhisperSpec\0" + struct.pack("<II", 3, 1)
    whole = head + _variable("encoder/x", np.arange(6, dtype="<f2").reshape(2, 3), 4) + struct.pack("<I", 0)
    path = tmp_path / "model.bin"
    path.write_bytes(whole)
    np.testing.assert_array_equal(ctranslate2.read(path)["encoder/x"], [[0, 1, 2], [3, 4, 5]])
    for bad in (whole[:-6], whole[:10], b"", struct.pack("<I", 5) + whole[4:], whole.replace(b"Whisper", b"Marian ")):
        path.write_bytes(bad)
        with pytest.raises(TeacherError, match=r"model\.bin is not a whole CTranslate2 file"):
            ctranslate2.read(path)


def test_quantised_weights_are_refused():
    with pytest.raises(TeacherError, match="int8 are quantised"):
        ctranslate2.checkpoint({"encoder/position_encodings/encodings": np.zeros((2, 2), np.int8)})


def spelled(clips, name):
    """(seconds, word) of the sentence that a clip's file of word times spells."""
    rows = [line.split() for line in (clips / "align" / f"{name}.align").read_text().splitlines()]
    return [(int(start) / 25_000, word) for start, _, word in rows if word not in ("sil", "sp")]


def heard_in(teacher, sound, name, voiced):
    """(seconds, word) of the transcript of i2 [640 * frames] in which `voiced` bool [frames] marks speech."""
    given = media(sound, name)
    given.flags[~voiced] &= 0b10111
    words = teacher.transcribe([given])[0]
    assert all(0 <= word.start_s <= word.end_s <= len(sound) / 16_000 and 0 <= word.probability <= 1 for word in words)
    return [(word.start_s, text) for word in words for text in _plain(word.text)]


def test_transcripts_of_single_sentences_are_in_time(last, clips, sounds):
    voice = VoiceActivity()
    wrong = 0
    for name, sound in sounds.items():
        heard, expected = heard_in(last, sound, name, voice.frames(sound)), spelled(clips, name)
        wrong += sum(word not in {text for _, text in heard} for _, word in expected)
        assert np.median([abs(at - start) for at, text in heard for start, word in expected if text == word]) < 0.25
    assert wrong <= 9  # of 24: single letters are hard without what was said before


def test_transcripts_are_recognisable(last, clips, sounds):
    """Four sentences said one after the other, a quarter of a second apart."""
    voice = VoiceActivity()
    parts = []
    for sound in sounds.values():
        spoken = np.flatnonzero(voice.frames(sound))
        parts.append(sound[max(0, spoken[0] - 6) * 640 : (spoken[-1] + 7) * 640])
    joined = np.concatenate(parts)
    found = {text for _, text in heard_in(last, joined, "joined", voice.frames(joined))}
    expected = [word for name in sounds for _, word in spelled(clips, name)]
    assert sum(word not in found for word in expected) / len(expected) <= 0.35


def _plain(text):
    """Words as .align spells them: "F2" is two."""
    letters = re.sub(r"[^a-z0-9]", "", text.lower())
    both = re.fullmatch(r"([a-z])(\d)", letters)
    return [DIGITS.get(part, part) for part in (both.groups() if both else [letters]) if part]


def test_words_cost_one_encoding_of_each_window(last, sounds):
    given = [media(sound, name) for name, sound in sounds.items()]
    last.transcribe(given[:1])  # the window without sound is encoded once for all
    calls = []
    hook = last._model.encoder.conv1.register_forward_hook(lambda *_: calls.append(1))
    try:
        assert all(last.transcribe(given))
    finally:
        hook.remove()
    assert len(calls) == len(given)
