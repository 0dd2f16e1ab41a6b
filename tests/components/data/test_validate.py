import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from components.data.ingest import ingest
from components.data.validate import _interpreter, drifted, validate
from components.data.validation import SCHEMA
from components.data.validation.kept_schema import accepting, known_values
from core.errors import UserError


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


def test_statistics_name_their_runner(examples: Path, tmp_path: Path) -> None:
    """Beam's default runner tries to download another one first."""
    program = (
        "import runpy, sys\n"
        "from apache_beam.runners.direct.direct_runner import SwitchingDirectRunner\n"
        "SwitchingDirectRunner.run_pipeline = None\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    schema = SCHEMA.with_name("warnings.pbtxt")
    tfdv = SCHEMA.with_name("tfdv.py")
    arguments = [tfdv, examples / "examples.parquet", SCHEMA, schema, tmp_path]
    subprocess.run([_interpreter(), "-c", program, *map(str, arguments)], check=True)
    assert (tmp_path / "train" / "FeatureStats.pb").is_file()


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


def grown(examples: Path, directory: Path, new: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """Returns examples to which a second span has been added, made of the first's images."""
    copy = Path(shutil.copytree(examples, directory / "examples"))
    table = pd.read_parquet(copy / "examples.parquet")
    table.to_parquet(copy / "previous.parquet", index=False)
    covid = table[table["source"] == "covid-chestxray"]
    added = new(covid.assign(id="new/" + covid["id"], span=2))
    pd.concat([table, added]).to_parquet(copy / "examples.parquet", index=False)
    return copy


def comparison(validation: Path) -> dict:
    (one,) = json.loads((validation / "comparisons.json").read_text())
    return dict(one)


def test_more_of_the_same_is_no_drift(examples: Path, tmp_path: Path) -> None:
    validate(grown(examples, tmp_path, lambda rows: rows), tmp_path / "out")
    found = comparison(tmp_path / "out")
    assert (found["kind"], found["source"]) == ("drift", "covid-chestxray")
    assert {one["feature"] for one in found["measures"]} >= {"view", "finding", "width", "frame"}
    assert drifted(found) == []
    assert (
        "No difference exceeds its threshold" in (tmp_path / "out" / "validation.html").read_text()
    )


def test_a_new_scanner_is_noticed(examples: Path, tmp_path: Path, browser) -> None:
    def inverted_brighter_smaller(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(
            brightness=(1.2 - rows["brightness"]).clip(upper=1).astype("float32"),
            frame=(1 - rows["frame"]).astype("float32"),
            width=rows["width"] // 2,
            height=rows["height"] // 2,
        )

    validate(grown(examples, tmp_path, inverted_brighter_smaller), tmp_path / "out")
    over = {one["feature"] for one in drifted(comparison(tmp_path / "out"))}
    assert {"brightness", "frame", "width", "height"} <= over
    assert over.isdisjoint({"view", "finding", "sex", "contrast"})
    page = browser.new_page()
    page.goto((tmp_path / "out" / "validation.html").as_uri())
    shown = page.locator("section", has_text="New images from covid-chestxray")
    assert shown.locator("svg").count() == len(over)
    assert "brightness of covid-chestxray differs" in shown.inner_text()


def test_a_few_images_are_not_compared(examples: Path, tmp_path: Path) -> None:
    validate(grown(examples, tmp_path, lambda rows: rows[:19]), tmp_path / "out")
    assert comparison(tmp_path / "out")["measures"] == []


def test_the_real_dataset_has_changed_as_it_grew(real_data: Path, tmp_path: Path) -> None:
    covid = tmp_path / "covid"
    covid.mkdir()
    (covid / "images").symlink_to(real_data / "covid-chestxray-dataset" / "images")
    over = {}
    for day in ("2020-03-28", "2020-04-18", "2020-06-22"):
        snapshots = real_data / "covid-chestxray-dataset" / "snapshots"
        shutil.copy(snapshots / f"metadata-{day}.csv", covid / "metadata.csv")
        examples, output = tmp_path / f"examples-{day}", tmp_path / day
        ingest(covid, real_data / "chest_xray", examples, archive=tmp_path / "archive")
        validate(examples, output)
        if day != "2020-03-28":
            over[day] = {one["feature"] for one in drifted(comparison(output))}
    assert {"view", "finding"} <= over["2020-04-18"]
    assert {"view", "finding", "width", "height", "mode"} <= over["2020-06-22"]


def test_what_is_served_is_held_against_what_is_trained_on(examples: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(examples / "examples.parquet")
    served = table[["width", "height", "mode", "brightness", "contrast", "frame"]]
    for name, rows in (("same", served), ("other", served.assign(frame=0.9, width=3000))):
        (tmp_path / name).mkdir()
        rows.to_json(tmp_path / name / "2026-03-01.jsonl", orient="records", lines=True)
        validate(examples, tmp_path / f"{name}-out", served=tmp_path / name)
    found = [comparison(tmp_path / f"{name}-out") for name in ("same", "other")]
    assert [one["kind"] for one in found] == ["skew", "skew"]
    assert drifted(found[0]) == []
    assert {one["feature"] for one in drifted(found[1])} == {"frame", "width"}
    assert "Served images" in (tmp_path / "other-out" / "validation.html").read_text()


def test_a_new_column_is_pointed_out_until_it_is_accepted(examples: Path, tmp_path: Path) -> None:
    own = tmp_path / "schema.pbtxt"
    text = SCHEMA.read_text().replace('  value: "clinical_notes"\n', "")
    own.write_text(text)
    found = validate(examples, tmp_path / "out", schema=own)
    assert "clinical_notes" in {one["feature"] for one in found if one["what"] == "New column"}
    own.write_text(accepting(text, "columns", ["clinical_notes"]))
    found = validate(examples, tmp_path / "again", schema=own)
    assert "clinical_notes" not in {one["feature"] for one in found}


def test_a_new_value_ends_the_run_until_it_is_accepted(examples: Path, tmp_path: Path) -> None:
    copy, _ = spoilt(examples, tmp_path, "view", 'AP "lying"')
    with pytest.raises(UserError, match="feature 'view' of the train split"):
        validate(copy, tmp_path / "out")
    own = tmp_path / "schema.pbtxt"
    own.write_text(accepting(SCHEMA.read_text(), "view", ['AP "lying"', "PA"]))
    assert known_values(own.read_text(), "view")[-1] == 'AP "lying"'
    assert len(own.read_text().splitlines()) == len(SCHEMA.read_text().splitlines()) + 1
    validate(copy, tmp_path / "again", schema=own)


def test_what_has_no_list_of_values_cannot_be_accepted() -> None:
    with pytest.raises(UserError, match="'width' has no list of values; only source, label"):
        accepting(SCHEMA.read_text(), "width", ["9"])
