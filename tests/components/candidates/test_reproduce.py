"""Every published system, on a small base, from records to its page in a browser."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser

from components.candidates.evaluate import evaluate
from components.candidates.reproduce import reproduce
from components.candidates.train import train
from components.data.ingest import ingest
from components.data.write_records import write_records
from core.divisions import divisions
from tests.browser import opened, require_whole
from training.recipes import RECIPES, recipe_named

FOLDS = 2


@pytest.fixture(scope="module")
def folded(
    covid_directory: Path, kermany_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Examples and records of two folds, drawn as for ResNet-50."""
    home = tmp_path_factory.mktemp("folded")
    ingest(
        covid_directory,
        kermany_directory,
        home / "examples",
        folds=FOLDS,
        subset=recipe_named("resnet50-10fold"),
    )
    write_records(
        home / "examples",
        {"covid-chestxray": covid_directory, "kermany": kermany_directory},
        home / "records",
    )
    return home / "examples", home / "records"


@pytest.fixture(scope="module")
def reproduced(
    examples: Path, records: Path, folded: tuple[Path, Path], tmp_path_factory
) -> Callable[..., Path]:
    """Reproduces recipes, each but once."""
    home = tmp_path_factory.mktemp("reproductions")
    done: dict[tuple[str, ...], Path] = {}

    def make(*names: str) -> Path:
        if names not in done:
            done[names] = reproduce_small(names)
        return done[names]

    def reproduce_small(names: tuple[str, ...]) -> Path:
        models, evaluations = [], []
        for name in names:
            recipe = recipe_named(name)
            in_folds = recipe.protocol.endswith("fold")
            described, images = folded if in_folds else (examples, records)
            # The pages are alike whatever the base is; tests/training builds the real ones.
            head = "dubey" if recipe.head == "dubey" else "coronet"
            small = replace(recipe, base="dubey", head=head, input_size=(40, 40), epochs=1)
            for division in divisions(f"{FOLDS}-fold" if in_folds else recipe.protocol):
                models.append(home / name / division / "model")
                evaluations.append(home / name / division / "evaluation")
                train(
                    small, images, models[-1], home / "checkpoints", weights="none",
                    precision="float32", division=division, examples=described,
                )  # fmt: skip
                evaluate(models[-1], images, evaluations[-1])
        output = home / "+".join(names)
        reproduce(described, models, evaluations, output)
        return output

    return make


SIDE_BY_SIDE = ("soares-xception", "soares-resnet", "soares-vgg16")
ALL = [(name,) for name in RECIPES if name not in SIDE_BY_SIDE] + [SIDE_BY_SIDE]


@pytest.mark.parametrize("names", ALL, ids="+".join)
def test_every_recipe_has_a_page_that_says_what_it_is(
    reproduced: Callable[..., Path], browser: Browser, names: tuple[str, ...]
) -> None:
    file = reproduced(*names) / "reproduction.html"
    page = opened(browser, file, 1180)
    require_whole(page, 1180)
    lead = page.inner_text("header")
    for name in names:
        recipe = recipe_named(name)
        assert ("Trained from scratch" in lead) == recipe.pretrained, "said in the first lines"
        assert f"{recipe.name}" in page.inner_text("main")
        assert f"the paper has {recipe.epochs}" in page.inner_text("main")
        truths = {alt.get_attribute("alt") for alt in page.query_selector_all(".pair img")}
        assert {f"chest X-ray, {name}" for name in recipe.classes} <= truths
    assert page.query_selector(".colour-bar")
    page.close()
    narrow = opened(browser, file, 390, "dark")
    require_whole(narrow, 390)
    narrow.close()


def figures(reproduced: Callable[..., Path], *names: str) -> dict:
    return json.loads((reproduced(*names) / "reproduction.json").read_text())


def test_the_folds_add_up(reproduced: Callable[..., Path], folded: tuple[Path, Path]) -> None:
    told = figures(reproduced, "resnet50-10fold")
    (resnet,) = told["recipes"]
    assert len(resnet["folds"]) == FOLDS
    overlapped = np.sum([fold["confusion"] for fold in resnet["folds"]], axis=0)
    assert overlapped.tolist() == resnet["metrics"]["confusion"]
    table = pd.read_parquet(folded[0] / "examples.parquet")
    assert resnet["images"] == resnet["metrics"]["images"] == len(table)
    assert resnet["patients"] == table["patient"].nunique()
    assert told["data"]["folds"] == FOLDS


def test_ours_stand_beside_the_published(reproduced: Callable[..., Path]) -> None:
    (coronet,) = figures(reproduced, "coronet-4class")["recipes"]
    rows = {row["figure"]: row for row in coronet["compared"]}
    assert rows["accuracy"]["published"] == [0.896, 0.869, 0.933]
    assert rows["covid recall"]["published"] == [0.982, 0.967, 0.91]
    assert rows["viral f1"]["published"] == [None, 0.805, None]
    assert rows["accuracy"]["ours"]["value"] == coronet["metrics"]["accuracy"]["value"]
    assert not any(name.startswith("pneumonia") for name in rows), "it has no such class"
    (trained,) = coronet["folds"]
    assert trained["history"]["val_accuracy"] == [coronet["metrics"]["validation_accuracy"]]


def test_what_differs_is_said(reproduced: Callable[..., Path]) -> None:
    (coronet,) = figures(reproduced, "coronet-4class")["recipes"]
    said = " ".join(coronet["differences"])
    assert "NOT the transfer learning" in said
    assert "1 epochs; the paper has 80" in said
    assert "No patient and no picture is in both training and test" in said
    assert "the paper had 284 covid, 310 normal, 330 bacterial, 327 viral" in said
    (resnet,) = figures(reproduced, "resnet50-10fold")["recipes"]
    assert "There are fewer images than in the paper" in " ".join(resnet["differences"])


def test_dubeys_layers_are_on_the_page(reproduced: Callable[..., Path], browser: Browser) -> None:
    page = opened(browser, reproduced("cnn-dubey") / "reproduction.html", 1180)
    text = page.inner_text("main")
    assert "MaxPooling2D" in text
    assert "Trained from scratch" not in text, "it is as published"
    page.close()
