"""The three terms: equal to the published forms on request, and corrected where those have measured defects."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from student.config import ConfigError, LossConfig, TrainConfig
from student.models import Output
from student.training import losses
from student.training.losses import Targets

CASES = (
    "real_b2_t25 fake_b2_t25 mixed_b3_t12 fake_b1_t75 real_b1_t75 fake_b1_t250 real_b1_t1 fake_low_targets_b1_t8"
).split()


def rule_tensor(key: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Weights by the reference's rule: drawn by key, scaled by fan-in; a bias is 0.1 of a normal draw."""
    import zlib

    z = np.random.default_rng([seed, zlib.crc32(key.encode())]).standard_normal(shape)
    z = 0.1 * z if key.endswith("bias") else z / math.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(z.astype(np.float32))


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "losses.npz")


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
def test_paper_forms_equal_the_published_ones(golden, case):
    def get(name):
        return torch.from_numpy(golden[f"case/{case}/{name}"])

    audio, visual = get("embedding_audio").requires_grad_(), get("embedding_visual").requires_grad_()
    soft, label = get("target"), get("labels")[:, 0]
    similarity = losses.paper_similarity(visual, audio)
    torch.testing.assert_close(similarity, get("scaled_cosine"), atol=1e-6, rtol=1e-5)
    terms = {
        "correlation": losses.paper_correlation(visual, audio, soft),
        "contrastive": losses.paper_contrastive(visual, audio, soft, label.float()),
    }
    for name, value in terms.items():
        torch.testing.assert_close(value, get(f"loss_{name}"), atol=1e-6, rtol=1e-5)
        gradients = torch.autograd.grad(value, (audio, visual))
        for side, gradient in zip(("audio", "visual"), gradients, strict=True):
            torch.testing.assert_close(gradient, get(f"grad_{name}_{side}"), atol=1e-6, rtol=1e-3)
    seed = int(golden["rule_seed"])
    weight, bias = (
        rule_tensor(f"lossAV.FC.{leaf}", shape, seed).requires_grad_()
        for leaf, shape in (("weight", (2, 256)), ("bias", (2,)))
    )
    joint = get("av_embedding").requires_grad_()
    detection = losses.paper_detection(F.linear(joint, weight, bias), label.float())
    torch.testing.assert_close(detection, get("loss_detection"), atol=1e-6, rtol=1e-5)
    for part, gradient in zip(
        ("av", "weight", "bias"), torch.autograd.grad(detection, (joint, weight, bias)), strict=True
    ):
        torch.testing.assert_close(gradient, get(f"grad_detection_{part}"), atol=1e-6, rtol=1e-3)
    terms["detection"] = detection
    torch.testing.assert_close(sum(terms.values()), get("loss_total"), atol=1e-5, rtol=0)


def make(b=4, t=30, d=128, seed=0, soft=None, label=None):
    """Random embeddings and targets of matched pairs; every frame labelled."""
    g = torch.Generator().manual_seed(seed)
    v = F.normalize(torch.randn(b, t, d, generator=g), dim=-1).requires_grad_()
    a = F.normalize(torch.randn(b, t, d, generator=g), dim=-1).requires_grad_()
    frame_logits = torch.randn(b, t, generator=g, requires_grad=True)
    scale, bias = torch.tensor(6.0, requires_grad=True), torch.tensor(-2.0, requires_grad=True)
    output = Output(v, a, frame_logits, frame_logits.mean(1), scale, bias)
    label = torch.arange(b).remainder(2).float() if label is None else label
    rows = torch.arange(b)[:, None].expand(b, 2)
    return output, Targets(
        label=label,
        label_weight=torch.ones(b),
        frame_label=label[:, None].expand(b, t).clone(),
        mask=torch.ones(b, t, dtype=torch.bool),
        soft=torch.full((b, b, t), 0.5) if soft is None else soft,
        soft_mask=torch.ones(b, b, t, dtype=torch.bool),
        clip=rows,
        start=torch.zeros(b, 2, dtype=torch.long),
    )


