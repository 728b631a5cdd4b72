"""Manifests, CSV and Parquet, with wrong columns, types, encodings and values."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from benchmarks.hostile.values import DEEP, Rng, flipped


def manifest(folder: Path, outside: Path, rng: Rng) -> Path:
    import pandas as pd

    columns = [
        "path",
        "label",
        "audio_fake",
        "identities",
        "group",
        "split",
        "audio_segments",
        "listed_frames",
        "id",
        "corpus",
    ]
    columns = columns[: int(rng.integers(1, len(columns) + 1))]
    parts = (
        *("[[0, Infinity]]", "[[1e999, 2]]", DEEP, '["\\ud800"]', "[[2, 1]]", "yes", "2", "-5", "a\0b"),
        *('"unclosed', "x" * 200_000, "", "1,2,3"),
    )
    if rng.random() < 0.5:
        path = folder / "m.csv"
        rows = [
            ",".join(str(parts[int(rng.integers(len(parts)))]) if rng.random() < 0.05 else "0" for _ in columns)
            for k in range(5)
        ]
        rows = [f"{k}{row}" for k, row in enumerate(rows)]
        text = ",".join(columns) + "\n" + "\n".join(rows)
        data = text.encode("utf-16" if rng.random() < 0.1 else "utf-8-sig")
        path.write_bytes(flipped(data, rng) if rng.random() < 0.3 else data)
        return path
    path = folder / "m.parquet"
    choices: tuple[list[Any], ...] = (
        *(
            [1, 2],
            [1.5, None],
            [True, False],
            [[1], [2]],
            [["a"], None],
            [{"a": 1}, {"a": 2}],
            ["a", "b"],
            [b"a", b"\xff"],
        ),
        *([datetime.date(2020, 1, 1)] * 2, [float("inf"), float("nan")], [2**63, 1], [[[0, float("inf")]], [[0, 1]]]),
    )
    table = {name: choices[int(rng.integers(len(choices)))] for name in columns if rng.random() < 0.3}
    table.setdefault("path", ["a.mp4", "b.mp4"])
    if rng.random() < 0.5:
        table["path"] = ["a.mp4", "b.mp4"]
    pd.DataFrame(table).to_parquet(path, index=False)
    if rng.random() < 0.3:
        path.write_bytes(flipped(path.read_bytes(), rng))
    return path
