"""Step `report`: the whole run on one page, from the data to the decision and its reasons."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components import pages
from components.data.validation.findings import drifted, in_words
from components.pages import plots
from core.artifacts import ANOMALIES, COMPARISONS, METRICS, REPORT, SUMMARY, Trust
from core.files import read_json, write_text
from core.labels import LABELS
from core.progress import logger
from serving.verdict import DEPLOYED


def report(
    examples: Path, validation: Path, evaluations: Sequence[Path], decision: Path, output: Path
) -> None:
    """Writes the page of a run, and logs what the run deploys.

    Args:
      examples: the output of `ingest`.
      validation: the output of `validate`.
      evaluations: the outputs of `evaluate`.
      decision: the output of `gate`.
      output: the page, HTML.
    """
    summary = read_json(examples / SUMMARY)
    decided = read_json(decision)
    metrics = [read_json(evaluation / METRICS) for evaluation in evaluations]
    deployed = DEPLOYED[Trust(decided["trust"])]
    page = pages.render(
        REPORT,
        fingerprint=summary["fingerprint"],
        phantoms=summary["phantoms"],
        quick=any(evaluated["quick"] for evaluated in metrics),
        labels=LABELS,
        summary=summary,
        excluded=_by_kind(summary["excluded"]),
        found=read_json(validation / ANOMALIES),
        drift=[
            in_words(comparison, measure)
            for comparison in read_json(validation / COMPARISONS)
            for measure in drifted(comparison)
        ],
        evaluations=metrics,
        decision=decided,
        deployed=deployed,
        recalls=plots.recalls(decided["candidates"]),
        recalled=list(decided["gate"].items()),
    )
    write_text(output, page)
    logger.info("--trust %s", deployed)


def _by_kind(excluded: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the reasons, the most frequent first; reasons of single files are summed by kind."""
    rows: dict[tuple[str, str], int] = {}
    for entry in excluded:
        reason = entry["reason"] if entry["kind"] == "metadata" else ""
        key = (entry["source"], reason or f"{entry['kind']} file")
        rows[key] = rows.get(key, 0) + entry["images"]
    ordered = sorted(rows.items(), key=lambda item: -item[1])
    return [
        {"source": source, "reason": reason, "images": images}
        for (source, reason), images in ordered
    ]
