import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from training import data, workers
from training.recipes import recipe_named


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=5))
def test_class_weights_balance_classes_and_average_to_one(counts: list[int]) -> None:
    weights = data.class_weights({str(i): count for i, count in enumerate(counts)})
    totals = np.multiply(weights, counts)
    assert np.allclose(totals, totals[0])
    assert np.isclose(sum(totals), sum(counts))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 60), batch=st.integers(1, 16), seed=st.integers(0, 5))
def test_an_epoch_is_full_batches_that_hold_every_image(count: int, batch: int, seed: int) -> None:
    images = tf.data.Dataset.range(count)
    batches = data.training_batches(images, count, batch, first_epoch=0, epochs=2, seed=seed)
    seen = np.array(list(batches.as_numpy_iterator()))
    steps = data.steps_per_epoch(count, batch)
    assert seen.shape == (2 * steps, batch)
    for epoch in (seen[:steps], seen[steps:]):
        values, times = np.unique(epoch, return_counts=True)
        assert values.tolist() == list(range(count))
        assert times.max() - times.min() <= 1


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), batch=st.integers(1, 16))
def test_a_mean_over_validation_batches_is_one_over_the_images(count: int, batch: int) -> None:
    random = np.random.default_rng(count)
    losses, weights = random.uniform(0, 3, count), random.uniform(0.2, 4, count)
    images = tf.data.Dataset.from_tensor_slices(
        (losses, np.arange(count), weights.astype("float32"))
    )
    batches = list(data.validation_batches(images, count, batch).as_numpy_iterator())
    assert {len(loss) for loss, _, _ in batches} == {batch}
    mean = np.mean([np.mean(loss * weight) for loss, _, weight in batches])
    assert np.isclose(mean, np.mean(losses * weights))


@pytest.mark.parametrize("seed", [0, 7])
def test_a_resumed_training_sees_what_an_uninterrupted_one_would_have(seed: int) -> None:
    def seen(first_epoch: int) -> list:
        images = tf.data.Dataset.range(50)
        batches = data.training_batches(images, 50, 8, first_epoch=first_epoch, epochs=4, seed=seed)
        return [batch.tolist() for batch in batches.as_numpy_iterator()]

    whole = seen(0)
    assert seen(0) == whole
    assert seen(2) == whole[2 * 7 :]
    assert whole[:7] != whole[7:14], "every epoch is shuffled anew"


def test_only_images_of_the_recipes_labels_are_read(records: Path) -> None:
    recipe = recipe_named("cnn-dubey")
    manifest = data.read_manifest(records)
    images = data.encoded_images(records, manifest, recipe, ("test",))
    found = [(position, identity) for _, position, identity in images.as_numpy_iterator()]
    labels = manifest["splits"]["test"]["labels"]
    assert len(found) == len(images) == labels["covid"] + labels["normal"]
    assert all(
        recipe.classes[position] == ("normal" if b"NORMAL" in identity else "covid")
        for position, identity in found
        if identity.startswith(b"kermany")
    )


def test_records_without_a_manifest_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json"):
        data.read_manifest(tmp_path)


def test_a_class_without_an_image_is_named(records: Path) -> None:
    manifest = json.loads((records / "manifest.json").read_text())
    manifest["splits"]["validation"]["labels"].pop("viral")
    with pytest.raises(UserError, match="validation has no image of class viral"):
        data.class_counts(manifest, recipe_named("coronet-4class"), ("validation",))


def test_images_are_read_also_if_a_class_has_none(records: Path) -> None:
    """A version that is served may have a class that no test image has any more."""
    manifest = data.read_manifest(records)
    recipe = recipe_named("cnn-dubey")
    more = dataclasses.replace(recipe, task={**recipe.task, "tuberculosis": "tuberculosis"})
    with pytest.raises(UserError, match="test has no image of class tuberculosis"):
        data.class_counts(manifest, more, ("test",))
    ids = [
        [identity for _, _, identity in data.encoded_images(records, manifest, of, ("test",))]
        for of in (recipe, more)
    ]
    assert ids[0] == ids[1]


def test_a_part_that_the_records_lack_is_named(records: Path) -> None:
    manifest = data.read_manifest(records)
    with pytest.raises(UserError, match="no part 'fold-01-of-02', only test, train, validation"):
        data.class_counts(manifest, recipe_named("cnn-dubey"), ("fold-01-of-02",))


def counted(recipe, sources: dict) -> dict:
    labels: dict = {}
    for of_source in sources.values():
        for label, count in of_source.items():
            labels[label] = labels.get(label, 0) + count
    return {"splits": {"train": {"labels": labels, "sources": sources}}}


def test_sources_of_a_class_weigh_alike_where_a_recipe_is_balanced() -> None:
    sources = {
        "covid-chestxray": {"covid": 100},
        "kermany": {"normal": 300},
        "nih": {"normal": 100},
    }
    recipe = recipe_named("cnn-dubey+balanced")
    weights = data.image_weights(counted(recipe, sources), recipe, ("train",))
    normal, covid = (recipe.classes.index(name) for name in ("normal", "covid"))
    assert 300 * weights["kermany"][normal] == pytest.approx(100 * weights["nih"][normal])
    assert 300 * weights["kermany"][normal] + 100 * weights["nih"][normal] == pytest.approx(250)
    assert 100 * weights["covid-chestxray"][covid] == pytest.approx(250)


