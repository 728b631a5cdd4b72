"""A Parquet file for Hugging Face datasets (github.com/huggingface/datasets): one row a clip, arrays as nested lists.

The file says in its metadata, in that library's form, which features its columns are, so that `load_dataset` gives arrays
of their shape; any other reader of Parquet gets lists. Writing needs pyarrow alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.export.plan import COLUMNS, bytes_of, record
from store.reader import Reader

GROUP_BYTES = 64_000_000  # of arrays that are written, and read, together: some clips
TYPES = {"string": pa.string(), "i1": pa.int8(), "i2": pa.int16(), "i4": pa.int32(), "f4": pa.float32()}
WORD = {"start": pa.float32(), "end": pa.float32(), "text": pa.string(), "probability": pa.float32()}


def write(path: Path, reader: Reader, rows: Sequence[int], arrays: Sequence[str], about: Mapping[str, Any]) -> None:
    """Write the clips `rows` to a new file. Raises StoreError where a clip is damaged."""
    schema = _schema(reader, arrays, about)
    with path.open("xb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(reader, rows, arrays):
            records = [record(reader, row) for row in group]
            frames = [reader.frames(row, 0, clip["length"], arrays) for row, clip in zip(group, records, strict=True)]
            columns = [
                nested([one[field.name] for one in frames])
                if field.name in arrays
                else pa.array([clip[field.name] for clip in records], field.type)
                for field in schema
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _groups(reader: Reader, rows: Sequence[int], arrays: Sequence[str]) -> Iterator[list[int]]:
    frame_bytes = bytes_of(reader, arrays)
    group: list[int] = []
    size = 0
    for row in rows:
        own = int(reader.clips["length"][row]) * frame_bytes
        if group and size + own > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(row)
        size += own
    yield group


def nested(parts: Sequence[np.ndarray]) -> pa.Array:
    """Arrays [n, ...] of one row's shape as a column of nested lists, one for each."""
    whole = np.concatenate(parts)
    column = pa.array(whole.reshape(-1))
    for size in reversed(whole.shape[1:]):
        column = pa.ListArray.from_arrays(pa.array(np.arange(0, len(column) + 1, size, dtype=np.int32)), column)
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), column)


def _schema(reader: Reader, arrays: Sequence[str], about: Mapping[str, Any]) -> pa.Schema:
    """Columns and their types, and the same as that library's features."""
    kinds: dict[str, pa.DataType] = {"row": pa.int64()}
    kinds |= {name: TYPES[kind] for name, kind in COLUMNS.items()}
    kinds["identities"] = pa.list_(pa.string())
    if reader.has_words:
        kinds["words"] = pa.list_(pa.struct(WORD))
    fields = [pa.field(name, kind) for name, kind in kinds.items()]
    features = {name: _feature(kind) for name, kind in kinds.items()}
    for name in arrays:
        array = reader.array(name)
        kind = nested([np.zeros((0, *array.shape[1:]), array.dtype)]).type
        shape, dtype = [None, *array.shape[1:]], array.dtype.name
        if len(shape) == 1:
            features[name], note = _feature(kind), None
        else:  # as that library marks columns of its types Array2D to Array5D
            features[name] = {"shape": shape, "dtype": dtype, "_type": f"Array{len(shape)}D"}
            own = f"datasets.features.features.Array{len(shape)}DExtensionType"
            note = {"ARROW:extension:name": own, "ARROW:extension:metadata": json.dumps([shape, dtype])}
        fields.append(pa.field(name, kind, metadata=note))
    notes = {"huggingface": json.dumps({"info": {"features": features}}), "concord-av": json.dumps(about)}
    return pa.schema(fields, metadata=notes)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    names = {"halffloat": "float16", "float": "float32", "double": "float64"}  # where that library's differ
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
