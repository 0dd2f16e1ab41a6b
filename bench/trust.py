"""Trains and audits published systems and their variants on real X-rays; writes docs/trust-results.md.

    python -m bench.trust --covid DIR --kermany DIR --adults NAME=SPEC --output DIR

Trains each recipe in each setting. If interrupted, run it again: it resumes and skips what is done.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tensorflow as tf
import typer
from sklearn.metrics import roc_auc_score

from components.candidates.train import train
from components.data import splits
from components.data.ingest import ingest
from components.data.sources import covid_chestxray, listed
from components.data.write_records import write_records
from components.trust.audit import audit
from components.trust.find_lungs import find_lungs
from components.trust.rules import Outcome, View
from core.artifacts import CARD, EXAMPLES, RECORDS, SAVED_MODEL, SUMMARY
from core.divisions import TEST
from core.files import read_json, write_json, write_text
from core.images import for_tensorflow, to_png
from core.labels import LABELS
from core.tables import read_table
from serving.verdict import in_words
from training import data, export, intervals
from training.recipes import RECIPES, recipe_named

PAGE = Path(__file__).parents[1] / "docs" / "trust-results.md"

# From scratch: enough epochs to learn what is easy to learn.
EPOCHS = {"cnn-dubey": 10, "coronet-4class": 3}
RANDOM, ORIGINS = "split at random", "other origins"
TWO, THREE = "the two sources", "with adult controls"
SPLIT_BY = {RANDOM: splits.RANDOM, ORIGINS: splits.ORIGIN}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a network is trained on: which images, and which recipe variant of them."""

    name: str
    images: str
    variant: str = ""
    what: str


SETTINGS = (
    Setting(
        name="random split",
        images=RANDOM,
        what="as in the papers, with patients in both training and test; shown as a warning",
    ),
    Setting(
        name="by patient",
        images=TWO,
        what="whole images of the two sources, no patient in both training and test",
    ),
    Setting(
        name="other origins",
        images=ORIGINS,
        what="the same, and the COVID test images are from hospitals and publications outside the "
        "training data",
    ),
    Setting(
        name="lungs",
        images=TWO,
        variant="+lungs",
        what="split by patient, and the network sees the lungs alone (`+lungs`)",
    ),
    Setting(
        name="adults",
        images=THREE,
        variant="+balanced",
        what="more images of adults without findings, from a third source; the sources of a class have the "
        "same weight (`+balanced`)",
    ),
    Setting(
        name="lungs and adults",
        images=THREE,
        variant="+lungs+augmented+balanced",
        what="both, and images with other exposure, sharpness and rotation in each epoch "
        "(`+lungs+augmented+balanced`)",
    ),
    Setting(
        name="mixed surroundings",
        images=THREE,
        variant="+mixed-surroundings+augmented+balanced",
        what="with adults, whole images, and half of the training images in the surroundings of others "
        "(`+mixed-surroundings+augmented+balanced`)",
    ),
)


def main(
    covid: Annotated[Path, typer.Option()],
    kermany: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    adults: Annotated[str, typer.Option(help="NAME=SPEC of a source of adults; see `listed`.")],
    recipes: Annotated[str, typer.Option(help="Keys of EPOCHS, separated by commas.")] = ",".join(
        EPOCHS
    ),
    settings: Annotated[
        str, typer.Option(help="Names of SETTINGS, separated by commas.")
    ] = ",".join(setting.name for setting in SETTINGS),
) -> None:
    wanted = [setting for setting in SETTINGS if setting.name in settings.split(",")]
    named = listed.parse([adults])
    (source,) = named.values()
    directories = {
        covid_chestxray.NAME: covid, "kermany": kermany, source.name: source.directory,
    }  # fmt: skip
    made: dict[str, tuple[Path, Path]] = {}
    for images in (RANDOM, TWO, ORIGINS, THREE):
        home = output / images.replace(" ", "-")
        examples, records = made[images] = home / "examples", home / "records"
        if not (records / RECORDS).is_file():
            ingest(
                covid, kermany, examples,
                split_by=SPLIT_BY.get(images, splits.PATIENT),
                sources=named if images == THREE else None,
            )  # fmt: skip
            write_records(examples, directories, records)
    kept = output / "kept"
    external = elsewhere(source, made[THREE][0], output)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in recipes.split(",")}
    for recipe in rows:
        for setting in wanted:
            examples, records = made[setting.images]
            lungs = output / "lungs" / setting.images.replace(" ", "-")
            if not lungs.is_dir():
                find_lungs(covid, examples, records, lungs, kept=kept)
            home = output / recipe / setting.name.replace(" ", "-")
            chosen = replace(recipe_named(recipe + setting.variant), epochs=EPOCHS[recipe])
            if not (home / "model").is_dir():
                train(
                    chosen, records, home / "model", kept,
                    weights="none", examples=examples, lungs=lungs,
                )  # fmt: skip
            if not (home / "audit").is_dir():
                began = time.monotonic()
                audit(
                    home / "model", records, examples, lungs, home / "audit",
                    external=external,
                )  # fmt: skip
                write_text(home / "audit.seconds", f"{time.monotonic() - began:.1f}")
            if not (home / "unknown.json").is_file():
                write_json(home / "unknown.json", unknown(home / "model", records, covid))
            rows[recipe].append(
                {
                    "setting": setting,
                    "card": read_json(home / "model" / CARD),
                    "audit": read_json(home / "audit" / "audit.json"),
                    "seconds": float((home / "audit.seconds").read_text()),
                    "unknown": read_json(home / "unknown.json"),
                }
            )
    summaries = {name: read_json(examples / SUMMARY) for name, (examples, _) in made.items()}
    write_text(PAGE, page(rows, summaries, source.name))


