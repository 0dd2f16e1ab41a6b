import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import maximum_filter

from training import surroundings

SIDE = 48


def lungs(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((1, SIDE, SIDE, 1), np.float32)
    mask[0, top : top + height, left : left + width] = 1
    return mask


def image(mask: np.ndarray, inside: float, outside: float) -> np.ndarray:
    return (mask * inside + (1 - mask) * outside).astype(np.float32)


def test_the_lungs_are_fitted_to_the_place_of_the_other_s() -> None:
    ours, theirs = lungs(4, 4, 16, 12), lungs(20, 18, 24, 18)
    made = surroundings.swapped(
        *map(tf.constant, (image(ours, 50, 100), ours, image(theirs, 20, 100), theirs))
    ).numpy()
    inner = made[0, 22:42, 20:34, 0]
    np.testing.assert_allclose(inner, 50, atol=1)
    far = 1 - surroundings.swollen(surroundings.swollen(surroundings.swollen(theirs))).numpy()
    np.testing.assert_allclose(made[far == 1], 100, atol=1)


def test_nothing_of_the_other_lungs_is_left_and_nothing_of_our_far_surroundings() -> None:
    random = np.random.default_rng(0)
    ours, theirs = lungs(10, 10, 20, 20), lungs(12, 8, 24, 26)
    theirs[0, 20:30, 16:22] = 0  # another outline
    pixels, others = (random.uniform(50, 150, ours.shape).astype(np.float32) for _ in range(2))
    # As bright as before: brightness is part of the surroundings.
    their_lungs = np.where(theirs == 1, random.uniform(50, 150, theirs.shape), others)
    made = [
        surroundings.swapped(
            *map(tf.constant, (pixels, ours, shown.astype(np.float32), theirs))
        ).numpy()
        for shown in (others, their_lungs)
    ]
    np.testing.assert_allclose(made[0], made[1], atol=1e-3)
    corner = pixels.copy()
    corner[:, :3, :3], corner[:, -3:, -3:] = corner[:, -3:, -3:].copy(), corner[:, :3, :3].copy()
    swapped = surroundings.swapped(*map(tf.constant, (corner, ours, others, theirs))).numpy()
    np.testing.assert_allclose(swapped, made[0], atol=1e-3)


def test_lungs_are_exposed_as_the_other_image() -> None:
    mask = lungs(10, 10, 20, 20)
    made = surroundings.swapped(
        *map(tf.constant, (image(mask, 100, 200), mask, image(mask, 10, 100), mask))
    ).numpy()
    assert made[0, 20, 20, 0] == pytest.approx(50, abs=1)


def test_a_texture_fills_another_outline() -> None:
    ours, theirs = lungs(10, 10, 20, 10), lungs(6, 6, 30, 30)
    ours[0, 10:20, 10:14] = 0
    made = surroundings.retextured(
        *map(tf.constant, (image(ours, 80, 0), image(theirs, 200, 0)))
    ).numpy()
    np.testing.assert_array_equal(made > 0, theirs > 0)
    np.testing.assert_allclose(made[theirs == 1], 80, atol=1)


def batch(count: int) -> tuple[tf.Tensor, tf.Tensor]:
    masks = np.concatenate([lungs(8 + n % 5, 8 + n % 3, 20, 24) for n in range(count)])
    pixels = np.concatenate([image(masks[n : n + 1], 20, 50 + 5 * n) for n in range(count)])
    return tf.constant(pixels), tf.constant(masks)


CLASSES = tf.range(32) // 2 % 2


def test_half_of_a_batch_has_the_surroundings_of_images_of_another_class() -> None:
    pixels, masks = batch(32)
    total = 0
    place = {value: number for number, value in enumerate(pixels.numpy()[:, 0, 0, 0].tolist())}
    for seed in range(8):
        made = surroundings.mixed(pixels, masks, CLASSES, tf.constant([0, seed])).numpy()
        giver = np.array([place[value] for value in made[:, 0, 0, 0].tolist()])
        changed = giver != np.arange(32)
        assert (CLASSES.numpy()[giver] != CLASSES.numpy())[changed].all()
        np.testing.assert_array_equal(made[~changed], pixels.numpy()[~changed])
        total += changed.sum()
    assert 0.4 < total / (8 * 32) < 0.6


@pytest.mark.parametrize("sizes", [(16, 16), (24, 8), (8, 8, 8, 8), (20, 6, 4, 2), (28, 2, 2)])
def test_surroundings_tell_nothing_of_the_class_whatever_the_number_and_sizes_of_classes(
    sizes: tuple[int, ...],
) -> None:
    classes = np.repeat(np.arange(len(sizes)), sizes)
    # Black lungs that cover the centre; the corner tells whose surroundings they are.
    mask = lungs(12, 12, 24, 24)
    pixels = tf.constant(
        np.concatenate([image(mask, 0, 50 + 5 * number) for number in range(len(classes))])
    )
    masks = tf.constant(np.repeat(mask, len(classes), axis=0))
    counts = np.zeros((len(sizes), len(sizes)))
    mixed, draws = tf.function(surroundings.mixed), 200
    for seed in range(draws):
        made = mixed(pixels, masks, tf.constant(classes), tf.constant([1, seed])).numpy()
        giver = np.rint((made[:, 0, 0, 0] - 50) / 5).astype(int)
        np.add.at(counts, (classes, classes[giver]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    # Five deviations of the class with fewest images.
    spread = 5 * np.sqrt(1 / (4 * draws * min(sizes)))
    np.testing.assert_allclose(shares, 1 / len(sizes), atol=spread)


def test_of_two_classes_half_of_the_images_change_and_their_partner_is_the_highest_draw() -> None:
    """The same images as before there were recipes of more classes: a training can be repeated."""
    pixels, masks = batch(32)
    place = {value: number for number, value in enumerate(pixels.numpy()[:, 0, 0, 0].tolist())}
    for seed in range(4):
        seeds = tf.random.split(tf.constant([0, seed]), 2)
        drawn = tf.random.stateless_uniform([32, 32], seeds[0]).numpy()
        drawn[CLASSES.numpy()[:, None] == CLASSES.numpy()[None]] = -1
        changed = tf.random.stateless_uniform([32], seeds[1]).numpy() < 0.5
        expected = np.where(changed, drawn.argmax(axis=1), np.arange(32))
        made = surroundings.mixed(pixels, masks, CLASSES, tf.constant([0, seed])).numpy()
        assert [place[value] for value in made[:, 0, 0, 0].tolist()] == expected.tolist()


def test_the_same_seed_mixes_alike_and_another_otherwise() -> None:
    pixels, masks = batch(16)
    mixed = tf.function(surroundings.mixed)
    one, again, other = (
        mixed(pixels, masks, CLASSES[:16], tf.constant([3, seed])).numpy() for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_images_without_lungs_give_and_get_no_surroundings() -> None:
    pixels, masks = batch(16)
    has_lungs = (np.arange(16) % 2 == 1)[:, None, None, None]
    place = pixels.numpy()[:, 0, 0, 0].tolist()
    for seed in range(4):
        seeds = tf.constant([0, seed])
        made = surroundings.mixed(pixels, masks * has_lungs, CLASSES[:16], seeds).numpy()
        giver = np.array([place.index(value) for value in made[:, 0, 0, 0].tolist()])
        assert (giver % 2 == 1)[1::2].all()
        np.testing.assert_array_equal(made[::2], pixels.numpy()[::2])


def test_a_batch_of_one_class_stays_as_it_is() -> None:
    pixels, masks = batch(8)
    made = surroundings.mixed(pixels, masks, tf.zeros(8, tf.int32), tf.constant([0, 1]))
    np.testing.assert_array_equal(made, pixels)


def test_lungs_alone_get_the_outline_of_others() -> None:
    pixels, masks = batch(16)
    alone = tf.where(masks > 0, pixels + 10 * tf.range(16.0)[:, None, None, None], 0.0)
    made = surroundings.mixed(alone, None, CLASSES[:16], tf.constant([0, 1])).numpy()
    outlines = {tuple(np.argwhere(mask)[0]) for mask in masks.numpy()}
    changed = ((made > 0) != (alone.numpy() > 0)).any(axis=(1, 2, 3))
    assert changed.any()
    assert all(tuple(np.argwhere(mask)[0]) in outlines for mask in made > 0)
    for number in range(16):
        lit = made[number][made[number] > 0]
        np.testing.assert_allclose(lit, alone.numpy()[number].max(), atol=1)


@pytest.mark.parametrize("side", [1, 3, 11, 33])
def test_the_mean_around_a_pixel_is_that_of_a_pooling(side: int) -> None:
    pixels = np.random.default_rng(side).uniform(0, 255, (2, 24, 17, 1)).astype(np.float32)
    pooled = tf.nn.avg_pool2d(pixels, side, 1, "SAME")
    np.testing.assert_allclose(surroundings._around(tf.constant(pixels), side), pooled, rtol=1e-5)


@pytest.mark.parametrize("shape", [(24, 17), (320, 320), (1500, 1400)])
def test_a_mask_swells_by_its_margin(shape: tuple[int, int]) -> None:
    masks = (np.random.default_rng(0).uniform(size=(2, *shape, 1)) > 0.99).astype(np.float32)
    side = 2 * max(1, round(min(shape) / 40)) + 1
    expected = maximum_filter(masks, (1, side, side, 1), mode="constant")
    np.testing.assert_array_equal(surroundings.swollen(tf.constant(masks)), expected)


def test_an_image_shown_whole_because_its_lungs_were_not_found_gives_and_gets_no_outline() -> None:
    pixels, masks = batch(16)
    alone = tf.where(masks > 0, pixels, 0.0).numpy()
    alone[:4] = 90.0
    for seed in range(4):
        made = surroundings.mixed(
            tf.constant(alone), None, CLASSES[:16], tf.constant([0, seed])
        ).numpy()
        np.testing.assert_array_equal(made[:4], alone[:4])
        assert (made[4:] == 0).any(axis=(1, 2, 3)).all()
