"""Prints every ratio: `make bench`.

On generated radiographs, so that it runs anywhere. Baselines and steps take turns, because a machine
that others use has slow minutes; each figure is the median of its turns.
"""

import dataclasses
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from components import phantoms
from components.files import read_json, write_json
from components.images import inspect
from components.ingest import SCHEMA, ingest
from components.labels import NORMAL
from components.open_images import open_images
from components.sources import Row
from components.write_records import write_records
from training import architectures, data, loop
from training.precision import dtype_policy
from training.recipes import Recipe, recipe_named

PATIENTS = 60
# For training, as if there were so many times as many.
TIMES = 3
# The width that phantoms are enlarged to for ingest: about the mean of Kermany's originals.
SIDE = 1400
# So many that starting Beam's workers is under a tenth of the time.
OPENED = 32_000

ONE_PROCESS = ("--direct_running_mode=in_memory",)
TWO_WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def main() -> None:
    logging.getLogger("cxrflow").setLevel(logging.WARNING)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="cxrflow-bench-") as scratch:
        home = Path(scratch)
        console.print(
            f"{os.cpu_count()} cores, policy {dtype_policy()}, TensorFlow {tf.__version__}"
        )
        console.print("drawing phantoms")
        phantoms.write(home / "data", PATIENTS)
        console.print(f"ingest: opening {OPENED} images, three ways")
        console.print(*opening(home), sep="\n")
        records = make_records(home)
        for name, epochs, turns in (("cnn-dubey", 5, 3), ("coronet-4class", 2, 1)):
            recipe = dataclasses.replace(recipe_named(name), epochs=epochs)
            console.print(f"{name}: training, ours and bare Keras in turns")
            console.print(*training(recipe, records, home, turns), sep="\n")


def opening(home: Path) -> list[str]:
    """Returns ingest's speed against a bare loop that reads, decodes and hashes the same files."""
    directory = home / "large"
    directory.mkdir()
    random = np.random.default_rng(0)
    for number in range(60):
        image = phantoms.draw(NORMAL, random)
        image.resize((SIDE, SIDE * image.height // image.width)).save(
            directory / f"{number}.jpeg", quality=90
        )
    files = sorted(directory.iterdir())
    rows = [
        Row(source="bench", path=files[i % len(files)].name, finding="", label=NORMAL, patient="")
        for i in range(OPENED)
    ]

    def bare() -> None:
        for row in rows:
            inspect((directory / row.path).read_bytes())

    def beam(options: tuple[str, ...]) -> Callable[[], None]:
        def run() -> None:
            opened = open_images(rows, {"bench": directory}, SCHEMA, options, home / "opened")
            assert len(opened) == len(rows)

        return run

    baseline, one, two = in_turns(1, bare, beam(ONE_PROCESS), beam(TWO_WORKERS))
    return [
        compared("ingest, one process, to a bare loop", one, baseline, OPENED, "0.80"),
        compared("ingest, two workers, to a bare loop", two, baseline, OPENED, "1.40"),
    ]


def make_records(home: Path) -> Path:
    covid, kermany = home / "data/covid-chestxray-dataset", home / "data/chest_xray"
    ingest(covid, kermany, home / "examples")
    write_records(
        home / "examples", {"covid-chestxray": covid, "kermany": kermany}, home / "records"
    )
    manifest = read_json(home / "records" / data.MANIFEST)
    for split in manifest["splits"].values():
        split["shards"] *= TIMES
        split["labels"] = {label: TIMES * count for label, count in split["labels"].items()}
    write_json(home / "records" / data.MANIFEST, manifest)
    return home / "records"


def training(recipe: Recipe, records: Path, home: Path, turns: int) -> list[str]:
    """Returns the input's speed against the step it feeds, and `train` against bare `keras.fit`."""
    manifest = data.read_manifest(records)
    counts = data.class_counts(manifest, recipe, "train")
    images, policy = sum(counts.values()), dtype_policy()
    steps = data.steps_per_epoch(images, recipe.batch)
    cache = Path(tempfile.mkdtemp(dir=home))
    weighted = {
        split: data.weighted(
            data.inputs(records, manifest, recipe, split, cache), data.class_weights(counts)
        )
        for split in ("train", "validation")
    }

    def ours() -> float:
        checkpoints = Path(tempfile.mkdtemp(dir=home))
        trained = loop.train(recipe, records, checkpoints, weights="none")
        return float(trained.history["seconds"][1:].median())

    def bare() -> float:
        (x, y, w), held_out = (
            tuple(map(np.array, zip(*weighted[split].as_numpy_iterator(), strict=True)))
            for split in ("train", "validation")
        )
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        model = architectures.build(recipe, "none", 0)
        keras.config.set_dtype_policy(before)
        model.compile(
            keras.optimizers.Adam(recipe.learning_rate),
            loop.loss_of(recipe),
            weighted_metrics=["accuracy"],
        )
        seconds = EpochSeconds()
        # As many whole batches as ours has, so that both do the same arithmetic.
        fill = np.resize(np.arange(images), steps * recipe.batch)
        model.fit(
            x[fill], y[fill], recipe.batch, recipe.epochs, verbose=0, sample_weight=w[fill],
            validation_data=held_out, callbacks=[seconds],
        )  # fmt: skip
        return statistics.median(seconds.all[1:])

    ours_seconds, bare_seconds = [], []
    for _ in range(turns):
        bare_seconds.append(bare())
        ours_seconds.append(ours())
    epoch, baseline = statistics.median(ours_seconds), statistics.median(bare_seconds)

    def read() -> None:
        batches = data.training_batches(
            weighted["train"], images, recipe.batch, first_epoch=0, epochs=4, seed=0
        )
        for _ in batches:
            pass

    (reading,) = in_turns(3, read)
    return [
        compared(
            f"{recipe.name}: input alone, to the training it feeds",
            reading / 4,
            epoch,
            images,
            "> 1",
        ),
        compared(
            f"{recipe.name}: train, to bare keras.fit in memory", epoch, baseline, images, "0.95"
        ),
    ]


class EpochSeconds(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[float] = []

    def on_train_begin(self, logs=None) -> None:
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None) -> None:
        began, self._began = self._began, time.monotonic()
        self.all.append(self._began - began)


def in_turns(turns: int, *works: Callable[[], None]) -> list[float]:
    """Returns the median seconds of each work, after turns in which each is done once."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(turns):
        for work, of_work in zip(works, seconds, strict=True):
            began = time.monotonic()
            work()
            of_work.append(time.monotonic() - began)
    return [statistics.median(of_work) for of_work in seconds]


def compared(what: str, seconds: float, baseline: float, images: int, wanted: str) -> str:
    return (
        f"[bold]{baseline / seconds:6.2f}[/]  {what}: {images / seconds:,.0f} images/s to "
        f"{images / baseline:,.0f} (wanted: {wanted})"
    )


if __name__ == "__main__":
    main()
