"""The strongest trivial baseline stands beside every figure, on the same clips."""

import json

import numpy as np
import pandas as pd
import pytest
from small_store import make_store

import store
from store import StoreError
from store.dataset.spans import spans
from student.scoring import score
from student.scoring.baseline import Baselines


def audited(path, shortcuts, **columns):
    """A store with the files that an audit leaves: `columns` are functions of (label, split)."""
    reader = store.open(make_store(path, {"train": 10, "test": 10}, fakes=10, fit=False))
    clips = reader.clips
    table = pd.DataFrame({"id": [str(x) for x in clips["id"]]})
    for name, of in columns.items():
        table[name] = [
            of(int(y), str(s), k) for k, (y, s) in enumerate(zip(clips["label"], clips["split"], strict=True))
        ]
    table = table.iloc[::-1]  # the order of rows must not matter
    (reader.path / "audit.json").write_text(json.dumps({"shortcuts": shortcuts}))
    table.to_parquet(reader.path / "nuisances.parquet")
    rows = np.flatnonzero(clips["split"] == "test")
    return reader, score.trials(reader, rows, spans(reader, rows, "none"), seed=0, swaps=0, shifts=0)


def shortcut(nuisance, auc, method="other sound", corpus="synthetic"):
    return {
        "corpus": corpus,
        "nuisance": nuisance,
        "method": method,
        "auc": auc,
        "low": auc,
        "high": auc,
        "finding": True,
    }


def test_the_best_number_of_the_audit_is_scored_on_the_trials(tmp_path):
    found = [shortcut("weak", 0.7), shortcut("length", 0.99), shortcut("together", 1.0), shortcut("gone", 1.0)]
    found.append(shortcut("weak", 1.0, corpus="another"))
    reader, items = audited(tmp_path / "s.zarr", found, weak=lambda y, s, k: k, length=lambda y, s, k: 5.0 - y)
    name, scores = Baselines.of_store(reader).strongest("other sound", items)
    assert name == "length"
    assert scores.tolist() == [y - 5.0 for y in (t.label for t in items)]  # turned, so that higher is fake
    assert Baselines.of_store(reader).strongest("all", items) is None


def test_the_direction_comes_from_clips_that_are_not_judged(tmp_path):
    reader, items = audited(
        tmp_path / "s.zarr", [shortcut("length", 0.99)], length=lambda y, s, k: float(y if s == "train" else -y)
    )
    scores = Baselines.of_store(reader).strongest("other sound", items)[1]
    assert scores.tolist() == [-t.label for t in items]


def test_words_count_by_their_share_of_fakes_and_unknown_stays_unknown(tmp_path):
    reader, items = audited(
        tmp_path / "s.zarr",
        [shortcut("codec", 0.9)],
        codec=lambda y, s, k: None if k % 5 == 0 else "av1" if y else "h264",
    )
    scores = Baselines.of_store(reader).strongest("other sound", items)[1]
    for t, value in zip(items, scores.tolist(), strict=True):
        assert np.isnan(value) if t.lips % 5 == 0 else value == t.label


def test_a_store_without_an_audit_has_none_and_a_broken_one_says_so(tmp_path):
    reader, _ = audited(tmp_path / "s.zarr", [], length=lambda y, s, k: 1.0)
    (reader.path / "audit.json").write_text("{")
    with pytest.raises(StoreError, match=r"run python -m pipelines\.audit --store again"):
        Baselines.of_store(reader)
    (reader.path / "audit.json").unlink()
    assert Baselines.of_store(reader) is None
