"""Measures ingest for growing and large datasets, with generated wave patterns or real snapshots."""

import csv
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from components.data.ingest import ingest
from components.data.sources.covid_chestxray import DIRECTORY as COVID_DIRECTORY
from components.data.sources.kermany import DIRECTORY as KERMANY_DIRECTORY
from components.data.write_records import write_records
from core.artifacts import EXAMPLES
from core.tables import read_table

APRIL, JUNE = "2020-04-18", "2020-06-22"
# Images of the smallest set; the others have 4 and 16 times as many.
SMALLEST = 1000
_SIDE = 256
_ONE_PROCESS = "--direct_running_mode=in_memory"


def fields(directory: Path, images: int) -> tuple[Path, Path]:
    """Draws images without near-duplicates in both layouts, a quarter of each label."""
    covid, kermany = (
        directory / COVID_DIRECTORY,
        directory / KERMANY_DIRECTORY,
    )
    for folder in (covid / "images", kermany / "train/NORMAL", kermany / "train/PNEUMONIA"):
        folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    y, x = np.mgrid[0 : 1 : _SIDE * 1j, 0 : 1 : _SIDE * 1j].astype(np.float32)
    rows = []
    for number in range(images):
        frequency = random.uniform(-9, 9, (6, 3)).astype(np.float32)
        waves = sum(np.sin(a * x + b * y + c) for a, b, c in frequency)
        picture = Image.fromarray(((waves + 6) / 12 * 255).astype(np.uint8))
        patient, kind = divmod(number, 4)
        file = (
            covid / f"images/{patient}.jpeg",
            kermany / f"train/NORMAL/IM-{patient:05d}-0001.jpeg",
            kermany / f"train/PNEUMONIA/person{patient}_bacteria_1.jpeg",
            kermany / f"train/PNEUMONIA/person{images + patient}_virus_1.jpeg",
        )[kind]
        picture.save(file)
        if kind == 0:
            rows.append([patient, "COVID-19", "PA", "X-ray", "images", file.name])
    write_metadata(covid / "metadata.csv", rows)
    return covid, kermany


def write_metadata(file: Path, rows: list) -> None:
    with file.open("w", newline="") as opened:
        header = ["patientid", "finding", "view", "modality", "folder", "filename"]
        csv.writer(opened).writerows([header, *rows])


def growth(home: Path, covid: Path | None, kermany: Path | None) -> str:
    """Compares an ingest in June that follows one in April with a full ingest in June."""
    if covid and kermany:
        days = {day: covid / "snapshots" / f"metadata-{day}.csv" for day in (APRIL, JUNE)}
    else:
        covid, kermany = fields(home / "grown", 4 * SMALLEST)
        with (covid / "metadata.csv").open(newline="") as opened:
            _, *rows = csv.reader(opened)
        days = {day: home / f"{day}.csv" for day in (APRIL, JUNE)}
        write_metadata(days[APRIL], rows[: int(0.45 * len(rows))])
        write_metadata(days[JUNE], rows)
    today = home / "today"
    today.mkdir()
    (today / "images").symlink_to((covid / "images").resolve())
    sources = {"covid-chestxray": today, "kermany": kermany}

    def seconds(day: str, archive: str) -> tuple[float, dict]:
        shutil.copy(days[day], today / "metadata.csv")
        began = time.monotonic()
        summary = ingest(today, kermany, home / "span", archive=home / archive)
        write_records(home / "span", sources, home / "shards", archive=home / archive)
        return time.monotonic() - began, summary

    seconds(APRIL, "grows")
    whole, _ = seconds(JUNE, "whole")
    grown, summary = seconds(JUNE, "grows")
    examples = read_table(home / "span" / EXAMPLES)
    new = examples["span"] == summary["span"]["number"]
    pixels = examples["width"] * examples["height"]
    share = pixels[new].sum() / pixels.sum()
    return (
        f"[bold]{grown / whole:6.2f}[/]  ingest and records of new images, to all: {grown:.1f} s to "
        f"{whole:.1f} s; {new.sum()} of {len(new)} images are new, {100 * share:.0f} % of the pixels "
        f"(wanted: at most {share + 0.15:.2f}, by images {new.mean() + 0.15:.2f})"
    )


SCALE = """
import sys, time
from pathlib import Path
from components.data.ingest import ingest
from components.data.write_records import write_records
covid, kermany, output = map(Path, sys.argv[1:4])
options = sys.argv[4:]
sources = {"covid-chestxray": covid, "kermany": kermany}
began = time.monotonic()
ingest(covid, kermany, output / "examples", beam_options=options)
write_records(output / "examples", sources, output / "records", beam_options=options)
seconds = time.monotonic() - began
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(peak.split()[1]) / 1024)
"""


def scale(home: Path) -> list[str]:
    """Measures time and memory of ingest and records for 1, 4 and 16 times the images, in one process."""
    lines = []
    before = (0.0, 0.0)
    for times in (1, 4, 16):
        covid, kermany = fields(home / f"scale-{times}", times * SMALLEST)
        command = [sys.executable, "-c", SCALE, str(covid), str(kermany), str(home / f"of-{times}")]
        output = subprocess.check_output(
            [*command, _ONE_PROCESS], text=True, stderr=subprocess.DEVNULL
        )
        took, megabytes = map(float, output.splitlines()[-1].split())
        if times > 1:
            lines.append(
                f"[bold]{took / before[0] / 4:6.2f}[/]  seconds per image of {times * SMALLEST:,} to "
                f"{times * SMALLEST // 4:,}: {times * SMALLEST / took:,.0f} images/s (wanted: 0.85 to "
                f"1.15); memory {megabytes:,.0f} MB to {before[1]:,.0f} MB (wanted: flat)"
            )
        before = took, megabytes
    return lines
