"""The model card of a detector: what it was trained on, how it was chosen, its intended use and its limits.

`MODEL_CARD.md` next to the weights, after Mitchell et al. 2019, "Model Cards for Model Reporting". It contains only
what the run knows, and gives the number of clips behind each figure. Nothing in it is written by hand. It begins with
the YAML that the Hugging Face Hub reads of a model (https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from concord import files
from concord.text import code, counted, markdown
from store import Reader
from student.config import DataConfig, TrainConfig
from student.header import Header
from student.run.state import Best, Facts

CARD_FILE = "MODEL_CARD.md"
LIBRARY = "concord-av"
TASK = "video-classification"  # the Hub's task that is nearest
TAGS = ("deepfake-detection", "audio-visual", "lip-sync", "forensics")
OPEN = {"grid": "GRID"}  # corpora that anyone may have, by the kind before the colon: name
METRICS = {"auc": "roc_auc", "brier": "brier_score"}  # figures of validation, by the Hub's names
USE = (
    "Ranks talking-face clips by how likely picture and voice do not belong together or are forged, for research and as one "
    "hint among others. It answers for clips with one visible face that speaks."
)
LIMITS = (
    "A forgery whose lips match what the voice says (a swapped face with its own voice, a voice cloned by sentence) "
    "cannot be detected from content.",
    "Languages, cameras and forgeries that are not in the training data: the figures above do not cover them, and the "
    "probability is calibrated on the validation clips only.",
    "No decision about a person may be based on it.",
)


@dataclass(frozen=True)
class Run:
    """The contents of a card: the store, rows of its clips table by split, the run's options, its constant facts, and
    validation figures of the detector that was kept (None if nothing was validated)."""

    reader: Reader
    rows: Mapping[str, np.ndarray]
    config: TrainConfig
    facts: Facts
    best: Best | None


def write(folder: Path, run: Run) -> None:
    """Write the card of the run in `folder`, completely or not at all."""
    # paths may contain bytes that are not text
    files.write(folder / CARD_FILE, text(run).encode(errors="backslashreplace"))


def text(run: Run) -> str:
    """The card as Markdown."""
    reader, config, facts = run.reader, run.config, run.facts
    data, losses = config.data, config.losses
    terms = (
        ("detection", losses.w_detection),
        ("correlation", losses.w_correlation),
        ("contrastive", losses.w_contrastive),
        ("projection", losses.w_projection),
    )
    weights = ", ".join(f"{name} {weight:g}" for name, weight in terms)
    corpora = reader.clips["corpus"][run.rows["train"]]
    parts = [
        front_matter(map(str, corpora), run.best, facts.validation_by),
        f"# Detector {code(config.model)}, {facts.parameters:,} parameters",
        f"Trained by concord-av (Apache-2.0) from the store {code(reader.path)}.",
        "## Training data",
        "| split | clips | real | fake | unlabelled | groups |\n|---|--:|--:|--:|--:|--:|\n"
        + "\n".join(_counts(reader, name, rows) for name, rows in run.rows.items() if name != "test"),
        _methods(reader, run.rows["train"]),
        f"Corpora: {', '.join(_corpora(reader, run.rows['train'])) or 'none'}; their licences apply to this detector too.",
        "## Protocol",
        f"Splits: {code(config.splits) if config.splits else 'as the store has them'}; validation {_by(facts.validation_by)}. "
        f"Windows of {facts.window} frames (25 a second) of {_picture(data.picture)}, trim {markdown(data.trim)}; "
        f"{counted(facts.too_short, 'training clip was', 'training clips were')} too short. Of the real clips' windows "
        f"{data.pair_share:.0%} got another clip's sound or their own shifted. "
        f"{_pseudo(data)}Losses {code(losses.preset)} ({weights}); at most {counted(config.epochs, 'epoch')}, seed "
        f"{config.seed}.",
        "## Figures on validation clips",
        figures(run.best),
        f"{_chosen(config)} were chosen on these clips, so the figures are too good: judge it by "
        "`python -m student.evaluate` on clips of other people.",
        f"## Intended use\n\n{USE}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        "## Teachers and their licences",
        "Soft labels come from these models; a non-commercial licence may extend to a detector that learned from them."
        if config.needs_projections
        else "No soft label was used; faces and voice activity come from these models.",
        "\n".join(_teacher(side, about) for side, about in reader.attrs.get("teachers", {}).items())
        or "- not recorded",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def of_header(header: Header) -> str:
    """A short card of a detector whose own is lost, from its header alone."""
    parts = [
        front_matter(header.corpora),
        f"# Detector {code(header.model)}",
        f"Trained by concord-av (Apache-2.0). Windows of {header.window} frames (25 a second) of {_picture(header.picture)}; "
        f"threshold and temperature fitted on {markdown(header.fitted_on or 'clips that are not recorded')}.",
        f"Corpora with real clips in its calibration: {', '.join(sorted(map(code, header.corpora))) or 'none'}. The card "
        "that its training wrote was not with it: what it was trained on and under whose licences is not known here.",
        f"## Intended use\n\n{USE}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(corpora: Iterable[str], best: Best | None = None, validation_by: str = "none") -> str:
    """The YAML at the top. `corpora` of the training clips: only those that anyone may have are named in it.

    The licence is "unknown": the weights' is that of corpora and teachers, which the text names. The figures are of
    validation, and their name says so.
    """
    told: dict[str, Any] = {"library_name": LIBRARY, "pipeline_tag": TASK, "license": "unknown", "tags": list(TAGS)}
    if known := sorted({OPEN[kind] for kind in (name.partition(":")[0] for name in corpora) if kind in OPEN}):
        told["datasets"] = known
    if results := _results(best):
        on = f"validation clips of its own corpora, {_by(validation_by)}; they also chose it"
        told["metrics"] = [result["type"] for result in results]
        result = {"task": {"type": TASK}, "dataset": {"name": on, "type": "unknown"}, "metrics": results}
        told["model-index"] = [{"name": LIBRARY, "results": [result]}]
    return f"---\n{yaml.safe_dump(told, sort_keys=False, width=1000)}---"


def _results(best: Best | None) -> list[dict[str, Any]]:
    """Validation's figures as the Hub lists them, each with the number of trials behind it."""
    if best is None or not best.figures.trials:
        return []
    found = best.figures.finite()
    on = counted(best.figures.trials, "validation trial")
    return [
        {"type": METRICS[name], "name": f"{name} on {on}", "value": round(found[name], 4)}
        for name in METRICS
        if name in found
    ]


