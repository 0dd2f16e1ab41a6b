"""Reading tables without Python's files."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def read_table(source: Path | bytes, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Reads a Parquet file that was written from a frame.

    In place of `pandas.read_parquet`, which gives Arrow's threads a file of Python's: one of them that
    lets go of it while the interpreter ends aborts a process that had done all its work
    (https://github.com/apache/arrow/issues/34314).

    Args:
      source: a file on this machine, or what is in one.
      columns: names of those wanted; all where None.

    Raises:
      OSError: the file is not there.
      ValueError: it is no Parquet (`pyarrow.ArrowInvalid`).
    """
    if isinstance(source, bytes):
        copy = pa.BufferOutputStream()
        copy.write(source)
        source = pa.BufferReader(copy.getvalue())
    table: pd.DataFrame = pq.read_table(source, columns=columns).to_pandas()
    return table
