from pathlib import Path

import pandas as pd
import pytest

from core.artifacts import CARD, DECISION, LINEAGE, MADE_WITH
from core.errors import UserError
from core.files import write_json
from serving import lineage, store
from tests.pipelines.cli import cxrflow

SHA = "ab" * 32


@pytest.fixture
def models(tmp_path: Path) -> str:
    """A store with versions 1 to 11; the first was made with three images, the others with none."""
    for number in range(1, 12):
        ids = ["kermany/train/1.png", "kermany/train/11.png", "covid/1.png.jpg"]
        table = pd.DataFrame({"id": ids, "sha256": [SHA, "cd" * 32, "ef" * 32], "part": "train"})
        images = tmp_path / f"{number}.parquet"
        (table if number == 1 else table[:0]).to_parquet(images)
        made = store.assemble({"images.parquet": images}, tmp_path / f"made-{number}", "cxrflow")
        # Versions that differ in nothing are published once.
        manifest = (made / "manifest.json").read_text()
        (made / "manifest.json").write_text(
            manifest.replace('"files": {', f'"files": {{"{number}": "",')
        )
        store.publish(made, str(tmp_path / "store"))
    return str(tmp_path / "store")


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("1.png", ["kermany/train/1.png"]),
        ("train/1.png", ["kermany/train/1.png"]),
        ("kermany/train/1.png", ["kermany/train/1.png"]),
        ("/1.png", ["kermany/train/1.png"]),
        ("png", []),
        ("ain/1.png", []),
        ("1.png.jpg", ["covid/1.png.jpg"]),
        (SHA, ["kermany/train/1.png"]),
        (SHA.upper(), ["kermany/train/1.png"]),
        (SHA[:10], []),
    ],
)
def test_an_image_is_found_by_its_whole_name_alone(
    models: str, image: str, found: list[str]
) -> None:
    rows = lineage.made_with(models, "cxrflow", image)
    assert [row["id"] for row in rows] == found
    assert all((row["version"], row["part"]) == ("1", "train") for row in rows)


def test_a_version_is_found_by_its_number(models: str) -> None:
    assert lineage.version_named(models, "cxrflow", "1") == str(Path(models, "cxrflow", "1"))
    assert lineage.version_named(models, "cxrflow", "11") == str(Path(models, "cxrflow", "11"))


def test_a_version_that_is_not_there_is_said_with_those_that_are(models: str) -> None:
    with pytest.raises(UserError, match="there is no version 12 of cxrflow"):
        lineage.version_named(models, "cxrflow", "12")
    error = cxrflow("lineage", "99", "--store", models, fails=True)
    assert "there is no version 99 of cxrflow" in error
    assert "there are: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11" in error


@pytest.mark.parametrize(
    ("test_split", "said"),
    [
        ({"decided_before": 4}, "has decided 4 times before this version was chosen"),
        ({"decided_before": 1}, "has decided once before this version was chosen"),
        ({"decided_before": 0}, "has decided nothing before this version was chosen"),
        ({"decided_before": None}, "not counted"),
        (None, "not counted"),
    ],
)
def test_lineage_says_how_often_the_test_split_had_decided(
    test_split: dict | None, said: str, tmp_path: Path
) -> None:
    card = {
        "versions": {"cxrflow": "1", "tensorflow": "2"}, "recipe": {"name": "a"}, "seed": 0,
        "precision": "float32", "starting_point": "from scratch", "parent": None, "span": 1,
        "fingerprint": "ab",
    }  # fmt: skip
    decision = {
        "winner": "a", "reason": "a alone passes the gate.", "decided": "2020-06-01",
        "candidates": [{"recipe": "a", "checks": []}], "test_split": test_split,
    }  # fmt: skip
    pd.DataFrame({"id": ["1.png"]}).to_parquet(tmp_path / MADE_WITH)
    for name, content in (
        (CARD, card),
        (DECISION, decision),
        (LINEAGE, {"run": "1", "archive": "archive"}),
    ):
        write_json(tmp_path / name, content)
    files = (CARD, DECISION, LINEAGE, MADE_WITH)
    made = store.assemble({name: tmp_path / name for name in files}, tmp_path / "made", "cxrflow")
    version = store.publish(made, str(tmp_path / "store"))
    rows = dict(
        line.split("  ", 1) for line in cxrflow("lineage", version).splitlines() if "  " in line
    )
    assert rows["test split"].startswith(said)
