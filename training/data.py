"""Reads TFRecord shards and makes batches."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from core.artifacts import IDENTITIES, RECORDS
from core.errors import UserError
from core.files import read_json
from core.locations import local_copy, location
from core.progress import Progress
from core.tables import read_table
from training import augment, lungs, surroundings
from training.recipes import Recipe
from training.untuned import untuned
from training.views import to_pixels

# The order within shards is random already, so a window of this many images shuffles well. Memory does not
# grow with the dataset: it is 200 MB at 224 x 224.
_SHUFFLE_WINDOW = 1024
_KEPT_IN_MEMORY = 2**30  # bytes of a split's decoded images
_MOST_OF_A_SOURCE = 5.0
_FEATURES = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label", "id")}


def read_manifest(records: Path) -> dict[str, Any]:
    """Returns the manifest of a records directory.

    Raises:
      UserError: there is none, so the records are incomplete.
    """
    if not (records / RECORDS).is_file():
        raise UserError(f"{records} has no {RECORDS}: it is not a complete set of TFRecords.")
    return dict(read_json(records / RECORDS))


def identities(records: Path) -> pd.DataFrame:
    """Returns the `id`, `patient`, `sha256` and `perceptual_hash` of each image of the records.

    Raises:
      UserError: the records do not say it.
    """
    if not (records / IDENTITIES).is_file():
        raise UserError(
            f"{records} has no {IDENTITIES}: an earlier release wrote these records. Write them again."
        )
    return read_table(records / IDENTITIES)


def class_counts(
    manifest: Mapping[str, Any], recipe: Recipe, parts: Sequence[str]
) -> dict[str, int]:
    """Returns the number of images in each of the recipe's classes, in their order.

    Args:
      parts: of the records: splits or folds.

    Raises:
      UserError: a class has no images, or the records have no such part.
    """
    counts = _counts(manifest, recipe, parts)
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise UserError(
            f"{recipe.name}: {' and '.join(parts)} has no image of class {', '.join(empty)}. Add "
            "images to the sources, or leave the recipe out."
        )
    return counts


def _counts(manifest: Mapping[str, Any], recipe: Recipe, parts: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(recipe.classes, 0)
    for part in parts:
        for label, count in _part(manifest, part)["labels"].items():
            if label in recipe.task:
                counts[recipe.task[label]] += count
    return counts


def _part(manifest: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    if part not in manifest["splits"]:
        raise UserError(f"the records have no part {part!r}, only {', '.join(manifest['splits'])}")
    described: Mapping[str, Any] = manifest["splits"][part]
    return described


def content(manifest: Mapping[str, Any], parts: Sequence[str]) -> list[list[str]]:
    """Returns an identity of the content of parts of the records: the name and SHA-256 of each shard.

    Args:
      parts: splits or folds.
    """
    shards = [shard for part in parts for shard in _part(manifest, part)["shards"]]
    return sorted([shard["name"], shard["sha256"]] for shard in shards)


def class_weights(counts: Mapping[str, int]) -> list[float]:
    """Returns the weight of each class's images: images / (classes x images of the class).

    The mean weight over the images is one, so that the learning rate keeps its meaning (King and Zeng,
    Logistic Regression in Rare Events Data, 2001; `balanced` in scikit-learn).
    """
    total = sum(counts.values())
    return [total / (len(counts) * count) for count in counts.values()]


def image_weights(
    manifest: Mapping[str, Any], recipe: Recipe, parts: Sequence[str]
) -> dict[str, list[float]]:
    """Returns the weight of an image by its source and class, the classes in the recipe's order.

    Every class has the same total weight. In a `balanced` recipe, every source of a class does too, so that
    it helps less to tell the sources apart. A source gets at most five times the class's own weight, because
    a handful of images must not dominate. The mean weight over a class's images is that of `class_weights`.

    Args:
      parts: of the records: splits or folds that are trained on.

    Raises:
      UserError: see `class_counts`.
    """
    of_class = np.array(class_weights(class_counts(manifest, recipe, parts)))
    sources = sorted({source for part in parts for source in _part(manifest, part)["sources"]})
    counts = np.zeros((len(sources), len(recipe.classes)))
    for part in parts:
        for source, labels in _part(manifest, part)["sources"].items():
            for label, count in labels.items():
                if label in recipe.task:
                    position = recipe.classes.index(recipe.task[label])
                    counts[sources.index(source), position] += count
    weights = np.ones_like(counts)
    if recipe.balanced:
        there = np.maximum(counts, 1)
        weights = counts.sum(axis=0) / ((counts > 0).sum(axis=0) * there)
        weights = np.minimum(weights, _MOST_OF_A_SOURCE)
        weights *= counts.sum(axis=0) / (weights * counts).sum(axis=0)
    weights *= of_class
    return {source: row.tolist() for source, row in zip(sources, weights, strict=True)}


def encoded_images(
    records: Path, manifest: Mapping[str, Any], recipe: Recipe, parts: Sequence[str]
) -> tf.data.Dataset:
    """Returns the stored images of the recipe's classes, always in the same order.

    Args:
      parts: of the records: splits or folds.

    Returns:
      elements (image, class, id): scalar string, the bytes of a JPEG or PNG; scalar int32, the
      position in `recipe.classes`; scalar string. A class may have no image; see `class_counts`.

    Raises:
      UserError: the records have no such part.
    """
    count = sum(_counts(manifest, recipe, parts).values())
    shards = [shard["name"] for part in parts for shard in _part(manifest, part)["shards"]]
    # Sorted by the digest at the end of the name, which mixes the spans.
    shards.sort(key=lambda name: name.rpartition("-")[2])
    home = location(manifest["directory"]) if manifest["directory"] else records
    files = [str(local_copy(home / name)) for name in shards]
    positions = {label: recipe.classes.index(name) for label, name in recipe.task.items()}
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            list(positions), list(positions.values()), tf.string, tf.int32
        ),
        default_value=-1,
    )

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, _FEATURES)
        return example["image"], table.lookup(example["label"]), example["id"]

    dataset = tf.data.TFRecordDataset(files, num_parallel_reads=tf.data.AUTOTUNE)
    dataset = dataset.map(parse, tf.data.AUTOTUNE)
    dataset = dataset.filter(lambda image, position, identity: position >= 0)
    return untuned(dataset.apply(tf.data.experimental.assert_cardinality(count)))


def without(images: tf.data.Dataset, ids: Sequence[str]) -> tf.data.Dataset:
    """Returns a dataset of elements (…, class, id) without the given ids."""
    if not ids:
        return images
    left_out = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(list(ids), [True] * len(ids), tf.string, tf.bool),
        default_value=False,
    )
    return images.filter(lambda content, position, identity: ~left_out[identity])


def share_of_each(counts: Sequence[int], most: int, least: int) -> list[int]:
    """Returns the number of images of each class in a proportional sample with a minimum per class.

    Args:
      counts: number of images of each class.
      most: size of the sample, not counting what `least` adds.
      least: minimum of each class, or all of its images if there are fewer.
    """
    total = sum(counts)
    return [min(count, max(least, most * count // total)) for count in counts]


def first_of_each(images: tf.data.Dataset, shares: Sequence[int]) -> tf.data.Dataset:
    """Returns the first images of each class of a dataset of elements (…, class, id), in its order.

    Args:
      shares: number of images by class position; the dataset must have as many.
    """

    def counted(
        seen: tf.Tensor, element: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tuple[tuple[tf.Tensor, ...], tf.Tensor]]:
        wanted = seen[element[1]] < tf.constant(shares)[element[1]]
        return seen + tf.one_hot(element[1], len(shares), dtype=tf.int32), (element, wanted)

    scanned = images.scan(tf.zeros(len(shares), tf.int32), counted)
    chosen = scanned.filter(lambda element, wanted: wanted)
    # `take` before `map`, which may prefetch and would then read all the rest.
    return chosen.take(sum(shares)).map(lambda element, wanted: element)


def pixels(
    records: Path,
    manifest: Mapping[str, Any],
    recipe: Recipe,
    parts: Sequence[str],
    segmenter: keras.Model | None = None,
) -> tf.data.Dataset:
    """Decodes images and returns them as the model's input.

    Args:
      segmenter: finds the lungs, if the recipe's view needs it.

    Returns:
      elements (pixels, class, id): float32 [height, width, 1] in 0..255; scalar int32; scalar string.
    """
    return encoded_images(records, manifest, recipe, parts).map(
        lambda image, position, identity: (
            to_pixels(image, recipe, segmenter),
            position,
            identity,
        ),
        tf.data.AUTOTUNE,
    )


def with_lungs(images: tf.data.Dataset, segmenter: keras.Model) -> tf.data.Dataset:
    """Returns elements (pixels and lungs, class, id), the first float32 [height, width, 2].

    Args:
      images: see `pixels`.
      segmenter: see `training.lungs`.
    """

    def with_mask(
        shown: tf.Tensor, position: tf.Tensor, identity: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        mask = lungs.find(segmenter, shown[tf.newaxis], shown.shape[:2])[0]
        return tf.concat([shown, mask], axis=-1), position, identity

    return images.map(with_mask, tf.data.AUTOTUNE)


def kept(dataset: tf.data.Dataset, cache: Path) -> tf.data.Dataset:
    """Reads a dataset once and returns it cached.

    Decoding a radiograph takes longer than training a small network on it. The cache is in memory up to a
    fixed size, and on disk beyond it.

    Args:
      dataset: of known size; elements (values, class, id).
      cache: a file for this process alone.
    """
    values = dataset.element_spec[0]
    size = len(dataset) * math.prod(values.shape) * values.dtype.size
    dataset = dataset.cache("" if size <= _KEPT_IN_MEMORY else str(cache))
    # Fill the cache now, in one pass: Keras first takes one batch and drops the iterator, and an
    # incomplete cache is discarded.
    with Progress("images decoded", len(dataset)) as progress:
        for _ in dataset:
            progress.advance()
    return dataset


def weighted(images: tf.data.Dataset, weights: Mapping[str, Sequence[float]]) -> tf.data.Dataset:
    """Returns elements (values, class, weight) with a scalar float32 weight.

    Args:
      images: elements (values, class, id).
      weights: see `image_weights`; an image of any other source gets the mean over the sources.
    """
    rows = tf.constant([*weights.values(), np.mean(list(weights.values()), axis=0)], tf.float32)
    row_of = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(weights), tf.string), tf.range(len(weights))
        ),
        default_value=len(weights),
    )
    return images.map(
        lambda values, position, identity: (
            values,
            position,
            rows[row_of.lookup(tf.strings.split(identity, "/")[0]), position],
        )
    )


def training_batches(
    images: tf.data.Dataset,
    count: int,
    batch: int,
    *,
    first_epoch: int,
    epochs: int,
    seed: int,
    mixed: bool = False,
    augmented: bool = False,
) -> tf.data.Dataset:
    """Returns the batches of the epochs from `first_epoch` on, reshuffled in each epoch.

    An epoch has `ceil(count / batch)` full batches, so that every replica has the same work. The last batch
    is filled with the first images of the same epoch, which are then seen twice. The order of an epoch
    depends only on the seed and its number, so a resumed training sees the same batches as an uninterrupted
    one.

    Args:
      images: elements of any shape, `count` of them.
      batch: images per step, over all replicas together.
      mixed: whether to mix surroundings (see `training.surroundings`); elements are then (pixels and lungs,
        class, weight), see `with_lungs`, or (pixels, class, weight) of lungs alone.
      augmented: whether to augment the pixels (see `training.augment`); elements are then (pixels, class,
        weight).
    """

    def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        shuffled = images.shuffle(
            min(count, _SHUFFLE_WINDOW), seed=(seed + 1) * 100_003 + epoch,
            reshuffle_each_iteration=False,
        )  # fmt: skip
        return shuffled.repeat().take(steps_per_epoch(count, batch) * batch)

    epochs_left = tf.data.Dataset.range(first_epoch, epochs)
    batches = epochs_left.flat_map(of_epoch).batch(batch, drop_remainder=True)
    if mixed or augmented:

        def changed(step: tf.Tensor, of_batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            shown, classes, weights = of_batch
            of_step = tf.stack([tf.cast(seed, tf.int64), step])
            if mixed:
                masks = shown[..., 1:] if shown.shape[-1] == 2 else None
                shown = surroundings.mixed(shown[..., :1], masks, classes, of_step)
            return augment.augmented(shown, of_step) if augmented else shown, classes, weights

        numbered = batches.enumerate(first_epoch * steps_per_epoch(count, batch))
        batches = numbered.map(changed, tf.data.AUTOTUNE)
    return untuned(batches.prefetch(tf.data.AUTOTUNE))


def validation_batches(images: tf.data.Dataset, count: int, batch: int) -> tf.data.Dataset:
    """Returns full batches with the same weighted means as the images alone.

    If the last batch were not full, some replicas would have no image, which breaks Keras' means and its
    inspection of the first batch. So the last batch is filled with images of weight zero, and the weights of
    the others grow to compensate.

    Args:
      images: elements (values, class, weight), `count` of them.
      batch: images per step, over all replicas together.
    """
    whole = steps_per_epoch(count, batch) * batch
    grown = images.map(lambda values, position, weight: (values, position, weight * whole / count))
    fillers = images.repeat().take(whole - count)
    fillers = fillers.map(lambda values, position, weight: (values, position, 0.0))
    return grown.concatenate(fillers).batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def steps_per_epoch(count: int, batch: int) -> int:
    """Returns the number of batches that hold `count` images."""
    return -(-count // batch)
