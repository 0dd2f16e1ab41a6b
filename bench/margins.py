"""Measures how robust the demo is: its trainings over several seeds and precisions, against its own gate.

`make demo` must end with a served model on every processor. Differences in a processor's rounding act like
another seed, but are smaller. So a candidate that keeps its margin to the gate for every seed in both
precisions keeps it on other hardware too.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.demo import GATE, RECIPES
from components.candidates.evaluate import evaluate
from components.candidates.train import train
from components.data import phantoms
from components.data.ingest import ingest
from components.data.sources import covid_chestxray, kermany
from components.data.write_records import write_records
from components.trust import rules
from components.trust.audit import audit
from components.trust.find_lungs import find_lungs
from components.trust.gate import decide
from training.recipes import quick_name, recipe_named

SEEDS = range(5)
PRECISIONS = ("float32", "mixed_bfloat16")
# The margin in recall that the demo must keep.
DISTANCE = 0.10
LUNGS_SECONDS = 20


def demo(home: Path) -> Iterator[str]:
    """Yields the lowest recall for each candidate, seed and precision, and finally the smallest margin.

    Args:
      home: the directory for all output.
    """
    gate = rules.parse(GATE)
    recipes = [recipe_named(quick_name(name)) for name in RECIPES]
    covid, others = home / "data" / covid_chestxray.DIRECTORY, home / "data" / kermany.DIRECTORY
    phantoms.write(home / "data")
    least: dict[str, float] = {}
    refused = 0
    for seed in SEEDS:
        examples, records, lungs = (
            home / f"{name}-{seed}" for name in ("examples", "records", "lungs")
        )
        ingest(covid, others, examples, seed=seed)
        write_records(examples, {covid_chestxray.NAME: covid, kermany.NAME: others}, records)
        began = time.monotonic()
        card = find_lungs(covid, examples, records, lungs, seed=seed)
        seconds = time.monotonic() - began
        yield (
            f"lung segmenter, seed {seed}: {seconds:.0f} s (wanted: at most {LUNGS_SECONDS}), "
            f"Dice {card['dice']:.3f}"
        )
        for precision in PRECISIONS:
            for recipe in recipes:
                model, evaluation, audited = (
                    home / f"{name}-{recipe.name}-{seed}-{precision}"
                    for name in ("model", "evaluation", "audit")
                )
                checkpoints = home / "checkpoints"
                train(
                    recipe,
                    records,
                    model,
                    checkpoints,
                    weights="none",
                    seed=seed,
                    precision=precision,
                    lungs=lungs,
                )
                metrics = evaluate(model, records, evaluation)
                figures = audit(model, records, examples, lungs, audited)
                (row,) = decide([metrics], gate, audits=[figures])["candidates"]
                name, distance = _nearest(row)
                least[recipe.name] = min(distance, least.get(recipe.name, 1.0))
                refused += not row["passed"]
                yield (
                    f"{recipe.name}, seed {seed}, {precision}: lowest recall {name}, "
                    f"{100 * distance:+.0f} points from its threshold; "
                    + (f"REJECTED: {'; '.join(row['reasons'])}" if row["reasons"] else "passes")
                    + f", {row['trust']['verdict']}"
                )
    for recipe, distance in least.items():
        margin = "at least" if distance >= DISTANCE else "UNDER"
        yield (
            f"{recipe}: smallest margin of {len(SEEDS) * len(PRECISIONS)} runs {100 * distance:+.0f} points, "
            f"{margin} the required {100 * DISTANCE:.0f}"
        )
    yield f"{refused} of {len(SEEDS) * len(PRECISIONS) * len(recipes)} were rejected (wanted: none)"


def _nearest(row: Mapping[str, Any]) -> tuple[str, float]:
    """Returns the class whose recall is closest to its threshold, with its recall, and the margin."""
    check = min(row["checks"], key=lambda check: check["recall"]["value"] - check["threshold"])
    recall = check["recall"]["value"]
    return f"{check['class']} {100 * recall:.0f} %", recall - check["threshold"]
