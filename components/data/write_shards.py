"""Writes TFRecord shards with Beam."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from components.data.beam_options import count_one, counted, pipeline_options
from components.data.shards import Shard, described_in
from core.errors import UserError
from core.files import read_json, sha256_of, write_text
from core.locations import location, store
from training import preprocess
from training.without_keras import tf


def write_shards(
    shards: Sequence[Shard], roots: Mapping[str, str], home: Path, beam_options: Sequence[str]
) -> None:
    """Writes shards, and beside each its description.

    Args:
      shards: see `components.data.shards`.
      roots: where each source's images are, by the source's name.
      home: the directory or place that gets them.
      beam_options: see `components.data.beam_options`.

    Raises:
      UserError: an image is gone.
    """
    images = sum(len(shard.rows) for shard in shards)
    options = pipeline_options(beam_options, images)
    with (
        counted("images written", images, options) as counter,
        beam.Pipeline(options=options) as pipeline,
    ):
        _ = (
            pipeline
            | "Name shards" >> beam.Create(list(shards))
            | "Spread over workers" >> beam.Reshuffle()
            | "Write shard" >> beam.Map(_write_shard, dict(roots), str(home), counter)
        )


def _write_shard(shard: Shard, roots: Mapping[str, str], output: str, counter: str | None) -> None:
    """Writes a shard and then its description, as the sign that the shard is complete."""
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
                count_one(counter)
        described = {
            "name": shard.name,
            "records": len(shard.rows),
            "sha256": sha256_of(file),
            "images": {row["id"]: row["sha256"] for row in shard.rows},
        }
        store(file, home / shard.name)
    write_text(home / described_in(shard.name), json.dumps(described))


def _stored(shard: Shard, home: Path) -> dict[tuple[str, str], bytes]:
    """Returns images from earlier shards, by id and SHA-256 of the original file."""
    images = {}
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
                images[key] = feature["image"].bytes_list.value[0]
    return images


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"write_records: {file} is gone since it was ingested. Run the same command again."
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
      the same bytes if TensorFlow decodes them correctly and no side is over `preprocess.MAX_SIDE`;
      otherwise a PNG of the same picture that meets both.
    """
    content, image = preprocess.decoded(content)
    if max(image.shape) <= preprocess.MAX_SIDE:
        return content
    pixels = tf.cast(preprocess.shrink(image), tf.uint8)
    # The default takes eight times as long and saves an eighth.
    return bytes(tf.io.encode_png(pixels, compression=2).numpy())
