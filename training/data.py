"""From TFRecord shards to batches."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from core.artifacts import RECORDS
from core.errors import UserError
from core.files import read_json
from core.locations import local_copy, location
from core.progress import Progress
from training import augment
from training.recipes import Recipe
from training.views import Change, to_pixels

# The shards' order is random already, so a window of this many images shuffles well, and memory does
# not grow with the dataset: at 224 x 224 it is 200 MB.
_SHUFFLE_WINDOW = 1024
_KEPT_IN_MEMORY = 2**30  # bytes of a split's decoded images
_MOST_OF_A_SOURCE = 5.0
_FEATURES = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label", "id")}


def read_manifest(records: Path) -> dict[str, Any]:
    """Returns the manifest of a records directory.

    Raises:
      UserError: there is none, so the records are not whole.
    """
    if not (records / RECORDS).is_file():
        raise UserError(f"{records} holds no {RECORDS}: it is not a finished set of TFRecords.")
    return dict(read_json(records / RECORDS))


def class_counts(
    manifest: Mapping[str, Any], recipe: Recipe, parts: Sequence[str]
) -> dict[str, int]:
    """Returns the number of images in each of the recipe's classes, in their order.

    Args:
      parts: of the records: splits or folds.

    Raises:
      UserError: a class has none, or the records have no such part.
    """
    counts = dict.fromkeys(recipe.classes, 0)
    for part in parts:
        for label, count in _part(manifest, part)["labels"].items():
            if label in recipe.task:
                counts[recipe.task[label]] += count
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise UserError(
            f"{recipe.name}: {' and '.join(parts)} has no image of class {', '.join(empty)}. Add "
            "images to the sources, or leave the recipe out."
        )
    return counts


def _part(manifest: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    if part not in manifest["splits"]:
        raise UserError(f"the records have no part {part!r}, only {', '.join(manifest['splits'])}")
    described: Mapping[str, Any] = manifest["splits"][part]
    return described


def content(manifest: Mapping[str, Any], parts: Sequence[str]) -> list[list[str]]:
    """Returns what stands for the content of parts of the records: each shard's name and SHA-256.

    Args:
      parts: splits or folds.
    """
    shards = [shard for part in parts for shard in _part(manifest, part)["shards"]]
    return sorted([shard["name"], shard["sha256"]] for shard in shards)


def class_weights(counts: Mapping[str, int]) -> list[float]:
    """Returns the weight of each class's images: images / (classes x images of the class).

    The mean weight over the images is one, so the learning rate keeps its meaning. (King and Zeng,
    Logistic Regression in Rare Events Data, 2001; scikit-learn's `balanced`.)
    """
    total = sum(counts.values())
    return [total / (len(counts) * count) for count in counts.values()]


def image_weights(
    manifest: Mapping[str, Any], recipe: Recipe, parts: Sequence[str]
) -> dict[str, list[float]]:
    """Returns the weight of an image by its source and class, the latter in the recipe's order.

    Every class weighs alike. Of a recipe that is `balanced` every source of a class does, too, so that
    to tell the sources apart helps less: up to five times the class's own weight, because a handful of
    images must not lead. The mean weight over a class's images is that of `class_weights`.

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
    """Returns the images of the recipe's classes, as stored, always in the same order.

    Args:
      parts: of the records: splits or folds.

    Returns:
      elements (image, class, id): scalar string, the bytes of a JPEG or PNG; scalar int32, the
      position in `recipe.classes`; scalar string.
    """
    count = sum(class_counts(manifest, recipe, parts).values())
    shards = [shard["name"] for part in parts for shard in _part(manifest, part)["shards"]]
    # In the order of the digests that end their names, which mixes the spans.
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
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def without(images: tf.data.Dataset, ids: Sequence[str]) -> tf.data.Dataset:
    """Returns a dataset of elements (…, class, id) without those of some ids."""
    if not ids:
        return images
    left_out = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(list(ids), [True] * len(ids), tf.string, tf.bool),
        default_value=False,
    )
    return images.filter(lambda content, position, identity: ~left_out[identity])


