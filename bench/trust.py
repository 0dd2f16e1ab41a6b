"""Trains and audits published systems and their variants on real X-rays; writes docs/trust-results.md.

    python -m bench.trust --covid DIR --kermany DIR --source nih=SPEC --source covid-cxnet=SPEC \\
        --base DIR --output DIR

The first source adds adults without COVID, the second one adults with it. The base is made by `cxrflow
pretrain` from the same two datasets. Trains each recipe in each setting, and writes the page after each. If
interrupted, run it again: it resumes and skips what is done.
"""

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain
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
from components.data.shared_ground import GROUND, age_groups
from components.data.sources import covid_chestxray, kermany, listed
from components.data.write_records import write_records
from components.trust import rules
from components.trust.audit import audit
from components.trust.find_lungs import find_lungs
from components.trust.rules import Outcome, View
from core.artifacts import (
    CARD,
    EXAMPLES,
    EXCLUDED,
    PRETRAINING,
    RECORDS,
    SAVED_MODEL,
    SUMMARY,
    Verdict,
)
from core.divisions import TEST, TRAIN
from core.errors import UserError
from core.files import read_json, write_json, write_text
from core.images import for_tensorflow, to_png
from core.labels import LABELS
from core.tables import read_table
from training import data, intervals, saved_model
from training.recipes import RECIPES, recipe_named, with_epochs

PAGE = Path(__file__).parents[1] / "docs" / "trust-results.md"

EPOCHS = "cnn-dubey=10,coronet-4class=3"
RECIPES_AUDITED = ("cnn-dubey", "coronet-4class")
MIXED = "+mixed-surroundings+augmented+balanced"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a network is trained on: how many of the further sources, and which recipe variant.

    Attributes:
      name: `{0}` and `{1}` are the names of the further sources.
      compared: the position of the setting whose verdict this one's is compared with; None for the first.
    """

    name: str
    sources: int
    variant: str = ""
    what: str
    compared: int | None = 0


SETTINGS = (
    Setting(
        name="two sources",
        sources=0,
        what="whole images of the two published sources",
        compared=None,
    ),
    Setting(
        name="with {0}",
        sources=1,
        variant="+balanced",
        what="the same, and {0}; the sources of a class have the same weight (`+balanced`)",
    ),
    Setting(
        name="with {0} and {1}",
        sources=2,
        variant="+balanced",
        what="the same, and {1}",
        compared=1,
    ),
    Setting(
        name="mixed",
        sources=2,
        variant=MIXED,
        what="the same images; in each epoch, half of the training images of two classes, and three quarters "
        "of those of four, get the surroundings of an image "
        f"of another class, and all are augmented (`{MIXED}`)",
        compared=2,
    ),
    Setting(
        name="mixed lungs",
        sources=2,
        variant="+lungs" + MIXED,
        what="the same, and the network sees the lungs alone, as many of them in the outline of the lungs of "
        f"an image of another class (`+lungs{MIXED}`)",
        compared=3,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Images, ready to train on and to audit with."""

    examples: Path
    records: Path
    lungs: Path


