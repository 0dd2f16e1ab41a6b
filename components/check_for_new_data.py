"""Steps `check_for_new_data` and `choose_to_train`: whether a scheduled run has anything to do.

The first looks at names and sizes alone and opens no image, so that a run with nothing new costs seconds.
The second is asked once what is new has been ingested and compared: it says why models are trained anew,
or why not yet.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kfp import dsl

from components import spans
from components.examples import SUMMARY
from components.files import read_json
from components.labels import COVID
from components.named_images import digest_of_names, named_images
from components.progress import logger
from components.sources import covid_chestxray, kermany, listed
from components.step import data_step
from components.validate import COMPARISONS, drifted, in_words

NEW, NOTHING = "new", "nothing"
TRAIN, WAIT = "train", "wait"


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
      archive: see `components.spans`; None, or one without spans: everything is new.

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
        logger.info("%s", _not_deployed(last.number))
        return NEW
    directories = {covid_chestxray.NAME: covid_directory, kermany.NAME: kermany_directory}
    named, _ = named_images(directories, views, sources)
    if digest_of_names(named) != spans.names_digest(archive, last):
        logger.info("the sources have changed since span %d", last.number)
        return NEW
    logger.info("nothing has changed since span %d: there is nothing to do", last.number)
    return NOTHING


def choose_to_train(
    examples: Path, validation: Path, archive: Path | None, new_covid: int
) -> tuple[str, str]:
    """Decides whether what has come since models were last trained is worth a training.

    Args:
      examples: the output of `ingest`.
      validation: the output of `validate`.
      archive: gets the outcome where it is `WAIT`; None: always `TRAIN`.
      new_covid: so many new images of covid are enough.

    Returns:
      `TRAIN` or `WAIT`, and the reason, a sentence.
    """
    span = read_json(examples / SUMMARY)["span"]
    if not archive or not span:
        return TRAIN, "There is no archive: models are trained whatever is new."
    number = span["number"]
    since = []
    for earlier in range(number, 0, -1):
        past = spans.outcome(archive, earlier)
        if past and past["state"] == spans.PASSED:
            return TRAIN, _not_deployed(earlier)
        if past and past["trained"]:
            break
        since.append(spans.span(archive, earlier))
    else:
        return TRAIN, "No model has been trained on this archive yet."
    came = sum(one.added_by_label.get(COVID, 0) for one in since)
    drift = [
        in_words(comparison, measure)
        for comparison in read_json(validation / COMPARISONS)
        for measure in drifted(comparison)
    ]
    if came >= new_covid:
        return TRAIN, (
            f"{came} images of {COVID} have come since models were last trained; {new_covid} are "
            "enough."
        )
    if drift and since:
        return TRAIN, f"The data have drifted: {'; '.join(drift)}."
    reason = (
        f"{came} images of {COVID} have come since models were last trained, fewer than {new_covid}, and "
        "nothing has drifted: models are not trained anew."
    )
    if since:
        spans.record_outcome(archive, number, spans.WAITS, reason)
    return WAIT, reason


def _not_deployed(number: int) -> str:
    return f"A candidate of span {number} passed the gate and was not deployed: it is tried again."


@data_step
def check_for_new_data_step(
    covid_directory: str,
    kermany_directory: str,
    views: list[str],
    archive: str,
    if_new: bool,
    sources: list[str],
) -> str:
    """Looks whether the sources have changed since the last span. See `check_for_new_data`."""
    from components.check_for_new_data import NEW, check_for_new_data
    from components.locations import location
    from components.sources.listed import parse

    if not if_new:
        return NEW
    return check_for_new_data(
        location(covid_directory),
        location(kermany_directory),
        location(archive) if archive else None,
        views=views,
        sources=parse(sources),
    )


@data_step
def choose_to_train_step(
    examples: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    archive: str,
    if_new: bool,
    new_covid: int,
    reason: dsl.Output[dsl.Markdown],
) -> str:
    """Decides whether enough is new for a training. See `choose_to_train`."""
    from pathlib import Path

    from components.check_for_new_data import TRAIN, choose_to_train
    from components.locations import location
    from components.progress import logger

    choice, why = TRAIN, "Models are trained because this run was asked to."
    if if_new:
        choice, why = choose_to_train(
            Path(examples.path),
            Path(validation.path),
            location(archive) if archive else None,
            new_covid,
        )
    logger.info("%s", why)
    Path(reason.path).write_text(why + "\n")
    return choice
