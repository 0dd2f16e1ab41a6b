"""Step `ingest`: opens every image of the sources, and decides which are used and in which split.

An Apache Beam pipeline reads, hashes and decodes the images on any Beam runner. Its result, a row for
each image, is small enough to label, group and split in one place.
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
from components.data.named_images import digest_of_names, named_images, require_every_label
from components.data.sources import covid_chestxray, kermany, listed
from core.artifacts import EXAMPLES, EXCLUDED, PREVIOUS, SUMMARY
from core.errors import UserError
from core.files import write_aside, write_json
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
    adds_span: bool = True,
    sources: Mapping[str, listed.Listed] | None = None,
) -> dict[str, Any]:
    """Reads the sources and writes which images are used, which are not and why, and a summary.

    With an archive, it opens only images that no earlier ingest has opened, or whose file size has changed
    since. Labels and patients are always the sources' current ones, and splits stay: see
    `components.data.spans` and `splits.extend`.

    Args:
      covid_directory: the covid-chestxray-dataset; see `core.locations`.
      kermany_directory: Kermany's chest X-rays.
      output: the directory to write, with `examples.parquet` (columns as in `SCHEMA`), `excluded.parquet`
        (as in `EXCLUDED_SCHEMA`), `summary.json` and, if there is an earlier span, its examples as
        `previous.parquet`. Written aside and renamed.
      views: the projections of the first source to keep.
      seed: of the split, and of the drawing of a subset.
      folds, split_by: see `splits.assign`.
      subset: draws as many images of each class as this recipe's paper had; None: all are used.
      beam_options: see `components.data.beam_options`.
      archive: gets a span, unless nothing has changed since the last one; only for the three splits, and
        without `subset`. If another run adds a span at the same time, this one restarts from it. None:
        everything is read.
      adds_span: False to read the archive alone: its splits stay, and it gets no span.
      sources: further sources, by name.

    Returns:
      the summary: counts by source, label and split, excluded images by reason, files that are named but
      missing, files that are not named, leakage (see `splits.Leakage`), `phantoms` (whether cxrflow drew the
      images), `further_sources` by name, `columns` of the first source's metadata, `span` (see `spans.Span`;
      also how many images were `opened`), and `fingerprint`, which is the same exactly if the images, labels,
      patients and splits are.

    Raises:
      UserError: a source's directory is missing or empty, a label has no image or too few patients; or
        the archive was begun with another seed.
      RuntimeError: the split leaks, although it is not random. Nothing is written.
    """
    job = _Job(
        published={covid_chestxray.NAME: covid_directory, kermany.NAME: kermany_directory},
        sources=sources or {},
        views=views,
        seed=seed,
        folds=folds,
        split_by=split_by,
        subset=subset,
        beam_options=beam_options,
        archive=archive,
        adds_span=adds_span,
    )
    while True:
        try:
            return _ingested(job, output)
        except spans.Overtaken:
            logger.info("another run has added a span to %s: restarting from that span", archive)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    """The arguments of `ingest`."""

    published: Mapping[str, Path]
    sources: Mapping[str, listed.Listed]
    views: Sequence[str]
    seed: int
    folds: int
    split_by: str
    subset: Recipe | None
    beam_options: Sequence[str]
    archive: Path | None
    adds_span: bool


def _ingested(job: _Job, output: Path) -> dict[str, Any]:
    before = spans.newest(job.archive) if job.archive else None
    seen = SEEN_SCHEMA.empty_table().to_pandas()
    if job.archive and before:
        spans.require_seed(job.archive, before, job.seed)
        seen = span_tables.table(job.archive, before, SEEN)
    named, files = named_images(job.published, job.views, job.sources)
    to_use, excluded = _usable(named)
    with write_aside(output) as aside:
        aside.mkdir()
        images, opened = _with_facts(job, to_use, seen, before, aside / "opened")
        examples, unreadable = _readable(images)
        excluded += unreadable
        counts = f"{len(examples)} images are usable, {sum(map(len, excluded))} are not"
        require_every_label(examples["label"], counts)
        if job.subset:
            examples, rest = drawn(examples, job.subset, job.seed)
            excluded.append(rest)
        examples, related = _split(job, examples, seen, before)
        excluded += related
        unused = pd.concat(excluded)[EXCLUDED_SCHEMA.names].sort_values(["source", "path"])
        summary = _summary(job, examples, unused, named, files)
        tables = {
            "examples": pa.Table.from_pandas(examples, SCHEMA, preserve_index=False),
            "excluded": pa.Table.from_pandas(unused, EXCLUDED_SCHEMA, preserve_index=False),
        }
        if job.archive and job.adds_span:
            remembered = _remembered(seen, images, examples)
            names = digest_of_names(named)
            settings = {"seed": job.seed, "views": list(job.views), "named": names}
            span = _span(job.archive, before, examples, tables, remembered, settings, summary)
            spans.record_names(job.archive, span, names)
            summary["span"] = {
                "archive": str(job.archive),
                "opened": opened,
                **{key: getattr(span, key) for key in _OF_SPAN},
            }
            _write_previous(job.archive, span, aside / PREVIOUS)
        pq.write_table(tables["examples"], aside / EXAMPLES)
        pq.write_table(tables["excluded"], aside / EXCLUDED)
        write_json(aside / SUMMARY, summary)
    _say(summary, len(unused))
    return summary


def _usable(named: pd.DataFrame) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Returns the images that have a label and a file, and the others with `kind` and `reason`."""
    usable = named["label"].notna() & (named["excluded"] == "")
    present = named["size"] >= 0
    return named[usable & present], [
        # Given a column longer than itself, an empty frame would grow to the column's length.
        named[~usable].assign(kind="metadata", reason=lambda rows: rows["excluded"]),
        named[usable & ~present].assign(
            kind="absent", reason="the metadata names it, it is not there"
        ),
    ]


