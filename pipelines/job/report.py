"""The last lines of a run: clips, hours, speed, stages, failures by reason, and the quality of the soft labels."""

from __future__ import annotations

import re
from collections import Counter

from concord.text import byte_size, counted, plain
from pipelines.job import space
from pipelines.job.request import Config
from pipelines.job.usage import Summary
from pipelines.labels import words
from pipelines.workers.address import resolve
from store import layout, seen

EXAMPLES = 10  # failed clips named in the last lines, and notes
NUMBER = re.compile(r"\d+(?:[.x:]\d+)*")  # also a time or a size


def text(summary: Summary, config: Config) -> str:
    """The report as text for the user."""
    if config.dry_run:
        return _expectation(summary, config)
    lines = []
    hours = summary.video_seconds / 3600
    if summary.worked:
        speed = summary.video_seconds / max(summary.seconds, 1e-9)
        lines.append(
            f"{counted(summary.worked, 'clip')}, {hours:.3f} h of video in {summary.seconds:.0f} s: {speed:.1f} times real "
            f"time, {summary.worked / max(summary.seconds, 1e-9):.1f} clips/s"
        )
    elif summary.usage.stages:
        worded = max(stage.clips for stage in summary.usage.stages.values())
        lines.append(f"no clip was missing; the words of {worded} were written, in {summary.seconds:.0f} s")
    else:
        lines.append("soft labels are rewritten" if config.refit else "nothing to do: no clip is missing")
    lines += _stages(summary)
    lines.append(f"{summary.done} of {counted(summary.clips, 'clip')} done in {plain(config.store)}{_with(summary)}")
    lines += map(plain, summary.splits)
    lines += _quality(summary)
    if summary.report:
        lines.append(f"report: {plain(summary.report)}")
    lines += _notes(summary)
    if summary.failed:
        reasons = Counter((entry.stage, entry.reason) for entry in summary.failed)
        listed = ", ".join(f"{n} {stage}/{reason}" for (stage, reason), n in sorted(reasons.items()))
        lines.append(f"{len(summary.failed)} failed: {listed}")
        lines += [f"  {plain(entry.id)}: {plain(entry.message)}" for entry in summary.failed[:EXAMPLES]]
        more = len(summary.failed) - EXAMPLES
        lines.append(
            f"{'  and ' + str(more) + ' more; ' if more > 0 else '  '}all are in {plain(config.store / 'ledger.parquet')}"
        )
    if summary.traces:
        lines.append(
            f"some failed because of errors in the program itself; their tracebacks are in {plain(summary.traces)}"
        )
    if not summary.labelled:
        lines.append(
            "no soft labels yet, because no finished clip of train is known to be real; add real clips (--corpus folder:ROOT "
            f"with ROOT/real), or use another fit: python precompute.py --store {plain(config.store)} --fit-from OTHER_STORE"
        )
    return "\n".join(lines)


def _stages(summary: Summary) -> list[str]:
    """A line for each stage that worked."""
    lines = []
    for name, stage in summary.usage.stages.items():
        each, rate = stage.busy_s / max(stage.frames, 1) * 1000, stage.clips / max(stage.busy_s, 1e-9)
        workers = counted(stage.most_workers, "worker")
        lines.append(
            f"  {name:5} {rate:7.1f} clips/s a worker, {each:6.2f} ms a frame; {workers} busy "
            f"{summary.usage.share(name):.0%} of the time"
        )
    return lines


def _notes(summary: Summary) -> list[str]:
    """How many clips each note is about, the most frequent first; notes that differ in numbers alone count together."""
    alike: dict[str, list[str]] = {}
    for notes in summary.notes:
        for kind, note in {NUMBER.sub("#", note): note for note in notes.split("\n")}.items():
            alike.setdefault(kind, []).append(note)
    if not alike:
        return []
    ordered = sorted(alike.values(), key=lambda some: (-len(some), some[0]))
    told = [f"  {len(some)}: {'such as ' if len(set(some)) > 1 else ''}{plain(some[0])}" for some in ordered]
    more = [f"  and {counted(len(told) - EXAMPLES, 'more kind')}"] if len(told) > EXAMPLES else []
    return [f"notes on {counted(len(summary.notes), 'clip')}, all in the ledger:", *told[:EXAMPLES], *more]


def exit_code(summary: Summary, max_failures: float) -> int:
    """0 if every clip is done, or at most that share failed; else 3."""
    total = max(summary.clips, len(summary.failed), 1)
    return 0 if len(summary.failed) <= max_failures * total else 3


def _quality(summary: Summary) -> list[str]:
    note = summary.similarity
    if not note:
        return []
    fitted = note.get("fitted_on")
    learned = ", nothing learned"
    if fitted:
        learned = f" on {counted(fitted['clips'], 'real clip')}, {counted(fitted['frames'], 'frame')} with voice"
    lines = [f"soft labels: {note['kind']}{learned}"]
    if summary.seen:
        lines.append(f"  {seen.sentence(summary.seen)}")
    for corpus, auc in note.get("auc", {}).items():
        brier, on = note["brier"][corpus], note["calibrated_on"].get(corpus)
        calibrated = f"calibrated on {on['clips']} {on['which']}" if on else "uncalibrated"
        seen_of = seen.Seen(on.get("seen"), on["clips"]) if on else seen.Seen(0, 0)
        mark = "" if seen_of.clips == 0 else f"; {seen_of.text()}"
        lines.append(
            f"  {corpus}: own sound against swapped, AUC {auc['5']:.3f} (5 frames), {auc['25']:.3f} (1 s), {auc['clip']:.3f} "
            f"(clip); Brier {brier['5']:.3f}, {brier['25']:.3f}, {brier['clip']:.3f}; {calibrated}{mark}"
        )
    if "shuffled_control" in note:
        lines.append(
            f"  control fitted on shuffled pairs: AUC {note['shuffled_control']['5']:.3f} (5 frames); 0.5 is chance"
        )
    return lines


def _with(summary: Summary) -> str:
    """Optional arrays of the store."""
    return f" with {' and '.join(f'frames/{name}' for name in summary.arrays)}" if summary.arrays else ""


def _expectation(summary: Summary, config: Config) -> str:
    """The work of a run, and the resources that it needs."""
    frames = round(summary.video_seconds * layout.FPS)
    need, free = space.needed(frames, summary.dims, summary.arrays), space.free(config.store)
    minutes = max(1, round(space.minutes(frames, summary.cpus)))
    where = "of the cluster as it is now" if resolve(config.address) != "local" else "of this machine"
    kept = byte_size(space.stays(frames, summary.dims, summary.arrays)) + f" of store{_with(summary)}"
    lines = [
        f"{counted(summary.clips - len(summary.failed), 'clip')} to add, {summary.video_seconds / 3600:.3f} h of video: about "
        f"{kept}, made in {counted(minutes, 'minute')} on the {counted(summary.cpus, 'CPU')} {where}"
    ]
    if free is not None:
        enough = "enough" if free >= need * space.MARGIN else "may be too little" if free >= need else "too little"
        lines.append(f"{byte_size(need)} of disk space are needed during the run, {byte_size(free)} are free: {enough}")
    if config.words:
        lines.append(f"--words adds {words.minutes(frames)}, shared by the workers; larger models take longer")
    lines += map(plain, summary.splits)
    if summary.warning:
        lines.append(f"warning: {summary.warning}")
    if summary.failed:
        lines.append(f"{len(summary.failed)} cannot be opened:")
        lines += [f"  {plain(entry.path)}: {plain(entry.message)}" for entry in summary.failed[:EXAMPLES]]
    return "\n".join(lines)
