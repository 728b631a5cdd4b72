"""AV-HuBERT against the published implementation: names, rows of every layer, logits; and what loading refuses."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import teachers
from teachers import ClipMedia, TeacherError
from teachers.avhubert import features, loading
from teachers.avhubert.resnet import FRAMES, ResNet
from teachers.avhubert.teacher import OVERLAP, WINDOW, AVHubertTeacher
from teachers.files.checkpoint import read
from teachers.windows import Piece

TOLERANCE = {"atol": 3e-5, "rtol": 1e-5}
KINDS = {"video": "avhubert", "audio": "avhubert-audio", "both": "avhubert-both"}
TASK = {"_name": "av_hubert_pretraining", "normalize": True, "stack_order_audio": 4}


def small(**changes):
    """Configuration of a small model, as a checkpoint's cfg.model has it."""
    return {
        "_name": "av_hubert",
        "encoder_layers": 2,
        "encoder_embed_dim": 48,
        "encoder_ffn_embed_dim": 80,
        "encoder_attention_heads": 3,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "audio_feat_dim": 104,
        "layer_norm_first": True,
        **changes,
    }


def built(model, task=TASK, **dictionaries):
    """What fairseq's registries build from two parts of a cfg."""
    loading.register()  # first: it keeps the import of fairseq quiet
    from fairseq.models import build_model
    from fairseq.tasks import setup_task
    from omegaconf import OmegaConf

    task = setup_task(OmegaConf.create(task), from_checkpoint=True, **dictionaries)
    return build_model(OmegaConf.create(model), task, from_checkpoint=True).eval()


def saved(path, model, weights=None, seed=5):
    """Path of a pretraining checkpoint of that configuration, with random weights unless some are given."""
    torch.manual_seed(seed)
    content = {"cfg": {"model": model, "task": TASK}, "model": weights or built(model).state_dict()}
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("avhubert") / "tiny.pt", small())


def clip(frames=12, seed=0, size=96, name="clip"):
    rng = np.random.default_rng(seed)
    return ClipMedia(
        id=name,
        audio=rng.normal(0, 3000, 640 * frames).astype(np.int16),
        mouth=rng.integers(0, 256, (frames, size, size), np.uint8),
        lips=np.zeros((frames, 40, 2), np.float32),
        blendshapes=np.zeros((frames, 52), np.float32),
        flags=np.full(frames, 0b11101, np.uint8),
    )