def _with_facts(
    job: _Job, named: pd.DataFrame, seen: pd.DataFrame, before: spans.Span | None, scratch: Path
) -> tuple[pd.DataFrame, int]:
    """Returns images with the facts of their files, sorted by `id`, and how many had to be opened."""
    known = set(named.merge(seen[["id", "size"]], on=["id", "size"])["id"])
    new = named[~named["id"].isin(known)]
    logger.info("%d usable images named by the sources, %d to open", len(named), len(new))
    opened = pd.DataFrame(columns=_FACTS)
    if len(new):
        # Imported here, because it brings Beam.
        from components.data.open_images import open_images

        directories = {
            **job.published,
            **{name: source.directory for name, source in job.sources.items()},
        }
        table = open_images(new, directories, SCHEMA, job.beam_options, scratch)
        opened = table.to_pandas()[_FACTS]
    facts = pd.concat(
        [
            seen.loc[seen["id"].isin(known), [*_FACTS, "span"]],
            opened.assign(span=before.number + 1 if before else 1),
        ],
        ignore_index=True,
    )
    return named.merge(facts, on="id").sort_values("id", ignore_index=True), len(new)


def _readable(images: pd.DataFrame) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Returns the images that can be used, and the others with `kind` and `reason`."""
    bad = images["kind"].notna()
    good = images[~bad]
    conflict = good.groupby("sha256")["label"].transform("nunique") > 1
    conflicting = good[conflict].assign(
        kind="conflict", reason="the same bytes stand under two labels"
    )
    return good[~conflict].reset_index(drop=True), [images[bad], conflicting]


def _split(
    job: _Job, examples: pd.DataFrame, seen: pd.DataFrame, before: spans.Span | None
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Returns the examples with a `split`, and those that fit in no split with `kind` and `reason`."""
    if not before:
        split = splits.assign(examples, job.seed, folds=job.folds, by=job.split_by)
        return examples.assign(split=split), []
    examples["split"] = splits.extend(examples, seen[seen["split"].notna()], job.seed)
    related = examples["split"] == ""
    excluded = examples[related].assign(
        kind="related", reason="trained on before a relative in the test split was found"
    )
    return examples[~related].reset_index(drop=True), [excluded]


def _write_previous(archive: Path, span: spans.Span, file: Path) -> None:
    """Writes the examples of the previous span, if there is one."""
    if span.number > 1:
        previous = span_tables.table(archive, spans.span(archive, span.number - 1), "examples")
        columns = previous.reindex(columns=SCHEMA.names)
        pq.write_table(pa.Table.from_pandas(columns, SCHEMA, preserve_index=False), file)


_FACTS = [name for name in SEEN_SCHEMA.names if name not in ("size", "patient", "split", "span")]
_OF_SPAN = ("number", "fingerprint", "added", "changed", "withdrawn", "added_by_label")


