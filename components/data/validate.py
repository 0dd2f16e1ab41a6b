"""Step `validate`: checks the examples against the kept schema, with TensorFlow Data Validation.

The schema is `components/data/validation/schema.pbtxt`, or a site's own; `warnings.pbtxt` beside it holds
what only causes a warning. If the dataset has grown, the new images are compared with the earlier ones; and
if a server has logged features of its requests, those with the training images. Beside that it says what
these data can show of a model at all: where covid and other classes can be compared like with like, and what
the surroundings of the lungs give away.
"""

import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from components import pages
from components.data import spans
from components.data.shared_ground import shared_ground, warning
from components.data.validation import SCHEMA, WARNINGS
from components.data.validation.findings import drifted, in_words
from components.data.validation.kept_schema import accepting, unknown
from components.pages import plots
from core.artifacts import (
    ANOMALIES,
    COMPARISONS,
    EXAMPLES,
    GROUND,
    PREVIOUS,
    SUMMARY,
    SURROUNDINGS,
    VALIDATION_PAGE,
)
from core.divisions import SPLITS
from core.errors import UserError
from core.files import read_json, write_aside, write_json, write_text
from core.locations import location
from core.progress import Progress, logger
from core.tables import read_table

# The environment variable with the path of a Python that has TFDV, if this one has not; see docs/data.md.
TFDV_PYTHON = "CXRFLOW_TFDV_PYTHON"

# In the order of the page: title, and the unit of a number.
_CATEGORIES = {
    "label": "Label",
    "source": "Source",
    "view": "View",
    "sex": "Sex",
    "mode": "Pixel mode",
    "finding": "Finding, in the source's words",
}
_NUMBERS = {
    "age": ("Age", "years"),
    "offset": ("Offset since onset or admission", "days"),
    "width": ("Width", "pixels"),
    "height": ("Height", "pixels"),
    "brightness": ("Brightness", "mean of the pixels, from black to white"),
    "contrast": ("Contrast", "standard deviation of the pixels"),
    "frame": ("Brightness of the frame", "mean of the outer eighth"),
}
_KINDS = {
    "drift": "the images of the last span, compared with those of the same source before it",
    "skew": "the images that were sent to the server, compared with the training images",
}
_MOST_VALUES = 14
_KEPT = "schema.pbtxt"


def validate(
    examples: Path,
    output: Path,
    *,
    schema: Path | None = None,
    served: Path | None = None,
    directories: Mapping[str, Path] | None = None,
) -> list[dict[str, Any]]:
    """Computes statistics for each split and compares them with the schema.

    Args:
      examples: the output of `ingest`.
      output: the directory to write, with `<split>/FeatureStats.pb` and `<split>/Anomalies.pb`
        (TensorFlow Metadata's protos), `schema.pbtxt`, `anomalies.json`, `comparisons.json`, `ground.json`
        (see `shared_ground`), `surroundings.json` (see `surroundings`) and `validation.html`. Written aside
        and renamed.
      schema: the site's own; None: that of the package.
      served: the directory of a server's feature log (see `serving.feature_log`), or None.
      directories: where each source's images are, by the source's name, to look at surroundings; None: that
        is left out, and `surroundings.json` is null. Of a span it is done once, and kept in the archive.

    Returns:
      the content of `anomalies.json`; see `components/data/validation/tfdv.py`.

    Raises:
      UserError: an anomaly has the severity error (`output` is written, to look at), or TFDV is not
        installed.
    """
    with write_aside(output) as aside:
        aside.mkdir()
        summary = read_json(examples / SUMMARY)
        kept = (schema or SCHEMA).read_text("utf-8")
        # A user who names a source for a run has accepted it.
        write_text(aside / _KEPT, accepting(kept, "source", summary["further_sources"]))
        arguments = [examples / EXAMPLES, aside / _KEPT, WARNINGS, aside]
        if (examples / PREVIOUS).is_file():
            arguments += [Path("--previous"), examples / PREVIOUS]
        log = _served(served, aside / "served.parquet") if served else None
        if log:
            arguments += [Path("--served"), log]
        with Progress(
            "splits validated",
            len(summary["patients_by_split"]),
            counted=lambda: len(list(aside.glob("*/Anomalies.pb"))),
        ):
            run_tfdv(*arguments)
        anomalies = [*read_json(aside / ANOMALIES), *_strange_columns(summary, schema or SCHEMA)]
        write_json(aside / ANOMALIES, anomalies)
        compared = read_json(aside / COMPARISONS)
        statistics = {
            split: read_json(aside / split / "FeatureStats.json")["datasets"][0]["features"]
            for split in SPLITS
        }
        table = read_table(examples / EXAMPLES)
        ground = shared_ground(table)
        give_away = _surroundings(table, summary["span"], directories) if directories else None
        write_json(aside / GROUND, ground)
        write_json(aside / SURROUNDINGS, give_away)
        page = pages.render(
            VALIDATION_PAGE,
            ground=ground,
            warning=warning(ground),
            surroundings=give_away,
            fingerprint=summary["fingerprint"],
            phantoms=summary["phantoms"],
            summary=summary,
            found=anomalies,
            compared=[_drawn(comparison) for comparison in compared],
            sides=list(zip(("before", "now"), plots.COLOURS, strict=False)),
            plots=_plots(statistics),
            splits=list(zip(SPLITS, plots.COLOURS, strict=False)),
        )
        for comparison in compared:
            del comparison["statistics"]
        write_json(aside / COMPARISONS, compared)
        write_text(aside / VALIDATION_PAGE, page)
    _judge(anomalies, output)
    if warning(ground):
        logger.warning("%s", warning(ground))
    for row in give_away["rows"] if give_away else []:
        logger.info("%s, %s: ROC AUC %.2f", row["view"], row["what"], row["auc"]["value"])
    for comparison in compared:
        for measure in drifted(comparison):
            logger.warning("%s: %s", comparison["kind"], in_words(comparison, measure))
    return anomalies


