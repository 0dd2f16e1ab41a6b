"""Runs every published system on real X-rays and writes docs/results.md.

    python -m bench.results --covid DIR --kermany DIR --output DIR

Takes hours. If interrupted, run it again: it resumes and skips what is done.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from core.files import write_text

PAGE = Path(__file__).parents[1] / "docs" / "results.md"


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base to pretrain: a recipe, the number of epochs, the side of the images in pixels."""

    recipe: str
    epochs: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """A reproduction.

    Attributes:
      recipes: names, separated by commas.
      epochs: None for the paper's.
      bases: the directory of pretrained bases below the output; None to train from scratch.
      reading: our interpretation of the results.
      accuracies: in per cent, one per recipe, of the results that `reading` interprets; it is left out
        if they differ.
    """

    recipes: str
    epochs: int | None = None
    bases: str | None = "bases"
    reading: str
    accuracies: tuple[float, ...]

    @property
    def name(self) -> str:
        start = "pretrained" if self.bases else "scratch"
        return f"{self.recipes.replace(',', '+')}-{start}"


BASES = {
    "bases/xception": Base(recipe="coronet-4class", epochs=6, size=150),
    "bases/vgg16": Base(recipe="soares-vgg16", epochs=5, size=112),
    "bases/resnet50": Base(recipe="soares-resnet", epochs=6, size=112),
    "bases-for-folds": Base(recipe="resnet50-10fold", epochs=6, size=112),
}
SOARES = "soares-xception,soares-resnet,soares-vgg16"
RUNS = (
    Run(
        recipes=SOARES,
        reading="Below the paper. Its bases were trained on 1.3 million photographs, ours on 1,081 "
        "radiographs for five or six epochs; Xception's base, which learnt the most, gives the best results. "
        "ResNet's head has not converged: in its last twelve epochs validation accuracy varies between 69 "
        "and 89 %, and the model of the last epoch, which the protocol uses, classifies a third of COVID as "
        "normal.",
        accuracies=(88.0, 75.2, 79.5),
    ),
    Run(
        recipes="cnn-dubey",
        bases=None,
        reading="Close to the paper, on patients outside the training data. That such a small network does "
        "so well on so few images shows how easy it is to tell the two sources apart.",
        accuracies=(95.8,),
    ),
    Run(
        recipes="resnet50-10fold",
        bases="bases-for-folds",
        reading="Below the paper, which split 147 images at random. The folds range from 88 to 96 %: "
        "each uses the model of its last epoch, as the protocol requires, while validation accuracy "
        "still changes by some points from one epoch to the next.",
        accuracies=(92.1,),
    ),
    Run(
        recipes="coronet-4class",
        epochs=6,
        reading="6 epochs of 80, but the network already overfits: validation accuracy no longer rises, and "
        "validation loss does. Its base has already seen the training images that are Kermany's. More than "
        "half of the errors confuse bacterial and viral, which is also the hardest pair in the paper.",
        accuracies=(74.5,),
    ),
    Run(
        recipes="coronet-3class",
        epochs=3,
        reading="3 epochs of 80, of which the first has the best validation accuracy. The most common error "
        "is pneumonia classified as COVID: 20 of 210 images.",
        accuracies=(87.5,),
    ),
    Run(
        recipes="coronet-2class",
        epochs=3,
        reading="Below the paper: the last of 3 epochs, which the protocol uses, is the worst on the "
        "validation images. It classifies 19 of 210 pneumonias as COVID.",
        accuracies=(90.9,),
    ),
    Run(
        recipes="soares-xception",
        bases=None,
        reading="The frozen base is untrained, so its features are those of random filters. The first row "
        "has the same head on a pretrained base.",
        accuracies=(39.0,),
    ),
    Run(
        recipes="coronet-4class",
        epochs=6,
        bases=None,
        reading="After 6 epochs, the accuracy is within the interval of the pretrained network. For a "
        "network that trains all its layers, a base of 1,081 radiographs saves about four epochs (see above) "
        "and hardly more. Unlike the pretrained network, it classifies most bacterial images as viral.",
        accuracies=(71.5,),
    ),
)


def main(
    covid: Annotated[Path, typer.Option()],
    kermany: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option(help="Where runs, bases and figures are kept.")],
) -> None:
    sources = ["--covid", str(covid), "--kermany", str(kermany), "--output", str(output)]
    for target, base in BASES.items():
        if not (output / target).exists():
            options = ["--target", str(output / target)]
            options += ["--epochs", str(base.epochs), "--size", str(base.size)]
            cxrflow("pretrain", base.recipe, *sources, *options)
    told = []
    for run in RUNS:
        kept = output / f"{run.name}.json"
        if not kept.exists():
            weights = str(output / run.bases) if run.bases else "none"
            epochs = ["--epochs", str(run.epochs)] if run.epochs else []
            cxrflow("reproduce", run.recipes, *sources, "--weights", weights, *epochs)
            for ending in ("json", "html"):
                made = output / f"{run.recipes.replace(',', '+')}.{ending}"
                made.rename(output / f"{run.name}.{ending}")
        told.append((run, json.loads(kept.read_text())))
    write_text(PAGE, page(told))
    print(f"wrote {PAGE}")


def cxrflow(*arguments: str) -> None:
    print("cxrflow", *arguments, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("cxrflow")), *arguments], check=True)


