"""The `lite` student: small, a frame depends on its neighbourhood alone, and decisions rest on agreement alone."""

import pytest
import torch

from student.models import build
from student.models.lite import CROP, CROSSED
from student.models.lite_layers import HOP, LogMel


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build("lite").eval()


def clip(frames, seed=0, batch=1, side=96):
    g = torch.Generator().manual_seed(seed)
    mouth = torch.randint(0, 256, (batch, frames, side, side), generator=g, dtype=torch.uint8)
    audio = torch.randint(-8000, 8000, (batch, 640 * frames), generator=g, dtype=torch.int16)
    return mouth, audio


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_it_is_small(model):
    assert sum(p.numel() for p in model.parameters()) <= 1_500_000


def test_shapes_and_unit_rows(model):
    with torch.no_grad():
        out = model(*clip(12, batch=2))
    assert out.visual.shape == out.audio.shape == (2, 12, 128)
    assert out.frame_logits.shape == (2, 12)
    assert out.clip_logits.shape == (2,)
    close(out.visual.norm(dim=-1), torch.ones(2, 12))
    close(out.audio.norm(dim=-1), torch.ones(2, 12))
    assert all(x.dtype == torch.float32 for x in out if x is not None)


@torch.no_grad()
def test_padding_and_the_rest_of_the_batch_change_nothing(model):
    """What lies outside the mask, and which clips share the batch, must not reach a clip."""
    mouth, audio = clip(20)
    alone = model(mouth, audio)
    other_mouth, other_audio = clip(35, seed=1, batch=2)
    for filler in (0, 200):
        padded, sound = other_mouth.clone(), other_audio.clone()
        padded[0], sound[0] = filler, filler
        padded[0, :20], sound[0, : 640 * 20] = mouth[0], audio[0]
        mask = torch.ones(2, 35, dtype=torch.bool)
        mask[0, 20:] = False
        beside = model(padded, sound, mask)
        close(beside.frame_logits[0, :20], alone.frame_logits[0])
        close(beside.clip_logits[0], alone.clip_logits[0])
        close(beside.visual[0, :20], alone.visual[0])
        close(beside.audio[0, :20], alone.audio[0])


@torch.no_grad()
def test_a_frame_does_not_know_how_long_its_clip_is(model):
    """The first frames are the same whether the clip goes on for 60 or for 90 frames."""
    mouth, audio = clip(90)
    long, short = model(mouth, audio), model(mouth[:, :60], audio[:, : 640 * 60])
    reach = model.config.reach + 2 * model.config.temporal_layers + model.config.offsets + 4 + 3
    close(short.frame_logits[:, : 60 - reach], long.frame_logits[:, : 60 - reach])


@torch.no_grad()
def test_modalities_are_embedded_apart(model):
    mouth, audio = clip(15)
    other_mouth, other_audio = clip(15, seed=1)
    a, b, c = model(mouth, audio), model(mouth, other_audio), model(other_mouth, audio)
    assert torch.equal(a.visual, b.visual)
    assert torch.equal(a.audio, c.audio)
    assert not torch.allclose(a.audio, b.audio)


@torch.no_grad()
def test_the_decision_sees_agreement_alone(model):
    """Turning both embeddings by the same rotation within a group changes no cosine, so the frame logits stay."""
    mask = torch.ones(1, 30, dtype=torch.bool)
    v, a = (torch.nn.functional.normalize(torch.randn(1, 30, 128), dim=-1) for _ in range(2))
    size = 128 // model.config.groups
    turn = torch.block_diag(*(torch.linalg.qr(torch.randn(size, size))[0] for _ in range(model.config.groups)))
    close(model.head(v, a, mask)[0], model.head(v @ turn, a @ turn, mask)[0])


@torch.no_grad()
def test_light_and_face_that_stay_say_nothing(model):
    """Brightness and contrast of the whole clip leave the visual embedding as it was."""
    mouth, audio = clip(15)
    mouth = mouth // 2 + 30
    darker = (mouth.float() * 0.8 - 10).round().clamp(0, 255).to(torch.uint8)
    cosine = (model(mouth, audio).visual * model(darker, audio).visual).sum(-1)
    assert cosine.min() > 0.98


@torch.no_grad()
def test_the_picture_side_sees_motion(model):
    """A frame's embedding differs when only its neighbours differ."""
    mouth, audio = clip(15)
    moved = mouth.clone()
    moved[:, 6] = moved[:, 8]
    assert (model(mouth, audio).visual[:, 7] - model(moved, audio).visual[:, 7]).abs().max() > 1e-3


