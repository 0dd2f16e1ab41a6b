"""Opens images under Beam: the part of ingest that takes long, and runs on many machines.

Workers import this module, so it imports little: starting them takes seconds as it is.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from components.beam_options import pipeline_options
from components.images import BadImage, inspect
from components.sources import Row

# An element of the pipeline: so many images that Beam's own work for it does not show, so few that
# they spread evenly.
_IMAGES_AT_ONCE = 16


def open_images(
    rows: Sequence[Row],
    directories: Mapping[str, Path],
    schema: pa.Schema,
    beam_options: Sequence[str],
    scratch: Path,
) -> pa.Table:
    """Opens, hashes and decodes every image.

    Args:
      rows: the images.
      directories: where each source's images are, by the source's name.
      schema: the columns wanted: `id`, and those of `Row` and `images.Facts`; others are null.
      beam_options: see `components.beam_options`.
      scratch: a directory to be made for what workers find, and removed.

    Returns:
      a row an image, in any order: the columns of `schema`, and `kind` and `reason`, null unless the
      file cannot be used (`absent`, `unreadable`, or a kind of `images.BadImage`).
    """
    schema = pa.schema([*schema, ("kind", pa.string()), ("reason", pa.string())])
    roots = {name: str(path) for name, path in directories.items()}
    starts = range(0, len(rows), _IMAGES_AT_ONCE)
    with beam.Pipeline(options=pipeline_options(beam_options, len(rows))) as pipeline:
        _ = (
            pipeline
            | "Name images" >> beam.Create([rows[i : i + _IMAGES_AT_ONCE] for i in starts])
            | "Spread over workers" >> beam.Reshuffle()
            | "Open, hash and decode" >> beam.Map(_open, roots, schema)
            | "Write" >> beam.io.WriteToParquetBatched(str(scratch / "rows"), schema)
        )
    opened = pq.read_table(scratch)
    shutil.rmtree(scratch)
    return opened


def _open(rows: Sequence[Row], roots: Mapping[str, str], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([_described(row, roots) for row in rows], schema)


def _described(row: Row, roots: Mapping[str, str]) -> dict[str, Any]:
    """Returns what is known of one image after opening it; never raises for what the file is."""
    described = {"id": f"{row.source}/{row.path}", **vars(row)}
    try:
        content = Path(roots[row.source], row.path).read_bytes()
        return {**described, **vars(inspect(content))}
    except FileNotFoundError:
        bad = {"kind": "absent", "reason": "the metadata names it, it is not there"}
    except OSError as error:
        bad = {"kind": "unreadable", "reason": str(error)}
    except BadImage as error:
        bad = {"kind": error.kind, "reason": str(error)}
    return {**described, **bad}
