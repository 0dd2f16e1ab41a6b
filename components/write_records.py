"""Step `write_records`: packs the images of each split into TFRecord shards for training.

Which image stands in which shard, and in which order, follows from the examples alone: the same
examples give the same bytes on every Beam runner, however often a run is killed and begun again.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pandas as pd
import pyarrow.parquet as pq
import tensorflow as tf
from kfp import dsl

from components.beam_options import pipeline_options
from components.errors import UserError
from components.examples import EXAMPLES, SUMMARY
from components.files import read_json, sha256_of, write_aside, write_json
from components.images import for_tensorflow, to_png
from components.progress import logger
from components.step import data_step
from training import preprocess

MANIFEST = "manifest.json"
IMAGES_PER_SHARD = 256

_COLUMNS = ["id", "source", "path", "label", "split"]


def write_records(
    examples: Path,
    directories: dict[str, Path],
    output: Path,
    *,
    beam_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes `<split>-<number>-of-<count>.tfrecord` for every split, and a manifest.

    A record is a `tf.train.Example` with `image` (bytes of a JPEG or PNG that TensorFlow decodes,
    its longer side at most `preprocess.MAX_SIDE`), `label` and `id` (UTF-8). The original bytes are
    kept wherever they meet that.

    Args:
      examples: the output of `ingest`.
      directories: where each source's images are, by the source's name.
      output: a directory to be made; a shard of an earlier, killed attempt is written anew.
      beam_options: see `components.beam_options`.

    Returns:
      the manifest, also in `manifest.json`, which is written last: per split the shards with their
      SHA-256 and number of records and the counts by label; the examples' fingerprint, and whether
      they are phantoms.

    Raises:
      UserError: an image that was there at ingest is gone.
    """
    rows = pq.read_table(examples / EXAMPLES, columns=_COLUMNS).to_pandas()
    shards = list(_shards(rows))
    roots = {name: str(path) for name, path in directories.items()}
    output.mkdir(parents=True, exist_ok=True)
    (output / MANIFEST).unlink(missing_ok=True)
    for leftover in output.glob(".*.tmp"):  # of an attempt that was killed
        leftover.unlink()
    with beam.Pipeline(options=pipeline_options(beam_options, len(rows))) as pipeline:
        _ = (
            pipeline
            | "Name shards" >> beam.Create(shards)
            | "Spread over workers" >> beam.Reshuffle()
            | "Write shard" >> beam.Map(_write_shard, roots, str(output))
        )
    summary = read_json(examples / SUMMARY)
    manifest = {
        "fingerprint": summary["fingerprint"],
        "phantoms": summary["phantoms"],
        "splits": {
            split: _describe(rows, shards, split, output) for split in sorted(set(rows["split"]))
        },
    }
    write_json(output / MANIFEST, manifest)
    logger.info(
        "%d TFRecord shards, %.1f MB",
        len(shards),
        sum((output / name).stat().st_size for name, _ in shards) / 1e6,
    )
    return manifest


def _shards(rows: pd.DataFrame) -> Iterator[tuple[str, list[dict[Any, Any]]]]:
    for split in sorted(set(rows["split"])):
        # Sorted by a hash, so that every shard holds a like mixture of sources and labels.
        members = rows[rows["split"] == split].copy()
        order = pd.util.hash_array(members["id"].to_numpy(dtype=object), categorize=False)
        members = members.iloc[order.argsort(kind="stable")]
        count = math.ceil(len(members) / IMAGES_PER_SHARD)
        for number in range(count):
            name = f"{split}-{number:05d}-of-{count:05d}.tfrecord"
            yield name, members.iloc[number::count].to_dict("records")


def _write_shard(
    shard: tuple[str, list[dict[Any, Any]]], roots: dict[str, str], output: str
) -> None:
    name, rows = shard
    with write_aside(Path(output, name)) as aside, tf.io.TFRecordWriter(str(aside)) as writer:
        for row in rows:
            file = Path(roots[row["source"]], row["path"])
            try:
                content = file.read_bytes()
            except FileNotFoundError as error:
                raise UserError(
                    f"write_records: {file} was there at ingest and is gone. Run ingest again."
                ) from error
            features = {"image": storable(content), "label": row["label"], "id": row["id"]}
            writer.write(_example(features).SerializeToString(deterministic=True))


def _example(features: dict[str, bytes | str]) -> Any:
    values = {
        name: value if isinstance(value, bytes) else value.encode()
        for name, value in features.items()
    }
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                for name, value in values.items()
            }
        )
    )


def storable(content: bytes) -> bytes:
    """Returns the image as records hold it.

    Args:
      content: the bytes of an image file that `images.inspect` accepts.

    Returns:
      the same bytes where TensorFlow decodes them as meant and no side is over
      `preprocess.MAX_SIDE`; else a PNG of the same picture that fulfils both.
    """
    content = for_tensorflow(content)
    try:
        image = preprocess.decode_grey(tf.constant(content))
    except tf.errors.InvalidArgumentError:  # e.g. CMYK: Pillow reads it, TensorFlow does not
        content = to_png(content)
        image = preprocess.decode_grey(tf.constant(content))
    if max(image.shape) <= preprocess.MAX_SIDE:
        return content
    pixels = tf.cast(preprocess.shrink(image), tf.uint8)
    return bytes(tf.io.encode_png(pixels).numpy())


def _describe(
    rows: pd.DataFrame, shards: Sequence[tuple[str, list[Any]]], split: str, output: Path
) -> dict[str, Any]:
    labels = rows.loc[rows["split"] == split, "label"]
    return {
        "shards": [
            {"name": name, "records": len(members), "sha256": sha256_of(output / name)}
            for name, members in shards
            if name.startswith(f"{split}-")
        ],
        "records": len(labels),
        "labels": {str(label): int(count) for label, count in labels.value_counts().items()},
    }


@data_step
def write_records_step(
    examples: dsl.Input[dsl.Dataset],
    covid_directory: str,
    kermany_directory: str,
    beam_options: list[str],
    records: dsl.Output[dsl.Dataset],
) -> None:
    """Packs each split's images into TFRecord shards. See `write_records`."""
    from pathlib import Path

    from components.sources import covid_chestxray, kermany
    from components.write_records import write_records

    manifest = write_records(
        Path(examples.path),
        {
            covid_chestxray.NAME: Path(covid_directory),
            kermany.NAME: Path(kermany_directory),
        },
        Path(records.path),
        beam_options=beam_options,
    )
    records.metadata["fingerprint"] = manifest["fingerprint"]
    for split, described in manifest["splits"].items():
        records.metadata[f"{split}_records"] = described["records"]