class Golden:
    """One model's golden arrays, its inputs prepared."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self.name = folder / f"avhubert_tiny_{name}.pt", name
        with np.load(folder / "avhubert_features.npz") as file:
            self.arrays = {key.partition("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/")}
        self.model, self.input = loading.load(self.path)
        crops = self.arrays["in/video_u8"]
        self.frames = crops.shape[1]
        self.video = torch.from_numpy(features.picture(crops.reshape(-1, 88, 88))).view(len(crops), 1, -1, 88, 88)
        self.audio = self.sound("in/audio_logfbank")
        self.mask = torch.from_numpy(self.arrays["in/padding_mask"])

    def sound(self, key):
        rows = self.arrays[key]
        return torch.from_numpy(features.layer_norm(rows.reshape(-1, 104))).view(rows.shape).transpose(1, 2)

    def streams(self, which, pad):
        """Arguments of the model."""
        video, audio = self.video.clone(), self.audio.clone()
        if pad:
            video[:, 0][self.mask] = 0
            audio.transpose(1, 2)[self.mask] = 0
        return {
            "video": None if which == "audio" else video,
            "audio": None if which == "video" else audio,
            "padding_mask": self.mask if pad else None,
        }

    def compare(self, found, key):
        expected = self.arrays[key]
        valid = ~self.mask.numpy() if key.startswith("pad/") else np.ones(found.shape[:2], bool)
        np.testing.assert_allclose(found.numpy()[valid], expected[valid], **TOLERANCE, err_msg=key)


@pytest.fixture(scope="module", params=["pretrain", "seq2seq"])
def golden(request, shared):
    return Golden(shared / "golden", request.param)


@pytest.mark.golden
@pytest.mark.parametrize("pad", [False, True], ids=["nopad", "pad"])
@torch.inference_mode()
def test_rows_equal_the_published_ones(golden, pad):
    assert golden.model.num_layers == 3
    for which in ("video", "audio", "both"):
        for layer, name in [(1, "layer1"), (2, "layer2"), (3, "layer3"), (None, "final")]:
            found = golden.model(**golden.streams(which, pad), layer=layer)
            golden.compare(found, f"{'pad' if pad else 'nopad'}/{which}/{name}")


@pytest.mark.golden
@pytest.mark.parametrize("pad", ["nopad", "pad"])
@torch.inference_mode()
def test_front_ends_equal_the_published_ones(golden, pad):
    given = golden.streams("both", pad == "pad")
    model = golden.model
    for found, key in [
        (model.feature_extractor_video.resnet(given["video"]), "resnet"),
        (model.feature_extractor_video(given["video"]), "video_proj"),
        (model.feature_extractor_audio(given["audio"]), "audio_proj"),
    ]:
        np.testing.assert_allclose(found.numpy(), golden.arrays[f"{pad}/frontend/{key}"], **TOLERANCE)
    if golden.name == "pretrain":
        golden.compare(model(**given, layer=0), f"{pad}/both/ret_conv")
        golden.compare(model(**given, layer=2), f"{pad}/both/extract_features_layer2")
        given["audio"] = torch.zeros_like(given["audio"])  # not the same as no sound at all
        golden.compare(model(**given), f"{pad}/video_with_zero_audio_input/final")


@pytest.mark.golden
@torch.inference_mode()
def test_long_and_short_clips_equal_the_published_ones(golden):
    sound = golden.sound("in/audio_long")
    golden.compare(golden.model(audio=sound, layer=1), "long/audio/layer1")
    golden.compare(golden.model(audio=sound), "long/audio/final")
    for frames in (1, 2):
        golden.compare(golden.model(video=golden.video[:1, :, :frames]), f"short/video_T{frames}/final")


@pytest.mark.golden
@pytest.mark.parametrize("which", ["video", "audio", "both"])
@pytest.mark.parametrize("layer", [1, 2, 3, None])
def test_the_teacher_gives_the_published_rows_from_crops(shared, which, layer):
    """Of crops within larger pictures; the golden sound is a filterbank already, so it takes the place of the teacher's."""
    golden = Golden(shared / "golden", "seq2seq")
    argument = f"{golden.path}{'' if layer is None else f'@{layer}'}"
    teacher = AVHubertTeacher(which, argument)
    lengths = golden.arrays["in/lengths"].tolist()
    clips = []
    for k, length in enumerate(lengths):
        one = clip(length, seed=k, size=112)
        one.mouth[:, 12:100, 12:100] = golden.arrays["in/video_u8"][k, :length]
        clips.append(one)
    rows = golden.arrays["in/audio_logfbank"]
    teacher._sound = lambda piece: features.layer_norm(rows[piece.index, : piece.num_frames])
    for found, length, expected in zip(
        teacher.embed(clips),
        lengths,
        golden.arrays[f"pad/{which}/{'final' if layer is None else f'layer{layer}'}"],
        strict=True,
    ):
        np.testing.assert_allclose(found, expected[:length], **TOLERANCE)


def key_list(model):
    return [
        (key, "x".join(map(str, value.shape)) or "scalar", str(value.dtype).removeprefix("torch."))
        for key, value in model.state_dict().items()
    ]


@pytest.mark.golden
@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_names_shapes_and_order_are_those_of_the_released_files(shared, size, kind):
    published = json.loads((shared / "golden" / "avhubert_cfg.json").read_text())["published_conf"]
    pretraining = published[f"pretrain/{size}_vox_iter5"]
    if kind == "pretrain":
        conf, file = pretraining, f"avhubert_keys_{size}.txt"
    else:
        conf, file = published[f"finetune/{size}_vox_433h"], f"avhubert_keys_{size}_seq2seq.txt"
        conf["model"]["w2v_args"] = pretraining
    with torch.device("meta"):
        model = built(conf["model"], conf["task"], dictionaries=[range(2004)], target_dictionary=range(1000))
    expected = [tuple(line.split("\t")) for line in (shared / "golden" / file).read_text().splitlines()]
    assert key_list(model) == expected


