"""The network of AV-HuBERT against a plain computation of the same formulas, in shapes that no golden array has."""

import numpy as np
import pytest
import torch
from small_avhubert import clip, saved, small

from teachers.avhubert import loading
from teachers.avhubert.resnet import FRAMES, ResNet
from teachers.avhubert.teacher import AVHubertTeacher
from teachers.files.checkpoint import read


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
