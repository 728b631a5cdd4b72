"""The report of a run as records, and `report.html`, which shows them.

The records have the fields of `report.json` (docs/precompute.md describes them); `pipelines.job.report_data` makes both
files. The page is `templates/report.html.j2`: it needs no network and no scripts, and works on phones, in light and
dark mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from concord.pages.environment import as_hours, as_span
from concord.text import counted
from pipelines.ui.pages import render

COMMAND = "precompute"
STAGES = {"face": "Decode, face, voice", "asr": "Sound teacher", "vsr": "Lips teacher", "words": "Words"}
PARTS = ("start", "headers", "pass one", "fit", "labels", "words", "other")
AGAIN = "next run"  # when a clip that failed for lack of memory, disk or workers is tried again
SHORTEST_S = 0.05  # parts below it are not drawn
LITTLE_H = 0.5  # hours of video below which start and end of a run dominate its cost

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """The run itself; `state` is running, ended, stopped or failed, `during` the part that an error or a signal ended."""

    state: str
    message: str
    during: str
    begun: str  # ISO 8601, UTC
    written: str
    seconds: float
    store: str
    command: str
    commit: str
    software: Mapping[str, str]  # versions by name


@dataclass(frozen=True)
class Machine:
    """Resources of the run: nodes, CPUs and GPUs, and the nodes that it lost."""

    nodes: int
    cpus: int
    gpus: int = 0
    gpu_names: Sequence[str] = ()
    nodes_gone: int = 0


@dataclass(frozen=True)
class Clips:
    """Clips of the store by outcome, and those of this run, with their hours of video."""

    total: int
    done: int
    failed: int
    left: int
    hours: float
    this_run: int
    this_run_hours: float


@dataclass(frozen=True)
class Stage:
    """A stage's figures; rates are those of one worker while it is busy; `share`: busy share of the whole pass."""

    clips: int
    frames: int
    workers: int
    busy_s: float
    present_s: float
    utilisation: float
    share: float
    clips_per_s_a_worker: float | None
    ms_a_frame: float | None
    padding: float  # frames of padding as a share of the clips' own


@dataclass(frozen=True)
class Limit:
    """The stage that was busiest, and a sentence on what limits the run."""

    stage: str
    utilisation: float
    text: str


@dataclass(frozen=True)
class Timeline:
    """By stage, clips a second and workers busy in each bin of the run's time."""

    bin_s: float
    clips_per_s: Mapping[str, Sequence[float]]
    busy: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Example:
    """One failed clip."""

    id: str
    path: str
    message: str


@dataclass
class Failures:
    """Clips that failed in one stage for one reason; `again` says when they are tried again."""

    stage: str
    reason: str
    clips: int = 0
    again: str = ""
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class SlowClip:
    """A slow clip: seconds of work in all stages, seconds of video, and their ratio."""

    id: str
    path: str
    seconds: float
    video_s: float | None
    per_video_s: float | None
    attempts: int
    stage: str
    reason: str


@dataclass(frozen=True)
class Retries:
    """Clips that needed more than one attempt, that crashed or hung, and the number of times that workers or nodes were
    lost."""

    again: int
    crashed: int
    breaks: int


@dataclass(frozen=True)
class CostRow:
    """Hours of cores and GPUs for one kind of work, and their price."""

    name: str
    core_hours: float
    gpu_hours: float
    usd: float


@dataclass(frozen=True)
class Cost:
    """The cost of `hours_of_video`, estimated from the `from_hours` of video of this run."""

    hours_of_video: float
    from_hours: float
    usd_a_core_hour: float
    usd_a_gpu_hour: float
    prices: str  # source of the prices
    rows: Sequence[CostRow]


@dataclass(frozen=True)
class Labels:
    """Quality of the soft labels, from the fit's note in the store; figures by corpus, then by window."""

    kind: str
    fitted_on: Mapping[str, int] | None
    auc: Mapping[str, Figures] | None
    brier: Mapping[str, Figures] | None
    calibrated_on: Mapping[str, Mapping[str, object]] | None
    shuffled_control: Figures | None
    seen: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)  # by split: clips the fit learned from


