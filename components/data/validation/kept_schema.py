"""Reads the allowed values in a schema's text, and adds values to it.

Besides features, the schema lists the allowed columns of the first source's metadata, as `columns`.

It is edited as text, because TensorFlow Metadata's protos are not installed everywhere (see `tfdv.py`), and
because writing a proto would lose the file's comments and order, which matter to the people who review it.
"""

import json
import re
from collections.abc import Iterable, Sequence

from core.errors import UserError

_TEXT = r'"(?:[^"\\]|\\.)*"'
_VALUE = re.compile(f"value: ({_TEXT})")
_VALUES = rf'(?:[^"}}]|{_TEXT})*'


def known_values(schema: str, feature: str) -> list[str]:
    """Returns the values that a schema's text allows for a feature.

    Raises:
      UserError: the feature has no list of values.
    """
    start, end = _domain(schema, feature)
    return [json.loads(value) for value in _VALUE.findall(schema[start:end])]


def listed_features(schema: str) -> list[str]:
    """Returns the features that have a list of values in a schema's text."""
    return re.findall(r'string_domain\s*\{\s*name: "([^"]*)"', schema)


def unknown(schema: str, feature: str, values: Iterable[str]) -> list[str]:
    """Returns the values, sorted, that a schema's text does not allow for a feature."""
    return sorted(set(values) - set(known_values(schema, feature)))


def accepting(schema: str, feature: str, values: Sequence[str]) -> str:
    """Returns a schema's text that allows more values for a feature.

    Args:
      feature: its name; `columns` for the metadata's columns.
      values: to add; values that the schema has already are skipped.

    Raises:
      UserError: the feature has no list of values.
    """
    new = [value for value in values if value not in known_values(schema, feature)]
    _, end = _domain(schema, feature)
    added = "".join(f"  value: {json.dumps(value, ensure_ascii=False)}\n" for value in new)
    before = schema[:end].rstrip(" ")
    return before + ("" if before.endswith("\n") or not new else "\n") + added + schema[end:]


def _domain(schema: str, feature: str) -> tuple[int, int]:
    """Returns the start and end of a feature's list of values in a schema's text."""
    name = re.escape(json.dumps(feature, ensure_ascii=False))
    match = re.search(rf"string_domain\s*\{{\s*name: {name}({_VALUES})\}}", schema)
    if not match:
        raise UserError(
            f"schema: {feature!r} has no list of values; only {', '.join(listed_features(schema))} have one. "
            "For anything else, edit the file by hand."
        )
    return match.span(1)
