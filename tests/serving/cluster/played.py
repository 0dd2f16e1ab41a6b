"""Kubernetes' API over HTTP, as far as deploying needs it, with KServe's and the kubelet's parts played.

Server-side apply is as the API server does it for one field manager beside others: what is no longer
applied goes, another's field is a conflict, and the version and the identity of an object are
preconditions.
"""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kmock
import yaml
from kubernetes import client

from serving.cluster.inference_service import VERSION_LABEL
from serving.cluster.rollout import Release
from tests.api import dropped, hanging, refused, served

NAMESPACE, NAME = "cxrflow", "cxrflow"
TEMPLATE = Path(__file__).parents[3] / "manifests" / "base" / "inference-service.yaml"
ANSWERS = [{"id": "one", "image": "AAAA", "probabilities": {"covid": 0.9, "normal": 0.1}}]


@dataclass(kw_only=True)
class Behaviour:
    """How the pods of a version do.

    Attributes:
      ready: whether they get ready; else `trouble` is why not.
      covid: the share that they give the known image.
      failing: the share of requests that fail.
      seconds: that a request takes.
      positive: the share of images that they call covid.
    """

    ready: bool = True
    trouble: str = "ImagePullBackOff"
    covid: float = 0.9
    failing: float = 0.0
    seconds: float = 0.1
    positive: float = 0.3


