"""Makes the InferenceService follow the stored state, and deletes what KServe leaves of earlier versions.

The InferenceService is always read before the state. Whoever has changed it since has stored a state before,
so either the newer state is read here, or the apply fails, because what was read is its precondition.
"""

import functools
import logging
import time

from core.errors import UserError
from core.kubernetes_api import Conflict
from serving.cluster import route
from serving.cluster.inference_service import InferenceService, Manifest, shown
from serving.cluster.manifest import is_knative, manifest_of, predictor_name
from serving.cluster.state import State, adopted, load, save

logger = logging.getLogger("cxrflow")

# In a row. KServe writes the status several times while pods start; more is someone else's loop.
_ATTEMPTS = 100


def agreed(
    service: InferenceService, template: Manifest, poll_seconds: float
) -> tuple[Manifest, State] | None:
    """Makes the InferenceService follow the stored state; returns both, or None where nothing is served.

    Raises:
      UserError: another field manager owns a field, the cluster rejects it, or it is changed all the time.
    """
    for _ in range(_ATTEMPTS):
        found = service.read()
        stored = load(service)
        try:
            if found is None:
                if stored is None or stored.service_uid:
                    return None
                service.apply(manifest_of(template, stored))
                continue
            wanted = adopted(service, found, stored)
            if wanted != stored:
                save(service, wanted)
            elif wanted.withdrawn:
                service.delete(found)
            elif "deletionTimestamp" not in found["metadata"]:
                manifest = manifest_of(template, wanted, found)
                if shown(found) == shown(manifest):
                    return found, wanted
                service.apply(manifest)
                continue
        except Conflict:
            logger.info("the InferenceService was changed meanwhile; looking again")
        time.sleep(min(poll_seconds, 1.0))
    raise UserError(f"deploy: {service} is changed all the time by someone else; nothing is done")


def tidy(service: InferenceService, template: Manifest, found: Manifest, state: State) -> None:
    """Deletes routes and autoscalers that KServe leaves of versions that are gone, as KServe 0.20 does."""
    if is_knative(template):
        return
    releases = [release for release in (state.stable, state.candidate) if release]
    gone = functools.partial(
        route.leftovers,
        service=service.name,
        uid=found["metadata"]["uid"],
        predictors={predictor_name(one) for one in releases},
    )
    try:
        for one in gone(service.routes()):
            service.delete_route(one)
        for one in gone(service.autoscalers()):
            service.delete_autoscaler(one)
    except Conflict:
        logger.info("KServe is still working on what it leaves; the next rollout deletes it")