@pytest.mark.golden
@torch.inference_mode()
@pytest.mark.parametrize("pad", ["nopad", "pad"])
def test_the_whole_lip_reader_gives_the_published_logits(shared, pad):
    golden = Golden(shared / "golden", "seq2seq")
    content = read(golden.path)
    dictionaries = [one.state["symbols"] for one in content["task_state"]["dictionaries"]]
    target = content["task_state"]["target_dictionary"].state["symbols"]
    model = built(content["cfg"]["model"], content["cfg"]["task"], dictionaries=dictionaries, target_dictionary=target)
    model.load_state_dict({key: value.float() for key, value in content["model"].items()}, strict=True)
    given = golden.streams("video", pad == "pad")
    tokens = torch.from_numpy(golden.arrays["in/prev_output_tokens"])
    found = model(**given, tokens=tokens)
    np.testing.assert_allclose(found.numpy(), golden.arrays[f"{pad}/video/decoder_logits"], **TOLERANCE)
    rows = model.encoder(**given)
    expected = golden.arrays[f"{pad}/video/encoder_out_TBC"].swapaxes(0, 1)
    valid = ~golden.mask.numpy() if pad == "pad" else np.ones(rows.shape[:2], bool)
    np.testing.assert_allclose(rows.numpy()[valid], expected[valid], **TOLERANCE)


def reference(weights, config, x, layer=None):
    """The encoder in plain arithmetic, float64, on fused rows [1, frames, dim]."""
    from torch.nn.functional import conv1d, gelu, layer_norm, linear, relu

    w = {key: value.double() for key, value in weights.items()}
    act = {"gelu": gelu, "relu": relu}[config.get("activation_fn", "gelu")]
    dim, heads = x.shape[-1], config["encoder_attention_heads"]

    def norm(x, key):
        return layer_norm(x, (dim,), w[f"encoder.{key}.weight"], w[f"encoder.{key}.bias"])

    def lin(x, key):
        return linear(x, w[f"encoder.{key}.weight"], w[f"encoder.{key}.bias"])

    v = w["encoder.pos_conv.0.weight_v"]
    kernel = w["encoder.pos_conv.0.weight_g"] * v / v.flatten(0, 1).norm(dim=0)
    moved = conv1d(
        x.transpose(1, 2), kernel, w["encoder.pos_conv.0.bias"], padding=v.shape[2] // 2, groups=dim // v.shape[1]
    )
    moved = moved[..., : x.shape[1]]
    x = x + gelu(moved).transpose(1, 2)
    first = config["layer_norm_first"]
    x = x if first else norm(x, "layer_norm")

    def attend(x, at):
        q, k, v = (
            lin(x, f"{at}.self_attn.{n}_proj").unflatten(-1, (heads, -1)).transpose(1, 2) for n in ("q", "k", "v")
        )
        mixed = (q @ k.transpose(2, 3) * (dim // heads) ** -0.5).softmax(dim=-1) @ v
        return lin(mixed.transpose(1, 2).flatten(2), f"{at}.self_attn.out_proj")

    for k in range(config["encoder_layers"] if layer is None else layer):
        at = f"layers.{k}"
        if first:
            x = x + attend(norm(x, f"{at}.self_attn_layer_norm"), at)
            x = x + lin(act(lin(norm(x, f"{at}.final_layer_norm"), f"{at}.fc1")), f"{at}.fc2")
        else:
            x = norm(x + attend(x, at), f"{at}.self_attn_layer_norm")
            x = norm(x + lin(act(lin(x, f"{at}.fc1")), f"{at}.fc2"), f"{at}.final_layer_norm")
    return norm(x, "layer_norm") if first and layer is None else x


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layer_norm_first": False},
        {"encoder_embed_dim": 60, "encoder_attention_heads": 5, "conv_pos": 15, "conv_pos_groups": 3},
        {"modality_fuse": "add", "resnet_relu_type": "relu", "masking_type": "feature", "encoder_layers": 3},
        {"activation_fn": "relu", "final_dim": 16, "untie_final_proj": True, "layer_norm_first": False},
    ],
    ids=lambda changes: " ".join(f"{key}={value}" for key, value in changes.items()) or "small",
)
@torch.inference_mode()
def test_other_shapes_work_as_well(tmp_path, changes):
    config = small(**changes)
    path = saved(tmp_path / "a.pt", config)
    model, _ = loading.load(path)
    weights = read(path)["model"]
    given = {"video": torch.randn(1, 1, 9, 88, 88), "audio": torch.randn(1, 104, 9)}
    fused = model(**given, layer=0)
    for layer in (1, config["encoder_layers"], None):
        expected = reference(weights, config, fused.double(), layer)
        np.testing.assert_allclose(model(**given, layer=layer).numpy(), expected.numpy(), atol=1e-5)
    if not config["layer_norm_first"]:
        assert torch.equal(model(**given), model(**given, layer=config["encoder_layers"]))
    assert AVHubertTeacher("video", str(path)).embed([clip(7)])[0].shape == (7, config["encoder_embed_dim"])


