"""The paper's teacher pair: equal to the published networks, strict about its files, one row a frame whatever stands beside."""

import json
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
import rule_weights
import torch

import teachers
from teachers import ClipMedia, TeacherError, windows
from teachers.deep_avsr import CHARACTERS, prepare, transformer
from teachers.deep_avsr import teacher as module
from teachers.deep_avsr.transformer import AudioNet, VideoNet
from teachers.deep_avsr.visual_frontend import VisualFrontend, normalised, stacked

NETWORKS = {
    "audio_only": (AudioNet, "ASRmodel."),
    "video_only": (VideoNet, "VSRmodel."),
    "visual_frontend": (VisualFrontend, "visual_frontend."),
}
POSTERIOR = 2e-5  # absolute, of log posteriors between machines
FORWARD = 1e-5  # of an array's largest value


def clip(frames=20, seed=0, side=96, name="clip"):
    rng = np.random.default_rng(seed)
    return ClipMedia(
        id=name,
        audio=rng.normal(0, 3000, 640 * frames).astype(np.int16),
        mouth=rng.integers(0, 256, (frames, side, side), np.uint8),
        lips=np.zeros((frames, 40, 2), np.float32),
        blendshapes=np.zeros((frames, 52), np.float32),
        flags=np.full(frames, 0b11101, np.uint8),
    )


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def names_only(network):
    """A state dict of the network's keys in which no shape but that of scalars fits."""
    return {key: torch.zeros(()) for key in network.state_dict()}


@pytest.fixture(scope="module")
def networks():
    """The three networks with the rule's weights."""
    return {name: rule_weights.fill(kind(), prefix) for name, (kind, prefix) in NETWORKS.items()}


@pytest.fixture
def golden(shared):
    with np.load(shared / "golden" / "deep_avsr.npz") as file:
        yield file


@pytest.fixture
def student(shared):
    with np.load(shared / "golden" / "student.npz") as file:
        yield file


