"""Step `deploy`: checks the winner, publishes it, and serves it on this machine or with KServe."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data import spans
from components.trust import model_card
from core.artifacts import (
    AUDIT,
    AUDIT_PAGE,
    CARD,
    DECISION,
    KNOWN_ANSWERS,
    LINEAGE,
    MADE_WITH,
    METRICS,
    SAVED_MODEL,
    Trust,
)
from core.errors import UserError
from core.files import alone, read_json, write_json, write_text
from core.locations import location
from core.progress import Progress, logger
from serving import local, store, verdict
from serving.cluster import known_answers
from serving.cluster.policy import Policy

if TYPE_CHECKING:
    from serving.cluster.inference_service import InferenceService


def deploy(
    model: Path,
    evaluation: Path,
    audit: Path,
    decision: Path,
    models: str,
    name: str,
    *,
    server: Path | None = None,
    service: "InferenceService | None" = None,
    policy: Policy | None = None,
    run: str = "",
    archive: str = "",
    report: Path | None = None,
) -> str:
    """Publishes a model once a server has given its known answers, and serves it.

    A repeated call continues where the last one stopped: a version is neither published nor deployed twice.

    Args:
      model: the output of `train`.
      evaluation: the output of `evaluate`.
      audit: the output of `audit`.
      decision: the output of `gate`, kept beside the model: the reason why it was deployed.
      models: the model store; see `serving.store`.
      name: of the model there.
      server: where a local server keeps its state and log (see `serving.local`), or None for no server. A
        running one loads the new version.
      service: of KServe, to be created or changed; or None.
      policy: how the version is rolled out there.
      run: the pipeline's; kept beside the model.
      archive: of the data that the model was made with; see `components.data.spans`. Kept beside the model.
        The outcome is recorded there: after an error, the next scheduled run tries again, unless the model
        was rolled back or refused.
      report: gets what was done and why, as Markdown, even after an error.

    Returns:
      the published version's directory or URL.

    Raises:
      verdict.LessTrusted: the version that is served now is trusted more. It may have been deployed since the
        gate compared the two.
      UserError: the model gives other answers than in its evaluation, and is not published; or it is
        published, but the server does not start or rejects it, or it is rolled back (see
        `serving.cluster.rollout`).
    """
    if service and "://" not in models:
        raise UserError(f"deploy: KServe cannot read {models}; give a store at gs:// or s3://")
    decided, card = read_json(decision), read_json(model / CARD)
    trust = verdict.of_winner(decided)
    said = [
        decided["reason"],
        f"the model is {verdict.in_words(trust)}",
        f"--trust {verdict.DEPLOYED[Trust(decided['trust'])]}",
    ]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            lineage = Path(scratch, LINEAGE)
            write_json(lineage, {"run": run, "archive": archive})
            cards = model_card.written(
                card, read_json(evaluation / METRICS), read_json(audit / AUDIT), decided
            )
            for file, text in cards.items():
                write_text(Path(scratch, file), text)
            images = {MADE_WITH: model / MADE_WITH} if (model / MADE_WITH).is_file() else {}
            candidate = store.assemble(
                {
                    **images,
                    ".": model / SAVED_MODEL,
                    CARD: model / CARD,
                    KNOWN_ANSWERS: evaluation / KNOWN_ANSWERS,
                    DECISION: decision,
                    LINEAGE: lineage,
                    AUDIT: audit / AUDIT,
                    AUDIT_PAGE: audit / AUDIT_PAGE,
                    **{file: Path(scratch, file) for file in cards},
                },
                Path(scratch, "version"),
                name,
                _identity(card, decided),
            )
            answers = known_answers.read(candidate)
            with Progress("checking the known answers"):
                said.append(local.check(candidate))
            logger.info("%s", said[-1])
            with _one_at_a_time(models, name):
                _require_trust(trust, models, name, service)
                version = store.publish(candidate, models)
        said.append(f"published as version {store.number_of(version)} of {name}: {version}")
        logger.info("%s", said[-1])
        if server:
            # Otherwise, each of two runs would start a server, and one of them would never be stopped.
            with alone(server), Progress("waiting for the server"):
                served = local.serve(Path(version), server)
            logger.info("ready at %s", served.url)
        if service:
            # They import Kubernetes' client, which only a cluster needs.
            from serving.cluster import rollout
            from serving.cluster.state import Release

            release = Release(
                version=store.number_of(version),
                uri=version,
                decided=decided["decided"],
                reason=decided["reason"],
                run=run,
                fingerprint=card["fingerprint"],
                trust=verdict.in_words(trust),
            )
            try:
                rollout.roll_out(service, release, policy or Policy(), answers, said)
            except rollout.RolledBack as error:
                _record(archive, card, spans.State.ROLLED_BACK, str(error))
                raise
        _record(archive, card, spans.State.DEPLOYED, said[-1])
    except verdict.LessTrusted as error:
        said.append(f"refused: {error}")
        _record(archive, card, spans.State.REFUSED, str(error))
        raise
    except UserError as error:
        said.append(f"ended: {error}")
        raise
    finally:
        if report:
            write_text(report, "".join(f"- {line}\n" for line in said))
    return version


def _one_at_a_time(models: str, name: str) -> contextlib.AbstractContextManager[None]:
    """Lets the second of two runs that deploy at once compare its version with that of the first.

    An object store has no locks. On a cluster, the rollout compares the two once more.
    """
    return contextlib.nullcontext() if "://" in models else alone(Path(models, name, "deployment"))


def _require_trust(
    trust: Mapping[str, Any], models: str, name: str, service: "InferenceService | None"
) -> None:
    """Requires that the version that is served now is not trusted more."""
    if service:
        from serving.cluster import state

        there = state.served(service)
        served = there.stable.uri if there else None
    else:
        served = store.newest(models, name)
    theirs = verdict.of_version(served) if served else None
    if served and theirs:
        ours, words = verdict.in_words(trust), verdict.in_words(theirs)
        verdict.require_no_less(ours, words, store.number_of(served))


def _identity(card: Mapping[str, Any], decided: Mapping[str, Any]) -> str:
    """Returns a digest of a model and of the verdicts by which it passed, the same in a repeated run.

    It does not depend on the duration of the training, the time of the decision, or the champion at that
    time, which a repeated run may have deployed itself. The card has a digest of the weights.
    """
    (winner,) = (row for row in decided["candidates"] if row["recipe"] == decided["winner"])
    verdicts = [(check["class"], check["passed"]) for check in winner["checks"]]
    verdicts += [(rule["name"], rule["outcome"]) for rule in winner["rules"]]
    made = {key: value for key, value in card.items() if key != "seconds"}
    text = json.dumps([made, decided["gate"], verdicts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _record(archive: str, card: Mapping[str, Any], state: spans.State, reason: str) -> None:
    if archive and card["span"]:
        spans.record_outcome(location(archive), card["span"], state, reason)