@torch.inference_mode()
def test_both_streams_add_or_stand_side_by_side_and_an_absent_one_is_zero(tmp_path):
    for fuse in ("add", "concat"):
        model, _ = loading.load(saved(tmp_path / "a.pt", small(modality_fuse=fuse)))
        video, audio = torch.randn(2, 1, 5, 88, 88), torch.randn(2, 104, 5)
        sight = model.feature_extractor_video(video).transpose(1, 2)
        sound = model.feature_extractor_audio(audio).transpose(1, 2)
        nothing = torch.zeros_like(sight)
        for given, parts in [
            ({"video": video, "audio": audio}, (sound, sight)),
            ({"video": video}, (nothing, sight)),
            ({"audio": audio}, (sound, nothing)),
        ]:
            x = torch.cat(parts, dim=2) if fuse == "concat" else parts[0] + parts[1]
            expected = model.layer_norm(x)
            if fuse == "concat":
                expected = model.post_extract_proj(expected)
            torch.testing.assert_close(model.fused(**{"video": None, "audio": None, **given}), expected)


@pytest.mark.parametrize("clips", [1, 3])
@torch.inference_mode()
def test_the_front_end_is_a_3d_convolution_whatever_goes_through_at_once(clips):
    torch.manual_seed(1)
    net = ResNet("prelu").eval()
    for norm in (module for module in net.modules() if hasattr(module, "running_mean")):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    frames = FRAMES // clips + 5
    x = torch.randn(clips, 1, frames, 88, 88)
    stem = net.frontend3D(x).transpose(1, 2).flatten(0, 1)
    expected = net.trunk(stem).view(clips, frames, -1).transpose(1, 2)
    torch.testing.assert_close(net(x), expected, atol=1e-4, rtol=1e-4)


