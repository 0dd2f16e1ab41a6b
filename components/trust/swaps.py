"""Asks a model about lungs in the surroundings of another image: does its answer follow the lungs?"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from core.progress import Progress
from training import intervals, surroundings

PAIRS = 100
# Of a class, rightly answered and with lungs found.
FEWEST_OF_A_CLASS = 5
_BATCH = 16

Pair = tuple[int, int]


def chosen(
    truth: np.ndarray, sources: np.ndarray, usable: np.ndarray, covid: int, seed: int = 0
) -> tuple[list[Pair], list[Pair]]:
    """Returns which images give their lungs to which surroundings.

    Args:
      truth: int [N], the classes of images.
      sources: str [N].
      usable: bool [N], whether an image is rightly answered and has lungs.
      covid: the class that one image of each swap has.
      seed: the same one chooses the same pairs.

    Returns:
      swaps and controls, each (image that gives the lungs, image that gives the surroundings). Swaps are of
      covid and another class, all other classes equally often, and where possible of two sources; each pair
      is there both ways. Controls are of one class. Both are empty if covid, or all other classes, have fewer
      than five usable images.
    """
    random = np.random.default_rng(seed)
    of_class = {own: np.flatnonzero(usable & (truth == own)) for own in np.unique(truth).tolist()}
    enough = [own for own, images in of_class.items() if len(images) >= FEWEST_OF_A_CLASS]
    others = [own for own in enough if own != covid]
    if covid not in enough or not others:
        return [], []
    swaps: dict[Pair, None] = {}
    controls: dict[Pair, None] = {}
    for number in range(PAIRS):
        image = int(random.choice(of_class[covid]))
        possible = of_class[others[number % len(others)]]
        elsewhere = possible[sources[possible] != sources[image]]
        other = int(random.choice(elsewhere if len(elsewhere) else possible))
        swaps |= {(image, other): None, (other, image): None}
        alike = of_class[enough[number % len(enough)]]
        image, same = map(int, random.choice(alike, 2, replace=False))
        controls[image, same] = None
    return list(swaps), list(controls)


def followed(
    classify: Callable[..., dict[str, tf.Tensor]],
    pixels: np.ndarray,
    masks: np.ndarray | None,
    truth: np.ndarray,
    patients: np.ndarray,
    swaps: Sequence[Pair],
    controls: Sequence[Pair],
) -> dict[str, Any]:
    """Returns what a model's answers about swapped images follow.

    Args:
      classify: see `training.export`.
      pixels: its inputs, float32 [N, height, width, 1] in 0..255.
      masks: where the lungs are, of the same shape; None for a model that is shown the lungs alone: then
        the texture stands for the lungs, and the outline for the surroundings.
      truth: int [N], the classes of the images.
      patients: str [N], whose images they are.
      swaps, controls: see `chosen`.

    Returns:
      `pairs`, the number of swapped images; how many answers follow the `lungs`, the `surroundings`, or
      `neither`; `follows`, lungs / (lungs + surroundings), and `control`, the share of controls that keep
      their answer. Both are rates with intervals over the patients whose lungs are shown (see
      `intervals.share`).
    """
    answers = _answers(classify, pixels, masks, [*swaps, *controls])
    inner, outer = (truth[[pair[side] for pair in swaps]] for side in (0, 1))
    of_swaps, of_controls = answers[: len(swaps)], answers[len(swaps) :]
    lungs, around = of_swaps == inner, of_swaps == outer
    either = lungs | around
    shown, shown_in_controls = ([pair[0] for pair in pairs] for pairs in (swaps, controls))
    return {
        "pairs": len(swaps),
        "lungs": int(lungs.sum()),
        "surroundings": int(around.sum()),
        "neither": int((~either).sum()),
        "follows": intervals.share(lungs[either], patients[shown][either]),
        "control": intervals.share(
            of_controls == truth[shown_in_controls], patients[shown_in_controls]
        ),
    }


def swapped(pixels: np.ndarray, masks: np.ndarray | None, pairs: Sequence[Pair]) -> tf.Tensor:
    """Returns the first image's lungs in the second's surroundings, for each pair; see `followed`."""
    inner, outer = ([pair[side] for pair in pairs] for side in (0, 1))
    if masks is None:
        return surroundings.retextured(tf.constant(pixels[inner]), tf.constant(pixels[outer]))
    return surroundings.swapped(
        *(tf.constant(array[side]) for side in (inner, outer) for array in (pixels, masks))
    )


def _answers(
    classify: Callable[..., dict[str, tf.Tensor]],
    pixels: np.ndarray,
    masks: np.ndarray | None,
    pairs: Sequence[Pair],
) -> np.ndarray:
    answers = [np.empty(0, int)]
    with Progress("images with swapped surroundings asked", len(pairs)) as progress:
        for start in range(0, len(pairs), _BATCH):
            images = swapped(pixels, masks, pairs[start : start + _BATCH])
            answers.append(classify(pixels=images)["probabilities"].numpy().argmax(axis=1))
            progress.advance(len(images))
    return np.concatenate(answers)
