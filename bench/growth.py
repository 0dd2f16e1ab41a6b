"""Simulates a growing dataset, day by day, as a schedule would see it.

    python -m bench.growth OUTPUT [--covid DIR --kermany DIR]

DIR of covid has `metadata-<day>.csv` of at least three days below `snapshots/`. Without DIR, phantoms are
drawn and split into three days. On the first day a first version is trained; on the second a challenger
continues from it; on the third another recipe, trained for one epoch, challenges the champion; on the
fourth nothing is new.
"""

import argparse
import csv
import shutil
from pathlib import Path

from bench.commands import begin, cxrflow
from core.errors import UserError

# Arguments of `cxrflow run` for each day.
FIRST = ("--recipes", "cnn-dubey+quick", "--epochs", "1", "--gate", "covid=0,default=0")
CONTINUES = ("--recipes", "cnn-dubey+quick", "--gate", "default=0.5")
HARDLY_TRAINED = ("--recipes", "cnn-dubey+lungs+quick", *FIRST[2:])
DAYS = (FIRST, CONTINUES, HARDLY_TRAINED, HARDLY_TRAINED)


def main() -> None:
    """Runs the program; see the module."""
    from components.data import phantoms
    from pipelines.console import console

    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--covid", type=Path)
    parser.add_argument("--kermany", type=Path)
    given = parser.parse_args()
    if bool(given.covid) != bool(given.kermany):
        parser.error("--covid and --kermany belong together")
    output: Path = given.output
    covid, kermany = given.covid, given.kermany
    if not covid:
        covid, kermany = drawn(output / "data")
    snapshots = sorted((covid / "snapshots").glob("metadata-*.csv"))[:3]
    if len(snapshots) < 3:
        raise UserError(f"growth: {covid / 'snapshots'} has no metadata-<day>.csv of three days")
    today = output / "today"
    today.mkdir(parents=True, exist_ok=True)
    for folder in ("images", "annotations"):
        (today / folder).symlink_to((covid / folder).resolve())
    if (covid / phantoms.MARKER).exists():
        shutil.copy(covid / phantoms.MARKER, today)
    for snapshot, arguments in zip([*snapshots, snapshots[-1]], DAYS, strict=True):
        console.rule(f"{snapshot.stem.removeprefix('metadata-')}")
        shutil.copy(snapshot, today / "metadata.csv")
        cxrflow(
            "run", "--covid", str(today), "--kermany", str(kermany), "--weights", "none",
            "--output", str(output), "--if-new", "--new-covid", "2", "--no-serve", *arguments,
        )  # fmt: skip
    console.rule("lineage of the last version")
    cxrflow("lineage", "--store", str(output / "store"))


def drawn(directory: Path) -> tuple[Path, Path]:
    """Draws phantoms and divides their metadata into three days. Masks come with the first day alone."""
    from components.data import phantoms
    from components.data.sources import covid_chestxray, kermany
    from pipelines.console import live_line

    with live_line():
        phantoms.write(directory, patients=60)
    covid = directory / covid_chestxray.DIRECTORY
    with (covid / "metadata.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    days = {"2020-03-28": 0.25, "2020-04-18": 0.65, "2020-06-22": 1.0}
    for row in rows[int(days["2020-03-28"] * len(rows)) :]:
        name = Path(row[header.index("filename")]).stem
        (covid / covid_chestxray.MASKS / f"{name}_mask.png").unlink(missing_ok=True)
    (covid / "snapshots").mkdir()
    for day, share in days.items():
        with (covid / "snapshots" / f"metadata-{day}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows[: int(share * len(rows))]])
    return covid, directory / kermany.DIRECTORY


if __name__ == "__main__":
    begin(main)
