import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data import splits
from components.data.example_tables import SCHEMA
from components.data.ingest import ingest
from components.data.sources import listed
from core.artifacts import EXCLUDED
from core.errors import UserError
from tests.datasets import covid_row, link_every, write_datasets, write_metadata
from training.recipes import recipe_named


@pytest.fixture(scope="module")
def table(examples: Path) -> pd.DataFrame:
    return pd.read_parquet(examples / "examples.parquet").set_index("path")


@pytest.fixture(scope="module")
def excluded(examples: Path) -> pd.DataFrame:
    return pd.read_parquet(examples / EXCLUDED).set_index("path")


@pytest.fixture(scope="module")
def summary(examples: Path) -> dict:
    return json.loads((examples / "summary.json").read_text())


def test_one_row_an_image_with_every_column(examples: Path, table: pd.DataFrame) -> None:
    assert pq.read_schema(examples / "examples.parquet").names == SCHEMA.names
    assert table["id"].is_unique
    named = [column for column in table if column not in ("sex", "age", "offset", "origin")]
    assert table[named].notna().all(axis=None)


def test_the_covid_source_says_where_an_image_is_from(table: pd.DataFrame) -> None:
    of_covid = table["source"] == "covid-chestxray"
    assert table.loc[of_covid, "origin"].str.fullmatch(r"place-\d{3}\.example").all()
    assert table.loc[~of_covid, "origin"].isna().all()


def test_what_is_recorded_of_an_image_is_what_the_file_says(
    table: pd.DataFrame, covid_directory: Path
) -> None:
    import hashlib

    for path in table.index[table["source"] == "covid-chestxray"][:10]:
        content = (covid_directory / path).read_bytes()
        assert table.loc[path, "sha256"] == hashlib.sha256(content).hexdigest()
        with Image.open(covid_directory / path) as image:
            assert (table.loc[path, "width"], table.loc[path, "height"]) == image.size
            assert table.loc[path, "mode"] == image.mode


def test_every_kind_of_file_is_used(table: pd.DataFrame) -> None:
    assert {"L", "RGB", "RGBA", "I;16"} <= set(table["mode"])


def test_both_notations_of_findings_are_labelled(table: pd.DataFrame) -> None:
    labels = table.groupby("finding")["label"].unique().map(list)
    assert labels["COVID-19, ARDS"] == labels["Pneumonia/Viral/COVID-19"] == ["covid"]
    assert labels["SARS"] == labels["Pneumonia/Viral/MERS-CoV"] == ["viral"]
    assert labels["Streptococcus"] == labels["Pneumonia/Bacterial/Klebsiella"] == ["bacterial"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("phantom-empty.png", "empty"),
        ("phantom-truncated.jpg", "corrupt"),
        ("phantom-text.jpg", "not an image"),
        ("phantom-bomb.png", "too large"),
    ],
)
def test_a_file_that_cannot_be_used_is_quarantined_with_its_reason(
    excluded: pd.DataFrame, table: pd.DataFrame, name: str, kind: str
) -> None:
    assert excluded.loc[f"images/{name}", "kind"] == kind
    assert excluded.loc[f"images/{name}", "reason"]
    assert f"images/{name}" not in table.index


def test_what_the_metadata_rules_out_is_counted(excluded: pd.DataFrame) -> None:
    reasons = excluded[excluded["kind"] == "metadata"]["reason"]
    for part in ("not yet labelled", "outside the four labels", "'L'", "no X-ray"):
        assert reasons.str.contains(part).any(), part


def test_absent_and_unnamed_files_are_listed(summary: dict, excluded: pd.DataFrame) -> None:
    (absent,) = excluded.index[excluded["kind"] == "absent"]
    assert f"covid-chestxray/{absent}" in summary["absent"]
    assert summary["unnamed"] == ["images/phantom-unnamed.png"]


