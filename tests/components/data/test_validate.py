import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.data.ingest import ingest
from components.data.validate import drifted, run_tfdv, validate
from components.data.validation import SCHEMA
from components.data.validation.kept_schema import accepting, known_values
from core.errors import UserError
from tests.datasets import link_every


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


def test_values_are_counted_exactly_however_many_there_are(examples: Path, tmp_path: Path) -> None:
    """TFDV's sketches, in their usual size, give other patients and other counts."""
    table = pd.read_parquet(examples / "examples.parquet")
    table = table[table["split"] == "train"].sample(5000, replace=True, random_state=0)
    random = np.random.default_rng(0)
    table["patient"] = [f"kermany/{number}" for number in random.integers(3000, size=len(table))]
    table.to_parquet(tmp_path / "examples.parquet", index=False)
    (tmp_path / "output").mkdir()
    run_tfdv(
        tmp_path / "examples.parquet",
        SCHEMA,
        SCHEMA.with_name("warnings.pbtxt"),
        tmp_path / "output",
    )
    (told,) = json.loads((tmp_path / "output" / "train" / "FeatureStats.json").read_text())[
        "datasets"
    ]
    (patients,) = (one for one in told["features"] if one["path"]["step"] == ["patient"])
    counts = table["patient"].value_counts()
    counted = patients["string_stats"]
    assert int(counted["unique"]) == len(counts)
    top = {one["value"]: int(one["frequency"]) for one in counted["top_values"]}
    assert len(top) == 50
    assert top == {name: counts[name] for name in top}
    assert min(top.values()) == counts.iloc[49]


def spoilt(examples: Path, directory: Path, **values: object) -> tuple[Path, dict[str, list[str]]]:
    """Copies examples with two wrong values in each named column; returns the ids of their rows as well."""
    copy = Path(shutil.copytree(examples, directory / "examples"))
    table = pd.read_parquet(copy / "examples.parquet")
    rows = {}
    for number, (column, value) in enumerate(values.items()):
        of_column = table.index[table["split"] == "train"][2 * number : 2 * number + 2]
        table.loc[of_column, column] = value
        rows[column] = table.loc[of_column, "id"].tolist()
    table.to_parquet(copy / "examples.parquet", index=False)
    return copy, rows


def test_an_error_ends_the_run_and_names_feature_and_rows(examples: Path, tmp_path: Path) -> None:
    copy, rows = spoilt(examples, tmp_path, age=180.0, label="plague", source=None)
    with pytest.raises(UserError, match="feature 'age' of the train split") as caught:
        validate(copy, tmp_path / "validation")
    assert all(row in str(caught.value) for row in rows["age"])
    anomalies = json.loads((tmp_path / "validation" / "anomalies.json").read_text())
    errors = {one["feature"]: one["rows"] for one in anomalies if one["severity"] == "error"}
    assert errors == rows
    assert (tmp_path / "validation" / "validation.html").is_file(), "there to be looked at"