def test_a_sound_of_another_clip_is_no_match_and_one_of_the_same_clip_tells_nothing():
    """Three windows: two of clip 7, of which the second has the sound of clip 8, and one of clip 9."""
    _, targets = make(b=3, label=torch.tensor([0.0, 1.0, -1.0]))
    targets = targets._replace(clip=torch.tensor([[7, 7], [7, 8], [9, 9]]))
    logits = torch.tensor([[-3.0, 4.0, 9.0], [4.0, 4.0, 4.0], [4.0, 99.0, 4.0]], requires_grad=True)
    losses.crossed(logits, targets).backward()
    known = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 1]], dtype=torch.bool)
    assert ((logits.grad != 0) == known).all()
    assert logits.grad[0, 0] > 0  # a real pair
    assert (logits.grad[known][1:] < 0).all()


def test_a_label_without_weight_teaches_the_head_nothing():
    _, targets = make(b=3, label=torch.tensor([0.0, 1.0, 0.0]))
    logits = torch.zeros(1, 3, requires_grad=True)
    losses.crossed(logits, targets._replace(label_weight=torch.tensor([1.0, 1.0, 0.0]))).backward()
    assert (logits.grad != 0).tolist() == [[True, True, False]]


def test_a_weight_of_zero_switches_a_term_off_and_leaves_the_others():
    output, targets = make()
    whole, terms = losses.total(output, targets, LossConfig(w_detection=2.0, w_correlation=0.5, w_contrastive=0.25))
    assert set(terms) == {"detection", "correlation", "contrastive"}
    expected = 2 * terms["detection"] + 0.5 * terms["correlation"] + 0.25 * terms["contrastive"]
    torch.testing.assert_close(whole, expected)
    for off in terms:
        value, left = losses.total(output, targets, LossConfig(**{f"w_{off}": 0.0}))
        assert set(left) == set(terms) - {off}
        assert torch.isfinite(value)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_both_presets_give_finite_gradients(preset):
    output, targets = make()
    value, _ = losses.total(output, targets, LossConfig(preset=preset))
    for gradient in torch.autograd.grad(value, (output.visual, output.audio, output.frame_logits)):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


def test_weights_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="at least one"):
        LossConfig(w_detection=0, w_correlation=0, w_contrastive=0)
    with pytest.raises(ConfigError, match="--losses"):
        LossConfig(preset="papper")


def test_terms_agree_on_a_fake_where_the_published_ones_oppose_each_other():
    """A forged pair whose lips and voice agree (a face swap): the published terms pull its similarity both ways."""
    soft = torch.full((4, 4, 30), 0.05)
    soft[torch.arange(4), torch.arange(4)] = 0.9
    output, targets = make(soft=soft, label=torch.ones(4))
    own = targets.soft[torch.arange(4), torch.arange(4)]

    def cosine(first, second):
        pair = [
            torch.cat([g.flatten() for g in torch.autograd.grad(x, (output.visual, output.audio))])
            for x in (first, second)
        ]
        return float(F.cosine_similarity(*pair, dim=0))

    theirs = cosine(
        losses.paper_correlation(output.visual, output.audio, own),
        losses.paper_contrastive(output.visual, output.audio, own, targets.label),
    )
    ours = cosine(losses.correlation(output, targets), losses.contrastive(output, targets, 0.07, 3))
    assert theirs < -0.99
    assert ours > 0


def test_contrastive_term_does_not_fade_with_length():
    def gradient(t):
        output, targets = make(b=2, t=t)
        term = losses.contrastive(output, targets, 0.07, 3)
        return float(torch.autograd.grad(term, output.visual)[0].norm() * t**0.5)

    assert gradient(250) > 0.5 * gradient(25)


