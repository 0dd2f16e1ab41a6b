"""Spans: the successive states of a growing dataset, as they were ingested.

An archive is a directory, or a place in an object store, that outlives runs:

    <archive>/spans/00001.json          one file for each span, written last, once, and never changed
    <archive>/spans/00001.outcome.json  its outcome; see `record_outcome`
    <archive>/spans/00001.names.json    a digest of the sources' metadata at the last ingest
    <archive>/spans/00001.surroundings.json   what surroundings give away; see `components.data.surroundings`
    <archive>/tables/<digest>.parquet   its tables, named by their content
    <archive>/records/                  TFRecord shards of all spans; see `components.data.write_records`
    <archive>/decisions/                decisions on test splits; see `components.trust.decisions`

A span is a state of the whole dataset. An ingest adds a span if images, labels, patients or other metadata
have changed since the last one. An ingest that is killed before the span's file is written has changed
nothing. Of two concurrent ingests one adds its span first, and the other restarts from that span.
`components.data.span_tables` reads and writes the tables.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import read_json, write_json
from core.locations import names, reaching

_NAME = re.compile(r"(\d{5,})\.json")


class State(StrEnum):
    """The outcome of a span."""

    WAITS = "waits"  # no model is trained on it
    REFUSED = "refused"  # models are trained, and none passes the gate
    PASSED = "passed"  # a model passes and is not deployed yet; a scheduled run tries again
    DEPLOYED = "deployed"
    ROLLED_BACK = "rolled back"  # the model was deployed, and rolled back since


class Overtaken(UserError):
    """Another ingest has added a span with the same number; nothing of this one is kept."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A state of the dataset.

    Attributes:
      number: from 1.
      fingerprint: of the images, labels, patients and splits; see `example_tables.fingerprint`.
      digest: of the content of its tables.
      added, changed, withdrawn: numbers of images that are new in this span; that have another label,
        patient or content than before; and that are no longer used.
      added_by_label: the number of added images of each label.
      settings: the arguments of ingest that determine which images are used.
      tables: files below `tables/`, by the tables' names.
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
    """Returns the last span, or None if there is none yet.

    Raises:
      UserError: the archive cannot be read.
    """
    with reaching(archive):
        files = names(archive / "spans")
    numbers = [int(match[1]) for name in files if (match := _NAME.fullmatch(name))]
    return span(archive, max(numbers)) if numbers else None


def span(archive: Path, number: int) -> Span:
    """Returns a span by its number.

    Raises:
      UserError: there is no such span.
    """
    described = _read(archive, f"{number:05d}.json")
    if described is None:
        raise UserError(f"{archive} has no span {number}")
    return Span(**described)


def outcome(archive: Path, number: int) -> dict[str, Any] | None:
    """Returns the outcome of a span, or None if there is none yet.

    Returns:
      `state`, a `State` (empty in archives of early releases); `trained`, whether models were trained on the
      span; `reason`, a sentence.
    """
    recorded = _read(archive, f"{number:05d}.outcome.json")
    return None if recorded is None else {"state": "", **recorded}


def _read(archive: Path, name: str) -> dict[str, Any] | None:
    """Returns the content of a file of `spans/`, or None if there is no such file."""
    with reaching(archive):
        try:
            return dict(read_json(archive / "spans" / name))
        except FileNotFoundError:
            return None


def record_outcome(archive: Path, number: int, state: State, reason: str) -> None:
    """Writes the outcome of a span. Once models were trained on it, `WAITS` does not replace the outcome.

    Args:
      state: the new one.
      reason: a sentence.
    """
    past = outcome(archive, number)
    trained = state != State.WAITS
    if trained or not (past and past["trained"]):
        what = {"state": state, "trained": trained, "reason": reason}
        with reaching(archive):
            write_json(archive / "spans" / f"{number:05d}.outcome.json", what)


def not_deployed(number: int) -> str:
    """Returns a sentence for a span whose state is `PASSED`."""
    return f"A candidate of span {number} passed the gate and was not deployed: it is tried again."


def names_digest(archive: Path, last: Span) -> str:
    """Returns the digest of the sources' metadata when a span was last ingested.

    It changes without a new span if a value changes that is in no table, such as the age on a CT.
    """
    recorded = _read(archive, f"{last.number:05d}.names.json")
    return str((last.settings if recorded is None else recorded)["named"])


def record_names(archive: Path, last: Span, digest: str) -> None:
    """Writes what `names_digest` returns, unless it has not changed."""
    if digest != names_digest(archive, last):
        with reaching(archive):
            write_json(archive / "spans" / f"{last.number:05d}.names.json", {"named": digest})


def surroundings(archive: Path, number: int) -> dict[str, Any] | None:
    """Returns what was kept of what the surroundings in a span give away, or None."""
    return _read(archive, f"{number:05d}.surroundings.json")


def keep_surroundings(archive: Path, number: int, found: Mapping[str, Any]) -> None:
    """Keeps what `surroundings` returns."""
    with reaching(archive):
        write_json(archive / "spans" / f"{number:05d}.surroundings.json", found)


def require_seed(archive: Path, last: Span, seed: int) -> None:
    """Checks that an archive was begun with a seed.

    Raises:
      UserError: the archive was begun with another seed.
    """
    if last.settings["seed"] != seed:
        raise UserError(
            f"ingest: {archive} was begun with --seed {last.settings['seed']}, and its splits stay. "
            f"Continue with that seed, or begin another archive with --seed {seed}."
        )
