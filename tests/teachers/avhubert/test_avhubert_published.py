"""AV-HuBERT against the published implementation: names, rows of every layer, logits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_avhubert import built, clip

from teachers.avhubert import features, loading
from teachers.avhubert.teacher import AVHubertTeacher
from teachers.files.checkpoint import read

TOLERANCE = {"atol": 3e-5, "rtol": 1e-5}


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
