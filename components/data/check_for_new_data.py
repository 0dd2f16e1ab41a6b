"""Step `check_for_new_data`: whether a scheduled run has anything to do.

It looks at names and sizes alone and opens no image, so that a run with nothing new costs seconds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from components.data import spans
from components.data.named_images import digest_of_names, named_images
from components.data.sources import covid_chestxray, kermany, listed
from core.artifacts import NEW, NOTHING
from core.progress import logger


def check_for_new_data(
    covid_directory: Path,
    kermany_directory: Path,
    archive: Path | None,
    *,
    views: Sequence[str] = covid_chestxray.FRONTAL_VIEWS,
    sources: Mapping[str, listed.Listed] | None = None,
) -> str:
    """Returns `NEW` where the sources are not as in the last span, or what came of it is not settled.

    That is, nothing was decided on it yet, or a candidate passed the gate and was not deployed.

    Args:
      covid_directory, kermany_directory, views, sources: as for `ingest`.
      archive: see `components.data.spans`; None, or one without spans: everything is new.

    Raises:
      UserError: a source or the archive cannot be read.
    """
    last = spans.newest(archive) if archive else None
    if not archive or not last:
        logger.info("nothing has been ingested yet: all is new")
        return NEW
    past = spans.outcome(archive, last.number)
    if not past:
        logger.info("span %d is there, and nothing has come of it yet", last.number)
        return NEW
    if past["state"] == spans.PASSED:
        logger.info("%s", spans.not_deployed(last.number))
        return NEW
    directories = {covid_chestxray.NAME: covid_directory, kermany.NAME: kermany_directory}
    named, _ = named_images(directories, views, sources)
    if digest_of_names(named) != spans.names_digest(archive, last):
        logger.info("the sources have changed since span %d", last.number)
        return NEW
    logger.info("nothing has changed since span %d: there is nothing to do", last.number)
    return NOTHING
