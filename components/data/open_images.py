"""Opens images with Beam: the slow part of ingest, which can run on many machines.

Workers import this module, so it imports little: they take seconds to start anyway.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.data.beam_options import count_one, counted, pipeline_options
from components.data.facts import inspect
from core.images import BadImage
from core.locations import location

# Images in an element of the pipeline: enough to make Beam's overhead small, and few enough to distribute the
# work evenly.
_IMAGES_AT_ONCE = 64


def open_images(
    rows: pd.DataFrame,
    directories: Mapping[str, Path],
    schema: pa.Schema,
    beam_options: Sequence[str],
    scratch: Path,
) -> pa.Table:
    """Opens, hashes and decodes every image.

    Args:
      rows: the images: `id`, `source`, `path`, and the columns of `schema` that are known already.
      directories: where each source's images are, by the source's name.
      schema: the columns wanted: those of `rows` and of `facts.Facts`; others are null.
      beam_options: see `components.data.beam_options`.
      scratch: a directory for the workers' results, which is created and removed.

    Returns:
      a row for each image, in any order: the columns of `schema`, and `kind` and `reason`, null unless the
      file cannot be used (`absent`, `unreadable`, or a kind of `images.BadImage`).
    """
    schema = pa.schema([*schema, ("kind", pa.string()), ("reason", pa.string())])
    roots = {name: str(path) for name, path in directories.items()}
    named = rows.astype(object).where(rows.notna(), None).to_dict("records")
    # As Arrow tables, because Beam would encode Python rows value by value, at every step.
    batches = [
        pa.RecordBatch.from_pylist(named[start : start + _IMAGES_AT_ONCE], schema)
        for start in range(0, len(named), _IMAGES_AT_ONCE)
    ]
    options = pipeline_options(beam_options, len(rows))
    with (
        counted("images opened", len(rows), options) as counter,
        beam.Pipeline(options=options) as pipeline,
    ):
        _ = (
            pipeline
            | "Name images" >> beam.Create(batches)
            | "Spread over workers" >> beam.Reshuffle()
            | "Open, hash and decode" >> beam.Map(_open, roots, schema, counter)
            | "Write" >> beam.io.WriteToParquetBatched(str(scratch / "rows"), schema)
        )
    opened = pq.read_table(scratch)
    shutil.rmtree(scratch)
    return opened


def _open(
    rows: pa.RecordBatch, roots: Mapping[str, str], schema: pa.Schema, counter: str | None
) -> pa.Table:
    opened = []
    for row in rows.to_pylist():
        opened.append({**row, **_inspected(location(roots[row["source"]]) / row["path"])})
        count_one(counter)
    return pa.Table.from_pylist(opened, schema)


def _inspected(file: Path) -> dict[str, Any]:
    """Returns the facts of an image file; never raises for a bad file."""
    try:
        return vars(inspect(file.read_bytes()))
    except FileNotFoundError:
        return {"kind": "absent", "reason": "the metadata names it, it is not there"}
    except OSError as error:
        return {"kind": "unreadable", "reason": str(error)}
    except BadImage as error:
        return {"kind": error.kind, "reason": str(error)}
