"""Phantoms: synthetic radiographs in the layouts of the two published datasets, with their irregularities.

They are for tests, and for a first run without the datasets. They are similar enough to chest X-rays to
exercise every step; a model's results on them say nothing about patients.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.data.sources import covid_chestxray, kermany
from core.errors import UserError
from core.files import write_aside, write_text
from core.labels import BACTERIAL, COVID, NORMAL, VIRAL
from core.progress import Progress

# A file in both directories; every page of a run on them then says that its images are phantoms.
MARKER = "PHANTOMS.txt"

# The metadata's columns as of June 2020; the last one has no name.
_COLUMNS = (
    "patientid,offset,sex,age,finding,survival,view,modality,date,location,folder,filename,doi,url,"
    "license,clinical_notes,other_notes,"
).split(",")
_COVID_FINDINGS = ("COVID-19", "COVID-19, ARDS", "Pneumonia/Viral/COVID-19")
_VIEWS = ("PA", "AP", "AP Supine", "AP semi erect")
_HEIGHT, _WIDTH = 288, 320
_RIBS = 9


def draw_with_lungs(label: str, random: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Draws the radiograph of a random patient, and the mask of its lungs.

    Args:
      label: one of `core.labels.LABELS`. It decides the sign in the lungs: none (normal); scattered
        peripheral patches in the lower parts of both (covid); a dense lobe (bacterial); streaks around both
        hila (viral).
      random: determines build, posture, exposure, collimation and noise.

    Returns:
      the radiograph, 8-bit grey, 320 x 288 pixels; and the mask, of the same form: 255 in the lungs, 0
      elsewhere.
    """
    # float32 takes half as long. Scalars are Python's, because NumPy's would turn the arrays into float64.
    down, across = (np.linspace(-1, 1, side, dtype=np.float32) for side in (_HEIGHT, _WIDTH))
    y, x = np.meshgrid(down, across, indexing="ij")
    tilt, stretch = random.normal(0, 0.05), random.uniform(0.88, 1.1, 2).tolist()
    x, y = x - random.normal(0, 0.05), y - random.normal(0, 0.05)
    cosine, sine = math.cos(tilt), math.sin(tilt)
    x, y = x * cosine + y * sine, y * cosine - x * sine
    x, y = x / stretch[0], y / stretch[1]

    left, right = (_lung(x, y, side, random) for side in (-1.0, 1.0))
    lungs = np.maximum(left, right)
    outward = np.abs(x) / random.uniform(0.85, 1.0)
    body = _soft(1.0 - outward * outward**2 - np.clip(-y - 0.75, 0, 1) * x**2 * 6)
    density = 0.56 * body - random.uniform(0.34, 0.42) * lungs
    density += _skeleton(x, y, random) * body
    heart = ((x - random.uniform(0.08, 0.2)) / random.uniform(0.26, 0.4)) ** 2
    heart += ((y - random.uniform(0.28, 0.42)) / random.uniform(0.26, 0.38)) ** 2
    heart = _soft(1.0 - heart)
    density = np.maximum(density, random.uniform(0.6, 0.7) * heart)
    lungs = lungs * (1 - heart)
    density += lungs * 0.09 * np.abs(_texture(random, 4.0)) * np.exp(-np.abs(np.abs(x) - 0.2) * 3)
    if label in _SIGNS:
        density += lungs * _SIGNS[label](x, y, left, right, random)
    density += 0.05 * _texture(random, 80.0) + 0.045 * _texture(random, 32.0)

    exposed = np.clip(density * random.uniform(0.95, 1.25) + random.uniform(-0.02, 0.1), 0, 1)
    pixels = 255 * exposed ** random.uniform(0.8, 1.25) + random.normal(0, 4, exposed.shape)
    margins = random.integers(0, 14, 4)  # collimation leaves an unexposed frame
    frame = np.zeros(pixels.shape)
    frame[margins[0] : _HEIGHT - margins[1], margins[2] : _WIDTH - margins[3]] = 1
    radiograph = Image.fromarray(np.clip(pixels * frame, 0, 255).astype(np.uint8))
    return radiograph, Image.fromarray(((lungs * frame > 0.5) * 255).astype(np.uint8))


