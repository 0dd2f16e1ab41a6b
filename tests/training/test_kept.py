import dataclasses
import json

import numpy as np
import pytest

from tests.training.recorded import computed, file_of
from training import kept
from training.recipes import recipe_named

RECIPE = recipe_named("coronet-4class")
CONTENT = [[["train-00001-00000-abc.tfrecord", "0" * 64]], []]


def named(recipe=RECIPE, content=CONTENT, **others) -> str:
    return kept.training(recipe, content, **{"seed": 0, "start": "none", **others})


def test_code_that_computes_something_else_has_a_number_of_its_own():
    recorded = json.loads(file_of(kept.CODE).read_text(encoding="utf-8"))
    for name, values in computed().items():
        np.testing.assert_allclose(
            values,
            recorded[name],
            rtol=1e-3,
            atol=0.05,
            err_msg=f"{name} is not what it was when training.kept.CODE became {kept.CODE}, so trainings of "
            "the old code would count as those of the new one. Raise CODE, and record what it stands for: "
            "python -m tests.training.recorded",
        )


def test_titles_do_not_name_a_training():
    other = dataclasses.replace(
        RECIPE,
        name="another",
        paper="Another title",
        protocol="10-fold",
        parameters=1,
        subset={},
        published=(),
        ours="whatever",
    )
    assert named(other) == named()


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 2e-4},
        {"epochs": 3},
        {"batch": 11},
        {"input_size": (75, 75)},
        {"mixed": True},
        {"augmented": True},
        {"balanced": True},
        {"view": "lungs"},
        {"quick": True},
        {"frozen": True},
        {"head": "linear"},
        {"task": dict(reversed(RECIPE.task.items()))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_number_of_a_recipe_names_a_training(change):
    assert named(dataclasses.replace(RECIPE, **change)) != named()


def test_every_field_of_a_recipe_is_a_title_or_a_number():
    fields = {field.name for field in dataclasses.fields(RECIPE)}
    tried = {
        "learning_rate", "epochs", "batch", "input_size", "mixed", "augmented", "balanced", "view", "quick",
        "frozen", "head", "task", "base", "pretrained",
    }  # fmt: skip
    assert fields == tried | kept._TITLES


def test_content_start_and_code_name_a_training(monkeypatch):
    others = [
        named(content=[[["train-00001-00000-abc.tfrecord", "1" * 64]], []]),
        named(content=[[], CONTENT[0]]),
        named(start="f" * 64),
        named(seed=1),
    ]
    monkeypatch.setattr(kept, "CODE", kept.CODE + 1)
    others.append(named())
    monkeypatch.undo()
    assert named() not in others
    assert len(set(others)) == len(others)