def elsewhere(source: listed.Listed, examples: Path, output: Path) -> dict[str, listed.Listed]:
    """Returns adults that no setting trains on: patients of the test split, and those not used.

    They are two sets, the healthy and the ill, the same for every setting.
    """
    table = read_table(examples / EXAMPLES)
    table = table[table["source"] == source.name]
    seen = set(table.loc[table["split"] != TEST, "patient"])
    rows = pd.DataFrame(
        [
            {
                "path": str((source.directory / row.path).resolve()),
                "label": row.label or row.finding,
                "found": row.label not in LABELS,
            }
            for row in listed.read(source)
            if row.patient not in seen
        ]
    )
    sets = {}
    for ill, radiographs in rows.groupby("found"):
        file = output / f"{source.name}-{'ill' if ill else 'healthy'}.csv"
        radiographs.to_csv(file, index=False)
        sets |= listed.parse([f"{file.stem}={file}"])
    return sets


def unknown(model: Path, records: Path, covid: Path) -> dict[str, Any]:
    """Returns how well a model's out-of-distribution score finds images that it must not answer."""
    card = read_json(model / CARD)
    exported = export.load(model / SAVED_MODEL)
    manifest = data.read_manifest(records)
    recipe = recipe_named(card["recipe"]["name"])
    images = data.encoded_images(records, manifest, recipe, (TEST,))
    known = [content for content, _, _ in images.as_numpy_iterator()]
    sets: dict[str, Iterable[bytes]] = {
        "fungal, lipoid and other causes": of_reason(covid, "cause outside"),
        "lateral views": of_reason(covid, "view 'L'"),
        "CT slices": of_reason(covid, "modality 'CT'"),
        "the test split inverted": (inverted(content) for content in known),
    }
    ours = scores(exported, known)
    rows = {}
    for name, contents in sets.items():
        theirs = scores(exported, contents)
        truth = np.r_[np.zeros(len(ours)), np.ones(len(theirs))]
        rows[name] = {
            "images": len(theirs),
            "auc": float(roc_auc_score(truth, np.r_[ours, theirs])),
            "rejected": intervals.rate(int((theirs > 1).sum()), len(theirs)),
        }
    return rows


def of_reason(covid: Path, reason: str) -> Iterable[bytes]:
    for row in covid_chestxray.read(covid):
        file = covid / row.path
        if reason in row.excluded and file.is_file():
            yield to_png(for_tensorflow(file.read_bytes()))


def inverted(content: bytes) -> bytes:
    grey = tf.io.decode_png(to_png(content), channels=1)
    return bytes(tf.io.encode_png(255 - grey).numpy())


def scores(exported: export.Exported, contents: Iterable[bytes]) -> np.ndarray:
    of_each = [
        exported.predict(image_bytes=tf.constant([content]))["ood_score"].numpy()
        for content in contents
    ]
    return np.concatenate(of_each)


def page(rows: dict[str, list[dict[str, Any]]], summaries: dict[str, Any], adults: str) -> str:
    two = summaries[TWO]
    first = next(iter(rows.values()))
    lungs = first[0]["audit"]["lungs"]
    lines = [
        HEAD.format(
            version=version("cxrflow"),
            recipes=",".join(rows),
            names=",".join(row["setting"].name for row in first),
            images=two["used"],
            patients=two["patients"],
            fingerprint=two["fingerprint"][:12],
            settings="\n".join(
                f"- *{row['setting'].name}*: {row['setting'].what}." for row in first
            ),
            adults=adults,
            dice=lungs["dice"],
            worst=lungs["worst"],
            trained=lungs["trained_on"],
            tested=lungs["tested_on"],
        )
    ]
    for recipe, of_recipe in rows.items():
        lines += section(recipe, of_recipe)
    lines += ["", "## The cost of an audit", ""]
    for recipe, of_recipe in rows.items():
        row = of_recipe[0]
        trained, whole = row["card"]["seconds"], RECIPES[recipe].epochs
        share = row["seconds"] / (trained * whole / EPOCHS[recipe])
        lines.append(
            f"- `{recipe}`: {EPOCHS[recipe]} epochs took {trained:.0f} s and the audit "
            f"{row['seconds']:.0f} s. With the recipe's {whole} epochs, an audit would take "
            f"{100 * share:.0f} % of the training time."
        )
    return "\n".join(lines) + "\n"


