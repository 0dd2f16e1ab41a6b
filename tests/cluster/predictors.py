"""What is served on the cluster, as an administrator sees it."""

from dataclasses import dataclass
from typing import Any

from tests.cluster.control_plane import Cluster

NAMESPACE = "--namespace=cxrflow"


@dataclass(frozen=True, order=True)
class Pod:
    """A pod and its server's container, which have other identities after a restart."""

    name: str
    uid: str
    container: str
    restarts: int


def pods(cluster: Cluster, version: str) -> list[Pod]:
    """Returns the ready pods of a version that nobody is deleting."""
    found = cluster.get("pods", NAMESPACE, f"--selector=cxrflow/version={version}")
    return sorted(
        Pod(
            one["metadata"]["name"],
            one["metadata"]["uid"],
            status.get("containerID", ""),  # a simulated one has none
            status["restartCount"],
        )
        for one in found.get("items", [])
        for status in one["status"].get("containerStatuses", [])
        if status["ready"] and "deletionTimestamp" not in one["metadata"]
    )


def templates(cluster: Cluster, version: str) -> int:
    """Returns how many templates the pods of a version have had: each has a ReplicaSet."""
    return _replica_sets(cluster).count(version)


def versions(cluster: Cluster) -> set[str]:
    """Returns the versions that are not gone completely."""
    return set(_replica_sets(cluster))


def _replica_sets(cluster: Cluster) -> list[str]:
    found = cluster.get("replicasets", NAMESPACE, "--selector=cxrflow/version")
    return [one["metadata"]["labels"]["cxrflow/version"] for one in found.get("items", [])]


def shares(cluster: Cluster) -> dict[str, int]:
    """Returns the percentages that the InferenceService asks for, by version."""
    found = cluster.get("inferenceservice", "cxrflow", NAMESPACE)
    if not found:
        return {}
    given = {
        _version(one["predictor"]): one.get("trafficPercent", 0)
        for one in found["spec"].get("canary", [])
    }
    return {_version(found["spec"]["predictor"]): 100 - sum(given.values()), **given}


def names(cluster: Cluster, kind: str) -> list[str]:
    """Returns the names of the objects of a kind."""
    found = cluster.get(kind, NAMESPACE)
    return sorted(one["metadata"]["name"] for one in found.get("items", []))


def _version(predictor: dict[str, Any]) -> str:
    return predictor["labels"]["cxrflow/version"]
