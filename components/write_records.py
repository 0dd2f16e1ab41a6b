"""Step `write_records`: packs the images of each split into TFRecord shards for training.

Which image stands in which shard, and in which order, follows from the examples alone: the same
examples give the same bytes on every Beam runner, however often a run is killed and begun again. A shard
holds images of one span and is named after all that is in it, so that of a dataset that has grown only
what is new is written. Where an image has been withdrawn or has another label, its shard is written anew
without decoding the others again: they are taken from the shard that was there.
"""

import contextlib
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from components.files import read_json, sha256_of, write_json, write_text
from components.images import for_tensorflow, to_png
from components.locations import is_remote, location, reaching, sizes, store
from components.progress import logger
from components.step import data_step
from training import preprocess

MANIFEST = "manifest.json"
IMAGES_PER_SHARD = 256

_COLUMNS = ["id", "source", "path", "label", "split", "sha256", "span"]
# Of what `storable` makes of an image, in the shards' names: a change of it begins new ones.
_FORMAT = 2
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

    A record is a `tf.train.Example` with `image` (bytes of a JPEG or PNG that TensorFlow decodes,
    its longer side at most `preprocess.MAX_SIDE`), `label` and `id` (UTF-8). The original bytes are
    kept wherever they meet that.

    Args:
      examples: the output of `ingest`.
      directories: where each source's images are, by the source's name.
      output: a directory to be made.
      beam_options: see `components.beam_options`.
      archive: gets the shards below `records/` (see `components.spans`); None: they are in `output`.
        What is there already is not written again.

    Returns:
      the manifest, also in `manifest.json`, which is written last: `directory` of the shards where it
      is not that of the manifest; per split the shards with their SHA-256 and number of records and
      the counts by label, and by source and label; the examples' fingerprint and span, and whether they
      are phantoms.

    Raises:
      UserError: an image that was there at ingest is gone.
    """
    rows = pq.read_table(examples / EXAMPLES, columns=_COLUMNS).to_pandas()
    shards = list(_shards(rows))
    home = archive / "records" if archive else output
    output.mkdir(parents=True, exist_ok=True)
    (output / MANIFEST).unlink(missing_ok=True)
    if not is_remote(home):
        _remove_leftovers(home)
    with reaching(home):
        there = set(sizes(home))
    missing = [
        replace(shard, earlier=[name for name in there if shard.is_earlier(name)])
        for shard in shards
        if _described(shard.name) not in there
    ]
    roots = {name: str(path) for name, path in directories.items()}
    if missing:
        images = sum(len(shard.rows) for shard in missing)
        with (
            reaching(home),
            beam.Pipeline(options=pipeline_options(beam_options, images)) as pipeline,
        ):
            _ = (
                pipeline
                | "Name shards" >> beam.Create(missing)
                | "Spread over workers" >> beam.Reshuffle()
                | "Write shard" >> beam.Map(_write_shard, roots, str(home))
            )
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
    write_json(output / MANIFEST, manifest)
    logger.info("%d TFRecord shards, %d of them new", len(shards), len(missing))
    return manifest


def _remove_leftovers(home: Path) -> None:
    """Removes temporary files of attempts that were killed; younger ones may be another run's."""
    for leftover in home.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > _LEFT_OVER_AFTER_SECONDS:
                leftover.unlink()


@dataclass(frozen=True)
class _Shard:
    """Rows that are written together; `earlier` are descriptions of shards that had some of them."""

    name: str
    split: str
    rows: list[dict[Any, Any]]
    earlier: list[str] = field(default_factory=list)

    def is_earlier(self, described: str) -> bool:
        place, _, _ = self.name.rpartition("-")
        return described.startswith(f"{place}-") and described.endswith(_described(""))


