from pathlib import Path

import pandas as pd
import pytest

from components.errors import UserError
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
