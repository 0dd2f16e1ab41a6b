"""Step `validate`: holds the examples against the kept schema, with TensorFlow Data Validation.

The schema is `components/validation/schema.pbtxt`; what is only warned of is in `warnings.pbtxt`
beside it.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp import dsl

from components import pages
from components.divisions import SPLITS
from components.errors import UserError
from components.examples import EXAMPLES, SUMMARY
from components.files import read_json, write_aside, write_text
from components.pages import plots
from components.progress import logger
from components.step import data_step

ANOMALIES, PAGE = "anomalies.json", "validation.html"

# Names the interpreter that has TFDV, where this one does not; see docs/data.md.
TFDV_PYTHON = "CXRFLOW_TFDV_PYTHON"

_VALIDATION = Path(__file__).parent / "validation"
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
}
_MOST_VALUES = 14


def validate(examples: Path, output: Path) -> list[dict[str, Any]]:
    """Computes statistics for each split and compares them with the schema.

    Args:
      examples: the output of `ingest`.
      output: a directory to be made, with `<split>/FeatureStats.pb` and `<split>/Anomalies.pb`
        (TensorFlow Metadata's protos), `schema.pbtxt`, `anomalies.json` and `validation.html`.
        Written aside and renamed.

    Returns:
      what `anomalies.json` says; see `components/validation/tfdv.py`.

    Raises:
      UserError: an anomaly has the severity error (`output` is there to look at), or TFDV is not
        installed.
    """
    with write_aside(output) as aside:
        aside.mkdir()
        _run_tfdv(
            examples / EXAMPLES,
            _VALIDATION / "schema.pbtxt",
            _VALIDATION / "warnings.pbtxt",
            aside,
        )
        found = list(read_json(aside / ANOMALIES))
        summary = read_json(examples / SUMMARY)
        statistics = {
            split: read_json(aside / split / "FeatureStats.json")["datasets"][0]["features"]
            for split in SPLITS
        }
        page = pages.render(
            "validation.html",
            version=version("cxrflow"),
            fingerprint=summary["fingerprint"],
            phantoms=summary["phantoms"],
            summary=summary,
            found=found,
            plots=_plots(statistics),
            splits=list(zip(SPLITS, plots.COLOURS, strict=False)),
        )
        write_text(aside / PAGE, page)
    _judge(found, output)
    return found


def _run_tfdv(*arguments: Path) -> None:
    program = [_interpreter(), str(_VALIDATION / "tfdv.py"), *map(str, arguments)]
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
        "validate: TensorFlow Data Validation is not installed. Where glibc is 2.39 or later, install "
        f"cxrflow[tfdv]; else let {TFDV_PYTHON} name a Python that has it (`make setup` builds one)."
    )


def _judge(found: Sequence[Mapping[str, Any]], output: Path) -> None:
    warnings: dict[str, list[str]] = {}
    for anomaly in found:
        if anomaly["severity"] != "error":
            warnings.setdefault(anomaly["details"], []).append(anomaly["split"])
    for details, in_splits in warnings.items():
        logger.warning("warning (%s): %s", ", ".join(in_splits), details)
    errors = [anomaly for anomaly in found if anomaly["severity"] == "error"]
    if errors:
        first = errors[0]
        rows = ", ".join(first["rows"][:3]) or "all"
        more = f" {len(errors) - 1} more anomalies." if len(errors) > 1 else ""
        raise UserError(
            f"validate: feature {first['feature']!r} of the {first['split']} split: "
            f"{first['details'].rstrip('.')}. Rows ({first['count'] or 'all'}): {rows}.{more} See "
            f"{output / PAGE}; mend the source, or extend components/validation/schema.pbtxt."
        )
    logger.info("the examples are as the schema wants them; warnings: %d", len(warnings))


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


def _categories(feature: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    for split, statistics in feature.items():
        for bucket in statistics["string_stats"].get("rank_histogram", {}).get("buckets", []):
            counts.setdefault(bucket["label"], {})[split] = int(bucket["sample_count"])
    ordered = sorted(counts, key=lambda value: -sum(counts[value].values()))
    shown = {
        value: {s: counts[value].get(s, 0) for s in feature} for value in ordered[:_MOST_VALUES]
    }
    left_out = len(ordered) - len(shown)
    note = f"{left_out} rarer values are not drawn." if left_out > 0 else ""
    missing = _missing(feature, "string_stats")
    return {"drawing": plots.bars(shown) if shown else None, "missing": missing, "note": note}


def _numbers(feature: Mapping[str, Mapping[str, Any]], unit: str) -> dict[str, Any]:
    buckets: dict[str, list[tuple[float, float, float]]] = {}
    for split, statistics in feature.items():
        for histogram in statistics["num_stats"].get("histograms", []):
            if histogram.get("type", "STANDARD") == "STANDARD" and histogram.get("buckets"):
                buckets[split] = [
                    (b.get("low_value", 0.0), b.get("high_value", 0.0), b.get("sample_count", 0.0))
                    for b in histogram["buckets"]
                ]
    missing = _missing(feature, "num_stats")
    drawing = plots.histogram(buckets, unit) if buckets else None
    return {"drawing": drawing, "missing": missing, "note": ""}


def _missing(feature: Mapping[str, Mapping[str, Any]], kind: str) -> int:
    return sum(
        int(statistics[kind]["common_stats"].get("num_missing", 0))
        for statistics in feature.values()
    )


@data_step
def validate_step(
    examples: dsl.Input[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Holds the examples against the kept schema, with TensorFlow Data Validation. See `validate`."""
    import shutil
    from pathlib import Path

    from components.validate import PAGE, validate

    try:
        validate(Path(examples.path), Path(validation.path))
    finally:
        if Path(validation.path, PAGE).is_file():
            shutil.copyfile(Path(validation.path, PAGE), page.path)