def main(
    covid: Annotated[Path, typer.Option()],
    kermany_directory: Annotated[Path, typer.Option("--kermany")],
    output: Annotated[Path, typer.Option()],
    source: Annotated[list[str], typer.Option(help="NAME=SPEC, twice; see `listed`.")],
    base: Annotated[Path | None, typer.Option(help="The output of `cxrflow pretrain`.")] = None,
    recipes: Annotated[
        str, typer.Option(help="Published ones, or their variants +quick, separated by commas.")
    ] = ",".join(RECIPES_AUDITED),
    epochs: Annotated[str, typer.Option(help="As for `cxrflow run`.")] = EPOCHS,
    settings: Annotated[
        str, typer.Option(help="Positions in SETTINGS, separated by commas.")
    ] = ",".join(map(str, range(len(SETTINGS)))),
) -> None:
    sources = list(listed.parse(source).values())
    if len(sources) != 2:
        raise UserError(f"trust: give two sources (--source), not {len(sources)}")
    prepared = [
        prepare(covid, kermany_directory, sources[:count], output)
        for count in range(len(sources) + 1)
    ]
    external = elsewhere(sources, prepared[-1].examples, output)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in recipes.split(","):
        rows[name] = []
        published, _, quick = name.partition("+")
        number = with_epochs(recipe_named(name), epochs).epochs
        weights = str(base) if base and RECIPES[published].pretrained else "none"
        for position in map(int, settings.split(",")):
            setting = SETTINGS[position]
            variant = f"{published}{setting.variant}{quick and '+'}{quick}"
            chosen = replace(recipe_named(variant), epochs=number)
            of = prepared[setting.sources]
            home = output / f"{name}-{number}-epochs" / str(position)
            if not (home / "model").is_dir():
                train(
                    chosen, of.records, home / "model", output / "kept",
                    weights=weights, examples=of.examples, lungs=of.lungs,
                )  # fmt: skip
            if not (home / "audit").is_dir():
                audit(
                    home / "model", of.records, of.examples, of.lungs, home / "audit",
                    external=external,
                )  # fmt: skip
            if not (home / "unknown.json").is_file():
                write_json(home / "unknown.json", unknown(home / "model", of.records, covid))
            rows[name].append(
                {
                    "position": position,
                    "card": read_json(home / "model" / CARD),
                    "audit": judged_again(read_json(home / "audit" / "audit.json")),
                    "unknown": read_json(home / "unknown.json"),
                }
            )
            write_text(PAGE, page(rows, prepared, [given.name for given in sources], base, epochs))


