"""The share of the traffic that a canary really gets: by the gateway's route, not by our request to KServe.

In Standard mode KServe writes an HTTPRoute of the InferenceService's name. From KServe 0.21 on
(kserve#5912, kserve#5984) each of its rules lists the canary's service with a weight as soon as the canary is
ready, also at 0 %. KServe 0.20 knows canaries, but never changes the route. In Knative mode the
InferenceService's status has the shares of the revisions.
"""

from serving.cluster.inference_service import Manifest


def share(routes: list[Manifest], service: str, predictor: str) -> float | None:
    """Returns the share of a predictor in Standard mode.

    Args:
      routes: the HTTPRoutes of the namespace.
      service: the InferenceService's name.
      predictor: the predictor's name, e.g. `v2`.

    Returns:
      percent, from 0 to 100: the least of all rules; None where a rule does not list the predictor, or
      there is no route.
    """
    shares: list[float | None] = []
    for route in routes:
        if route["metadata"]["name"] != service:
            continue
        for rule in route["spec"].get("rules", []):
            weights = {ref["name"]: ref.get("weight", 1) for ref in rule.get("backendRefs", [])}
            total, weight = sum(weights.values()), weights.get(f"{service}-{predictor}-predictor")
            shares.append(None if weight is None or not total else 100 * weight / total)
    if not shares or None in shares:
        return None
    return min(percent for percent in shares if percent is not None)


def knative_share(service: Manifest) -> float | None:
    """Returns the share of the newest revision in Knative mode, in percent; None where it is not known."""
    component = service.get("status", {}).get("components", {}).get("predictor", {})
    targets = component.get("traffic", [])
    newest = component.get("latestCreatedRevision")
    if not targets:
        return None
    return float(
        sum(
            target.get("percent", 0)
            for target in targets
            if target.get("latestRevision") or target.get("revisionName") == newest
        )
    )


def is_seen_ready(service: Manifest, predictor: str, percent: int) -> bool:
    """Returns whether KServe has seen a canary ready at a share, in percent, and so has written the route."""
    return is_stable_ready(service) and any(
        canary["name"] == predictor
        and canary.get("ready")
        and canary.get("trafficPercent", 0) == percent
        for canary in service.get("status", {}).get("canaryStatuses", [])
    )


def is_stable_ready(service: Manifest) -> bool:
    """Returns whether KServe sees the stable version ready; else it does not write the route."""
    return any(
        condition["type"] == "PredictorReady" and condition["status"] == "True"
        for condition in service.get("status", {}).get("conditions", [])
    )


def is_settled(routes: list[Manifest], service: str, predictor: str) -> bool:
    """Returns whether all traffic goes to one predictor in Standard mode, or there is no route.

    Args:
      routes, service, predictor: see `share`.
    """
    return all(
        ref["name"] == f"{service}-{predictor}-predictor"
        for route in routes
        if route["metadata"]["name"] == service
        for rule in route["spec"].get("rules", [])
        for ref in rule.get("backendRefs", [])
    )


def leftovers(
    objects: list[Manifest], service: str, uid: str, predictors: set[str]
) -> list[Manifest]:
    """Returns the routes or autoscalers that KServe has left behind of versions that are gone.

    Args:
      objects: of the namespace.
      service, uid: of the InferenceService, which owns them.
      predictors: the names of the predictors that it has.
    """
    kept = {f"{service}-{name}-predictor" for name in predictors}
    return [
        item
        for item, meta in ((item, item["metadata"]) for item in objects)
        if any(owner["uid"] == uid for owner in meta.get("ownerReferences", []))
        and meta["name"].startswith(f"{service}-v")
        and meta["name"].endswith("-predictor")
        and meta["name"] not in kept
    ]
