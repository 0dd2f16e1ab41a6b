"""The segmenter's step: what it keeps, and what it does with files that cannot be read."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from components.data.sources.covid_chestxray import MASKS
from components.trust.find_lungs import find_lungs
from core.errors import UserError


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets trainings be short."""
    monkeypatch.setattr("training.lungs._MOST_LOOKS", 1)


@pytest.fixture
def dataset(covid_directory: Path, tmp_path: Path) -> Path:
    shutil.copytree(covid_directory, tmp_path / "covid")
    return tmp_path / "covid"


def test_a_mask_that_cannot_be_read_is_left_out_and_a_rare_image_is_read(
    steps: None, dataset: Path, lungs: Path, examples: Path, records: Path, tmp_path: Path, capsys
) -> None:
    table = pd.read_parquet(examples / "examples.parquet")
    masked = {file.stem.removesuffix("_mask") for file in (dataset / MASKS).iterdir()}
    paths = [path for path in sorted(table["path"]) if Path(path).stem in masked]
    damaged, rare = paths[:2]
    mask = dataset / MASKS / f"{Path(damaged).stem}_mask.png"
    mask.write_bytes(mask.read_bytes()[:200])
    Image.open(dataset / rare).convert("CMYK").save(dataset / rare, "JPEG")
    card = find_lungs(dataset, examples, records, tmp_path / "lungs")
    whole = json.loads((lungs / "lungs.json").read_text())
    counts = ("trained_on", "watched", "tested_on")
    assert sum(card[name] for name in counts) == sum(whole[name] for name in counts) - 1
    assert f"{mask} cannot be read and is left out" in capsys.readouterr().out


def test_without_enough_masks_it_says_how_many_there_are(
    dataset: Path, examples: Path, records: Path, tmp_path: Path
) -> None:
    for mask in list((dataset / MASKS).iterdir())[2:]:
        mask.unlink()
    with pytest.raises(UserError, match="has masks of"):
        find_lungs(dataset, examples, records, tmp_path / "lungs")
    assert not (tmp_path / "lungs").exists()


def test_what_was_kept_is_shown_on_a_page_of_the_data_of_today(
    lungs: Path, covid_directory: Path, examples: Path, records: Path, tmp_path: Path
) -> None:
    today = tmp_path / "examples"
    shutil.copytree(examples, today)
    summary = json.loads((today / "summary.json").read_text())
    (today / "summary.json").write_text(json.dumps({**summary, "fingerprint": "f" * 64}))
    find_lungs(covid_directory, today, records, tmp_path / "lungs", kept=lungs.parent / "kept")
    assert (tmp_path / "lungs" / "lungs.keras").read_bytes() == (lungs / "lungs.keras").read_bytes()
    assert "ffffff" in (tmp_path / "lungs" / "lungs.html").read_text()