def judged_again(audited: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an audit, which may be older than the rules, with outcomes and verdict by the present rules."""
    outcomes = rules.judged(audited)
    return {**audited, "rules": outcomes, "trust": rules.verdict(outcomes)}


def prepare(
    covid: Path, kermany_directory: Path, sources: Sequence[listed.Listed], output: Path
) -> Prepared:
    """Reads the two published sources and further ones.

    All are spans of one archive, so that an image stays in its split: settings share their test images, and
    what no setting trains on is known.
    """
    home = output / "-".join(["data", *(source.name for source in sources)])
    of = Prepared(examples=home / "examples", records=home / "records", lungs=home / "lungs")
    if not (of.records / RECORDS).is_file():
        ingest(
            covid, kermany_directory, of.examples,
            archive=output / "archive", sources={source.name: source for source in sources},
        )  # fmt: skip
        directories = {covid_chestxray.NAME: covid, kermany.NAME: kermany_directory}
        directories |= {source.name: source.directory for source in sources}
        write_records(of.examples, directories, of.records)
    if not of.lungs.is_dir():
        find_lungs(covid, of.examples, of.records, of.lungs, kept=output / "kept")
    return of


def elsewhere(
    sources: Iterable[listed.Listed], examples: Path, output: Path
) -> dict[str, listed.Listed]:
    """Returns images of further sources that no setting trains on, the same for every setting.

    These are images of patients of the test split, and those that no recipe can use because their finding
    is none of the labels.
    """
    table = read_table(examples / EXAMPLES)
    sets: dict[str, listed.Listed] = {}
    for source in sources:
        of_source = table[table["source"] == source.name]
        seen = set(of_source.loc[of_source["split"] != TEST, "patient"])
        rows = pd.DataFrame(
            [
                {
                    "path": row.path,
                    "label": row.label or row.finding,
                    "patient": row.patient.partition("/")[2],
                    "place": row.origin,
                }
                for row in listed.read(source)
                if row.patient not in seen and row.finding_is_known
            ]
        )
        names = rows["label"].where(rows["label"].isin(LABELS), "other")
        for name, radiographs in rows.groupby(names):
            file = output / "elsewhere" / f"{source.name}-{name}" / "images.csv"
            for path in radiographs["path"]:
                copy = file.parent / path
                copy.parent.mkdir(parents=True, exist_ok=True)
                if not copy.exists():
                    shutil.copyfile(source.directory / path, copy)
            radiographs.to_csv(file, index=False)
            sets |= listed.parse([f"{file.parent.name}={file}"])
    return sets


def unknown(model: Path, records: Path, covid: Path) -> dict[str, Any]:
    """Returns how well a model's out-of-distribution score finds images that it must not answer."""
    card = read_json(model / CARD)
    exported = saved_model.load(model / SAVED_MODEL)
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


def scores(exported: saved_model.Exported, contents: Iterable[bytes]) -> np.ndarray:
    of_each = [
        exported.predict(image_bytes=tf.constant([content]))["ood_score"].numpy()
        for content in contents
    ]
    return np.concatenate(of_each)


def page(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    prepared: Sequence[Prepared],
    sources: Sequence[str],
    base: Path | None,
    epochs: str,
) -> str:
    done = [row for of_recipe in rows.values() for row in of_recipe]
    table = read_table(prepared[-1].examples / EXAMPLES)
    excluded = read_table(prepared[-1].examples / EXCLUDED)
    lungs = done[0]["audit"]["lungs"]
    names = [setting.name.format(*sources) for setting in SETTINGS]
    fingerprints = ", ".join(
        f"`{read_json(of.examples / SUMMARY)['fingerprint'][:12]}`" for of in prepared
    )
    head = HEAD.format(
        version=version("cxrflow"),
        given=" ".join(f"--source {name}=SPEC" for name in sources),
        chosen=f"--recipes {','.join(rows)} --epochs {epochs}",
        images=len(table),
        patients=table["patient"].nunique(),
        fingerprints=fingerprints,
        dice=lungs["dice"],
        worst=lungs["worst"],
        trained=lungs["trained_on"],
        tested=lungs["tested_on"],
    )
    lines = [
        *chain.from_iterable((paragraph, "") for paragraph in head.split("\n\n")),
        *counts(table),
        "",
        duplicates(table, excluded, sources[-1]),
        "",
        "The settings. An image is in the same split in all of them:",
        "",
        *(
            f"- *{name}*: {setting.what.format(*sources)}."
            for name, setting in zip(names, SETTINGS, strict=True)
        ),
        "",
        ELSEWHERE.format(*sources),
        "",
        "## Verdicts",
        "",
        *verdicts(rows, names),
        "",
        nearest(rows, names),
    ]
    missing = [f"`{recipe}`" for recipe in RECIPES_AUDITED if not rows.get(recipe)]
    if missing:
        lines += ["", f"Not run at the papers' image size, in any setting: {', '.join(missing)}."]
    for recipe, of_recipe in rows.items():
        if of_recipe:
            lines += section(recipe, of_recipe, names, base)
    return "\n".join(map(wrapped, lines)) + "\n"


def counts(table: pd.DataFrame) -> list[str]:
    """Returns a table of images by source, label and age group."""
    grounds = table.assign(age_group=age_groups(table)).groupby([*GROUND, "label"])
    lines = [table_row("source", ["age group", "label", "images", "patients", "training", "test"])]
    lines.append(table_row("---", ["---"] * 6))
    for (source, group, label), of in grounds:
        numbers = (
            len(of),
            of["patient"].nunique(),
            *(of["split"] == part for part in (TRAIN, TEST)),
        )
        cells = [str(n if isinstance(n, int) else int(n.sum())) for n in numbers]
        lines.append(table_row(source, [group, label, *cells]))
    return lines


def duplicates(table: pd.DataFrame, excluded: pd.DataFrame, source: str) -> str:
    """Says how many images of a source are in covid-chestxray, too, and that they share its split.

    Raises:
      RuntimeError: a picture is in two splits.
    """
    first, second = splits.near_duplicates(table["perceptual_hash"]).T
    of, split = table["source"].to_numpy(), table["split"].to_numpy()
    across = ((of[first] == source) & (of[second] == covid_chestxray.NAME)) | (
        (of[second] == source) & (of[first] == covid_chestxray.NAME)
    )
    if (split[first] != split[second]).any():
        raise RuntimeError("trust: nearly the same picture is in two splits")
    pairs = np.concatenate([first[across], second[across]])
    copies = np.unique(pairs[of[pairs] == source])
    sides = pd.Series(split[copies]).value_counts()
    left_out = excluded[excluded["kind"] == "related"]["source"].value_counts()
    told = (
        f"Of the {(of == source).sum()} images of {source} that are used, {len(copies)} show the picture of "
        f"an image of {covid_chestxray.NAME} that is used (perceptual hashes at most "
        f"{splits.NEAR_DUPLICATE_BITS} of 256 bits apart), under other names and patients. Each is in the "
        "split of its copy: "
        + ", ".join(f"{count} in {name}" for name, count in sides.items())
        + "."
    )
    if len(left_out):
        gone = " and ".join(f"{count} of {name}" for name, count in left_out.items())
        told += f" Not used, because they tie images of training to images of the test: {gone}."
    return told


def verdicts(rows: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str]) -> list[str]:
    lines = [table_row("recipe", ["setting", "verdict", "reasons"]), table_row("---", ["---"] * 3)]
    for recipe, of_recipe in rows.items():
        for of in of_recipe:
            trust = of["audit"]["trust"]
            reasons = "; ".join(trust["reasons"])
            lines.append(
                table_row(
                    f"`{recipe}`", [names[of["position"]], f"**{trust['verdict']}**", reasons]
                )
            )
    return lines