def _remembered(seen: pd.DataFrame, opened: pd.DataFrame, examples: pd.DataFrame) -> pa.Table:
    """Returns what later spans need to know of every image that was ever opened; see `SEEN_SCHEMA`."""
    now = opened[~opened["kind"].isin(["absent", "unreadable"])]  # those may be readable next time
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
    """Returns the span of this state: the last one if nothing has changed, otherwise a new one."""
    digest = span_tables.digest_of(tables)
    if before and before.digest == digest:
        logger.info("nothing has changed since span %d", before.number)
        return before
    columns = ["id", "sha256", "label", "patient"]
    then = span_tables.table(archive, before, "examples") if before else examples.iloc[:0]
    both = examples[columns].merge(then[columns], on="id")
    added = examples[~examples["id"].isin(then["id"])]
    span = spans.Span(
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
    span = span_tables.commit(archive, span, {**tables, SEEN: seen})
    logger.info(
        "span %d: %d images added, %d changed, %d withdrawn",
        span.number,
        span.added,
        span.changed,
        span.withdrawn,
    )
    return span


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
            "no patient or picture is in both training and test; in a random split, %d of %d test images "
            "would have a relative in training",
            leak["random"],
            leak["test"][1],
        )
    else:
        logger.info(
            "random split: %d of %d test images have their patient or picture in training",
            leak["ours"],
            leak["test"][0],
        )


def drawn(examples: pd.DataFrame, recipe: Recipe, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draws as many images of each class as a recipe's paper used, or all if there are fewer.

    Args:
      examples: with the columns `id` and `label`.
      seed: of the drawing, which does not depend on the order of the rows.

    Returns:
      the drawn images, with a new index, and the rest, with `kind` and `reason`.

    Raises:
      UserError: the paper's numbers are not known.
    """
    if not recipe.subset:
        raise UserError(f"subset: the paper of {recipe.name} does not say how many images it used")
    lot = (examples["id"] + f"/{seed}").map(lambda text: hashlib.sha256(text.encode()).hexdigest())
    of_class = examples["label"].map(recipe.task)
    rank = lot.groupby(of_class).rank()
    # An image without a class has no rank and is not chosen.
    chosen = rank <= of_class.map(recipe.subset)
    rest = examples[~chosen].assign(
        kind="subset", reason=f"not drawn: {recipe.name}'s paper has fewer images"
    )
    return examples[chosen].reset_index(drop=True), rest


def _summary(
    job: _Job,
    examples: pd.DataFrame,
    excluded: pd.DataFrame,
    named: pd.DataFrame,
    files: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    """Returns the summary of `ingest`, without a span.

    Raises:
      RuntimeError: the split leaks, although it is not random.
    """

    def counts(*columns: str) -> list[dict[Any, Any]]:
        sizes = examples.groupby(list(columns)).agg(
            images=("id", "size"), patients=("patient", "nunique")
        )
        return sizes.reset_index().to_dict("records")

    leakage = splits.leakage(examples, job.seed, folds=job.folds)
    if leakage.ours and job.split_by != splits.RANDOM:
        raise RuntimeError(
            f"ingest: {leakage.ours} test images have their patient or picture in training. This is a bug in "
            "components/data/splits.py; nothing was written"
        )
    reasons = excluded.groupby(["source", "kind", "reason"]).size().rename("images").reset_index()
    of_covid = named.loc[named["source"] == covid_chestxray.NAME, "path"]
    return {
        "used": len(examples),
        "patients": int(examples["patient"].nunique()),
        "by_source": counts("source", "label"),
        "by_split": counts("split", "label"),
        "patients_by_split": examples.groupby("split")["patient"].nunique().to_dict(),
        "excluded": reasons.to_dict("records"),
        "seed": job.seed,
        "fingerprint": fingerprint(examples),
        "leakage": dataclasses.asdict(leakage),
        "split_by": job.split_by,
        "folds": job.folds,
        "subset": job.subset.name if job.subset else None,
        "absent": sorted(named.loc[named["size"] < 0, "id"]),
        "phantoms": any(phantoms.MARKER in paths for paths in files.values()),
        "unnamed": covid_chestxray.unnamed_files(files[covid_chestxray.NAME], of_covid),
        "further_sources": sorted(job.sources),
        "columns": covid_chestxray.columns(job.published[covid_chestxray.NAME]),
        "span": None,
    }
