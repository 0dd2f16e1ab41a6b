"""A paper's protocol from the command line, with folds; and a base for where there is no network."""

import json
from pathlib import Path

from tests.pipelines.cli import cxrflow


def test_folds_run_one_after_the_other_and_are_summed(
    covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    sources = ("--covid", str(covid_directory), "--kermany", str(kermany_directory))
    options = ("--folds", "2", "--epochs", "1", "--output", str(tmp_path))
    said = cxrflow("reproduce", "cnn-dubey", *sources, *options)
    steps = [line.split(" ", 1)[1] for line in said.splitlines() if line[:1].isdigit()]
    assert steps[:2] == ["ingest", "write records"]
    assert steps.count("train") == steps.count("evaluate") == 2
    assert steps[-1] == "reproduce"
    assert str(tmp_path / "cnn-dubey.html") in said
    told = json.loads((tmp_path / "cnn-dubey.json").read_text())
    (dubey,) = told["recipes"]
    assert [fold["division"] for fold in dubey["folds"]] == ["fold-01-of-02", "fold-02-of-02"]
    assert sum(map(sum, dubey["metrics"]["confusion"])) == dubey["images"]
    assert "Drawn images" in (tmp_path / "cnn-dubey.html").read_text()


def test_a_base_is_pretrained_and_used(
    covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    sources = ("--covid", str(covid_directory), "--kermany", str(kermany_directory))
    options = ("--epochs", "1", "--output", str(tmp_path))
    target = tmp_path / "bases" / "resnet50"
    small = ("--size", "48", "--target", str(target))
    said = cxrflow("pretrain", "soares-resnet", *sources, *options, *small)
    assert str(target) in said
    told = json.loads((target / "pretraining.json").read_text())
    weights = ("--weights", str(tmp_path / "bases"))
    said = cxrflow("reproduce", "soares-resnet", *sources, *options, *weights)
    page = (tmp_path / "soares-resnet.html").read_text()
    assert "Other weights" in page
    assert f"from a base pretrained on {told['images']} chest X-rays" in page
    assert list((tmp_path / "checkpoints" / "features").glob("resnet50-*/*.npy"))
