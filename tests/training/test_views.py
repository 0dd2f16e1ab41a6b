import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.data.phantoms import draw_with_lungs
from core.errors import UserError
from tests.training.test_export import convolutions
from training import architectures, data, export, saved_model
from training import lungs as segmenting
from training.preprocess import fitted
from training.recipes import recipe_named
from training.views import lungs_alone, to_pixels

SIZE = (96, 80)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    radiograph, mask = draw_with_lungs("covid", np.random.default_rng(seed))
    return np.array(radiograph, np.float32)[..., None], np.array(mask, np.float32)[..., None]


def told(mask: np.ndarray) -> Callable[..., tf.Tensor]:
    """Returns a segmenter that knows."""
    return lambda pixels, training: fitted(mask / 255, (segmenting.SIDE, segmenting.SIDE))[None]


def test_a_mark_outside_of_the_lungs_is_not_seen(lungs: Path) -> None:
    radiograph, _ = drawn(3)
    segmenter = segmenting.load(lungs)
    seen = lungs_alone(radiograph, SIZE, segmenter).numpy()
    radiograph[6:30, 6:46] = 255
    assert seen.shape == (*SIZE, 1)
    assert 0.3 < (seen > 0).mean() < 0.95
    assert np.abs(seen - lungs_alone(radiograph, SIZE, segmenter).numpy()).mean() < 1


def test_it_is_the_lungs_that_are_seen() -> None:
    radiograph, mask = drawn(4)
    seen = lungs_alone(radiograph, SIZE, told(mask)).numpy()
    rows, columns = (np.flatnonzero(mask[..., 0].any(axis=axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = fitted(box / 255, SIZE).numpy() > 0.5
    assert (seen[inside] > 0).mean() > 0.97
    assert ((seen > 0) & ~inside).mean() < 0.2, "but for a margin"


@pytest.mark.parametrize("gamma", [0.6, 1.5])
def test_exposure_tells_nothing(gamma: float) -> None:
    radiograph, mask = drawn(5)
    seen = lungs_alone(radiograph, SIZE, told(mask)).numpy()
    exposed = 255 * (radiograph / 255) ** gamma
    otherwise = lungs_alone(exposed, SIZE, told(mask)).numpy()
    assert np.array_equal(seen > 0, otherwise > 0)
    assert np.abs(seen - otherwise).mean() < 3
    inside = np.sort(seen[seen > 0])
    assert np.abs(inside - np.linspace(1, 255, len(inside))).mean() < 3, "all alike frequent"


def test_without_lungs_the_whole_image_is_seen() -> None:
    radiograph, mask = drawn(6)
    assert (lungs_alone(radiograph, SIZE, told(0 * mask)).numpy() > 0).all()


def test_the_view_needs_somebody_to_find_the_lungs() -> None:
    recipe = recipe_named("cnn-dubey+lungs")
    with pytest.raises(UserError, match="no segmenter is given"):
        to_pixels(tf.constant(b""), recipe, None)


def test_training_without_a_segmenter_says_so(records: Path, tiny_cnn, tmp_path: Path) -> None:
    from components.candidates.train import train

    recipe = dataclasses.replace(tiny_cnn, name="cnn-dubey+lungs", view="lungs")
    with pytest.raises(UserError, match="no segmenter is given"):
        train(recipe, records, tmp_path / "model", tmp_path / "checkpoints")


def test_an_exported_model_is_shown_what_training_was(
    records: Path, lungs: Path, tiny_cnn, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(tiny_cnn, name="cnn-dubey+lungs", view="lungs")
    segmenter = segmenting.load(lungs)
    model = architectures.build(recipe, "none", 0)
    export.export(model, recipe, tmp_path / "model", segmenter=segmenter)
    of_segmenter = [layer for layer in segmenter.layers if type(layer) is keras.layers.Conv2D]
    assert convolutions(tmp_path / "model") == 2 * 3 + len(of_segmenter)
    exported = saved_model.load(tmp_path / "model")
    manifest = data.read_manifest(records)
    files = data.encoded_images(records, manifest, recipe, ("test",)).as_numpy_iterator()
    pixels = data.pixels(records, manifest, recipe, ("test",), segmenter).as_numpy_iterator()
    for (content, _, one), (trained_on, _, other) in zip(files, pixels, strict=True):
        assert one == other
        served = exported.preprocess(image_bytes=tf.constant(content))["pixels"].numpy()
        np.testing.assert_allclose(served, trained_on, atol=2)
        assert 0.05 < (served == 0).mean() < 0.95
    again = architectures.build(recipe, "none", 1)
    export.restore(again, tmp_path / "model")
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
