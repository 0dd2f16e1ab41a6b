"""Every overlay, applied to a real API server with KServe's definitions and webhooks."""

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.control_plane import ROOT, Cluster

MANIFESTS = ROOT / "manifests"
APPLY = ("apply", "--server-side", "--validate=strict")


def applied(cluster: Cluster, directory: str) -> dict[str, str]:
    """Applies a directory; returns the resource version of each object of it."""
    path = str(MANIFESTS / directory)
    text = cluster.kubectl(*APPLY, "--kustomize", path, "--output=json")
    found = json.loads(text)
    objects = found["items"] if found["kind"] == "List" else [found]
    return {
        f"{one['kind']} {one['metadata'].get('namespace')}/{one['metadata']['name']}": one[
            "metadata"
        ]["resourceVersion"]
        for one in objects
    }


@pytest.fixture
def directory(request: pytest.FixtureRequest, control: Cluster) -> Iterator[str]:
    """A directory of manifests, of which nothing is left afterwards."""
    yield request.param
    control.kubectl("delete", "--kustomize", str(MANIFESTS / request.param), "--ignore-not-found")


@pytest.mark.parametrize(
    "directory",
    ["overlays/kind", "overlays/minikube", "overlays/gke", "many-nodes"],
    indirect=True,
)
def test_it_is_accepted_strictly_and_applying_it_again_changes_nothing(
    control: Cluster, directory: str
) -> None:
    first = applied(control, directory)
    assert len(first) >= 3
    # Our own objects are where they belong, whatever namespace the kubeconfig has.
    assert not [name for name in first if " default/" in name]
    # A namespace and a claim have finalizers and states that controllers write at once.
    stable = {name: version for name, version in first.items() if "Namespace" not in name}
    again = applied(control, directory)
    assert stable.items() <= again.items()


def test_a_misspelt_field_is_refused(control: Cluster) -> None:
    runtime = yaml.safe_load((MANIFESTS / "base" / "serving-runtime.yaml").read_text())
    runtime["metadata"]["namespace"] = "default"
    runtime["spec"]["containers"][0]["readinesProbe"] = {}
    said = control.kubectl(*APPLY, "--dry-run=server", "--filename=-", body=runtime, fails=True)
    assert 'unknown field "spec.containers[0].readinesProbe"' in said or "readinesProbe" in said