def _lung(x: np.ndarray, y: np.ndarray, side: float, random: np.random.Generator) -> np.ndarray:
    centre = side * random.uniform(0.4, 0.47)
    inside = 1.0 - ((x - centre) / random.uniform(0.28, 0.36)) ** 2
    inside -= np.abs((y + 0.08) / random.uniform(0.62, 0.78)) ** 2.6
    diaphragm = random.uniform(0.42, 0.62) - 0.22 * np.cos((x - centre) * 4.2) + 0.2
    return np.asarray(_soft(inside) * _soft((diaphragm - y) * 3))


def _skeleton(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    spine = 0.2 * np.exp(-((x / 0.085) ** 2)) * (1 + 0.25 * np.sin(y * random.uniform(26, 34)))
    spacing, start = random.uniform(0.15, 0.2), random.uniform(-0.95, -0.8)
    aside = np.abs(x)
    # Ribs are so far apart that only the nearest one affects a pixel.
    place = (y - start - 0.55 * (aside - 0.35) ** 2 + 0.12 * aside) / spacing
    away = (place - np.clip(np.rint(place), 0, _RIBS - 1)) * spacing
    bones = spine + 0.085 * np.exp(-((away / 0.022) ** 2)) * _soft((aside - 0.1) * 8)
    clavicle = -0.74 - random.uniform(0.05, 0.22) * aside + 0.04 * np.sin(aside * 5)
    bones += 0.16 * np.exp(-(((y - clavicle) / 0.03) ** 2)) * (aside > 0.1)
    return np.asarray(bones)


def _patches(
    x: np.ndarray, y: np.ndarray, left: np.ndarray, right: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    shade = np.zeros_like(x)
    for side in (-1, 1):
        for _ in range(random.integers(3, 6)):
            away = ((x - side * random.uniform(0.45, 0.7)) / random.uniform(0.14, 0.24)) ** 2
            away += ((y - random.uniform(-0.05, 0.5)) / random.uniform(0.14, 0.24)) ** 2
            shade = np.maximum(shade, random.uniform(0.3, 0.42) * np.exp(-away))
    return shade * (1 + 0.25 * _texture(random, 6.0))


def _lobe(
    x: np.ndarray, y: np.ndarray, left: np.ndarray, right: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    lung = (left, right)[random.integers(2)]
    fissure = (y - random.uniform(-0.2, 0.05) + random.uniform(-0.3, 0.3) * x) * 8
    lobe = _soft(fissure if random.random() < 0.6 else -fissure - 1.0)
    return np.asarray(lung * lobe * random.uniform(0.3, 0.38) * (1 + 0.1 * _texture(random, 12.0)))


def _streaks(
    x: np.ndarray, y: np.ndarray, left: np.ndarray, right: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    ridges = np.exp(-np.abs(_texture(random, 5.0)) * 3.5)
    from_hila = np.exp(-(((np.abs(x) - 0.3) / 0.3) ** 2) - ((y / 0.6) ** 2))
    return np.asarray(random.uniform(0.3, 0.4) * ridges * from_hila)


_SIGNS: dict[str, Callable[..., Any]] = {
    COVID: _patches,
    BACTERIAL: _lobe,
    VIRAL: _streaks,
}


def _soft(value: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-12 * np.clip(value, -4, 4))))


def _texture(random: np.random.Generator, grain: float) -> np.ndarray:
    """Returns smooth noise of unit variance; `grain` is its scale in pixels."""
    coarse = random.standard_normal((int(_HEIGHT / grain) + 2, int(_WIDTH / grain) + 2))
    drawn = Image.fromarray(coarse.astype(np.float32))
    noise = np.asarray(drawn.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC))
    return np.asarray(noise / noise.std())


@dataclass(frozen=True, kw_only=True)
class _Study:
    """A row of the metadata that `_covid_source` writes, and the format of its file."""

    patient: str
    finding: str
    view: str = "PA"
    modality: str = "X-ray"
    label: str | None = None
    store: str = "PNG"


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """A radiograph to draw; the same seed gives the same picture in any order.

    Attributes:
      file: to write, in the format `store`.
      mask: the file to write the mask of the lungs to; or None.
    """

    label: str
    seed: np.random.SeedSequence
    file: Path
    store: str = "JPEG"
    mask: Path | None = None


def write(output: Path, patients: int = 60, seed: int = 0) -> None:
    """Writes phantoms in the layouts of both datasets.

    Args:
      output: the directory to create, with `covid-chestxray-dataset/` and `chest_xray/`. Like the datasets,
        they have irregularities: several images of a patient, a patient with two ids, lateral views, CT
        slices, findings of other causes or of none, files that are missing, that no row or two rows name,
        that have a wrong ending, that are in 16 bits or RGBA, and files that cannot be used.
      patients: of each label, at least 10 (fewer cannot be split).
      seed: the same seed gives the same phantoms, on any number of cores.

    Raises:
      UserError: `output` exists, or `patients` is too small.
    """
    if patients < 10:
        raise UserError(
            f"sample data: at least 10 patients of each label are needed, not {patients}"
        )
    if output.exists():
        raise UserError(
            f"sample data: {output} exists already; remove it or choose another directory"
        )
    covid, others = np.random.SeedSequence(seed).spawn(2)
    with write_aside(output) as aside:
        drawings = _covid_source(aside / covid_chestxray.DIRECTORY, patients, covid)
        drawings += _kermany_source(aside / kermany.DIRECTORY, patients, others)
        # Threads, because NumPy and Pillow do most of the work without the interpreter's lock.
        pool = ThreadPoolExecutor(os.cpu_count())
        with Progress("radiographs drawn", len(drawings)) as progress:
            try:
                for _ in pool.map(_draw, drawings):
                    progress.advance()
            finally:  # the rest is not drawn after an error or an interrupt
                pool.shutdown(cancel_futures=True)
        for directory in (covid_chestxray.DIRECTORY, kermany.DIRECTORY):
            write_text(aside / directory / MARKER, "Drawn by cxrflow. These are not radiographs.\n")


def _draw(drawing: _Drawing) -> None:
    radiograph, lungs = draw_with_lungs(drawing.label, np.random.default_rng(drawing.seed))
    drawing.file.write_bytes(_encoded(radiograph, drawing.store))
    if drawing.mask:
        lungs.save(drawing.mask)


def _covid_source(directory: Path, patients: int, seed: np.random.SeedSequence) -> list[_Drawing]:
    """Writes the first dataset without its radiographs; returns those to draw."""
    random = np.random.default_rng(seed)
    images, masks = directory / "images", directory / covid_chestxray.MASKS
    for folder in (images, masks):
        folder.mkdir(parents=True)
    rows, drawings = [], []
    for number, study in enumerate(_studies(patients, random)):
        suffix = "jpg" if study.store == "JPEG" else "png"  # also for WebP
        name = f"phantom-{number:04d}.{suffix}"
        if study.label:
            drawings.append(
                _Drawing(
                    label=study.label,
                    seed=seed.spawn(1)[0],
                    file=images / name,
                    store=study.store,
                    mask=masks / f"{Path(name).stem}_mask.png",
                )
            )
        rows.append(
            {
                "patientid": study.patient,
                "offset": str(random.integers(-1, 20)) if random.random() < 0.6 else "",
                "sex": random.choice(["M", "F", ""], p=[0.5, 0.4, 0.1]),
                "age": str(random.integers(20, 90)) if random.random() < 0.8 else "",
                "finding": study.finding,
                "view": study.view,
                "modality": study.modality,
                "folder": "volumes" if study.modality == "CT" else "images",
                "filename": name,
                "url": f"https://www.place-{number // 2:03d}.example/case",
                "license": "CC0",
                "clinical_notes": 'Drawn, "not taken", of nobody',
            }
        )
    rows.append(rows[0])  # a file that two rows name
    for name, content in _unusable().items():
        (images / name).write_bytes(content)
        rows.append({**rows[0], "patientid": name, "filename": name})
    # The same picture with another patient's id, encoded again so that its bytes differ.
    twin = images / "phantom-twin.jpg"
    drawings.append(replace(drawings[1], file=twin, store="JPEG", mask=None))
    rows.append({**rows[1], "patientid": "twin", "filename": "phantom-twin.jpg"})
    unnamed = images / "phantom-unnamed.png"
    drawings.append(_Drawing(label=COVID, seed=seed.spawn(1)[0], file=unnamed, store="PNG"))
    with (directory / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return drawings


def _studies(patients: int, random: np.random.Generator) -> Iterator[_Study]:
    stores = ("PNG", "JPEG", "WEBP", "RGBA", "16 bits")
    for number in range(patients):
        for _ in range(2 if number % 5 == 0 else 1):
            yield _Study(
                patient=str(number),
                finding=_COVID_FINDINGS[number % len(_COVID_FINDINGS)],
                view=str(random.choice(_VIEWS)),
                label=COVID,
                store=stores[number % 7] if number % 7 < len(stores) else "JPEG",
            )
    for number, finding in enumerate(
        ("SARS", "Pneumonia/Viral/MERS-CoV", "Streptococcus", "Pneumonia/Bacterial/Klebsiella")
    ):
        label = VIRAL if number < 2 else BACTERIAL
        yield _Study(patient=f"other-{number}", finding=finding, label=label, store="JPEG")
    yield _Study(patient="healthy", finding="No Finding", label=NORMAL)
    for finding in ("todo", "Unknown", "Pneumocystis", "Pneumonia/Fungal/Aspergillosis", "Lipoid"):
        yield _Study(patient=f"dropped-{finding}", finding=finding, label=NORMAL)
    yield _Study(patient="lateral", finding="COVID-19", view="L", label=COVID)
    yield _Study(patient="ct", finding="COVID-19", view="Axial", modality="CT")
    yield _Study(patient="absent", finding="COVID-19")


def _unusable() -> dict[str, bytes]:
    picture = io.BytesIO()
    Image.new("L", (640, 640), 128).save(picture, "JPEG")
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    return {
        "phantom-empty.png": b"",
        "phantom-truncated.jpg": picture.getvalue()[:-400],
        "phantom-text.jpg": b"<html>404 Not Found</html>",
        "phantom-bomb.png": bomb.getvalue(),
    }


def _kermany_source(directory: Path, patients: int, seed: np.random.SeedSequence) -> list[_Drawing]:
    """Creates the directories of the second dataset; returns its radiographs to draw."""
    drawings = []
    folders = ("train",) * 7 + ("val",) + ("test",) * 2
    for number in range(patients):
        names = {
            NORMAL: f"NORMAL/{'NORMAL2-' if number % 2 else ''}IM-{number:04d}-{{:04d}}.jpeg",
            BACTERIAL: f"PNEUMONIA/person{number}_bacteria_{{}}.jpeg",
            VIRAL: f"PNEUMONIA/person{patients + number}_virus_{{}}.jpeg",
        }
        for label, name in names.items():
            for image in range(2 if number % 4 == 0 else 1):
                # As in the dataset, images of one patient are in different folders.
                file = (
                    directory
                    / folders[(number + 5 * image) % len(folders)]
                    / name.format(image + 1)
                )
                file.parent.mkdir(parents=True, exist_ok=True)
                drawings.append(_Drawing(label=label, seed=seed.spawn(1)[0], file=file))
    (directory / "train" / "NORMAL" / ".DS_Store").write_bytes(b"\0")
    return drawings


def _encoded(image: Image.Image, store: str) -> bytes:
    buffer = io.BytesIO()
    if store == "16 bits":
        deep = np.asarray(image).astype(np.uint16) * 257
        Image.fromarray(deep).save(buffer, "PNG")
    elif store == "RGBA":
        image.convert("RGBA").save(buffer, "PNG")
    else:
        image.save(buffer, store, quality=92)
    return buffer.getvalue()