def _shards(rows: pd.DataFrame) -> Iterator[_Shard]:
    for (split, span), of_both in rows.groupby(["split", "span"]):
        # By a hash, so that every shard holds a like mixture of sources and labels. A power of two, so
        # that an image stays in its shard when others are withdrawn.
        count = 2 ** max(0, math.ceil(math.log2(len(of_both) / IMAGES_PER_SHARD)))
        order = pd.util.hash_array(of_both["id"].to_numpy(dtype=object), categorize=False)
        members = of_both.assign(order=order).sort_values(["order", "id"])
        for number, of_shard in members.groupby(members["order"] % count):
            identity = json.dumps([_FORMAT, *of_shard[["id", "sha256", "label"]].values.tolist()])
            digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
            name = f"{split}-{span:05d}-{number:05d}-{digest}.tfrecord"
            yield _Shard(name, str(split), of_shard.drop(columns="order").to_dict("records"))


def _described(name: str) -> str:
    return f"{name}.json"


def _write_shard(shard: _Shard, roots: Mapping[str, str], output: str) -> None:
    """Writes a shard and then, as the sign that it is whole, what there is to say of it."""
    home = location(output)
    stored = _stored(shard, home)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "shard")
        with tf.io.TFRecordWriter(str(file)) as writer:
            for row in shard.rows:
                image = stored.get((row["id"], row["sha256"]))
                features = {
                    "image": image
                    or storable(_content(location(roots[row["source"]]) / row["path"])),
                    "label": row["label"],
                    "id": row["id"],
                }
                writer.write(_example(features).SerializeToString(deterministic=True))
        described = {
            "name": shard.name,
            "records": len(shard.rows),
            "sha256": sha256_of(file),
            "images": {row["id"]: row["sha256"] for row in shard.rows},
        }
        store(file, home / shard.name)
    write_text(home / _described(shard.name), json.dumps(described))


def _stored(shard: _Shard, home: Path) -> dict[tuple[str, str], bytes]:
    """Returns images as earlier shards hold them, by id and SHA-256 of the file they were made of."""
    found = {}
    for earlier in shard.earlier:
        described = read_json(home / earlier)
        content = (home / described["name"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != described["sha256"]:
            continue  # damaged: the sources still have them
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(content)
            for record in tf.data.TFRecordDataset(file.name).as_numpy_iterator():
                feature = tf.train.Example.FromString(record).features.feature
                identity = feature["id"].bytes_list.value[0].decode()
                key = identity, described["images"][identity]
                found[key] = feature["image"].bytes_list.value[0]
    return found


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"write_records: {file} was there at ingest and is gone. Run ingest again."
        ) from error


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
    # The default takes eight times as long and saves an eighth.
    return bytes(tf.io.encode_png(pixels, compression=2).numpy())


def _describe(
    rows: pd.DataFrame, shards: Sequence[_Shard], split: str, home: Path
) -> dict[str, Any]:
    members = rows[rows["split"] == split]
    labels = members["label"]
    return {
        "shards": [
            {key: described[key] for key in ("name", "records", "sha256")}
            for shard in shards
            if shard.split == split
            for described in [read_json(home / _described(shard.name))]
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


@data_step
def write_records_step(
    examples: dsl.Input[dsl.Dataset],
    covid_directory: str,
    kermany_directory: str,
    beam_options: list[str],
    sources: list[str],
    records: dsl.Output[dsl.Dataset],
    archive: str = "",
) -> None:
    """Packs each split's images into TFRecord shards. See `write_records`."""
    from pathlib import Path

    from components.locations import location
    from components.sources import covid_chestxray, kermany
    from components.sources.listed import parse
    from components.write_records import write_records

    manifest = write_records(
        Path(examples.path),
        {
            covid_chestxray.NAME: location(covid_directory),
            kermany.NAME: location(kermany_directory),
            **{name: source.directory for name, source in parse(sources).items()},
        },
        Path(records.path),
        beam_options=beam_options,
        archive=location(archive) if archive else None,
    )
    records.metadata["fingerprint"] = manifest["fingerprint"]
    for split, described in manifest["splits"].items():
        records.metadata[f"{split}_records"] = described["records"]