def _surroundings(
    table: pd.DataFrame, span: Mapping[str, Any] | None, directories: Mapping[str, Path]
) -> dict[str, Any]:
    archive = location(span["archive"]) if span else None
    kept = spans.surroundings(archive, span["number"]) if archive and span else None
    if not kept:
        # Imported here, because it brings scikit-learn's models.
        from components.data.surroundings import surroundings

        kept = surroundings(table, directories)
        # A file that is away for a moment must not count as absent in all later runs.
        if archive and span and not kept["unread"]:
            spans.keep_surroundings(archive, span["number"], kept)
    return kept


def _served(directory: Path, output: Path) -> Path | None:
    """Returns a table of what a server has logged, or None if it has logged nothing yet."""
    files = sorted(directory.glob("*.jsonl")) if directory.is_dir() else []
    if not files:
        logger.warning(
            "no feature log in %s: requests are not compared with the training images", directory
        )
        return None
    rows = pd.concat([pd.read_json(io.StringIO(file.read_text()), lines=True) for file in files])
    rows.to_parquet(output, index=False)
    return output


def _strange_columns(summary: Mapping[str, Any], schema: Path) -> list[dict[str, Any]]:
    """Returns an anomaly for each column of the metadata that is not in the schema."""
    strange = unknown(schema.read_text("utf-8"), "columns", summary["columns"])
    return [
        {
            "split": "all",
            "feature": name,
            "severity": "warning",
            "what": "New column",
            "details": f"The metadata has a column {name!r} that is not in the schema; it is not used. "
            "`cxrflow schema accept` accepts it.",
            "rows": [],
            "count": 0,
        }
        for name in strange
    ]


def run_tfdv(*arguments: Path) -> None:
    """Runs `components/data/validation/tfdv.py` and prints its output.

    Raises:
      UserError: TFDV is not installed.
    """
    program = [_interpreter(), str(SCHEMA.with_name("tfdv.py")), *map(str, arguments)]
    # The program's directory must not shadow the packages that it imports.
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout)
    sys.stdout.write(done.stderr)
    if done.returncode:
        raise RuntimeError(
            f"TFDV ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}"
        )


def _interpreter() -> str:
    if find_spec("tensorflow_data_validation"):
        return sys.executable
    beside = Path(sys.prefix).parent / ".venv-tfdv" / "bin" / "python"
    candidates = [os.environ.get(TFDV_PYTHON, ""), str(beside)]
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return candidate
    raise UserError(
        "validate: TensorFlow Data Validation is not installed. With glibc 2.39 or later, install "
        f"cxrflow[tfdv]; otherwise set {TFDV_PYTHON} to a Python that has it (`make setup` builds one)."
    )


