"""Makes a run's report (records of `pipelines.job.report_page`) and writes it into the store's folder, as JSON and as a page.

Both files are written at the end of a run that did something, even if it failed or was stopped, and from time to time
while it runs, so that a killed driver leaves a report too. docs/precompute.md describes the fields.
"""

from __future__ import annotations

import heapq
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np

import store
from concord import plain_json
from concord.secrets import redact
from pipelines.errors import UsageError
from pipelines.job import report_page, request
from pipelines.job.report_page import (
    Clips,
    Cost,
    CostRow,
    Example,
    Failures,
    Labels,
    Limit,
    Machine,
    Report,
    Retries,
    Run,
    SlowClip,
    Stage,
    Timeline,
)
from pipelines.job.request import Config
from pipelines.job.usage import StageUsage, Summary, Usage, first_line
from pipelines.reasons import INFRASTRUCTURE
from pipelines.tables.ledger import Entry
from pipelines.workers.threads import cores
from store import layout
from store.place import Place, place
from store.seen import Seen

log = logging.getLogger(__name__)

VERSION = 1
JSON, HTML = "report.json", "report.html"
EXAMPLES = 5  # clips named for each kind of failure
SLOWEST = 20
EVERY_S, SHARE = 60.0, 0.05  # while it runs: not more often, and at most this share of the driver's time
BUSY = 0.7  # a stage whose workers are busy for more than this share of their time limits the run
HOURS = 1000.0  # of video, for which the cost is stated
# US dollars per hour, AWS on demand, us-east-1, Linux, June 2026: c6i.8xlarge 1.36 for 32 vCPUs, g5.xlarge 1.006 with an A10G.
CORE_PRICE, GPU_PRICE = 0.0425, 1.006
PRICES = "AWS on demand, us-east-1, June 2026: a vCPU of c6i.8xlarge, a g5.xlarge with its GPU"
SOFTWARE = ("concord-av", "ray", "torch", "numpy", "zarr", "av", "mediapipe")
CRASHES = ("crash", "timeout", "killed")
WORK = {"headers", "pass one", "labels", "words"}  # a run with one of these parts did something


@contextmanager
def kept(summary: Summary, config: Config, entries: Mapping[str, Entry]) -> Iterator[Callable[[], None]]:
    """Write a report of the run to the store when the block ends, in any way. The yielded callable, called often, also
    updates it during the block. `entries` is the ledger by clip id, as it is at the time. A report that
    cannot be written causes a warning only."""
    last = time.monotonic(), 0.0  # time of the last report, and the seconds that it took

    def now() -> None:
        nonlocal last
        begun = time.monotonic()
        if begun - last[0] > max(EVERY_S, last[1] / SHARE):
            _try(summary, config, entries, "running", "")
            last = time.monotonic(), time.monotonic() - begun

    try:
        yield now
    except BaseException as error:
        if summary.worked or not isinstance(
            error, UsageError
        ):  # a UsageError before any work means that nothing was changed
            _try(summary, config, entries, *ending(error))
        raise
    if set(summary.parts.seconds) & WORK:
        _try(summary, config, entries, "ended", "")


def ending(error: BaseException) -> tuple[str, str]:
    """State and message of a run that an error or a signal ended."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped", "by Ctrl-C"
    if isinstance(error, SystemExit):
        return "stopped", f"by signal {error.code - 128}" if isinstance(error.code, int) else ""
    return "failed", first_line(error)


def write(root: str | os.PathLike[str] | Place, report: Report) -> None:
    """Write a report's two files."""
    (place(root) / JSON).write(json.dumps(to_json(report), indent=1, allow_nan=False).encode())
    (place(root) / HTML).write(report_page.page(report).encode("utf-8", "backslashreplace"))


def to_json(report: Report) -> dict[str, Any]:
    """The content of `report.json`: floats with six digits, null for values that are not finite."""
    return plain_json.cleaned(asdict(report), digits=6)


