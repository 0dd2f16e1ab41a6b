"""Step `choose_to_train`: decides whether a scheduled run trains models again, and says why."""

from pathlib import Path

from components.data import spans
from components.data.validation.findings import drifted, in_words
from core.artifacts import COMPARISONS, SUMMARY, ToTrain
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
) -> tuple[ToTrain, str]:
    """Decides whether enough is new since the last training to train again.

    Args:
      examples: the output of `ingest`.
      validation: the output of `validate`.
      archive: where a decision to wait is recorded; None: models are always trained.
      new_covid: how many new images of covid are enough.
      if_new: whether models are trained only if enough is new.

    Returns:
      the decision, and the reason, a sentence.
    """
    choice, reason = _choice(examples, validation, archive, new_covid, if_new)
    logger.info("%s", reason)
    return choice, reason


def _choice(
    examples: Path, validation: Path, archive: Path | None, new_covid: int, if_new: bool
) -> tuple[ToTrain, str]:
    if not if_new:
        return (
            ToTrain.TRAIN,
            "Models are trained because this run does not check whether enough is new.",
        )
    newest = read_json(examples / SUMMARY)["span"]
    if not archive or not newest:
        return ToTrain.TRAIN, "Models are trained in any case, because there is no archive."
    since = []
    for earlier in range(newest["number"], 0, -1):
        past = spans.outcome(archive, earlier)
        if past and past["state"] == spans.State.PASSED:
            return ToTrain.TRAIN, spans.not_deployed(earlier)
        if past and past["trained"]:
            break
        since.append(spans.span(archive, earlier))
    else:
        return ToTrain.TRAIN, "No model has been trained on this archive yet."
    added = sum(span.added_by_label.get(COVID, 0) for span in since)
    drift = [
        in_words(comparison, measure)
        for comparison in read_json(validation / COMPARISONS)
        for measure in drifted(comparison)
    ]
    if added >= new_covid:
        return ToTrain.TRAIN, (
            f"{added} images of {COVID} are new since models were last trained; {new_covid} are enough."
        )
    if drift and since:
        return ToTrain.TRAIN, f"The data have drifted: {'; '.join(drift)}."
    reason = (
        f"{added} images of {COVID} are new since models were last trained, fewer than {new_covid}, and "
        "nothing has drifted: models are not trained again."
    )
    if since:
        spans.record_outcome(archive, newest["number"], spans.State.WAITS, reason)
    return ToTrain.WAIT, reason
