"""What the workers of a run did: busy time, frames and padding by stage, added up from the spans that batches bring home."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipelines.stages import Span


@dataclass
class StageUsage:
    """One stage: clips, frames, frames with padding, busy seconds; {worker: [begun, ended]} of its first and last work."""

    clips: int = 0
    frames: int = 0
    padded: int = 0
    busy_s: float = 0.0
    workers: dict[str, list[float]] = field(default_factory=dict)

    @property
    def utilisation(self) -> float:
        """Busy share of the time between each worker's first and last work; 0 before there was any."""
        present = sum(ended - begun for begun, ended in self.workers.values())
        return self.busy_s / present if present > 0 else 0.0

    @property
    def padding(self) -> float:
        """Frames of padding as a share of the clips' own."""
        return self.padded / self.frames - 1 if self.frames else 0.0


@dataclass
class Usage:
    """All stages of a run, by name, in the order in which batches go through them."""

    stages: dict[str, StageUsage] = field(default_factory=dict)

    def add(self, spans: Iterable[Span]) -> None:
        """Count a batch's spans."""
        for span in spans:
            stage = self.stages.setdefault(span.stage, StageUsage())
            stage.clips += span.clips
            stage.frames += span.frames
            stage.padded += span.padded
            stage.busy_s += span.ended - span.begun
            seen = stage.workers.setdefault(span.worker, [span.begun, span.ended])
            seen[:] = min(seen[0], span.begun), max(seen[1], span.ended)