def _counts(reader: Reader, name: str, rows: np.ndarray) -> str:
    label = np.asarray(reader.clips["label"])[rows]
    groups = len({str(g) for g in np.asarray(reader.clips["group"])[rows]})
    real, fake, unknown = ((label == y).sum() for y in (0, 1, -1))
    return f"| {markdown(name)} | {len(rows)} | {real} | {fake} | {unknown} | {groups} |"


def _methods(reader: Reader, rows: np.ndarray) -> str:
    found = Counter(str(m) for m in np.asarray(reader.clips["method"])[rows] if m)
    return f"Methods of forgery: {', '.join(f'{markdown(name)} ({n})' for name, n in sorted(found.items()))}." if found else (
        "No forged clips: fakes were real clips with another sound, or with their own shifted."
    )  # fmt: skip


def _corpora(reader: Reader, rows: np.ndarray) -> list[str]:
    return sorted({code(c) for c in np.asarray(reader.clips["corpus"])[rows]})


def _pseudo(data: DataConfig) -> str:
    if not data.pseudo_share:
        return ""
    made = (
        f"Of {data.pseudo_share:.0%} a pseudo-fake was"
        if data.pseudo_share <= 1
        else f"{data.pseudo_share:g} pseudo-fakes of each were"
    )
    return f"{made} made, for a branch that sees how mouths are drawn. "


def _chosen(config: TrainConfig) -> str:
    """What validation decided."""
    found = ["epoch"] if config.keep == "best" else []
    found += ["weights of both branches"] if config.data.pseudo_share else []
    return f"{', '.join([*found, 'threshold'])} and temperature".capitalize()


def _picture(name: str) -> str:
    return f"{'whole faces' if name == 'face' else 'mouth crops'} ({code(f'frames/{name}')})"


def _by(validation_by: str) -> str:
    return {
        "store": "as marked in the store",
        "file": "as marked in that file",
        "group": "split off by group, no group on both sides",
        "lone": "split off by clip, because each is a group of its own: identities are unknown, people may be on both sides",
        "clip": "split off by clip: figures are for known faces and voices",
        "none": "none",
    }[validation_by]


def figures(best: Best | None) -> str:
    """Validation figures in a sentence; missing ones are left out."""
    if best is None or not best.figures.trials:
        return "There were no validation clips with both classes: threshold and temperature are not fitted."
    found = best.figures
    numbers = {name: value for name, value in found.finite().items() if name.startswith(("auc", "brier"))}
    shown = ", ".join(f"{markdown(name.replace('_', ' '))} {value:.3f}" for name, value in numbers.items())
    return (
        f"After epoch {best.epoch}, on {counted(found.trials, 'trial')}: {shown}; threshold {found.threshold:.3f}, temperature "
        f"{found.temperature:.3f}."
    )


def _teacher(side: str, about: Mapping[str, Any]) -> str:
    licence, sha256 = about.get("licence", "not recorded"), str(about.get("sha256", ""))[:16]
    name = code(about.get("name", "unknown"))
    return f"- {markdown(side)}: {name}, licence {markdown(licence)}, SHA-256 {markdown(sha256)}"