def gather(summary: Summary, config: Config, entries: Mapping[str, Entry], state: str, message: str) -> Report:
    """The report, from the run's counts, the ledger and the store; `state` is running, ended, stopped or failed."""
    reader = store.open(config.store)
    clips, usage, parts = reader.clips, summary.usage, summary.parts
    seconds = time.time() - usage.begun
    has = machine()
    done = int((clips["done"] == 1).sum())
    failed = sum(1 for entry in entries.values() if entry.reason)
    return Report(
        version=VERSION,
        run=Run(
            state=state,
            message=redact(message),
            during=parts.broken if state in ("stopped", "failed") else "",
            begun=_iso(usage.begun),
            written=_iso(time.time()),
            seconds=seconds,
            store=str(config.store),
            command=request.command(sys.argv),
            commit=request.commit(),
            software={"python": sys.version.split()[0], **_versions()},
        ),
        machine=has,
        clips=Clips(
            total=len(reader),
            done=done,
            failed=failed,
            left=max(0, len(reader) - done - failed),
            hours=float(clips["length"][clips["done"] == 1].sum()) / layout.FPS / 3600,
            this_run=summary.worked,
            this_run_hours=summary.video_seconds / 3600,
        ),
        parts={**parts.seconds, "other": max(0.0, seconds - sum(parts.seconds.values()))},
        stages={name: of_stage(stage, usage.share(name)) for name, stage in usage.stages.items()},
        limit=limit(usage, seconds),
        timeline=timeline(usage, seconds),
        failures=failures(entries.values()),
        slowest=slowest(entries, clips),
        retries=Retries(
            again=sum(1 for entry in entries.values() if entry.attempts > 1),
            crashed=sum(1 for entry in entries.values() if entry.reason in CRASHES),
            breaks=summary.breaks,
        ),
        cost=cost(summary, config, has, seconds),
        labels=labels(reader.attrs.get("similarity") or {}, summary.seen),
    )


def of_stage(stage: StageUsage, share: float) -> Stage:
    """A stage's figures; rates are of one worker while it is busy."""
    return Stage(
        clips=stage.clips,
        frames=stage.frames,
        workers=stage.most_workers,
        busy_s=stage.busy_s,
        present_s=stage.present_s,
        utilisation=stage.utilisation,
        share=share,
        clips_per_s_a_worker=stage.clips / stage.busy_s if stage.busy_s else None,
        ms_a_frame=1000 * stage.busy_s / stage.frames if stage.frames else None,
        padding=max(0.0, stage.padding),
    )


def limit(usage: Usage, seconds: float) -> Limit | None:
    """The stage whose workers were busiest, and its effect on a run of that length; None before any work."""
    if not usage.stages:
        return None
    name = max(usage.stages, key=usage.share)
    stage, share = usage.stages[name], usage.share(name)
    were = f"{stage.most_workers} worker was" if stage.most_workers == 1 else f"{stage.most_workers} workers were"
    busy = f"{were} busy {share:.0%} of the time"
    if stage.span_s < seconds / 2:
        had = f"had work for {stage.span_s:.0f} of {seconds:.0f} s"
        said = (
            f"Most of the time no clip was in progress: {name}, the busiest stage, {had}. The rest are the parts above."
        )
    elif share < BUSY:
        most = f"{name} most ({share:.0%})"
        said = f"No stage was busy all the time, {most}: too few clips were in progress at once."
    elif name in ("face", "words"):
        stage_name = "The face stage limits" if name == "face" else "Writing words limits"
        said = f"{stage_name} the run: its {busy}. More CPU cores make it faster."
    else:
        said = f"The {name} teacher limits the run: its {busy}. Raise --{name}-workers, or add GPUs."
    return Limit(name, share, said)


def timeline(usage: Usage, seconds: float) -> Timeline:
    """By stage, clips per second and busy workers in each bin of the run's time."""
    count = math.ceil(seconds / usage.bin_s)
    return Timeline(
        usage.bin_s,
        {name: [n / usage.bin_s for n in s.clips_in[:count]] for name, s in usage.stages.items()},
        {name: [n / usage.bin_s for n in s.busy_in[:count]] for name, s in usage.stages.items()},
    )


def failures(entries: Iterable[Entry]) -> list[Failures]:
    """Failed clips by stage and reason, the most frequent first, with a few examples each."""
    found: dict[tuple[str, str], Failures] = {}
    for entry in entries:
        if entry.reason:
            kind = found.setdefault((entry.stage, entry.reason), Failures(entry.stage, entry.reason))
            kind.clips += 1
            kind.again = report_page.AGAIN if entry.reason in INFRASTRUCTURE else "--retry-failed"
            if len(kind.examples) < EXAMPLES:
                kind.examples.append(Example(entry.id, entry.path, redact(entry.message)))
    return sorted(found.values(), key=lambda kind: (-kind.clips, kind.stage, kind.reason))


