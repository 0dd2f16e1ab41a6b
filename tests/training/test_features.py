import dataclasses
import logging
from pathlib import Path

import keras
import numpy as np
import pytest

from training import architectures, data, features, loop
from training.recipes import recipe_named


@pytest.fixture(scope="module")
def frozen():
    """`soares-vgg16`, made quick."""
    return dataclasses.replace(recipe_named("soares-vgg16"), input_size=(32, 32), epochs=4, batch=8)


def test_kept_features_train_what_the_frozen_base_would_have(
    frozen, records: Path, tmp_path: Path
) -> None:
    trained = loop.train(frozen, records, tmp_path, weights="none", precision="float32")
    ours = trained.model.get_layer("head").get_weights()

    manifest = data.read_manifest(records)
    counts = data.class_counts(manifest, frozen, ("train",))
    images = data.weighted(
        data.pixels(records, manifest, frozen, ("train",)),
        data.image_weights(manifest, frozen, ("train",)),
    )
    model = architectures.build(frozen, "none", seed=0)
    before = model.get_layer("base").get_weights()
    start = model.get_layer("head").get_weights()
    model.compile(keras.optimizers.Adam(frozen.learning_rate), loop.loss_of(frozen))
    batches = data.training_batches(
        images, sum(counts.values()), frozen.batch, first_epoch=0, epochs=4, seed=0
    )
    model.fit(batches, verbose=0, shuffle=False)
    through = model.get_layer("head").get_weights()

    assert np.abs(start[0] - through[0]).max() > 1e-2, "it has learnt something"
    for a, b in zip(ours, through, strict=True):
        assert np.allclose(a, b, atol=2e-5)
    for a, b in zip(before, trained.model.get_layer("base").get_weights(), strict=True):
        assert np.array_equal(a, b), "the base stays as it was"


def of(recipe, records: Path, store: Path, parts=("train",), seed: int = 0) -> np.ndarray:
    base = architectures.build(recipe, "none", seed).get_layer("base")
    manifest = data.read_manifest(records)
    dataset = features.inputs(records, manifest, recipe, parts, base, store)
    return np.stack([values for values, _, _ in dataset.as_numpy_iterator()])


def shards(store: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in store.rglob("*.npy")}


def test_features_are_computed_once_and_shared(frozen, records: Path, tmp_path: Path) -> None:
    first = of(frozen, records, tmp_path)
    kept = shards(tmp_path)
    assert np.array_equal(of(frozen, records, tmp_path), first)
    # Another head on the same base, as another recipe or another fold has, finds them there.
    other = dataclasses.replace(frozen, name="other", task={"covid": "covid", "viral": "viral"})
    of(other, records, tmp_path)
    assert shards(tmp_path) == kept
    of(frozen, records, tmp_path, ("train", "test"))
    assert len(shards(tmp_path)) == 2, "what is new alone is computed"


def test_another_base_has_features_of_its_own(frozen, records: Path, tmp_path: Path) -> None:
    first, second = (of(frozen, records, tmp_path, seed=seed) for seed in (0, 1))
    assert not np.allclose(first, second)
    assert len(list(tmp_path.iterdir())) == 2


def test_features_without_their_list_are_computed_again(
    frozen, records: Path, tmp_path: Path
) -> None:
    """As after a kill between the two files."""
    first = of(frozen, records, tmp_path)
    for index in tmp_path.rglob("*.json"):
        index.unlink()
    assert np.array_equal(of(frozen, records, tmp_path), first)


def test_small_shards_hold_the_same(
    frozen, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = of(frozen, records, tmp_path / "a")
    monkeypatch.setattr(features, "_BATCH", 4)
    monkeypatch.setattr(features, "_IMAGES_PER_SHARD", 8)
    parts = of(frozen, records, tmp_path / "b")
    assert len(shards(tmp_path / "b")) > 1
    assert np.allclose(whole, parts, atol=1e-5)


def test_it_says_how_much_is_to_do(
    frozen, records: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("cxrflow")
    logger.addHandler(caplog.handler)
    try:
        count = len(of(frozen, records, tmp_path))
    finally:
        logger.removeHandler(caplog.handler)
    assert any("features of" in message and "to compute" in message for message in caplog.messages)
    assert count
