"""The loss of the student: L = w_detection · detection + w_correlation · correlation + w_contrastive · contrastive.

`default` corrects measured defects of the published forms; `paper` keeps them exactly (names begin with `paper_`, equal
to arrays from the authors' code). The differences:

- correlation: the student's cosine becomes a probability through a logistic curve with a learned slope and intercept,
as for the teachers' own scores. With (1 + cosine) / 2 all mismatched pairs of a batch would have to point in opposite
directions. It covers all B x B pairs of a batch (their soft labels cost one product of stored projections), and only
frames with a label (face found, voice active).
- contrastive: the published term pushes a fake's similarity away from the same soft label to which the correlation term
pulls it (the gradients' cosine is -0.996 on fakes), cannot reach 0 on reals, and vanishes as clips get longer. The
default is InfoNCE over frames (van den Oord et al. 2018): each frame of lips must find its own sound among all others
of the batch and the other way round, weighted by the pair's soft label. So lips and sound with different content are
not pulled together, whatever their label.
- detection: binary cross-entropy of the clip's logit, and of each frame's where frames are labelled. The head of `lite` also
sees each window's lips with the sounds of other windows of the batch (crossed), which costs little and changes no encoder.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn import functional as F

from student.config import LossConfig
from student.models import Output

PAPER_MARGIN = 1.0
RANKED = 3.0  # weight of the order of a window and its pseudo-fake beside their own labels (docs/unseen.md)


class Targets(NamedTuple):
    """The targets of a batch of B windows of T frames.

    label f4 [B]: 0 real, 1 fake, -1 no label; label_weight f4 [B]; frame_label f4 [B, T], same values; mask bool [B,
    T]: rows in use; soft f4 [B, B, T]: soft label of lips b with sound c; soft_mask bool [B, B, T]: where it is valid;
    clip i8 [B, 2], start i8 [B, 2]: row of lips and of sound in the clips table, and the window's first frame in each,
    which identify true pairs; lips_rows, sound_rows f4 [B, T, K]: the teachers' own rows of unit length, whose products
    are their agreement per frame (K = 0: there are none), valid where lips_mask, sound_mask bool [B, T].
    drawn u1 [K, T, side, side]: windows for the texture branch, with drawn_mask bool and drawn_forged f4 [K, T], 1 in frames
    that are redrawn, and drawn_of i8 [K], the place of the real window of which a pseudo-fake was made, else -1; None
    without such a branch.
    """

    label: torch.Tensor
    label_weight: torch.Tensor
    frame_label: torch.Tensor
    mask: torch.Tensor
    soft: torch.Tensor
    soft_mask: torch.Tensor
    clip: torch.Tensor
    start: torch.Tensor
    lips_rows: torch.Tensor | None = None
    sound_rows: torch.Tensor | None = None
    lips_mask: torch.Tensor | None = None
    sound_mask: torch.Tensor | None = None
    drawn: torch.Tensor | None = None
    drawn_mask: torch.Tensor | None = None
    drawn_forged: torch.Tensor | None = None
    drawn_of: torch.Tensor | None = None


def total(output: Output, targets: Targets, config: LossConfig) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum, and each term unweighted by name. A term with weight 0 is not computed.

    Every output is included, if only times 0, because distributed processes wait for the gradient of every parameter.
    """
    terms = {}
    if config.preset == "paper":
        own = torch.arange(len(targets.soft), device=targets.soft.device)
        soft, mask = targets.soft[own, own], targets.mask
        labelled = targets.label >= 0
        if config.w_detection:
            logits = torch.stack([torch.zeros_like(output.frame_logits), output.frame_logits], -1)
            terms["detection"] = paper_detection(logits, targets.label, mask & labelled[:, None])
        if config.w_correlation:
            terms["correlation"] = paper_correlation(output.visual, output.audio, soft, mask)
        if config.w_contrastive:
            terms["contrastive"] = paper_contrastive(output.visual, output.audio, soft, targets.label, mask)
    else:
        if config.w_detection:
            terms["detection"] = detection(output, targets)
            if output.crossed is not None:
                terms["crossed"] = crossed(output.crossed, targets)
            if output.drawn is not None:
                terms["texture"] = texture(output, targets)
        if config.w_correlation:
            terms["correlation"] = correlation(output, targets, config.confidence)
        if config.w_contrastive:
            terms["contrastive"] = contrastive(output, targets, config.temperature, config.exclude)
        if config.w_projection:
            terms["projection"] = projection(output, targets)
    weights = {
        "detection": config.w_detection,
        "crossed": config.w_detection,
        "texture": config.w_detection,
        "correlation": config.w_correlation,
        "contrastive": config.w_contrastive,
        "projection": config.w_projection,
    }
    nothing = torch.stack([x.sum() * 0.0 for x in output if x is not None]).sum()
    return sum((weights[name] * value for name, value in terms.items()), nothing), terms


