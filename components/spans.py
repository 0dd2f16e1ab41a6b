"""Spans: the states that a growing dataset has been ingested in, one after the other.

An archive is a directory, or a place in an object store, that outlives runs:

    <archive>/spans/00001.json       one file a span, written last, once, and never changed
    <archive>/spans/00001.outcome.json  what has come of it: a training, or not
    <archive>/tables/<digest>.parquet  the tables that it names, by their content
    <archive>/records/               the TFRecord shards of all spans; see `components.write_records`

A span is a state of the whole dataset. It begins when images, labels, patients or anything else that is
known of them have changed since the last; a second ingest of the same makes none. Whoever is killed
before the span's file is there has changed nothing; of two at once one wins, and the other is told. Tables
are read and written by `components.span_tables`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.files import write_json
from components.locations import names, reaching

_NAME = re.compile(r"(\d{5,})\.json")


@dataclass(frozen=True, kw_only=True)
class Span:
    """A state of the dataset.

    Attributes:
      number: from 1.
      fingerprint: of the images, labels, patients and splits; see `example_tables.fingerprint`.
      digest: of all that is in its tables.
      added, changed, withdrawn: how many images are used that were not in the span before, are used
        otherwise (another label, patient, or other bytes), and are used no longer.
      added_by_label: of `added`, how many are of each label.
      settings: what ingest was told that decides what is used.
      tables: by name, where they are below `tables/`.
      summary: what `ingest` returned.
    """

    number: int
    fingerprint: str
    digest: str
    added: int
    changed: int
    withdrawn: int
    added_by_label: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)


def newest(archive: Path) -> Span | None:
    """Returns the last span, or None where there is none yet.

    Raises:
      UserError: the archive cannot be read.
    """
    with reaching(archive):
        found = names(archive / "spans")
    numbers = [int(match[1]) for name in found if (match := _NAME.fullmatch(name))]
    return span(archive, max(numbers)) if numbers else None


def span(archive: Path, number: int) -> Span:
    """Returns a span by its number.

    Raises:
      UserError: there is none of that number.
    """
    file = archive / "spans" / f"{number:05d}.json"
    with reaching(archive):
        try:
            return Span(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise UserError(f"{archive} has no span {number}") from error


def outcome(archive: Path, number: int) -> dict[str, Any] | None:
    """Returns what has come of a span: `trained`, and `reason`; or None where that is open yet."""
    file = archive / "spans" / f"{number:05d}.outcome.json"
    with reaching(archive):
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def record_outcome(archive: Path, number: int, what: Mapping[str, Any]) -> None:
    """Writes what has come of a span; that models were trained on it is not forgotten again."""
    past = outcome(archive, number)
    if not (past and past["trained"] and not what["trained"]):
        with reaching(archive):
            write_json(archive / "spans" / f"{number:05d}.outcome.json", what)
