"""What names a training that is kept: all that its result depends on, and nothing else.

Not where it lies, nor what the recipe is called or whom it cites: a run on the same data finds what an
earlier one has trained, whatever its output directory, its gate and its other candidates are.
"""

import dataclasses
import hashlib
import json
from typing import Any

import tensorflow as tf

from training.recipes import Recipe

# Of the code that decides what a network sees and learns: preprocessing, views, augmentation, networks, loss. Whoever
# changes what it computes raises this, or trainings of the old code would count as those of the new one;
# tests/training/test_kept.py sees to it.
CODE = 1

# What a recipe is called, whom it cites and what was published changes no training.
_TITLES = {"name", "paper", "protocol", "parameters", "subset", "published", "ours"}


def name(kind: str, *parts: Any) -> str:
    """Returns a name for what follows from `parts`, this release of TensorFlow and `CODE`.

    Args:
      kind: what it is, the name's beginning.
      parts: values that JSON has.
    """
    identity = json.dumps([CODE, tf.__version__, *parts])
    return f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def training(recipe: Recipe, content: list[Any], **others: Any) -> str:
    """Returns the name of a training.

    Args:
      recipe: of which the numbers count.
      content: of the records that are trained on, and of those that validate; see `training.data.content`.
      others: whatever else the result depends on, values that JSON has.
    """
    numbers = {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(recipe)
        if field.name not in _TITLES
    }
    numbers["task"] = list(recipe.task.items())  # their order is that of the outputs
    return name(recipe.base, sorted(numbers.items()), content, sorted(others.items()))