def nearest(rows: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str]) -> str:
    """Says how many networks are trusted; if none is, which one is nearest to it."""
    every = [(recipe, of) for recipe, of_recipe in rows.items() for of in of_recipe]
    trusted = [of for _, of in every if of["audit"]["trust"]["verdict"] == Verdict.TRUSTED]
    if trusted:
        return f"{len(trusted)} of {len(every)} networks are trusted."

    def distance(of: Mapping[str, Any]) -> tuple[int, float]:
        broken = [rule for rule in of["audit"]["rules"] if rule["outcome"] == Outcome.BROKEN]
        return len(broken), sum(abs(rule["value"] - rule["bound"]) for rule in broken)

    recipe, best = min(every, key=lambda one: distance(one[1]))
    way = obstacles([best], names)[0].removeprefix("- ")
    return f"None of {len(every)} networks is trusted. The nearest is `{recipe}`, {way}"


def section(
    recipe: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], base: Path | None
) -> list[str]:
    card = rows[0]["card"]
    classes = card["recipe"]["classes"]
    heads = [names[of["position"]] for of in rows]
    missing = [name for name in names if name not in heads]
    return [
        "",
        f"## {recipe}, {card['recipe']['epochs']} epochs",
        "",
        begun(recipe, card, base),
        "",
        *side_by_side(heads, [figures(of["audit"], recipe) for of in rows]),
        "",
        f"Chance is a mean recall of {100 / len(classes):.0f} %. Values that break a rule are in bold.",
        *(["", f"Not run: {', '.join(f'*{name}*' for name in missing)}."] if missing else []),
        "",
        "What changed between settings:",
        "",
        *changes(rows, names),
        "",
        "What stood in the way of `trusted`:",
        "",
        *obstacles(rows, names),
        "",
        UNKNOWN,
        "",
        *side_by_side(heads, [of_unknown(of) for of in rows]),
    ]