def section(recipe: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    published = RECIPES[recipe].published[0].figures["accuracy"]
    audits = [row["audit"] for row in rows]
    classes = len(audits[0]["views"][View.WHOLE]["recall"])
    heads = [row["setting"].name for row in rows]

    def line(what: str, cells: Iterable[str]) -> str:
        return f"| {what} | " + " | ".join(cells) + " |"

    lines = [
        "",
        f"## {recipe}, {EPOCHS[recipe]} epochs",
        "",
        line("", heads),
        line("---", ["---"] * len(heads)),
        line(
            f"accuracy (published: {100 * published:.1f} %)",
            (rate(audited["views"][View.WHOLE]["accuracy"]) for audited in audits),
        ),
        line(
            "COVID recall",
            (rate(audited["views"][View.WHOLE]["recall"]["covid"]) for audited in audits),
        ),
        *(
            line(
                f"mean recall, {view}",
                (f"{100 * audited['views'][view]['balanced']:.1f} %" for audited in audits),
            )
            for view in View
        ),
    ]
    for i, external in enumerate(audits[0]["external"]):
        lines.append(
            line(
                f"{external['name']} ({external['images']}), called COVID",
                (rate(audited["external"][i]["called_covid"]) for audited in audits),
            )
        )
    for i, rule in enumerate(audits[0]["rules"]):
        side = "at least" if rule["at_least"] else "at most"
        lines.append(
            line(
                f"`{rule['name']}`, {side} {rule['bound']:g}",
                (measured(audited["rules"][i]) for audited in audits),
            )
        )
    lines.append(line("verdict", (audited["trust"]["verdict"] for audited in audits)))
    lines += ["", "The reasons:", ""]
    lines += [
        f"- *{head}*: {in_words(audited['trust'])}."
        for head, audited in zip(heads, audits, strict=True)
    ]
    lines += ["", f"Chance is a mean recall of {100 / classes:.0f} %.", ""]
    lines += [
        UNKNOWN,
        "",
        line("", heads),
        line("---", ["---"] * len(heads)),
        line(
            "the test split itself",
            (f"{100 * audited['abstention']['rejected']['value']:.0f} %" for audited in audits),
        ),
    ]
    for name, first in rows[0]["unknown"].items():
        cells = (row["unknown"][name] for row in rows)
        lines.append(
            line(
                f"{name} ({first['images']})",
                (f"{cell['auc']:.2f}, {100 * cell['rejected']['value']:.0f} %" for cell in cells),
            )
        )
    return lines


def measured(rule: dict[str, Any]) -> str:
    if rule["value"] is None:
        return str(rule["outcome"])
    broken = rule["outcome"] == Outcome.BROKEN
    return f"**{rule['value']:.2f}**" if broken else f"{rule['value']:.2f}"


def rate(value: dict[str, float]) -> str:
    return f"{100 * value['value']:.0f} % ({100 * value['low']:.0f}–{100 * value['high']:.0f})"


HEAD = """# Audits on real X-rays

Written by `python -m bench.trust --covid DIR --kermany DIR --adults {adults}=SPEC --output DIR
--recipes {recipes} --settings "{names}"` of cxrflow {version}.
The data: {images:,} frontal images of {patients:,} patients of the covid-chestxray-dataset of June 2020 and
of a sample of Kermany's, fingerprint `{fingerprint}`. [Trust](trust.md) says what was measured and how.
Values that break a rule are in bold.

**The networks were trained from scratch for few epochs**, so these are not the figures of the papers'
systems. They show what the networks look at, not how good they are. The lung segmenter, trained on {trained}
masks, reaches a Dice coefficient of {dice:.3f} on {tested} held-out masks (lowest: {worst:.3f}).

The settings, each with its own test split:

{settings}

{adults}-healthy and {adults}-ill (pneumonia) are radiographs of adults without COVID, the same for all
settings, of patients on whom no network was trained. In the settings without adults, their hospital is
outside the training data.
"""

UNKNOWN = """How well the out-of-distribution score separates images that must not be answered from the test
split (area under the ROC curve), and how many of them the model abstains from:"""


if __name__ == "__main__":
    typer.run(main)
