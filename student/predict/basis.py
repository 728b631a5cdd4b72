"""The basis of answers: a fit with its teachers and, if there is one, a trained student."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concord.plain_json import is_count
from store import Reader, StoreError, layout, similarity
from store.similarity import Fit, grounds
from store.similarity.grounds import Grounds
from store.similarity.limits import RATE
from store.similarity.strangers import MAP, Strangers
from student.predict.records import Calibration, Judged
from student.predict.ruling import Ruling

if TYPE_CHECKING:
    import torch
    from torch import nn

    from student.header import Header
    from teachers import ClipMedia

log = logging.getLogger("student")


@dataclass(frozen=True)
class Detector:
    """A trained student, its header, where it comes from and its device."""

    model: nn.Module
    header: Header
    path: str
    device: torch.device

    @property
    def corpora(self) -> Mapping[str, int]:
        """Real clips by corpus in the validation that set its threshold; {} if the header does not say."""
        return self.header.corpora

    def lacks(self, corpus: str | None) -> str:
        """Why no verdict may rest on it, for a video stated to be from `corpus`; "" if one may."""
        if not self.header.is_fitted:
            return "the detector's threshold and temperature were not fitted"
        if corpus is not None and corpus in self.corpora:
            return Grounds(self.corpora[corpus]).lacks_for_its_own()
        if self.header.strangers is not None:
            return self.header.strangers.lacks
        if self.header.grounds is None:
            return "the detector does not say on whom it was calibrated"
        return self.header.grounds.lacks_for_strangers()

    def judge(self, clip: ClipMedia, shift: int = 0) -> Judged:
        """Probability of fake and logit of a clip over windows inside its span; lips at t are paired with the sound at
        t - `shift`."""
        from store.dataset import spans
        from student.scoring import metrics, score

        first, last = spans.span(clip.flags, self.header.trim)
        length = max(0, last - first - abs(shift))
        if length < score.MIN_FRAMES:
            return Judged(None, None, length)
        lips = first + max(0, shift)
        trial = score.Trial(clip.id, 0, 0, lips, lips - shift, length, -1, "")
        window, picture = self.header.window, self.header.picture
        logit = score.logits(self.model, _OneClip(clip), [trial], window, self.device, picture=picture)
        found = metrics.probability(logit, self.header.threshold, self.header.temperature)
        return Judged(float(found[0]), float(logit[0]), length)

    def told(self) -> dict[str, Any]:
        """For JSON."""
        h = self.header
        return {
            **{"checkpoint": self.path, "model": h.model, "picture": h.picture, "threshold": h.threshold},
            **{"temperature": h.temperature, "fitted_on": h.fitted_on, "window": h.window},
        }


@dataclass(frozen=True)
class _OneClip:
    """One clip in place of a store, for `student.scoring.score`."""

    clip: ClipMedia

    def frames(self, i: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        arrays = {"mouth": self.clip.mouth, "audio": self.clip.audio.reshape(-1, layout.SAMPLES_PER_FRAME)}
        if self.clip.face is not None:
            arrays["face"] = self.clip.face
        return {name: arrays[name][start:stop] for name in names}


@dataclass(frozen=True)
class Basis:
    """The basis of answers: a fit, its teachers' provenance by side, where it comes from, and the length in frames of
    the clips that it learned from, 0 if unknown; the corpus that the videos are stated to be from; a student, if there
    is one; on whom each corpus's map in the fit was calibrated; what strangers score, if that was measured; and the share
    of false alarms that is accepted."""

    fit: Fit
    teachers: Mapping[str, Any]
    source: str
    clip_frames: int = 0
    corpus: str | None = None
    detector: Detector | None = None
    calibrated_on: Mapping[str, Grounds] = field(default_factory=dict)
    strangers: Strangers | None = None
    false_alarms: float = RATE

    @property
    def map_of(self) -> str | None:
        """The corpus whose map is applied to the teachers' scores: the one that the videos are stated to be from, if
        the fit has it; else the map of strangers (MAP), if enough were measured; else the one calibrated on most
        strangers; else the fit's first."""
        if similarity.is_calibrated(self.fit, "clip", self.corpus):
            return self.corpus
        if self.strangers is not None and not self.strangers.lacks:
            return MAP
        known = [name for name in self.fit.calibration if name in self.calibrated_on]
        return max(known, key=lambda name: self.calibrated_on[name].strangers or 0, default=self.corpus)

    def fit_lacks(self) -> str:
        """Why no verdict may rest on the teachers' similarity of these videos; "" if one may."""
        name = self.map_of
        if self.strangers is not None and (name != self.corpus or name is None):
            return self.strangers.lacks
        if name is None or not similarity.is_calibrated(self.fit, "clip", name):
            return "the fit is not calibrated" if self.fit.kind != "posterior" else "this fit has no calibration"
        known = self.calibrated_on.get(name)
        if known is None:
            return "the fit does not say on whom it was calibrated"
        return known.lacks_for_its_own() if name == self.corpus else known.lacks_for_strangers()

    def calibration(self) -> Calibration:
        """On whose clips the probability was calibrated, and what this licenses for these videos."""
        fit_lacks, name = self.fit_lacks(), self.map_of
        if self.detector:
            lacks, corpora = self.detector.lacks(self.corpus), list(self.detector.corpora)
            known = self.detector.header.grounds or Grounds()
            strangers = None if self.corpus in corpora else self.detector.header.strangers
        else:
            lacks, corpora = fit_lacks, [name] if name in self.calibrated_on and name else []
            known = self.calibrated_on.get(str(name), Grounds())
            strangers = self.strangers if name == MAP else None
        ruling, speakers = None, known.speakers
        if strangers is not None and not lacks:
            ruling = Ruling(strangers, self.false_alarms, "detector" if self.detector else "fit")
            corpora, speakers = list(strangers.corpora), strangers.people
        where = ", ".join(corpora)
        if lacks and self.corpus and self.corpus not in corpora:
            lacks += f", not on {self.corpus}"
        if not lacks:
            who = "" if self.corpus in corpora and not ruling else f", {grounds.number(speakers or 0, 'speaker')}"
            text = f"calibrated on {where}{who}"
        else:
            text = f"not calibrated for this video: {lacks}" + (f" ({where})" if where else "")
        shown = self.strangers if name == MAP else None
        return Calibration(corpora, not lacks, lacks, not fit_lacks, speakers, text, ruling, shown, self._named())

    def _named(self) -> Mapping[str, int]:
        """Real clips of the calibration by the corpora that may be stated to be the videos'."""
        if self.detector:
            return self.detector.corpora if self.detector.header.is_fitted else {}
        return {
            name: on.real for name, on in self.calibrated_on.items() if similarity.is_calibrated(self.fit, "clip", name)
        }

    def told(self) -> dict[str, Any]:
        """The same for JSON."""
        models = {side: {k: about.get(k) for k in ("name", "sha256")} for side, about in self.teachers.items()}
        return {
            "teachers": {side: models[side] for side in ("asr", "vsr")},
            "fit": {"from": self.source, "kind": self.fit.kind},
            "corpus": self.corpus,
            "calibrated_on": {name: known.told() for name, known in self.calibrated_on.items()},
            "strangers": self._measured(),
            "false_alarms": self.false_alarms,
            "student": self.detector.told() if self.detector else None,
        }

    def _measured(self) -> dict[str, Any] | None:
        """What strangers score by the model that decides, without the scores."""
        found = self.detector.header.strangers if self.detector else self.strangers
        if found is None or not found.lengths:
            return None
        told = {"how": found.how, "people": found.people, "guessed": found.guessed, "corpora": list(found.corpora)}
        return {**told, "lengths": found.summary()}


