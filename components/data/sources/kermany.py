"""Chest X-ray images of children, Guangzhou: normal, bacterial and viral pneumonia.

Kermany, Zhang, Goldbaum: "Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for
Classification", Mendeley Data, doi:10.17632/rscbjbr9sj.2 (CC BY 4.0); also distributed as
"Chest X-Ray Images (Pneumonia)". Anterior-posterior views of patients one to five years old.

The user provides the directory that holds `train`, `test` and `val`, each with `NORMAL` and
`PNEUMONIA`. The file name has the patient and, for a pneumonia, its cause: `person<N>_bacteria_<i>`,
`person<N>_virus_<i>`, `IM-<N>-<i>`, `NORMAL2-IM-<N>-<i>`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from components.data.sources import Row
from core.errors import UserError
from core.labels import BACTERIAL, NORMAL, VIRAL
from core.locations import require_utf_8

NAME = "kermany"
DIRECTORY = "chest_xray"
WHERE_TO_GET_IT = "https://data.mendeley.com/datasets/rscbjbr9sj/2 (ChestXRay2017.zip)"

_PNEUMONIA = re.compile(r"(person\d+)_(bacteria|virus)_")
_NORMAL = re.compile(r"((?:NORMAL2-)?IM-\d+)-")
_CAUSES = {"bacteria": BACTERIAL, "virus": VIRAL}


def read(directory: Path) -> Iterator[Row]:
    """Yields a row for every file in the class folders, in sorted order.

    If a file's name does not follow the dataset's pattern, its patient and cause are unknown, and `excluded`
    says so.

    Raises:
      UserError: the directory is missing or has none of the class folders, or a name is not UTF-8.
    """
    for folder in class_folders(directory):
        files = sorted(folder.iterdir())
        require_utf_8(directory, (file.name for file in files))
        for file in files:
            if file.is_file() and not file.name.startswith("."):
                yield _row(file, directory)


def class_folders(directory: Path) -> list[Path]:
    """Returns the dataset's class folders that exist.

    Raises:
      UserError: there are none.
    """
    folders = [
        directory / split / finding
        for split in ("train", "val", "test")
        for finding in ("NORMAL", "PNEUMONIA")
    ]
    present = [folder for folder in folders if folder.is_dir()]
    if not present:
        raise UserError(
            f"kermany: looked for train/NORMAL, train/PNEUMONIA and the like in {directory}, found "
            f"none of them. Get the dataset from {WHERE_TO_GET_IT} and give the directory that holds "
            "'train'."
        )
    return present


def _row(file: Path, directory: Path) -> Row:
    finding, split = file.parent.name, file.parent.parent.name
    path = file.relative_to(directory).as_posix()
    match = (_NORMAL if finding == "NORMAL" else _PNEUMONIA).match(file.name)
    label = None
    if match:
        label = NORMAL if finding == "NORMAL" else _CAUSES[match[2]]
    return Row(
        source=NAME,
        path=path,
        finding=finding,
        label=label,
        excluded="" if match else "file name does not say the patient and the cause",
        patient=f"{NAME}/{match[1] if match else path}",
        view="AP",
        folder_split=split,
    )
