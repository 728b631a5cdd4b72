"""The texture branch: what it measures, what it must not see, and how it stands beside agreement."""

import numpy as np
import pytest
import torch

from student.models import build
from student.models.texture import DROPOUTS, MEASURES, Texture, energies, measures
from student.scoring import metrics


def pictures(seed: int = 0, frames: int = 30) -> torch.Tensor:
    """A pattern that moves: u1 [1, frames, 96, 96]."""
    y, x = np.mgrid[:96, :96] / 96
    rng = np.random.default_rng(seed)
    wave = [
        np.sin(20 * x + 0.3 * t) * np.cos(13 * y - 0.2 * t) + 0.1 * rng.standard_normal(x.shape) for t in range(frames)
    ]
    return torch.from_numpy(np.clip(120 + 50 * np.stack(wave), 0, 255).astype(np.uint8))[None]


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool)


def test_a_causal_branch_sees_nothing_that_comes_later():
    torch.manual_seed(0)
    model, x = Texture(8, causal=True).eval(), pictures()
    later = x.clone()
    later[:, 20:] = 0
    with torch.no_grad():
        a, b = model(x, everywhere(x))[0], model(later, everywhere(x))[0]
    assert torch.equal(a[:, :20], b[:, :20])
    assert not torch.equal(a[:, 20:], b[:, 20:])


@pytest.mark.parametrize("causal", [False, True])
def test_frames_outside_the_mask_and_other_clips_do_not_matter(causal):
    x, mask = pictures(), torch.ones(1, 30, dtype=torch.bool)
    mask[:, 20:] = False
    other = x.clone()
    other[:, 20:] = 7
    found = measures(x, mask, causal)
    assert torch.equal(found[:, :20], measures(other, mask, causal)[:, :20])
    both = measures(torch.cat([x, pictures(1)]), torch.cat([mask, mask]), causal)
    torch.testing.assert_close(found[0, :20], both[0, :20])
    short = measures(x[:, :20], mask[:, :20], causal)
    torch.testing.assert_close(found[:, :20], short, atol=1e-4, rtol=1e-4)


def test_light_and_contrast_of_the_camera_hardly_matter():
    x = pictures()
    darker = (x.float() * 0.7 + 20).round().to(torch.uint8)
    gap = (measures(x, everywhere(x)) - measures(darker, everywhere(x))).abs()
    assert gap.mean() < 0.1


def test_a_smoothed_middle_shows_in_the_fine_band_of_the_middle_cell():
    x = pictures()
    soft = x.clone()
    soft[:, :, 34:62, 34:62] = 120  # the edges of the patch lie outside the middle cell
    before, after = (energies(y, everywhere(y))[0][0].mean(0) for y in (x, soft))
    fine = (after[0] / before[0]).reshape(5, 5)
    assert fine[2, 2] < 0.3
    assert (fine.flatten()[[0, 4, 20, 24]] > 0.9).all()


def test_a_constant_picture_has_finite_measures_of_the_stated_number():
    x = torch.full((1, 3, 96, 96), 128, dtype=torch.uint8)
    found = measures(x, everywhere(x))
    assert found.shape == (1, 3, MEASURES)
    assert torch.isfinite(found).all()
    assert torch.isfinite(measures(x, torch.zeros(1, 3, dtype=torch.bool))).all()


def test_training_sees_the_mean_of_a_window_and_an_answer_the_mean_of_its_frames():
    torch.manual_seed(0)
    model, x = Texture(8).eval(), pictures(frames=25)
    still = x[:, :1].repeat(1, 25, 1, 1)
    still[:, :, 0, 0] = 0  # of a picture that stands still all frames measure alike
    mask = everywhere(x).clone()
    mask[:, 20:] = False
    with torch.no_grad():
        torch.testing.assert_close(model.taught(still, mask), model(still, mask)[1].expand(DROPOUTS, 1))
        frames, clip = model(x, mask)
        torch.testing.assert_close(clip, frames[:, :20].mean(1))
        expected = model.head(measures(x, mask)[:, :20].mean(1))[:, 0]
        torch.testing.assert_close(model.taught(x, mask), expected.expand(DROPOUTS, 1))


def test_each_answer_that_training_sees_has_a_dropout_of_its_own():
    torch.manual_seed(0)
    found = Texture(8).train().of_means(torch.randn(3, MEASURES))
    assert found.shape == (DROPOUTS, 3)
    assert len(found[:, 0].unique()) > 1


def test_lite_adds_its_branches_by_their_weights():
    torch.manual_seed(0)
    model = build("lite", texture=8).eval()
    sound = torch.randint(-900, 900, (1, 640 * 30)).short()
    model.fusion.copy_(torch.tensor([2.0, 0.5]))
    with torch.no_grad():
        found = model(pictures(), sound)
        apart = model(pictures(), sound, None, (pictures()[..., 4:92, 4:92], everywhere(pictures())))
    torch.testing.assert_close(found.clip_logits, found.parts @ model.fusion)
    torch.testing.assert_close(apart.clip_logits, found.parts[:, 0])  # in training the branches answer apart
    assert apart.drawn is not None
    assert apart.drawn.shape == (DROPOUTS, 1)
    assert apart.parts is None
    assert sum(p.numel() for p in build("lite", texture=32).parameters()) < 1_500_000


def test_weights_of_branches_follow_what_tells_the_classes_apart():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    useful, noise = rng.normal(3.0 * labels, 2), rng.normal(0, 9, 400)
    fitted = metrics.fit_weights(np.stack([useful, noise], 1), labels)
    assert fitted[0] * 2 > 3 * fitted[1] * 9
    assert (fitted >= 0).all()
    harmful = metrics.fit_weights(np.stack([useful, -useful], 1), labels)
    assert harmful[1] < 0.5 * harmful[0]
    equal = metrics.equal_weights(np.stack([useful, noise], 1), labels)
    np.testing.assert_allclose(equal, 1 / np.array([useful[:200].std(), noise[:200].std()]))
    assert np.array_equal(metrics.fit_weights(np.stack([useful, noise], 1), 0 * labels).shape, (2,))


def test_measures_keep_full_precision_under_autocast():
    torch.manual_seed(0)
    model, x = Texture(8).eval(), pictures()
    seen = []
    model.head[0].register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(x, everywhere(x))
    assert torch.equal(seen[0], measures(x, everywhere(x)))
