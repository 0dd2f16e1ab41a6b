"""Reads the comparisons of a validation, for later steps, and puts them in words."""

from collections.abc import Mapping
from typing import Any

_MEASURES = {"l_infty": "largest difference of a share", "jensen_shannon_divergence": "divergence"}


def drifted(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the measures of a comparison that exceed their thresholds, the largest excess first."""
    over = [
        measure for measure in comparison["measures"] if measure["value"] > measure["threshold"]
    ]
    return sorted(over, key=lambda measure: measure["threshold"] - measure["value"])


def in_words(comparison: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    """Returns a sentence about a measure that exceeds its threshold."""
    of = f" of {comparison['source']}" if comparison["source"] else ""
    return (
        f"{measure['feature']}{of} differs: {_MEASURES[measure['measure']]} {measure['value']:.2f}, "
        f"over {measure['threshold']:g} ({comparison['now']} images against {comparison['before']})"
    )
