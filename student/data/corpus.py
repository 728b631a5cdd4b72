"""The clips of a split, as the sampler uses them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import store
from store.dataset.pairs import check_labels
from store.dataset.spans import Spans


@dataclass(frozen=True)
class Corpus:
    """What sampling needs to know about the training clips; small, because it is sent to workers.

    rows i8 [n]: their rows in the clips table. For all clips of the store: start, length i8 (of their spans, in
    frames), shard i8, label i1, weight f4, corpus, stratum i8: which clips `--balance source` takes together, and
    pictured i1: the label of the picture alone. Spans of `rows` are at least one window long.
    """

    rows: np.ndarray
    start: np.ndarray
    length: np.ndarray
    shard: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    corpus: np.ndarray
    stratum: np.ndarray
    pictured: np.ndarray

    @classmethod
    def of(cls, reader: store.Reader, rows: np.ndarray, weight: np.ndarray, spans: Spans, window: int) -> Corpus:
        """Those of the clips `rows` whose spans hold a window. Raises StoreError for an unknown label."""
        c = reader.clips
        rows = np.asarray(rows, np.int64)
        check_labels(reader, rows)
        names = np.array([str(x) for x in c["corpus"]])
        offset, label = (np.asarray(c[k]).astype(np.int64) for k in ("offset", "label"))
        kept = rows[spans.length[rows] >= window]
        video = np.asarray(c["video_fake"]).astype(np.int64)
        pictured = np.where(label == 1, video, label)  # a forged clip may show real pictures: only `video_fake` says
        shard = offset // reader.shard_rows
        return cls(kept, spans.start, spans.length, shard, label, weight, names, strata(reader), pictured)


def strata(reader: store.Reader) -> np.ndarray:
    """Number i8 [clips] of what a clip is one of: the other clips of its source in its corpus that are not forged, or the
    forgeries of its source by its method. Where the source is not known, the corpus counts as one source."""
    columns = (reader.clips[name] for name in ("corpus", "source", "label", "method"))
    names = [
        ("forged", str(source) or str(corpus), str(method)) if label == 1 else ("", str(corpus), str(source))
        for corpus, source, label, method in zip(*columns, strict=True)
    ]
    number = {name: k for k, name in enumerate(sorted(set(names)))}
    return np.array([number[name] for name in names], np.int64)
