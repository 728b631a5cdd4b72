"""The two teachers: they load the networks and turn clips into rows. See the package's docstring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from teachers import windows
from teachers.base import ClipMedia, TeacherError
from teachers.deep_avsr import prepare, states
from teachers.files import weights

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASSES = 40
# class to character; github smeetrs/deep_avsr, commit b68a8db
CHARACTERS = ("<blank>", *" ETOAINSHRLDUYWGCMFBP'VKJXQZ0192856734", "<EOS>")
WINDOW = 1000  # frames seen at once, the authors' limit; the networks have 2500 positions
OVERLAP = 100  # frames that neighbouring windows share
GPU_PART = 256  # frames of the front end in one pass on a GPU; on a CPU the module's small default is fastest
REACH = 2  # frames that the front end sees on each side


class _DeepAVSR:
    """The part that both teachers share."""

    kind: str
    stream: str
    dim = CLASSES
    _weights: weights.Weights
    _network: nn.Module

    def __init__(self, argument: str, device: str) -> None:
        import torch

        self.name = f"{self.kind}:{argument}"
        self.device = torch.device(device)
        self._options: dict[str, Any] = {
            "rows": "log posteriors, natural logarithm",
            "window": WINDOW,
            "overlap": OVERLAP,
        }

    def embed(self, clips: list[ClipMedia]) -> list[np.ndarray]:
        """Log posteriors (natural logarithm) f4 [frames, 40] for each clip: class 0 is the blank, 39 the end mark.

        TeacherError names a clip whose sound does not fit its frames or whose rows are not finite.
        """
        return windows.embed(self.name, clips, self.dim, self._forward, self.device, window=WINDOW, overlap=OVERLAP)

    def provenance(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layer": None,
            "source": self._weights.source,
            "sha256": self._weights.sha256,
            "options": self._options,
            "dim": self.dim,
            "licence": "as the weights' source says; deep_avsr's are trained on LRS2, which is for research only",
        }

    def _input(self, piece: windows.Piece) -> Tensor:
        """The network's input for one piece: a tensor [rows, columns] on the device."""
        raise NotImplementedError

    def _forward(self, pieces: list[windows.Piece], half: bool) -> list[np.ndarray]:
        """Log posteriors f4 [frames, 40] of each piece, in one pass, in half precision or not."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        frames = torch.tensor([piece.num_frames for piece in pieces])
        inside = None
        if frames.min() < frames.max():
            inside = (torch.arange(int(frames.max())) < frames[:, None]).to(self.device)
        with torch.autocast(self.device.type, torch.float16, enabled=half):
            given = pad_sequence([self._input(piece) for piece in pieces], batch_first=True)
            x = self._network(given, inside).cpu().numpy()
        return [rows[: piece.num_frames] for rows, piece in zip(x, pieces, strict=True)]


class DeepAVSRAudio(_DeepAVSR):
    """Log posteriors of characters from sound."""

    kind = "deep_avsr-audio"
    stream = "audio"

    def __init__(self, argument: str, device: str = "cpu") -> None:
        """argument: PATH. Raises TeacherError if the file is missing or does not belong to this network."""
        from teachers.deep_avsr.transformer import AudioNet

        super().__init__(argument, device)
        self._weights = _find(self.kind, argument)
        file = states.StateFile(self._weights.path)
        self._network = file.load(AudioNet(), states.AUDIO, "the audio-only network").to(self.device)
        file.check_rest()

    def _input(self, piece: windows.Piece) -> Tensor:
        import torch

        return torch.from_numpy(prepare.spectra(piece.clip.audio, piece.start, piece.stop)).to(self.device)


class DeepAVSRVideo(_DeepAVSR):
    """Log posteriors of characters from pictures of the mouth."""

    kind = "deep_avsr-video"
    stream = "video"

    def __init__(self, argument: str, device: str = "cpu") -> None:
        """argument: PATH[,FRONTEND]. Raises TeacherError if a file is missing or does not belong to these networks."""
        from teachers.deep_avsr.transformer import VideoNet
        from teachers.deep_avsr.visual_frontend import PART, VisualFrontend

        super().__init__(argument, device)
        name, comma, second = (argument, "", "") if weights.is_given(argument) else argument.rpartition(",")
        self._weights = _find(self.kind, name if comma else argument)
        file = states.StateFile(self._weights.path)
        self._network = file.load(VideoNet(), states.VIDEO, "the video-only network").to(self.device)
        if comma:
            file.check_rest()
            found = _find(self.kind, second)
            file = states.StateFile(found.path)
            self._options["visual_frontend"] = {"source": found.source, "sha256": found.sha256}
        elif states.FRONTEND not in file:
            raise TeacherError(
                f"{file.path} has no visual front end (keys under {states.FRONTEND}); give its file after a comma: "
                f"{self.kind}:{argument},visual_frontend.pt"
            )
        net = VisualFrontend(PART if self.device.type == "cpu" else GPU_PART)
        self._frontend = file.load(net, states.FRONTEND, "the visual front end").to(self.device)
        file.check_rest()

    def _input(self, piece: windows.Piece) -> Tensor:
        """Rows of the visual front end, for one clip; the first and last frames of a window see their true
        neighbours."""
        from teachers.deep_avsr.visual_frontend import normalised, stacked

        start = max(piece.start - REACH, 0)
        mouth = piece.clip.mouth[start : piece.stop + REACH]
        stacks = stacked(normalised(prepare.pictures(mouth, self.device)))
        return self._frontend(stacks[piece.start - start : piece.stop - start])


def load_audio(argument: str, device: str) -> DeepAVSRAudio:
    """Entry point `deep_avsr-audio`."""
    return DeepAVSRAudio(argument, device)


def load_video(argument: str, device: str) -> DeepAVSRVideo:
    """Entry point `deep_avsr-video`."""
    return DeepAVSRVideo(argument, device)


def _find(kind: str, name: str) -> weights.Weights:
    """A file by its path, else by its name among the user's and the cached weights."""
    if not name:
        raise TeacherError(f"{kind} needs a file of weights: {kind}:PATH")
    return weights.resolve(Path(name).name, path=name if weights.is_given(name) or "/" in name else None)