def grown(examples: Path, directory: Path, new: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """Returns examples to which a second span has been added, made of the first's images."""
    copy = Path(shutil.copytree(examples, directory / "examples"))
    table = pd.read_parquet(copy / "examples.parquet")
    table.to_parquet(copy / "previous.parquet", index=False)
    covid = table[table["source"] == "covid-chestxray"]
    few = table[table["source"] == "kermany"][:19]
    added = pd.concat([new(covid), few])
    added = added.assign(id="new/" + added["id"], span=2)
    pd.concat([table, added]).to_parquet(copy / "examples.parquet", index=False)
    return copy


def served(examples: Path, directory: Path, **values: object) -> Path:
    """Writes a server's feature log of the examples' images, with some features changed."""
    table = pd.read_parquet(examples / "examples.parquet")
    rows = table[["width", "height", "mode", "brightness", "contrast", "frame"]].assign(**values)
    directory.mkdir()
    rows.to_json(directory / "2026-03-01.jsonl", orient="records", lines=True)
    return directory


def comparisons(validation: Path) -> dict[tuple[str, str], dict]:
    """Returns what was compared, by kind and source."""
    rows = json.loads((validation / "comparisons.json").read_text())
    return {(row["kind"], row["source"]): row for row in rows}


DRIFT, SKEW = ("drift", "covid-chestxray"), ("skew", "")


def test_more_of_the_same_differs_in_nothing_and_a_few_images_are_not_compared(
    examples: Path, tmp_path: Path
) -> None:
    log = served(examples, tmp_path / "served")
    validate(grown(examples, tmp_path, lambda rows: rows), tmp_path / "out", served=log)
    compared = comparisons(tmp_path / "out")
    assert compared.keys() == {DRIFT, SKEW, ("drift", "kermany")}
    features = {one["feature"] for one in compared[DRIFT]["measures"]}
    assert features >= {"view", "finding", "width", "frame"}
    assert drifted(compared[DRIFT]) == drifted(compared[SKEW]) == []
    assert compared["drift", "kermany"]["measures"] == []
    page = (tmp_path / "out" / "validation.html").read_text()
    assert "No difference exceeds its threshold" in page


def test_a_new_scanner_is_noticed_among_new_and_served_images(
    examples: Path, tmp_path: Path, browser
) -> None:
    def inverted_brighter_smaller(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(
            brightness=(1.2 - rows["brightness"]).clip(upper=1).astype("float32"),
            frame=(1 - rows["frame"]).astype("float32"),
            width=rows["width"] // 2,
            height=rows["height"] // 2,
        )

    log = served(examples, tmp_path / "served", frame=0.9, width=3000)
    changed = grown(examples, tmp_path, inverted_brighter_smaller)
    validate(changed, tmp_path / "out", served=log)
    compared = comparisons(tmp_path / "out")
    over = {one["feature"] for one in drifted(compared[SKEW])}
    assert {"frame", "width"} <= over
    assert over.isdisjoint({"mode", "brightness", "contrast"})
    over = {one["feature"] for one in drifted(compared[DRIFT])}
    assert {"brightness", "frame", "width", "height"} <= over
    assert over.isdisjoint({"view", "finding", "sex", "contrast"})
    page = browser.new_page()
    page.goto((tmp_path / "out" / "validation.html").as_uri())
    shown = page.locator("section", has_text="New images from covid-chestxray")
    assert shown.locator("svg").count() == len(over)
    assert "brightness of covid-chestxray differs" in shown.inner_text()
    assert "Served images" in page.content()


def test_the_real_dataset_has_changed_as_it_grew(real_data: Path, tmp_path: Path) -> None:
    covid = tmp_path / "covid"
    covid.mkdir()
    (covid / "images").symlink_to(real_data / "covid-chestxray-dataset" / "images")
    kermany = link_every(8, real_data / "chest_xray", tmp_path / "chest_xray")
    over = {}
    for day in ("2020-03-28", "2020-04-18", "2020-06-22"):
        snapshots = real_data / "covid-chestxray-dataset" / "snapshots"
        shutil.copy(snapshots / f"metadata-{day}.csv", covid / "metadata.csv")
        examples, output = tmp_path / f"examples-{day}", tmp_path / day
        ingest(covid, kermany, examples, archive=tmp_path / "archive")
        validate(examples, output)
        if day != "2020-03-28":
            over[day] = {one["feature"] for one in drifted(comparisons(output)[DRIFT])}
    assert {"view", "finding"} <= over["2020-04-18"]
    assert {"view", "finding", "width", "height", "mode"} <= over["2020-06-22"]


def test_a_new_value_ends_the_run_and_a_new_column_is_pointed_out_until_they_are_accepted(
    examples: Path, tmp_path: Path
) -> None:
    copy, _ = spoilt(examples, tmp_path, view='AP "lying"')
    own = tmp_path / "schema.pbtxt"
    text = SCHEMA.read_text().replace('  value: "clinical_notes"\n', "")
    own.write_text(text)
    with pytest.raises(UserError, match="feature 'view' of the train split"):
        validate(copy, tmp_path / "out", schema=own)
    anomalies = json.loads((tmp_path / "out" / "anomalies.json").read_text())
    new_columns = {one["feature"] for one in anomalies if one["what"] == "New column"}
    assert "clinical_notes" in new_columns
    with_value = accepting(text, "view", ['AP "lying"', "PA"])
    assert known_values(with_value, "view")[-1] == 'AP "lying"'
    assert len(with_value.splitlines()) == len(text.splitlines()) + 1
    own.write_text(accepting(with_value, "columns", ["clinical_notes"]))
    anomalies = validate(copy, tmp_path / "again", schema=own)
    assert "clinical_notes" not in {one["feature"] for one in anomalies}


def test_what_has_no_list_of_values_cannot_be_accepted() -> None:
    with pytest.raises(UserError, match="'width' has no list of values; only source, label"):
        accepting(SCHEMA.read_text(), "width", ["9"])
