import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from components.errors import UserError
from components.validate import validate


def test_statistics_anomalies_and_page_are_written(validation: Path, examples: Path) -> None:
    table = pd.read_parquet(examples / "examples.parquet")
    for split, members in table.groupby("split"):
        statistics = json.loads((validation / split / "FeatureStats.json").read_text())
        assert int(statistics["datasets"][0]["num_examples"]) == len(members)
        assert (validation / split / "FeatureStats.pb").stat().st_size > 1000
        assert (validation / split / "Anomalies.pb").is_file()
    assert "string_domain" in (validation / "schema.pbtxt").read_text()
    assert "Kermany" not in (validation / "validation.html").read_text()[:100]


def test_phantoms_are_as_the_schema_wants_them(validation: Path) -> None:
    found = json.loads((validation / "anomalies.json").read_text())
    assert {anomaly["severity"] for anomaly in found} <= {"warning"}


def spoilt(examples: Path, directory: Path, column: str, value: object) -> tuple[Path, list[str]]:
    copy = Path(shutil.copytree(examples, directory / "examples"))
    table = pd.read_parquet(copy / "examples.parquet")
    rows = table.index[table["split"] == "train"][:2]
    table.loc[rows, column] = value
    table.to_parquet(copy / "examples.parquet", index=False)
    return copy, table.loc[rows, "id"].tolist()


@pytest.mark.parametrize(
    ("column", "value"), [("label", "plague"), ("age", 180.0), ("source", None)]
)
def test_an_error_ends_the_run_and_names_feature_and_rows(
    examples: Path, tmp_path: Path, column: str, value: object
) -> None:
    copy, rows = spoilt(examples, tmp_path, column, value)
    with pytest.raises(UserError, match=f"feature '{column}' of the train split") as caught:
        validate(copy, tmp_path / "validation")
    assert all(row in str(caught.value) for row in rows)
    assert (tmp_path / "validation" / "validation.html").is_file(), "there to be looked at"
