"""A paper's protocol from the command line, on a base for where there is no network.

Folds: see tests/e2e/test_stopping.py, where they are also interrupted.
"""

import json
from pathlib import Path

from tests.datasets import write_datasets
from tests.pipelines.cli import cxrflow


def test_a_base_is_pretrained_and_used(tmp_path: Path) -> None:
    covid, kermany = write_datasets(tmp_path / "data", per_label=13)
    sources = ("--covid", str(covid), "--kermany", str(kermany))
    options = ("--epochs", "1", "--output", str(tmp_path))
    target = tmp_path / "bases" / "vgg16"
    small = ("--size", "48", "--target", str(target))
    said = cxrflow("pretrain", "soares-vgg16", *sources, *options, *small)
    assert str(target) in said
    told = json.loads((target / "pretraining.json").read_text())
    weights = ("--weights", str(tmp_path / "bases"))
    said = cxrflow("reproduce", "soares-vgg16", *sources, *options, *weights)
    page = (tmp_path / "soares-vgg16.html").read_text()
    assert "Other weights" in page
    assert f"from a base pretrained on {told['images']} chest X-rays" in page
    assert list((tmp_path / "archive" / "checkpoints" / "features").glob("vgg16-*/*.npy"))
