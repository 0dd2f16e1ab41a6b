"""Runs the steps of `cxrflow audit` and `cxrflow lungs` in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data import spans
from components.data.ingest import ingest
from components.data.sources import covid_chestxray, kermany, listed
from components.data.write_records import write_records
from components.trust.audit import audit as measure
from components.trust.find_lungs import find_lungs
from core.artifacts import CARD
from core.files import alone, read_json
from core.locations import location
from serving import store

LUNGS = "lungs"
_EXAMPLES, _RECORDS = "examples", "records"


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data to ingest; the names are those of a pipeline's parameters.

    Attributes:
      covid_directory, kermany_directory: the two published datasets, as directories or places.
      views: projections of the first to keep; see `ingest`.
      sources: further sources that the model was trained on; see `components.data.sources.listed`.
    """

    covid_directory: str
    kermany_directory: str
    views: Sequence[str]
    sources: Sequence[str]


def audit(
    model: str, data: Data, external: Sequence[str], output: Path, kept: Path, archive: Path
) -> dict[str, Any]:
    """Audits a version of the model store on the test split of the data.

    Args:
      model: its directory or URL.
      data: the sources that it was trained on.
      external: further sources, which it was not trained on.
      output: gets a directory for each step.
      kept: a directory with earlier lung segmenters, which also keeps the segmenter of this call.
      archive: of the data's states; if it has a span, images are split as there, and it stays as it is.

    Returns:
      the content of `audit.json`.

    Raises:
      UserError: see the steps.
    """
    version = store.fetched(model)
    unseen = listed.parse(external)
    with alone(output):
        last = spans.newest(archive)
        seed = last.settings["seed"] if last else read_json(version / CARD)["seed"]
        _learn_lungs(data, output, seed, kept, archive if last else None)
        return measure(
            version,
            output / _RECORDS,
            output / _EXAMPLES,
            output / LUNGS,
            output / "audit",
            external=unseen,
            views=data.views,
        )


def learn_lungs(data: Data, output: Path, seed: int, kept: Path) -> dict[str, Any]:
    """Ingests the data and trains the lung segmenter on the masks of the training split.

    Args:
      data: the sources.
      output: gets a directory for each step; `lungs` holds the network and its page.
      seed: of the split and the network.
      kept: see `audit`.

    Returns:
      the content of `lungs.json`; see `find_lungs`.

    Raises:
      UserError: see the steps.
    """
    with alone(output):
        return _learn_lungs(data, output, seed, kept, None)


def _learn_lungs(
    data: Data, output: Path, seed: int, kept: Path, archive: Path | None
) -> dict[str, Any]:
    covid, others = location(data.covid_directory), location(data.kermany_directory)
    named = listed.parse(data.sources)
    directories = {
        covid_chestxray.NAME: covid,
        kermany.NAME: others,
        **{name: source.directory for name, source in named.items()},
    }
    examples, records = output / _EXAMPLES, output / _RECORDS
    ingest(
        covid, others, examples,
        views=data.views, seed=seed, sources=named, archive=archive, adds_span=False,
    )  # fmt: skip
    write_records(examples, directories, records)
    return find_lungs(covid, examples, records, output / LUNGS, seed=seed, kept=kept)
