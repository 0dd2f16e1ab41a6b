"""Prints speeds as ratios to baselines, and in seconds what a user waits for: `make bench`.

It uses generated radiographs, so that it runs anywhere. `make bench COVID=… KERMANY=…` uses the real datasets
for the growing dataset, the lungs and the trainings; `make bench ONLY="serving frozen"` measures only those
sections.
Baselines and steps take turns, because a shared machine has slow minutes. Each figure is the median of its
turns, if they are short enough for several.
"""

import dataclasses
import logging
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import typer
from rich.console import Console

from bench import auditing
from bench.first import first
from bench.ingesting import growth, scale
from bench.margins import demo
from bench.serving import serving
from bench.startup import startup
from bench.stopping import stopping
from components.data import phantoms
from components.data.example_tables import SCHEMA
from components.data.facts import inspect
from components.data.ingest import ingest
from components.data.open_images import open_images
from components.data.write_records import write_records
from core.artifacts import RECORDS
from core.errors import UserError
from core.files import write_json
from core.labels import COVID, NORMAL
from training import architectures, data, gradcam, loop, surroundings
from training.precision import dtype_policy, processor
from training.recipes import Recipe, recipe_named

# For each label: about 500 training images.
PATIENTS = 120
# Phantoms are enlarged to this width for ingest: about the mean of Kermany's originals.
SIDE = 1400
# Enough for starting Beam's workers to take less than a tenth of the time.
OPENED = 32_000

ONE_PROCESS = ("--direct_running_mode=in_memory",)
TWO_WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def main(
    sections: Annotated[
        list[str] | None, typer.Argument(help="Sections to measure; by default all.")
    ] = None,
) -> None:
    logging.getLogger("cxrflow").setLevel(logging.ERROR)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="cxrflow-bench-") as scratch:
        home = Path(scratch)
        all_of_them: dict[str, tuple[str, Callable[[], Iterable[str]]]] = {
            "stopping": ("the end of what is interrupted", lambda: stopping(home / "stopping")),
            "startup": (
                "the cost of starting steps and commands",
                lambda: startup(home, *datasets(home)),
            ),
            "demo": (
                "the demo's trainings, with five seeds in two precisions",
                lambda: demo(home / "demo"),
            ),
            "opening": (f"ingest: opening {OPENED} images, three ways", lambda: opening(home)),
            "growth": ("a growing dataset", lambda: [growth(home, *real())]),
            "scale": ("a large dataset", lambda: scale(home)),
            "training": (
                "training, compared with bare Keras",
                lambda: trainings(make_records(home), home),
            ),
            "frozen": (
                "soares-vgg16: 80 epochs on kept features",
                lambda: frozen(make_records(home), home),
            ),
            "mixing": ("mixed surroundings, compared with the training that they feed", mixing),
            "precisions": (
                "bfloat16 compared with float32, if the processor has both",
                lambda: precisions(make_records(home), home),
            ),
            "memory": (
                "memory of a training, with four times the images",
                lambda: [memory(make_records(home), home)],
            ),
            "lungs": (
                "the lung segmenter",
                lambda: auditing.learning(
                    datasets(home)[0], home / "examples", make_records(home), home
                ),
            ),
            "audit": (
                "an audit, compared with the training of its candidate",
                lambda: auditing.cost(
                    datasets(home)[0], home / "examples", make_records(home), home
                ),
            ),
            "control": (
                "the rules of trust, for pneumonia in images of one source and age group",
                lambda: auditing.control(
                    *datasets(home), home / "examples", make_records(home), home
                ),
            ),
            "explaining": ("Grad-CAM: in a batch, compared with one call per image", explaining),
            "serving": (
                "coronet-4class: the server, compared with the bare model",
                lambda: serving(home),
            ),
            "first": (
                "the first commands, in a clone of the last commit and without uv's cache (needs a network)",
                lambda: first(home),
            ),
        }
        unknown = set(sections or ()) - set(all_of_them)
        if unknown:
            raise SystemExit(
                f"bench: unknown section {', '.join(unknown)}; choose from {', '.join(all_of_them)}"
            )
        console.print(
            f"{os.cpu_count()} cores of {processor_name()}; {dtype_policy()}; TensorFlow {tf.__version__}"
        )
        console.print("drawing phantoms")
        phantoms.write(home / "data", PATIENTS)
        for name in sections or all_of_them:
            title, measured = all_of_them[name]
            console.print(title)
            try:
                for figure in measured():
                    console.print(figure)
            except UserError as error:
                raise SystemExit(f"bench: {error}") from error


