"""Small AV-HuBERT checkpoints with random weights, and clips for their teachers."""

import numpy as np
import torch

from teachers import ClipMedia
from teachers.avhubert import loading

TASK = {"_name": "av_hubert_pretraining", "normalize": True, "stack_order_audio": 4}


def small(**changes):
    """Configuration of a small model, as a checkpoint's cfg.model has it."""
    return {
        "_name": "av_hubert",
        "encoder_layers": 2,
        "encoder_embed_dim": 48,
        "encoder_ffn_embed_dim": 80,
        "encoder_attention_heads": 3,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "audio_feat_dim": 104,
        "layer_norm_first": True,
        **changes,
    }


def built(model, task=TASK, **dictionaries):
    """What fairseq's registries build from two parts of a cfg."""
    loading.register()  # first: it keeps the import of fairseq quiet
    from fairseq.models import build_model
    from fairseq.tasks import setup_task
    from omegaconf import OmegaConf

    task = setup_task(OmegaConf.create(task), from_checkpoint=True, **dictionaries)
    return build_model(OmegaConf.create(model), task, from_checkpoint=True).eval()


def saved(path, model, weights=None, seed=5):
    """Path of a pretraining checkpoint of that configuration, with random weights unless some are given."""
    torch.manual_seed(seed)
    content = {"cfg": {"model": model, "task": TASK}, "model": weights or built(model).state_dict()}
    torch.save(content, path)
    return path


def clip(frames=12, seed=0, size=96, name="clip"):
    rng = np.random.default_rng(seed)
    return ClipMedia(
        id=name,
        audio=rng.normal(0, 3000, 640 * frames).astype(np.int16),
        mouth=rng.integers(0, 256, (frames, size, size), np.uint8),
        lips=np.zeros((frames, 40, 2), np.float32),
        blendshapes=np.zeros((frames, 52), np.float32),
        flags=np.full(frames, 0b11101, np.uint8),
    )
