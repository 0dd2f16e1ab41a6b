"""What a challenger is held against, and what training continues from."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from components.candidates.champion import champion, version_to_continue_from
from components.candidates.train import train
from core.errors import UserError


def told(directory: Path) -> dict:
    return json.loads((directory / "champion.json").read_text())


def test_without_a_version_there_is_nothing_to_beat_or_to_continue_from(
    records: Path, tmp_path: Path
) -> None:
    champion(str(tmp_path / "store"), "cxrflow", records, tmp_path / "champion", continues=True)
    assert told(tmp_path / "champion") == {"version": None, "continues": False}
    assert version_to_continue_from(tmp_path / "champion") is None


def test_the_version_that_is_served_is_asked_about_the_test_images(
    published: Path, records: Path, evaluation: Path, tmp_path: Path
) -> None:
    champion(str(published), "cxrflow", records, tmp_path / "champion")
    assert told(tmp_path / "champion")["version"] == "1"
    ours = pd.read_parquet(tmp_path / "champion" / "predictions.parquet")
    pd.testing.assert_frame_equal(
        ours.reset_index(drop=True),
        pd.read_parquet(evaluation / "predictions.parquet").drop(columns="patient"),
        check_exact=False,
        atol=1e-4,
    )
    assert version_to_continue_from(tmp_path / "champion") is None, "nobody asked to"


def test_training_continues_from_the_version_that_is_served(
    tiny_cnn, published: Path, records: Path, tmp_path: Path
) -> None:
    champion(str(published), "cxrflow", records, tmp_path / "champion", continues=True)
    start = version_to_continue_from(tmp_path / "champion")
    assert start == published / "cxrflow" / "1"
    card = train(tiny_cnn, records, tmp_path / "model", tmp_path / "checkpoints", start=start)
    assert card["parent"] == "1"
    assert card["starting_point"].startswith("from version 1, which started from scratch")


def test_what_its_version_was_made_with_a_continued_model_was_made_with(
    tiny_cnn, published: Path, examples: Path, records: Path, tmp_path: Path
) -> None:
    version = tmp_path / "cxrflow" / "1"
    shutil.copytree(published / "cxrflow" / "1", version)
    (version / "images.parquet").unlink(missing_ok=True)
    known = pd.read_parquet(examples / "examples.parquet")
    identity = known[["id", "patient", "sha256", "perceptual_hash"]].iloc[:1]
    gone = identity.assign(id="withdrawn.png", part="train")
    gone.to_parquet(version / "images.parquet")
    train(
        tiny_cnn, records, tmp_path / "model", tmp_path / "checkpoints",
        start=version, examples=examples,
    )  # fmt: skip
    made = pd.read_parquet(tmp_path / "model" / "images.parquet").set_index("id")["part"]
    assert made["withdrawn.png"] == "earlier version"
    assert set(made) == {"train", "validation", "earlier version"}


def test_the_verdict_on_the_champion_is_that_of_its_gate(
    published: Path, records: Path, tmp_path: Path
) -> None:
    champion(str(published), "cxrflow", records, tmp_path / "champion")
    decision = json.loads((published / "cxrflow" / "1" / "decision.json").read_text())
    assert told(tmp_path / "champion")["trust"] == decision["candidates"][0]["trust"]


def test_a_version_that_has_gone_is_an_error(
    published: Path, records: Path, tmp_path: Path
) -> None:
    champion(str(published), "cxrflow", records, tmp_path / "champion", continues=True)
    file = tmp_path / "champion" / "champion.json"
    file.write_text(json.dumps({**told(tmp_path / "champion"), "place": str(tmp_path / "gone")}))
    with pytest.raises(UserError):
        version_to_continue_from(tmp_path / "champion")
