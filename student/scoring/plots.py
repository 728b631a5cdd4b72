"""Pictures of an evaluation: ROC and DET curves, score histograms and a reliability diagram, on one sheet."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from concord import text
from store import output
from student.config import ConfigError
from student.scoring import metrics
from student.scoring.report import Report, TrialScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMMAND = "student.evaluate"
BINS = 10
KINDS = ("png", "pdf", "svg")
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # ticks of the DET curve
MOST = 6  # methods in a picture, at most


def sheet(report: Report, path: Path) -> None:
    """Write one picture, completely or not at all. Curves: each method with both classes, student solid, teachers
    dashed; made pairs only if the split has no forged clips."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    FigureCanvasAgg(figure)
    roc, det, histogram, reliability = figure.subplots(2, 2).ravel()
    figure.suptitle(text.label(f"split {report.split} of {Path(report.store).name}, trim {report.variants[0].trim}"))
    methods = _methods(report)
    for k, (name, trials) in enumerate(list(methods.items())[:MOST]):
        for who, style in (("student", "-"), ("teacher", "--")):
            if who in report.variants[0].methods.get(name, {}):
                _curves((roc, det), trials, who, f"{name}, {who}", style, f"C{k}")
    roc.plot([0, 1], [0, 1], ":", color="grey")
    roc.set(xlabel="reals called fake", ylabel="fakes called fake", title="ROC", aspect="equal")
    roc.legend(fontsize="x-small", loc="lower right")
    ticks = _deviate(np.array(RATES))
    det.set_xticks(ticks, [f"{100 * r:g} %" for r in RATES])
    det.set_yticks(ticks, [f"{100 * r:g} %" for r in RATES])
    ends = _deviate(np.array([0.005, 0.6]))
    det.set(xlabel="reals called fake", ylabel="fakes missed", title="DET", xlim=ends, ylim=ends, aspect="equal")
    if not any(len(line.get_xdata()) for line in det.lines):  # type: ignore[arg-type]
        nothing = "no curve: at every threshold\none of the two errors is 0" if methods else "no forgeries to show"
        det.text(0.5, 0.5, nothing, transform=det.transAxes, ha="center", va="center", color="grey")
    everything = [t for trials in methods.values() for t in trials]
    unique = list({t.id: t for t in everything}.values())
    if unique:
        _histogram(histogram, unique, report)
        _reliability(reliability, unique, report)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, format=kind_of(path), metadata=output.picture_metadata(COMMAND, kind_of(path)))
    output.write(path, drawn.getvalue())


def kind_of(path: Path) -> str:
    """The picture format by the name's suffix, png without one. Raises ConfigError for an unsupported format."""
    kind = path.suffix[1:].lower() or "png"
    if kind not in KINDS:
        raise ConfigError(f"{path}: a picture ends with {', '.join('.' + k for k in KINDS)}")
    return kind


def _methods(report: Report) -> dict[str, list[TrialScores]]:
    """Trials of each method that can be drawn, reals included."""
    trials = report.trials
    forged = any(t.label and not t.made for t in trials)
    found = {}
    for name in (n for n in report.variants[0].methods if n != "overall" and not n.startswith("category ")):
        made = any(t.method == name and t.made for t in trials)
        some = [t for t in trials if t.method == name or not (made or t.made or t.label)]
        if len({t.label for t in some}) == 2 and not (made and forged):
            found[name] = some
    return found


def _columns(trials: list[TrialScores], who: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of one scorer, labels and weights, f8 [n]."""
    return (
        np.array([t.scores[who] for t in trials], float),
        np.array([t.label for t in trials], float),
        np.array([t.weight for t in trials], float),
    )


def _curves(axes: tuple[Axes, Axes], trials: list[TrialScores], who: str, name: str, style: str, colour: str) -> None:
    """A scorer's curves on both axes, ROC and DET."""
    roc, det = axes
    scores, labels, weights = _columns(trials, who)
    false, true, _ = metrics.roc(scores, labels, weights)
    label = f"{text.label(name)} ({metrics.auc(scores, labels, weights):.3f})"
    roc.plot(false, true, style, color=colour, label=label)
    inside = (false > 0) & (false < 1) & (true > 0) & (true < 1)
    det.plot(_deviate(false[inside]), _deviate(1 - true[inside]), style, color=colour)


def _deviate(rate: np.ndarray) -> np.ndarray:
    """Normal quantiles of rates (Martin et al. 1997, "The DET curve in assessment of detection task performance")."""
    from scipy.stats import norm

    return np.asarray(norm.ppf(rate))


def _histogram(axes: Axes, trials: list[TrialScores], report: Report) -> None:
    scores, labels, _ = _columns(trials, "student")
    edges = np.linspace(scores.min(), max(scores.max(), scores.min() + 1e-6), 31).tolist()
    for label, name, colour in ((0, "real", "C0"), (1, "fake", "C3")):
        axes.hist(scores[labels == label], edges, density=True, alpha=0.55, color=colour, label=name)
    axes.axvline(0, color="black", linewidth=1, label="threshold, from validation")
    axes.set(xlabel="student's logit minus its threshold", ylabel="density", title="Scores")
    axes.legend(fontsize="x-small")


def _reliability(axes: Axes, trials: list[TrialScores], report: Report) -> None:
    """Share of fakes among clips of similar probability, with equal weight for both classes."""
    scores, labels, weights = _columns(trials, "student")
    p = metrics.probability(scores, 0.0, report.temperature)
    for label in (0, 1):
        weights[labels == label] /= max(weights[labels == label].sum(), 1e-9)
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    whole = np.bincount(bins, weights, BINS)
    used = whole > 0
    share = np.bincount(bins, weights * labels, BINS)[used] / whole[used]
    mean = np.bincount(bins, weights * p, BINS)[used] / whole[used]
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.plot(mean, share, "o-", color="C2")
    axes.set(
        xlabel="predicted probability of fake", ylabel="share of fakes", title="Reliability", xlim=(0, 1), ylim=(0, 1)
    )
    axes.set_aspect("equal")
