"""KServe's real controller with its webhooks, as a process with its own service account's token."""

import base64
import json
import os
import socket
from typing import Any

import yaml

from tests.cluster import processes
from tests.cluster.control_plane import HOST, PROGRAMS, Cluster

NAMESPACE = "kserve"
_WEBHOOKS = f"https://{HOST}:9443"
# What needs cert-manager, and the controller, which is a process here.
_LEFT_OUT = {"Certificate", "Issuer", "Deployment"}


def install(cluster: Cluster) -> None:
    """Installs the definitions of the Gateway API and KServe, and starts the controller.

    As `make kind-up` has it: Standard mode, with the Gateway API.
    """
    cluster.kubectl("apply", "--server-side", f"--filename={PROGRAMS / 'gateway-api'}")
    objects = [
        _adapted(one, cluster)
        for one in yaml.load_all((PROGRAMS / "kserve.yaml").read_text(), yaml.CSafeLoader)
        if one["kind"] not in _LEFT_OUT
    ]
    definitions = [
        one for one in objects if one["kind"] in ("CustomResourceDefinition", "Namespace")
    ]
    webhooks = [one for one in objects if one["kind"].endswith("WebhookConfiguration")]
    others = [one for one in objects if one not in definitions and one not in webhooks]
    _apply(cluster, definitions)
    processes.until(lambda: _are_established(cluster), "the definitions are established")
    _apply(cluster, others)
    controller = _start(cluster)
    controller.until(lambda: _listens(HOST, 9443), "KServe's webhooks listen")
    _apply(cluster, webhooks)


def _are_established(cluster: Cluster) -> bool:
    return all(
        any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
        for definition in cluster.get("customresourcedefinition")["items"]
        for conditions in [definition.get("status", {}).get("conditions") or []]
    )


def _apply(cluster: Cluster, objects: list[dict[str, Any]]) -> None:
    cluster.kubectl("apply", "--server-side", "--filename=-", body=objects)


def _start(cluster: Cluster) -> processes.Process:
    # The controller looks for its certificate below the directory of temporary files.
    certificates = cluster.home / "k8s-webhook-server" / "serving-certs"
    certificates.mkdir(parents=True)
    (certificates / "tls.crt").symlink_to(cluster.certificate)
    (certificates / "tls.key").symlink_to(cluster.key)
    kubeconfig = cluster.service_account(NAMESPACE, "kserve-controller-manager")
    environment = {
        "KUBECONFIG": str(kubeconfig),
        "POD_NAMESPACE": NAMESPACE,
        "TMPDIR": str(cluster.home),
        "PATH": os.environ["PATH"],
    }
    return processes.start(
        [PROGRAMS / "kserve-manager", "--metrics-addr=0"], cluster.logs, environment
    )


def _adapted(found: dict[str, Any], cluster: Cluster) -> dict[str, Any]:
    """Returns an object of KServe's own as this cluster has it."""
    if found["kind"].endswith("WebhookConfiguration"):
        authority = base64.b64encode(cluster.certificate.read_bytes()).decode()
        for webhook in found["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"{_WEBHOOKS}{path}", "caBundle": authority}
    elif found["metadata"]["name"] == "inferenceservice-config":
        deploy = {"defaultDeploymentMode": "Standard"}
        ingress = {**json.loads(found["data"]["ingress"]), "enableGatewayApi": True}
        found["data"] |= {"deploy": json.dumps(deploy), "ingress": json.dumps(ingress)}
    return found


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
