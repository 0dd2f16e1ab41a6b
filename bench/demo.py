"""How steady the demo is: its trainings over several seeds and precisions, held against its own gate.

`make demo` must end in a served model on every processor. What a processor's rounding changes is of the same
kind as what a seed changes, and smaller: a candidate that keeps its distance to the gate for every seed in
either precision keeps it on other hardware.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
# Of recall, that the demo must keep.
DISTANCE = 0.10


def demo(home: Path) -> Iterator[str]:
    """Yields for each candidate, seed and precision its lowest recall, and at last the least distance.

    Args:
      home: gets everything.
    """
    gate = rules.parse(os.environ["DEMO_GATE"])
    recipes = [recipe_named(quick_name(name)) for name in os.environ["DEMO_RECIPES"].split(",")]
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
        find_lungs(covid, examples, records, lungs, seed=seed)
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
                found = audit(model, records, examples, lungs, audited, thresholds=gate)
                (row,) = decide([metrics], gate, audits=[found])["candidates"]
                name, distance = _nearest(row)
                least[recipe.name] = min(distance, least.get(recipe.name, 1.0))
                refused += not row["passed"]
                yield (
                    f"{recipe.name}, seed {seed}, {precision}: lowest recall {name}, "
                    f"{100 * distance:+.0f} points from its threshold; "
                    + (f"REFUSED: {'; '.join(row['reasons'])}" if row["reasons"] else "passes")
                )
    for recipe, distance in least.items():
        verdict = "at least" if distance >= DISTANCE else "UNDER"
        yield (
            f"{recipe}: {100 * distance:+.0f} points at the nearest in {len(SEEDS) * len(PRECISIONS)} runs, "
            f"{verdict} the {100 * DISTANCE:.0f} that are wanted"
        )
    yield f"{refused} of {len(SEEDS) * len(PRECISIONS) * len(recipes)} were refused (wanted: none)"


def _nearest(row: Mapping[str, Any]) -> tuple[str, float]:
    """Returns the class whose recall is nearest to its threshold, with its recall, and the distance."""
    check = min(row["checks"], key=lambda one: one["recall"]["value"] - one["threshold"])
    recall = check["recall"]["value"]
    return f"{check['class']} {100 * recall:.0f} %", recall - check["threshold"]
