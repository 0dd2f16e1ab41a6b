"""Every overlay, built by the real kustomize and held against the schemas of what takes it."""

import copy
import dataclasses
import json
import re
import shutil
import subprocess
import textwrap
from importlib.metadata import version as release
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.candidates import train_job
from pipelines.targets import TARGETS, job_template
from serving.cluster.inference_service import VERSION_LABEL
from tests.manifests.schemas import errors, unrestricted, without

ROOT = Path(__file__).parents[2]
OVERLAYS = ("kind", "minikube", "gke")
# Their schemas are in nobody's package.
UNCHECKED = {"ClusterStorageContainer"}


def build(overlay: str) -> list[dict[str, Any]]:
    return built(f"overlays/{overlay}")


def built(path: str) -> list[dict[str, Any]]:
    directory = str(ROOT / "manifests" / path)
    command = ["kubectl", "kustomize", directory]
    if not shutil.which("kubectl"):
        command = [str(ROOT / ".tools" / "kustomize"), "build", directory]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def manifests(overlay: str) -> list[dict[str, Any]]:
    return build(overlay)


# Objects that belong to no namespace.
CLUSTER_WIDE = {"Namespace", "ClusterStorageContainer"}


def named(manifests: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (one,) = (
        m for m in manifests if m["kind"] == kind and (not name or m["metadata"]["name"] == name)
    )
    return one


def inference_service(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    held = named(manifests, "ConfigMap", "cxrflow-inference-service")["data"]
    return yaml.safe_load(held["inference-service.yaml"])


def test_everything_is_what_the_cluster_takes(
    manifests: list[dict[str, Any]], kserve_schemas: Path
) -> None:
    checked = [m for m in manifests if m["kind"] not in UNCHECKED]
    assert len(checked) >= len(manifests) - len(UNCHECKED)
    for manifest in [*checked, inference_service(manifests)]:
        assert not errors(manifest, kserve_schemas), manifest["kind"]


def test_every_object_names_its_namespace(manifests: list[dict[str, Any]]) -> None:
    """`kubectl apply -k` puts an object without one into whatever namespace the context has."""
    for manifest in manifests:
        if manifest["kind"] not in CLUSTER_WIDE:
            assert manifest["metadata"].get("namespace"), manifest["kind"]
    runtime, service = named(manifests, "ServingRuntime"), inference_service(manifests)
    assert runtime["metadata"]["namespace"] == service["metadata"]["namespace"]
    assert runtime["metadata"]["name"] == service["spec"]["predictor"]["model"]["runtime"]


def test_the_model_has_no_name(manifests: list[dict[str, Any]]) -> None:
    """KServe's webhook rejects one, in a predictor of any standard model."""
    assert "name" not in inference_service(manifests)["spec"]["predictor"]["model"]


def test_the_storage_container_serves_the_model_store_alone(
    overlay: str, manifests: list[dict[str, Any]]
) -> None:
    formats = named(manifests, "ClusterStorageContainer")["spec"]["supportedUriFormats"]
    (prefix,) = [one["prefix"] for one in formats]
    bucket = TARGETS[overlay].store.split("://")[1].split("/")[0]
    assert TARGETS[overlay].store.startswith(prefix)
    assert prefix.split("://")[1].split("/")[0] == bucket, "not any bucket"


MONITORING = ("PodMonitor", "PrometheusRule", "cxrflow-dashboard")


@pytest.fixture(scope="module")
def monitored() -> list[dict[str, Any]]:
    """The overlay for kind, with monitoring."""
    directory = ROOT / "build" / "with-prometheus"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        (directory / "kustomization.yaml").write_text(
            "resources: [../../manifests/overlays/kind]\n"
            "components: [../../manifests/components/monitoring]\n"
        )
        return built("../build/with-prometheus")
    finally:
        shutil.rmtree(directory)


def test_monitoring_is_optional(manifests: list[dict[str, Any]]) -> None:
    assert not [m for m in manifests if {m["kind"], m["metadata"]["name"]} & set(MONITORING)]


def test_monitoring_is_what_prometheus_and_grafana_take(
    monitored: list[dict[str, Any]], monitoring_schemas: Path
) -> None:
    monitor, rule = named(monitored, "PodMonitor"), named(monitored, "PrometheusRule")
    dashboard = named(monitored, "ConfigMap", "cxrflow-dashboard")
    for manifest in (monitor, rule, dashboard):
        assert manifest["metadata"]["namespace"] == "cxrflow"
        assert not errors(manifest, monitoring_schemas), manifest["kind"]
    wrong = copy.deepcopy(rule)
    wrong["spec"]["groups"][0]["rules"][0]["annotation"] = {}
    assert errors(wrong, monitoring_schemas)
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["cxrflow.json"])["uid"] == "cxrflow"


def test_prometheus_scrapes_every_predictor_and_knows_its_version(
    monitored: list[dict[str, Any]],
) -> None:
    spec = named(monitored, "PodMonitor")["spec"]
    labels = {"serving.kserve.io/inferenceservice": "cxrflow"}
    assert spec["selector"]["matchLabels"] == labels
    (endpoint,) = spec["podMetricsEndpoints"]
    (runtime,) = named(monitored, "ServingRuntime")["spec"]["containers"]
    assert endpoint["portNumber"] in {port["containerPort"] for port in runtime["ports"]}
    (relabeling,) = endpoint["relabelings"]
    label = re.sub(r"\W", "_", VERSION_LABEL)
    assert relabeling["sourceLabels"] == [f"__meta_kubernetes_pod_label_{label}"]


def test_the_server_finds_the_state_of_the_rollout(manifests: list[dict[str, Any]]) -> None:
    runtime = named(manifests, "ServingRuntime")["spec"]
    (container,) = runtime["containers"]
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "rollout")
    (volume,) = (v for v in runtime["volumes"] if v["name"] == "rollout")
    assert {"name": "CXRFLOW_ROLLOUT", "value": mount["mountPath"]} in container["env"]
    # Before the first rollout there is none, and a pod would wait for it.
    state = f"{inference_service(manifests)['metadata']['name']}-rollout"
    assert volume["configMap"] == {"name": state, "optional": True}


