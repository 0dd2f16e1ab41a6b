"""Which images are swapped, and what is counted, with classifiers whose habits are known."""

import numpy as np
import pytest
import tensorflow as tf

from components.trust import swaps

SIDE = 40
COVID = 1


def made(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images with two lungs, whose brightness and that of the surroundings tell the class: 0 or 1."""
    masks = np.zeros((count, SIDE, SIDE, 1), np.float32)
    for number in range(count):
        top = 8 + number % 4
        masks[number, top : top + 20, 6:16] = masks[number, top : top + 20, 22:34] = 1
    truth = np.arange(count) % 2
    bright = truth[:, np.newaxis, np.newaxis, np.newaxis] == 1
    corner = np.zeros_like(masks)
    corner[:, :4, :4] = 1
    pixels = 100 - 50 * masks + np.where(bright, 40, 0) * masks + np.where(bright, 100, 0) * corner
    return pixels.astype(np.float32), masks, truth


def classifier(seen: tuple[slice, slice], limit: float):
    """Returns a model that calls an image covid if a part of it is brighter than a limit."""

    def classify(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        is_covid = tf.cast(
            tf.reduce_mean(pixels[:, seen[0], seen[1], 0], (1, 2)) > limit, tf.float32
        )
        return {"probabilities": tf.stack([1 - is_covid, is_covid], axis=1)}

    return classify


OF_LUNGS = classifier((slice(14, 24), slice(8, 14)), 70)
OF_A_MARKER = classifier((slice(0, 3), slice(0, 3)), 150)


def asked(classify, count: int = 40) -> dict:
    pixels, masks, truth = made(count)
    usable = np.ones(count, bool)
    pairs, controls = swaps.chosen(truth, np.where(truth == 1, "a", "b"), usable, COVID)
    patients = np.arange(count).astype(str)
    return swaps.followed(classify, pixels, masks, truth, patients, pairs, controls)


def test_a_model_of_the_lungs_follows_the_lungs() -> None:
    found = asked(OF_LUNGS)
    assert found["follows"]["value"] == 1
    assert found["control"]["value"] == 1
    assert found["lungs"] == found["pairs"] > 100


def test_a_model_of_a_marker_follows_the_surroundings() -> None:
    found = asked(OF_A_MARKER)
    assert found["follows"]["value"] == 0
    assert found["surroundings"] == found["pairs"]
    assert found["control"]["value"] == 1


def test_a_model_that_needs_both_or_either_follows_neither_more() -> None:
    def both(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        one, other = (model(pixels)["probabilities"][:, 1] for model in (OF_LUNGS, OF_A_MARKER))
        return {"probabilities": tf.stack([1 - one * other, one * other], axis=1)}

    # However rare covid is: each pair is asked both ways.
    pixels, masks, truth = made(80)
    usable = (truth == 0) | (np.arange(80) < 20)
    pairs, controls = swaps.chosen(truth, np.full(80, "a"), usable, COVID)
    found = swaps.followed(both, pixels, masks, truth, np.arange(80).astype(str), pairs, controls)
    assert found["follows"]["value"] == pytest.approx(0.5)


def test_many_swaps_of_few_patients_make_the_share_no_surer() -> None:
    pixels, masks, truth = made(40)
    pairs, controls = swaps.chosen(truth, np.full(40, "a"), np.ones(40, bool), COVID)
    of_images, of_two = (
        swaps.followed(OF_LUNGS, pixels, masks, truth, patients, pairs, controls)["follows"]
        for patients in (np.arange(40).astype(str), (np.arange(40) % 2).astype(str))
    )
    assert of_images["value"] == of_two["value"] == 1
    assert 0.9 < of_images["low"] < 0.95
    assert of_two["low"] < 0.4


def test_pairs_are_of_covid_and_another_class_and_where_possible_of_two_sources() -> None:
    truth = np.repeat([0, 1, 2], 30)
    sources = np.where(np.arange(90) % 30 < 5, "a", np.where(truth == 1, "a", "b"))
    usable = np.arange(90) % 7 != 0
    pairs, controls = swaps.chosen(truth, sources, usable, COVID)
    assert set(pairs) == {(outer, inner) for inner, outer in pairs}
    assert all(usable[list(pair)].all() for pair in (*pairs, *controls))
    # A shortcut of covid shows in these pairs alone: pairs of two other classes would dilute it.
    sides = [sorted([truth[inner], truth[outer]]) for inner, outer in pairs]
    assert all(side in ([0, COVID], [COVID, 2]) for side in sides)
    assert abs(sides.count([0, COVID]) - sides.count([COVID, 2])) < len(pairs) / 10
    assert len(pairs) <= 2 * swaps.PAIRS
    assert all(sources[inner] != sources[outer] for inner, outer in pairs)
    assert all(truth[inner] == truth[outer] and inner != outer for inner, outer in controls)
    assert set(truth[[inner for inner, _ in controls]]) == {0, 1, 2}
    assert swaps.chosen(truth, sources, usable, COVID) == (pairs, controls)


@pytest.mark.parametrize("few", [0, 1])
def test_five_images_of_covid_and_of_another_class_are_needed(few: int) -> None:
    truth = np.arange(40) % 2
    usable = (truth != few) | (np.cumsum(truth == few) <= 4)
    assert swaps.chosen(truth, np.full(40, "a"), usable, COVID) == ([], [])
    usable = (truth != few) | (np.cumsum(truth == few) <= 5)
    assert swaps.chosen(truth, np.full(40, "a"), usable, COVID)[0]
