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

from components.data import phantoms, span_tables, spans, splits
from components.data.example_tables import EXCLUDED_SCHEMA, SCHEMA, SEEN, SEEN_SCHEMA, fingerprint
from components.data.named_images import digest_of_names, named_images
from components.data.sources import covid_chestxray, kermany, listed
from core.artifacts import EXAMPLES, EXCLUDED, PREVIOUS, SUMMARY
from core.errors import UserError
from core.files import write_aside, write_json
from core.labels import LABELS
from core.progress import logger
from training.recipes import Recipe


def ingest(
    covid_directory: Path,
    kermany_directory: Path,
    output: Path,
    *,
    views: Sequence[str] = covid_chestxray.FRONTAL_VIEWS,
    seed: int = 0,
    folds: int = 0,
    split_by: str = splits.PATIENT,
    subset: Recipe | None = None,
    beam_options: Sequence[str] = (),
    archive: Path | None = None,
    sources: Mapping[str, listed.Listed] | None = None,
) -> dict[str, Any]:
    """Reads the sources and writes what is used, what is not and why, and a summary.

    With an archive only images are opened that no earlier ingest has opened, or whose file has another
    size since; labels and patients are always those that the sources name now, and splits stay: see
    `components.data.spans` and `splits.extend`.

    Args:
      covid_directory: the covid-chestxray-dataset; see `core.locations`.
      kermany_directory: Kermany's chest X-rays.
      output: a directory to be made, with `examples.parquet` (columns as in `SCHEMA`),
        `excluded.parquet` (as in `EXCLUDED_SCHEMA`), `summary.json` and, where there is a span before,
        its examples as `previous.parquet`. Written aside and renamed.
      views: the projections to keep of the first source.
      seed: of the split, and of what is drawn.
      folds, split_by: see `splits.assign`.
      subset: the recipe whose paper's number of images of each class is drawn; None: all are used.
      beam_options: see `components.data.beam_options`.
      archive: gets a span, unless nothing has changed since the last; only for the three splits, and
        without `subset`. Where another run adds a span meanwhile, this one begins again from it. None:
        everything is read.
      sources: further ones, by their names.

    Returns:
      the summary: counts by source, label and split, what was excluded and why, files named and
      absent, files present and unnamed, leakage (see `splits.Leakage`), `phantoms` (whether the
      images are drawn by cxrflow), `further_sources` by name, `columns` of the first source's metadata,
      `span` (see `spans.Span`; besides, how many images were `opened`), and `fingerprint`, which is the
      same exactly when the images, labels, patients and splits are.

    Raises:
      UserError: a source's directory is missing or empty, a label has no image or too few patients; or
        the archive was begun with another seed.
    """
    while True:
        try:
            return _ingested(
                covid_directory,
                kermany_directory,
                output,
                views,
                seed,
                folds,
                split_by,
                subset,
                beam_options,
                archive,
                sources or {},
            )
        except spans.Overtaken:
            logger.info(
                "another run has added a span to %s meanwhile: beginning again from it", archive
            )


def _ingested(
    covid_directory: Path,
    kermany_directory: Path,
    output: Path,
    views: Sequence[str],
    seed: int,
    folds: int,
    split_by: str,
    subset: Recipe | None,
    beam_options: Sequence[str],
    archive: Path | None,
    sources: Mapping[str, listed.Listed],
) -> dict[str, Any]:
    directories = {covid_chestxray.NAME: covid_directory, kermany.NAME: kermany_directory}
    before = spans.newest(archive) if archive else None
    if archive and before:
        spans.require_seed(archive, before, seed)
    named, files = named_images(directories, views, sources)
    directories |= {name: source.directory for name, source in sources.items()}
    names = digest_of_names(named)
    usable = named["label"].notna() & (named["excluded"] == "")
    there = named["size"] >= 0
    excluded = [
        # Given a column longer than itself, an empty frame would grow to the column's length.
        named[~usable].assign(kind="metadata", reason=lambda rows: rows["excluded"]),
        named[usable & ~there].assign(
            kind="absent", reason="the metadata names it, it is not there"
        ),
    ]
    absent = named.loc[~there, "id"]
    of_covid = named.loc[named["source"] == covid_chestxray.NAME, "path"]
    named = named[usable & there]
    seen = SEEN_SCHEMA.empty_table().to_pandas()
    if archive and before:
        seen = span_tables.table(archive, before, SEEN)
    known = set(named.merge(seen[["id", "size"]], on=["id", "size"])["id"])
    unknown = set(named["id"]) - known
    new = named[named["id"].isin(unknown)]
    logger.info("%d images named by the sources, %d to open", len(there), len(new))

    with write_aside(output) as aside:
        aside.mkdir()
        opened = pd.DataFrame(columns=_FACTS)
        if len(new):
            from components.data.open_images import (
                open_images,  # where nothing is new, Beam is not needed
            )

            found = open_images(new, directories, SCHEMA, beam_options, aside / "opened")
            opened = found.to_pandas()[_FACTS]
        number = before.number + 1 if before else 1
        facts = pd.concat(
            [seen.loc[seen["id"].isin(known), [*_FACTS, "span"]], opened.assign(span=number)],
            ignore_index=True,
        )
        examples = named.merge(facts, on="id").sort_values("id", ignore_index=True)
        bad = examples["kind"].notna()
        excluded.append(examples[bad])
        opened_ones, examples = examples, examples[~bad]
        conflict = examples.groupby("sha256")["label"].transform("nunique") > 1
        excluded.append(
            examples[conflict].assign(
                kind="conflict", reason="the same bytes stand under two labels"
            )
        )
        examples = examples[~conflict].reset_index(drop=True)
        _require_every_label(examples, sum(map(len, excluded)))
        if subset:
            examples, left = drawn(examples, subset, seed)
            excluded.append(left)
        if before:
            examples["split"] = splits.extend(examples, seen[seen["split"].notna()], seed)
            moved = examples["split"] == ""
            excluded.append(
                examples[moved].assign(
                    kind="related",
                    reason="trained on before a relative in the test split was found",
                )
            )
            examples = examples[~moved].reset_index(drop=True)
        else:
            examples["split"] = splits.assign(examples, seed, folds=folds, by=split_by)
        out = pd.concat(excluded)[EXCLUDED_SCHEMA.names].sort_values(["source", "path"])

        summary = _summarise(examples, out, seed)
        summary["leakage"] = dataclasses.asdict(splits.leakage(examples, seed, folds=folds))
        summary["split_by"], summary["folds"] = split_by, folds
        summary["subset"] = subset.name if subset else None
        summary["absent"] = sorted(absent)
        summary["phantoms"] = any(phantoms.MARKER in paths for paths in files.values())
        summary["unnamed"] = covid_chestxray.unnamed_files(files[covid_chestxray.NAME], of_covid)
        summary["further_sources"] = sorted(sources)
        summary["columns"] = covid_chestxray.columns(covid_directory)
        leak = summary["leakage"]
        assert leak["ours"] == 0 or split_by == splits.RANDOM, f"the split leaks: {leak}"
        tables = {
            "examples": pa.Table.from_pandas(examples, SCHEMA, preserve_index=False),
            "excluded": pa.Table.from_pandas(out, EXCLUDED_SCHEMA, preserve_index=False),
        }
        summary["span"] = None
        if archive:
            remembered = _remembered(seen, opened_ones, examples)
            settings = {"seed": seed, "views": list(views), "named": names}
            one = _span(archive, before, examples, tables, remembered, settings, summary)
            spans.record_names(archive, one, names)
            summary["span"] = {
                "archive": str(archive),
                "opened": len(new),
                **{key: getattr(one, key) for key in _OF_SPAN},
            }
            if one.number > 1:
                previous = span_tables.table(
                    archive, spans.span(archive, one.number - 1), "examples"
                )
                pq.write_table(
                    pa.Table.from_pandas(
                        previous.reindex(columns=SCHEMA.names), SCHEMA, preserve_index=False
                    ),
                    aside / PREVIOUS,
                )
        pq.write_table(tables["examples"], aside / EXAMPLES)
        pq.write_table(tables["excluded"], aside / EXCLUDED)
        write_json(aside / SUMMARY, summary)
    _say(summary, len(out))
    return summary


