"""The state of a rollout: a ConfigMap beside the InferenceService, `<name>-rollout`.

It is not kept in annotations of the InferenceService, because KServe copies those into the pods' template, so
that each change would restart all pods. The ConfigMap has the wanted state; `serving.cluster.reconcile` makes
the InferenceService follow it.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from core.errors import UserError
from serving.cluster.inference_service import (
    NEVER,
    RELEASE,
    TRUST,
    VERSION_LABEL,
    InferenceService,
    Manifest,
    Shown,
    shown,
)

SERVED, ROLLED_BACK = "served", "rolled back"

# Where earlier releases kept the state.
_STABLE, _CANDIDATE, _OUTCOME = "cxrflow/stable", "cxrflow/candidate", "cxrflow/last-rollout"


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version of the model to be served, and why.

    Attributes:
      version: its number in the model store.
      uri: its address there, for KServe.
      decided: when the gate, or a person, chose it: ISO 8601 in UTC.
      reason: why, in a sentence.
      run: of the pipeline that made it, if any.
      fingerprint: of the data it was trained on.
      trust: the verdict on it, in words (see `serving.verdict`), or why it is not known; empty only if an
        earlier release, which had no verdicts, deployed it.
    """

    version: str
    uri: str
    decided: str
    reason: str
    run: str = ""
    fingerprint: str = ""
    trust: str = ""


@dataclass(frozen=True, kw_only=True)
class State:
    """The wanted state of an InferenceService, and how the last rollout ended.

    Attributes:
      stable: the version that is served.
      candidate: the canary beside it, if any.
      percent: the candidate's share of the traffic, from 0 to 100.
      replicas: pods of the candidate.
      whole: pods needed for all of the traffic: as many as the stable version had.
      outcome: of the last rollout, if one has ended: `version`, `decided`, `outcome` (`SERVED` or
        `ROLLED_BACK`), `reason` and `at`.
      withdrawn: whether the InferenceService is to be deleted, because its first version was wrong.
      service_uid: of the InferenceService; empty while it is still to be created.
      uid, resource_version: of the ConfigMap; empty if there is none yet.
    """

    stable: Release
    candidate: Release | None = None
    percent: int = 0
    replicas: int = 1
    whole: int = 1
    outcome: Mapping[str, str] = field(default_factory=dict)
    withdrawn: bool = False
    service_uid: str = ""
    uid: str = ""
    resource_version: str = ""


def load(service: InferenceService) -> State | None:
    """Returns what is stored, or None.

    Raises:
      UserError: this program did not write the ConfigMap, or it is damaged.
    """
    held = service.read_state()
    if held is None:
        return None
    data = held.get("data") or {}
    try:
        return State(
            stable=Release(**json.loads(data["stable"])),
            candidate=Release(**json.loads(data["candidate"])) if "candidate" in data else None,
            percent=int(data["percent"]),
            replicas=int(data["candidate-replicas"]),
            whole=int(data["replicas"]),
            outcome=json.loads(data["last-rollout"]),
            withdrawn=data["withdrawn"] == "true",
            service_uid=data["inference-service-uid"],
            uid=held["metadata"]["uid"],
            resource_version=held["metadata"]["resourceVersion"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"deploy: the ConfigMap {service.state_name} in namespace {service.namespace} is damaged "
            f"({type(error).__name__}: {error}); delete it: the state is then read from {service}"
        ) from error


def save(service: InferenceService, state: State) -> State:
    """Stores a state in place of the one that was loaded, and returns the stored state.

    Raises:
      Conflict: another state was stored since.
      UserError: the cluster rejects it.
    """
    data = {
        "stable": json.dumps(asdict(state.stable)),
        "percent": str(state.percent),
        "candidate-replicas": str(state.replicas),
        "replicas": str(state.whole),
        "last-rollout": json.dumps(dict(state.outcome)),
        "withdrawn": json.dumps(state.withdrawn),
        "inference-service-uid": state.service_uid,
    }
    if state.candidate:
        data["candidate"] = json.dumps(asdict(state.candidate))
    # Without the uid an apply would recreate a ConfigMap that was deleted.
    known = {"uid": state.uid} if state.uid else {}
    held = service.apply_state(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": service.state_name,
                "namespace": service.namespace,
                "resourceVersion": state.resource_version or NEVER,
                **known,
            },
            "data": data,
        }
    )
    meta = held["metadata"]
    return dataclasses.replace(state, uid=meta["uid"], resource_version=meta["resourceVersion"])


def adopted(service: InferenceService, there: Manifest, stored: State | None) -> State:
    """Returns the state of an InferenceService: the stored one, or else the one that it shows itself.

    It shows the state itself if an earlier release made it (in annotations), or if it was deleted and
    restored from a backup: then the stored state belongs to another object.

    Args:
      service: the InferenceService.
      there: the object as read.
      stored: see `load`.

    Raises:
      UserError: it was not made by this program.
    """
    uid = there["metadata"]["uid"]
    if stored and stored.service_uid == uid:
        return stored
    here = shown(there)
    if stored and _shows(here, stored):
        return dataclasses.replace(stored, service_uid=uid, withdrawn=False)
    notes = there["metadata"].get("annotations") or {}
    if _STABLE in notes:
        state = State(
            stable=Release(**json.loads(notes[_STABLE])),
            candidate=Release(**json.loads(notes[_CANDIDATE])) if _CANDIDATE in notes else None,
            percent=here.percent or 0,
            replicas=here.replicas,
            outcome=json.loads(notes.get(_OUTCOME, "{}")),
        )
    elif here.version and here.percent is not None and not here.beside:  # Knative's newest revision
        raise UserError(
            f"deploy: version {here.version} is a canary of {service}, and the ConfigMap "
            f"{service.state_name}, which names the stable version, is gone. Restore it from a backup, or "
            f"delete {service} and deploy a version again"
        )
    elif here.version:
        state = State(stable=_found(there, here))
    else:
        raise UserError(
            f"deploy: the {service} was not made by cxrflow (its pods have no label {VERSION_LABEL}); "
            "delete it, or choose another name"
        )
    if not state.outcome:  # it serves already, so it is no first version to be checked
        stable = state.stable
        outcome = {"version": stable.version, "decided": stable.decided, "reason": stable.reason}
        state = dataclasses.replace(state, outcome={**outcome, "outcome": SERVED})
    return dataclasses.replace(
        state,
        service_uid=uid,
        uid=stored.uid if stored else "",
        resource_version=stored.resource_version if stored else "",
    )


def _found(there: Manifest, here: Shown) -> Release:
    """Returns the version that an InferenceService shows, with its notes: without them its pods restart."""
    notes = there["spec"]["predictor"].get("annotations") or {}
    origin = json.loads(notes.get(RELEASE, "{}"))
    return Release(
        version=here.version,
        uri=here.uri,
        decided="",
        reason="found on the cluster",
        run=origin.get("run", ""),
        fingerprint=origin.get("fingerprint", ""),
        trust=notes.get(TRUST, ""),
    )


def served(service: InferenceService) -> State | None:
    """Returns the state of the InferenceService on the cluster, or None if there is none."""
    there = service.read()
    return adopted(service, there, load(service)) if there else None


def now() -> str:
    """Returns the time as ISO 8601 in UTC, to the microsecond, so that decisions can be ordered."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _shows(here: Shown, stored: State) -> bool:
    versions = {stored.stable.version: stored.stable.uri}
    if stored.candidate:
        versions[stored.candidate.version] = stored.candidate.uri
    return versions.get(here.version) == here.uri and here.beside in (None, *versions)