def with_pacs(*further: str) -> list[dict[str, Any]]:
    """Returns the overlay of kind with the worker beside a PACS, and further parts of a kustomization."""
    directory = ROOT / "build" / "with-pacs"
    directory.mkdir(parents=True, exist_ok=True)
    parts = "resources: [../../manifests/overlays/kind]", *further
    if not further:
        parts += ("components: [../../manifests/components/pacs]",)
    try:
        (directory / "kustomization.yaml").write_text("\n".join(parts))
        return built("../build/with-pacs")
    finally:
        shutil.rmtree(directory)


def test_the_worker_beside_a_pacs_is_optional_and_restricted(
    kserve_schemas: Path,
) -> None:
    without = {(m["kind"], m["metadata"]["name"]) for m in build("kind")}
    added = [m for m in with_pacs() if (m["kind"], m["metadata"]["name"]) not in without]
    assert sorted(m["kind"] for m in added) == [
        "ConfigMap", "NetworkPolicy", "NetworkPolicy", "Service", "ServiceAccount", "StatefulSet",
    ]  # fmt: skip
    for manifest in added:
        assert manifest["metadata"]["namespace"] == "cxrflow"
        assert not errors(manifest, kserve_schemas), manifest["kind"]
    pod = named(added, "StatefulSet")["spec"]["template"]["spec"]
    assert not unrestricted(pod)
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["image"] == f"cxrflow-pacs:{release('cxrflow')}"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert set(container["resources"]) == {"requests", "limits"}


def test_the_worker_has_the_options_and_addresses_that_there_are() -> None:
    from typer.main import get_command

    from pipelines.cli import app

    known = {
        option
        for parameter in get_command(app).commands["pacs"].params
        for option in parameter.opts
    }
    manifests = with_pacs()
    stateful = named(manifests, "StatefulSet")["spec"]
    (container,) = stateful["template"]["spec"]["containers"]
    assert {argument.split("=")[0] for argument in container["args"]} <= known
    labels = stateful["template"]["metadata"]["labels"]
    addresses = named(manifests, "ConfigMap", "cxrflow-pacs")["data"]
    service = named(manifests, "Service", "cxrflow-pacs-endpoint")
    assert addresses["url"] == f"http://{service['metadata']['name']}"
    own = named(manifests, "NetworkPolicy", "pacs")["spec"]
    assert own["podSelector"]["matchLabels"] == labels
    assert own["policyTypes"] == ["Ingress", "Egress"]
    allowed = {port["port"] for rule in own["egress"] for port in rule["ports"]}
    assert allowed == {int(addresses["dicomweb"].split(":")[2].split("/")[0]), 8080, 53}
    predictor = named(manifests, "NetworkPolicy", "pacs-to-predictor")["spec"]
    assert predictor["podSelector"]["matchLabels"] == service["spec"]["selector"]
    assert predictor["ingress"][0]["from"] == [{"podSelector": {"matchLabels": labels}}]


def test_the_overlay_of_the_page_on_pacs_builds() -> None:
    page = (ROOT / "docs" / "pacs.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?) *```", page, re.DOTALL)
    assert len(blocks) == 2
    parts = "".join(blocks).replace("../../", "../../manifests/")
    manifests = with_pacs(textwrap.dedent(parts))
    addresses = named(manifests, "ConfigMap", "cxrflow-pacs")["data"]
    assert "orthanc.imaging" in addresses["dicomweb"]
    assert addresses["url"] == "http://cxrflow-pacs-endpoint"
    first = named(manifests, "NetworkPolicy", "pacs")["spec"]["egress"][0]
    assert first["to"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "imaging"
    }


def test_the_schemas_find_what_is_wrong(
    manifests: list[dict[str, Any]], kserve_schemas: Path
) -> None:
    policy = named(manifests, "NetworkPolicy", "default-deny")
    assert errors({**policy, "spec": {"podSelecter": {}}}, kserve_schemas)
    service = inference_service(manifests)
    service["spec"]["predictor"]["minReplica"] = 1
    assert errors(service, kserve_schemas)


