"""No damage to a store silently gives another number."""

from collections import Counter
from contextlib import suppress

import pytest
from damaged_runs import KINDS, REFUSED, SAME, damaged, plan
from damaged_stores import in_child, numbers, outcome
from small_store import make_store

from store import StoreError
from store.similarity import fitfile


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Three clips, one of them not done; with a ledger, a manifest and words."""
    from pipelines.corpora import manifest
    from pipelines.corpora.manifest import Row
    from pipelines.tables import kept, ledger

    path = make_store(tmp_path_factory.mktemp("damage") / "s.zarr", {"train": 4}, frames=20, shard_rows=100, broken=1)
    reader = kept.store.open(path)
    ids = [str(i) for i in reader.clips["id"]]
    writer = kept.store.Writer.open(path)
    writer.begin()
    ledger.write(
        path,
        [ledger.Entry(i, "/x", "done" if k < 3 else "decode", "" if k < 3 else "crash") for k, i in enumerate(ids)],
    )
    manifest.write([Row("/x", id=i, label=0) for i in ids], path / kept.MANIFEST)
    writer.write_words({"clip": [0, 2], "start": [0, 0], "end": [1, 1], "text": ["a", "b"], "probability": [1, 0.5]})
    writer.consolidate()
    return path


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 3))])
def test_damage_to_any_file_is_noticed_or_harmless(path, part):
    wanted, seen = numbers(path), Counter()
    count = len(KINDS) * len([p for p in path.rglob("*") if p.is_file() and p.stat().st_size])
    for k, (file, kind, dice) in enumerate(plan(path, seed=7, count=count)):
        if k % 16 != part:  # a sixteenth of all; `python -m benchmarks damage` does them all, and more
            continue
        before = file.read_bytes()
        with damaged(file, kind, dice) as what:
            changed = not file.exists() or file.read_bytes() != before
            key = file.relative_to(path).as_posix()
            came = in_child(lambda key=key, changed=changed: outcome(path, key, wanted, changed))
        assert came in (REFUSED, SAME), f"{key}: {what}: {came}"
        seen[came] += 1
    assert seen[REFUSED] > seen[SAME]
    assert in_child(lambda: outcome(path, "", wanted, False)) == SAME


def test_a_damaged_fit_is_one_line(tmp_path):
    (tmp_path / "fit.npz").write_bytes(fitfile.DEFAULT.read_bytes())
    for file, kind, dice in plan(tmp_path, seed=3, count=120):
        with (
            damaged(file, kind, dice),
            suppress(StoreError),
        ):  # some bytes are of the zip's own, and say nothing of the fit
            fitfile.load(file)