def processor_name() -> str:
    """Returns the processor's name, and which instructions for fast training it has."""
    words = processor()
    cpuinfo = Path("/proc/cpuinfo")
    described = cpuinfo.read_text() if cpuinfo.is_file() else ""
    name = re.search(r"model name\s*: (.*)", described)
    fast = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in words]
    return f"{name[1] if name else platform.machine()} ({', '.join(fast)})"


def trainings(records: Path, home: Path) -> Iterator[str]:
    """Yields the figures of a small and a large network."""
    for name, epochs, turns in (("cnn-dubey", 4, 3), ("coronet-4class", 2, 1)):
        yield name
        recipe = dataclasses.replace(recipe_named(name), epochs=epochs)
        yield from training(recipe, records, home, turns)


def real() -> list[Path | None]:
    """Returns the directories of the real datasets; None for those not in the environment."""
    return [Path(os.environ[name]) if name in os.environ else None for name in ("COVID", "KERMANY")]


def datasets(home: Path) -> tuple[Path, Path]:
    """Returns the directories of the real datasets, or those of the phantoms."""
    covid, kermany = real()
    if covid and kermany:
        return covid, kermany
    return home / "data/covid-chestxray-dataset", home / "data/chest_xray"


def opening(home: Path) -> list[str]:
    """Compares ingest with a bare loop that reads, decodes and hashes the same files."""
    directory = home / "large"
    directory.mkdir()
    random = np.random.default_rng(0)
    for number in range(60):
        image, _ = phantoms.draw_with_lungs(NORMAL, random)
        image.resize((SIDE, SIDE * image.height // image.width)).save(
            directory / f"{number}.jpeg", quality=90
        )
    files = sorted(directory.iterdir())
    paths = [files[i % len(files)].name for i in range(OPENED)]
    rows = pd.DataFrame({"source": "bench", "path": paths}).assign(id=lambda row: row["path"])

    def bare() -> None:
        for path in paths:
            inspect((directory / path).read_bytes())

    def beam(options: tuple[str, ...]) -> Callable[[], None]:
        def run() -> None:
            opened = open_images(rows, {"bench": directory}, SCHEMA, options, home / "opened")
            assert len(opened) == len(rows)

        return run

    before, one_process, between, two_workers, after = in_turns(
        1, bare, beam(ONE_PROCESS), bare, beam(TWO_WORKERS), bare
    )
    baseline = statistics.median((before, between, after))
    return [
        compared("ingest, one process, to a bare loop", one_process, baseline, OPENED, "0.80"),
        compared("ingest, two workers, to a bare loop", two_workers, baseline, OPENED, "1.40"),
    ]


def make_records(home: Path) -> Path:
    if (home / "records").is_dir():
        return home / "records"
    covid, kermany = datasets(home)
    ingest(covid, kermany, home / "examples")
    write_records(
        home / "examples", {"covid-chestxray": covid, "kermany": kermany}, home / "records"
    )
    return home / "records"


def training(recipe: Recipe, records: Path, home: Path, turns: int) -> list[str]:
    """Compares the input pipeline with the training that it feeds, and `train` with bare `keras.fit`."""
    manifest = data.read_manifest(records)
    counts = data.class_counts(manifest, recipe, ("train",))
    images, policy = sum(counts.values()), dtype_policy()
    steps = data.steps_per_epoch(images, recipe.batch)
    cache = Path(tempfile.mkdtemp(dir=home))
    weighted = {
        split: data.weighted(
            data.kept(data.pixels(records, manifest, recipe, (split,)), cache / split),
            data.image_weights(manifest, recipe, ("train",)),
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
        # The same number of full batches as in `ours`, so that both do the same arithmetic.
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


def frozen(records: Path, home: Path) -> list[str]:
    """Compares running a frozen base once per image with running it every epoch."""
    recipe = recipe_named("soares-vgg16")
    manifest = data.read_manifest(records)
    counts = data.class_counts(manifest, recipe, ("train",))
    images = sum(counts.values())
    weighted = data.weighted(
        data.kept(data.pixels(records, manifest, recipe, ("train",)), home / "frozen"),
        data.image_weights(manifest, recipe, ("train",)),
    )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy())
    model = architectures.build(recipe, "none", 0)
    keras.config.set_dtype_policy(before)
    model.compile(keras.optimizers.Adam(recipe.learning_rate), loop.loss_of(recipe))
    seconds = EpochSeconds()
    model.fit(weighted.batch(recipe.batch), epochs=2, verbose=0, callbacks=[seconds])
    through_base = seconds.all[1] * recipe.epochs

    def train(recipe: Recipe) -> float:
        began = time.monotonic()
        trained = loop.train(recipe, records, home / "features", weights="none")
        heads.append(float(trained.history["seconds"].sum()))
        return time.monotonic() - began

    heads: list[float] = []
    first = train(recipe)
    # With another learning rate, only the features of the first training can be reused.
    again = train(dataclasses.replace(recipe, learning_rate=2e-3))
    shown = images * recipe.epochs
    return [
        compared(
            "80 epochs on kept features, including their computation, to running the base every epoch "
            "(80 times the second of two epochs, without validation)",
            first, through_base, shown, "20",
        ),
        compared(
            "a whole training with features from the store, to its head's epochs alone",
            again, heads[-1], shown, "nearly 1",
        ),
    ]  # fmt: skip


def precisions(records: Path, home: Path) -> Iterator[str]:
    """Compares bfloat16 with float32: speed, and accuracy over three seeds."""
    if "avx512_bf16" not in processor():
        yield "        this processor has no bfloat16 instructions"
        return
    wanted = "> 1" if dtype_policy() == "mixed_bfloat16" else "under 1, because float32 is chosen"
    small, large = recipe_named("cnn-dubey"), recipe_named("coronet-4class")
    manifest = data.read_manifest(records)
    for recipe, seeds in (
        (dataclasses.replace(small, epochs=6), 3),
        (dataclasses.replace(large, epochs=2), 1),
        # At half its size, three seeds take an acceptable time.
        (dataclasses.replace(large, epochs=4, input_size=(75, 75)), 3),
    ):
        seconds: dict[str, list[float]] = {"float32": [], "mixed_bfloat16": []}
        accuracy: dict[str, list[float]] = {"float32": [], "mixed_bfloat16": []}
        for seed in range(seeds):
            for policy in seconds:
                trained = loop.train(
                    recipe, records, Path(tempfile.mkdtemp(dir=home)),
                    weights="none", seed=seed, precision=policy,
                )  # fmt: skip
                seconds[policy].append(float(trained.history["seconds"][1:].median()))
                accuracy[policy].append(float(trained.history["val_accuracy"].tail(3).mean()))
        images = sum(data.class_counts(manifest, recipe, ("train",)).values())
        side = "×".join(map(str, recipe.input_size))
        yield compared(
            f"{recipe.name} at {side}: training in bfloat16, to float32",
            statistics.median(seconds["mixed_bfloat16"]),
            statistics.median(seconds["float32"]),
            images,
            wanted,
        )
        if seeds > 1:
            yield _difference(accuracy["mixed_bfloat16"], accuracy["float32"])


def _difference(ours: list[float], baseline: list[float]) -> str:
    """Returns the accuracies of bfloat16 and float32 by seed, and their difference with its error."""
    differences = np.subtract(ours, baseline)
    noise = 2 * differences.std(ddof=1) / len(differences) ** 0.5
    listed = (", ".join(f"{100 * value:.1f}" for value in values) for values in (ours, baseline))
    return (
        "        validation accuracy of the last three epochs, by seed: {} %, with float32 {} %; the "
        "difference is {:+.1f} ± {:.1f} points (two standard errors)"
    ).format(*listed, 100 * differences.mean(), 100 * noise)


MEMORY = """
import sys, tempfile
from dataclasses import replace
from pathlib import Path
from training import data, loop
from training.recipes import recipe_named
data._KEPT_IN_MEMORY = 2**24
recipe = replace(recipe_named("cnn-dubey"), epochs=2)
loop.train(recipe, Path(sys.argv[1]), Path(tempfile.mkdtemp(dir=sys.argv[2])))
# Not from getrusage, whose value a process inherits from its parent.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""


def memory(records: Path, home: Path) -> str:
    """Compares a training's peak memory with four times the images to that with the images once.

    Only 16 MB of decoded images are kept in memory instead of 1 GB, so that both sets exceed it.
    """
    fourfold = home / "fourfold"
    fourfold.mkdir()
    manifest = data.read_manifest(records)
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            shutil.copy(records / shard["name"], fourfold)
        split["shards"] *= 4
        for counts in (split["labels"], *split["sources"].values()):
            counts |= {label: 4 * count for label, count in counts.items()}
    write_json(fourfold / RECORDS, manifest)
    once, four = (
        float(
            subprocess.check_output(
                [sys.executable, "-c", MEMORY, str(directory), str(home)],
                text=True,
                stderr=subprocess.DEVNULL,
            ).splitlines()[-1]
        )
        for directory in (records, fourfold)
    )
    return (
        f"[bold]{four / once:6.2f}[/]  {four:,.0f} MB at most, to {once:,.0f} MB (wanted: about 1)"
    )


def explaining() -> Iterator[str]:
    """Compares Grad-CAM in a batch with one call per image, as in tutorials."""
    for name in ("cnn-dubey", "coronet-4class", "soares-vgg16"):
        recipe = recipe_named(name)
        model = architectures.build(recipe, "none", 0)
        random = np.random.default_rng(0)
        images = random.uniform(0, 255, (32, *recipe.input_size, 1)).astype(np.float32)
        classes = np.zeros(32, np.int32)
        explain = tf.function(gradcam.explainer(model, recipe))
        eager = gradcam.explainer(model, recipe)
        base = tf.function(model.get_layer(architectures.BASE))
        explain(images, classes)
        base(images)

        def batch(explain=explain, images=images, classes=classes) -> None:
            explain(images, classes)

        def singly(explain=eager, images=images, classes=classes) -> None:
            for i in range(8):
                explain(images[i : i + 1], classes[i : i + 1])

        def forward(base=base, images=images) -> None:
            base(images)

        together, alone, limit = in_turns(3, batch, singly, forward)
        yield compared(
            f"{name}: Grad-CAM in a batch of 32, to one eager call per image",
            together, 4 * alone, 32, "5",
        )  # fmt: skip
        yield compared(
            f"{name}: Grad-CAM in a batch of 32, to its limit, one pass of the base",
            together, limit, 32, "nearly 1",
        )  # fmt: skip


def mixing() -> Iterator[str]:
    """Compares the mixing of a batch's surroundings with a step of the small network."""
    recipe = recipe_named("cnn-dubey")
    random = np.random.default_rng(0)
    classes = np.arange(recipe.batch) % 2
    drawn = [phantoms.draw_with_lungs((NORMAL, COVID)[of], random) for of in classes]
    pixels, masks = (
        tf.image.resize(np.stack([np.asarray(pair[side]) for pair in drawn])[..., None], recipe.input_size)
        for side in (0, 1)
    )  # fmt: skip
    masks = tf.cast(masks > 127, tf.float32)
    model = architectures.build(recipe, "none", 0)
    model.compile(keras.optimizers.Adam(recipe.learning_rate), loop.loss_of(recipe))
    mixed = tf.function(surroundings.mixed)
    for what, shown, of_shown in (
        ("whole images", pixels, masks),
        ("lungs alone", tf.where(masks > 0, tf.maximum(pixels, 1.0), 0.0), None),
    ):

        def mix(shown=shown, of_shown=of_shown) -> None:
            mixed(shown, of_shown, classes, tf.constant([0, 1]))

        def step(shown=shown) -> None:
            model.train_on_batch(shown, classes)

        mix()
        step()
        yield compared(
            f"{recipe.name}, {what}: mixing, to a step of the training",
            *in_turns(9, mix, step),
            recipe.batch,
            "> 1",
        )


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
    """Returns the median seconds of each function; each runs once per turn."""
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
    typer.run(main)
