"""An audit of a model that is there already: the steps that it needs, in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.audit import audit as measure
from components.files import read_json
from components.find_lungs import find_lungs
from components.ingest import ingest
from components.locations import location
from components.rules import parse
from components.sources import covid_chestxray, kermany, listed
from components.write_records import write_records
from serving import store
from training import export


def audit(
    model: str,
    sources: Mapping[str, str],
    further: Sequence[str],
    external: Sequence[str],
    output: Path,
    gate: str,
    views: Sequence[str],
) -> dict[str, Any]:
    """Audits a version of the model store on the test split of the data.

    Args:
      model: its directory or URL.
      sources: `covid` and `kermany`, directories or places.
      further: sources that it was trained on besides; see `components.sources.listed`.
      external: likewise, that it was not.
      output: gets a directory for each step.
      gate: see `rules.parse`.
      views: see `ingest`.

    Returns:
      what `audit.json` says.

    Raises:
      UserError: see the steps.
    """
    rules = parse(gate)
    there = store.fetched(model)
    card = read_json(there / export.CARD)
    covid, others = location(sources["covid"]), location(sources["kermany"])
    named = listed.parse(further)
    directories = {
        covid_chestxray.NAME: covid,
        kermany.NAME: others,
        **{name: source.directory for name, source in named.items()},
    }
    examples, records, lungs = (output / name for name in ("examples", "records", "lungs"))
    ingest(covid, others, examples, views=views, seed=card["seed"], sources=named)
    write_records(examples, directories, records)
    kept = output / "kept"
    find_lungs(covid, examples, records, lungs, seed=card["seed"], kept=kept)
    return measure(
        there,
        records,
        examples,
        lungs,
        output / "audit",
        external=listed.parse(external),
        gate=rules,
        kept=kept,
    )
