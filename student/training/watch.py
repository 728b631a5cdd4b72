"""Checks the loss of every step before anything is saved: a run cannot resume from weights that are not finite.

The data are checked when they are read (`student.data.dataset`), so the only other cause is a step that diverged.
Reading a number from a GPU waits for it. So on a GPU the numbers of several steps are kept on the device and read in
one transfer when the loop waits anyway: for a line of the log, before a validation and before a save. On a CPU they are
read at every step.
"""

from __future__ import annotations

import torch

from concord.errors import ConcordError


class Diverged(ConcordError):
    """Training cannot continue; one line that says at which step and what to do."""

    exit_code = 1


class Watch:
    """Remembers loss and gradient norm of each step until `check`.

    With `scaled` (fp16) the scaler skips a step whose gradients overflow, which is allowed; the run has diverged only
    if no loss since the last check was finite.
    """

    def __init__(self, scaled: bool) -> None:
        self.scaled = scaled
        self._steps: list[int] = []
        self._seen: list[torch.Tensor] = []

    def add(self, step: int, loss: torch.Tensor, norm: torch.Tensor | float) -> None:
        """loss, norm []: detached, on any device. The norm is that of all processes, so that all reach the same
        result."""
        self._steps.append(step)
        self._seen.append(torch.stack([loss.float().reshape(()), torch.as_tensor(norm, device=loss.device).float()]))

    def check(self) -> None:
        """Raises Diverged, which names the first step whose loss or gradient is not finite."""
        if not self._steps:
            return
        seen = torch.stack(self._seen).cpu()
        good = torch.isfinite(seen)
        bad = ~good[:, 0] if self.scaled else ~good.all(1)
        steps, self._steps, self._seen = self._steps, [], []
        if bad.all() if self.scaled and len(steps) > 1 else (bad.any() and not self.scaled):
            k = int(bad.nonzero()[0])
            what = "loss" if not good[k, 0] else "gradient"
            number = float(seen[k, 0 if what == "loss" else 1])
            raise Diverged(
                f"step {steps[k]}: the {what} is {number} although the step's data are finite, so the weights diverged and "
                "nothing more was saved: continue from the last checkpoint, or start again with a lower --lr"
            )
