"""Reads Parquet tables without Python file objects."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def read_table(source: Path | bytes, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Reads a Parquet file that was written from a frame.

    Use it instead of `pandas.read_parquet`, which gives Arrow's threads a Python file object. If a thread
    releases that while the interpreter shuts down, a process that has done all its work aborts
    (https://github.com/apache/arrow/issues/34314).

    Args:
      source: a local file, or its content.
      columns: names of the columns to read; None for all.

    Raises:
      OSError: the file does not exist.
      ValueError: it is not Parquet (`pyarrow.ArrowInvalid`).
    """
    if isinstance(source, bytes):
        copy = pa.BufferOutputStream()
        copy.write(source)
        source = pa.BufferReader(copy.getvalue())
    table: pd.DataFrame = pq.read_table(source, columns=columns).to_pandas()
    return table