def page(told: list[tuple[Run, dict[str, Any]]]) -> str:
    data = told[0][1]["data"]
    counts: dict[str, int] = {}
    for row in data["by_source"]:
        counts[row["label"]] = counts.get(row["label"], 0) + row["images"]
    results = [(run, kept["data"], result) for run, kept in told for result in kept["recipes"]]
    rows = "\n".join(_row(*result) for result in results)
    readings = "\n".join(_reading(run, kept["recipes"]) for run, kept in told)
    return f"""# Results

Written by `python -m bench.results --covid covid-chestxray-dataset --kermany chest_xray --output DIR`
from runs of cxrflow on {os.cpu_count()} cores without a GPU, TensorFlow
{told[0][1]["versions"]["tensorflow"]}. The data: the covid-chestxray-dataset of June 2020 and a sample
of Kermany's, {data["used"]:,} usable frontal images of {data["patients"]:,} patients
({", ".join(f"{count} {label}" for label, count in counts.items())}), fingerprint
`{data["fingerprint"][:12]}`, seed {data["seed"]}.

**None of this is transfer learning from ImageNet**, because the machine could not download those weights.
For papers that use it, the base was pretrained on images of Kermany's outside the test split (`cxrflow
pretrain`) or not at all, and networks that train all layers had few epochs. With network access, `cxrflow
reproduce RECIPE` runs the papers' own protocols.

**None of this shows that a model sees a disease.** COVID images come from one source and nearly all others
from the other, whose patients are children: see [the data](data.md). That a small network comes close to the
published figures shows how easy it is to tell the sources apart.

| recipe | weights | split | images, patients | epochs | accuracy | covid recall | published | minutes |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

Accuracy and COVID recall are in per cent, with 95 % intervals over patients, on images whose patients and
near-duplicates are not in training. Published figures are of the first version named, on the authors' own
images, split at random. Minutes are the training time without that of the base. In training, every class has
the same weight.

{_pretraining(told)}{_progress(told)}## Interpretation, and differences from the papers

{readings}"""


def _reading(run: Run, results: list[dict[str, Any]]) -> str:
    names = ", ".join(result["recipe"] for result in results)
    said = dict.fromkeys(
        difference
        for result in results
        for difference in result["differences"]
        # True of all; the text below the table says it.
        if not difference.startswith(("No patient", "In training"))
    )
    listed = "\n".join(f"- {difference}" for difference in said)
    accuracies = tuple(round(100 * result["metrics"]["accuracy"]["value"], 1) for result in results)
    reading = run.reading if accuracies == run.accuracies else "Not interpreted yet."
    return f"**{names}**, {_start(run, results[0])}. {reading}\n\n{listed}\n"


def _start(run: Run, result: dict[str, Any]) -> str:
    if run.bases:
        return "pretrained base"
    return "from scratch" + (", as published" if "as published" in result["starting_point"] else "")


def _row(run: Run, data: dict[str, Any], result: dict[str, Any]) -> str:
    published = {row["figure"]: row["published"][0] for row in result["compared"]}
    cells = [
        f"`{result['recipe']}`",
        _start(run, result),
        ("random" if data["split_by"] == "random" else f"by {data['split_by']}")
        + (f", {data['folds']} folds" if data["folds"] else ""),
        f"{result['images']:,}, {result['patients']:,}",
        str(result["epochs"]),
        _rate(result["metrics"]["accuracy"]),
        _rate(result["metrics"]["per_class"]["covid"]["recall"]),
        ", ".join(
            f"{name} {_percent(published[name])}"
            for name in ("accuracy", "covid recall", "validation accuracy")
            if published.get(name) is not None
        ),
        f"{result['seconds'] / 60:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _pretraining(told: list[tuple[Run, dict[str, Any]]]) -> str:
    """Returns a table of the recipes that were run with and without pretraining, for as many epochs."""

    def of(pretrained: bool) -> dict[str, dict[str, Any]]:
        return {
            result["recipe"]: result
            for run, kept in told
            for result in kept["recipes"]
            if bool(run.bases) == pretrained
        }

    rows = [
        f"| `{name}` | {ours['epochs']} | {_rate(ours['metrics']['accuracy'])} | "
        f"{_rate(of(False)[name]['metrics']['accuracy'])} |"
        for name, ours in of(True).items()
        if name in of(False) and of(False)[name]["epochs"] == ours["epochs"]
    ]
    if not rows:
        return ""
    table = "\n".join(rows)
    return f"""## The effect of pretraining on chest X-rays

Accuracy on the same test images, after the same number of epochs (without those of pretraining):

| recipe | epochs | from a pretrained base | from scratch |
| --- | --- | --- | --- |
{table}

"""


def _progress(told: list[tuple[Run, dict[str, Any]]]) -> str:
    """Returns the learning curves of the trainings that were shorter than their paper's."""
    rows = "\n".join(
        f"| `{result['recipe']}` | {_start(run, result)} | "
        + ", ".join(f"{100 * value:.0f}" for value in result["folds"][0]["history"]["val_accuracy"])
        + " |"
        for run, kept in told
        for result in kept["recipes"]
        if run.epochs
    )
    return f"""## Progress of the shortened trainings

Validation accuracy after each epoch, in per cent; every class has the same weight:

| recipe | start | accuracy |
| --- | --- | --- |
{rows}

"""


def _rate(rate: dict[str, float]) -> str:
    return f"{100 * rate['value']:.1f} ({100 * rate['low']:.0f}–{100 * rate['high']:.0f})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    typer.run(main)
