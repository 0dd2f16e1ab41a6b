import numpy as np
import pytest
import tensorflow as tf

from core.errors import UserError
from training import lungs


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images of two dark ellipses, and where these are."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : lungs.SIDE * 1j, -1 : 1 : lungs.SIDE * 1j]
    masks = []
    for _ in range(count):
        wide, high, apart = random.uniform((0.25, 0.5, 0.4), (0.35, 0.75, 0.5))
        masks.append(((np.abs(x) - apart) / wide) ** 2 + (y / high) ** 2 < 1)
    truth = np.stack(masks)[..., np.newaxis].astype(np.float32)
    pixels = 170 - 110 * truth + random.normal(0, 8, truth.shape)
    return pixels.clip(0, 255).astype(np.float32), truth


def test_a_training_ends_when_it_is_good_enough_and_keeps_the_best():
    learnt, watched, others = drawn(24, 0), drawn(6, 1), drawn(6, 2)
    model = lungs.build(0)
    dices = lungs.train(model, learnt, watched, seed=0)
    assert dices[-1] >= 0.95
    assert all(one < 0.95 for one in dices[:-1])
    assert float(lungs.dice(tf.constant(others[1]), lungs.find(model, others[0]))) > 0.9


def test_a_training_that_no_longer_gets_better_ends_with_its_best_weights(monkeypatch):
    told = iter([0.5, 0.7, 0.6, 0.7, 0.65, 0.7, 0.6, 0.7, 0.8])
    seen = []

    def dice_of(truth, found):
        if isinstance(truth, tf.Tensor) and not tf.is_symbolic_tensor(truth):
            seen.append(model.get_weights())
            return tf.constant(next(told))
        return tf.reduce_mean(found)

    monkeypatch.setattr(lungs, "_STEPS_BETWEEN_LOOKS", 2)
    monkeypatch.setattr(lungs, "dice", dice_of)
    traced = []
    loss = lungs._loss
    monkeypatch.setattr(lungs, "_loss", lambda *pair: traced.append(1) or loss(*pair))
    model = lungs.build(0)
    assert lungs.train(model, drawn(8, 0), drawn(2, 1), seed=0) == pytest.approx(
        [0.5, 0.7, 0.6, 0.7, 0.65, 0.7, 0.6, 0.7]
    )
    assert len(traced) == 1, "tracing takes as long as many steps"
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), seen[1], strict=True))


def test_changed_images_keep_their_masks():
    pixels, masks = drawn(16, 3)
    moved, moved_masks = lungs.changed(
        tf.constant(pixels), tf.constant(masks), tf.constant([1, 2], tf.int64)
    )
    assert set(np.unique(moved_masks)) == {0.0, 1.0}
    assert not np.array_equal(moved_masks, masks)
    # Dark where the lungs are, whatever the exposure; beyond the edge all is dark.
    inside = np.asarray(moved)[np.asarray(moved_masks) == 1]
    assert np.median(inside) < np.median(
        np.asarray(moved)[:, 24:40, 24:40][np.asarray(moved_masks)[:, 24:40, 24:40] == 0]
    )
    again, _ = lungs.changed(tf.constant(pixels), tf.constant(masks), tf.constant([1, 2], tf.int64))
    np.testing.assert_array_equal(moved, again)


def test_a_loss_that_is_no_number_is_an_error():
    pixels, masks = drawn(8, 0)
    with pytest.raises(UserError, match="loss is nan at step 1"):
        lungs.train(lungs.build(0), (pixels * np.nan, masks), (pixels, masks), seed=0)
