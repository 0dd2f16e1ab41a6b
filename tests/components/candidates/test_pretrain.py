import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.candidates.choose import choose
from components.candidates.pretrain import pretrain, require_unseen
from components.candidates.train import train
from components.data import splits
from components.data.ingest import ingest
from components.data.write_records import write_records
from core.errors import UserError
from training import architectures
from training.recipes import recipe_named


@pytest.fixture(scope="module")
def small():
    return replace(recipe_named("soares-vgg16"), input_size=(32, 32), epochs=1, batch=8)


@pytest.fixture(scope="module")
def base(small, examples: Path, directories, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pretrain")
    choose(small, examples, home / "chosen")
    write_records(home / "chosen", directories, home / "records")
    pretrain(small, home / "chosen", home / "records", home / "base", home / "checkpoints", size=48)
    return home / "base"


def test_nothing_related_to_a_test_image_is_seen(base: Path, examples: Path) -> None:
    table = pd.read_parquet(examples / "examples.parquet")
    seen = set(pd.read_parquet(base / "images.parquet")["id"])
    group = pd.Series(splits.groups(table))
    tested = set(group[table["split"] == "test"])
    assert seen
    assert not tested & set(group[table["id"].isin(seen)])
    assert all(identity.startswith("kermany/") for identity in seen)


def test_it_says_what_it_learnt_on(base: Path) -> None:
    told = json.loads((base / "pretraining.json").read_text())
    assert set(told["classes"]) == {"normal", "bacterial", "viral"}
    assert told["images"] == sum(told["classes"].values())
    assert told["phantoms"]
    assert told["input_size"] == [48, 48], "convolutions fit any size"


def test_a_training_starts_from_it_and_says_so(
    small, base: Path, examples: Path, records: Path, tmp_path: Path
) -> None:
    card = train(small, records, tmp_path / "model", tmp_path, weights=str(base), examples=examples)
    assert "NOT on ImageNet" in card["starting_point"]
    theirs = architectures.build(small, str(base), 5).get_layer("base").get_weights()
    other = architectures.build(small, str(base), 6).get_layer("base").get_weights()
    random = architectures.build(small, "none", 5).get_layer("base").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(theirs, other, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(theirs, random, strict=True))


def test_a_model_was_made_with_what_its_base_has_seen(
    small, base: Path, examples: Path, records: Path, tmp_path: Path
) -> None:
    before = pd.read_parquet(base / "images.parquet")
    gone = before.iloc[:1].assign(id="withdrawn.png", patient="p", sha256="f" * 64)
    other = tmp_path / "base"
    shutil.copytree(base, other)
    pd.concat([before, gone]).to_parquet(other / "images.parquet")
    train(small, records, tmp_path / "model", tmp_path, weights=str(other), examples=examples)
    made = pd.read_parquet(tmp_path / "model" / "images.parquet").set_index("id")["part"]
    assert made["withdrawn.png"] == "pretraining"
    assert set(made) > {"train", "validation"}
    assert made.index.is_unique


def test_a_base_that_has_seen_what_is_tested_is_refused(
    small, base: Path, covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    ingest(covid_directory, kermany_directory, tmp_path / "examples", seed=1)
    with pytest.raises(UserError, match=r"pretrained on relatives .* of \d+ of \d+ images"):
        require_unseen(base, tmp_path / "examples", small, "70/10/20")


def test_a_base_is_not_taken_unchecked(small, base: Path, records: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the examples"):
        train(small, records, tmp_path / "model", tmp_path, weights=str(base))


def test_where_everything_is_tested_little_is_left_and_that_is_said(
    small, covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    ingest(covid_directory, kermany_directory, tmp_path / "examples", folds=4)
    with pytest.raises(UserError, match="kermany has 0 images of 0 classes left"):
        choose(small, tmp_path / "examples", tmp_path / "chosen")
    assert not (tmp_path / "chosen").exists()


def test_too_few_patients_to_train_and_validate_are_said(
    small, examples: Path, tmp_path: Path
) -> None:
    shutil.copytree(examples, tmp_path / "examples")
    table = pd.read_parquet(examples / "examples.parquet")
    of_one = table["label"].eq("bacterial") & table["split"].ne("test")
    table.drop(table.index[of_one][9:]).to_parquet(tmp_path / "examples" / "examples.parquet")
    with pytest.raises(UserError, match="unrelated patients of the class bacterial; at least 10"):
        choose(small, tmp_path / "examples", tmp_path / "chosen")
    assert not (tmp_path / "chosen").exists()


def test_a_recipe_from_scratch_has_nothing_to_pretrain(examples: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="from scratch, as published"):
        choose(recipe_named("cnn-dubey"), examples, tmp_path / "chosen")