def detection(output: Output, targets: Targets) -> torch.Tensor:
    """Binary cross-entropy of clip logits and, with equal weight, of the labelled frames' logits."""
    known = (targets.label >= 0).float() * targets.label_weight
    clip = F.binary_cross_entropy_with_logits(output.clip_logits, targets.label.clamp(min=0), reduction="none")
    frames = ((targets.frame_label >= 0) & targets.mask).float() * known[:, None]
    each = F.binary_cross_entropy_with_logits(output.frame_logits, targets.frame_label.clamp(min=0), reduction="none")
    return 0.5 * _mean(clip, known) + 0.5 * _mean(each, frames)


def crossed(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Binary cross-entropy of clip logits [R + 1, B] of each window's lips with its own sound and with others of the batch;
    real and mismatched pairs weigh alike. A window's own pair has its label unless that weighs nothing, another sound of the
    same clip none."""
    sound = torch.stack([targets.clip[:, 1].roll(-k) for k in range(len(logits))])
    label = torch.where(sound == targets.clip[:, 0], -1.0, 1.0)
    label[0] = torch.where(targets.label_weight > 0, targets.label, -1.0)
    each = F.binary_cross_entropy_with_logits(logits, label.clamp(min=0), reduction="none")
    return 0.5 * _mean(each, (label == 0).float()) + 0.5 * _mean(each, (label == 1).float())


def texture(output: Output, targets: Targets) -> torch.Tensor:
    """`drawn_right` of the texture branch's logits of windows, whose label is the share of frames that are redrawn."""
    logits, mask, forged, of = output.drawn, targets.drawn_mask, targets.drawn_forged, targets.drawn_of
    assert logits is not None
    assert mask is not None
    assert forged is not None
    assert of is not None
    share = (forged * mask).sum(1) / mask.sum(1).clamp(min=1)
    return drawn_right(logits, share, mask.any(1).float(), of)


def drawn_right(logits: torch.Tensor, share: torch.Tensor, known: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of logits [N, K], N of each window, against its redrawn share [K]; real and redrawn ones weigh
    alike, those with `known` 0 not. And a pseudo-fake must rank above the window `of` [K] (-1: none) that it was made of
    (Burges et al., ICML 2005, RankNet): what the clip looks like, and what the nuisance did to it, is the same in both."""
    redrawn = _mean(F.softplus(-logits).mean(0), known * share)
    real = _mean(F.softplus(logits).mean(0), known * (1 - share))
    ranked = _mean(F.softplus(logits[:, of.clamp(min=0)] - logits).mean(0), known * (of >= 0))
    return 0.5 * redrawn + 0.5 * real + RANKED * ranked


def reliability(soft: torch.Tensor, mask: torch.Tensor, confidence: float) -> torch.Tensor:
    """Weight of each soft label [..., T], 0 to 1: 0 without a face or a voice (`mask`), else the teachers' confidence
    |2 p - 1| to the power of `confidence`. A calibrated label near one half means that they could not decide."""
    weight = mask.float()
    return weight * (2 * soft - 1).abs().pow(confidence) if confidence else weight


def correlation(output: Output, targets: Targets, confidence: float = 0.0) -> torch.Tensor:
    """Cross-entropy of the student's per-frame similarity of every pair [B, B, T] against its soft label, weighted by
    `reliability`; the batch's own pairs weigh as much as all other pairs together."""
    cosine = torch.einsum("btd,ctd->bct", output.visual, output.audio)
    each = F.binary_cross_entropy_with_logits(output.scale * cosine + output.bias, targets.soft, reduction="none")
    weight = reliability(targets.soft, targets.soft_mask, confidence)
    own = torch.eye(len(weight), device=weight.device)[..., None]
    parts = [_mean(each, weight * own)]
    if len(weight) > 1:
        parts.append(_mean(each, weight * (1 - own)))
    return torch.stack(parts).mean()


def contrastive(output: Output, targets: Targets, temperature: float, exclude: int) -> torch.Tensor:
    """InfoNCE over frames, both ways. Anchors are weighted by their pair's soft label; frames of the same clip within
    `exclude` of the anchor's own are not negatives (neighbours have the same content). 0 if no frame is labelled."""
    own = torch.arange(len(targets.label), device=targets.label.device)
    use = targets.soft_mask[own, own]  # [B, T]: lips visible and voice active
    weight = targets.soft[own, own][use]
    if len(weight) < 2:
        return output.visual.sum() * 0.0
    time = torch.arange(use.shape[1], device=use.device)
    place = targets.start[:, :, None] + time  # [B, 2, T] frame within its clip
    lips_clip, sound_clip = (targets.clip[:, side, None].expand(use.shape)[use] for side in (0, 1))
    lips_time, sound_time = (place[:, side][use] for side in (0, 1))
    logits = output.visual[use] @ output.audio[use].T / temperature  # [N, N]; row: lips, column: sound
    near = (lips_clip[:, None] == sound_clip) & ((lips_time[:, None] - sound_time).abs() <= exclude)
    # the same sound or lips may be in a batch twice (a swap and its partner): those are not negatives either
    near |= (sound_clip[:, None] == sound_clip) & ((sound_time[:, None] - sound_time).abs() <= exclude)
    near |= (lips_clip[:, None] == lips_clip) & ((lips_time[:, None] - lips_time).abs() <= exclude)
    near.fill_diagonal_(False)
    logits = logits.masked_fill(near, float("-inf"))
    label = torch.arange(len(weight), device=weight.device)
    both = F.cross_entropy(logits, label, reduction="none") + F.cross_entropy(logits.T, label, reduction="none")
    return _mean(both / 2, weight)


def projection(output: Output, targets: Targets) -> torch.Tensor:
    """1 minus the cosine of each stream's embedding with its teacher's row, laid into the student's space by `lift`;
    mean over the frames with a face and over those with a voice. 0 if the teachers have no rows."""
    parts = []
    for ours, theirs, mask in (
        (output.visual, targets.lips_rows, targets.lips_mask),
        (output.audio, targets.sound_rows, targets.sound_mask),
    ):
        if theirs is None or mask is None or not theirs.shape[-1]:
            return output.visual.sum() * 0.0
        goal = F.normalize(lift(theirs, ours.shape[-1]), dim=-1, eps=1e-6)
        parts.append(_mean(1 - (ours * goal).sum(-1), mask.float()))
    return torch.stack(parts).mean()


def lift(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Rows [..., K] in a space of `width` dimensions: by orthonormal rows of a cosine transform (DCT-IV), so that
    products stay the same and every channel takes part. With K above `width` the products are kept roughly."""
    k = rows.shape[-1]
    size = max(k, width)

    def places(count: int) -> torch.Tensor:
        """`count` of the transform's rows or columns, evenly spaced."""
        return torch.arange(count, device=rows.device) * size // count + 0.5

    matrix = math.sqrt(2 / size) * torch.cos(torch.outer(places(k), places(width)).double() * (math.pi / size))
    return rows @ matrix.to(rows.dtype)


def paper_similarity(visual: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    """c = (1 + cosine) / 2 of rows [B, T, D], clamped to [0, 1] (after rounding it may be outside, which cross-entropy
    refuses)."""
    cosine = (F.normalize(audio, dim=-1) * F.normalize(visual, dim=-1)).sum(-1)
    return ((1 + cosine) / 2).clamp(0, 1)


def paper_detection(logits: torch.Tensor, label: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy of frame logits [B, T, 2] (index 1 = fake) against the clip's label [B] repeated, mean over all frames."""
    target = label.clamp(min=0).long()[:, None].expand(logits.shape[:2])
    each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
    return _mean(each, torch.ones_like(each) if mask is None else mask.float())


def paper_correlation(
    visual: torch.Tensor, audio: torch.Tensor, soft: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of c against the soft label [B, T], mean over all frames of all clips, real and fake alike."""
    each = F.binary_cross_entropy(paper_similarity(visual, audio), soft, reduction="none")
    return _mean(each, torch.ones_like(each) if mask is None else mask.float())


def paper_contrastive(
    visual: torch.Tensor, audio: torch.Tensor, soft: torch.Tensor, label: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """d = norm of (soft - c) over time, e = sigmoid(d); real e², fake max(0, 1 - e)², mean over labelled clips [B]."""
    gap = soft - paper_similarity(visual, audio)
    if mask is not None:
        gap = gap * mask
    e = torch.sigmoid(torch.linalg.vector_norm(gap, dim=1))
    each = torch.where(label == 1, (PAPER_MARGIN - e).clamp(min=0).square(), e.square())
    return _mean(each, (label >= 0).float())


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean; 0 if all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