_FACTS = [name for name in SEEN_SCHEMA.names if name not in ("size", "patient", "split", "span")]
_OF_SPAN = ("number", "fingerprint", "added", "changed", "withdrawn", "added_by_label")


def _remembered(seen: pd.DataFrame, opened: pd.DataFrame, examples: pd.DataFrame) -> pa.Table:
    """Returns what later spans must know of every image that was ever opened; see `SEEN_SCHEMA`."""
    now = opened[~opened["kind"].isin(["absent", "unreadable"])]  # those may be there the next time
    table = pd.concat(
        [seen[~seen["id"].isin(now["id"])], now.reindex(columns=SEEN_SCHEMA.names)],
        ignore_index=True,
    )
    # Once an image has a split it keeps it, used or not.
    split = pd.concat([seen, examples]).dropna(subset="split").drop_duplicates("id", keep="last")
    table["split"] = table["id"].map(split.set_index("id")["split"])
    table = table.sort_values("id", ignore_index=True)
    return pa.Table.from_pandas(table, SEEN_SCHEMA, preserve_index=False)


def _span(
    archive: Path,
    before: spans.Span | None,
    examples: pd.DataFrame,
    tables: Mapping[str, pa.Table],
    seen: pa.Table,
    settings: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> spans.Span:
    """Returns the span of this state, which is the last one where nothing has changed."""
    digest = span_tables.digest_of(tables)
    if before and before.digest == digest:
        logger.info("nothing has changed since span %d", before.number)
        return before
    columns = ["id", "sha256", "label", "patient"]
    then = span_tables.table(archive, before, "examples") if before else examples.iloc[:0]
    both = examples[columns].merge(then[columns], on="id")
    added = examples[~examples["id"].isin(then["id"])]
    one = spans.Span(
        number=before.number + 1 if before else 1,
        fingerprint=summary["fingerprint"],
        digest=digest,
        added=len(added),
        changed=sum(
            any(row[f"{name}_x"] != row[f"{name}_y"] for name in columns[1:])
            for row in both.to_dict("records")
        ),
        withdrawn=int((~then["id"].isin(examples["id"])).sum()),
        added_by_label={str(label): int(n) for label, n in added["label"].value_counts().items()},
        settings=settings,
        summary=summary,
    )
    one = span_tables.commit(archive, one, {**tables, SEEN: seen})
    logger.info(
        "span %d: %d images added, %d changed, %d withdrawn",
        one.number,
        one.added,
        one.changed,
        one.withdrawn,
    )
    return one


def _say(summary: Mapping[str, Any], left_out: int) -> None:
    logger.info(
        "%d images of %d patients used, %d left out, each with its reason",
        summary["used"],
        summary["patients"],
        left_out,
    )
    leak = summary["leakage"]
    if summary["split_by"] != splits.RANDOM:
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


def _require_every_label(examples: pd.DataFrame, excluded: int) -> None:
    missing = sorted(set(LABELS) - set(examples["label"]))
    if missing:
        raise UserError(
            f"ingest: no usable image is labelled {', '.join(missing)} ({len(examples)} images are "
            f"usable, {excluded} are not). covid comes from {covid_chestxray.WHERE_TO_GET_IT}, "
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
