"""Loads the state dicts of the pair from their files, strictly: every key must be known and present.

A file holds the keys of one network without a prefix (deep_avsr's own), or those of several networks under prefixes:
the detector of the paper's authors has both, under ASRmodel. and VSRmodel., as well as its own parts. The visual front
end is never in the detector's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from teachers.base import TeacherError
from teachers.files import checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

M = TypeVar("M", bound="nn.Module")

AUDIO, VIDEO, FRONTEND = "ASRmodel.", "VSRmodel.", "visual_frontend."
PREFIXES = (AUDIO, VIDEO, FRONTEND, "model.", "lossAV.", "lossCont_Spea.")  # the last three: the authors' student
SHOWN = 5  # keys that a message lists


class StateFile:
    """The networks in one file, each taken once; TeacherError if the file is not a state dict."""

    def __init__(self, path: Path) -> None:
        import torch

        self.path = path
        self._parts: dict[str, dict[str, Tensor]] = {}  # by prefix, "" for keys without one
        for key, value in checkpoint.read(path).items():
            if not isinstance(key, str) or not isinstance(value, torch.Tensor):
                kind = type(value).__name__
                raise TeacherError(
                    f"{path} is not a state dict of deep_avsr: its '{key}' is not a tensor but of type {kind}"
                )
            prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
            self._parts.setdefault(prefix, {})[key.removeprefix(prefix)] = value

    def __contains__(self, prefix: str) -> bool:
        return prefix in self._parts

    def load(self, network: M, prefix: str, what: str) -> M:
        """`network` with the keys under `prefix`, else those without a prefix; in evaluation mode, without gradients.

        Raises TeacherError, which names keys that are missing, unexpected or of another shape. `what` describes the
        network.
        """
        prefix = prefix if prefix in self._parts else ""
        given, own = self._parts.pop(prefix, {}), network.state_dict()
        missing = [prefix + key for key in own if key not in given]
        surplus = [prefix + key for key in given if key not in own]
        if missing or surplus:
            lacks, unknown = (
                f"{word} {_listed(keys)}" if keys else ""
                for word, keys in (("it lacks", missing), ("unknown are", surplus))
            )
            raise TeacherError(
                f"{self.path} does not hold {what} of deep_avsr: {'; '.join(filter(None, (lacks, unknown)))}; "
                f"expected exactly its {len(own)} keys"
            )
        for key, value in own.items():
            if given[key].shape != value.shape:
                raise TeacherError(
                    f"{self.path}: {prefix}{key} has the shape {tuple(given[key].shape)}; {what} of deep_avsr has "
                    f"{tuple(value.shape)}"
                )
        network.load_state_dict(given)
        return network.eval().requires_grad_(False)

    def check_rest(self) -> None:
        """Raises TeacherError if keys without a prefix are left unused; other known prefixes belong to other
        networks."""
        rest = list(self._parts.get("", {}))
        if rest:
            raise TeacherError(f"{self.path} holds keys of an unknown network: {_listed(rest)}")


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")
