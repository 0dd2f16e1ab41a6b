"""Prints the distances between the perceptual hashes of a dataset's images; see docs/data.md."""

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from components.data import splits
from components.data.ingest import ingest
from core.artifacts import EXAMPLES
from core.tables import read_table

FARTHEST = 64


def main(covid: Annotated[Path, typer.Option()], kermany: Annotated[Path, typer.Option()]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        ingest(covid, kermany, Path(scratch, "examples"))
        examples = read_table(Path(scratch, "examples", EXAMPLES))
    splits.NEAR_DUPLICATE_BITS = FARTHEST
    pairs = splits.near_duplicates(examples["perceptual_hash"])
    numbers = [int(text, 16) for text in examples["perceptual_hash"]]
    distance = np.array([(numbers[i] ^ numbers[j]).bit_count() for i, j in pairs])
    patient = examples["patient"].to_numpy()
    same = patient[pairs[:, 0]] == patient[pairs[:, 1]]
    table = Table(
        "bits apart",
        "pairs of one patient",
        "pairs of two patients",
        title=f"{len(examples)} images",
    )
    for low in range(0, FARTHEST, 4):
        here = (distance >= low) & (distance < low + 4)
        table.add_row(f"{low} to {low + 3}", str((here & same).sum()), str((here & ~same).sum()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