@torch.no_grad()
def test_evaluation_takes_the_centre_of_the_crop(model):
    mouth, audio = clip(5)
    side = (96 - CROP) // 2
    centre = mouth[:, :, side : side + CROP, side : side + CROP]
    assert torch.equal(model(mouth, audio).visual, model(centre, audio).visual)


@torch.no_grad()
def test_log_mel_rows_lie_on_the_frame_clock():
    """A click in the middle of 10 ms row m is loudest there, and a tone excites the band around it."""
    mel = LogMel(64)
    audio = torch.zeros(1, 6400, dtype=torch.int16)
    row = 17
    audio[0, row * HOP + HOP // 2] = 20_000
    energy = mel(audio, torch.ones(1, 10, dtype=torch.bool)).sum(-1)[0]
    assert energy.shape == (40,)
    assert int(energy.argmax()) == row
    t = torch.arange(6400) / 16_000
    bands = [
        int(
            mel((9000 * torch.sin(2 * torch.pi * f * t)).to(torch.int16)[None], torch.ones(1, 10, dtype=torch.bool))[
                0, 20
            ].argmax()
        )
        for f in (200, 800, 3000, 7000)
    ]
    assert bands == sorted(bands)
    assert bands[0] < 10
    assert bands[-1] > 55


def test_silence_and_flat_pictures_give_finite_numbers_and_gradients(model):
    mouth, audio = torch.full((1, 10, 96, 96), 7, dtype=torch.uint8), torch.zeros(1, 6400, dtype=torch.int16)
    out = model(mouth, audio)
    (out.clip_logits.sum() + out.visual.sum() + out.audio.sum()).backward()
    assert torch.isfinite(out.frame_logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()


def test_unknown_models_and_options_are_refused():
    with pytest.raises(ValueError, match="unknown model heavy"):
        build("heavy")
    with pytest.raises(ValueError, match="colour"):
        build("lite", colour=3)


@torch.no_grad()
def test_causal_frames_are_final_once_they_are_there():
    """Cut anywhere, the frames so far have the same embeddings and logits as in the whole clip; later frames do change it."""
    torch.manual_seed(1)
    model = build("lite-causal").eval()
    mouth, audio = clip(40, batch=2)
    whole = model(mouth, audio)
    for stop in (1, 2, 9, 25, 39):
        part = model(mouth[:, :stop], audio[:, : 640 * stop])
        for name in ("visual", "audio", "frame_logits"):
            close(getattr(part, name), getattr(whole, name)[:, :stop])
    again = model(mouth.flip(1), audio)
    assert not torch.allclose(again.frame_logits, whole.frame_logits, atol=1e-4)
    assert [p.shape for p in model.parameters()] == [p.shape for p in build("lite").parameters()]


@torch.no_grad()
def test_causal_hears_and_sees_both_orders():
    """Sound that comes before its lips and sound that comes after both reach the head, up to seven frames."""
    torch.manual_seed(1)
    model = build("lite-causal").eval()
    v, a = (torch.nn.functional.normalize(torch.randn(1, 30, 128), dim=-1) for _ in range(2))
    mask = torch.ones(1, 30, dtype=torch.bool)
    still = model.head(v, a, mask)[0][0]
    for side in (0, 1):
        pair = [v.clone(), a.clone()]
        pair[side][0, 12] = pair[side][0, 12].flip(-1)
        moved = (model.head(*pair, mask)[0][0] - still).abs() > 1e-6
        assert not moved[:12].any()
        assert moved[12]
        assert moved[12 : 12 + 8].sum() >= 7


def test_mel_bands_are_means_of_their_bins():
    """Equal area: noise that is as loud in every bin is as loud in every band."""
    torch.testing.assert_close(LogMel(64).mel.sum(0), torch.ones(64))


def test_in_training_the_head_alone_learns_from_the_other_sounds_of_a_batch():
    torch.manual_seed(0)
    student = build("lite").train()
    crossed = student(*clip(20, batch=6)).crossed
    assert crossed.shape == (CROSSED + 1, 6)
    crossed.sum().backward()
    assert {name.partition(".")[0] for name, p in student.named_parameters() if p.grad is not None} == {"head"}
    assert student(*clip(20, batch=1)).crossed.shape == (1, 1)
    assert student.eval()(*clip(20, batch=6)).crossed is None


@torch.no_grad()
def test_crossed_logits_are_those_of_the_pairs():
    student = build("lite", dropout=0.0).train()
    mouth, audio = clip(20, batch=3)
    found = student(mouth, audio)
    assert found.crossed.shape == (3, 3)
    close(found.crossed[0], found.clip_logits)
    close(found.crossed[2], student(mouth, audio.roll(-2, 0)).clip_logits)
