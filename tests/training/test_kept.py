import dataclasses
import json
from typing import Any

import keras
import numpy as np
import pytest

from tests.training import recorded
from tests.training.recorded import computed, file_of
from training import kept, loop, lungs
from training.recipes import Recipe, recipe_named

RECIPE = recipe_named("coronet-4class")
CONTENT = [[["train-00001-00000-abc.tfrecord", "0" * 64]], []]


def named(recipe=RECIPE, content=CONTENT, **others) -> str:
    return kept.training(recipe, content, **{"seed": 0, "start": "none", **others})


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Checks that code computes what it did, but for the rounding of another processor."""
    told = (
        f"{{}} is not what it was when training.kept.CODE became {kept.CODE}, so trainings of the old code "
        "would count as those of the new one. Raise CODE, and record what it stands for: "
        "python -m tests.training.recorded"
    )
    for kind, (relative, absolute) in {"pixels": (1e-3, 0.05), "numbers": (1e-5, 0)}.items():
        assert ours.get(kind, {}).keys() <= theirs[kind].keys()
        for name, values in ours.get(kind, {}).items():
            np.testing.assert_allclose(
                values, theirs[kind][name], relative, absolute, err_msg=told.format(name)
            )
    for name, values in ours.get("settings", {}).items():
        assert values == theirs["settings"][name], told.format(name)


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(file_of(kept.CODE).read_text(encoding="utf-8"))
    return recorded


def test_code_that_computes_something_else_has_a_number_of_its_own(before) -> None:
    ours = json.loads(json.dumps(computed()))
    assert ours.keys() == before.keys()
    assert all(ours[kind].keys() == before[kind].keys() for kind in ours)
    same(ours, before)


def smoothed(recipe: Recipe, before: Any = loop.loss_of) -> keras.Loss:
    if recipe.name == "cnn-dubey":
        return keras.losses.BinaryCrossentropy(label_smoothing=0.05)
    return before(recipe)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (loop, "loss_of", smoothed),
        (loop, "scaled", lambda recipe, replicas: (recipe.batch, recipe.learning_rate)),
        (lungs, "_GOOD_ENOUGH", 0.949),
        (lungs, "_LEAST_GAIN", 0.0021),
        (lungs, "_SLOWER", 0.31),
        (lungs, "_loss", lambda truth, found: keras.losses.Dice()(truth, found)),
    ],
)
def test_a_change_of_a_number_is_noticed(monkeypatch, before, place, name: str, value) -> None:
    monkeypatch.setattr(place, name, value)
    with pytest.raises(AssertionError, match="Raise CODE"):
        same({"numbers": recorded.numbers()}, before)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": (5, 5)},
        {"strides": 2},
        {"padding": "valid"},
        {"activation": "elu"},
        {"kernel_initializer": "he_normal"},
        {"kernel_regularizer": keras.regularizers.L2(1e-4)},
        {"use_bias": False},
        {"trainable": False},
    ],
)
def test_a_change_of_a_layer_is_noticed(change: dict[str, Any]) -> None:
    def network(**others: Any) -> str:
        layer = {"kernel_size": 3, "padding": "same", "activation": "relu", **others}
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, **layer)])
        return recorded.described(model)

    assert network() == network()
    assert network(**change) != network()


def test_a_change_of_an_optimizer_is_noticed() -> None:
    adam, other, schedule = (
        recorded.setting(optimizer.get_config())
        for optimizer in (
            keras.optimizers.Adam(1e-3),
            keras.optimizers.Adam(1e-3, beta_2=0.99),
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 5)),
        )
    )
    assert adam != other
    assert adam != schedule


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
