"""Plays what KServe 0.20 lacks: the split of the traffic, and the gateway that follows it.

From 0.21 on KServe lists a canary in the HTTPRoute, with its weight, as soon as it is ready (kserve#5912,
kserve#5984). Here mutating webhooks add that to each HTTPRoute that is written, and have it written
before each status of an InferenceService.
"""

import base64
import contextlib
import http.server
import json
import random
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from tests.cluster.control_plane import API, HOST, Cluster
from tests.cluster.predictors import NAMESPACE

_PORT = 9444
_NAME = "splitting.cxrflow.test"


@contextlib.contextmanager
def split(cluster: Cluster) -> Iterator[None]:
    """Splits the traffic of every InferenceService while it lasts."""

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(_reviewed(cluster, review)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer((HOST, _PORT), Webhook)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cluster.certificate, cluster.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster.kubectl("create", "--filename=-", body=_configuration(cluster))
    try:
        yield
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", _NAME)
        server.shutdown()
        server.server_close()


def _configuration(cluster: Cluster) -> Mapping[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": _NAME},
        "webhooks": [
            {
                "name": _NAME,
                "rules": [
                    _rule("gateway.networking.k8s.io", "v1", "httproutes"),
                    _rule("serving.kserve.io", "v1beta1", "inferenceservices/status"),
                ],
                "clientConfig": {
                    "url": f"https://{HOST}:{_PORT}/",
                    "caBundle": base64.b64encode(cluster.certificate.read_bytes()).decode(),
                },
                "sideEffects": "NoneOnDryRun",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }


def _rule(group: str, version: str, resource: str) -> Mapping[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": ["CREATE", "UPDATE"],
        "resources": [resource],
    }


def _reviewed(cluster: Cluster, review: Mapping[str, Any]) -> Mapping[str, Any]:
    request = review["request"]
    response = {"uid": request["uid"], "allowed": True}
    if request["kind"]["kind"] == "InferenceService":
        if cluster.get("httproute", "cxrflow", NAMESPACE):
            note = f"cxrflow.test/written={request['uid']}"
            cluster.kubectl("annotate", "httproute", "cxrflow", NAMESPACE, "--overwrite", note)
    elif request["name"] == "cxrflow" and (weights := _weights(cluster)):
        rules = request["object"]["spec"]["rules"]
        for rule in rules:
            backend = rule["backendRefs"][0]
            rule["backendRefs"] = [
                {**backend, "name": name, "weight": weight} for name, weight in weights.items()
            ]
        patch = json.dumps([{"op": "replace", "path": "/spec/rules", "value": rules}])
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch.encode()).decode()}
    return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}


def _weights(cluster: Cluster) -> dict[str, int]:
    """Returns the weights of the predictors' services: of the stable one, and of canaries that are ready."""
    spec = cluster.get("inferenceservice", "cxrflow", NAMESPACE).get("spec", {})
    if not spec:
        return {}
    given = {
        _service(canary["predictor"]): canary.get("trafficPercent", 0)
        for canary in spec.get("canary", [])
        if _is_available(cluster, _service(canary["predictor"]))
    }
    stable = _service(spec["predictor"])
    # Without a canary the weight is the Gateway API's default.
    return {stable: 100 - sum(given.values()), **given} if given else {stable: 1}


def _service(predictor: Mapping[str, Any]) -> str:
    return f"cxrflow-{predictor['name']}-predictor"


def _is_available(cluster: Cluster, deployment: str) -> bool:
    found = cluster.get("deployment", deployment, NAMESPACE)
    return found.get("status", {}).get("availableReplicas", 0) > 0


@contextlib.contextmanager
def asked(cluster: Cluster, body: Mapping[str, Any]) -> Iterator[list[tuple[str, int]]]:
    """Asks the predictors by the route's weights, as a gateway does, while it lasts.

    Yields:
      the Service and the status of each answer.
    """
    answers: list[tuple[str, int]] = []
    over = threading.Event()

    def ask() -> None:
        with client(cluster) as api:
            while not over.is_set():
                route = cluster.get("httproute", "cxrflow", NAMESPACE)
                backends = route["spec"]["rules"][0]["backendRefs"] if route else []
                if backends:
                    weights = [one.get("weight", 1) for one in backends]
                    (chosen,) = random.choices(backends, weights)
                    answers.append((chosen["name"], predict(api, chosen["name"], body)))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def client(cluster: Cluster) -> httpx.Client:
    """Returns an HTTP client of the API server, for an administrator."""
    token = (cluster.home / "tokens.csv").read_text().partition(",")[0]
    trusted = ssl.create_default_context(cafile=str(cluster.certificate))
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=API, verify=trusted, headers=headers, timeout=30)


def predict(api: httpx.Client, service: str, body: Mapping[str, Any]) -> int:
    """Asks a ready pod of a Service, through the API server; returns the status of HTTP."""
    proxy = f"/api/v1/namespaces/cxrflow/services/{service}:80/proxy"
    return api.post(f"{proxy}/v1/models/cxrflow:predict", json=body).status_code
