from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.sources.covid_chestxray import read, unnamed_files
from core.errors import UserError

MARCH = (
    "Patientid,offset,sex,age,finding,survival,view,modality,date,location,,filename,doi, url,"
    "license,clinical notes,other notes,"
)
JUNE = (
    "patientid,offset,sex,age,finding,survival,intubated,view,modality,date,location,folder,"
    "filename,doi,url,license,clinical_notes,other_notes,"
)


def rows_of(directory: Path, header: str, *rows: dict[str, str], **options):
    columns = [name.strip(" \ufeff").lower().replace(" ", "_") for name in header.split(",")]
    lines = [header]
    for row in rows:
        filled = {"modality": "X-ray", "view": "PA", "finding": "COVID-19", **row}
        lines.append(",".join(f'"{filled.get(name, "")}"' for name in columns))
    (directory / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return list(read(directory, **options))


@pytest.mark.parametrize("header", [MARCH, JUNE, "\ufeff" + JUNE], ids=["march", "june", "bom"])
def test_every_shape_of_the_metadata_is_read(tmp_path: Path, header: str) -> None:
    (row,) = rows_of(
        tmp_path,
        header,
        {"patientid": "7", "filename": "a.png", "sex": "F", "age": "61", "offset": "-2"},
    )
    assert (row.path, row.patient) == ("images/a.png", "covid-chestxray/7")
    assert (row.label, row.excluded) == ("covid", "")
    assert (row.sex, row.age, row.offset) == ("F", 61.0, -2.0)


def test_what_is_unknown_is_none(tmp_path: Path) -> None:
    (row,) = rows_of(
        tmp_path, JUNE, {"filename": "a.png", "sex": "X", "age": "old", "offset": "nan"}
    )
    assert (row.sex, row.age, row.offset) == (None, None, None)
    assert row.patient == "covid-chestxray/a.png", "without an id an image is its own patient"


def test_ct_and_other_views_are_left_out_with_the_reason(tmp_path: Path) -> None:
    ct, lateral, supine = rows_of(
        tmp_path,
        JUNE,
        {"filename": "ct.png", "modality": "CT", "view": "Axial", "folder": "volumes"},
        {"filename": "l.png", "view": "L"},
        {"filename": "s.png", "view": "AP Supine"},
    )
    assert "no X-ray" in ct.excluded
    assert ct.path == "volumes/ct.png"
    assert "view 'L'" in lateral.excluded
    assert not supine.excluded


def test_the_views_can_be_chosen(tmp_path: Path) -> None:
    lateral, frontal = rows_of(
        tmp_path, JUNE, {"filename": "l.png", "view": "L"}, {"filename": "p.png"}, views=["l"]
    )
    assert not lateral.excluded
    assert frontal.excluded


def test_a_file_in_two_rows_is_one_image(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path,
        JUNE,
        {"patientid": "1", "filename": "a.png"},
        {"patientid": "2", "filename": "a.png", "finding": "Pneumonia/Viral/COVID-19"},
    )
    assert [(row.patient, row.excluded) for row in rows] == [("covid-chestxray/1", "")]


def test_a_file_in_two_rows_that_disagree_is_left_out(tmp_path: Path) -> None:
    (row,) = rows_of(
        tmp_path, JUNE, {"filename": "a.png"}, {"filename": "a.png", "finding": "Streptococcus"}
    )
    assert row.label is None
    assert "disagree" in row.excluded


def test_patients_who_share_a_file_are_one_patient_in_all_rows(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path,
        JUNE,
        {"patientid": "2", "filename": "b.png"},
        {"patientid": "1", "filename": "a.png"},
        {"patientid": "2", "filename": "a.png"},
        {"patientid": "3", "filename": "b.png"},
        {"patientid": "3", "filename": "c.png"},
        {"patientid": "4", "filename": "d.png"},
    )
    ids = {row.path.removeprefix("images/"): row.patient for row in rows}
    assert ids["a.png"] == ids["b.png"] == ids["c.png"] != ids["d.png"]


def test_a_patient_is_one_however_a_spreadsheet_writes_the_id(tmp_path: Path) -> None:
    same = ["313", "313.0", "0313", "313,00", "3.13E+02", " 313\u00a0"]
    other = ["313a", "3130", "1.5", "P7", "p7"]
    named = [
        {"patientid": text, "filename": f"{i}.png"} for i, text in enumerate([*same, *other, "N/A"])
    ]
    ids = [row.patient for row in rows_of(tmp_path, JUNE, *named)]
    assert set(ids[: len(same)]) == {"covid-chestxray/313"}
    assert ids[len(same) :] == [
        *(f"covid-chestxray/{one}" for one in ("313a", "3130", "1.5", "p7", "p7")),
        "covid-chestxray/11.png",
    ]


def test_a_decimal_comma_is_read_and_a_path_is_one_however_it_is_written(tmp_path: Path) -> None:
    (row,) = rows_of(
        tmp_path,
        JUNE,
        {"filename": "./a.png", "folder": "images/", "age": "61,5"},
        {"filename": "a.png"},
    )
    assert (row.path, row.age) == ("images/a.png", 61.5)


def test_a_missing_directory_says_where_to_get_the_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metadata\.csv.*github\.com/ieee8023"):
        list(read(tmp_path / "nowhere"))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column finding, modality"):
        rows_of(tmp_path, "patientid,view,filename", {"filename": "a.png"})


def test_an_empty_file_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").touch()
    with pytest.raises(UserError, match="its columns are none"):
        list(read(tmp_path))


def test_files_that_no_row_names_are_found(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, JUNE, {"filename": "a.png"})
    files = ["images/forgotten.png", "metadata.csv", "images/a.png", "images/masks/a.png"]
    assert unnamed_files(files, [row.path for row in rows]) == ["images/forgotten.png"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(content=st.text(max_size=300))
def test_no_content_of_the_rows_breaks_the_reader(tmp_path: Path, content: str) -> None:
    file = tmp_path / "metadata.csv"
    file.write_bytes((JUNE + "\n" + content).encode("utf-8", errors="surrogatepass"))
    try:
        rows = list(read(tmp_path))
    except UserError as error:
        if "never closed" not in str(error):
            raise
        rows = []
    for row in rows:
        assert row.path
        assert (row.label is None) == bool(row.excluded) or row.excluded
