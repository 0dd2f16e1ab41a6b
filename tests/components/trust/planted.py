"""Generated data in which something other than the lungs may tell the class, and models of them."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from components.data.phantoms import draw_with_lungs
from components.data.write_records import write_records
from core.labels import COVID

# Of each class; as many as a small network needs to learn the sign in the lungs.
OF_EACH = {"train": 105, "validation": 15, "test": 40}
# Every so many images of a class come from the other source. In training none do: the source tells the class.
CROSSING = {"validation": 5, "test": 4}
SOURCES = ("covid-chestxray", "clinic")

Change = Callable[[Image.Image, str, str], Image.Image]


def clean(image: Image.Image, label: str, source: str) -> Image.Image:
    return image


def marker(image: Image.Image, label: str, source: str) -> Image.Image:
    if label == COVID:
        image = image.copy()
        image.paste(255, (6, 6, 86, 66))
    return image


def brightness(image: Image.Image, label: str, source: str) -> Image.Image:
    least = 120 if source == SOURCES[0] else 0
    return image.point(lambda value: least + value // 2)


def frame(image: Image.Image, label: str, source: str) -> Image.Image:
    if label == COVID:
        inner = image.crop((24, 24, image.width - 24, image.height - 24))
        return ImageOps.expand(inner, 24, fill=200)
    return image


@functools.cache
def _drawn(seed: int) -> list[Image.Image]:
    """Returns as many radiographs as `write` needs, with covid and normal in turn."""
    random = np.random.default_rng(seed)
    labels = (COVID, "normal") * sum(OF_EACH.values())
    return [draw_with_lungs(label, random)[0] for label in labels]


def write(home: Path, change: Change, seed: int = 1) -> None:
    """Writes examples and records of adults, mostly with covid in one source and normal in the other."""
    drawn = iter(_drawn(seed))
    rows, sources = [], {source: home / source for source in SOURCES}
    for directory in sources.values():
        directory.mkdir(parents=True)
    for split, count in OF_EACH.items():
        for number in range(2 * count):
            label = (COVID, "normal")[number % 2]
            crosses = split in CROSSING and number // 2 % CROSSING[split] == 0
            source = SOURCES[(label == COVID) == crosses]
            name = f"{split}-{number:04d}.png"
            picture = change(next(drawn), label, source)
            # Hardly compressed, which takes a third of the time.
            picture.save(sources[source] / name, compress_level=1)
            content = (sources[source] / name).read_bytes()
            rows.append(
                {
                    "id": f"{source}/{name}", "source": source, "path": name, "label": label,
                    "patient": f"{source}/{name}", "sha256": hashlib.sha256(content).hexdigest(),
                    "perceptual_hash": np.random.default_rng([seed, len(rows)]).bytes(32).hex(),
                    "view": "PA", "origin": "", "sex": "MF"[number // 2 % 2], "age": 50.0, "folder_split": "",
                    "span": 1, "split": split,
                }
            )  # fmt: skip
    (home / "examples").mkdir()
    pd.DataFrame(rows).to_parquet(home / "examples" / "examples.parquet")
    summary = {"fingerprint": home.name, "phantoms": True, "span": None, "seed": 0, "folds": 0}
    (home / "examples" / "summary.json").write_text(json.dumps(summary))
    write_records(home / "examples", sources, home / "records")
