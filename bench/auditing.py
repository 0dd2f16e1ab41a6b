"""The cost of audits, and a control of their rules."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from components.candidates.train import train
from components.data.example_tables import fingerprint
from components.data.sources import kermany
from components.data.write_records import write_records
from components.trust.audit import audit
from components.trust.find_lungs import find_lungs
from core.artifacts import EXAMPLES, HISTORY, SEGMENTER, SUMMARY, Verdict
from core.files import read_json, write_json
from core.labels import BACTERIAL, COVID, NORMAL, VIRAL
from core.tables import read_table
from training.recipes import Recipe, recipe_named

# What the lung segmenter of the real masks may take in seconds, and must reach on those held out.
LUNGS_SECONDS, LUNGS_DICE = 90, 0.92
# What an audit may take, as a share of the training of its candidate.
MOST = 0.1

# Recipe variants and epochs of the control, and whether the model should be trusted. Images of pneumonia are
# framed otherwise than normal ones, so a model of whole images learns the framing.
CONTROLS = (
    ("cnn-dubey+quick", 5, False),
    ("cnn-dubey+mixed-surroundings+augmented+quick", 20, True),
)


def learning(covid: Path, examples: Path, records: Path, home: Path) -> Iterator[str]:
    """Trains the lung segmenter on the masks of the dataset."""
    began = time.monotonic()
    card = find_lungs(covid, examples, records, home / "lungs")
    yield (
        f"[bold]{time.monotonic() - began:6.0f}[/]  seconds with {card['trained_on']} masks (wanted: at most "
        f"{LUNGS_SECONDS} with the real ones)"
    )
    yield (
        f"[bold]{card['dice']:6.3f}[/]  Dice on {card['tested_on']} masks held out (wanted: at least "
        f"{LUNGS_DICE} on the real ones)"
    )


def cost(covid: Path, examples: Path, records: Path, home: Path) -> Iterator[str]:
    """Compares the audit of a candidate with its training: an epoch's time, times the recipe's epochs."""
    lungs = _lungs(covid, examples, records, home)
    for name in ("cnn-dubey", "coronet-4class"):
        recipe = recipe_named(name)
        model = home / f"audited-{name}"
        history = _trained(dataclasses.replace(recipe, epochs=2), examples, records, lungs, model)
        epoch = history["seconds"].iloc[1]
        began = time.monotonic()
        audit(model, records, examples, lungs, home / f"audit-{name}")
        seconds = time.monotonic() - began
        yield (
            f"[bold]{seconds / (recipe.epochs * epoch):6.3f}[/]  {name}: an audit, to its training: "
            f"{seconds:.0f} s to {recipe.epochs} epochs of {epoch:.1f} s, of which one was timed "
            f"(wanted: at most {MOST})"
        )


def control(
    covid: Path, kermany_directory: Path, examples: Path, records: Path, home: Path
) -> Iterator[str]:
    """Judges models of pneumonia against normal on Kermany's images, with pneumonia in the place of covid.

    These are of one source and one age group, so like is compared with like throughout, and a good model that
    does not use the framing should be `trusted`. Rules for adults are applied to Kermany's children.
    """
    lungs = _lungs(covid, examples, records, home)
    chosen, packed = home / "control", home / "control-records"
    table = read_table(examples / EXAMPLES)
    table = table[table["source"] == kermany.NAME]
    places = {NORMAL: NORMAL, BACTERIAL: COVID, VIRAL: COVID}
    table = table.assign(label=table["label"].map(places), age=30.0).reset_index(drop=True)
    chosen.mkdir()
    table.to_parquet(chosen / EXAMPLES, index=False)
    summary = read_json(examples / SUMMARY)
    write_json(chosen / SUMMARY, {**summary, "fingerprint": fingerprint(table)})
    write_records(chosen, {kermany.NAME: kermany_directory}, packed)
    for number, (name, epochs, should) in enumerate(CONTROLS):
        recipe = dataclasses.replace(recipe_named(name), epochs=epochs)
        model = home / f"control-{number}"
        _trained(recipe, chosen, packed, lungs, model)
        audited = audit(model, packed, chosen, lungs, home / f"control-audit-{number}")
        wanted = Verdict.TRUSTED if should else Verdict.NOT_TRUSTED
        yield from told(f"{name}, {epochs} epochs", audited, wanted)


def told(name: str, audited: Mapping[str, Any], wanted: str) -> Iterator[str]:
    """Yields a verdict, and what each rule measured."""
    yield f"[bold]{audited['trust']['verdict']}[/]  {name} (wanted: {wanted})"
    for rule in audited["rules"]:
        value = "" if rule["value"] is None else f" {rule['value']:.2f}"
        side = "at least" if rule["at_least"] else "at most"
        yield f"        {rule['name']}:{value} {rule['outcome']} ({side} {rule['bound']:g})"


def _lungs(covid: Path, examples: Path, records: Path, home: Path) -> Path:
    if not (home / "lungs" / SEGMENTER).is_file():
        find_lungs(covid, examples, records, home / "lungs")
    return home / "lungs"


def _trained(
    recipe: Recipe, examples: Path, records: Path, lungs: Path, output: Path
) -> pd.DataFrame:
    train(
        recipe, records, output, output.parent / "checkpoints",
        weights="none", examples=examples, lungs=lungs,
    )  # fmt: skip
    return pd.read_csv(output / HISTORY)