def test_a_pair_that_disagrees_is_not_pulled_together():
    soft = torch.full((4, 4, 30), 0.01)
    output, targets = make(soft=soft)
    soft_one = soft.clone()
    soft_one[0, 0] = 0.95
    pull = torch.autograd.grad(losses.contrastive(output, targets._replace(soft=soft_one), 0.07, 3), output.visual)[0]
    toward = -(pull * output.audio).sum(-1).mean(1).detach()  # positive: moves the lips to their own sound
    assert toward[0] > 5 * toward[1:].abs().max()


def test_the_same_clip_twice_in_a_batch_is_no_negative_of_itself():
    """Row 1 has the sound that belongs to the lips of row 0: the term must not push them apart."""
    output, targets = make(b=2)
    clip = torch.tensor([[0, 5], [1, 0]])
    soft = torch.zeros(2, 2, 30)
    soft[0, 0] = 1.0

    def push(targets):
        gradient = torch.autograd.grad(losses.contrastive(output, targets, 0.07, 0), output.audio)[0][1]
        return float((gradient * output.visual[0]).sum(-1).mean().detach())

    apart = push(targets._replace(clip=torch.tensor([[0, 5], [1, 9]]), soft=soft))
    same = push(targets._replace(clip=clip, soft=soft))
    assert same < 0.5 * apart


def test_masked_frames_and_unlabelled_clips_teach_nothing():
    output, targets = make()
    off = targets._replace(
        label=torch.full((4,), -1.0), label_weight=torch.zeros(4), frame_label=torch.full((4, 30), -1.0),
        soft_mask=torch.zeros(4, 4, 30, dtype=torch.bool),
    )  # fmt: skip
    value, terms = losses.total(output, off, LossConfig())
    assert float(value.detach()) == 0.0
    assert all(float(x.detach()) == 0.0 for x in terms.values())
    mask = targets.soft_mask.clone()
    mask[..., 20:] = False
    cut = targets._replace(soft_mask=mask)
    for term in (losses.correlation(output, cut), losses.contrastive(output, cut, 0.07, 3)):
        gradient = torch.autograd.grad(term, output.visual, retain_graph=True)[0]
        assert gradient[:, 20:].abs().max() == 0


def test_correlation_is_least_where_the_similarity_equals_its_soft_label():
    output, targets = make()
    similarity = torch.sigmoid(
        output.scale * torch.einsum("btd,ctd->bct", output.visual, output.audio) + output.bias
    ).detach()
    best = losses.correlation(output, targets._replace(soft=similarity))
    gradient = torch.autograd.grad(best, output.visual, retain_graph=True)[0]
    assert gradient.abs().max() < 1e-7
    other = losses.correlation(output, targets._replace(soft=(similarity + 0.2).clamp(max=1)))
    assert torch.autograd.grad(other, output.visual)[0].abs().max() > 1e-5


def rows_of_teachers(k, b=4, t=30):
    """Targets with random rows of unit length, no face in the last clip and no voice in the first frames."""
    output, targets = make(b, t)
    lips, sound = F.normalize(torch.randn(2, b, t, k, generator=torch.Generator().manual_seed(9)), dim=-1)
    face, voice = torch.ones(2, b, t, dtype=torch.bool)
    face[-1], voice[:, :5] = False, False
    return output, targets._replace(lips_rows=lips, sound_rows=sound, lips_mask=face, sound_mask=voice)


@pytest.mark.parametrize("k", [6, 64, 128])
def test_lifted_rows_have_the_same_products_and_use_every_channel(k):
    _, targets = rows_of_teachers(k)
    lips, sound = (losses.lift(x, 128) for x in (targets.lips_rows, targets.sound_rows))
    torch.testing.assert_close(
        (lips * sound).sum(-1), (targets.lips_rows * targets.sound_rows).sum(-1), atol=1e-5, rtol=0
    )
    assert (lips.flatten(0, 1).std(0) > 0.01).all()


def test_rows_wider_than_the_student_keep_their_products_roughly():
    _, targets = rows_of_teachers(768)
    close = F.normalize(targets.lips_rows + 0.5 * targets.sound_rows, dim=-1)
    before = (targets.lips_rows * close).sum(-1)
    lifted = (F.normalize(losses.lift(x, 128), dim=-1) for x in (targets.lips_rows, close))
    assert (math.prod(lifted).sum(-1) - before).abs().mean() < 0.1