@dataclass(frozen=True)
class Report:
    """The whole report, in the order of `report.json`."""

    version: int
    run: Run
    machine: Machine
    clips: Clips
    parts: Figures  # seconds
    stages: Mapping[str, Stage]
    limit: Limit | None
    timeline: Timeline
    failures: Sequence[Failures]
    slowest: Sequence[SlowClip]
    retries: Retries
    cost: Cost | None
    labels: Labels | None


@dataclass(frozen=True)
class Part:
    """One part of the run in the bar of all parts: its seconds, their share of the drawn ones, and its colour."""

    name: str
    seconds: float
    share: float
    colour: str


@dataclass(frozen=True)
class Track:
    """One row of the timeline's drawing: an SVG path of `width` steps, 100 high."""

    kind: str
    label: str
    width: int
    path: str


def page(report: Report) -> str:
    """The whole page for a report."""
    tone, title = headline(report)
    return render(
        "pipelines.job/report.html.j2",
        COMMAND,
        title=title,
        tone=tone,
        report=report,
        tiles=tiles(report),
        parts=parts(report),
        names=STAGES,
        tracks=tracks(report),
        again=sum(kind.clips for kind in report.failures if kind.again == AGAIN),
        little=LITTLE_H,
    )


def headline(report: Report) -> tuple[str, str]:
    """Tone (good, warn, bad, plain) and the sentence with the outcome."""
    clips, state = report.clips, report.run.state
    far = f"{clips.done:,} of {counted(clips.total, 'clip')} {'is' if clips.done == 1 else 'are'} done"
    if state == "running":
        return "plain", f"Under way: {far}"
    if state == "stopped":
        return "warn", f"Stopped: {far}"
    if state == "failed":
        return "bad", f"The run failed: {far}"
    if not clips.total:
        return "warn", "The store has no clips"
    if clips.done == clips.total:
        return "good", "The one clip is done" if clips.total == 1 else f"All {clips.total:,} clips are done"
    rest = [f"{clips.failed:,} failed"] if clips.failed else []
    rest += [f"{clips.left:,} still to do"] if clips.left else []
    return "warn" if clips.done else "bad", ", ".join([far, *rest])


def tiles(report: Report) -> list[tuple[str, str]]:
    """The figures under the headline, each with its unit."""
    clips, run = report.clips, report.run
    speed = clips.this_run_hours * 3600 / run.seconds if run.seconds else 0
    found = [
        (f"{clips.done:,}", f"of {counted(clips.total, 'clip')} done"),
        (as_hours(clips.hours), "of video in the store"),
        (as_span(run.seconds), f"this run, {counted(clips.this_run, 'clip')}"),
    ]
    if clips.this_run:
        found.append((f"{speed:.1f} ×" if speed >= 1 else f"{speed:.2g} ×", "real time in this run"))
    if clips.failed:
        found.append((f"{clips.failed:,}", "failed"))
    return found


def parts(report: Report) -> list[Part]:
    """The parts of the run that are long enough to be drawn."""
    spent = {name: report.parts[name] for name in PARTS if report.parts.get(name, 0) >= SHORTEST_S}
    total = sum(spent.values())
    return [Part(name, s, s / total, f"var(--p{PARTS.index(name)})") for name, s in spent.items()]


def tracks(report: Report) -> list[Track]:
    """The timeline: clips per second in the busiest stage (stages that wait for it work in bursts), and busy
    workers."""
    if report.limit is None:
        return []
    through = report.timeline.clips_per_s[report.limit.stage]
    if len(through) < 3:
        return []
    found = [_track("tall", f"clips/s, most {max(through):.1f}", through, max(through))]
    for name, busy in report.timeline.busy.items():
        workers = report.stages[name].workers
        found.append(_track("dim", f"{name} workers, of {workers}", busy, max(workers, *busy)))
    return found


def _track(kind: str, label: str, values: Sequence[float], top: float) -> Track:
    scale = 100 / top if top > 0 else 0
    steps = "".join(f"V{100 - min(v * scale, 100):.1f}h1" for v in values)
    return Track(kind, label, len(values), f"M0 100{steps}V100z")
