"""What the roles allow and what not, asked of the API server with the service accounts' own tokens."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import Cluster
from tests.cluster.test_manifests import APPLY, MANIFESTS


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


# What deploying takes, and what is next to it. Resources as group:resource/name#subresource.
CASES = [
    # (verb, resource, namespace, allowed)
    ("get", "serving.kserve.io:inferenceservices/cxrflow", "cxrflow", True),
    ("patch", "serving.kserve.io:inferenceservices/cxrflow", "cxrflow", True),
    ("delete", "serving.kserve.io:inferenceservices/cxrflow", "cxrflow", True),
    ("patch", "serving.kserve.io:inferenceservices/another", "cxrflow", False),
    ("create", "serving.kserve.io:inferenceservices/cxrflow", "cxrflow", True),
    ("list", "serving.kserve.io:inferenceservices", "cxrflow", False),
    ("get", "serving.kserve.io:inferenceservices/cxrflow", "kubeflow", False),
    ("patch", "serving.kserve.io:servingruntimes/cxrflow", "cxrflow", False),
    ("get", ":configmaps/cxrflow-inference-service", "cxrflow", True),
    ("patch", ":configmaps/cxrflow-inference-service", "cxrflow", False),
    ("get", ":configmaps/another", "cxrflow", False),
    ("get", ":configmaps/cxrflow-rollout", "cxrflow", True),
    ("create", ":configmaps/cxrflow-rollout", "cxrflow", True),
    ("patch", ":configmaps/cxrflow-rollout", "cxrflow", True),
    ("delete", ":configmaps/cxrflow-rollout", "cxrflow", False),
    ("list", ":pods", "cxrflow", True),
    ("get", ":pods#proxy", "cxrflow", True),
    ("create", ":pods#proxy", "cxrflow", True),
    ("create", ":pods", "cxrflow", False),
    ("create", ":pods#exec", "cxrflow", False),
    ("delete", ":pods", "cxrflow", False),
    ("get", ":secrets/cxrflow-object-store", "cxrflow", False),
    ("list", "gateway.networking.k8s.io:httproutes", "cxrflow", True),
    ("delete", "gateway.networking.k8s.io:httproutes", "cxrflow", True),
    ("patch", "gateway.networking.k8s.io:httproutes", "cxrflow", False),
    ("list", "autoscaling:horizontalpodautoscalers", "cxrflow", True),
    ("delete", "autoscaling:horizontalpodautoscalers", "cxrflow", True),
    ("patch", "autoscaling:horizontalpodautoscalers", "cxrflow", False),
    ("patch", "apps:deployments", "cxrflow", False),
    ("create", "trainer.kubeflow.org:trainjobs", "kubeflow", True),
    ("get", "trainer.kubeflow.org:trainjobs", "kubeflow", True),
    ("delete", "trainer.kubeflow.org:trainjobs", "kubeflow", True),
    ("create", "trainer.kubeflow.org:trainjobs", "cxrflow", False),
    ("list", ":pods", "kubeflow", True),
    ("get", ":pods#log", "kubeflow", True),
    ("get", ":secrets", "kubeflow", False),
    ("list", ":nodes", "", False),
    ("patch", "serving.kserve.io:clusterstoragecontainers", "", False),
]


def may(cluster: Cluster, user: str, verb: str, what: str, namespace: str) -> bool:
    """Asks the API server, by the account's token, whether it may."""
    group, _, resource = what.rpartition(":")
    resource, _, sub = resource.partition("#")
    resource, _, name = resource.partition("/")
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
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = cluster.kubectl("create", f"--raw={path}", "--filename=-", user=user, body=review)
    return json.loads(answer)["status"]["allowed"]


@pytest.mark.parametrize(("verb", "what", "namespace", "allowed"), CASES)
def test_the_pipeline_may_deploy_and_nothing_else(
    overlaid: Cluster, pipeline: str, verb: str, what: str, namespace: str, allowed: bool
) -> None:
    assert may(overlaid, pipeline, verb, what, namespace) == allowed


def test_the_predictor_may_do_nothing(overlaid: Cluster, predictor: str) -> None:
    for verb, what, namespace, _ in CASES:
        assert not may(overlaid, predictor, verb, what, namespace), (verb, what)


def test_a_refused_call_names_the_account(overlaid: Cluster, pipeline: str) -> None:
    said = overlaid.kubectl("get", "secrets", "--namespace=cxrflow", user=pipeline, fails=True)
    assert 'User "system:serviceaccount:kubeflow:cxrflow-pipeline" cannot list' in said
