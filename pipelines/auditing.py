"""An audit of a model that is there already, and the lungs that it needs: their steps in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.data.ingest import ingest
from components.data.sources import covid_chestxray, kermany, listed
from components.data.write_records import write_records
from components.trust.audit import audit as measure
from components.trust.find_lungs import find_lungs
from components.trust.rules import parse
from core.artifacts import CARD
from core.files import alone, read_json
from core.locations import location
from serving import store

LUNGS = "lungs"
_EXAMPLES, _RECORDS = "examples", "records"


def audit(
    model: str,
    sources: Mapping[str, str],
    further: Sequence[str],
    external: Sequence[str],
    output: Path,
    gate: str,
    views: Sequence[str],
    kept: Path,
) -> dict[str, Any]:
    """Audits a version of the model store on the test split of the data.

    Args:
      model: its directory or URL.
      sources: `covid` and `kermany`, directories or places.
      further: sources that it was trained on besides; see `components.data.sources.listed`.
      external: likewise, that it was not.
      output: gets a directory for each step.
      gate: see `rules.parse`.
      views: see `ingest`.
      kept: a directory where earlier trainings are found, and what is trained here is kept.

    Returns:
      what `audit.json` says.

    Raises:
      UserError: see the steps.
    """
    rules = parse(gate)
    there = store.fetched(model)
    seen = listed.parse(external)
    with alone(output):
        _learn_lungs(sources, further, output, views, read_json(there / CARD)["seed"], kept)
        return measure(
            there,
            output / _RECORDS,
            output / _EXAMPLES,
            output / LUNGS,
            output / "audit",
            external=seen,
            gate=rules,
            kept=kept,
        )


def learn_lungs(
    sources: Mapping[str, str],
    further: Sequence[str],
    output: Path,
    views: Sequence[str],
    seed: int,
    kept: Path,
) -> dict[str, Any]:
    """Ingests the data and trains the lung segmenter on the masks of their training split.

    Args:
      sources, further, views, kept: see `audit`.
      output: gets a directory for each step, of which `lungs` has the network and its page.
      seed: of the split and the network.

    Returns:
      what `lungs.json` says; see `find_lungs`.

    Raises:
      UserError: see the steps.
    """
    with alone(output):
        return _learn_lungs(sources, further, output, views, seed, kept)


def _learn_lungs(
    sources: Mapping[str, str],
    further: Sequence[str],
    output: Path,
    views: Sequence[str],
    seed: int,
    kept: Path,
) -> dict[str, Any]:
    covid, others = location(sources["covid"]), location(sources["kermany"])
    named = listed.parse(further)
    directories = {
        covid_chestxray.NAME: covid,
        kermany.NAME: others,
        **{name: source.directory for name, source in named.items()},
    }
    examples, records = output / _EXAMPLES, output / _RECORDS
    ingest(covid, others, examples, views=views, seed=seed, sources=named)
    write_records(examples, directories, records)
    return find_lungs(covid, examples, records, output / LUNGS, seed=seed, kept=kept)
