"""`python -m teachers.check`: raw arrays and media in, embeddings out, and one line for whatever is wrong."""

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import teachers
from concord.frames import VOICE_ACTIVE
from teachers.check import main
from teachers.files import arrays
from teachers.testing import synthetic

ROOT = Path(__file__).parents[2]


def run(*arguments):
    """The finished command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments):
    """Its one line of error; nothing on standard output."""
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def npz(tmp_path):
    """Writes arrays to a file; its path."""

    def write(**given):
        np.savez(tmp_path / "in.npz", **given)
        return tmp_path / "in.npz"

    return write


def sound(batch=2, frames=40, rest=0):
    return np.random.default_rng(0).integers(-5000, 5000, (batch, 640 * frames + rest)).astype(np.int16)


def test_embedding_of_sound_equals_the_teachers_and_is_padded_with_zeros(npz, tmp_path):
    given, lengths = sound(3, 40, rest=639), np.array([40, 7, 0])
    done = run("whisper:tiny.en@1", "--input", npz(audio=given, lengths=lengths), "--output", tmp_path / "out.npz")
    assert done.exit_code == 0, done.stderr
    with np.load(tmp_path / "out.npz") as out:
        assert sorted(out.files) == ["embedding", "lengths"]
        embedding = out["embedding"]
        assert out["lengths"].tolist() == [40, 7, 0]
    assert embedding.shape == (3, 40, 384)
    assert embedding.dtype == np.float32
    clips = arrays.load(npz(audio=given, lengths=lengths)).clips
    for rows, expected, length in zip(embedding, teachers.load("whisper:tiny.en@1").embed(clips), lengths, strict=True):
        np.testing.assert_allclose(rows[:length], expected, atol=1e-5)
        assert not rows[length:].any()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_lengths_shorter_than_the_arrays_keep_their_frames(npz, tmp_path):
    lips = np.random.default_rng(0).normal(size=(2, 30, 40, 2)).astype("f4")
    assert run("lips", "--input", npz(lips=lips, lengths=[20, 10]), "--output", tmp_path / "out.npz").exit_code == 0
    with np.load(tmp_path / "out.npz") as out:
        assert out["embedding"].shape == (2, 30, 80)
        expected = (lips[0, :20] - lips[0, :20].mean(axis=0)).reshape(20, 80)
        np.testing.assert_allclose(out["embedding"][0, :20], expected, atol=1e-5)
        assert not out["embedding"][0, 20:].any()


def test_a_media_file_is_decoded_tracked_and_embedded(clips, tmp_path):
    path = clips / "clips" / "bbaf2n.mp4"
    done = run("blendshapes", "--media", path, "--output", tmp_path / "out.npz")
    assert done.exit_code == 0, done.stderr
    with np.load(tmp_path / "out.npz") as out:
        assert out["embedding"].shape == (1, 75, 52)
        assert out["embedding"].any(axis=-1).mean() > 0.9
    assert "voice in" in done.stdout


def test_a_media_file_heard_by_whisper_equals_the_decoded_sound(clips, tmp_path):
    from pipelines.media.sound import decode_sound

    path = clips / "clips" / "lgas5a.mp4"
    assert run("whisper", "--media", path, "--output", tmp_path / "out.npz").exit_code == 0
    given = synthetic.clip(75)
    object.__setattr__(given, "audio", decode_sound(path, 0.0, 75).samples)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["embedding"][0], teachers.load("whisper").embed([given])[0], atol=1e-4)


def test_without_media_it_says_what_the_teacher_is_and_how_fast():
    done = run("whisper:tiny.en@3")
    assert done.exit_code == 0
    said = dict(line.split(None, 1) for line in done.stdout.splitlines())
    record = teachers.load("whisper:tiny.en@3").provenance()
    assert record["sha256"] == said["sha256"]
    assert record["source"] in done.stdout
    assert record["licence"] == said["licence"]
    assert '"sound": "trimmed"' in said["options"]
    assert said["embedding"].startswith("[1, 250, 384] float32, finite, ")
    assert "frames/s" in said["speed"]
    assert "x real time" in said["speed"]
    assert "MB" in said["peak"]


def test_it_runs_as_a_module_without_the_pipelines_being_loaded():
    code = "import sys, teachers.check; print({'pipelines', 'torch', 'whisper'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    done = subprocess.run(
        [sys.executable, "-m", "teachers.check", "lips"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "[1, 250, 80]" in done.stdout


def test_teacher_of_another_package_is_tried_and_its_faults_told(tmp_path, monkeypatch, npz):
    (tmp_path / "odd_teacher.py").write_text(
        "import numpy as np\n"
        "class Odd:\n"
        "    name, dim, stream = 'odd', 3, 'video'\n"
        "    def __init__(self, fault): self.fault = fault\n"
        "    def provenance(self):\n"
        "        return dict(name='odd', layer=None, source='here', sha256='0', options={}, dim=3, licence='MIT')\n"
        "    def embed(self, clips):\n"
        "        if self.fault == 'raise': raise RuntimeError('broken\\nover lines')\n"
        "        value = np.nan if self.fault == 'nan' else 1\n"
        "        return [np.full((c.num_frames - (self.fault == 'short'), 3), value, 'f4') for c in clips]\n"
        "def load(argument, device): return Odd(argument)\n"
    )
    info = tmp_path / "odd_teacher-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-teacher\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[concord.teachers]\nodd = odd_teacher:load\n")
    monkeypatch.syspath_prepend(tmp_path)
    video = npz(video=np.zeros((2, 5, 112, 112), np.uint8))
    done = run("odd", "--input", video)
    assert done.exit_code == 0, done.stderr
    assert "[2, 5, 3] float32, finite, 1 to 1" in done.stdout
    assert "RuntimeError: broken over lines" in refused("odd:raise", "--input", video)
    assert "not finite float32 throughout" in refused("odd:nan", "--input", video)
    assert "gave rows of shape [(4, 3), (4, 3)]; expected [(5, 3), (5, 3)]" in refused("odd:short", "--input", video)
    raised = run("odd:raise", "--input", video, "--debug")
    assert raised.exit_code == 2
    assert "Traceback" in raised.stderr
    assert "in embed" in raised.stderr


VIDEO = np.zeros((2, 10, 96, 96), np.uint8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"audio": sound().astype("f4")}, "audio is float32; expected int16"),
        ({"audio": sound()[0]}, r"audio has shape \[25600\]; expected \[batch, samples\]"),
        ({"video": VIDEO.astype("i4")}, "video is int32; expected uint8"),
        ({"video": VIDEO[..., :95]}, r"video has shape \[2, 10, 96, 95\].*side 88, 96 or 112"),
        ({"video": VIDEO[..., :90, :90]}, r"shape \[2, 10, 90, 90\]; expected \[batch, frames, side, side\]"),
        ({"video": VIDEO[..., None]}, r"shape \[2, 10, 96, 96, 1\]"),
        ({"lips": np.zeros((2, 10, 40))}, r"lips has shape \[2, 10, 40\]; expected \[batch, frames, 40, 2\]"),
        ({"blendshapes": np.full((2, 10, 52), np.nan)}, "blendshapes holds values that are not finite"),
        ({"audio": sound(), "lengths": [41, 1]}, "lengths lie between 1 and 41; expected 0 to 40"),
        ({"audio": sound(), "lengths": [-1, 1]}, "lengths lie between -1 and 1"),
        ({"audio": sound(), "lengths": [1.0, 1.0]}, "lengths is float64; expected an integer type"),
        ({"audio": sound(), "lengths": [1]}, "differ in their first axis, the batch: audio 2, lengths 1"),
        ({"video": VIDEO, "lips": np.zeros((2, 9, 40, 2))}, "second axis, the frames: video 10, lips 9"),
        ({"video": VIDEO, "lengths": [11, 1]}, "lengths lie between 1 and 11; expected 0 to 10"),
        (
            {"video": VIDEO, "voice": sound()},
            "has 'voice', which is not one of video, lips, blendshapes, audio, lengths",
        ),
        ({}, "holds no clips"),
        ({"lengths": [3]}, "holds no clips"),
    ],
)
def test_wrong_arrays_say_what_was_found_and_expected(npz, given, message):
    with pytest.raises(arrays.ArraysError, match=message) as caught:
        arrays.load(npz(**given))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(("frames", "rest"), [(9, 1), (8, 0), (10, 7), (13, 0), (0, 3)])
def test_sound_beside_pictures_is_cut_or_filled_up_and_that_is_said(npz, frames, rest):
    given = sound(2, frames, rest)
    batch = arrays.load(npz(video=VIDEO, audio=given, lengths=[10, 4]))
    kept = min(given.shape[1], 6400)
    np.testing.assert_array_equal(batch.clips[0].audio[:kept], given[0, :kept])
    assert not batch.clips[0].audio[kept:].any()
    assert [len(clip.audio) for clip in batch.clips] == [6400, 2560]
    done = (
        f"{given.shape[1] - 6400} are cut off" if given.shape[1] > 6400 else f"{6400 - given.shape[1]} zeros are added"
    )
    assert batch.notes[1] == f"audio has {given.shape[1]} samples for 10 frames of 640: at the end {done}"
    assert len(arrays.load(npz(video=VIDEO, audio=sound(2, 10))).notes) == 1


def test_sound_alone_has_its_whole_frames_or_the_rest_too_if_lengths_count_it(npz):
    batch = arrays.load(npz(audio=sound(2, 9, rest=200)))
    assert (batch.num_frames, [clip.num_frames for clip in batch.clips]) == (9, [9, 9])
    assert "at the end 200 are cut off" in batch.notes[1]
    batch = arrays.load(npz(audio=sound(2, 9, rest=200), lengths=[3, 10]))
    assert (batch.num_frames, [clip.num_frames for clip in batch.clips]) == (10, [3, 10])
    assert "at the end 440 zeros are added" in batch.notes[1]
    with pytest.raises(arrays.ArraysError, match="expected 0 to 10"):
        arrays.load(npz(audio=sound(2, 9, rest=200), lengths=[3, 11]))


def test_frames_of_arrays_have_a_face_and_a_voice_and_no_sound_is_silence(npz):
    for clip in arrays.load(npz(video=VIDEO)).clips:
        assert ((clip.flags & 1) > 0).all()
        assert ((clip.flags & VOICE_ACTIVE) > 0).all()
        assert not clip.audio.any()


def test_a_teacher_that_lacks_what_it_looks_at_says_so(npz):
    assert "whisper looks at audio, which" in refused("whisper", "--input", npz(video=VIDEO))
    assert "lips looks at lips, which" in refused("lips", "--input", npz(video=VIDEO))


def test_files_that_are_no_arrays_are_named(tmp_path):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "pickle.npz", audio=np.array([Malicious()], object))
    for name in ("one.npy", "text.npz", "pickle.npz", "absent.npz"):
        assert name in refused("lips", "--input", tmp_path / name)
    with zipfile.ZipFile(tmp_path / "bytes.npz", "w") as file:
        file.writestr("audio", "no array")
    assert "audio is not an array" in refused("lips", "--input", tmp_path / "bytes.npz")
    assert not (tmp_path / "touched").exists()


def test_what_cannot_be_loaded_or_read_is_one_line(tmp_path, clips):
    assert "unknown teacher 'lipz'" in refused("lipz")
    assert "there is no layer 9" in refused("whisper:tiny.en@9")
    assert "no device 'neptune'" in refused("lips", "--device", "neptune")
    assert "give one of them" in refused("lips", "--media", "a.mp4", "--input", "b.npz")
    assert "absent.mp4 cannot be opened" in refused("lips", "--media", tmp_path / "absent.mp4")
    assert "is a folder" in refused("lips", "--output", tmp_path)
    (tmp_path / "file").write_text("")
    path = clips / "clips" / "bbaf2n.mp4"
    assert "is not a folder" in refused("whisper", "--media", path, "--output", tmp_path / "file" / "out.npz")


def test_a_failure_leaves_the_earlier_output_as_it_was(tmp_path, npz):
    (tmp_path / "out.npz").write_bytes(b"earlier")
    refused("whisper", "--input", npz(video=VIDEO), "--output", tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_bytes() == b"earlier"


@pytest.mark.golden
@pytest.mark.parametrize("model", ["pretrain", "seq2seq"])
@pytest.mark.parametrize("layer", ["layer2", "final"])
def test_avhubert_by_the_command_gives_the_published_rows(shared, npz, tmp_path, model, layer):
    folder = shared / "golden"
    with np.load(folder / "avhubert_features.npz") as golden:
        video, lengths = golden[f"{model}/in/video_u8"], golden[f"{model}/in/lengths"]
        expected = golden[f"{model}/pad/video/{layer}"]
    name = f"avhubert:{folder / f'avhubert_tiny_{model}.pt'}" + {"layer2": "@2", "final": ""}[layer]
    done = run(name, "--input", npz(video=video, lengths=lengths), "--output", tmp_path / "rows")
    assert done.exit_code == 0, done.stderr
    with np.load(tmp_path / "rows") as out:
        assert out["embedding"].shape == expected.shape
        for found, rows, length in zip(out["embedding"], expected, lengths, strict=True):
            np.testing.assert_allclose(found[:length], rows[:length], atol=3e-5, rtol=1e-5)
            assert not found[length:].any()


@pytest.fixture(scope="module")
def post_norm(tmp_path_factory):
    """An AV-HuBERT checkpoint of another width, whose norms come after, with random weights."""
    from teachers.avhubert import loading

    loading.register()
    from fairseq.models import build_model
    from fairseq.tasks import setup_task
    from omegaconf import OmegaConf

    task = {"_name": "av_hubert_pretraining", "normalize": True, "stack_order_audio": 4}
    model = {"_name": "av_hubert", "encoder_layers": 2, "encoder_embed_dim": 40, "encoder_ffn_embed_dim": 56}
    model |= {"encoder_attention_heads": 5, "conv_pos": 16, "conv_pos_groups": 4, "audio_feat_dim": 104}
    torch.manual_seed(3)
    built = build_model(
        OmegaConf.create({**model, "layer_norm_first": False}),
        setup_task(OmegaConf.create(task), from_checkpoint=True),
        from_checkpoint=True,
    )
    path = tmp_path_factory.mktemp("avhubert") / "post_norm.pt"
    cfg = {"model": {**model, "layer_norm_first": False}, "task": task}
    torch.save({"cfg": cfg, "model": built.state_dict()}, path)
    return path


@pytest.mark.parametrize(("kind", "needed"), [("", {"video"}), ("-audio", {"audio"}), ("-both", {"video", "audio"})])
def test_avhubert_of_another_width_and_norm_works_by_the_command(post_norm, npz, tmp_path, kind, needed):
    given = {"video": np.random.default_rng(0).integers(0, 256, (2, 10, 88, 88), np.uint8), "audio": sound(2, 10)}
    rows = {}
    for layer in ("", "@2", "@1"):
        path = npz(**{key: given[key] for key in needed}, lengths=[10, 6])
        done = run(f"avhubert{kind}:{post_norm}{layer}", "--input", path, "--output", tmp_path / "rows")
        assert done.exit_code == 0, done.stderr
        with np.load(tmp_path / "rows") as out:
            rows[layer] = out["embedding"]
        assert rows[layer].shape == (2, 10, 40)
        assert not rows[layer][1, 6:].any()
    np.testing.assert_array_equal(rows[""], rows["@2"])  # without a norm after the last block
    assert not np.allclose(rows[""], rows["@1"], atol=1e-2)
    np.testing.assert_allclose(rows[""][0].std(axis=1), 1, atol=1e-3)  # a fresh layer norm has no scale of its own


def test_a_checkpoint_that_asks_for_a_command_is_refused_by_name_and_runs_nothing(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"cfg": {"model": Trap()}, "model": {}}, tmp_path / "trap.pt")
    for kind in ("avhubert", "deep_avsr-audio", "whisper"):
        assert "posix.system" in refused(f"{kind}:{tmp_path / 'trap.pt'}")
    assert not (tmp_path / "ran").exists()