class TestTeachers:
    """Every stream: finite rows that depend on their own clip and stream alone."""

    @pytest.fixture(params=["video", "audio", "both"])
    def teacher(self, request, tiny):
        return teachers.load(f"{KINDS[request.param]}:{tiny}")

    def test_rows_for_clips_of_any_lengths(self, teacher):
        lengths = [12, 5, 1, 12, 0]
        clips = [clip(frames, seed) for seed, frames in enumerate(lengths)]
        rows = teacher.embed(clips)
        assert [row.shape for row in rows] == [(frames, 48) for frames in lengths]
        assert all(row.dtype == np.float32 and np.isfinite(row).all() for row in rows)
        for one, row in zip(clips, rows, strict=True):
            np.testing.assert_allclose(teacher.embed([one])[0], row, atol=1e-5)
        assert teacher.embed([]) == []

    def test_a_padded_batch_gives_what_each_clip_gives_alone(self, teacher):
        """As on a GPU, where clips of like lengths share a batch."""
        pieces = [Piece(k, clip(n, seed=k), 0, n, 0, n) for k, n in enumerate((14, 9, 13))]
        with torch.inference_mode():
            together = teacher._forward(pieces, False)
            for piece, rows in zip(pieces, together, strict=True):
                assert len(rows) == piece.num_frames
                np.testing.assert_allclose(rows, teacher._forward([piece], False)[0], atol=2e-5)

    def test_only_its_own_stream_matters(self, teacher):
        one, other = clip(seed=1), clip(seed=2)
        mixed = ClipMedia("mixed", one.audio, other.mouth, one.lips, one.blendshapes, one.flags)
        same_sound = np.allclose(teacher.embed([mixed])[0], teacher.embed([one])[0])
        same_sight = np.allclose(teacher.embed([mixed])[0], teacher.embed([other])[0])
        assert (same_sound, same_sight) == {"audio": (True, False), "video": (False, True), "both": (False, False)}[
            teacher.stream
        ]

    def test_provenance_is_complete(self, teacher, tiny):
        record = teacher.provenance()
        assert record.keys() == {"name", "layer", "source", "sha256", "options", "dim", "licence"}
        assert record["name"] == teacher.name == f"{KINDS[teacher.stream]}:{tiny}"
        assert (record["dim"], record["layer"], len(record["sha256"])) == (48, None, 64)
        assert record["options"]["stream"] == teacher.stream
        assert ("image_mean" in record["options"]) == (teacher.stream != "audio")
        assert ("normalize" in record["options"]) == (teacher.stream != "video")
        json.dumps(record)


def test_layers_differ_and_the_last_has_one_more_norm(tiny):
    given = clip(9)
    rows = [AVHubertTeacher("audio", f"{tiny}{at}").embed([given])[0] for at in ("@0", "@1", "@2", "")]
    for k, one in enumerate(rows):
        assert all(not np.allclose(one, other, atol=1e-3) for other in rows[:k])
    model, _ = loading.load(tiny)
    norm = model.encoder.layer_norm
    np.testing.assert_allclose(norm(torch.from_numpy(rows[2])).numpy(), rows[3], atol=1e-5)


def test_windows_of_long_clips_are_joined_where_both_have_context(tiny):
    teacher = AVHubertTeacher("audio", f"{tiny}@0")  # rows without context: windows must not show at all
    given = clip(WINDOW + 300)
    (rows,) = teacher.embed([given])
    expected = features.sound(given.audio, given.num_frames)
    with torch.inference_mode():
        whole = teacher._model(audio=torch.from_numpy(expected).T[None], layer=0)[0].numpy()
    np.testing.assert_allclose(rows, whole, atol=1e-5)
    assert OVERLAP // 2 >= 64  # what the positional convolution sees on each side


def test_the_sound_of_a_window_is_that_of_the_clip_to_its_last_row(tiny):
    teacher = AVHubertTeacher("audio", str(tiny))
    given = clip(60)
    whole = features.sound(given.audio, 60)
    found = teacher._sound(Piece(0, given, 20, 45, 20, 45))
    np.testing.assert_allclose(found[1:], whole[21:45], atol=1e-5)  # the first sample lacks the one before it
    np.testing.assert_array_equal(teacher._sound(Piece(0, given, 0, 60, 0, 60)), whole)


@pytest.mark.parametrize("size", [88, 96, 112])
def test_larger_crops_are_cut_centrally(tiny, size):
    teacher = AVHubertTeacher("video", str(tiny))
    inner = clip(3, size=88)
    outer = clip(3, seed=9, size=size)
    edge = (size - 88) // 2
    outer.mouth[:, edge : edge + 88, edge : edge + 88] = inner.mouth
    np.testing.assert_array_equal(teacher.embed([outer])[0], teacher.embed([inner])[0])


def test_small_crops_are_errors(tiny):
    with pytest.raises(TeacherError, match=r"clip narrow: mouth crops of 64 x 64 pixels; avhubert:.* needs 88 x 88"):
        AVHubertTeacher("video", str(tiny)).embed([clip(3, size=64, name="narrow")])


def changed(path, change):
    """The checkpoint at `path`, changed and saved beside it."""
    content = torch.load(path, weights_only=True)
    change(content)
    other = path.with_name("changed.pt")
    torch.save(content, other)
    return other


