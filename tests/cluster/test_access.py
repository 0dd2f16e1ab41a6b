"""What the roles allow and what not, asked of the API server with the service accounts' own tokens."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import Cluster
from tests.cluster.test_manifests import MANIFESTS, APPLY


@pytest.fixture(scope="module")
def overlaid(control: Cluster) -> Iterator[Cluster]:
    paths = [str(MANIFESTS / name) for name in ("overlays/kind", "many-nodes")]
    for path in paths:
        control.kubectl(*APPLY, "--kustomize", path)
    yield control
    for path in paths:
        control.kubectl("delete", "--kustomize", path)


@pytest.fixture(scope="module")
def pipeline(overlaid: Cluster) -> str:
    return overlaid.service_account("kubeflow", "cxrflow-pipeline").stem


@pytest.fixture(scope="module")
def predictor(overlaid: Cluster) -> str:
    return overlaid.service_account("cxrflow", "cxrflow-predictor").stem


def may(cluster: Cluster, user: str, verb: str, what: str, namespace: str) -> bool:
    """Asks the API server, by the account's token, whether it may."""
    group, _, resource = what.rpartition(":")
    resource, _, name = resource.partition("/")
    resource, _, sub = resource.partition("#")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "verb": verb,
                "group": group,
                "resource": resource,
                "subresource": sub,
                "name": name,
                "namespace": namespace,
            }
        },
    }
    answer = cluster.kubectl("create", "--filename=-", "--output=json", user=user, body=review)
    return json.loads(answer)["status"]["allowed"]
