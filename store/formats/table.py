"""CSV that preserves every value and cannot act as a formula in a spreadsheet; Parquet with limits.

Spreadsheets run cells that begin with =, +, -, @, a tab or a line end. Such text is written with an apostrophe in
front, and so is text that has apostrophes followed by one of these. Reading removes one apostrophe from text of that
form. So every value is read back unchanged, even after a spreadsheet has saved the file, and a column of ids can be
trusted. Numbers are not changed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MOST_COLUMNS = 1000
UNPACKED = 1 << 26  # bytes or cells of a Parquet file of any size,
UNPACKED_RATIO = 64  # and for each of its bytes beyond that
# Full-width forms too: some spreadsheets treat them like the plain ones. Leading spaces are skipped.
FORMULA = re.compile("'*[ \u00a0]*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
BARE = re.compile(r"(?! )[^,\"\r\n\x00-\x1f\x7f-\x9f\u2028\u2029]*(?<! )")  # text that needs no quotes


def escape(text: str) -> str:
    """A cell that no spreadsheet treats as a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def unescape(cell: str) -> str:
    """The text that `escape` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def to_csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Columns of one length as CSV, UTF-8, a header first; None and NaN are empty cells.

    Raises ValueError, naming the text, where one is not Unicode (a lone surrogate).
    """
    lines = [",".join(_quoted(name) for name in columns)]
    lines += [",".join(_cell(value) for value in row) for row in zip(*columns.values(), strict=True)]
    text = "\n".join(lines) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        line = ascii(text[max(0, error.start - 40) : error.end + 20])
        raise ValueError(f"{line} is not Unicode text, since it holds half of a surrogate pair; rename it") from None


def read_csv(data: bytes) -> pd.DataFrame:
    """All cells as text, as `to_csv` was given them; raises ValueError that says what is wrong where it is not CSV."""
    import pandas as pd

    if data[: data.find(b"\n")].count(b",") >= MOST_COLUMNS:
        raise ValueError(f"it has more than {MOST_COLUMNS} columns")
    table = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    for name in table.columns:
        if table[name].str.startswith("'").any():
            table[name] = table[name].map(unescape)
    return table


def read_parquet(data: bytes) -> pd.DataFrame:
    """A Parquet file's table, of columns with plain values or lists of them; raises ValueError that says what is wrong.

    What it takes in memory is bounded before it is unpacked, by what its footer says of its rows and columns.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        about = file.metadata
        size = sum(about.row_group(k).total_byte_size for k in range(about.num_row_groups))
        cells = about.num_rows * about.num_columns
        if about.num_columns > MOST_COLUMNS or not 0 <= max(size, cells) <= max(UNPACKED, UNPACKED_RATIO * len(data)):
            raise ValueError(f"its {about.num_rows} rows of {about.num_columns} columns are too many for its size")
        table = file.read()
        if len(set(table.column_names)) < table.num_columns:
            raise ValueError("two of its columns have one name")
        return table.to_pandas(ignore_metadata=True)
    except (
        pyarrow.ArrowException,
        OSError,
        TypeError,
        OverflowError,
        UnicodeDecodeError,
        MemoryError,
        RecursionError,
    ) as error:
        raise ValueError(str(error).strip().partition("\n")[0] or type(error).__name__) from error


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return _quoted(escape(value)) if isinstance(value, str) else _quoted(str(value))


def _quoted(text: str) -> str:
    return text if BARE.fullmatch(text) else '"' + text.replace('"', '""') + '"'