@dataclass(kw_only=True)
class Cluster:
    """The cluster's state, and what a test wants to happen.

    Attributes:
      template: the platform team's InferenceService.
      behaviours: by version; others do well.
      found: the InferenceService, if there is one.
      history: the spec of every apply that changed it.
      foreign: fields that another field manager has.
      faults: answers to the next requests instead of right ones: a status, "drop" or "hang".
      token: that lets in, if one is asked for.
      answers: that every version gives, before its `behaviour` is asked.
      meanwhile: called before each request is answered, with its method and path.
    """

    template: dict[str, Any]
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    found: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    foreign: dict[str, Any] = field(default_factory=dict)
    faults: list[int | str] = field(default_factory=list)
    meanwhile: Callable[[str, str], None] = lambda method, path: None
    token: str = ""
    answers: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _version: int = 0
    _answered: dict[str, list[float]] = field(default_factory=dict)

    def serve(self, request: kmock.Request) -> Any:
        path = request.url.path
        self.requests.append(f"{request.method.value} {path}")
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise refused(401, "Unauthorized")
        if self.faults:
            fault = self.faults.pop(0)
            if fault == "drop":
                return dropped(request)
            if fault == "hang":
                return hanging(request)
            raise refused(int(fault), f"fault {fault}")
        self.meanwhile(request.method.value, path)
        if "/configmaps/" in path:
            return {"data": {"inference-service.yaml": yaml.safe_dump(self.template)}}
        if path.endswith("/pods"):
            return {
                "items": self._pods(
                    dict(pair.split("=") for pair in request.params["labelSelector"].split(","))
                )
            }
        if "/proxy/" in path:
            return self._asked(path, request.data)
        return self._object(request)

    def _object(self, request: kmock.Request) -> dict[str, Any]:
        method = request.method.value
        if method == "PATCH":
            assert request.headers["Content-Type"] == "application/apply-patch+yaml"
            assert request.params == {"fieldManager": "cxrflow"}
            self.apply(request.data)
        if not self.found:
            raise refused(404, f'inferenceservices "{NAME}" not found')
        found = copy.deepcopy(self.found)
        if method == "DELETE":
            self.found = None
        return found

    def apply(self, wanted: dict[str, Any]) -> None:
        meta = wanted["metadata"]
        there = self.found["metadata"] if self.found else {}
        if meta.get("uid", there.get("uid")) != there.get("uid"):
            raise refused(409, "Precondition failed: UID in precondition")
        if meta.get("resourceVersion", there.get("resourceVersion")) != there.get(
            "resourceVersion"
        ):
            raise refused(409, "the object has been modified")
        for path, value in leaves(self.foreign):
            mine = at(wanted, path)
            if mine is not None and mine != value:
                raise refused(
                    409,
                    f'Apply failed with 1 conflict: conflict with "kubectl-edit": .{".".join(path)}',
                )
        made = merged(copy.deepcopy(wanted), self.foreign)
        made["metadata"]["uid"] = there.get("uid") or f"uid-{self._version}"
        before, self.found = self.found, made
        if not before or before["spec"] != made["spec"]:
            self.history.append(copy.deepcopy(made["spec"]))
        self.touch()

    def touch(self) -> None:
        """Changes the object's version, as KServe does whenever it writes the status."""
        assert self.found
        self._version += 1
        self.found["metadata"]["resourceVersion"] = str(self._version)

    def shares(self) -> dict[str, int]:
        """Returns the shares of the traffic by version."""
        if not self.found:
            return {}
        spec = self.found["spec"]
        canaries = spec.get("canary", [])
        given = {
            one["predictor"]["labels"][VERSION_LABEL]: one["trafficPercent"] for one in canaries
        }
        predictor = spec["predictor"]
        newest = predictor["labels"][VERSION_LABEL]
        percent = predictor.get("canaryTrafficPercent")
        if percent is not None:
            stable = json.loads(self.found["metadata"]["annotations"]["cxrflow/stable"])["version"]
            return {newest: percent, stable: 100 - percent}
        return {**given, newest: 100 - sum(given.values())}

    def _pods(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        assert labels["serving.kserve.io/inferenceservice"] == NAME
        version = labels[VERSION_LABEL]
        if version not in self.shares():
            return []
        behaviour = self.behaviours.get(version, Behaviour())
        status: dict[str, Any] = {
            "conditions": [{"type": "Ready", "status": str(behaviour.ready)}],
        }
        if not behaviour.ready:
            waiting = {"reason": behaviour.trouble, "message": "see the registry"}
            status["containerStatuses"] = [{"state": {"waiting": waiting}}]
        return [{"metadata": {"name": f"cxrflow-v{version}-abc"}, "status": status}]

    def _asked(self, path: str, body: Any) -> Any:
        version = path.split("/pods/cxrflow-v")[1].split("-")[0]
        behaviour = self.behaviours.get(version, Behaviour())
        if path.endswith(":predict"):
            (instance,) = body["instances"]
            for known in self.answers:
                if known["image"] == instance["image_bytes"]["b64"]:
                    return {"predictions": [{"probabilities": known["probabilities"]}]}
            shares = {"covid": behaviour.covid, "normal": 1 - behaviour.covid}
            return {"predictions": [{"probabilities": shares}]}
        answered = self._answered.setdefault(version, [0.0] * 5)
        requests = 10.0 * self.shares().get(version, 0)
        for position, more in enumerate(
            (
                requests * (1 - behaviour.failing),
                requests * behaviour.failing,
                requests * behaviour.seconds,
                requests * behaviour.positive,
                requests * (1 - behaviour.positive),
            )
        ):
            answered[position] += more
        right, failed, seconds, covid, normal = answered
        return (
            "# TYPE cxrflow_requests counter\n"
            f'cxrflow_requests_total{{status="200"}} {right}\n'
            f'cxrflow_requests_total{{status="500"}} {failed}\n'
            "# TYPE request_predict_seconds histogram\n"
            f'request_predict_seconds_count{{model_name="cxrflow"}} {right + failed}\n'
            f'request_predict_seconds_sum{{model_name="cxrflow"}} {seconds}\n'
            "# TYPE cxrflow_predictions counter\n"
            f'cxrflow_predictions_total{{class="covid"}} {covid}\n'
            f'cxrflow_predictions_total{{class="normal"}} {normal}\n'
        ).encode()


def leaves(
    tree: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    for key, value in other.items():
        one[key] = merged(one.get(key, {}), value) if isinstance(value, dict) else value
    return one


def release(version: int, decided: int | None = None) -> Release:
    return Release(
        version=str(version),
        uri=f"s3://models/cxrflow/{version}",
        decided=f"2026-01-{decided or version:02d}T00:00:00+00:00",
        reason="coronet alone passes the gate.",
        run="run-1",
        fingerprint="abc",
    )


def noted(cluster: Cluster, name: str) -> dict[str, Any]:
    assert cluster.found
    return json.loads(cluster.found["metadata"]["annotations"][f"cxrflow/{name}"])


@contextmanager
def running(cluster: Cluster) -> Iterator[str]:
    """Yields the URL of the API."""
    with served(cluster.serve) as url:
        yield url


def connected(url: str, token: str = "") -> client.ApiClient:
    configuration = client.Configuration(host=url)
    configuration.retries = False
    if token:
        configuration.api_key = {"authorization": f"Bearer {token}"}
    return client.ApiClient(configuration)
