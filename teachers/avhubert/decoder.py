"""AV-HuBERT with a text decoder, `av_hubert_seq2seq`: the lip readers. Teachers use its encoder alone.

A fine-tuned checkpoint holds this decoder as well, so fairseq's registry needs a model class for all of it. The class
computes logits for given tokens and does no search. The decoder layers are fairseq's. This module imports torch and
fairseq, and registers the model.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional

from teachers.avhubert.model import AVHubert, AVHubertTask
from teachers.base import TeacherError
from teachers.quiet import quiet_import

with quiet_import():
    from fairseq.dataclass import FairseqDataclass
    from fairseq.models import FairseqDecoder, FairseqEncoder, FairseqEncoderDecoderModel, build_model, register_model
    from fairseq.models.transformer import TransformerConfig
    from fairseq.modules import SinusoidalPositionalEmbedding
    from fairseq.modules.transformer_layer import TransformerDecoderLayerBase
    from fairseq.utils import make_positions


@dataclass
class AVHubertSeq2SeqConfig(FairseqDataclass):
    """Configuration of the decoder, with the defaults of the published class; `w2v_args`: the pretraining checkpoint's
    cfg."""

    w2v_args: Any = None
    decoder_embed_dim: int = 768
    decoder_ffn_embed_dim: int = 3072
    decoder_layers: int = 6
    decoder_attention_heads: int = 4
    decoder_learned_pos: bool = False
    decoder_normalize_before: bool = False
    no_token_positional_embeddings: bool = False
    share_decoder_input_output_embed: bool = False
    no_scale_embedding: bool = True


class Positions(nn.Module):
    """Sinusoids for token positions, counted from padding_idx + 1; zero for padding. Holds the buffer that checkpoints
    contain."""

    def __init__(self, dim: int, padding_idx: int) -> None:
        super().__init__()
        self.dim, self.padding_idx = dim, padding_idx
        self.register_buffer("_float_tensor", torch.zeros(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """[clips, tokens, dim]."""
        count = self.padding_idx + 1 + tokens.shape[1]
        table = SinusoidalPositionalEmbedding.get_embedding(count, self.dim, self.padding_idx).to(tokens.device)
        return table[make_positions(tokens, self.padding_idx)]


class Decoder(FairseqDecoder):
    """Logits of the next token."""

    def __init__(self, cfg: AVHubertSeq2SeqConfig, encoder_dim: int, dictionary: Any, padding_idx: int) -> None:
        super().__init__(dictionary)
        if cfg.decoder_learned_pos:
            raise TeacherError("decoder_learned_pos is not supported; no published model has it")
        dim = cfg.decoder_embed_dim
        self.padding_idx = padding_idx
        self.scale = 1.0 if cfg.no_scale_embedding else math.sqrt(dim)
        self.embed_tokens = nn.Embedding(len(dictionary), dim, padding_idx)
        self.embed_positions = None if cfg.no_token_positional_embeddings else Positions(dim, padding_idx)
        layer = TransformerConfig()
        layer.dropout = layer.attention_dropout = layer.activation_dropout = 0.0
        layer.encoder.embed_dim = encoder_dim
        layer.decoder.embed_dim = dim
        layer.decoder.ffn_embed_dim = cfg.decoder_ffn_embed_dim
        layer.decoder.attention_heads = cfg.decoder_attention_heads
        layer.decoder.normalize_before = cfg.decoder_normalize_before
        self.layers = nn.ModuleList(TransformerDecoderLayerBase(layer) for _ in range(cfg.decoder_layers))
        self.layer_norm = nn.LayerNorm(dim) if cfg.decoder_normalize_before else None
        if not cfg.share_decoder_input_output_embed:
            self.embed_out = nn.Parameter(torch.empty(len(dictionary), dim).normal_(std=dim**-0.5))
        self.shared = cfg.share_decoder_input_output_embed

    def forward(self, tokens: Tensor, rows: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """[clips, tokens, vocabulary] for the tokens so far (int [clips, tokens]) and encoder rows [clips, frames, dim]."""
        x = self.scale * self.embed_tokens(tokens)
        if self.embed_positions is not None:
            x = x + self.embed_positions(tokens)
        x, rows = x.transpose(0, 1), rows.transpose(0, 1)
        padded = tokens.eq(self.padding_idx)
        length = tokens.shape[1]
        future = torch.full((length, length), -math.inf, device=x.device).triu(1)
        for layer in self.layers:
            x, *_ = layer(
                x,
                rows,
                padding_mask,
                self_attn_mask=future,
                self_attn_padding_mask=padded if padded.any() else None,
            )
        x = x.transpose(0, 1)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return functional.linear(x, self.embed_tokens.weight if self.shared else self.embed_out)


class Encoder(FairseqEncoder):
    """Holds the model under the name that checkpoints use."""

    def __init__(self, model: AVHubert) -> None:
        super().__init__(None)
        self.w2v_model = model

    def forward(self, **streams: Any) -> Tensor:
        """As AVHubert.forward."""
        return self.w2v_model(**streams)


@register_model("av_hubert_seq2seq", dataclass=AVHubertSeq2SeqConfig)
class AVHubertSeq2Seq(FairseqEncoderDecoderModel):
    """A lip reader; its task needs `dictionaries` (of pretraining) and `target_dictionary`."""

    @classmethod
    def build_model(cls, cfg: AVHubertSeq2SeqConfig, task: AVHubertTask) -> "AVHubertSeq2Seq":
        if cfg.w2v_args is None:
            raise TeacherError("this configuration of av_hubert_seq2seq does not describe its encoder (w2v_args)")
        model = build_model(OmegaConf.create(OmegaConf.to_container(cfg.w2v_args.model)), task, from_checkpoint=True)
        model.final_proj = None
        padding_idx = 1  # the same in every fairseq dictionary: <s>, <pad>, </s>, <unk>
        decoder = Decoder(cfg, model.dim, task.target_dictionary, padding_idx)
        return cls(Encoder(model), decoder)

    def forward(
        self,
        video: Tensor | None = None,
        audio: Tensor | None = None,
        padding_mask: Tensor | None = None,
        *,
        tokens: Tensor,
    ) -> Tensor:
        """Logits [clips, tokens, vocabulary] with teacher forcing; otherwise as AVHubert.forward."""
        rows = self.encoder(video=video, audio=audio, padding_mask=padding_mask)
        return self.decoder(tokens, rows, padding_mask)