def test_projection_is_least_where_the_student_agrees_with_its_teachers():
    output, targets = rows_of_teachers(64)
    taught = output._replace(visual=losses.lift(targets.lips_rows, 128), audio=losses.lift(targets.sound_rows, 128))
    assert float(losses.projection(taught, targets)) == pytest.approx(0, abs=1e-5)
    assert float(losses.projection(output, targets).detach()) == pytest.approx(1, abs=0.1)
    value, terms = losses.total(output, targets, LossConfig(w_projection=2.0))
    rest = sum(terms[name] * weight for name, weight in (("detection", 1), ("correlation", 1), ("contrastive", 0.5)))
    torch.testing.assert_close(value, rest + 2 * terms["projection"])


def test_frames_without_face_or_voice_have_no_row_to_learn():
    output, targets = rows_of_teachers(64)
    loss = losses.projection(output, targets)
    visual, audio = torch.autograd.grad(loss, (output.visual, output.audio))
    assert visual[-1].abs().max() == audio[:, :5].abs().max() == 0
    assert visual[0].abs().min(-1).values.max() > 0 < audio[0, 5:].abs().max()
    for k in (0, None):
        none = targets._replace(lips_rows=None if k is None else targets.lips_rows[..., :0])
        assert float(losses.projection(output, none).detach()) == 0


def test_projection_is_no_part_of_the_published_forms_and_goes_with_the_soft_labels():
    with pytest.raises(ConfigError, match="--w-projection"):
        LossConfig(preset="paper", w_projection=1.0)

    def weight(**options):
        return TrainConfig.from_options(store="", output="", **options).losses.w_projection

    assert weight() == weight(losses="default") > 0
    assert weight(losses="paper") == weight(w_correlation=0.0) == 0
    assert weight(w_correlation=0.0, w_projection=0.5) == 0.5


def test_frame_labels_of_a_partial_fake_reach_the_frames():
    output, targets = make()
    frame = torch.zeros(4, 30)
    frame[:, 10:20] = 1
    term = losses.detection(output, targets._replace(frame_label=frame, label=torch.ones(4)))
    only_frames = output._replace(clip_logits=output.clip_logits.detach())
    term = losses.detection(only_frames, targets._replace(frame_label=frame, label=torch.ones(4)))
    gradient = torch.autograd.grad(term, output.frame_logits)[0]
    assert (gradient[:, 10:20] < 0).all()
    assert (gradient[:, :10] > 0).all()


def test_confidence_is_refused_where_it_would_do_nothing():
    with pytest.raises(ValueError, match="--confidence is not part of the published forms"):
        LossConfig(preset="paper", confidence=1.0)


def test_unsure_labels_weigh_less_in_the_correlation_term_and_unseen_frames_nothing():
    soft = torch.tensor([0.0, 0.5, 0.75, 1.0, 1.0])
    mask = torch.tensor([True, True, True, True, False])
    assert losses.reliability(soft, mask, 0.0).tolist() == [1, 1, 1, 1, 0]
    assert losses.reliability(soft, mask, 1.0).tolist() == [1, 0, 0.5, 1, 0]
    assert losses.reliability(soft, mask, 2.0).tolist() == [1, 0, 0.25, 1, 0]


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_a_label_of_one_half_teaches_only_where_all_labels_weigh_the_same(confidence):
    output, targets = make(soft=torch.where(torch.arange(30) < 4, 0.5, 0.9).expand(4, 4, 30))
    visual = output.visual.detach().clone().requires_grad_()
    losses.correlation(output._replace(visual=visual), targets, confidence).backward()
    moved = visual.grad.abs().amax((0, 2))
    assert (moved[:4] > 0).all() == (confidence == 0)
    assert (moved[:4] == 0).all() == (confidence > 0)
    assert (moved[4:] > 0).any()
