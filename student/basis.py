"""What answers on single videos rest on: a fit with the teachers it was made by and, where there is one, a trained student."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store import StoreError, fitfile, layout, similarity
from store.similarity import Fit

if TYPE_CHECKING:
    import torch

log = logging.getLogger("student")


@dataclass(frozen=True)
class Detector:
    """A trained student; `about` is what its header says, `corpora` those of the store it was trained on, if that is here."""

    model: Any
    about: Mapping[str, Any]
    path: str
    device: torch.device
    corpora: tuple[str, ...] = ()

    @property
    def picture(self) -> str:
        """What it looks at: "mouth" or "face"."""
        from student.checkpoint import picture

        return picture(self.about)

    def judge(self, clip: Any, shift: int = 0) -> dict[str, Any]:
        """Probability of fake and logit of a clip (positive = fake) over windows inside its span, and the span's frames; lips
        at t are seen with the sound of t - `shift`."""
        from student import metrics, score, spans

        first, last = spans.span(clip.flags, self.about["config"].get("data", {}).get("trim", "none"))
        length = max(0, last - first - abs(shift))
        if length < score.MIN_FRAMES:
            return {"probability": None, "logit": None, "frames": length}
        lips = first + max(0, shift)
        trial = score.Trial(clip.id, 0, 0, lips, lips - shift, length, -1, "")
        window, picture = int(self.about["window"]), self.picture
        logit = score.logits(self.model, _OneClip(clip), [trial], window, self.device, picture=picture)
        found = metrics.probability(logit, self.about["threshold"], self.about["temperature"])
        return {"probability": float(found[0]), "logit": float(logit[0]), "frames": length}


@dataclass(frozen=True)
class _OneClip:
    """A clip where `student.score` reads a store's."""

    clip: Any

    def frames(self, i: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        arrays = {
            "mouth": self.clip.mouth,
            "face": self.clip.face,
            "audio": self.clip.audio.reshape(-1, layout.SAMPLES_PER_FRAME),
        }
        return {name: arrays[name][start:stop] for name in names}


@dataclass(frozen=True)
class Basis:
    """What answers rest on: a fit, its teachers' provenance by side, where it is from and how long the clips were that it
    learned from, in frames, 0 where that is not known; the corpus that the videos are said to be of; a student, if there is
    one."""

    fit: Fit
    teachers: Mapping[str, Any]
    source: str
    clip_frames: int = 0
    corpus: str | None = None
    detector: Detector | None = None

    def calibration(self) -> dict[str, Any]:
        """Whose clips the probability was calibrated on, and whether this kind of video is among them."""
        if self.detector:
            from student.checkpoint import is_fitted

            if not is_fitted(self.detector.about):
                text = "uncalibrated: the detector's threshold and temperature were fitted on nothing"
                return {"corpora": [], "this_kind": False, "text": text}
            names = list(self.detector.corpora)
            own = self.corpus in names
        else:
            own = similarity.is_calibrated(self.fit, "clip", self.corpus)
            names = [str(self.corpus)] if own else list(self.fit.calibration)[:1]
        where = ", ".join(names)
        if own:
            text = f"calibrated on {where}"
        else:
            text = "uncalibrated for this kind of video" + (f"; calibrated on {where}" if where else "")
        return {"corpora": names, "this_kind": own, "text": text}

    def told(self) -> dict[str, Any]:
        """The same for JSON."""
        models = {side: {k: about.get(k) for k in ("name", "sha256")} for side, about in self.teachers.items()}
        found: dict[str, Any] = {
            "teachers": {side: models[side] for side in ("asr", "vsr")},
            "fit": {"from": self.source, "kind": self.fit.kind},
            "corpus": self.corpus,
            "student": None,
        }
        if self.detector:
            about = self.detector.about
            found["student"] = {
                "checkpoint": self.detector.path,
                "model": about["model"],
                "picture": self.detector.picture,
            } | {name: about.get(name) for name in ("threshold", "temperature", "fitted_on", "window")}
        return found


def basis(
    checkpoint: Path | None, fit_from: str | None = None, corpus: str | None = None, device: torch.device | str = "cpu"
) -> Basis:
    """The fit named, else that of the checkpoint's store where it is here, else the one that the package ships.

    Raises StoreError, CheckpointError.
    """
    import torch

    import store
    from student.checkpoint import load_model

    detector, trained_on = None, ""
    if checkpoint:
        model, about = load_model(checkpoint, device)
        trained_on = str(about["store"].get("path", ""))
        corpora: tuple[str, ...] = ()
        if (Path(trained_on) / "zarr.json").is_file() or "://" in trained_on:
            try:
                corpora = tuple(store.open(trained_on).attrs["corpora"])
            except StoreError as error:
                log.warning("the store that the detector was trained on cannot be read: %s", error)
                trained_on = ""
        else:
            trained_on = ""
        detector = Detector(model, about, str(checkpoint), torch.device(device), corpora)
    if fit_from and os.path.isfile(fit_from):
        fit, made_by, note = fitfile.load(fit_from)
        return Basis(fit, made_by, fit_from, int(note.get("clip_frames", 0)), corpus, detector)
    for place in filter(None, (fit_from, trained_on)):
        reader = store.open(place)
        if reader.fit is not None:
            return Basis(reader.fit, reader.attrs["teachers"], place, reader.fit_length, corpus, detector)
        if fit_from:
            raise StoreError(f"{place} has no fit; run precompute.py --store {place} --refit first, or name another")
    fit, made_by, note = fitfile.default()
    source = f"the package, learned on {note['learned_on']}"
    return Basis(fit, made_by, source, int(note["clip_frames"]), corpus, detector)
