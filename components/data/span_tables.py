"""The tables of spans, which an archive names by their content; see `components.data.spans`."""

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.data import spans
from core.locations import create, reaching
from core.tables import read_table


def table(archive: Path, span: spans.Span, name: str) -> pd.DataFrame:
    """Returns a table of a span."""
    with reaching(archive):
        content = (archive / "tables" / span.tables[name]).read_bytes()
    return read_table(content)


def digest_of(tables: Mapping[str, pa.Table]) -> str:
    """Returns a digest of the contents of tables, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(tables):
        digest.update(name.encode() + b"\n")
        digest.update(tables[name].to_pandas().to_csv(index=False).encode())
    return digest.hexdigest()


def commit(archive: Path, span: spans.Span, tables: Mapping[str, pa.Table]) -> spans.Span:
    """Adds a span to an archive, its tables first.

    Returns:
      the span, with `tables`.

    Raises:
      spans.Overtaken: another ingest has added a span.
      UserError: the archive cannot be written.
    """
    named = {}
    with reaching(archive):
        for name, content in tables.items():
            buffer = io.BytesIO()
            pq.write_table(content, buffer)
            named[name] = f"{name}-{digest_of({name: content})[:16]}.parquet"
            # It may exist: from an attempt that was killed, or from an earlier span.
            with contextlib.suppress(FileExistsError):
                create(archive / "tables" / named[name], buffer.getvalue())
        whole = spans.Span(**{**asdict(span), "tables": named})
        text = json.dumps(asdict(whole), indent=2, sort_keys=True)
        try:
            create(archive / "spans" / f"{span.number:05d}.json", text.encode())
        except FileExistsError as error:
            raise spans.Overtaken(
                f"ingest: another ingest has added span {span.number} to {archive}. Nothing of this "
                "one is kept; run it again."
            ) from error
    return whole
