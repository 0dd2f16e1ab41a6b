"""Trains and audits published systems on real X-rays and writes docs/trust-results.md.

    python -m bench.trust --covid DIR --kermany DIR --external NAME=DIR --output DIR

takes half an hour on two cores; interrupted, it goes on where it stopped.
"""

import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from components.audit import FRAME_ALONE, LUNG_FREE, LUNGS_ALONE, PROBE, WHOLE, audit
from components.files import read_json, write_text
from components.find_lungs import find_lungs
from components.ingest import ingest
from components.train import train
from components.write_records import write_records
from training.recipes import recipe_named

PAGE = Path(__file__).parents[1] / "docs" / "trust-results.md"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is trained: a recipe from scratch, for so many epochs."""

    recipe: str
    epochs: int


CANDIDATES = (
    Candidate(recipe="cnn-dubey", epochs=10),
    Candidate(recipe="coronet-4class", epochs=4),
)


def main(
    covid: Annotated[Path, typer.Option()],
    kermany: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    external: Annotated[str, typer.Option(help="NAME=DIR")],
) -> None:
    sources = {"covid-chestxray": covid, "kermany": kermany}
    examples, records, lungs, kept = (
        output / name for name in ("examples", "records", "lungs", "kept")
    )
    place, _, directory = external.partition("=")
    if not (examples / "summary.json").is_file():
        ingest(covid, kermany, examples)
        write_records(examples, sources, records)
    found_lungs = find_lungs(covid, examples, records, lungs, kept=kept)
    rows = []
    for candidate in CANDIDATES:
        home = output / candidate.recipe
        recipe = replace(recipe_named(candidate.recipe), epochs=candidate.epochs)
        card = train(recipe, records, home / "model", kept, weights="none", examples=examples)
        began = time.monotonic()
        found = audit(
            home / "model", records, examples, lungs, home / "audit",
            external={place: Path(directory)}, kept=kept,
        )  # fmt: skip
        # The first time counts: later the frame probe is kept.
        timing = home / "audit.seconds"
        if not timing.is_file():
            write_text(timing, f"{time.monotonic() - began:.1f}")
        rows.append((candidate, card, found, float(timing.read_text())))
    write_text(PAGE, page(rows, found_lungs, read_json(examples / "summary.json"), place))


def page(rows: list, lungs: dict[str, Any], summary: dict[str, Any], place: str) -> str:
    views = (WHOLE, LUNG_FREE, LUNGS_ALONE, FRAME_ALONE, PROBE)
    lines = [
        HEAD.format(
            version=version("cxrflow"),
            images=summary["used"],
            patients=summary["patients"],
            fingerprint=summary["fingerprint"][:12],
            dice=lungs["dice"],
            worst=lungs["worst"],
            trained=lungs["trained_on"],
            tested=lungs["tested_on"],
            place=place,
        ),
        "| mean recall of the classes | " + " | ".join(c.recipe for c, *_ in rows) + " |",
        "| --- |" + " --- |" * len(rows),
        *(
            f"| {view} | "
            + " | ".join(
                f"{100 * found['views'][view]['balanced']:.1f} %" for _, _, found, _ in rows
            )
            + " |"
            for view in views
        ),
        "| chance | "
        + " | ".join(
            f"{100 / len(found['views'][WHOLE]['recall']):.0f} %" for _, _, found, _ in rows
        )
        + " |",
        "",
        "Each against its own classes: the two are not to be compared with each other.",
        "",
        "| what the gate asks | bound | " + " | ".join(c.recipe for c, *_ in rows) + " |",
        "| --- | --- |" + " --- |" * len(rows),
    ]
    for i, rule in enumerate(rows[0][2]["rules"]):
        bound = f"{'at least' if rule['at_least'] else 'at most'} {rule['bound']:g}"
        lines.append(f"| `{rule['name']}`: the {rule['what']} | {bound} | " + " | ".join(
            verdict(found["rules"][i]) for _, _, found, _ in rows) + " |")  # fmt: skip
    lines += ["", f"## Elsewhere: {place}", ""]
    lines += [
        "| | images | without covid, called covid | recall of normal |",
        "| --- | --- | --- | --- |",
    ]
    for candidate, _, found, _ in rows:
        (one,) = found["external"]
        inside = found["views"][WHOLE]["recall"]["normal"]
        lines.append(
            f"| `{candidate.recipe}` | {one['images']} | {rate(one['called_covid'])} | "
            f"{rate(one['recall']['normal'])}; on its own test split {rate(inside)} |"
        )
    lines += ["", "## What it costs", ""]
    for candidate, card, _, seconds in rows:
        share, whole = seconds / card["seconds"], recipe_named(candidate.recipe).epochs
        lines.append(
            f"- `{candidate.recipe}`: {candidate.epochs} epochs in {card['seconds']:.0f} s, its audit in "
            f"{seconds:.0f} s: {100 * share:.0f} % of that, and of the recipe's {whole} epochs "
            f"{100 * share * candidate.epochs / whole:.0f} %."
        )
    return "\n".join(lines) + "\n"


def verdict(rule: dict[str, Any]) -> str:
    if rule["value"] is None:
        return "too few images" if rule["passed"] else "not measured"
    return f"{rule['value']:.2f}" if rule["passed"] else f"**{rule['value']:.2f}**"


def rate(one: dict[str, float]) -> str:
    return f"{100 * one['value']:.1f} % ({100 * one['low']:.0f}–{100 * one['high']:.0f})"


HEAD = """# What audits say on real X-rays

Written by `python -m bench.trust` of cxrflow {version}: {images:,} frontal images of {patients:,} patients
of the covid-chestxray-dataset of June 2020 and a sample of Kermany's, fingerprint `{fingerprint}`, split
by patient; {place} is a third source, of adults, that no training saw. What was measured, and how:
[trust](trust.md).

**Trained from scratch and for few epochs**: these are no figures of the papers' systems. What is shown is
not how good they are but what they look at. The segmenter of lungs reaches a Dice coefficient of
{dice:.3f} on {tested} masks that were held out (the worst: {worst:.3f}), after training on {trained}.
"""


if __name__ == "__main__":
    typer.run(main)
