"""A store to look at: real clips and forgeries in two splits, words, flags, failures, an audit, and hostile names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from small_store import make_store

import store
from pipelines.tables import ledger
from store import layout

SPLITS, FAKES, BROKEN = {"train": 20, "test": 8}, 4, 2  # 36 clips, of which the last 2 are not done
HELD, UNSEEN, HOSTILE = 1, 2, 3  # rows of clips that stand still, have frames without a face, have a hostile id
EVIL = "<img src=x onerror=alert(1)>\"'\u202e../../etc/passwd"
WORD = "</script><b>set</b>"
LEAK = "3 of 5 people in test are also in train"
AUDIT = {
    "rows": 34, "distinct": 34, "counts": {}, "allow": 0.6, "clips": 36,
    "findings": [LEAK],
    "shortcuts": [
        {"corpus": "synthetic", "nuisance": "loudness", "method": "other sound", "auc": 0.91, "low": 0.8, "high": 0.97,
         "fakes": 8, "reals": 28, "people": 0, "finding": True, "few": False},
    ],
    "checked": {"people": {"on": 34, "of": 34, "by": "identities"}, "files": {"on": 0, "of": 34, "why": "no names"}},
    "leaks": [
        {"kind": "identity", "splits": ["train", "test"], "count": 3, "of": 5, "text": LEAK,
         "examples": [{"what": "p1", "train": 20, "test": 8}]},
        {"kind": "content", "splits": ["train", "test"], "count": 1, "of": 9, "text": "1 of 9 clips of test are also in train",
         "examples": [{"what": "the same sound", "train": "train000r", "test": "test000r"}]},
    ],
    "faults": [{"kind": "held_pictures", "count": 1, "examples": [{"id": EVIL, "text": EVIL}]}],
    "soft_labels": {"bins": 4, "methods": {"real": [1, 2, 3, 40], "other sound": [9, 5, 0, 0]}},
}  # fmt: skip


def make_shown_store(path: Path) -> Path:
    """Of 36 clips of about 2 s, the last two failed."""
    make_store(path, SPLITS, frames=(45, 60), fakes=FAKES, broken=BROKEN, fresh=True)
    reader = store.open(path)
    slots = {row: (reader.clip(row).offset, reader.clip(row).length) for row in (HELD, UNSEEN)}
    writer = store.Writer.open(path)
    writer.begin()
    flags = np.asarray(writer.array("frames/flags")[: reader.shard_rows])
    offset, length = slots[HELD]
    flags[offset + 10 : offset + 30] = 0b11101 | layout.HELD
    offset, length = slots[UNSEEN]
    flags[offset : offset + 5] = 0b11100
    flags[offset + 5 : offset + 9] = 0b11110
    flags[offset + length - 10 : offset + length] = 0b10101
    writer.write_shard(0, {"flags": flags})
    ids = [str(name) for name in reader.clips["id"]]
    ids[HOSTILE] = EVIL
    writer.write_clips(HOSTILE, {"id": [EVIL], "method": [EVIL], "group": [EVIL]})
    texts = ["bin", "blue", "at", WORD]
    table = [(k, 0.2 + 0.4 * n, 0.6 + 0.4 * n, text, 0.9) for k in range(len(ids)) for n, text in enumerate(texts)]
    writer.write_words(dict(zip(layout.WORD_ARRAYS, zip(*table, strict=True), strict=True)))
    writer.consolidate()
    entries = [
        ledger.Entry(name, f"/nowhere/{name}.mp4", "done", notes="two faces" if name == EVIL else "") for name in ids
    ]
    entries[-2:] = [
        ledger.Entry(ids[-2], "/nowhere/a.mp4", "decode", "no_face", "a face was found in 3 of 50 frames", 1),
        ledger.Entry(ids[-1], f"/nowhere/{EVIL}.mp4", "asr", "crash", f"{EVIL} crashed its worker", 3),
    ]
    ledger.write(path, entries)
    (path / "audit.json").write_text(json.dumps(AUDIT))
    return path
