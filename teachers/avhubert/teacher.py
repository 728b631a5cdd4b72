"""The `avhubert` teachers: rows of an AV-HuBERT encoder, one per frame, from the mouth, the sound, or both.

avhubert:PATH|URL[@LAYER] uses the picture, avhubert-audio: the sound, avhubert-both: both (fused inside the network, so
for inspection only: it cannot tell whether the two agree). PATH may be a bare file name in $CONCORD_WEIGHTS or the
cache. @k gives the rows after block k, @0 those before the first block and its positional convolution; without @ it is
the rows after the last norm.

Clips longer than 20 s are cut into windows of 500 frames, the longest clips that the published lip readers were tuned
on. They overlap by 128 and are joined at the middle, so every row that is kept has 64 frames on each side, as many as
the positional convolution sees. The sound of a window includes the samples beyond its end that its last row needs.
"""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concord.frames import SAMPLES_PER_FRAME
from teachers import windows
from teachers.avhubert import features, loading
from teachers.base import ClipMedia, TeacherError
from teachers.files import weights

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 500  # frames
OVERLAP = 128  # frames that neighbouring windows share
BEYOND = features.WINDOW - features.STEP  # samples beyond a frame's end that its last filterbank row sees
KINDS = {"video": "avhubert", "audio": "avhubert-audio", "both": "avhubert-both"}


class AVHubertTeacher:
    """f4 [frames, dim] from one checkpoint; see the module's docstring for streams, layers and long clips."""

    def __init__(self, stream: str, argument: str, device: str = "cpu") -> None:
        """stream: "video", "audio" or "both"; argument: PATH|URL[@LAYER]. Raises TeacherError for a wrong file or layer."""
        self.stream = stream
        self.name = f"{KINDS[stream]}:{argument}"
        source, self.layer = _parse(self.name, argument)
        self._weights = _find(source)
        model, self._input = loading.load(self._weights.path)
        if self.layer is not None and not self.layer <= model.num_layers:
            raise TeacherError(f"{self.name}: there is no layer {self.layer}; this model has @0 to @{model.num_layers}")
        if stream != "video" and model.audio_values != features.BANDS * features.STACK:
            raise TeacherError(
                f"{self.name}: its sound has {model.audio_values} values a row; expected {features.BANDS * features.STACK} "
                "(26 bands, four rows stacked)"
            )
        import torch

        self.device = torch.device(device)
        self._model = model.to(self.device)
        self.dim = model.dim

    def embed(self, clips: list[ClipMedia]) -> list[np.ndarray]:
        """f4 [frames, dim] for each clip. TeacherError names a clip whose media do not fit or whose rows are not finite."""
        return windows.embed(self.name, clips, self.dim, self._forward, self.device, window=WINDOW, overlap=OVERLAP)

    def provenance(self) -> dict[str, Any]:
        image = {key: value for key, value in vars(self._input).items() if key.startswith("image_")}
        sound = {"normalize": self._input.normalize}
        used = {"video": image, "audio": sound, "both": {**image, **sound}}[self.stream]
        return {
            "name": self.name,
            "layer": self.layer,
            "source": self._weights.source,
            "sha256": self._weights.sha256,
            "options": {"stream": self.stream, "window": WINDOW, "overlap": OVERLAP, **used},
            "dim": self.dim,
            "licence": "that of the checkpoint; Meta's released ones are for non-commercial research only",
        }

    def _forward(self, pieces: list[windows.Piece], half: bool) -> list[np.ndarray]:
        """f4 [frames, dim] of each piece; shorter ones are padded with zeros, which are masked."""
        import torch

        frames = [piece.num_frames for piece in pieces]
        video = self._batch([self._picture(piece) for piece in pieces]) if self.stream != "audio" else None
        audio = self._batch([self._sound(piece) for piece in pieces]) if self.stream != "video" else None
        padding = None
        if min(frames) < max(frames):
            padding = torch.arange(max(frames), device=self.device) >= torch.tensor(frames, device=self.device)[:, None]
        with torch.autocast(self.device.type, torch.float16, enabled=half):
            rows = self._model(
                video=None if video is None else video[:, None],
                audio=None if audio is None else audio.transpose(1, 2),
                padding_mask=padding,
                layer=self.layer,
            )
        found = rows.float().cpu().numpy()
        return [x[:length] for x, length in zip(found, frames, strict=True)]

    def _batch(self, parts: list[np.ndarray]) -> Tensor:
        """Tensor [pieces, most frames, ...] of f4 [frames, ...], zero beyond each one's end."""
        import torch

        batch = torch.zeros(len(parts), max(map(len, parts)), *parts[0].shape[1:])
        for row, part in zip(batch, parts, strict=True):
            row[: len(part)] = torch.from_numpy(part)
        return batch.to(self.device)

    def _picture(self, piece: windows.Piece) -> np.ndarray:
        size = self._input.image_crop_size
        if min(piece.mouth.shape[1:]) < size:
            raise TeacherError(
                f"clip {piece.clip.id}: mouth crops of {piece.mouth.shape[1]} x {piece.mouth.shape[2]} pixels; "
                f"{self.name} needs {size} x {size}"
            )
        return features.picture(piece.mouth, size, self._input.image_mean, self._input.image_std)

    def _sound(self, piece: windows.Piece) -> np.ndarray:
        start, stop = piece.start * SAMPLES_PER_FRAME, piece.stop * SAMPLES_PER_FRAME + BEYOND
        return features.sound(piece.clip.audio[start:stop], piece.num_frames, self._input.normalize)


def video(argument: str, device: str) -> AVHubertTeacher:
    """Entry point `avhubert`."""
    return AVHubertTeacher("video", argument, device)


def audio(argument: str, device: str) -> AVHubertTeacher:
    """Entry point `avhubert-audio`."""
    return AVHubertTeacher("audio", argument, device)


def both(argument: str, device: str) -> AVHubertTeacher:
    """Entry point `avhubert-both`."""
    return AVHubertTeacher("both", argument, device)


def _parse(name: str, argument: str) -> tuple[str, int | None]:
    """(path or URL, layer) of PATH|URL[@LAYER]."""
    source, at, layer = argument.rpartition("@")
    if not at or "/" in layer or weights.is_given(argument):  # no @, or it is part of the path
        source, layer = argument, ""
    elif not layer.isdecimal():
        raise TeacherError(f"{name}: '{layer}' is not a layer; write @0, @1, ... or omit it for the last one")
    if not source:
        raise TeacherError(f"{name} needs a checkpoint: PATH or URL, e.g. avhubert:base_vox_433h.pt@9")
    return source, int(layer) if layer else None


def _find(source: str) -> weights.Weights:
    """The file at a path or URL, or one of that name in a folder that is searched for weights."""
    if source.startswith(("http://", "https://")):
        return weights.resolve(Path(urllib.parse.urlsplit(source).path).name, url=source)
    if "/" in source or weights.is_given(source):
        return weights.resolve(Path(source).name, path=source)
    return weights.resolve(source)