@contextmanager
def one_layer():
    """Networks made within have one layer in encoder and in decoder: their files are small, all else is as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer, "LAYERS", 1)
        yield


@pytest.fixture(scope="module")
def small():
    """States of networks of one layer."""
    with one_layer():
        return {name: rule_weights.state(kind(), prefix) for name, (kind, prefix) in NETWORKS.items()}


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """The small networks in the files in which they come."""
    folder = tmp_path_factory.mktemp("deep_avsr")
    states = {name: prefixed(state, NETWORKS[name][1]) for name, state in small.items()}
    legacy = {"_use_new_zipfile_serialization": False}  # as torch 1.2 wrote, with which deep_avsr was trained
    torch.save(small["audio_only"], folder / "audio.pt", **legacy)
    torch.save(small["video_only"], folder / "video.pt", **legacy)
    torch.save(small["visual_frontend"], folder / "bare.pt")
    rest = {"model.visualFrontend.frontend3D.0.weight": torch.ones(2), "lossAV.FC.bias": torch.ones(2)}
    torch.save({**rest, **states["audio_only"], **states["video_only"]}, folder / "detector.model")
    torch.save({**small["video_only"], **states["visual_frontend"]}, folder / "both.pt")
    torch.save(states["visual_frontend"], folder / "frontend.pt")
    return folder


@pytest.fixture(scope="module")
def pair(folder):
    """(audio, video) teachers with small networks."""
    with one_layer():
        return teachers.load(f"deep_avsr-audio:{folder}/audio.pt"), teachers.load(f"deep_avsr-video:{folder}/both.pt")


@pytest.mark.golden
class TestGolden:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_keys_shapes_and_rule_weights(self, shared, networks, name):
        listed = json.loads((shared / "golden" / "deep_avsr_keys.json").read_text())
        state = networks[name].state_dict()
        assert {key: list(value.shape) for key, value in state.items()} == {
            key: entry["shape"] for key, entry in listed[name].items()
        }
        assert sum(p.numel() for p in networks[name].parameters()) == listed["parameters"][name]
        for key, entry in listed[name].items():
            assert str(state[key].dtype) == f"torch.{entry['dtype']}"
            if "rule_sum" in entry:
                assert float(state[key].double().sum()) == pytest.approx(entry["rule_sum"], rel=1e-9, abs=1e-9)

    def test_characters(self, shared):
        listed = json.loads((shared / "golden" / "deep_avsr_keys.json").read_text())["char_to_index"]
        assert {name: i for i, name in enumerate(CHARACTERS)} == listed

    @pytest.mark.parametrize(
        ("name", "given", "side"), [("audio_only", "in/stft", "audio"), ("video_only", "in/lip_features", "video")]
    )
    @torch.inference_mode()
    def test_outputs_and_layers(self, networks, golden, name, given, side):
        net, seen = networks[name], {}
        encoder, decoder = getattr(net, f"{side}Encoder"), getattr(net, f"{side}Decoder")
        stages = {"pe": net.positionalEncoding, "layer1": encoder.layers[0], "encoder": encoder, "decoder": decoder}
        hooks = [
            stage.register_forward_hook(lambda _, __, out, at=at: seen.update({at: out}))
            for at, stage in stages.items()
        ]
        log_probs = net(torch.from_numpy(golden[given].transpose(1, 0, 2)))
        for hook in hooks:
            hook.remove()
        for at, found in seen.items():
            expected = golden[f"out/{side}_after_{at}"].transpose(1, 0, 2)
            np.testing.assert_allclose(found, expected, atol=FORWARD * np.abs(expected).max(), err_msg=at)
        expected = golden[f"out/{side}_log_posteriors"].transpose(1, 0, 2)
        np.testing.assert_allclose(log_probs, expected, atol=POSTERIOR)

    @torch.inference_mode()
    def test_odd_lengths(self, networks, golden):
        sound = torch.from_numpy(golden["in/stft"][:43, :1].transpose(1, 0, 2))
        expected = golden["odd/stft_43_frames_to_log_posteriors"].transpose(1, 0, 2)
        np.testing.assert_allclose(networks["audio_only"](sound), expected, atol=POSTERIOR)
        rows = torch.from_numpy(golden["in/lip_features"][:7, :1].transpose(1, 0, 2))
        expected = golden["odd/video_7_frames_to_log_posteriors"].transpose(1, 0, 2)
        np.testing.assert_allclose(networks["video_only"](rows), expected, atol=POSTERIOR)

    @torch.inference_mode()
    def test_sound_as_published(self, networks, golden, student):
        found = prepare.spectra(student["preprocess/wav0_int16"], 0, 25)
        assert found.shape == (100, 321)
        np.testing.assert_allclose(found[1:98], golden["prepare/wav0_padded_stft_nonzero_rows"], atol=1e-6)
        assert not found[[0, 98, 99]].any()
        padding = (int(golden["prepare/total_rows"]) - 100) // 2  # what deep_avsr adds on each side and we leave out
        assert padding + prepare.LEAD == golden["prepare/first_nonzero_row"]
        log_probs = networks["audio_only"](torch.from_numpy(np.pad(found, ((padding, padding), (0, 0))))[None])
        np.testing.assert_allclose(log_probs, golden["prepare/log_posteriors"].transpose(1, 0, 2), atol=POSTERIOR)
        longer = prepare.spectra(student["preprocess/wav1_int16"], 0, 25)
        np.testing.assert_allclose(longer[1:], student["preprocess/stft1"][:99], atol=1e-6)

    @torch.inference_mode()
    def test_visual_front_end_from_faces(self, networks, golden, student):
        net, means = networks["visual_frontend"], {}
        hooks = [
            getattr(net.resnet, f"layer{k}").register_forward_hook(
                lambda _, __, out, k=k: means.setdefault(k, []).append(out.mean(dim=(2, 3)))
            )
            for k in (1, 2, 3, 4)
        ]
        rows = [net(stacked(normalised(torch.from_numpy(faces)))) for faces in student["in/faces_uint8"]]
        for hook in hooks:
            hook.remove()
        expected = golden["in/lip_features"]
        np.testing.assert_allclose(torch.stack(rows, dim=1), expected, atol=FORWARD * expected.max())
        for k, parts in means.items():
            expected = golden[f"visual_frontend/clip0_layer{k}_spatial_mean"]
            np.testing.assert_allclose(torch.cat(parts)[:25], expected, atol=FORWARD * np.abs(expected).max())

    def test_from_files_to_rows(self, networks, golden, student, tmp_path):
        whole = {
            key: value
            for name, (_, prefix) in NETWORKS.items()
            if name != "audio_only"
            for key, value in prefixed(networks[name].state_dict(), prefix).items()
        }
        torch.save(whole, tmp_path / "pair.pt")
        video = teachers.load(f"deep_avsr-video:{tmp_path}/pair.pt")
        faces = student["in/faces_uint8"]
        clips = [clip(25, side=112), clip(25, side=112)]
        for one, pictures in zip(clips, faces, strict=True):
            one.mouth[:] = pictures
        np.testing.assert_allclose(
            np.stack(video.embed(clips), axis=1), golden["out/video_log_posteriors"], atol=POSTERIOR
        )


@pytest.mark.parametrize("which", [0, 1], ids=["audio", "video"])
class TestContract:
    def test_log_posteriors_for_clips_of_any_lengths(self, pair, which):
        lengths = [20, 1, 33, 20]
        clips = [clip(frames, seed) for seed, frames in enumerate(lengths)]
        rows = pair[which].embed(clips)
        assert [row.shape for row in rows] == [(frames, 40) for frames in lengths]
        for one, row in zip(clips, rows, strict=True):
            assert row.dtype == np.float32
            np.testing.assert_allclose(np.exp(row.astype(np.float64)).sum(axis=1), 1, atol=1e-5)
            np.testing.assert_array_equal(pair[which].embed([one])[0], row)
        assert pair[which].embed([clip(0)])[0].shape == (0, 40)

    def test_padding_changes_no_row(self, pair, which):
        pieces = [windows.cut(0, clip(frames, frames), 100, 0)[0] for frames in (33, 20, 7, 1)]
        with torch.inference_mode():
            together = pair[which]._forward(pieces, False)
            for piece, rows in zip(pieces, together, strict=True):
                (alone,) = pair[which]._forward([piece], False)
                np.testing.assert_allclose(rows, alone, rtol=1e-4, atol=1e-4)

    def test_windows_of_a_long_clip(self, pair, which, monkeypatch):
        given = clip(60)
        teacher = pair[which]
        (piece,) = windows.cut(0, given, 60, 0)
        with torch.inference_mode():
            whole = teacher._input(piece)
            rows = len(whole) // 60
            for part in windows.cut(0, given, 24, 8):
                seen = teacher._input(part)
                np.testing.assert_allclose(seen, whole[part.start * rows : part.stop * rows], atol=1e-5)
        monkeypatch.setattr(module, "WINDOW", 24)
        monkeypatch.setattr(module, "OVERLAP", 8)
        (found,) = teacher.embed([given])
        assert found.shape == (60, 40)
        assert np.isfinite(found).all()

    def test_evaluation_mode_without_gradients(self, pair, which):
        networks = [value for value in vars(pair[which]).values() if isinstance(value, torch.nn.Module)]
        assert len(networks) == which + 1
        for network in networks:
            assert not any(part.training for part in network.modules())
            assert not any(p.requires_grad for p in network.parameters())

    def test_provenance_is_complete_and_fit_for_json(self, pair, which):
        record = pair[which].provenance()
        assert record.keys() == {"name", "layer", "source", "sha256", "options", "dim", "licence"}
        assert record["name"] == pair[which].name
        assert "natural logarithm" in record["options"]["rows"]
        assert len(record["sha256"]) == 64
        assert json.loads(json.dumps(record)) == record


def test_silence_has_finite_rows(pair):
    silent = clip(10)
    silent.audio[:] = 0
    assert np.isfinite(pair[0].embed([silent])[0]).all()
    assert not prepare.spectra(silent.audio, 0, 10).any()


def test_spectra_do_not_depend_on_the_level():
    quiet = clip(10).audio // 300
    np.testing.assert_allclose(prepare.spectra(quiet * 20, 0, 10), prepare.spectra(quiet, 0, 10), atol=1e-6)


def test_a_click_shows_in_the_frames_around_it():
    audio = np.zeros(640 * 20, np.int16)
    audio[640 * 9 + 320] = 20_000  # the middle of frame 9
    rows = prepare.spectra(audio, 0, 20).max(axis=1)
    assert np.flatnonzero(rows > 1e-9).tolist() == [36, 37, 38, 39]  # its four rows, and no others


def test_pictures_are_enlarged_bilinearly_or_their_centre_is_taken():
    import cv2

    small = clip(2, side=96).mouth
    expected = np.stack([cv2.resize(x.astype(np.float32), (112, 112), interpolation=cv2.INTER_LINEAR) for x in small])
    np.testing.assert_allclose(prepare.pictures(small), expected, atol=5e-3)
    exact = clip(2, side=112).mouth
    np.testing.assert_array_equal(prepare.pictures(exact), exact)
    large = clip(1, side=224).mouth
    np.testing.assert_array_equal(prepare.pictures(large), large[:, 56:168, 56:168])


def test_the_front_end_never_mixes_clips_and_may_go_in_parts(networks, monkeypatch):
    net = networks["visual_frontend"]
    first, second = (stacked(normalised(torch.from_numpy(clip(9, seed, 112).mouth))) for seed in (1, 2))
    conv = net.frontend3D[0].weight
    with torch.inference_mode():
        (volume,) = torch.nn.functional.conv3d(
            first[None, None, :, 2], conv, stride=(1, 2, 2), padding=(2, 3, 3)
        )  # the published form, of one clip
        plane = torch.nn.functional.conv2d(first, conv[:, 0], stride=2, padding=3)
        np.testing.assert_allclose(plane, volume.transpose(0, 1), atol=1e-4)
        alone = torch.cat([net(first), net(second)])
        monkeypatch.setattr(net, "part", 4)  # of 18 frames
        np.testing.assert_allclose(net(torch.cat([first, second])), alone, atol=1e-4)


class TestFiles:
    @pytest.fixture(autouse=True)
    def small_networks(self):
        with one_layer():
            yield

    @pytest.mark.parametrize("file", ["audio.pt", "detector.model"])
    def test_sound_from_own_file_and_from_the_detector(self, pair, folder, file):
        teacher = teachers.load(f"deep_avsr-audio:{folder}/{file}")
        np.testing.assert_array_equal(teacher.embed([clip()])[0], pair[0].embed([clip()])[0])

    @pytest.mark.parametrize(
        "files", [("video.pt", "frontend.pt"), ("detector.model", "bare.pt"), ("both.pt", "frontend.pt")]
    )
    def test_picture_from_two_files(self, pair, folder, files):
        teacher = teachers.load("deep_avsr-video:" + ",".join(f"{folder}/{file}" for file in files))
        np.testing.assert_array_equal(teacher.embed([clip()])[0], pair[1].embed([clip()])[0])
        assert len(teacher.provenance()["options"]["visual_frontend"]["sha256"]) == 64

    def test_a_path_with_a_comma_and_a_name_among_the_weights(self, pair, folder, tmp_path, monkeypatch):
        (tmp_path / "a,b.pt").symlink_to(folder / "both.pt")
        (tmp_path / "sound.pt").symlink_to(folder / "audio.pt")
        monkeypatch.setenv("CONCORD_WEIGHTS", str(tmp_path))
        monkeypatch.chdir(folder)
        for name, known in [(f"deep_avsr-video:{tmp_path}/a,b.pt", pair[1]), ("deep_avsr-audio:sound.pt", pair[0])]:
            np.testing.assert_array_equal(teachers.load(name).embed([clip()])[0], known.embed([clip()])[0])

    def test_a_front_end_that_is_nowhere(self, folder):
        with pytest.raises(TeacherError, match=r"video.pt has no visual front end .*deep_avsr-video:.*video.pt,visual"):
            teachers.load(f"deep_avsr-video:{folder}/video.pt")

    @pytest.mark.parametrize(("name", "kind"), [("deep_avsr-audio", "audio_only"), ("deep_avsr-video", "video_only")])
    def test_missing_and_surplus_keys_are_named(self, tmp_path, name, kind):
        network, prefix = NETWORKS[kind]
        state = names_only(network())
        del state["outputConv.bias"]
        state["outputConv.extra"] = torch.zeros(1)
        torch.save(state, tmp_path / "bare.pt")
        with pytest.raises(TeacherError, match=r"lacks outputConv.bias; unknown are outputConv.extra") as caught:
            teachers.load(f"{name}:{tmp_path}/bare.pt")
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        torch.save(prefixed(state, prefix), tmp_path / "prefixed.pt")
        with pytest.raises(TeacherError, match=rf"lacks {prefix}outputConv.bias; unknown are {prefix}outputConv.extra"):
            teachers.load(f"{name}:{tmp_path}/prefixed.pt")

    def test_a_key_that_belongs_to_nobody_is_named(self, small, folder, tmp_path):
        state = prefixed(small["audio_only"], "ASRmodel.")
        torch.save({**state, "module.outputConv.bias": torch.zeros(40)}, tmp_path / "more.pt")
        with pytest.raises(TeacherError, match=r"more.pt holds keys .* module.outputConv.bias"):
            teachers.load(f"deep_avsr-audio:{tmp_path}/more.pt")
        front = prefixed(small["visual_frontend"], "visual_frontend.")
        torch.save({**front, "other": torch.zeros(1)}, tmp_path / "front.pt")
        with pytest.raises(TeacherError, match=r"front.pt holds keys .* other"):
            teachers.load(f"deep_avsr-video:{folder}/video.pt,{tmp_path}/front.pt")

    def test_a_file_of_the_other_network(self, folder):
        with pytest.raises(
            TeacherError, match=r"audio-only network .* lacks audioConv.weight, .* more; unknown are video"
        ):
            teachers.load(f"deep_avsr-audio:{folder}/video.pt")

    def test_another_shape_is_named(self, tmp_path):
        torch.save(names_only(AudioNet()), tmp_path / "x.pt")
        with pytest.raises(TeacherError, match=r"audioConv.weight has the shape \(\); .* has \(512, 321, 4\)"):
            teachers.load(f"deep_avsr-audio:{tmp_path}/x.pt")

    def test_what_is_no_state_dict(self, tmp_path):
        torch.save({"epoch": 3}, tmp_path / "x.pt")
        with pytest.raises(
            TeacherError, match=r"x.pt is not a state dict of deep_avsr: its 'epoch' is not a tensor but of type int"
        ):
            teachers.load(f"deep_avsr-audio:{tmp_path}/x.pt")
        (tmp_path / "junk.pt").write_bytes(b"junk")
        with pytest.raises(TeacherError, match=r"junk.pt is not a PyTorch checkpoint"):
            teachers.load(f"deep_avsr-audio:{tmp_path}/junk.pt")

    @pytest.mark.parametrize("name", ["deep_avsr-audio", "deep_avsr-video"])
    def test_no_file(self, name, tmp_path):
        with pytest.raises(TeacherError, match=f"{name} needs a file of weights"):
            teachers.load(name)
        with pytest.raises(TeacherError, match=r"absent\.pt does not exist"):
            teachers.load(f"{name}:{tmp_path}/absent.pt")
