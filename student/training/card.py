"""The model card that every detector carries: what it was trained on, how it was chosen, what it is for and what it is not.

`MODEL_CARD.md` next to the weights, after Mitchell et al. 2019, "Model Cards for Model Reporting". It says what the run knows,
figures with the clips behind them, and no more: nothing in it is written by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from concord import files
from concord.text import code, markdown
from store import Reader

CARD_FILE = "MODEL_CARD.md"
USE = (
    "Ranks talking-face clips by how likely picture and voice do not belong together or are forged, for research and as one "
    "hint among others. It answers for clips with one visible face that speaks."
)
LIMITS = (
    "A forgery whose lips say what the voice says (a swapped face with its own voice, a voice cloned by sentence) shows "
    "nothing that content tells.",
    "Languages, cameras and forgeries that are not in the training data: figures above say nothing about them, and the "
    "probability is calibrated on the validation clips alone.",
    "No decision about a person may rest on it.",
)


def write(folder: Path, reader: Reader, split: Mapping[str, np.ndarray], results: Mapping[str, Any]) -> None:
    """Write the card of the run in `folder`, whole or not at all.

    `split`: rows of the clips table by split; `results`: model, parameters, config, best (validation figures of the detector
    that was kept, may be empty), validation_by, too_short, window.
    """
    # paths may hold bytes that are not text
    files.write(folder / CARD_FILE, text(reader, split, results).encode(errors="backslashreplace"))


def text(reader: Reader, split: Mapping[str, np.ndarray], results: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    config, best = results["config"], results["best"]
    data, losses = config["data"], config["losses"]
    weights = ", ".join(f"{name[2:]} {losses[name]:g}" for name in ("w_detection", "w_correlation", "w_contrastive"))
    parts = [
        f"# Detector {code(config['model'])}, {results['parameters']:,} parameters",
        f"Trained by concord-av (Apache-2.0) from the store {code(reader.path)}.",
        "## Training data",
        "| split | clips | real | fake | unlabelled | groups |\n|---|--:|--:|--:|--:|--:|\n"
        + "\n".join(_counts(reader, name, rows) for name, rows in split.items() if name != "test"),
        _methods(reader, split["train"]),
        f"Corpora: {', '.join(_corpora(reader, split['train'])) or 'none'}; their licences bind this detector too.",
        "## Protocol",
        f"Splits: {code(config['splits']) if config['splits'] else 'as the store has them'}; validation {_by(results)}. "
        f"Windows of {results['window']} frames (25 a second) of {_picture(data['picture'])}, trim {markdown(data['trim'])}; "
        f"{results['too_short']} training clips were too short. Of the real clips' windows {data['pair_share']:.0%} got "
        "another clip's sound or their own shifted. "
        f"Losses {code(losses['preset'])} ({weights}); {config['epochs']} epochs at most, seed {config['seed']}.",
        "## Figures on validation clips",
        _figures(best),
        "These clips chose epoch, threshold and temperature, so the figures are too good: judge it by "
        "`python -m student.evaluate` on clips of other people.",
        f"## Intended use\n\n{USE}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        "## Teachers and their licences",
        "Soft labels come from these models; where a licence is non-commercial it may reach a detector that learned from them."
        if losses["w_correlation"] or losses["w_contrastive"]
        else "No soft label was used; faces and voice activity come from these models.",
        "\n".join(_teacher(side, about) for side, about in reader.attrs.get("teachers", {}).items())
        or "- not recorded",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


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


def _picture(name: str) -> str:
    return f"{'whole faces' if name == 'face' else 'mouth crops'} ({code(f'frames/{name}')})"


def _by(results: Mapping[str, Any]) -> str:
    return {
        "store": "as marked in the store",
        "file": "as marked in that file",
        "group": "split off by group, no group on both sides",
        "lone": "split off by clip, since each is a group of its own: who is in them is not known, people may be on both sides",
        "clip": "split off by clip: figures are those of known faces and voices",
        "none": "none",
    }[results["validation_by"]]


def _figures(best: Mapping[str, Any]) -> str:
    if not best.get("trials"):
        return "There were no validation clips with both classes: threshold and temperature are not fitted."
    named = [(markdown(k.replace("_", " ")), v) for k, v in best.items() if k.startswith(("auc", "brier"))]
    shown = ", ".join(f"{name} {value:.3f}" for name, value in named if value == value)
    return (
        f"After epoch {best['epoch']}, on {best['trials']} trials: {shown}; threshold {best['threshold']:.3f}, temperature "
        f"{best['temperature']:.3f}."
    )


def _teacher(side: str, about: Mapping[str, Any]) -> str:
    licence, sha256 = about.get("licence", "not recorded"), str(about.get("sha256", ""))[:16]
    name = code(about.get("name", "unknown"))
    return f"- {markdown(side)}: {name}, licence {markdown(licence)}, SHA-256 {markdown(sha256)}"
