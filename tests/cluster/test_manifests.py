"""Every overlay, applied to a real API server with the real definitions and webhooks of KServe."""

from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.control_plane import ROOT, Cluster

MANIFESTS = ROOT / "manifests"
APPLY = ("apply", "--server-side", "--validate=strict")


@pytest.fixture
def directory(request: pytest.FixtureRequest, control: Cluster) -> Iterator[str]:
    """A directory of manifests, of which nothing is left afterwards."""
    path = str(MANIFESTS / request.param)
    yield path
    control.kubectl("delete", "--kustomize", path, "--ignore-not-found")


@pytest.mark.parametrize(
    "directory",
    ["overlays/kind", "overlays/minikube", "overlays/gke", "many-nodes"],
    indirect=True,
)
def test_it_is_accepted_strictly_and_applying_it_again_changes_nothing(
    control: Cluster, directory: str
) -> None:
    first = control.kubectl(*APPLY, "--kustomize", directory)
    assert first.count("serverside-applied") >= 3
    # It fails where applying would change something.
    assert not control.kubectl("diff", "--server-side", "--kustomize", directory)
    assert control.kubectl(*APPLY, "--kustomize", directory) == first
    # Whatever namespace the kubeconfig has, ours are elsewhere.
    for kind in ("servingruntime", "configmap", "trainingruntime"):
        found = control.get(
            kind, "--namespace=default", "--selector=app.kubernetes.io/part-of=cxrflow"
        )
        assert not found.get("items")


def test_a_field_that_does_not_exist_is_refused(control: Cluster) -> None:
    runtime = yaml.safe_load((MANIFESTS / "base" / "serving-runtime.yaml").read_text())
    runtime["metadata"]["namespace"] = "default"
    runtime["spec"]["containers"][0]["readinesProbe"] = {}
    said = control.kubectl(*APPLY, "--dry-run=server", "--filename=-", body=runtime, fails=True)
    assert "readinesProbe" in said


def test_the_job_that_draws_keeps_to_the_restricted_standard(control: Cluster) -> None:
    job = yaml.safe_load((MANIFESTS / "jobs" / "sample-data.yaml").read_text())
    control.kubectl("create", "namespace", "strict")
    control.kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sample-data", "namespace": "strict"},
        "spec": job["spec"]["template"]["spec"],
    }
    control.kubectl("create", "--dry-run=server", "--validate=strict", "--filename=-", body=pod)
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    said = control.kubectl("create", "--dry-run=server", "--filename=-", body=pod, fails=True)
    assert 'violates PodSecurity "restricted' in said
