"""The state of a rollout: a ConfigMap beside the InferenceService, `<name>-rollout`.

It is not kept in annotations of the InferenceService, because KServe copies those into the pods' template:
each change would restart all pods. The ConfigMap says what is wanted; `serving.cluster.rollout` makes the
InferenceService follow it.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from core.errors import UserError
from serving.cluster.inference_service import (
    NEVER,
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
      decided: when the gate, or a person, decided for it: ISO 8601 in UTC.
      reason: that decision, in a sentence.
      run: of the pipeline that made it, if any.
      fingerprint: of the data it was trained on.
      trust: the verdict on it, in words (see `serving.verdict`), or why it is not known; empty only in
        states that earlier releases have stored.
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
    """What is wanted of an InferenceService, and how the last rollout ended.

    Attributes:
      stable: the version that is served.
      candidate: the version that is tried beside it, if any.
      percent: the candidate's share of the traffic, from 0 to 100.
      replicas: pods of the candidate.
      whole: pods that serve all of the traffic: as many as the stable version had.
      outcome: of the last rollout, if one has ended: `version`, `decided`, `outcome` (`SERVED` or
        `ROLLED_BACK`), `reason` and `at`.
      withdrawn: whether the InferenceService is to be deleted, because its first version was wrong.
      service_uid: of the InferenceService; empty while it is still to be created.
      uid, resource_version: of the ConfigMap; empty where it is not there yet.
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
      UserError: the ConfigMap is not one of this program.
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
    """Stores a state in place of the one that was loaded, and returns it as it is then.

    Raises:
      Conflict: another one was stored since.
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


def adopted(service: InferenceService, found: Manifest, stored: State | None) -> State:
    """Returns the state of an InferenceService: what is stored of it, else what it shows itself.

    It shows its state itself where an earlier release made it (in annotations), or where it was deleted
    and restored from a backup, so that it is another object than the stored state belongs to.

    Args:
      service: the InferenceService.
      found: as it is on the cluster.
      stored: see `load`.

    Raises:
      UserError: it was not made by this program.
    """
    uid = found["metadata"]["uid"]
    if stored and stored.service_uid == uid:
        return stored
    here = shown(found)
    if stored and _shows(here, stored):
        return dataclasses.replace(stored, service_uid=uid, withdrawn=False)
    notes = found["metadata"].get("annotations") or {}
    if _STABLE in notes:
        state = State(
            stable=Release(**json.loads(notes[_STABLE])),
            candidate=Release(**json.loads(notes[_CANDIDATE])) if _CANDIDATE in notes else None,
            percent=here.percent or 0,
            replicas=here.replicas,
            outcome=json.loads(notes.get(_OUTCOME, "{}")),
        )
    elif here.version:
        state = State(
            stable=Release(
                version=here.version, uri=here.uri, decided="", reason="found on the cluster"
            )
        )
    else:
        raise UserError(
            f"deploy: the {service} was not made by cxrflow (its pods have no label {VERSION_LABEL}); "
            "delete it, or choose another name"
        )
    return dataclasses.replace(
        state,
        service_uid=uid,
        uid=stored.uid if stored else "",
        resource_version=stored.resource_version if stored else "",
    )


def served(service: InferenceService) -> State | None:
    """Returns the state of what is on the cluster, or None where there is no InferenceService."""
    found = service.read()
    return adopted(service, found, load(service)) if found else None


def now() -> str:
    """Returns the time as ISO 8601 in UTC, to the microsecond, so that decisions can be ordered."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _shows(here: Shown, stored: State) -> bool:
    versions = {stored.stable.version: stored.stable.uri}
    if stored.candidate:
        versions[stored.candidate.version] = stored.candidate.uri
    return versions.get(here.version) == here.uri and here.beside in (None, *versions)
