"""AV-HuBERT as a model of fairseq: its registries and config classes build it, and its wav2vec 2.0 encoder is the body.

Written from the architecture and checked against golden values, with the names and shapes of published state dicts.
Inference only: masking, dropout and the pretraining loss are left out; `mask_emb`, `label_embs_concat` and `final_proj`
exist because checkpoints contain them. Importing this module imports torch and fairseq and registers `av_hubert` and
`av_hubert_pretraining`; `loading` does so when a model is needed.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from teachers.avhubert.resnet import CHANNELS, ResNet
from teachers.quiet import quiet_import

with quiet_import():
    from fairseq.dataclass import FairseqDataclass
    from fairseq.models import BaseFairseqModel, register_model
    from fairseq.models.wav2vec.wav2vec2 import TransformerEncoder
    from fairseq.tasks import FairseqTask, register_task


@dataclass
class AVHubertConfig(FairseqDataclass):
    """Configuration of the model, with the defaults of the published class; other keys of a checkpoint's `cfg` are
    ignored."""

    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    conv_pos: int = 128
    conv_pos_groups: int = 16
    resnet_relu_type: str = "prelu"
    audio_feat_dim: int = -1
    modality_fuse: str = "concat"
    masking_type: str = "input"
    final_dim: int = 0
    untie_final_proj: bool = False
    # fairseq's encoder reads these; none has an effect at inference.
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    encoder_layerdrop: float = 0.0
    required_seq_len_multiple: int = 1
    layer_type: str = "transformer"
    checkpoint_activations: bool = False


@dataclass
class AVHubertTaskConfig(FairseqDataclass):
    """Configuration of the input, with the defaults of the published class (every published file has normalize true,
    stack 4)."""

    normalize: bool = False
    stack_order_audio: int = 1
    image_crop_size: int = 88
    image_mean: float = 0.421
    image_std: float = 0.165
    modalities: list[str] = field(default_factory=lambda: ["audio", "video"])


@register_task("av_hubert_pretraining", dataclass=AVHubertTaskConfig)
class AVHubertTask(FairseqTask):
    """The dictionaries, which give the output layers their sizes; without dictionaries there is no pretraining head.

    Only the length of each is read.
    """

    def __init__(self, cfg: AVHubertTaskConfig, dictionaries: Any = (), target_dictionary: Any = None) -> None:
        super().__init__(cfg)
        self.dictionaries = list(dictionaries)
        self._target_dictionary = target_dictionary

    @classmethod
    def setup_task(cls, cfg: AVHubertTaskConfig, **dictionaries: Any) -> "AVHubertTask":
        dictionaries.pop("from_checkpoint", None)  # fairseq drops config keys that the class does not know
        return cls(cfg, **dictionaries)

    @property
    def target_dictionary(self) -> Any:
        return self._target_dictionary


class FrontEnd(nn.Module):
    """One stream's features, [clips, values, frames], projected to the encoder's width."""

    def __init__(self, values: int, dim: int, resnet: nn.Module | None = None) -> None:
        super().__init__()
        self.resnet = resnet
        self.proj = nn.Linear(values, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[clips, dim, frames]."""
        if self.resnet is not None:
            x = self.resnet(x)
        return self.proj(x.transpose(1, 2)).transpose(1, 2)


class Encoder(TransformerEncoder):
    """fairseq's encoder, which can also be built without memory (torch's meta device) when a checkpoint supplies the
    values."""

    def __init__(self, cfg: AVHubertConfig) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # weight_norm is deprecated; checkpoints use its old names
            super().__init__(cfg)

    def apply(self, function: Any) -> "Encoder":
        return self if self.layer_norm.weight.is_meta else super().apply(function)  # sets initial values

    def rows(self, x: Tensor, padding_mask: Tensor | None, layer: int | None) -> Tensor:
        """As forward, without keeping every block's output."""
        blocks = len(self.layers)
        x, _ = self.extract_features(x, padding_mask, None if layer is None else layer - 1, min_layer=blocks)
        return self.layer_norm(x) if self.layer_norm_first and layer is None else x


@register_model("av_hubert", dataclass=AVHubertConfig)
class AVHubert(BaseFairseqModel):
    """Rows of the encoder from mouth crops, sound or both."""

    def __init__(self, cfg: AVHubertConfig, num_labels: list[int]) -> None:
        """num_labels: number of entries of each pretraining dictionary."""
        super().__init__()
        dim = cfg.encoder_embed_dim
        fused = 2 * dim if cfg.modality_fuse == "concat" else dim
        self.fuse = cfg.modality_fuse
        masked = dim if cfg.masking_type == "feature" else cfg.audio_feat_dim
        self.mask_emb = nn.Parameter(torch.empty(masked).uniform_())
        final = cfg.final_dim if cfg.final_dim > 0 else dim
        if num_labels:
            self.label_embs_concat = nn.Parameter(torch.empty(sum(num_labels), final).uniform_())
        self.feature_extractor_audio = FrontEnd(cfg.audio_feat_dim, dim)
        self.feature_extractor_video = FrontEnd(CHANNELS, dim, ResNet(cfg.resnet_relu_type))
        self.post_extract_proj = nn.Linear(fused, dim) if fused != dim else None
        self.encoder = Encoder(cfg)
        self.layer_norm = nn.LayerNorm(fused)
        self.final_proj = (
            nn.Linear(dim, final * (len(num_labels) if cfg.untie_final_proj else 1)) if num_labels else None
        )

    @classmethod
    def build_model(cls, cfg: AVHubertConfig, task: AVHubertTask) -> "AVHubert":
        return cls(cfg, [len(dictionary) for dictionary in task.dictionaries])

    @property
    def dim(self) -> int:
        return self.encoder.embedding_dim

    @property
    def num_layers(self) -> int:
        return len(self.encoder.layers)

    @property
    def audio_values(self) -> int:
        return self.feature_extractor_audio.proj.in_features

    def fused(self, video: Tensor | None, audio: Tensor | None) -> Tensor:
        """[clips, frames, dim] before the encoder; an absent stream gives zeros in place of its projected features.

        video [clips, 1, frames, 88, 88], audio [clips, 104, frames], as `features` makes them and zero beyond a clip's end.
        """
        sound = None if audio is None else self.feature_extractor_audio(audio)
        sight = None if video is None else self.feature_extractor_video(video)
        given = sound if sound is not None else sight
        assert given is not None, "at least one stream is needed"
        both = [torch.zeros_like(given) if part is None else part for part in (sound, sight)]
        x = torch.cat(both, dim=1) if self.fuse == "concat" else both[0] + both[1]
        x = self.layer_norm(x.transpose(1, 2))
        return x if self.post_extract_proj is None else self.post_extract_proj(x)

    def forward(
        self,
        video: Tensor | None = None,
        audio: Tensor | None = None,
        padding_mask: Tensor | None = None,
        layer: int | None = None,
    ) -> Tensor:
        """[clips, frames, dim], valid where padding_mask (bool [clips, frames], True beyond a clip's end) is False.

        layer: rows after block k, counted from 1; 0 for those before the encoder; None for its output, which in pre-norm models
        has one more LayerNorm than the last block's rows.
        """
        x = self.fused(video, audio)
        if layer == 0:
            return x
        return self.encoder.rows(x, padding_mask, layer)