def test_one_file_in_two_rows_is_one_example(covid_directory: Path, table: pd.DataFrame) -> None:
    named = pd.read_csv(covid_directory / "metadata.csv")["filename"]
    (twice,) = named[named.duplicated()]
    assert table.index.tolist().count(f"images/{twice}") == 1


def test_one_patient_under_two_ids_is_on_one_side(table: pd.DataFrame) -> None:
    twin = table.loc["images/phantom-twin.jpg"]
    original = table.loc["images/phantom-0001.png"]
    assert twin["patient"] != original["patient"]
    assert twin["sha256"] != original["sha256"]
    assert twin["split"] == original["split"]


def test_no_patient_is_on_two_sides(table: pd.DataFrame, summary: dict) -> None:
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert summary["leakage"]["ours"] == 0
    assert summary["leakage"]["folders"] > 0, "the sources' folders do leak"


def test_the_counts_add_up(table: pd.DataFrame, excluded: pd.DataFrame, summary: dict) -> None:
    assert summary["used"] == len(table) == sum(row["images"] for row in summary["by_split"])
    assert sum(row["images"] for row in summary["excluded"]) == len(excluded)


def test_where_every_image_is_used_nothing_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = ingest(*write_datasets(tmp_path), tmp_path / "out")
    assert (summary["used"], summary["excluded"]) == (48, [])
    assert pd.read_parquet(tmp_path / "out" / EXCLUDED).empty
    assert "48 images of 48 patients used, 0 left out" in capsys.readouterr().out


def test_a_refusal_counts_what_is_usable_and_what_is_not(tmp_path: Path) -> None:
    covid, kermany = write_datasets(tmp_path)
    write_metadata(covid, [])
    with pytest.raises(UserError, match=r"labelled covid: 36 images are usable, 0 are not\."):
        ingest(covid, kermany, tmp_path / "out")
    write_metadata(covid, [covid_row(number, finding="todo") for number in range(5)])
    with pytest.raises(UserError, match=r": 36 images are usable, 5 are not\."):
        ingest(covid, kermany, tmp_path / "out")


def test_it_is_the_same_under_another_runner(
    covid_directory: Path, kermany_directory: Path, summary: dict, tmp_path: Path
) -> None:
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    again = ingest(covid_directory, kermany_directory, tmp_path / "out", beam_options=workers)
    assert again["fingerprint"] == summary["fingerprint"]


def test_another_seed_is_another_split(
    covid_directory: Path, kermany_directory: Path, summary: dict, tmp_path: Path
) -> None:
    again = ingest(covid_directory, kermany_directory, tmp_path / "out", seed=1)
    assert again["fingerprint"] != summary["fingerprint"]
    assert again["used"] == summary["used"]


def test_other_views_can_be_asked_for(
    covid_directory: Path, kermany_directory: Path, summary: dict, tmp_path: Path
) -> None:
    views = ("PA", "AP", "AP Supine", "AP semi erect", "L")
    again = ingest(covid_directory, kermany_directory, tmp_path / "out", views=views)
    assert again["used"] == summary["used"] + 1


@pytest.fixture
def copy(phantom_sources: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantom_sources, tmp_path / "copy"))


def test_the_same_bytes_under_two_labels_are_used_under_neither(copy: Path, tmp_path: Path) -> None:
    normal = next((copy / "chest_xray/train/NORMAL").glob("IM-*"))
    shutil.copy(normal, copy / "chest_xray/train/PNEUMONIA/person999_virus_1.jpeg")
    ingest(copy / "covid-chestxray-dataset", copy / "chest_xray", tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / EXCLUDED)
    assert (table["kind"] == "conflict").sum() == 2


