"""`report.html`: what `report.json` says, as one page that needs no network and no script, for phones, by day and by night.

Every name and message in it comes from files and may be hostile: text goes through `t`, and the page forbids scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from concord.text import html as t
from pipelines.ui.html import STYLE, as_count, as_hours, as_number, as_section, as_span, as_table, as_when
from store import output

STAGES = {"face": "Decode, face, voice", "asr": "Sound teacher", "vsr": "Lips teacher"}
PARTS = ("start", "headers", "pass one", "fit", "labels", "words", "other")


def page(data: Mapping[str, Any]) -> str:
    """The whole page for a report of version 1 (`pipelines.job.report_data.gather`)."""
    tone, head = headline(data)
    run = data["run"]
    refresh = '<meta http-equiv="refresh" content="60">' if run["state"] == "running" else ""
    body = [
        f'<header class="{tone}"><p class="kicker">concord-av precompute, {t(as_when(run["written"]))}</p>'
        f"<h1>{t(head)}</h1>{''.join(f'<p>{part}</p>' for part in advice(data))}</header>",
        _tiles(data),
        as_section("Failures", _failures(data)) if data["failures"] else "",
        as_section("Where the time went", _time(data)),
        as_section("Soft labels", _labels(data["labels"])) if data["labels"] else "",
        as_section("Slowest clips", _slowest(data["slowest"])) if data["slowest"] else "",
        as_section("What 1,000 hours of video would cost", _cost(data["cost"])) if data["cost"] else "",
        as_section("The run", _run(data)),
    ]
    return (
        f"{output.head('precompute')}<title>{t(head)}</title>"
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"{refresh}<style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def headline(data: Mapping[str, Any]) -> tuple[str, str]:
    """Tone (good, warn, bad, plain) and the sentence that says what happened."""
    clips, state = data["clips"], data["run"]["state"]
    total, done, failed = clips["total"], clips["done"], clips["failed"]
    far = f"{done:,} of {as_count(total, 'clip')} {'is' if done == 1 else 'are'} done"
    if state == "running":
        return "plain", f"Under way: {far}"
    if state == "stopped":
        return "warn", f"Stopped: {far}"
    if state == "failed":
        return "bad", f"The run failed: {far}"
    if not total:
        return "warn", "The store has no clips"
    if done == total:
        return "good", "The one clip is done" if total == 1 else f"All {total:,} clips are done"
    rest = [f"{failed:,} failed"] if failed else []
    rest += [f"{clips['left']:,} still to do"] if clips["left"] else []
    return "warn" if done else "bad", ", ".join([far[0].upper() + far[1:], *rest])


def advice(data: Mapping[str, Any]) -> list[str]:
    """What to do next, as HTML."""
    run, clips = data["run"], data["clips"]
    again = f"<code>{t(run['command'])}</code>"
    if run["state"] == "running":
        return [
            f"As of {t(as_when(run['written']))}. If no run is going on any more, it was killed: go on with {again}."
        ]
    if run["state"] in ("stopped", "failed"):
        what = t(run["message"]) or "by a signal"
        told = f"Stopped {what}" if run["state"] == "stopped" else what[0].upper() + what[1:]
        during = f" (during {t(run['during'])})" if run["during"] else ""
        return [f"{told}{during}.", f"What was finished is kept. Go on with {again}."]
    found = []
    machines = sum(kind["clips"] for kind in data["failures"] if kind["again"] == "next run")
    if count := machines + clips["left"]:
        they = "it is" if count == 1 else "they are"
        why = "for want of memory, disk or workers"
        found.append(f"{as_count(count, 'clip')} missed out {why} and not for what {they}: run {again} again.")
    if clips["failed"] > machines:
        found.append(
            "Clips that failed are left out, the others are complete. Mend files that matter, then run the command again "
            "with <code>--retry-failed</code>."
        )
    if not data["labels"]:
        found.append(
            "There are no soft labels yet, as no clip is known to be real: add real clips, or take a fit with "
            "<code>--fit-from</code>."
        )
    elif clips["done"] and not found:
        train = f"accelerate launch student/train.py --store {t(run['store'])} --output RUN"
        found.append(f"The store is complete. Train on it: <code>{train}</code>")
    return found


def _tiles(data: Mapping[str, Any]) -> str:
    clips, run = data["clips"], data["run"]
    speed = clips["this_run_hours"] * 3600 / run["seconds"] if run["seconds"] else 0
    tiles = [
        (f"{clips['done']:,}", f"of {as_count(clips['total'], 'clip')} done"),
        (as_hours(clips["hours"]), "of video in the store"),
        (as_span(run["seconds"]), f"this run, {as_count(clips['this_run'], 'clip')}"),
        (f"{speed:.1f} ×" if speed >= 1 else f"{speed:.2g} ×", "real time in this run") if clips["this_run"] else None,
        (f"{clips['failed']:,}", "failed") if clips["failed"] else None,
    ]
    return f'<div class="tiles">{"".join(f"<div><b>{t(b)}</b><span>{t(s)}</span></div>" for b, s in filter(None, tiles))}</div>'


def _time(data: Mapping[str, Any]) -> str:
    parts = [(name, data["parts"][name]) for name in PARTS if data["parts"].get(name, 0) >= 0.05]
    total = sum(spent for _, spent in parts) or 1.0
    colour = {name: f"var(--p{k})" for k, name in enumerate(PARTS)}
    key = "".join(f'<li><i style="background:{colour[n]}"></i>{t(n)} {t(as_span(s))}</li>' for n, s in parts)
    found = [f'{_bar((s / total, colour[n]) for n, s in parts)}<ul class="key">{key}</ul>']
    if not data["stages"]:
        return "".join([*found, '<p class="soft">No clip was worked on in this run.</p>'])
    found.append(f"<p>{t(data['limit']['text'])}</p>")
    found += [_stage(name, stage) for name, stage in data["stages"].items()]
    retries = data["retries"]
    if retries["breaks"] or data["machine"]["nodes_gone"]:
        found.append(
            f'<p class="soft">Work was taken up again {as_count(retries["breaks"], "time")} after workers were lost; '
            f"{as_count(data['machine']['nodes_gone'], 'node')} left the cluster.</p>"
        )
    return "".join([*found, _timeline(data)])


def _stage(name: str, stage: Mapping[str, Any]) -> str:
    """How busy a stage's workers were, and how fast."""
    busy = stage["utilisation"] or 0
    told = [
        as_count(stage["workers"], "worker"),
        f"{stage['clips_per_s_a_worker']:.1f} clips/s each" if stage["clips_per_s_a_worker"] else "",
        f"{stage['ms_a_frame']:.2f} ms a frame" if stage["ms_a_frame"] else "",
        f"{stage['padding']:.1%} padding",
    ]
    return (
        f'<div class="stage"><div class="head"><span>{t(STAGES.get(name, name))} <span class="soft">{t(name)}</span></span>'
        f'<span class="soft">busy {busy:.0%}</span></div>{_bar([(busy, "var(--fill)")])}'
        f'<p class="soft">{t(", ".join(filter(None, told)))}</p></div>'
    )


