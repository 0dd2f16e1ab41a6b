"""Step `check_for_new_data`: decides whether a scheduled run has anything to do.

It compares names and sizes and opens no image, so that a run with nothing new takes seconds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from components.data import spans
from components.data.named_images import digest_of_names, named_images
from components.data.sources import covid_chestxray, kermany, listed
from core.artifacts import NewData
from core.progress import logger


def check_for_new_data(
    covid_directory: Path,
    kermany_directory: Path,
    archive: Path | None,
    *,
    views: Sequence[str] = covid_chestxray.FRONTAL_VIEWS,
    sources: Mapping[str, listed.Listed] | None = None,
) -> NewData:
    """Returns `NEW` if the sources differ from the last span, or if that span still needs a run.

    A span needs a run if nothing was decided on it yet, or a candidate passed the gate and was not deployed.

    Args:
      covid_directory, kermany_directory, views, sources: as for `ingest`.
      archive: see `components.data.spans`; if it is None or has no span, everything is new.

    Raises:
      UserError: a source or the archive cannot be read.
    """
    last = spans.newest(archive) if archive else None
    if not archive or not last:
        logger.info("nothing has been ingested yet: everything is new")
        return NewData.NEW
    past = spans.outcome(archive, last.number)
    if not past:
        logger.info("no models have been trained on span %d yet", last.number)
        return NewData.NEW
    if past["state"] == spans.State.PASSED:
        logger.info("%s", spans.not_deployed(last.number))
        return NewData.NEW
    directories = {covid_chestxray.NAME: covid_directory, kermany.NAME: kermany_directory}
    named, _ = named_images(directories, views, sources)
    if digest_of_names(named) != spans.names_digest(archive, last):
        logger.info("the sources have changed since span %d", last.number)
        return NewData.NEW
    logger.info("nothing has changed since span %d: there is nothing to do", last.number)
    return NewData.NOTHING