FC1 = "encoder.layers.1.fc1.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["model"].pop(FC1), rf"1 encoder weights missing: '{FC1}'"),
        (lambda c: c["model"].pop("layer_norm.weight"), r"missing: 'layer_norm\.weight'"),
        (
            lambda c: c["model"].pop("feature_extractor_video.resnet.frontend3D.2.weight"),
            r"missing: 'feature_extractor_video\.resnet\.frontend3D\.2\.weight'",
        ),
        (lambda c: c["model"].update(extra=torch.ones(1)), r"1 encoder weights surplus: 'extra'"),
        (
            lambda c: c["model"].update({f"encoder.layers.7.x{k}": torch.ones(1) for k in range(9)}),
            r"9 encoder weights surplus: 'encoder\.layers\.7\.x0', .* and 4 more",
        ),
        (lambda c: c["model"].update({FC1: torch.ones(80, 47)}), rf"'{FC1}' has shape \[80, 47\]; expected \[80, 48\]"),
        (lambda c: c["model"].update({FC1: "text"}), rf"not tensors: '{FC1}'"),
        (lambda c: c["cfg"]["model"].update(encoder_embed_dim=96), "says encoder_embed_dim 96, its weights 48"),
        (lambda c: c["cfg"]["model"].update(encoder_attention_heads=5), "width of 48 cannot be divided among 5"),
        (lambda c: c["cfg"]["model"].update(activation_fn="none such"), "no model can be built.*none such"),
        (lambda c: c["cfg"]["model"].update(sub_encoder_layers=2), "sub_encoder_layers is not supported"),
        (
            lambda c: c.update(model={"a.weight": torch.ones(1)}),
            "not an AV-HuBERT checkpoint: its weights are 'a.weight'",
        ),
        (lambda c: c.pop("model"), "not an AV-HuBERT checkpoint: it has no 'model'"),
    ],
)
def test_what_does_not_fit_is_named(tiny, change, told):
    path = changed(tiny, change)
    with pytest.raises(TeacherError, match=rf"changed\.pt: .*{told}"):
        loading.load(path)


def fine_tuned(path, prefix, beside, w2v_args=True, half=True):
    """A checkpoint whose encoder lies under `prefix`."""

    def change(content):
        cfg = content["cfg"]
        cfg["model"] = {"_name": "fine_tuned", "w2v_args": {"model": cfg["model"], "task": TASK} if w2v_args else None}
        for key, value in list(content["model"].items()):
            floats = half and value.is_floating_point()
            content["model"][prefix + key] = value.half() if floats else value
            del content["model"][key]
        content["model"].update(beside)

    return changed(path, change)


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("encoder.w2v_model.", {"decoder.embed_tokens.weight": torch.ones(4, 48)}),
        ("w2v_encoder.w2v_model.", {"w2v_encoder.proj.weight": torch.ones(4, 48)}),
    ],
)
@torch.inference_mode()
def test_encoders_within_lip_readers_load_in_single_precision(tiny, prefix, beside):
    model, _ = loading.load(fine_tuned(tiny, prefix, beside))
    original, _ = loading.load(tiny)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    given = torch.randn(1, 104, 20)
    torch.testing.assert_close(model(audio=given), original(audio=given), atol=0.02, rtol=0.02)
    with pytest.raises(TeacherError, match=r"AV-HuBERT does not have: 'elsewhere\.weight'"):
        loading.load(fine_tuned(tiny, prefix, {"elsewhere.weight": torch.ones(1)}))


def test_without_configuration_heads_are_known_for_published_widths_alone(tmp_path, caplog):
    wide = saved(tmp_path / "wide.pt", small(encoder_embed_dim=768, encoder_attention_heads=12, conv_pos_groups=16))
    with caplog.at_level(logging.WARNING):
        model, _ = loading.load(fine_tuned(wide, "encoder.w2v_model.", {}, w2v_args=False))
    assert "12 heads and pre-norm are assumed" in caplog.text
    assert model.encoder.layers[0].self_attn.num_heads == 12
    assert model.encoder.layer_norm_first
    narrow = fine_tuned(saved(tmp_path / "narrow.pt", small()), "encoder.w2v_model.", {}, w2v_args=False)
    with pytest.raises(TeacherError, match=r"w2v_args.* is missing.*heads of a model of width 48 cannot be told"):
        loading.load(narrow)