def _bar(shares: Iterable[tuple[float, str]]) -> str:
    """Shares of one, side by side in their colours."""
    pieces = "".join(
        f'<i style="width:{100 * min(share, 1):.2f}%;background:{colour}"></i>' for share, colour in shares
    )
    return f'<div class="bar" aria-hidden="true">{pieces}</div>'


def _timeline(data: Mapping[str, Any]) -> str:
    line = data["timeline"]
    paced = data["limit"]["stage"]  # stages that wait for it work in bursts
    through = line["clips_per_s"][paced]
    if len(through) < 3:
        return ""
    rows = [_row("tall", f"clips/s, most {max(through):.1f}", through, max(through))]
    for name, busy in line["busy"].items():
        workers = data["stages"][name]["workers"]
        rows.append(_row("dim", f"{name} workers, of {workers}", busy, max(workers, *busy)))
    axis = f'<div class="axis soft"><span>0</span><span>{t(as_span(data["run"]["seconds"]))}</span></div>'
    caption = "<figcaption>Over the run: clips through the busiest stage, and workers busy</figcaption>"
    return f"<figure>{caption}{''.join(rows)}{axis}</figure>"


def _row(kind: str, label: str, values: Sequence[float], top: float) -> str:
    """A label and its values as steps under each other's eyes."""
    scale = 100 / top if top > 0 else 0
    steps = "".join(f"V{100 - min(v * scale, 100):.1f}h1" for v in values)
    return (
        f'<div class="row {kind}"><span class="soft">{t(label)}</span><svg viewBox="0 0 {len(values)} 100" '
        f'preserveAspectRatio="none" role="img" aria-label="{t(label)}"><path d="M0 100{steps}V100z"/></svg></div>'
    )


