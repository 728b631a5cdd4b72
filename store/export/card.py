"""The card of an export, README.md: what it holds, where it is from, whose it is, and how it is opened."""

from __future__ import annotations

import re
from typing import Any

import yaml

from concord.text import code, markdown
from store.export.plan import COLUMNS, Plan
from store.layout import FPS, SAMPLE_RATE, SPLITS

UNSTATED = (
    "Not stated by whoever made this export. A store does not record the licences of its corpora and models: ask their owners "
    "before you pass this on."
)
MEANING = {
    "mouth": "grey mouth crop, aligned to a mean face",
    "audio": "mono sound of the frame",
    "asr": "embedding of the sound",
    "vsr": "embedding of the picture",
    "asr_projection": "the same in the space that both share",
    "vsr_projection": "the same in the space that both share",
    "similarity": "soft label: probability, over 5 frames, that lips and voice belong together; it counts where "
    "bits 0 and 3 of `flags` are on and bit 5 is off",
    "flags": "bit 0 face detected, 1 face interpolated, 2 audio present, 3 voice active, 4 row in use, 5 picture held",
    "fake": "0 real, 1 forged, -1 unknown",
    "lips": "lip landmarks x, y in pixels of the 256 x 256 mean face",
    "blendshapes": "face blendshapes",
    "face": "whole face, grey",
}
LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")  # as the hubs write them: cc-by-4.0


def card(plan: Plan, fit: bool) -> str:
    """The text, with the head in YAML from which Hugging Face datasets learns which file belongs to which split."""
    store, about = plan.about["store"], plan.about
    lines = [
        "---",
        yaml.safe_dump(_head(plan), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {markdown(store['name'])}",
        "",
        f"Talking faces and their voices, frame by frame, with soft labels: {about['clips']:,} clips, {about['frames']:,} "
        f"frames at {FPS} a second, sound at {SAMPLE_RATE:,} Hz. Exported by {about['made_by']} from a concord-av store.",
        "",
        "## Licence and attribution",
        "",
        f"Licence: {markdown(about['licence'] or UNSTATED)}",
        "",
        *([f"Attribution: {markdown(about['attribution'])}", ""] if about["attribution"] else []),
        f"Corpora: {', '.join(map(code, store['corpora'])) or 'not named'}. Embeddings and soft labels were made with "
        f"{_teachers(store['teachers'])}; a model's licence may cover what is made with it.",
        "",
        "## Opening it",
        "",
        "```python",
        *_opening(plan),
        "```",
        "",
        *_contents(plan, fit),
        "",
        "## The store",
        "",
        f"Name {code(store['name'])}, SHA-256 {code(store['sha256'])}, fit {code(store['similarity'] or 'none')}. "
        "`export.json` has the same, with the size and SHA-256 of every file.",
        "",
    ]
    return "\n".join(lines)


def _head(plan: Plan) -> dict[str, Any]:
    licence = plan.about["licence"]
    head: dict[str, Any] = {}
    if licence:
        known = LICENCE_ID.fullmatch(licence.lower())
        head = {"license": licence.lower()} if known else {"license": "other", "license_name": licence}
    if plan.kind == "datasets":
        present = {shard.split for shard in plan.shards}
        files = [{"split": split, "path": f"data/{split}-*"} for split in SPLITS if split in present]
        head["configs"] = [{"config_name": "default", "data_files": files}]
    return {**head, "pretty_name": plan.about["store"]["name"]}


def _teachers(teachers: dict[str, dict[str, Any]]) -> str:
    return " and ".join(code(one["name"]) for one in teachers.values()) or "no teacher"


def _opening(plan: Plan) -> list[str]:
    if plan.kind == "datasets":
        split = plan.shards[0].split
        return [
            "import datasets",
            "",
            f'clips = datasets.load_dataset("path/of/this/folder", split="{split}").with_format("numpy")',
            'clips[0]["similarity"]',
        ]
    first = plan.shards[0]
    last = sum(shard.split == first.split for shard in plan.shards) - 1
    return [
        "import webdataset",
        "",
        f'shards = "path/of/this/folder/{first.split}-{{000000..{last:06d}}}.tar"',
        "clips = webdataset.WebDataset(shards, shardshuffle=False).decode()",
        'next(iter(clips))["similarity.npy"]',
    ]


def _contents(plan: Plan, fit: bool) -> list[str]:
    webdataset = plan.kind == "webdataset"
    what = (
        "One sample a clip: `KEY.json` and `KEY.ARRAY.npy`; the key is the clip's row."
        if webdataset
        else "One row a clip."
    )
    lines = [
        "## What is in it",
        "",
        f"{what} Columns: row, {', '.join(COLUMNS)}, and words where there are transcripts.",
        "",
    ]
    lines += ["| array | of each clip | what it is |", "|---|---|---|"]
    lines += [f"| {code(name)} | {kind} | {MEANING.get(name, '')} |" for name, kind in plan.about["arrays"].items()]
    lines += ["", "| split | clips |", "|---|---|"]
    for split in SPLITS:
        if clips := sum(len(shard.rows) for shard in plan.shards if shard.split == split):
            lines.append(f"| {split} | {clips:,} |")
    if fit:
        lines += [
            "",
            "`fit.npz`: the maps and the calibration by which two projections are compared (`store.similarity`).",
        ]
    return lines
