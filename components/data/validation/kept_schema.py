"""The kept schema as a file of text that people review: what it knows, and adding to it.

Beside lists of values of features it has one of the columns of the first source's metadata, `columns`.

TensorFlow Metadata's protos are not installed everywhere (see `tfdv.py`), and writing one anew would lose
the file's comments and order: so the text is changed where it must be, and nothing else of it.
"""

import json
import re
from collections.abc import Iterable, Sequence

from core.errors import UserError

_VALUE = re.compile(r'value: "((?:[^"\\]|\\.)*)"')


def known_values(schema: str, feature: str) -> list[str]:
    """Returns the values that a feature may have by a schema's text.

    Raises:
      UserError: the feature has no list of values.
    """
    start, end = _domain(schema, feature)
    return [json.loads(f'"{value}"') for value in _VALUE.findall(schema[start:end])]


def listed_features(schema: str) -> list[str]:
    """Returns what has a list of values in a schema's text."""
    return re.findall(r'string_domain\s*\{\s*name: "([^"]*)"', schema)


def unknown(schema: str, feature: str, values: Iterable[str]) -> list[str]:
    """Returns the values, sorted, that a feature may not have by a schema's text."""
    return sorted(set(values) - set(known_values(schema, feature)))


def accepting(schema: str, feature: str, values: Sequence[str]) -> str:
    """Returns a schema's text in which a feature may have more values.

    Args:
      feature: whose list of values grows; `columns` is that of the metadata's columns.
      values: those that are known already are left.

    Raises:
      UserError: the feature has no list of values.
    """
    new = [value for value in values if value not in known_values(schema, feature)]
    _, end = _domain(schema, feature)
    added = "".join(f"  value: {json.dumps(value, ensure_ascii=False)}\n" for value in new)
    before = schema[:end].rstrip(" ")
    return before + ("" if before.endswith("\n") or not new else "\n") + added + schema[end:]


def _domain(schema: str, feature: str) -> tuple[int, int]:
    """Returns where the list of a feature's values begins and ends in a schema's text."""
    match = re.search(rf'string_domain\s*\{{\s*name: "{re.escape(feature)}"', schema)
    if not match:
        raise UserError(
            f"schema: {feature!r} has no list of values, only {', '.join(listed_features(schema))} "
            "have; change the file by hand for anything else"
        )
    depth, position, quoted = 1, match.end(), False
    while depth:
        character = schema[position]
        if character == "\\":
            position += 1
        elif character == '"':
            quoted = not quoted
        elif not quoted:
            depth += {"{": 1, "}": -1}.get(character, 0)
        position += 1
    return match.end(), position - 1
