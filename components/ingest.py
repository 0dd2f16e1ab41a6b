"""Step `ingest`: opens every image the sources name, and decides which are used and in which split.

An Apache Beam pipeline reads, hashes and decodes the images on any Beam runner; what it finds, one
row an image, is small enough to label, group and split in one place.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from kfp import dsl

from components import phantoms, splits
from components.errors import UserError
from components.examples import (
    EXAMPLES,
    EXCLUDED,
    EXCLUDED_SCHEMA,
    SCHEMA,
    SUMMARY,
    fingerprint,
)
from components.files import write_aside, write_json
from components.labels import LABELS
from components.open_images import open_images
from components.progress import logger
from components.sources import covid_chestxray, kermany
from components.step import data_step
from training.recipes import Recipe


def ingest(
    covid_directory: Path,
    kermany_directory: Path,
    output: Path,
    *,
    views: Sequence[str] = covid_chestxray.FRONTAL_VIEWS,
    seed: int = 0,
    folds: int = 0,
    grouped: bool = True,
    subset: Recipe | None = None,
    beam_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Reads both sources and writes what is used, what is not and why, and a summary.

    Args:
      covid_directory: the covid-chestxray-dataset.
      kermany_directory: Kermany's chest X-rays.
      output: a directory to be made, with `examples.parquet` (columns as in `SCHEMA`),
        `excluded.parquet` (as in `EXCLUDED_SCHEMA`) and `summary.json`. Written aside and renamed.
      views: the projections to keep of the first source.
      seed: of the split, and of what is drawn.
      folds, grouped: see `splits.assign`.
      subset: the recipe whose paper's number of images of each class is drawn; None: all are used.
      beam_options: see `components.beam_options`.

    Returns:
      the summary: counts by source, label and split, what was excluded and why, files named and
      absent, files present and unnamed, leakage (see `splits.Leakage`), `phantoms` (whether the
      images are drawn by cxrflow), and `fingerprint`, which is the same exactly when the images,
      labels, patients and splits are.

    Raises:
      UserError: a source's directory is missing or empty, a label has no image or too few patients.
    """
    directories = {covid_chestxray.NAME: covid_directory, kermany.NAME: kermany_directory}
    rows = [*covid_chestxray.read(covid_directory, views), *kermany.read(kermany_directory)]
    usable = [row for row in rows if row.label and not row.excluded]
    unusable = [row for row in rows if not row.label or row.excluded]
    excluded: list[Mapping[Any, Any]] = [
        {**dataclasses.asdict(row), "kind": "metadata", "reason": row.excluded} for row in unusable
    ]
    logger.info("%d images named by the sources, %d to open", len(rows), len(usable))

    with write_aside(output) as aside:
        aside.mkdir()
        opened = open_images(
            usable, directories, SCHEMA, beam_options, aside / "opened"
        ).to_pandas()
        bad = opened["kind"].notna()
        excluded += opened.loc[bad, EXCLUDED_SCHEMA.names].to_dict("records")
        examples = opened[~bad]
        conflict = examples.groupby("sha256")["label"].transform("nunique") > 1
        disputed = examples[conflict].assign(
            kind="conflict", reason="the same bytes stand under two labels"
        )
        excluded += disputed[EXCLUDED_SCHEMA.names].to_dict("records")
        examples = examples[~conflict].sort_values("id").reset_index(drop=True)
        _require_every_label(examples, excluded)
        if subset:
            examples, left = drawn(examples, subset, seed)
            excluded += left[EXCLUDED_SCHEMA.names].to_dict("records")
        examples["split"] = splits.assign(examples, seed, folds=folds, grouped=grouped)
        table = pd.DataFrame(excluded, columns=EXCLUDED_SCHEMA.names)
        table = table.sort_values(["source", "path"])

        summary = _summarise(examples, table, seed)
        summary["leakage"] = dataclasses.asdict(splits.leakage(examples, seed, folds=folds))
        summary["grouped"], summary["folds"] = grouped, folds
        summary["subset"] = subset.name if subset else None
        summary["absent"] = sorted(
            f"{row.source}/{row.path}"
            for row in rows
            if not (directories[row.source] / row.path).exists()
        )
        summary["phantoms"] = any((d / phantoms.MARKER).exists() for d in directories.values())
        summary["unnamed"] = covid_chestxray.unnamed_files(covid_directory, rows)
        leak = summary["leakage"]
        assert leak["ours"] == 0 or not grouped, f"the split leaks: {leak}"
        _write_parquet(examples, SCHEMA, aside / EXAMPLES)
        _write_parquet(table, EXCLUDED_SCHEMA, aside / EXCLUDED)
        write_json(aside / SUMMARY, summary)
    logger.info(
        "%d images of %d patients used, %d left out, each with its reason",
        summary["used"],
        summary["patients"],
        len(table),
    )
    if grouped:
        logger.info(
            "no patient or picture on both sides of the split; split at random, %d of %d test images "
            "would have had one in training",
            leak["random"],
            leak["test"][1],
        )
    else:
        logger.info(
            "split at random: %d of %d test images have their patient or picture in training",
            leak["ours"],
            leak["test"][0],
        )
    return summary