def basis(
    checkpoint: Path | None,
    fit_from: str | None = None,
    corpus: str | None = None,
    device: torch.device | str = "cpu",
    false_alarms: float = RATE,
) -> Basis:
    """The fit named, else that of the checkpoint's store if it is on this machine, else the default one
    (`student.calibration.named`). `false_alarms`: the share of strangers' real videos that may be called fake.

    Raises StoreError, CheckpointError.
    """
    import torch

    import store
    from student.calibration import named
    from student.checkpoint import load_model

    detector = None
    if checkpoint:
        model, header = load_model(checkpoint, device)
        detector = Detector(model, header, str(checkpoint), torch.device(device))
    if fit_from and (chosen := named.asked(fit_from)):
        return _basis(chosen.fit, chosen.teachers, chosen.source, chosen.note, corpus, detector, false_alarms)
    reader = store.open(fit_from) if fit_from else _trained_on(detector) if detector else None
    if reader is not None:
        place = fit_from or str(reader.path)
        if reader.fit is None:
            raise StoreError(f"{place} has no fit; run precompute.py --store {place} --refit first, or name another")
        note = {**(reader.attrs.get("similarity") or {}), "clip_frames": reader.fit_length}
        return _basis(reader.fit, reader.attrs.get("teachers") or {}, place, note, corpus, detector, false_alarms)
    chosen = named.default()
    return _basis(chosen.fit, chosen.teachers, chosen.source, chosen.note, corpus, detector, false_alarms)


