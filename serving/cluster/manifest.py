"""Builds the InferenceService for a state of a rollout.

In Standard mode, a canary stands beside the predictor and has its own name, `v<version>`, which it keeps when
it is promoted, so that its pods stay. KServe merges the canary's fields into those of the predictor: map keys
that only the predictor has, and values that are empty in the canary, stay the predictor's. So every label and
annotation here is set for both, and none is empty.
"""

import json
from typing import Any

from serving.cluster.inference_service import NEVER, RELEASE, TRUST, VERSION_LABEL, Manifest
from serving.cluster.state import Release, State

_MODE = "serving.kserve.io/deploymentMode"


def manifest_of(template: Manifest, state: State, there: Manifest | None = None) -> Manifest:
    """Returns the whole InferenceService of a state; fields that it lacks are removed from the cluster.

    Args:
      template: the platform team's part, with the deployment mode: in `Standard` mode a canary stands
        beside the predictor, in `Knative` mode traffic is split between revisions of one predictor.
      state: the wanted one.
      there: the InferenceService as read, which must not have changed since; None: it is created.
    """
    meta, spec = template["metadata"], template["spec"]
    known = (there or {}).get("metadata", {})
    made: Manifest = {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {**meta, "resourceVersion": known.get("resourceVersion", NEVER)},
    }
    if known:  # with the version alone, Kubernetes would recreate an object that was deleted
        made["metadata"]["uid"] = known["uid"]
    if is_knative(template):
        predictor = _predictor(spec["predictor"], state.candidate or state.stable)
        if state.candidate:
            predictor["canaryTrafficPercent"] = state.percent
        made["spec"] = {**spec, "predictor": predictor}
        return made
    predictor = _predictor(spec["predictor"], state.stable)
    predictor["name"] = predictor_name(state.stable)
    made["spec"] = {**spec, "predictor": predictor}
    if state.candidate:
        predictor.update(_floor(predictor, state))
        canary = _predictor(spec["predictor"], state.candidate)
        for scaled in ("maxReplicas", "scaleMetric", "scaleTarget", "autoScaling"):
            canary.pop(scaled, None)  # KServe rejects them: a canary's number of pods is fixed
        canary.update(name=predictor_name(state.candidate), minReplicas=state.replicas)
        made["spec"]["canary"] = [{"predictor": canary, "trafficPercent": state.percent}]
    return made


def predictor_name(release: Release) -> str:
    """Returns the name of a version's predictor, in Standard mode."""
    return f"v{release.version}"


def is_knative(template: Manifest) -> bool:
    """Returns whether KServe uses Knative mode rather than Standard mode."""
    return template["metadata"].get("annotations", {}).get(_MODE) in ("Knative", "Serverless")


def least_replicas(template: Manifest) -> int:
    """Returns the least number of pods that the platform team wants."""
    return max(1, int(template["spec"]["predictor"].get("minReplicas", 1)))


def _predictor(wanted: Manifest, release: Release) -> Manifest:
    origin = {"uri": release.uri, "run": release.run, "fingerprint": release.fingerprint}
    notes = {RELEASE: json.dumps(origin)}
    if release.trust:  # a version that an earlier release serves has none: its pods would restart
        notes[TRUST] = release.trust
    return {
        **wanted,
        "labels": {**wanted.get("labels", {}), VERSION_LABEL: release.version},
        "annotations": {**wanted.get("annotations", {}), **notes},
        "model": {**wanted["model"], "storageUri": release.uri},
    }


def _floor(predictor: Manifest, state: State) -> dict[str, Any]:
    """Returns the bounds that keep the stable version's pods while a canary stands beside it.

    KServe lowers the stable version's minimum by the canary's pods, but not below one, and rejects a canary
    with more pods than that minimum.
    """
    least = state.whole + state.replicas if state.whole > 1 else max(1, state.replicas)
    bounds = {"minReplicas": least}
    if "maxReplicas" in predictor:
        bounds["maxReplicas"] = max(predictor["maxReplicas"], least)
    return bounds
