"""Runs every published system on real X-rays and writes docs/results.md.

    python -m bench.results --covid DIR --kermany DIR --output DIR

takes hours; interrupted, it goes on where it stopped. What is there already is not run again.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

PAGE = Path(__file__).parents[1] / "docs" / "results.md"


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base to pretrain: a recipe, and the number of epochs."""

    recipe: str
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """A reproduction: recipes, epochs where not the paper's, and where pretrained bases begin."""

    recipes: str
    epochs: int | None = None
    bases: str | None = "bases"
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        start = "pretrained" if self.bases else "scratch"
        return "-".join([self.recipes.replace(",", "+"), start, *self.options]).replace("--", "")


BASES = {
    "bases/xception": Base(recipe="coronet-4class", epochs=6),
    "bases/vgg16": Base(recipe="soares-vgg16", epochs=5),
    "bases/resnet50": Base(recipe="soares-resnet", epochs=5),
    "bases-for-folds": Base(recipe="resnet50-10fold", epochs=4),
}
SOARES = "soares-xception,soares-resnet,soares-vgg16"
RUNS = (
    Run(recipes=SOARES),
    Run(recipes="cnn-dubey", bases=None),
    Run(recipes="resnet50-10fold", bases="bases-for-folds"),
    Run(recipes="coronet-4class", epochs=5),
    Run(recipes="coronet-4class", epochs=5, bases=None),
    Run(recipes="coronet-3class", epochs=4),
    Run(recipes="coronet-2class", epochs=4),
    Run(recipes=SOARES, bases=None),
    Run(recipes="resnet50-10fold", bases="bases-for-folds", options=("--split", "random")),
)


def main(
    covid: Annotated[Path, typer.Option()],
    kermany: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option(help="Where runs, bases and figures are kept.")],
) -> None:
    sources = ["--covid", str(covid), "--kermany", str(kermany), "--output", str(output)]
    for target, base in BASES.items():
        if not (output / target).exists():
            options = ["--target", str(output / target), "--epochs", str(base.epochs)]
            cxrflow("pretrain", base.recipe, *sources, *options)
    told = []
    for run in RUNS:
        kept = output / f"{run.name}.json"
        if not kept.exists():
            weights = str(output / run.bases) if run.bases else "none"
            epochs = ["--epochs", str(run.epochs)] if run.epochs else []
            cxrflow("reproduce", run.recipes, *sources, "--weights", weights, *epochs, *run.options)
            for ending in ("json", "html"):
                made = output / f"{run.recipes.replace(',', '+')}.{ending}"
                made.rename(output / f"{run.name}.{ending}")
        told.append((run, json.loads(kept.read_text())))
    PAGE.write_text(page(told, output))
    print(f"wrote {PAGE}")


def cxrflow(*arguments: str) -> None:
    print("cxrflow", *arguments, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("cxrflow")), *arguments], check=True)


def page(told: list[tuple[Run, dict[str, Any]]], output: Path) -> str:
    return ""


if __name__ == "__main__":
    typer.run(main)