def test_weights_that_features_do_not_need_may_be_absent_or_odd(tiny):
    def change(content):
        model = content["model"]
        for key in [key for key in model if key.endswith("num_batches_tracked")] + ["mask_emb"]:
            del model[key]
        model.update({"label_embs_concat": torch.ones(7, 3), "final_proj.weight": torch.ones(3, 48)})

    model, _ = loading.load(changed(tiny, change))
    original, _ = loading.load(tiny)
    given = torch.randn(1, 104, 20)
    assert torch.equal(model(audio=given), original(audio=given))


def test_settings_of_the_input_come_from_the_file(tiny):
    def change(content):
        content["cfg"]["task"] = {
            "normalize": False,
            "image_mean": 0.5,
            "image_std": 0.25,
            "image_crop_size": 80,
            "other": 1,
        }

    _, found = loading.load(changed(tiny, change))
    assert found == loading.Input(normalize=False, image_crop_size=80, image_mean=0.5, image_std=0.25)
    _, found = loading.load(changed(tiny, lambda content: content["cfg"].pop("task")))
    assert found == loading.Input()


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("", "needs a checkpoint"),
        ("@3", "needs a checkpoint"),
        ("{tiny}@4", r"there is no layer 4; this model has @0 to @2"),
        ("{tiny}@last", "'last' is not a layer"),
        ("/none/such.pt", "/none/such.pt does not exist"),
        ("such.pt", r"no weights 'such\.pt'"),
    ],
)
def test_wrong_arguments_say_what_to_write(tiny, argument, told, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(TeacherError, match=told):
        teachers.load(f"avhubert:{argument.format(tiny=tiny)}")


def test_names_are_looked_up_where_weights_are(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("CONCORD_WEIGHTS", str(tiny.parent))
    monkeypatch.chdir(tmp_path)
    found = teachers.load(f"avhubert:{tiny.name}@1")
    assert (found.layer, found.provenance()["source"]) == (1, str(tiny))
    odd = tmp_path / "a@b" / "c@2"
    odd.parent.mkdir()
    odd.write_bytes(tiny.read_bytes())
    assert teachers.load(f"avhubert:{odd}").layer is None
    assert teachers.load(f"avhubert:{odd}@2").layer == 2


def test_a_url_is_fetched_once_and_kept_under_its_file_name(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetched = []

    def download(url, path, sha256=None):
        fetched.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiny.read_bytes())

    monkeypatch.setattr("teachers.files.weights.download", download)
    url = "https://user@host.example/models/base.pt?download=1"
    for _ in range(2):
        found = teachers.load(f"avhubert-audio:{url}@1")
        assert (found.layer, found.provenance()["source"]) == (1, url)
    assert fetched == [url]
    (kept,) = (tmp_path / "concord-av").glob("*.pt")
    assert kept.name.endswith("-base.pt")  # marked by its address, as a list of checksums does not know it


def test_a_sound_of_other_bands_is_refused_for_sound_alone(tmp_path):
    path = saved(tmp_path / "a.pt", small(audio_feat_dim=80))
    assert AVHubertTeacher("video", str(path)).embed([clip(2)])[0].shape == (2, 48)
    with pytest.raises(TeacherError, match="80 values a row; expected 104"):
        AVHubertTeacher("audio", str(path))


def test_the_package_loads_neither_torch_nor_fairseq_and_fairseq_leaves_logging_alone():
    code = """
import logging, sys
import teachers.avhubert
assert not {"torch", "fairseq"} & set(sys.modules)
from teachers.avhubert import loading
loading.register()
loading.register()
assert "fairseq" in sys.modules
root = logging.getLogger()
print(root.level, root.handlers, root.manager.disable)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["30", "[]", "0"]
    assert found.stderr == ""
