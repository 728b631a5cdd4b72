"""The page for one video: the answer in plain words first, then what it was seen and heard by, then facts and limits.

One file that opens from a disk and needs no network and no script. File names and heard words may be hostile: text goes
through `t`, and the page forbids scripts. Pictures are small JPEGs inside it; MOMENTS of them keep it far below 1.5 MB.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from concord.text import html as t
from pipelines.ui.html import STYLE
from store import output
from student.predict import plot as predict_plot
from student.predict import words as predict_words
from student.predict.plot import KINDS, MARKS, clock
from teachers.base import FPS

COMMAND = "student.predict"
MOMENTS = 10  # of the strip
WIDTH = 176  # pixels of its pictures
TRANSCRIPT, PASSAGES = 4000, 100  # on the page

MORE = """
.answer{display:grid;grid-template-columns:minmax(9.5rem,14rem) 1fr;gap:.25rem 1.5rem;align-items:center}
.answer b{display:block;font-size:3rem;line-height:1;font-weight:650;color:var(--tone);font-variant-numeric:tabular-nums}
.answer ul{margin:.3rem 0;padding-left:1.1rem}
.answer li{margin:.25rem 0}
.meter{height:.55rem;border-radius:.3rem;background:var(--rest);margin:.5rem 0 .3rem;position:relative;overflow:hidden}
.meter i{display:block;height:100%;background:var(--tone)}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.75rem}
.strip figure{margin:0;border:1px solid var(--line);border-top:.25rem solid var(--edge);border-radius:.4rem;overflow:hidden}
.strip .pair{display:grid;grid-template-columns:1fr;position:relative}
.strip img{display:block;width:100%;height:auto}
.strip img.mouth{position:absolute;right:.3rem;bottom:.3rem;width:42%;border:2px solid var(--card);border-radius:.25rem}
.strip figcaption{padding:.3rem .5rem;color:var(--ink);overflow-wrap:anywhere}
.strip figcaption .soft{display:block;font-size:.8rem}
.yes{--edge:var(--good)}.maybe{--edge:var(--warn)}.no{--edge:var(--bad)}.none{--edge:var(--rest)}
.speech h2:not(:first-child){margin-top:1.2rem}
.said{font-size:1.15rem;line-height:2}
.said span,.legend span{padding:.1em .35em;border-radius:.25em;border-bottom:2px solid var(--edge)}
.said .no,.legend .no{background:color-mix(in srgb,var(--bad) 18%,transparent);font-weight:600;border-bottom-style:double;
border-bottom-width:4px}
.said .maybe,.legend .maybe{border-bottom-style:dashed}
.said .none,.legend .none{color:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:.4rem 1rem;font-size:.875rem;margin:.6rem 0 0}
@media(max-width:34rem){.answer{grid-template-columns:1fr}}
"""


def page(
    said: Mapping[str, Any], basis: Mapping[str, Any], shots: Sequence[Mapping[str, Any]], audio: np.ndarray | None
) -> str:
    """The whole page for an answer (`student.predict.answer`), what it rests on (for JSON), `shots` of it, and its sound i2, if
    any."""
    tone, head, why = predict_words.headline(said)
    name = os.path.basename(said["path"])
    body = [
        f'<header class="{tone}"><p class="kicker">concord-av on <bdi>{t(name)}</bdi></p>'
        f"<h1>{t(head)}</h1><p>{t(why)}</p></header>",
        _answer(said, tone),
    ]
    if said["timeline"]:
        body += [_speech(said, audio), _passages(said), _strip(shots)]
    body += [_facts(said, basis), _limits()]
    return (
        f"{output.head(COMMAND)}<title>{t(head)}</title>"
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<style>{STYLE}{MORE}{predict_plot.STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def shots(said: Mapping[str, Any], seen: Any, witness: Any) -> list[dict[str, Any]]:
    """Moments for the strip: picture, mouth crop, time and word. `seen` and `witness` are of `student.predict.evidence`."""
    from student.predict.evidence import mouths

    if seen is None:
        return []
    moments = _moments(said)
    frames = sorted(moments)
    pictures, crops = witness.pictures(seen, frames, WIDTH), mouths(seen, frames)
    return [
        {"time": k / FPS, "picture": pictures.get(k), "mouth": crops[k], "word": moments[k]}
        for k in frames
        if k in crops
    ]


def _moments(said: Mapping[str, Any]) -> dict[int, Mapping[str, Any] | None]:
    """Frames for the strip and their words: all words that are seen, of too many those that disagree most and others evenly;
    without words frames with face and voice, else with a face, evenly."""
    line = said["timeline"]
    words = [w for w in said["words"] if w["agreement"] is not None]
    if words:
        worst = sorted((w for w in words if w["verdict"] == "disagrees"), key=lambda w: w["agreement"])[: MOMENTS // 2]
        rest = [w for w in words if w not in worst]
        chosen = worst + [rest[k] for k in _evenly(len(rest), MOMENTS - len(worst))]
        late = said["offset"]["sound_late_ms"] if _moved(said) else 0
        lag = -late * FPS / 1000  # the lips of a word are shown, wherever its sound is
        found = {}
        for word in chosen:
            middle = (word["start"] + word["end"]) / 2 * FPS
            inside = [k for k in range(len(line)) if line[k]["face"]]
            found[min(inside, key=lambda k: abs(k + 0.5 - middle - lag))] = word
        return found
    frames = [k for k, m in enumerate(line) if m["similarity"] is not None]
    frames = frames or [k for k, m in enumerate(line) if m["face"]]
    return dict.fromkeys(frames[k] for k in _evenly(len(frames), MOMENTS))


def _moved(said: Mapping[str, Any]) -> bool:
    """Whether words were judged with the sound moved to where it fits."""
    return any(moment["similarity_moved"] is not None for moment in said["timeline"])


def _evenly(count: int, most: int) -> list[int]:
    if most <= 0 or count == 0:
        return []
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _answer(said: Mapping[str, Any], tone: str) -> str:
    steps = "".join(
        f"<li>{t(step)}{f'<br><code>{t(command)}</code>' if command else ''}</li>"
        for step, command in predict_words.advice(said)
    )
    fake = said["probability"]
    if said["reason"] == "out of sync":
        late = said["offset"]["sound_late_ms"]
        number = (
            f"<b>{abs(late)} ms</b><p>the sound is too {'late' if late > 0 else 'early'}</p><p class=soft>Moved by that much, "
            f"lips and voice agree with similarity {said['offset']['similarity']:.2f} of 1.</p>"
        )
    elif fake is None:
        number = f"<b>–</b><p>no probability is given</p>{_ranking(said)}"
    else:
        shown = "&lt; 1 %" if fake < 0.01 else "&gt; 99 %" if fake > 0.99 else f"{100 * fake:.0f} %"
        by = "two general models, without a trained detector"
        if said["rests_on"] == "student":
            theirs = said["teachers"]["probability"]
            by = "a trained detector"
            if theirs is not None:
                by += f"; the two general models that taught it say {100 * theirs:.0f} %"
        number = (
            f'<b>{shown}</b><div class="meter" aria-hidden="true"><i style="width:{100 * fake:.1f}%"></i></div>'
            f"<p>probability that lips and voice do not belong together</p><p class=soft>by {by}.</p>"
        )
    return f'<section class="answer {tone}"><div>{number}</div><div><h2>What to do</h2><ul>{steps}</ul></div></section>'


def _ranking(said: Mapping[str, Any]) -> str:
    """The number that is left where nothing licenses a probability, and how far it may be read."""
    if said["reason"] != "uncalibrated" or said["ranking"]["value"] is None:
        return ""
    more = (
        "lips and voice are more alike"
        if said["ranking"]["by"] == "similarity"
        else "the detector found more of what it was trained to find"
    )
    number = f"{said['ranking']['by']} {said['ranking']['value']:.3g}"
    return (
        f"<p class=soft>For ranking only: {number}. Of several videos asked about in one sitting, where it is higher {more}. "
        "It is no probability of forgery.</p>"
    )


def _speech(said: Mapping[str, Any], audio: np.ndarray | None) -> str:
    moved = ""
    if _moved(said):
        moved = " Dashed, and the words: the same with the sound moved into place."
    head, told = "Where lips and voice agree", "Up: the lips form what is heard. Down: they form something else."
    if not said["calibration"]["teachers"]:
        head = "Where lips and voice are more and less alike"
        told = (
            "Within this video alone: for these people it is not known which height is usual, so none is good or bad."
        )
    return (
        f'<section class="speech"><h2>{head}</h2><p class="soft">{told} Grey: cannot be judged.{moved}</p>'
        f'<div class="wide">{predict_plot.figure(said, audio)}</div>{_transcript(said)}</section>'
    )


def _strip(shots: Sequence[Mapping[str, Any]]) -> str:
    if not shots:
        return ""
    cells = []
    for shot in shots:
        word = shot["word"]
        kind = KINDS[word["verdict"]] if word else "none"
        told = f"{MARKS[word['verdict']]}{word['text']}" if word else ""
        small = f", agreement {word['agreement']:.2f}" if word and word["verdict"] != "not judged" else ""
        picture = _image(shot["picture"], "", "video frame") if shot["picture"] else ""
        mouth = _image(shot["mouth"], "mouth" if picture else "", "mouth")
        cells.append(
            f'<figure class="{kind}"><div class="pair">{picture}{mouth}</div><figcaption>{t(told)}'
            f'<span class="soft">{shot["time"]:.1f} s{small}</span></figcaption></figure>'
        )
    return f'<section><h2>What the lips looked like</h2><div class="strip">{"".join(cells)}</div></section>'


def _image(jpeg: bytes, kind: str, what: str) -> str:
    return f'<img class="{kind}" alt="{what}" src="data:image/jpeg;base64,{b64encode(jpeg).decode()}">'


def _transcript(said: Mapping[str, Any]) -> str:
    words = said["words"]
    if not words:
        return ""
    shown = " ".join(
        f'<span class="{KINDS[w["verdict"]]}">{t(MARKS[w["verdict"]] + w["text"])}</span>' for w in words[:TRANSCRIPT]
    )
    more = f"<p class=soft>and {len(words) - TRANSCRIPT:,} more words</p>" if len(words) > TRANSCRIPT else ""
    says = {"agrees": "lips agree", "unclear": "unclear", "disagrees": "lips disagree", "not seen": "not seen"}
    if not said["calibration"]["teachers"]:
        says = {"not judged": "as it was heard; whether lips agree is not judged"}
    keys = "".join(f'<span class="{KINDS[v]}">{MARKS[v]}{says[v]}</span>' for v in says)
    return f'<h2>What was heard</h2><p class="said">{shown}</p>{more}<div class="legend">{keys}</div>'


def _passages(said: Mapping[str, Any]) -> str:
    found = said["passages"]
    if not found:
        return ""
    rows = "".join(
        f"<li>{clock(p['start'])} to {clock(p['end'])}, similarity {p['similarity']:.2f}</li>" for p in found[:PASSAGES]
    )
    more = f"<p class=soft>and {len(found) - PASSAGES:,} more</p>" if len(found) > PASSAGES else ""
    return (
        '<section><h2>Passages to look at</h2><p class="soft">Half a second of speech or more in which lips and voice, over '
        f"one second, rather disagree.</p><ul>{rows}</ul>{more}</section>"
    )


def _facts(said: Mapping[str, Any], basis: Mapping[str, Any]) -> str:
    facts = [("File", f"<bdi>{t(os.path.basename(said['path']))}</bdi>")]
    if said["timeline"]:
        facts += [
            ("Length", t(clock(said["duration"]))),
            ("Judged on", f"{said['seconds_judged']:.1f} s with face and voice"),
            ("Face seen", f"{said['face_share']:.0%} of the time"),
            ("Voice heard", f"{said['voice_share']:.0%} of the time"),
        ]
        if (teacher := said["teachers"]["similarity"]) is not None:
            means = (
                "1 = lips and voice belong together"
                if said["calibration"]["teachers"]
                else "by the measure of other people: for ranking only, no probability"
            )
            facts.append(("Similarity", f"{teacher:.3g} over the whole video, {means}"))
        if (offset := said["offset"]) is not None:
            late = offset["sound_late_ms"]
            where = "as they are" if late == 0 else f"with the sound moved by {-late:+d} ms"
            there, margin = (
                f"{offset[k]:.2f}" if offset[k] is not None else "unknown" for k in ("similarity", "margin")
            )
            facts.append(("Best fit", f"{where}, similarity {there}, margin {margin}"))
        if said["student"] and said["student"]["logit"] is not None:
            facts.append(
                ("Detector's logit", f"{said['student']['logit']:.2f} over {said['student']['frames']} frames")
            )
        facts.append(("Calibration", t(said["calibration"]["text"])))
    facts += [
        ("Models", t(", ".join(f"{m['name']} ({str(m['sha256'])[:12]})" for m in basis["teachers"].values()))),
        ("Shared space", t(f"{basis['fit']['kind']}, from {basis['fit']['from']}")),
    ]
    if student := basis["student"]:
        facts.append(
            ("Detector", t(f"{student['model']}, {student['checkpoint']}, threshold fitted on {student['fitted_on']}"))
        )
    rows = "".join(f"<dt>{t(name)}</dt><dd>{value}</dd>" for name, value in facts)
    return f"<section><h2>Facts</h2><dl>{rows}</dl></section>"


def _limits() -> str:
    limits = "".join(f"<li>{t(limit)}</li>" for limit in predict_words.LIMITS)
    return f"<section><h2>What this cannot tell</h2><ul>{limits}</ul></section>"
