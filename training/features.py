"""The features of a frozen base, computed once per image and kept for all epochs, folds and runs.

    <store>/<base>-<key>/<shard>.npy and <shard>.json

The key identifies the base, its weights, the input size and the precision. A shard has features and the
SHA-256 of their images. Shards are written under a temporary name and renamed, the features first, so that
a list of images always has its features, and several runs can write at once.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from core.files import read_json, write_aside, write_json
from core.progress import Progress, logger
from training import data, kept, lungs
from training.recipes import Recipe
from training.untuned import untuned
from training.views import to_pixels

_IMAGES_PER_SHARD = 1024
_BATCH = 32

# The location of an image's features: the shard's file and the row in it.
_Places = dict[str, tuple[Path, int]]


def inputs(
    records: Path,
    manifest: Mapping[str, Any],
    recipe: Recipe,
    parts: Sequence[str],
    base: keras.Model,
    store: Path,
    segmenter: keras.Model | None = None,
) -> tf.data.Dataset:
    """Returns the features of images, after computing and storing those that are missing.

    Args:
      records, manifest, recipe, parts: see `data.encoded_images`.
      base: see `architectures.build`; not trainable.
      store: a directory that outlives the process.
      segmenter: finds the lungs, if the recipe's view needs it.

    Returns:
      elements (features, class, id): float32, of the base's output shape; scalar int32; scalar string.
    """
    home = store / kept.name(
        recipe.base,
        [base.input_shape, base.output_shape, base.compute_dtype, lungs.digest(base)],
        segmenter and lungs.digest(segmenter),
    )
    images = data.encoded_images(records, manifest, recipe, parts)
    digests, others = [], []
    for content, position, identity in images.as_numpy_iterator():
        digests.append(hashlib.sha256(content).hexdigest())
        others.append((position, identity))
    places = _places(home)
    missing = [digest for digest in dict.fromkeys(digests) if digest not in places]
    if missing:
        logger.info(
            "%s: features of %d images to compute, %d in the store",
            recipe.name,
            len(missing),
            len(set(digests)) - len(missing),
        )
        _compute(images, set(missing), recipe, base, home, segmenter)
        places = _places(home)

    def features() -> Iterator[tuple[np.ndarray, int, bytes]]:
        shards: dict[Path, np.ndarray] = {}
        for digest, (position, identity) in zip(digests, others, strict=True):
            file, row = places[digest]
            if file not in shards:
                shards[file] = np.load(file, mmap_mode="r")
            yield shards[file][row], position, identity

    spec = (
        tf.TensorSpec(base.output_shape[1:], tf.float32),
        tf.TensorSpec((), tf.int32),
        tf.TensorSpec((), tf.string),
    )
    dataset = tf.data.Dataset.from_generator(features, output_signature=spec)
    return untuned(dataset.apply(tf.data.experimental.assert_cardinality(len(digests))))


def _compute(
    images: tf.data.Dataset,
    missing: set[str],
    recipe: Recipe,
    base: keras.Model,
    home: Path,
    segmenter: keras.Model | None,
) -> None:
    home.mkdir(parents=True, exist_ok=True)

    def wanted(content: bytes) -> bool:
        # Take each image once, even if two files have the same content.
        digest = hashlib.sha256(content).hexdigest()
        is_missing = digest in missing
        missing.discard(digest)
        if is_missing:
            digests.append(digest)
        return is_missing

    digests: list[str] = []
    images = images.map(lambda content, position, identity: content)
    images = images.filter(lambda content: tf.numpy_function(wanted, [content], tf.bool))
    images = images.map(lambda content: to_pixels(content, recipe, segmenter), tf.data.AUTOTUNE)
    with Progress("features computed", len(missing)) as progress:
        counting = keras.callbacks.LambdaCallback(
            on_predict_batch_end=lambda batch, logs: progress.advance(_BATCH)
        )
        for shard in images.batch(_BATCH).prefetch(2).window(_IMAGES_PER_SHARD // _BATCH):
            features = base.predict(untuned(shard), verbose=0, callbacks=[counting]).astype(
                np.float32
            )
            written, digests[: len(features)] = digests[: len(features)], []
            name = hashlib.sha256("".join(written).encode()).hexdigest()[:16]
            with write_aside(home / f"{name}.npy") as aside, aside.open("wb") as file:
                np.save(file, features)
            write_json(home / f"{name}.json", written)


def _places(home: Path) -> _Places:
    return {
        digest: (index.with_suffix(".npy"), row)
        for index in sorted(home.glob("*.json"))
        for row, digest in enumerate(read_json(index))
    }
