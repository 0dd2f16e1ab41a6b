"""The share of the traffic that a canary really gets: what KServe tells the gateway, not what we told KServe.

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
            weights = {one["name"]: one.get("weight", 1) for one in rule.get("backendRefs", [])}
            total, weight = sum(weights.values()), weights.get(f"{service}-{predictor}-predictor")
            shares.append(None if weight is None or not total else 100 * weight / total)
    if not shares or None in shares:
        return None
    return min(one for one in shares if one is not None)


def knative_share(found: Manifest) -> float | None:
    """Returns the share of the newest revision in Knative mode, in percent; None where it is not known."""
    component = found.get("status", {}).get("components", {}).get("predictor", {})
    targets = component.get("traffic", [])
    newest = component.get("latestCreatedRevision")
    if not targets:
        return None
    return float(
        sum(
            one.get("percent", 0)
            for one in targets
            if one.get("latestRevision") or one.get("revisionName") == newest
        )
    )


def is_seen_ready(found: Manifest, predictor: str, percent: int) -> bool:
    """Says whether KServe has seen a canary ready at this share, in percent, and so has written the route."""
    status = found.get("status", {})
    stable = any(
        one["type"] == "PredictorReady" and one["status"] == "True"
        for one in status.get("conditions", [])
    )
    return stable and any(
        one["name"] == predictor and one.get("ready") and one.get("trafficPercent", 0) == percent
        for one in status.get("canaryStatuses", [])
    )


def is_settled(routes: list[Manifest], service: str, predictor: str) -> bool:
    """Says whether all traffic goes to one predictor in Standard mode, or there is no route.

    Args:
      routes, service, predictor: see `share`.
    """
    return all(
        one["name"] == f"{service}-{predictor}-predictor"
        for route in routes
        if route["metadata"]["name"] == service
        for rule in route["spec"].get("rules", [])
        for one in rule.get("backendRefs", [])
    )


def leftovers(
    objects: list[Manifest], service: str, uid: str, predictors: set[str]
) -> list[Manifest]:
    """Returns the routes or autoscalers that KServe leaves of versions that are gone.

    Args:
      objects: of the namespace.
      service, uid: of the InferenceService, which owns them.
      predictors: the names of the predictors that it has.
    """
    kept = {f"{service}-{name}-predictor" for name in predictors}
    return [
        one
        for one in objects
        if any(owner["uid"] == uid for owner in one["metadata"].get("ownerReferences", []))
        and one["metadata"]["name"].startswith(f"{service}-v")
        and one["metadata"]["name"].endswith("-predictor")
        and one["metadata"]["name"] not in kept
    ]
