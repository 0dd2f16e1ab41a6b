"""A dataset that grows, met as a schedule meets it."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from tests.pipelines.cli import cxrflow


def test_a_dataset_that_grows_is_met_as_a_schedule_meets_it(tmp_path: Path) -> None:
    output = tmp_path / "growth"
    done = subprocess.run(
        [sys.executable, "-m", "bench.growth", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    _, march, april, june, unchanged, last = said.split("────── ")
    for number, day in enumerate((march, april, june), 1):
        assert f"span {number}: " in day
    # A first version, a challenger that wins, and one that is refused.
    assert "published as version 1 of cxrflow" in march
    assert "version 1, cnn-dubey+quick, is served: predicted" in april
    assert "published as version 2 of cxrflow" in april
    assert "cnn-dubey+lungs+quick is refused" in june
    assert "of version 2, which is served, on the same" in june
    assert "published as version" not in june
    # The masks are those of the first day.
    assert "the lung segmenter of these" not in march
    for day in (april, june):
        assert "masks exists already" in day
    assert "there is nothing to do" in unchanged
    assert "ingest" not in unchanged.replace("images", "")
    lineage = dict(
        line.split(maxsplit=1) for line in last.splitlines() if line and not line.startswith("$")
    )
    assert lineage["version"] == "2"
    assert lineage["parent"] == "version 1"
    assert lineage["span"].startswith("2 of ")
    store = ("--store", str(output / "store"))
    trained = pd.read_parquet(output / "store" / "cxrflow" / "2" / "images.parquet")
    identity = trained.loc[trained["part"] == "train", "id"].min()
    assert f"version 2  {identity} (train)" in cxrflow("lineage", "--image", identity, *store)
    page = (output / "report" / "report.html").read_text()
    assert "champion" in page


def test_what_is_not_there_has_no_lineage(tmp_path: Path) -> None:
    error = cxrflow("lineage", "--store", str(tmp_path), fails=True)
    assert "holds no published model; give a model store with --store" in error
    error = cxrflow("lineage", "7", "--store", str(tmp_path), fails=True)
    assert "holds no published model" in error