def test_every_pod_keeps_to_the_restricted_standard(manifests: list[dict[str, Any]]) -> None:
    labels = named(manifests, "Namespace", "cxrflow")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    storage = named(manifests, "ClusterStorageContainer")
    predictor = inference_service(manifests)["spec"]["predictor"]
    assert predictor["storageContainerName"] == storage["metadata"]["name"]
    # As KServe makes it: the runtime's pod, with the container that fetches the model before it.
    runtime = named(manifests, "ServingRuntime")["spec"]
    pod = {**runtime, "initContainers": [storage["spec"]["container"]]}
    assert not unrestricted(pod)
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert set(container["resources"]) == {"requests", "limits"}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_what_is_not_restricted_is_found(manifests: list[dict[str, Any]]) -> None:
    runtime = named(manifests, "ServingRuntime")["spec"]
    (container,) = runtime["containers"]
    for field in ("allowPrivilegeEscalation", "capabilities", "runAsNonRoot", "seccompProfile"):
        loose = without(container, "securityContext", field)
        assert unrestricted({"containers": [loose]}), field
    assert unrestricted({**runtime, "hostNetwork": True})
    assert unrestricted({**runtime, "volumes": [{"name": "node", "hostPath": {"path": "/"}}]})


def test_no_image_floats_and_ours_are_this_release(manifests: list[dict[str, Any]]) -> None:
    images = re.findall(r"image: (\S+)", yaml.safe_dump_all(manifests))
    assert images
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+$", image), image
        if "cxrflow" in image:
            assert image.endswith(f":{release('cxrflow')}")


def test_no_secret_is_in_the_repository(manifests: list[dict[str, Any]]) -> None:
    assert not [m for m in manifests if m["kind"] == "Secret"]


def test_the_deployer_has_what_a_rollout_uses_and_no_more(
    manifests: list[dict[str, Any]],
) -> None:
    service = inference_service(manifests)["metadata"]
    role = named(manifests, "Role", "cxrflow-deployer")
    assert role["metadata"]["namespace"] == service["namespace"]
    # Played clusters of the rollout's tests refuse whatever is not in the role.
    granted = {
        (*rule["resources"], *rule.get("resourceNames", [])): rule["verbs"]
        for rule in role["rules"]
    }
    assert granted == {
        ("inferenceservices", service["name"]): ["get", "create", "patch", "delete"],
        ("configmaps", f"{service['name']}-inference-service"): ["get"],
        ("configmaps", f"{service['name']}-rollout"): ["get", "create", "patch"],
        ("httproutes",): ["list", "delete"],
        ("horizontalpodautoscalers",): ["list", "delete"],
        ("pods",): ["list"],
        ("pods/proxy",): ["get", "create"],
    }
    assert not [m for m in manifests if m["kind"].startswith("ClusterRole")]
    bindings = [m for m in manifests if m["kind"] == "RoleBinding"]
    subjects = {s["name"] for binding in bindings for s in binding["subjects"]}
    assert subjects == {"cxrflow-pipeline"}


def test_what_selects_predictors_selects_those_of_the_inference_service(
    manifests: list[dict[str, Any]],
) -> None:
    labels = {
        "serving.kserve.io/inferenceservice": inference_service(manifests)["metadata"]["name"]
    }
    assert named(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    policy = named(manifests, "NetworkPolicy", "predictor")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    ports = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    (container,) = named(manifests, "ServingRuntime")["spec"]["containers"]
    assert ports == {port["containerPort"] for port in container["ports"]}
    denied = named(manifests, "NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_inference_services_differ_in_scaling_alone() -> None:
    large, small = (inference_service(build(overlay)) for overlay in ("gke", "kind"))
    for service in (large, small):
        for field in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"):
            service["spec"]["predictor"].pop(field, None)
        service["metadata"]["annotations"].pop("serving.kserve.io/autoscalerClass", None)
    assert large == small


def test_many_nodes_are_what_kubeflow_trainer_takes(trainer_schemas: Path) -> None:
    manifests = built("many-nodes")
    for manifest in manifests:
        assert not errors(manifest, trainer_schemas), manifest["kind"]
    runtime = named(manifests, "TrainingRuntime")
    job = job_template(dataclasses.replace(TARGETS["gke"], nodes=2))
    assert not errors({**job, "metadata": {**job["metadata"], "name": "one"}}, trainer_schemas)
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["metadata"]["namespace"] == runtime["metadata"]["namespace"]
    wrong = {**job, "spec": {**job["spec"], "trainer": {"nodes": 2}}}
    assert errors(wrong, trainer_schemas)

    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # Kubeflow Trainer finds them by these.
    assert node["template"]["metadata"]["labels"] == {
        "trainer.kubeflow.org/trainjob-ancestor-step": "trainer"
    }
    assert (node["name"], container["name"]) == ("node", "node")
    assert not unrestricted(pod)
    assert container["image"] == f"cxrflow-training:{release('cxrflow')}"
    assert [port["containerPort"] for port in container["ports"]] == [train_job.PORT]
    (bound,) = named(manifests, "RoleBinding")["subjects"]
    assert bound["name"] == pod["serviceAccountName"] == "cxrflow-pipeline"
