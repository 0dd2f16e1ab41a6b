import shutil
from pathlib import Path

import pytest

from components.data.ingest import ingest
from components.data.phantoms import draw_with_lungs
from components.data.sources import csv_rows, listed
from core.errors import UserError
from core.labels import NORMAL
from core.locations import location
from core.tables import read_table
from tests.datasets import draw, write_datasets


def write(file: Path, text: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_folders_name_findings_and_file_names_patients(tmp_path: Path) -> None:
    for name in ("No_findings/0007_01.png", "No_findings/0007_02.png", "Pneumonia/0008_00.png"):
        write(tmp_path / name)
    write(tmp_path / "No_findings" / "notes.txt")
    (source,) = listed.parse([rf"nih={tmp_path},patient=^(\d+)_"]).values()
    rows = {row.path: row for row in listed.read(source)}
    assert set(rows) == {
        "No_findings/0007_01.png",
        "No_findings/0007_02.png",
        "Pneumonia/0008_00.png",
    }
    one = rows["No_findings/0007_01.png"]
    assert (one.label, one.patient, one.source) == (NORMAL, "nih/0007", "nih")
    other = rows["Pneumonia/0008_00.png"]
    assert other.label is None
    assert "does not name a cause" in other.excluded


def test_a_csv_says_more(tmp_path: Path) -> None:
    file = write(
        tmp_path / "images.csv",
        "Path,label,patient,view,age,sex\n"
        "a/1.png,covid,p1,PA,61,f\n"
        "a/2.png,Pneumonia/Bacterial/Klebsiella,p2,L,,\n",
    )
    (source,) = listed.parse([f"clinic={file}"]).values()
    one, other = listed.read(source, ["PA"])
    assert (one.label, one.patient, one.age, one.sex, one.view) == (
        "covid", "clinic/p1", 61.0, "F", "PA",
    )  # fmt: skip
    assert other.label == "bacterial"
    assert other.excluded == "view 'L' was not asked for"
    assert source.directory == tmp_path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nih", "is not NAME=SPEC"),
        ("nih=", "is not NAME=SPEC"),
        ("N I H=x", "is not NAME=SPEC"),
        ("kermany=x", "the name 'kermany' is already taken"),
        ("nih=x,patient=(", "not a regular expression"),
        ("nih=x,patient=abc", "one group"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        listed.parse([text])


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = [
        (f"a={tmp_path / 'no.csv'}", "there is no"),
        (f"a={tmp_path / 'empty'}", "no images in folders"),
        (f"a={write(tmp_path / 'b.csv', 'file,label')}", "no column path"),
        (
            rf"a={write(tmp_path / 'c' / 'Normal' / 'x.png').parent.parent},patient=(\d+)",
            r"pattern (\d+) does not find the patient in 1 of 1",
        ),
    ]
    for text, said in cases:
        (source,) = listed.parse([text]).values()
        with pytest.raises(UserError) as error:
            list(listed.read(source))
        assert said in str(error.value)


def test_all_rows_that_cannot_be_used_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    rows = [",covid,p1,,", "a.png,covid,,,", "b.png,covid,n/a,,", "c.png,covid,p,old,F"]
    rows += [
        "../d.png,covid,p,,",
        "e.png,covid,p,,q",
        "f.png,covid,p,199,",
        "g.png",
        "ok.png,covid,p,,",
    ]
    file = write(tmp_path / "images.csv", "\n".join(["path,label,patient,age,sex", *rows]))
    (source,) = listed.parse([f"clinic={file}"]).values()
    with pytest.raises(UserError) as error:
        list(listed.read(source, to_train_on=True))
    said = str(error.value)
    assert f"clinic: 8 of 9 rows of {file} cannot be used: line 2, column path: empty" in said
    assert "line 3, column patient: empty, expected the patient's id; line 4" in said
    assert "line 5, column age: 'old', expected a number of years from 0 to 150" in said
    assert (
        f"line 6, column path: '../d.png', expected the path of an image below {tmp_path}" in said
    )
    assert "line 7" not in said
    assert said.endswith("; and 3 more")
    assert "\n" not in said


def test_a_row_that_ends_too_early_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "images.csv", "path,patient,label\na.png,1\n")
    (source,) = listed.parse([f"clinic={file}"]).values()
    with pytest.raises(UserError, match="line 2, column label: the row ends before it"):
        list(listed.read(source))


def test_patients_are_only_needed_to_train_on(tmp_path: Path) -> None:
    file = write(tmp_path / "images.csv", "path,label,patient\na.png,covid,\nb.png,covid,\n")
    (source,) = listed.parse([f"clinic={file}"]).values()
    assert [row.patient for row in listed.read(source)] == ["clinic/a.png", "clinic/b.png"]
    with pytest.raises(UserError, match="2 of 2 rows"):
        list(listed.read(source, to_train_on=True))


def test_a_path_is_one_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for root in ("real", "link"):
        for other in ("real", "link"):
            for text in (
                "sub/a.png",
                "./sub//a.png",
                "sub\\a.png",
                f"{tmp_path}/{other}/sub/a.png",
            ):
                assert csv_rows.relative_path(text, tmp_path / root) == "sub/a.png", (root, text)
    for text in ("", ".", "../a.png", "/elsewhere/a.png", "C:\\a.png", "gs://bucket/a.png"):
        assert csv_rows.relative_path(text, tmp_path / "real") is None, text
    place = location("gs://bucket/clinic")
    assert csv_rows.relative_path("gs://bucket/clinic/a.png", place) == "a.png"
    assert csv_rows.relative_path("gs://other/a.png", place) is None
    assert csv_rows.relative_path("/a.png", place) is None


def test_a_file_in_two_rows_is_one_image_of_one_patient(tmp_path: Path) -> None:
    file = write(
        tmp_path / "images.csv",
        "path,label,patient\na.png,covid,1\n./a.png,covid,2\nb.png,covid,2\nc.png,covid,3\n"
        f"{tmp_path}/c.png,normal,3\n",
    )
    (source,) = listed.parse([f"clinic={file}"]).values()
    one, other, odd = listed.read(source, to_train_on=True)
    assert (one.path, one.patient, other.path, other.patient) == (
        "a.png", "clinic/1", "b.png", "clinic/1",
    )  # fmt: skip
    assert odd.excluded == "two rows disagree: 'covid' and 'normal'"


def test_a_source_that_names_files_twice_and_in_full_is_ingested(tmp_path: Path) -> None:
    clinic = tmp_path / "clinic"
    lines = ["path;label;patient;age"]
    for number in range(12):
        draw(clinic / f"{number}.png", 900 + number)
        lines += [
            f"{clinic}/{number}.png;normal;{number}.0;61,5",
            f"./{number}.png;normal;{number};61",
        ]
    shutil.copy(clinic / "0.png", clinic / "copy.png")
    (clinic / "link.png").symlink_to(clinic / "1.png")
    lines += ["copy.png;normal;97;", "link.png;normal;98;", "gone.png;normal;99;"]
    file = write(clinic / "images.csv", "\r\n".join(lines))
    output = tmp_path / "out"
    summary = ingest(*write_datasets(tmp_path), output, sources=listed.parse([f"clinic={file}"]))
    table = read_table(output / "examples.parquet")
    ours = table[table["source"] == "clinic"].set_index("path")
    assert sorted(ours.index) == sorted([*(f"{n}.png" for n in range(12)), "copy.png", "link.png"])
    assert ours.loc["0.png", "split"] == ours.loc["copy.png", "split"]
    assert ours.loc["1.png", "split"] == ours.loc["link.png", "split"]
    assert ours.loc["0.png", "age"] == 61.5
    assert summary["absent"] == ["clinic/gone.png"]


def test_to_train_on_a_source_its_patients_must_be_known(
    tmp_path: Path, covid_directory: Path, kermany_directory: Path
) -> None:
    write(tmp_path / "clinic" / "Normal" / "1.png")
    sources = listed.parse([f"clinic={tmp_path / 'clinic'}"])
    with pytest.raises(UserError, match="patients must be known"):
        ingest(covid_directory, kermany_directory, tmp_path / "x", sources=sources)
    write(tmp_path / "images.csv", "path,label\n")
    (source,) = listed.parse([f"clinic={tmp_path / 'images.csv'}"]).values()
    assert list(listed.read(source)) == []
    with pytest.raises(UserError, match="patients must be known"):
        list(listed.read(source, to_train_on=True))


def test_a_further_source_is_ingested_and_split_by_patient(
    tmp_path: Path, covid_directory: Path, kermany_directory: Path
) -> None:
    import numpy as np
    import pandas as pd

    folder = tmp_path / "clinic" / "No_finding"
    folder.mkdir(parents=True)
    for number in range(20):
        picture, _ = draw_with_lungs(NORMAL, np.random.default_rng(900 + number))
        picture.save(folder / f"{number // 2:03d}_{number % 2}.png")
    sources = listed.parse([rf"clinic={tmp_path / 'clinic'},patient=(\d+)_"])
    output = tmp_path / "examples"
    summary = ingest(covid_directory, kermany_directory, output, sources=sources)
    table = pd.read_parquet(output / "examples.parquet")
    ours = table[table["source"] == "clinic"]
    assert len(ours) == 20
    assert ours["patient"].nunique() == 10
    assert (ours.groupby("patient")["split"].nunique() == 1).all()
    assert summary["further_sources"] == ["clinic"]
    assert summary["leakage"]["ours"] == 0
