"""Two small datasets in the published layouts, of noise and without anything odd, for tests to change."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

FIELDS = ("patientid", "offset", "sex", "age", "finding", "view", "modality", "folder", "filename")


def write_datasets(directory: Path, per_label: int = 12) -> tuple[Path, Path]:
    """Writes both below a directory and returns them; every image is usable, one per patient."""
    covid, kermany = directory / "covid", directory / "kermany"
    write_metadata(covid, [covid_row(number) for number in range(per_label)])
    for number in range(per_label):
        draw(covid / "images" / f"c{number}.png", number)
        draw(kermany / "train/NORMAL" / f"IM-{number:04d}-0001.jpeg", 1000 + number)
        draw(kermany / "train/PNEUMONIA" / f"person{number}_bacteria_1.jpeg", 2000 + number)
        draw(kermany / "train/PNEUMONIA" / f"person{500 + number}_virus_1.jpeg", 3000 + number)
    return covid, kermany


def link_every(step: int, source: Path, target: Path) -> Path:
    """Links every so many images of Kermany's layout below another directory, and returns that."""
    for file in sorted(source.glob("*/*/*"))[::step]:
        link = target / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return target


def covid_row(number: int, **changes: str) -> dict[str, str]:
    """Returns a row of metadata: a usable image `c<number>.png` of a patient of its own."""
    row = {
        "patientid": f"p{number}",
        "finding": "Pneumonia/Viral/COVID-19",
        "view": "PA",
        "modality": "X-ray",
        "folder": "images",
        "filename": f"c{number}.png",
    }
    return {**dict.fromkeys(FIELDS, ""), **row, **changes}


def write_metadata(covid: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Writes `metadata.csv` of the covid-chestxray-dataset."""
    covid.mkdir(parents=True, exist_ok=True)
    with (covid / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def draw(file: Path, seed: int) -> Path:
    """Writes a small picture, another for every seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8)).astype(np.uint8)
    Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC).save(file, format="PNG")
    return file
