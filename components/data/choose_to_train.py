"""Step `choose_to_train`: whether a scheduled run trains models anew, and why, or why not yet.

It is asked once what is new has been ingested and compared.
"""

from pathlib import Path

from components.data import spans
from components.data.validation.findings import drifted, in_words
from core.artifacts import COMPARISONS, SUMMARY, TRAIN, WAIT
from core.files import read_json
from core.labels import COVID
from core.progress import logger

# New images of covid that are enough to train again.
NEW_COVID = 20


def choose_to_train(
    examples: Path,
    validation: Path,
    archive: Path | None,
    new_covid: int,
    *,
    if_new: bool = True,
) -> tuple[str, str]:
    """Decides whether what has come since models were last trained is worth a training.

    Args:
      examples: the output of `ingest`.
      validation: the output of `validate`.
      archive: gets the outcome where it is `WAIT`; None: always `TRAIN`.
      new_covid: so many new images of covid are enough.
      if_new: whether models are trained only where enough is new.

    Returns:
      `TRAIN` or `WAIT`, and the reason, a sentence.
    """
    choice, reason = _choice(examples, validation, archive, new_covid, if_new)
    logger.info("%s", reason)
    return choice, reason


def _choice(
    examples: Path, validation: Path, archive: Path | None, new_covid: int, if_new: bool
) -> tuple[str, str]:
    if not if_new:
        return TRAIN, "Models are trained because this run was asked to."
    span = read_json(examples / SUMMARY)["span"]
    if not archive or not span:
        return TRAIN, "There is no archive: models are trained whatever is new."
    number = span["number"]
    since = []
    for earlier in range(number, 0, -1):
        past = spans.outcome(archive, earlier)
        if past and past["state"] == spans.PASSED:
            return TRAIN, spans.not_deployed(earlier)
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