def drawn(examples: pd.DataFrame, recipe: Recipe, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draws as many images of each class as a recipe's paper used, or all where there are fewer.

    Args:
      examples: with the columns `id` and `label`.
      seed: another seed draws others; the same images are drawn in any order of the rows.

    Returns:
      what was drawn, with a new index, and the rest, with `kind` and `reason`.

    Raises:
      UserError: the paper's numbers are not known.
    """
    if not recipe.subset:
        raise UserError(f"subset: the paper of {recipe.name} is not known to say how many images")
    lot = (examples["id"] + f"/{seed}").map(lambda text: hashlib.sha256(text.encode()).hexdigest())
    of_class = examples["label"].map(recipe.task)
    rank = lot.groupby(of_class).rank()
    chosen = rank <= of_class.map(recipe.subset)  # no class: no rank, not chosen
    rest = examples[~chosen].assign(
        kind="subset", reason=f"not drawn for the numbers of images of {recipe.name}'s paper"
    )
    return examples[chosen].reset_index(drop=True), rest


def _require_every_label(examples: pd.DataFrame, excluded: Sequence[Mapping[Any, Any]]) -> None:
    missing = sorted(set(LABELS) - set(examples["label"]))
    if missing:
        raise UserError(
            f"ingest: no usable image is labelled {', '.join(missing)} ({len(examples)} images are "
            f"usable, {len(excluded)} are not). covid comes from {covid_chestxray.WHERE_TO_GET_IT}, "
            f"normal, bacterial and viral from {kermany.WHERE_TO_GET_IT}: is each complete?"
        )


def _summarise(examples: pd.DataFrame, excluded: pd.DataFrame, seed: int) -> dict[str, Any]:
    def counts(*columns: str) -> list[dict[Any, Any]]:
        sizes = examples.groupby(list(columns)).agg(
            images=("id", "size"), patients=("patient", "nunique")
        )
        return sizes.reset_index().to_dict("records")

    reasons = excluded.groupby(["source", "kind", "reason"]).size().rename("images").reset_index()
    return {
        "used": len(examples),
        "patients": int(examples["patient"].nunique()),
        "by_source": counts("source", "label"),
        "by_split": counts("split", "label"),
        "patients_by_split": examples.groupby("split")["patient"].nunique().to_dict(),
        "excluded": reasons.to_dict("records"),
        "seed": seed,
        "fingerprint": fingerprint(examples),
    }


def _write_parquet(table: pd.DataFrame, schema: pa.Schema, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(table, schema, preserve_index=False), path)


@data_step
def ingest_step(
    covid_directory: str,
    kermany_directory: str,
    views: list[str],
    seed: int,
    beam_options: list[str],
    examples: dsl.Output[dsl.Dataset],
    folds: int = 0,
    grouped: bool = True,
    subset: str = "",
) -> None:
    """Reads both datasets, checks every image and splits by patient. See `ingest`."""
    from pathlib import Path

    from components.ingest import ingest
    from training.recipes import recipe_named

    summary = ingest(
        Path(covid_directory),
        Path(kermany_directory),
        Path(examples.path),
        views=views,
        seed=seed,
        folds=folds,
        grouped=grouped,
        subset=recipe_named(subset) if subset else None,
        beam_options=beam_options,
    )
    examples.metadata.update({key: summary[key] for key in ("used", "patients", "fingerprint")})
