"""Makes the InferenceService follow the stored state, and deletes what KServe leaves of earlier versions.

The InferenceService is always read before the state. Another rollout that changes it in between has first
stored its own state. So either that newer state is read here, or the apply fails, because its precondition is
the object that was read.
"""

import functools
import logging
import time

from core.errors import UserError
from core.kubernetes_api import Conflict
from serving.cluster import route
from serving.cluster.inference_service import (
    AUTOSCALERS,
    ROUTES,
    InferenceService,
    Manifest,
    shown,
)
from serving.cluster.manifest import is_knative, manifest_of, predictor_name
from serving.cluster.state import State, adopted, load, save

logger = logging.getLogger("cxrflow")

# In a row. KServe writes the status several times while pods start; after more, someone else keeps changing
# the object.
_ATTEMPTS = 100


def agreed(
    service: InferenceService, template: Manifest, poll_seconds: float
) -> tuple[Manifest, State] | None:
    """Makes the InferenceService follow the stored state; returns both, or None where nothing is served.

    Raises:
      UserError: another field manager owns a field, the cluster rejects it, or it is changed all the time.
    """
    for _ in range(_ATTEMPTS):
        there = service.read()
        stored = load(service)
        try:
            if there is None:
                if stored is None or stored.service_uid:
                    return None
                service.apply(manifest_of(template, stored))
                continue
            wanted = adopted(service, there, stored)
            if wanted != stored:
                save(service, wanted)
            elif wanted.withdrawn:
                service.delete(there)
            elif "deletionTimestamp" not in there["metadata"]:
                manifest = manifest_of(template, wanted, there)
                if shown(there) == shown(manifest):
                    return there, wanted
                service.apply(manifest)
                continue
        except Conflict:
            logger.info("the InferenceService was changed meanwhile; looking again")
        time.sleep(min(poll_seconds, 1.0))
    raise UserError(f"deploy: {service} is changed all the time by someone else; nothing was done")


def tidy(service: InferenceService, template: Manifest, there: Manifest, state: State) -> None:
    """Deletes the routes and autoscalers that KServe 0.20 leaves behind of versions that are gone."""
    if is_knative(template):
        return
    releases = [release for release in (state.stable, state.candidate) if release]
    gone = functools.partial(
        route.leftovers,
        service=service.name,
        uid=there["metadata"]["uid"],
        predictors={predictor_name(release) for release in releases},
    )
    try:
        for kind in (ROUTES, AUTOSCALERS):
            for leftover in gone(service.items(kind)):
                service.delete_item(kind, leftover)
    except Conflict:
        logger.info(
            "KServe still changes the leftovers of earlier versions; the next rollout deletes them"
        )