def _judge(anomalies: Sequence[Mapping[str, Any]], output: Path) -> None:
    warnings: dict[str, list[str]] = {}
    for anomaly in anomalies:
        if anomaly["severity"] != "error":
            warnings.setdefault(anomaly["details"], []).append(anomaly["split"])
    for details, in_splits in warnings.items():
        logger.warning("warning (%s): %s", ", ".join(in_splits), details)
    errors = [anomaly for anomaly in anomalies if anomaly["severity"] == "error"]
    if errors:
        first = errors[0]
        rows = ", ".join(first["rows"][:3]) or "all"
        more = f" {len(errors) - 1} more anomalies." if len(errors) > 1 else ""
        raise UserError(
            f"validate: feature {first['feature']!r} of the {first['split']} split: "
            f"{first['details'].rstrip('.')}. Rows ({first['count'] or 'all'}): {rows}.{more} See "
            f"{output / VALIDATION_PAGE}; correct the source, or extend "
            "components/data/validation/schema.pbtxt."
        )
    logger.info("the examples match the schema; warnings: %d", len(warnings))


def _plots(statistics: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the page's plots: title, drawing, and in how many images the feature is missing."""
    drawn = []
    for name, title in _CATEGORIES.items():
        drawn.append({"title": title, **_categories(_feature(statistics, name))})
    for name, (title, unit) in _NUMBERS.items():
        drawn.append({"title": title, **_numbers(_feature(statistics, name), unit)})
    return drawn


def _feature(statistics: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    return {
        split: next(dict(feature) for feature in features if feature["path"]["step"] == [name])
        for split, features in statistics.items()
    }


def _drawn(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a comparison with sentences, and both sides' distributions of what has drifted."""
    over = drifted(comparison)
    drawings = []
    for measure in over:
        name = measure["feature"]
        sides = _feature(comparison["statistics"], name)
        if name in _NUMBERS:
            title, unit = _NUMBERS[name]
            drawing = plots.densities(_buckets(sides), unit)
        else:
            title, drawing = _CATEGORIES[name], plots.shares(_ranked(sides)[0])
        drawings.append({"title": title, "drawing": drawing})
    return {
        **comparison,
        "what": _KINDS[comparison["kind"]],
        "said": [in_words(comparison, measure) for measure in over],
        "drawings": drawings,
    }


def _categories(feature: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    shown, left_out = _ranked(feature)
    note = f"{left_out} rarer values are not drawn." if left_out > 0 else ""
    missing = _missing(feature, "string_stats")
    return {"drawing": plots.bars(shown) if shown else None, "missing": missing, "note": note}


def _ranked(feature: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, int]], int]:
    """Returns value -> part -> images of the most frequent values, and how many there are besides."""
    counts: dict[str, dict[str, int]] = {}
    for part, statistics in feature.items():
        for bucket in statistics["string_stats"].get("rank_histogram", {}).get("buckets", []):
            counts.setdefault(bucket["label"], {})[part] = int(bucket["sample_count"])
    ordered = sorted(counts, key=lambda value: -sum(counts[value].values()))
    shown = {
        value: {s: counts[value].get(s, 0) for s in feature} for value in ordered[:_MOST_VALUES]
    }
    return shown, len(ordered) - len(shown)


def _numbers(feature: Mapping[str, Mapping[str, Any]], unit: str) -> dict[str, Any]:
    buckets = _buckets(feature)
    missing = _missing(feature, "num_stats")
    drawing = plots.histogram(buckets, unit) if buckets else None
    return {"drawing": drawing, "missing": missing, "note": ""}


def _buckets(
    feature: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[tuple[float, float, float]]]:
    buckets: dict[str, list[tuple[float, float, float]]] = {}
    for part, statistics in feature.items():
        for histogram in statistics["num_stats"].get("histograms", []):
            if histogram.get("type", "STANDARD") == "STANDARD" and histogram.get("buckets"):
                buckets[part] = [
                    (b.get("low_value", 0.0), b.get("high_value", 0.0), b.get("sample_count", 0.0))
                    for b in histogram["buckets"]
                ]
    return buckets


def _missing(feature: Mapping[str, Mapping[str, Any]], kind: str) -> int:
    return sum(
        int(statistics[kind]["common_stats"].get("num_missing", 0))
        for statistics in feature.values()
    )
