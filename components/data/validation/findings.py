"""What a validation finds, for the steps after it, and how it is said."""

from collections.abc import Mapping
from typing import Any

_MEASURES = {"l_infty": "largest difference of a share", "jensen_shannon_divergence": "divergence"}


def drifted(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the measures of a comparison that are over their thresholds, the farthest first."""
    over = [one for one in comparison["measures"] if one["value"] > one["threshold"]]
    return sorted(over, key=lambda one: one["threshold"] - one["value"])


def in_words(comparison: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    """Returns a sentence about a measure that is over its threshold."""
    of = f" of {comparison['source']}" if comparison["source"] else ""
    return (
        f"{measure['feature']}{of} differs: {_MEASURES[measure['measure']]} {measure['value']:.2f}, "
        f"over {measure['threshold']:g} ({comparison['now']} images against {comparison['before']})"
    )
