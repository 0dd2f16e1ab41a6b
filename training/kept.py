"""Names kept trainings by everything that their result depends on, and by nothing else.

The output directory, the gate, other candidates and the recipe's name and titles do not count, so that a run
on the same data finds what an earlier run has trained.
"""

import dataclasses
import hashlib
import json
from typing import Any

import tensorflow as tf

from training.recipes import Recipe

# The version of the code that determines what a network sees and learns: preprocessing, views, augmentation,
# networks, loss, optimizer. Raise it with every change of what that code computes, or trainings of the old
# code would be reused; tests/training/test_kept.py checks this.
CODE = 2

# Names, citations and published figures do not change a training.
_TITLES = {"name", "paper", "protocol", "parameters", "subset", "published", "ours"}


def name(kind: str, *parts: Any) -> str:
    """Returns a name for a result that depends on `parts`, the TensorFlow release and `CODE`.

    Args:
      kind: the beginning of the name.
      parts: JSON values.
    """
    identity = json.dumps([CODE, tf.__version__, *parts])
    return f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def training(recipe: Recipe, content: list[Any], **others: Any) -> str:
    """Returns the name of a training.

    Args:
      recipe: its numbers count, its titles do not.
      content: of the training and the validation records; see `training.data.content`.
      others: JSON values of everything else that the result depends on.
    """
    numbers = {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(recipe)
        if field.name not in _TITLES
    }
    numbers["task"] = list(recipe.task.items())  # their order is the order of the outputs
    return name(recipe.base, sorted(numbers.items()), content, sorted(others.items()))