def _failures(data: Mapping[str, Any]) -> str:
    found = []
    for k, kind in enumerate(data["failures"]):
        examples = "".join(
            f"<li><bdi><code>{t(e['path'] or e['id'])}</code></bdi><br>{_message(e)}</li>" for e in kind["examples"]
        )
        more = kind["clips"] - len(kind["examples"])
        tail = f'<p class="soft">and {more:,} more</p>' if more > 0 else ""
        found.append(
            f'<details{" open" if k < 3 else ""}><summary><b>{kind["clips"]:,} {t(kind["reason"])}</b> <span class="soft">'
            f"in {t(kind['stage'])}; tried again by {t('the next run' if kind['again'] == 'next run' else kind['again'])}"
            f"</span></summary><ul>{examples}</ul>{tail}</details>"
        )
    if again := data["retries"]["again"]:
        crashed = f"{data['retries']['crashed']:,} crashed, hung or lost the worker"
        found.append(f'<p class="soft">{as_count(again, "clip")} took more than one attempt; {crashed}.</p>')
    return "".join([*found, '<p class="soft">Every input is in <code>ledger.parquet</code>.</p>'])


def _message(example: Mapping[str, Any]) -> str:
    """What happened, without the path that stands above it."""
    return f"<bdi>{t(str(example['message']).removeprefix(example['path']).lstrip(': '))}</bdi>"


def _slowest(clips: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"<bdi>{t(c['id'])}</bdi>",
            f"{c['seconds']:.1f}",
            as_number(c["video_s"], 1),
            as_number(c["per_video_s"], 2),
            str(c["attempts"]),
            t(c["reason"] or "done"),
        ]
        for c in clips
    ]
    table = as_table(
        ["clip", "work, s", "video, s", "times its length", "attempts", "ended"], rows, numbers={1, 2, 3, 4}
    )
    return f'<p class="soft">Of all runs on this store, by seconds of work in all stages.</p>{table}'


def _labels(note: Mapping[str, Any]) -> str:
    fitted = note["fitted_on"]
    said = (
        f"{note['kind']}, learned on {as_count(fitted['clips'], 'real clip')} with {fitted['frames']:,} frames of voice"
        if fitted
        else f"{note['kind']}, nothing learned"
    )
    rows = []
    for corpus, auc in (note["auc"] or {}).items():
        brier, on = note["brier"][corpus], (note["calibrated_on"] or {}).get(corpus)
        rows.append([t(corpus), *(as_number(auc.get(w), 3) for w in ("5", "25", "clip"))])
        rows[-1] += [*(as_number(brier.get(w), 3) for w in ("5", "25", "clip")), t(on["clips"]) if on else "none"]
    heads = ["corpus", "AUC 5 frames", "1 s", "clip", "Brier 5 frames", "1 s", "clip", "calibrated on"]
    control = (note["shuffled_control"] or {}).get("5")
    tail = (
        f'<p class="soft">Control, learned on shuffled pairs: AUC {control:.3f}; 0.5 is chance.</p>' if control else ""
    )
    return f"<p>{t(said)}. Own sound against swapped sound:</p>{as_table(heads, rows, set(range(1, 8)))}{tail}"


def _cost(cost: Mapping[str, Any]) -> str:
    gpus = any(row["gpu_hours"] for row in cost["rows"])
    heads = ["", "CPU core-hours", *(["GPU-hours"] if gpus else []), "US dollars"]
    rows = [
        [
            t(row["name"]),
            as_number(row["core_hours"], 0),
            *([as_number(row["gpu_hours"], 0)] if gpus else []),
            as_number(row["usd"], 2 if row["usd"] < 10 else 0),
        ]
        for row in cost["rows"]
    ]
    few = " It is little: start and end weigh too much in the last row." if cost["from_hours"] < 0.5 else ""
    prices = f"{cost['usd_a_core_hour']} a core-hour" + (f", {cost['usd_a_gpu_hour']} a GPU-hour" if gpus else "")
    return (
        f"{as_table(heads, rows, {1, 2, 3}, bold={'work'})}"
        f'<p class="soft">From the {as_hours(cost["from_hours"])} of video that this run worked on.{few} “work” is what '
        "workers were busy for; “as this run went” is all cores and GPUs of the cluster from start to end, without words and "
        f"without learning the shared space, which hardly grows with a corpus. Dollars are an assumption: {prices} "
        f"({t(cost['prices'])}); multiply the hours by your own prices. Spot machines cost about a third.</p>"
    )


def _run(data: Mapping[str, Any]) -> str:
    run, has = data["run"], data["machine"]
    gpus = f", {as_count(has['gpus'], 'GPU')} {' '.join(has['gpu_names'])}" if has["gpus"] else ""
    facts = {
        "begun": t(as_when(run["begun"])),
        "command": f"<code>{t(run['command'])}</code>",
        "store": f"<code>{t(run['store'])}</code>",
        "machine": t(f"{as_count(has['nodes'], 'node')}, {as_count(has['cpus'], 'CPU')}{gpus}".strip()),
        "software": t(", ".join(f"{name} {version}" for name, version in run["software"].items())),
        "commit": f"<code>{t(run['commit'])}</code>" if run["commit"] else "an installed copy",
    }
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{said}</dd>' for name, said in facts.items())}</dl>"
