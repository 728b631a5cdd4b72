"""A shard for WebDataset (github.com/webdataset/webdataset): a plain tar with some files for each clip.

    000000007.json          the clip's record, words too
    000000007.mouth.npy     each array, [frames, ...], as the store has it

The key is the clip's row in the store: ids may hold dots, at which WebDataset would cut them, slashes and anything else.
The id is in the record. The bytes are the same whenever a shard is written.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from concord import plain_json
from store.export.plan import record
from store.reader import Reader


def write(path: Path, reader: Reader, rows: Sequence[int], arrays: Sequence[str], about: Mapping[str, Any]) -> None:
    """Write the clips `rows` to a new file. Raises StoreError where a clip is damaged."""
    with tarfile.open(path, "x", format=tarfile.GNU_FORMAT) as tar:
        for row in rows:
            clip = record(reader, row)
            _add(tar, row, "json", json.dumps(plain_json.cleaned(clip), ensure_ascii=False).encode())
            for name, values in reader.frames(row, 0, clip["length"], arrays).items():
                packed = io.BytesIO()
                np.lib.format.write_array(packed, values, version=(1, 0), allow_pickle=False)
                _add(tar, row, f"{name}.npy", packed.getvalue())


def _add(tar: tarfile.TarFile, row: int, kind: str, data: bytes) -> None:
    member = tarfile.TarInfo(f"{row:09d}.{kind}")
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