def test_a_handful_of_images_does_not_lead() -> None:
    sources = {"covid-chestxray": {"covid": 100, "normal": 2}, "kermany": {"normal": 398}}
    recipe = recipe_named("cnn-dubey+balanced")
    weights = data.image_weights(counted(recipe, sources), recipe, ("train",))
    normal = recipe.classes.index("normal")
    assert 1 < weights["covid-chestxray"][normal] / weights["kermany"][normal] <= 10


def test_without_balance_the_source_makes_no_difference(records: Path) -> None:
    manifest, recipe = data.read_manifest(records), recipe_named("cnn-dubey")
    weights = data.image_weights(manifest, recipe, ("train",))
    of_class = data.class_weights(data.class_counts(manifest, recipe, ("train",)))
    assert all(row == pytest.approx(of_class) for row in weights.values())
    images = data.encoded_images(records, manifest, recipe, ("train",))
    triples = data.weighted(images, weights).as_numpy_iterator()
    assert all(weight == pytest.approx(of_class[position]) for _, position, weight in triples)


def test_an_image_has_the_weight_of_its_source() -> None:
    images = tf.data.Dataset.from_tensor_slices(
        ([0.0, 0.0, 0.0], [1, 1, 0], ["nih/a/1.png", "kermany/b.png", "elsewhere/c.png"])
    )
    found = data.weighted(images, {"kermany": [1.0, 2.0], "nih": [3.0, 4.0]})
    assert [float(weight) for _, _, weight in found] == [4.0, 2.0, 2.0]


def test_a_sample_has_images_of_every_class_and_is_in_proportion_otherwise() -> None:
    assert data.share_of_each([9000, 990, 10], 100, 5) == [90, 9, 5]
    assert data.share_of_each([9000, 990, 3], 100, 5) == [90, 9, 3]
    assert data.share_of_each([30, 20], 100, 5) == [30, 20]


def test_the_first_of_each_class_are_taken_and_no_more_is_read() -> None:
    read = []

    def elements():
        for number, position in enumerate([0] * 50 + [1] * 3 + [0] * 50 + [2] * 2 + [1] * 9):
            read.append(number)
            yield float(number), position, str(number)

    spec = tuple(tf.TensorSpec((), kind) for kind in (tf.float32, tf.int32, tf.string))
    dataset = tf.data.Dataset.from_generator(elements, output_signature=spec)
    found = list(data.first_of_each(dataset, [4, 2, 1]).as_numpy_iterator())
    assert [int(value) for value, _, _ in found] == [0, 1, 2, 3, 50, 51, 103]
    assert [position for _, position, _ in found] == [0, 0, 0, 0, 1, 1, 2]
    assert max(read) <= 104


def _halves(pixels: tf.Tensor, training: bool) -> tf.Tensor:
    """Plays a segmenter that finds lungs in the middle of each image."""
    side = pixels.shape[1]
    row = (tf.range(side) >= side // 4) & (tf.range(side) < 3 * side // 4)
    mask = tf.cast(row[:, tf.newaxis] & row[tf.newaxis], tf.float32)[tf.newaxis, ..., tf.newaxis]
    return tf.tile(mask, [tf.shape(pixels)[0], 1, 1, 1])


def test_mixed_batches_keep_classes_and_go_on_where_a_training_stopped() -> None:
    """Each image is as bright as its class says, and so are its surroundings before they are mixed."""
    count = 24
    classes = tf.range(count) % 2
    shown = (
        tf.ones((count, 32, 32, 1)) * tf.cast(50 + 100 * classes, tf.float32)[:, None, None, None]
    )
    images = tf.data.Dataset.from_tensor_slices((shown, classes, tf.strings.as_string(classes)))
    found = data.with_lungs(images, _halves).map(lambda *element: (*element[:2], 1.0))

    def batches(first_epoch: int) -> list:
        return list(
            data.training_batches(
                found, count, 8, first_epoch=first_epoch, epochs=3, seed=2, mixed=True
            ).as_numpy_iterator()
        )

    whole = batches(0)
    changed = 0
    for pixels, labels, weights in whole:
        assert pixels.shape == (8, 32, 32, 1)
        assert set(weights) == {1.0}
        around = pixels[:, 0, 0, 0]
        assert set(around) == {50.0, 150.0}
        changed += (around != 50 + 100 * labels).sum()
    assert 0.3 < changed / (3 * count) < 0.7
    for one, other in zip(whole[3:], batches(1), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_nobody_who_drops_a_dataset_waits_for_its_tuning(records: Path, tmp_path: Path) -> None:
    recipe, manifest = recipe_named("cnn-dubey+quick"), data.read_manifest(records)
    read = data.pixels(records, manifest, recipe, ["train"])
    images = data.weighted(
        data.kept(read, tmp_path / "kept"), data.image_weights(manifest, recipe, ["train"])
    )
    batches = data.training_batches(images, 8, 4, first_epoch=0, epochs=1, seed=0, augmented=True)
    judged = data.validation_batches(images, len(read), 4)
    for dataset in (read, images, *workers.in_batches_for_all((batches, judged))):
        assert dataset.options().autotune.enabled is False