def side_by_side(heads: Sequence[str], columns: Sequence[Mapping[str, str]]) -> list[str]:
    """Returns a table with a column for each setting."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        table_row("", heads),
        table_row("---", ["---"] * len(heads)),
        *(table_row(name, [column.get(name, "–") for column in columns]) for name in names),
    ]


def figures(audited: Mapping[str, Any], recipe: str) -> dict[str, str]:
    """Returns what a page tells of an audit."""
    published = recipe_named(recipe).published[0].figures["accuracy"]
    views = audited["views"]
    told = {"**verdict**": f"**{audited['trust']['verdict']}**"}
    for rule in audited["rules"]:
        side = "at least" if rule["at_least"] else "at most"
        told[f"`{rule['name']}`, {side} {rule['bound']:g}"] = measured(audited, rule)
    told[f"accuracy (published: {100 * published:.1f} %)"] = rate(views[View.WHOLE]["accuracy"])
    for name, recall in views[View.WHOLE]["recall"].items():
        told[f"recall of {name}"] = rate(recall)
    for view in View:
        told[f"mean recall, {view}"] = f"{100 * views[view]['balanced']:.1f} %"
    swaps, alike = audited["swaps"], audited["like_with_like"]
    followed = "{lungs}, {surroundings}, {neither}".format(**swaps)
    told |= {
        "answers that follow the lungs, the surroundings, neither": followed,
        "controls that keep their answer": rate(swaps["control"]),
        "like with like: images with COVID, others": f"{alike['covid']}, {alike['others']}",
        "adults without COVID in the test split": str(audited["adults"]["images"]),
    }
    for place in audited["external"]:
        name = place["name"]
        told |= {
            f"{name}: images judged, left out as seen": (
                f"{place['images']}, {place['left_out']['seen']}"
            ),
            f"{name}: abstained": rate(place["abstained"]),
        }
        if place["others"]:
            told[f"{name}: called COVID"] = rate(place["called_covid"])
        for label, recall in place["recall"].items():
            told[f"{name}: recall of {label}"] = rate(recall)
    return told


def of_unknown(of: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a page tells of images that must not be answered."""
    rejected = of["audit"]["abstention"]["rejected"]["value"]
    return {
        "the test split itself": f"{100 * rejected:.0f} %",
        **{
            f"{name} ({found['images']})" if "inverted" not in name else name: (
                f"{found['auc']:.2f}, {100 * found['rejected']['value']:.0f} %"
            )
            for name, found in of["unknown"].items()
        },
    }


def begun(recipe: str, card: Mapping[str, Any], base: Path | None) -> str:
    """Says from what the networks of a section were trained."""
    paper = RECIPES[recipe.partition("+")[0]]
    started = "The networks see {} × {} pixels and were trained ".format(
        *card["recipe"]["input_size"]
    )
    started += f"{card['starting_point']}."
    trains = "The paper has {1} × {2} pixels and {0} epochs.".format(
        paper.epochs, *paper.input_size
    )
    if not base or not paper.pretrained:
        return f"{started} {trains}"
    told = read_json(base / PRETRAINING)
    classes = ", ".join(f"{count} {name}" for name, count in told["classes"].items())
    return (
        f"{started} The base had {told['epochs']} epochs on {told['images']} images of "
        f"{kermany.NAME} ({classes}), {told['input_size'][0]} pixels wide, and reached a validation accuracy "
        f"of {100 * told['validation_accuracy']:.0f} %. No test image and no image from elsewhere is related "
        f"to one of them. {trains}"
    )