def share_of_each(counts: Sequence[int], most: int, least: int) -> list[int]:
    """Returns how many images of each class a sample has: in proportion, but of each class some.

    Args:
      counts: of the images of each class there are.
      most: of the sample, but for what `least` adds.
      least: of each class, or all where there are fewer.
    """
    total = sum(counts)
    return [min(count, max(least, most * count // total)) for count in counts]


def first_of_each(images: tf.data.Dataset, shares: Sequence[int]) -> tf.data.Dataset:
    """Returns the first images of each class of a dataset of elements (…, class, id), in their order.

    Args:
      shares: how many of each class, by its position; there must be as many.
    """

    def counted(
        seen: tf.Tensor, element: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tuple[tuple[tf.Tensor, ...], tf.Tensor]]:
        wanted = seen[element[1]] < tf.constant(shares)[element[1]]
        return seen + tf.one_hot(element[1], len(shares), dtype=tf.int32), (element, wanted)

    scanned = images.scan(tf.zeros(len(shares), tf.int32), counted)
    chosen = scanned.filter(lambda element, wanted: wanted)
    # Counted before the map, which may run ahead of what is asked for, and would read all the rest.
    return chosen.take(sum(shares)).map(lambda element, wanted: element)


def pixels(
    records: Path,
    manifest: Mapping[str, Any],
    recipe: Recipe,
    parts: Sequence[str],
    segmenter: keras.Model | None = None,
    change: Change | None = None,
) -> tf.data.Dataset:
    """Decodes images and returns them as the model takes them.

    Args:
      segmenter: finds the lungs, where the recipe's view needs it.
      change: what is done to each image at last.

    Returns:
      elements (pixels, class, id): float32 [height, width, 1] in 0..255; scalar int32; scalar string.
    """
    return encoded_images(records, manifest, recipe, parts).map(
        lambda image, position, identity: (
            to_pixels(image, recipe, segmenter, change),
            position,
            identity,
        ),
        tf.data.AUTOTUNE,
    )


def kept(dataset: tf.data.Dataset, cache: Path) -> tf.data.Dataset:
    """Runs through a dataset once and returns it to be read again and again.

    A radiograph takes longer to decode than a small network to train on. What comes of it is kept
    in memory up to a fixed size, on disk beyond it.

    Args:
      dataset: of known size; elements (values, class, id).
      cache: a file, of this process alone.
    """
    values = dataset.element_spec[0]
    size = len(dataset) * math.prod(values.shape) * values.dtype.size
    dataset = dataset.cache("" if size <= _KEPT_IN_MEMORY else str(cache))
    # Filled here and in one go: Keras begins by taking one batch and dropping the iterator, and a
    # cache that is dropped before its end is begun anew.
    with Progress("images decoded", len(dataset)) as progress:
        for _ in dataset:
            progress.advance()
    return dataset


def weighted(images: tf.data.Dataset, weights: Mapping[str, Sequence[float]]) -> tf.data.Dataset:
    """Returns (values, class, weight), weight a float32 scalar.

    Args:
      images: elements (values, class, id).
      weights: see `image_weights`; an image of a source that is not named has the mean over sources.
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
    augmented: bool = False,
) -> tf.data.Dataset:
    """Returns the batches of the epochs from `first_epoch` on, shuffled anew in each.

    An epoch is `ceil(count / batch)` full batches, so that every replica always has equal work: the
    images that fill the last batch are the first of the same epoch, seen twice. What an epoch holds
    follows from the seed and its number alone, so a resumed training sees what an uninterrupted one
    would have.

    Args:
      images: elements of any shape, `count` of them.
      batch: images a step over all replicas together.
      augmented: whether the elements are (pixels, class, weight), and the pixels shall be changed; see
        `training.augment`.
    """

    def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        shuffled = images.shuffle(
            min(count, _SHUFFLE_WINDOW), seed=(seed + 1) * 100_003 + epoch,
            reshuffle_each_iteration=False,
        )  # fmt: skip
        return shuffled.repeat().take(steps_per_epoch(count, batch) * batch)

    epochs_left = tf.data.Dataset.range(first_epoch, epochs)
    batches = epochs_left.flat_map(of_epoch).batch(batch, drop_remainder=True)
    if augmented:
        numbered = batches.enumerate(first_epoch * steps_per_epoch(count, batch))
        batches = numbered.map(
            lambda step, of_batch: (
                augment.augmented(of_batch[0], tf.stack([tf.cast(seed, tf.int64), step])),
                *of_batch[1:],
            ),
            tf.data.AUTOTUNE,
        )
    return batches.prefetch(tf.data.AUTOTUNE)


def validation_batches(images: tf.data.Dataset, count: int, batch: int) -> tf.data.Dataset:
    """Returns full batches whose weighted sums are those of the images alone, each counted once.

    A last batch that is not full would leave some replicas without an image, which neither Keras's
    means nor its first look at the data can bear. It is filled with images of weight zero; the
    others' weights grow by as much as the mean over the batches falls.

    Args:
      images: elements (values, class, weight), `count` of them.
      batch: images a step over all replicas together.
    """
    whole = steps_per_epoch(count, batch) * batch
    grown = images.map(lambda values, position, weight: (values, position, weight * whole / count))
    fillers = images.repeat().take(whole - count)
    fillers = fillers.map(lambda values, position, weight: (values, position, 0.0))
    return grown.concatenate(fillers).batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def steps_per_epoch(count: int, batch: int) -> int:
    """Returns the number of batches that hold `count` images."""
    return -(-count // batch)
