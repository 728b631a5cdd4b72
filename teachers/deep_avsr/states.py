"""State dicts of the pair out of the files in which they come, loaded strictly: every key must be known and there.

Files hold one network's bare keys (deep_avsr's own), or several networks' under prefixes: the detector of the paper's
authors has both, under ASRmodel. and VSRmodel., as well as its own parts. The visual front end is never in the detector's file.
"""

from pathlib import Path
from typing import Any

from teachers.base import TeacherError
from teachers.files import checkpoint

AUDIO, VIDEO, FRONTEND = "ASRmodel.", "VSRmodel.", "visual_frontend."
PREFIXES = (AUDIO, VIDEO, FRONTEND, "model.", "lossAV.", "lossCont_Spea.")  # the last three: the authors' student
SHOWN = 5  # keys that a message lists


class StateFile:
    """The networks of one file, each taken once; TeacherError where the file is not a state dict."""

    def __init__(self, path: Path) -> None:
        import torch

        self.path = path
        self._parts: dict[str, dict[str, Any]] = {}  # by prefix, "" for bare keys
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

    def load(self, network: Any, prefix: str, what: str) -> Any:
        """`network` with the keys under `prefix`, else the bare ones; in evaluation mode, without gradients.

        Raises TeacherError naming keys that are missing, surplus or of another shape. `what` says what the network is.
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
        """Raises TeacherError where bare keys are left that no network took; other known prefixes belong to other networks."""
        rest = list(self._parts.get("", {}))
        if rest:
            raise TeacherError(f"{self.path} holds keys that belong to no network known here: {_listed(rest)}")


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")