def slowest(entries: Mapping[str, Entry], clips: Mapping[str, np.ndarray]) -> list[SlowClip]:
    """The slowest clips, with their decoded or declared length."""
    top = heapq.nlargest(SLOWEST, (e for e in entries.values() if e.seconds > 0), key=lambda e: e.seconds)
    wanted = {entry.id for entry in top}
    length = {str(i): float(s) for i, s in zip(clips["id"], clips["duration"], strict=True) if str(i) in wanted}
    found = []
    for e in top:
        video = length.get(e.id)
        by_length = e.seconds / video if video is not None and video > 0 else None
        found.append(SlowClip(e.id, e.path, e.seconds, video, by_length, e.attempts, e.stage, e.reason))
    return found


def cost(summary: Summary, config: Config, has: Machine, seconds: float) -> Cost | None:
    """Hours of CPU cores and GPUs for 1,000 hours of video, estimated from this run: for work only, and including idle
    time of the machines. None for a run that processed no clip."""
    video = max((stage.frames for stage in summary.usage.stages.values()), default=0) / layout.FPS
    if not video:
        return None
    pools, parts, rows = config.pools, summary.parts, []
    share = min(1.0, has.gpus / (pools.asr[1] + pools.vsr[1]))
    for name, stage in summary.usage.stages.items():
        own = HOURS * stage.busy_s / max(stage.frames / layout.FPS, 1e-9)
        on_gpu = name != "face" and has.gpus > 0
        rows.append(_hours(name, 0.0 if on_gpu else own, own * (1.0 if name == "words" else share) if on_gpu else 0.0))
    rest = sum(parts.jobs_s.get(name, 0.0) for name in ("headers", "labels"))
    rows.append(_hours("headers and labels", HOURS * rest / video, 0.0))
    rows.append(_hours("work", sum(r.core_hours for r in rows), sum(r.gpu_hours for r in rows)))
    whole = HOURS * max(seconds - parts.seconds.get("fit", 0.0), 0.0) / video
    rows.append(_hours("as this run went", whole * has.cpus, whole * has.gpus))
    return Cost(HOURS, video / 3600, CORE_PRICE, GPU_PRICE, PRICES, rows)


def _hours(name: str, cores: float, gpus: float) -> CostRow:
    return CostRow(name, cores, gpus, cores * CORE_PRICE + gpus * GPU_PRICE)


def labels(note: Mapping[str, Any], by_split: Mapping[str, Seen] | None = None) -> Labels | None:
    """Quality of the soft labels, from the note of the fit, and what it has seen of each split; None if there are none."""
    told = {**note, "seen": {name: one.to_json() for name, one in (by_split or {}).items()}}
    return Labels(**{f.name: plain_json.cleaned(told.get(f.name)) for f in fields(Labels)}) if note else None


def machine() -> Machine:
    """Nodes, CPUs and GPUs of the run, and nodes that it lost."""
    here = Machine(nodes=1, cpus=cores())
    ray: Any = sys.modules.get("ray")  # a run without it does not import it for this
    if ray is None or not ray.is_initialized():
        return here
    try:
        nodes = ray.nodes()
    except Exception as error:  # the run may have failed because of the cluster
        log.debug("the cluster cannot be asked for its nodes: %s", error)
        return here
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    kind = "accelerator_type:"
    return Machine(
        nodes=len(alive),
        cpus=int(sum(has.get("CPU", 0) for has in alive)),
        gpus=int(sum(has.get("GPU", 0) for has in alive)),
        gpu_names=sorted({name.removeprefix(kind) for has in alive for name in has if name.startswith(kind)}),
        nodes_gone=len(nodes) - len(alive),
    )


def _try(summary: Summary, config: Config, entries: Mapping[str, Entry], state: str, message: str) -> None:
    try:
        write(config.store, gather(summary, config, entries, state, message))
        summary.report = str(place(config.store) / HTML)
    except Exception as error:
        log.warning("no report was written: %s", first_line(error))


def _versions() -> dict[str, str]:
    found = {}
    for name in SOFTWARE:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            log.debug("%s is not installed", name)
    return found


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
