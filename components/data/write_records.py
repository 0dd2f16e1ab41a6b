"""Step `write_records`: packs the images of each split into TFRecord shards for training.

The examples alone determine the shards and their order, so the same examples give the same bytes on every
Beam runner, even if a run is killed and restarted. A shard has images of one span and is named by its
content, so that only new shards of a growing dataset are written. If an image has been withdrawn or has
another label, its shard is rewritten; the other images are copied from the earlier shard without decoding.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from components.data.relatives import IDENTITY
from components.data.shards import Shard, described_in, shards_of
from core.artifacts import EXAMPLES, IDENTITIES, RECORDS, SUMMARY
from core.files import read_json, write_json
from core.locations import is_remote, reaching, sizes
from core.progress import logger

_COLUMNS = ["id", "source", "path", "label", "split", "sha256", "span"]
# A shard is written in seconds.
_LEFT_OVER_AFTER_SECONDS = 24 * 3600


def write_records(
    examples: Path,
    directories: Mapping[str, Path],
    output: Path,
    *,
    beam_options: Sequence[str] = (),
    archive: Path | None = None,
) -> dict[str, Any]:
    """Writes TFRecord shards for every split, `<split>-<span>-<number>-<digest>.tfrecord`, and a manifest.

    `identities.parquet` beside the manifest says who and what each image shows: the columns of
    `relatives.IDENTITY`. It is not in the shards, because a source may correct whose image it is.

    A record is a `tf.train.Example` with `image` (bytes of a JPEG or PNG that TensorFlow decodes,
    its longer side at most `preprocess.MAX_SIDE`), `label` and `id` (UTF-8). Original bytes that meet this
    are kept.

    Args:
      examples: the output of `ingest`.
      directories: where each source's images are, by the source's name.
      output: the directory to write.
      beam_options: see `components.data.beam_options`.
      archive: gets the shards below `records/` (see `components.data.spans`); None: they are in `output`.
        Existing shards are not written again.

    Returns:
      the manifest, also in `manifest.json`, which is written last: `directory` of the shards, if it is
      not that of the manifest; for each split the shards with their SHA-256 and number of records, and the
      counts by label, and by source and label; the examples' fingerprint and span, and whether they are
      phantoms.

    Raises:
      UserError: an image that ingest has read is gone.
    """
    rows = pq.read_table(examples / EXAMPLES, columns=_COLUMNS).to_pandas()
    shards = list(shards_of(rows))
    home = archive / "records" if archive else output
    output.mkdir(parents=True, exist_ok=True)
    (output / RECORDS).unlink(missing_ok=True)
    if not is_remote(home):
        _remove_leftovers(home)
    with reaching(home):
        there = set(sizes(home))
    missing = [
        replace(shard, earlier=[name for name in there if shard.is_earlier(name)])
        for shard in shards
        if described_in(shard.name) not in there
    ]
    roots = {name: str(path) for name, path in directories.items()}
    if missing:
        # Imported here, because it brings Beam and TensorFlow.
        from components.data.write_shards import write_shards

        with reaching(home):
            write_shards(missing, roots, home, beam_options)
    summary = read_json(examples / SUMMARY)
    with reaching(home):
        manifest = {
            "fingerprint": summary["fingerprint"],
            "phantoms": summary["phantoms"],
            "span": summary["span"] and summary["span"]["number"],
            "directory": str(home) if archive else "",
            "splits": {
                split: _describe(rows, shards, split, home) for split in sorted(set(rows["split"]))
            },
        }
    identities = pq.read_table(examples / EXAMPLES, columns=IDENTITY)
    pq.write_table(identities, output / IDENTITIES)
    write_json(output / RECORDS, manifest)
    logger.info("%d TFRecord shards, %d of them new", len(shards), len(missing))
    return manifest


def _remove_leftovers(home: Path) -> None:
    """Removes temporary files of killed attempts; recent ones may be another run's."""
    for leftover in home.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > _LEFT_OVER_AFTER_SECONDS:
                leftover.unlink()


def _describe(
    rows: pd.DataFrame, shards: Sequence[Shard], split: str, home: Path
) -> dict[str, Any]:
    members = rows[rows["split"] == split]
    labels = members["label"]
    return {
        "shards": [
            {key: described[key] for key in ("name", "records", "sha256")}
            for shard in shards
            if shard.split == split
            for described in [read_json(home / described_in(shard.name))]
        ],
        "records": len(labels),
        "labels": _counts(labels),
        "sources": {
            str(source): _counts(of_source)
            for source, of_source in labels.groupby(members["source"])
        },
    }


def _counts(labels: pd.Series) -> dict[str, int]:
    return {str(label): int(count) for label, count in labels.value_counts().items()}