def changes(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Says which rules have another outcome than in the setting that each is compared with."""
    by_position = {of["position"]: of["audit"] for of in rows}
    lines = []
    for position, audited in by_position.items():
        before = SETTINGS[position].compared
        if before is None or before not in by_position:
            continue
        earlier = by_position[before]
        told = [
            f"`{now['name']}` from {short(then)} to {short(now)}"
            for then, now in zip(earlier["rules"], audited["rules"], strict=True)
            if then["outcome"] != now["outcome"]
        ]
        moved = "; ".join(told) or "no rule has another outcome"
        lines.append(f"- from *{names[before]}* to *{names[position]}*: {moved}.")
    return lines or ["- One setting alone was run."]


def short(rule: Mapping[str, Any]) -> str:
    if rule["value"] is None:
        return str(rule["outcome"])
    return f"{rule['value']:.2f} ({rule['outcome']})"


def obstacles(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Says of each setting which rules are broken and by how much, and which cannot be judged."""
    lines = []
    for of in rows:
        if of["audit"]["trust"]["verdict"] == Verdict.TRUSTED:
            lines.append(f"- *{names[of['position']]}*: nothing; every rule is kept.")
            continue
        told = []
        for rule in of["audit"]["rules"]:
            if rule["outcome"] == Outcome.BROKEN:
                by = abs(rule["value"] - rule["bound"])
                told.append(
                    f"`{rule['name']}` by {by:.2f} ({rule['value']:.2f} instead of {rule['bound']:g})"
                )
            elif rule["outcome"] == Outcome.NOT_JUDGED and rule["reason"]:
                told.append(f"`{rule['name']}` is not judged ({rule['reason']})")
        lines.append(f"- *{names[of['position']]}*: {'; '.join(told)}.")
    return lines


def wrapped(text: str) -> str:
    """Wraps a paragraph or an item of a list; headings and rows of tables stay as they are."""
    if text[:1] in ("", "#", "|"):
        return text
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(
        text, 110, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def table_row(what: str, cells: Iterable[str]) -> str:
    return f"| {what} | " + " | ".join(cells) + " |"


def measured(audited: Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    """Returns a rule's value with the interval of what it measures, in bold if the rule is broken."""
    if rule["value"] is None:
        return str(rule["outcome"])
    value = f"{rule['value']:.2f}".removesuffix(".00")
    if rule["outcome"] == Outcome.BROKEN:
        value = f"**{value}**"
    interval = interval_of(audited, rule)
    return f"{value} ({interval['low']:.2f}–{interval['high']:.2f})" if interval else value


def interval_of(audited: Mapping[str, Any], rule: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns the interval of what a rule measures; None for a count and where none is measured."""
    rates: dict[str, list[Any]] = {
        "follows-lungs": [audited["swaps"]["follows"]],
        "false-alarms": [audited["adults"]["false_alarms"]],
        "subgroup-recall": [(audited["lowest_subgroup"] or {}).get("recall")],
        "external-false-alarms": [place["called_covid"] for place in audited["external"]],
        "external-drop": [of for place in audited["external"] for of in place["drop"].values()],
    }
    if rule["name"] == "like-with-like":  # its value is the lower end
        rates["like-with-like"] = [{**audited["like_with_like"]["auc"], "value": rule["value"]}]
    matching = (of for of in rates.get(rule["name"], []) if of and of["value"] == rule["value"])
    return next(matching, None)


def rate(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return "–"
    return f"{100 * value['value']:.0f} % ({100 * value['low']:.0f}–{100 * value['high']:.0f})"


HEAD = """# Audits on real X-rays

Written by `python -m bench.trust --covid DIR --kermany DIR {given} --base DIR --output DIR
{chosen}` of cxrflow {version}.

The data: {images:,} frontal images of {patients:,} patients of the covid-chestxray-dataset of June
2020, a sample of Kermany's images and two further sources; fingerprints of the three sets {fingerprints}.
Ages are those that each collection publishes for all of its images. [Trust](trust.md) says what is
measured and how. All intervals are 95 % confidence intervals.

**The networks were trained for few epochs**, so these are not the figures of the papers' systems. The lung
segmenter, trained on {trained} masks, reaches a Dice coefficient of {dice:.3f} on {tested} held-out masks
(lowest: {worst:.3f}).

All images that are used:"""

ELSEWHERE = """Images from elsewhere (`--external`) are the same for all settings: those of {0} and {1} whose
patients are in no training. `{0}-normal` and `{1}-covid` are their test images; `{0}-other` are
images with a finding that is none of the labels, so no network has seen such an image. Some of {0}'s images
are of children or of unknown age. In settings without a source, the images that the training data have as
well are left out."""

UNKNOWN = """How well the out-of-distribution score separates images that must not be answered from the test
split (area under the ROC curve), and how many of them the model abstains from:"""


if __name__ == "__main__":
    typer.run(main)
