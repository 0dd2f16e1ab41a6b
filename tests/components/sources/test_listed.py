from pathlib import Path

import pytest

from components.errors import UserError
from components.ingest import ingest
from components.labels import NORMAL
from components.phantoms import draw_with_lungs
from components.sources import listed


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
        ("kermany=x", "already one named 'kermany'"),
        ("nih=x,patient=(", "no regular expression"),
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
            r"pattern (\d+) does not",
        ),
    ]
    for text, said in cases:
        (source,) = listed.parse([text]).values()
        with pytest.raises(UserError) as error:
            list(listed.read(source))
        assert said in str(error.value)


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
