"""What the loading of AV-HuBERT accepts and refuses: configurations, weights, arguments, places."""

import logging
import subprocess
import sys

import pytest
import torch
from small_avhubert import TASK, clip, saved, small

import teachers
from teachers import TeacherError
from teachers.avhubert import loading
from teachers.avhubert.teacher import AVHubertTeacher


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