def test_a_label_without_an_image_is_an_error_that_names_it(copy: Path, tmp_path: Path) -> None:
    for file in copy.glob("chest_xray/*/PNEUMONIA/*_virus_*"):
        file.unlink()
    metadata = copy / "covid-chestxray-dataset/metadata.csv"
    text = metadata.read_text().replace("SARS", "todo").replace("Pneumonia/Viral/MERS-CoV", "todo")
    metadata.write_text(text)
    with pytest.raises(UserError, match=r"no usable image is labelled viral.*mendeley"):
        ingest(copy / "covid-chestxray-dataset", copy / "chest_xray", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [copy], "nothing half-written is left"


def test_an_unreadable_file_is_quarantined(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "phantom-0003.png":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    ingest(copy / "covid-chestxray-dataset", copy / "chest_xray", tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / EXCLUDED).set_index("path")
    assert table.loc["images/phantom-0003.png", "kind"] == "unreadable"


def test_the_papers_numbers_are_drawn_and_the_rest_is_counted(
    covid_directory: Path, kermany_directory: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    recipe = replace(recipe_named("soares-vgg16"), subset={"covid": 13, "normal": 12, "other": 24})
    output = tmp_path / "examples"
    summary = ingest(covid_directory, kermany_directory, output, subset=recipe)
    drawn = pd.read_parquet(output / "examples.parquet")
    assert drawn["label"].map(recipe.task).value_counts().to_dict() == dict(recipe.subset)
    assert set(drawn["id"]) < set(table["id"])
    left = pd.read_parquet(output / "excluded.parquet")
    assert (left["kind"] == "subset").sum() == len(table) - 49
    assert summary["subset"] == "soares-vgg16"
    again = ingest(covid_directory, kermany_directory, tmp_path / "again", subset=recipe)
    assert again["fingerprint"] == summary["fingerprint"]
    other = ingest(covid_directory, kermany_directory, tmp_path / "other", subset=recipe, seed=1)
    assert other["fingerprint"] != summary["fingerprint"]


def test_a_paper_without_numbers_is_an_error(
    covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cnn-dubey does not say how many images"):
        ingest(covid_directory, kermany_directory, tmp_path / "x", subset=recipe_named("cnn-dubey"))


def test_a_random_split_is_said_to_leak(
    covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    summary = ingest(covid_directory, kermany_directory, tmp_path / "examples", split_by="random")
    assert summary["leakage"]["ours"] == summary["leakage"]["random"] > 0
    assert summary["split_by"] == "random"


def test_a_split_that_leaks_is_an_error_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = write_datasets(tmp_path)
    write_metadata(sources[0], [covid_row(number, patientid="same") for number in range(12)])

    def alternating(examples: pd.DataFrame, *_: object, **__: object) -> list[str]:
        return [("train", "test")[number % 2] for number in range(len(examples))]

    monkeypatch.setattr(splits, "assign", alternating)
    with pytest.raises(RuntimeError, match="6 test images have their patient or picture"):
        ingest(*sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_that_two_real_collections_share_end_on_one_side(
    real_data: Path, tmp_path: Path
) -> None:
    """188 images of COVID-CXNet are in the covid-chestxray-dataset, under other names and patients."""
    kermany = link_every(6, real_data / "chest_xray", tmp_path / "kermany")
    sources = listed.parse([f"covid-cxnet={real_data / 'covid-cxnet' / 'images.csv'}"])
    ingest(
        real_data / "covid-chestxray-dataset", kermany, tmp_path / "examples",
        sources=sources,
    )  # fmt: skip
    table = pd.read_parquet(tmp_path / "examples" / "examples.parquet")
    table["hash"] = [int(text, 16) for text in table["perceptual_hash"]]
    ours = table[table["source"] == "covid-chestxray"]
    theirs = table[table["source"] == "covid-cxnet"]
    shared = 0
    for other in theirs.itertuples():
        near = ours[[(other.hash ^ own).bit_count() <= 32 for own in ours["hash"]]]
        assert set(near["split"]) <= {other.split}
        assert other.patient not in set(near["patient"]), "nothing else says that they are one"
        shared += bool(len(near))
    assert shared == 186, "two of the 188 are of views that are not used"