def _trained_on(detector: Detector) -> Reader | None:
    """The store that a detector says it was trained on, if it is on this machine and has the same fit; None otherwise.

    The detector may come from anyone, so its header never causes a request to a bucket, and no other store's fit is
    used in its place.
    """
    import store
    from student.run.identity import store_identity

    path, fit = detector.header.store.get("path"), detector.header.store.get("fit")
    if not path or not isinstance(path, str):
        return None
    if "://" not in path:
        try:
            if (Path(path) / "zarr.json").is_file():
                reader = store.open(path)
                if reader.fit is not None and store_identity(reader)["fit"] == fit:
                    return reader
        except (StoreError, OSError, ValueError) as error:
            log.debug("%s: %s", path, error)
    log.warning(
        "the detector says that it was trained on %s, where this machine now has no store, or one with "
        "another fit: the default fit is used instead; --fit-from %s would use that store",
        path,
        path,
    )
    return None


def _basis(
    fit: Fit,
    made_by: Mapping[str, Any],
    source: str,
    note: Mapping[str, Any],
    corpus: str | None,
    detector: Detector | None,
    false_alarms: float,
) -> Basis:
    """A basis from a fit and its note. Raises StoreError for a fit that is damaged or does not name its teachers."""
    numbers = [fit.vsr_mean, fit.vsr_matrix, fit.asr_mean, fit.asr_matrix, fit.correlations, *fit.network.values()]
    numbers += [np.array(line) for maps in fit.calibration.values() for line in maps.values()]
    if not all(np.isfinite(array).all() for array in numbers):
        raise StoreError(
            f"the fit of {source} holds numbers that are not finite: it is damaged; make it again (precompute.py --refit), or "
            "name another with --fit-from"
        )
    for side in ("asr", "vsr"):
        if not isinstance((made_by.get(side) or {}).get("name"), str):
            raise StoreError(
                f"the fit of {source} does not say which teacher of {side} it was learned with, so it cannot be used"
            )
    log.info("words and the teachers' similarity rest on the fit of %s", source)
    told, frames = note.get("calibrated_on"), note.get("clip_frames")
    on = {str(k): Grounds.of(v) for k, v in told.items()} if isinstance(told, Mapping) else {}
    return Basis(
        fit,
        made_by,
        source,
        frames if is_count(frames) else 0,
        corpus,
        detector,
        on,
        Strangers.of(note),
        false_alarms,
    )
