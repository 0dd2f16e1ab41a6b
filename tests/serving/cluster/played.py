"""Kubernetes' API over HTTP, as far as deploying needs it, with KServe's and the kubelet's parts played.

The API answers in the words of Kubernetes 1.34. Server-side apply is as the API server does it for one field
manager beside others: fields that are no longer applied go, fields of others are conflicts, and the version
and the identity of an object are preconditions. The account has what the role of the manifests gives it.

KServe is played as its controller works, 0.20 and 0.21: its webhooks, pods that are replaced when their
template changes (which has the InferenceService's annotations), routes, autoscalers, what it leaves behind.
"""

import copy
import functools
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
from serving.cluster.state import Release
from tests.api import dropped, hanging, refused, served

NAMESPACE, NAME = "cxrflow", "cxrflow"
MANIFESTS = Path(__file__).parents[3] / "manifests" / "base"
TEMPLATE = MANIFESTS / "inference-service.yaml"
ANSWERS = [{"id": "one", "image": "AAAA", "probabilities": {"covid": 0.9, "normal": 0.1}}]

_VALIDATOR = "inferenceservice.kserve-webhook-server.validator"
# KServe copies all other annotations of an InferenceService to its pods.
_NOT_COPIED = {"serving.kserve.io/modelFormat"}


@dataclass(kw_only=True)
class Behaviour:
    """How the pods of a version do.

    Attributes:
      ready: whether they get ready; else `trouble` is why not.
      restarts: how often the server of each was restarted.
      metrics: whether they answer `/metrics`.
      covid: the share that they give the known image.
      failing: the share of requests that fail.
      seconds: that a request takes.
      positive: the share of images that they call covid.
    """

    ready: bool = True
    trouble: str = "ImagePullBackOff"
    restarts: int = 0
    metrics: bool = True
    covid: float = 0.9
    failing: float = 0.0
    seconds: float = 0.1
    positive: float = 0.3


@dataclass(kw_only=True)
class Pod:
    """A pod: its version, and its server's counters since it started."""

    uid: str
    version: str
    counted: list[float] = field(default_factory=lambda: [0.0] * 5)
    restarts: int = 0


@dataclass(kw_only=True)
class Deployment:
    """A Deployment: what its pods are made from, and the pods by name."""

    template: dict[str, Any]
    pods: dict[str, Pod] = field(default_factory=dict)


@dataclass(kw_only=True)
class Cluster:
    """The cluster's state, and what a test wants to happen.

    Attributes:
      template: the platform team's InferenceService.
      splits: whether KServe splits traffic in Standard mode, as from 0.21 on; else it is 0.20.0.
      gateway: whether the cluster has the Gateway API.
      traffic: predictions that come between two looks, all versions together.
      busy: pods that the autoscaler gives the stable version.
      behaviours: by version; others do well.
      found: the InferenceService, if there is one.
      held: the ConfigMap with its state, if there is one.
      history: the spec of every apply that changed it.
      foreign: fields that another field manager owns.
      faults: answers to the next requests instead of right ones: a status, "drop" or "hang".
      token: that is needed, if any.
      answers: that every version gives, before its `behaviour` is asked.
      meanwhile: called before each request is answered, with its method and path.
    """

    template: dict[str, Any]
    splits: bool = True
    gateway: bool = True
    traffic: float = 1000.0
    busy: int = 0
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    found: dict[str, Any] | None = None
    held: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    foreign: dict[str, Any] = field(default_factory=dict)
    faults: list[int | str] = field(default_factory=list)
    meanwhile: Callable[[str, str], None] = lambda method, path: None
    token: str = ""
    answers: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    autoscalers: dict[str, dict[str, Any]] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _version: int = 100
    _rolled_out: str = ""

    def serve(self, request: kmock.Request) -> Any:
        path = request.url.path
        self.requests.append(f"{request.method.value} {path}")
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise refused(401, "Unauthorized")
        self._require_allowed(request)
        if self.faults:
            fault = self.faults.pop(0)
            if fault == "drop":
                return dropped(request)
            if fault == "hang":
                return hanging(request)
            raise refused(int(fault), f"fault {fault}")
        self.meanwhile(request.method.value, path)
        if path.endswith(f"/configmaps/{NAME}-inference-service"):
            return {"data": {"inference-service.yaml": yaml.safe_dump(self.template)}}
        if path.endswith(f"/configmaps/{NAME}-rollout"):
            return self._state(request)
        if path.endswith("/pods"):
            return {
                "items": self._pods(
                    dict(pair.split("=") for pair in request.params["labelSelector"].split(","))
                )
            }
        if "/proxy/" in path:
            return self._asked(path, request.data)
        if "/httproutes" in path:
            if not self.gateway:
                raise refused(404, "the server could not find the requested resource")
            return self._owned(request, self.routes)
        if "/horizontalpodautoscalers" in path:
            return self._owned(request, self.autoscalers)
        return self._object(request)

    def _require_allowed(self, request: kmock.Request) -> None:
        parts = request.url.path.split("/namespaces/")[1].split("/")[1:]
        resource, name = parts[0], parts[1] if len(parts) > 1 else ""
        if "proxy" in parts:
            resource, name = "pods/proxy", ""
        verb = {"GET": "get" if name or "proxy" in parts else "list", "POST": "create"}.get(
            request.method.value, request.method.value.lower()
        )
        for rule in _role():
            names = rule.get("resourceNames")
            if (
                resource in rule["resources"]
                and verb in rule["verbs"]
                and (not names or name in names)
            ):
                return
        raise refused(
            403,
            f'{resource} "{name}" is forbidden: User "system:serviceaccount:kubeflow:cxrflow-pipeline" '
            f'cannot {verb} resource "{resource}" in API group "" in the namespace "{NAMESPACE}"',
        )

    def _object(self, request: kmock.Request) -> dict[str, Any]:
        method = request.method.value
        if method == "PATCH":
            self.apply(request.data, request)
        if not self.found:
            raise refused(404, f'inferenceservices.serving.kserve.io "{NAME}" not found')
        found = copy.deepcopy(self.found)
        if method == "DELETE":
            _require(request.data["preconditions"], self.found["metadata"], "delete")
            self.delete()
        return found

    def _state(self, request: kmock.Request) -> dict[str, Any]:
        if request.method.value == "PATCH":
            assert request.headers["Content-Type"] == "application/apply-patch+yaml"
            wanted = copy.deepcopy(request.data)
            _require_known(wanted["metadata"], self.held)
            self.held = self._stored(wanted, self.held)
        if not self.held:
            raise refused(404, f'configmaps "{NAME}-rollout" not found')
        return copy.deepcopy(self.held)

    def _owned(self, request: kmock.Request, objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
        if request.method.value == "GET":
            return {"items": copy.deepcopy(list(objects.values()))}
        name = request.url.path.rsplit("/", 1)[1]
        if name not in objects:
            raise refused(404, f'"{name}" not found')
        _require(request.data["preconditions"], objects[name]["metadata"], "delete")
        return objects.pop(name)

    def apply(self, wanted: dict[str, Any], request: kmock.Request | None = None) -> None:
        if request:
            assert request.headers["Content-Type"] == "application/apply-patch+yaml"
            assert request.params == {"fieldManager": "cxrflow"}
        wanted = copy.deepcopy(wanted)
        _require_known(wanted["metadata"], self.found)
        taken = [
            path
            for path, value in leaves(self.foreign)
            if at(wanted, path) is not None and at(wanted, path) != value
        ]
        if taken:
            raise _conflict([f".{'.'.join(path)}" for path in taken])
        made = merged(wanted, self.foreign)
        _default(made)
        _validate(made, self.found)
        before, self.found = self.found, self._stored(made, self.found)
        if not before or before["spec"] != self.found["spec"]:
            self.history.append(copy.deepcopy(self.found["spec"]))
        self.reconcile()

    def delete(self) -> None:
        """Deletes the InferenceService, and all that it owns with it."""
        self.found = None
        for owned in (self.deployments, self.autoscalers, self.routes):
            owned.clear()

    def _stored(self, made: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
        meta = before["metadata"] if before else {"uid": f"uid-{self._next()}"}
        made["metadata"]["uid"] = meta["uid"]
        if before:
            made["metadata"]["resourceVersion"] = meta["resourceVersion"]
            made = {**made, **({"status": before["status"]} if "status" in before else {})}
            if made == before:  # an apply that changes nothing is no new version
                return before
        made["metadata"]["resourceVersion"] = str(self._next())
        return made

    def _next(self) -> int:
        self._version += 1
        return self._version

    def touch(self) -> None:
        """Changes the object's version, as KServe does whenever it writes the status."""
        assert self.found
        self.found["metadata"]["resourceVersion"] = str(self._next())

    def reconcile(self) -> None:
        """What KServe and Kubernetes' own controllers do after a change."""
        assert self.found
        spec, meta = self.found["spec"], self.found["metadata"]
        mode = meta["annotations"]["serving.kserve.io/deploymentMode"]
        before = copy.deepcopy(self.found.get("status"))
        if mode == "Knative":
            self._reconcile_knative(spec["predictor"], meta)
        else:
            self._reconcile_standard(spec, meta)
        if self.found.get("status") != before:
            self.touch()

    def _reconcile_knative(self, predictor: dict[str, Any], meta: dict[str, Any]) -> None:
        assert self.found
        newest, percent = predictor["labels"][VERSION_LABEL], predictor.get("canaryTrafficPercent")
        if percent is None:
            self._rolled_out = newest
        self._deploy(f"{NAME}-{newest}", newest, _pod_template(predictor, meta), 1)
        for name in set(self.deployments) - {f"{NAME}-{newest}", f"{NAME}-{self._rolled_out}"}:
            del self.deployments[name]
        share = 100 if percent is None else percent
        traffic = [{"latestRevision": True, "percent": share, "revisionName": newest}]
        if share < 100:
            traffic.append({"percent": 100 - share, "revisionName": self._rolled_out})
        component = {"latestCreatedRevision": newest, "traffic": traffic}
        self.found["status"] = {"conditions": [], "components": {"predictor": component}}

    def _reconcile_standard(self, spec: dict[str, Any], meta: dict[str, Any]) -> None:
        assert self.found
        predictor, canaries = spec["predictor"], spec.get("canary", [])
        wanted = {f"{NAME}-{predictor['name']}-predictor": self.busy}
        statuses = []
        for one in canaries:
            canary = one["predictor"]
            name = f"{NAME}-{canary['name']}-predictor"
            version, replicas = canary["labels"][VERSION_LABEL], canary["minReplicas"]
            pods = _pod_template(merged(copy.deepcopy(predictor), canary), meta)
            self._deploy(name, version, pods, replicas)
            self._autoscale(name, replicas, replicas, meta)
            wanted[name] = replicas
            ready = self.behaviours.get(version, Behaviour()).ready
            percent = one["trafficPercent"]
            statuses.append({"name": canary["name"], "ready": ready, "trafficPercent": percent})
        taken = sum(
            one["predictor"]["minReplicas"]
            for one, status in zip(canaries, statuses, strict=True)
            if status["ready"] or not self.splits
        )
        least = predictor.get("minReplicas", 1)
        least = max(least - taken, 1) if taken else least
        name = f"{NAME}-{predictor['name']}-predictor"
        version = predictor["labels"][VERSION_LABEL]
        self._deploy(name, version, _pod_template(predictor, meta), max(least, self.busy))
        self._autoscale(name, least, predictor.get("maxReplicas", least), meta)
        for gone in set(self.deployments) - set(wanted):  # but routes and autoscalers stay
            del self.deployments[gone]
        stable = self.behaviours.get(version, Behaviour()).ready
        self.found["status"] = {
            "conditions": [{"type": "PredictorReady", "status": str(stable)}],
            "canaryStatuses": statuses,
        }
        if stable and self.gateway:
            self._route(spec, meta, statuses)

    def _route(
        self, spec: dict[str, Any], meta: dict[str, Any], statuses: list[dict[str, Any]]
    ) -> None:
        predictor = f"{NAME}-{spec['predictor']['name']}-predictor"
        backends: list[dict[str, Any]] = [{"name": predictor, "port": 80}]
        if self.splits and statuses:
            ready = [one for one in statuses if one["ready"]]
            backends[0]["weight"] = 100 - sum(one["trafficPercent"] for one in ready)
            backends += [
                {
                    "name": f"{NAME}-{one['name']}-predictor",
                    "port": 80,
                    "weight": one["trafficPercent"],
                }
                for one in ready
            ]
        for name in (NAME, f"{NAME}-predictor" if self.splits else predictor):
            rules = [{"backendRefs": copy.deepcopy(backends)}]
            self.routes[name] = self._part_of(name, meta, {"rules": rules})

    def _autoscale(self, name: str, least: int, most: int, meta: dict[str, Any]) -> None:
        bounds = {"minReplicas": least, "maxReplicas": max(least, most)}
        self.autoscalers[name] = self._part_of(name, meta, bounds)

    def _part_of(self, name: str, meta: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        return {
            "metadata": {
                "name": name,
                "uid": f"uid-of-{name}",
                "resourceVersion": str(self._next()),
                "ownerReferences": [{"uid": meta["uid"]}],
            },
            "spec": spec,
        }

    def _deploy(self, name: str, version: str, template: dict[str, Any], replicas: int) -> None:
        there = self.deployments.get(name)
        if there is None or there.template != template:  # all pods are replaced
            there = self.deployments[name] = Deployment(template=template)
        while len(there.pods) > replicas:
            there.pods.popitem()
        while len(there.pods) < replicas:
            uid = f"uid-{self._next()}"
            pod = f"{NAME}-v{version}-{uid}"
            there.pods[pod] = Pod(uid=uid, version=version)

    def shares(self) -> dict[str, float]:
        """Returns the shares of the traffic that versions really get, in percent."""
        if not self.found:
            return {}
        traffic = self.found["status"].get("components", {}).get("predictor", {}).get("traffic")
        if traffic:
            found = {one["revisionName"]: one["percent"] for one in traffic}
            return found if len(self.deployments) > 1 else {self._rolled_out: 100}
        if NAME not in self.routes:  # nothing was ready yet
            return {}
        backends = self.routes[NAME]["spec"]["rules"][0]["backendRefs"]
        given = {one["name"].split("-v")[1].split("-")[0]: one.get("weight", 1) for one in backends}
        total = sum(given.values())
        return {version: 100 * weight / total for version, weight in given.items()}

    def pods(self, version: str) -> dict[str, Pod]:
        """Returns the pods of a version by name."""
        return {
            name: pod
            for deployment in self.deployments.values()
            for name, pod in deployment.pods.items()
            if pod.version == version
        }

    def _pods(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        assert labels["serving.kserve.io/inferenceservice"] == NAME
        version = labels[VERSION_LABEL]
        behaviour = self.behaviours.get(version, Behaviour())
        made = []
        for name, pod in self.pods(version).items():
            container: dict[str, Any] = {
                "name": "kserve-container",
                "restartCount": behaviour.restarts,
                "state": {"running": {}},
            }
            if not behaviour.ready:
                waiting = {"reason": behaviour.trouble, "message": "see the registry"}
                container["state"] = {"waiting": waiting}
            if behaviour.restarts:
                container["lastState"] = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
            status = {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": str(behaviour.ready)}],
                "containerStatuses": [container],
            }
            made.append({"metadata": {"name": name, "uid": pod.uid}, "status": status})
        return made

    def _asked(self, path: str, body: Any) -> Any:
        name = path.split("/pods/")[1].split(":")[0]
        pod = {
            key: one
            for deployment in self.deployments.values()
            for key, one in deployment.pods.items()
        }.get(name)
        if pod is None:
            raise refused(404, f'pods "{name}" not found')
        behaviour = self.behaviours.get(pod.version, Behaviour())
        if path.endswith(":predict"):
            (instance,) = body["instances"]
            for known in self.answers:
                if known["image"] == instance["image_bytes"]["b64"]:
                    return {"predictions": [{"probabilities": known["probabilities"]}]}
            shares = {"covid": behaviour.covid, "normal": 1 - behaviour.covid}
            return {"predictions": [{"probabilities": shares}]}
        if not behaviour.metrics:
            raise refused(503, "error trying to reach service: dial tcp: connect: refused")
        if behaviour.restarts != pod.restarts:
            pod.restarts, pod.counted = behaviour.restarts, [0.0] * 5
        share = self.shares().get(pod.version, 0) / 100 / len(self.pods(pod.version))
        requests = self.traffic * share
        for position, more in enumerate(
            (
                requests * (1 - behaviour.failing),
                requests * behaviour.failing,
                requests * behaviour.seconds,
                requests * behaviour.positive,
                requests * (1 - behaviour.positive),
            )
        ):
            pod.counted[position] += more
        right, failed, seconds, covid, normal = pod.counted
        # The kubelet's probes are answered, too.
        return (
            "# TYPE cxrflow_requests counter\n"
            f'cxrflow_requests_total{{status="200"}} {right + 60}\n'
            f'cxrflow_requests_total{{status="500"}} {failed}\n'
            "# TYPE request_predict_seconds histogram\n"
            f'request_predict_seconds_count{{model_name="cxrflow"}} {right + failed}\n'
            f'request_predict_seconds_sum{{model_name="cxrflow"}} {seconds}\n'
            "# TYPE cxrflow_predictions counter\n"
            f'cxrflow_predictions_total{{class="covid"}} {covid}\n'
            f'cxrflow_predictions_total{{class="normal"}} {normal}\n'
        ).encode()


@functools.cache
def _role() -> list[dict[str, Any]]:
    objects = yaml.safe_load_all((MANIFESTS / "access.yaml").read_text())
    (role,) = [one for one in objects if one["kind"] == "Role"]
    rules: list[dict[str, Any]] = role["rules"]
    return rules


def _require_known(wanted: dict[str, Any], there: dict[str, Any] | None) -> None:
    """The preconditions of an apply; with the version alone, an object that is gone is made again."""
    uid = wanted.get("uid")
    if there is None:
        if uid:
            raise refused(
                409,
                f"uid mismatch: the provided object specified uid {uid}, and no existing object was found",
            )
        return
    _require(wanted, there["metadata"], "patch")


def _require(wanted: dict[str, Any], there: dict[str, Any], verb: str) -> None:
    if wanted.get("uid", there["uid"]) != there["uid"]:
        raise refused(
            409,
            f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: {there['uid']}",
        )
    if wanted.get("resourceVersion", there["resourceVersion"]) != there["resourceVersion"]:
        raise refused(
            409,
            f'Operation cannot be fulfilled on "{NAME}": the object has been modified; please apply your '
            f"changes to the latest version and try again ({verb})",
        )


def _conflict(fields: list[str]) -> kmock.KubernetesError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using serving.kserve.io/v1beta1',
            "field": one,
        }
        for one in fields
    ]
    if len(fields) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {fields[0]}"
    else:
        named = "\n".join(f"- {one}" for one in fields)
        message = (
            f"Apply failed with {len(fields)} conflicts: "
            f'conflicts with "kubectl-edit" using serving.kserve.io/v1beta1:\n{named}'
        )
    return refused(409, message, causes)


def _default(made: dict[str, Any]) -> None:
    """KServe's defaulter: what its Go types always write."""
    meta, spec = made["metadata"], made["spec"]
    meta.setdefault("annotations", {}).setdefault("serving.kserve.io/modelFormat", "cxrflow")
    spec["predictor"].setdefault("automountServiceAccountToken", False)
    for one in spec.get("canary", []):
        one["predictor"]["model"].setdefault("name", "")


def _validate(made: dict[str, Any], before: dict[str, Any] | None) -> None:
    """KServe's validator."""
    predictor = made["spec"]["predictor"]
    why = ""
    if predictor["model"].get("name"):
        why = "the 'name' field is not allowed in standard predictor"
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    if most and least > most:
        why = "MinReplicas cannot be greater than MaxReplicas."
    for one in made["spec"].get("canary", []):
        canary = one["predictor"]
        if canary["name"] == predictor["name"]:
            why = f'canary predictor.name "{canary["name"]}" conflicts with stable predictor name'
        if canary.get("maxReplicas"):
            why = f'canary "{canary["name"]}" must not set maxReplicas (canary uses fixed replicas)'
        if canary["minReplicas"] > least:
            why = (
                f'canary "{canary["name"]}" minReplicas ({canary["minReplicas"]}) must not exceed stable '
                f"predictor minReplicas ({least})"
            )
    if before:
        old = before["spec"]["predictor"]
        same = old["model"].get("storageUri") == predictor["model"].get("storageUri")
        if old.get("name") != predictor.get("name") and same:
            why = "predictor.name change requires a model change (e.g. storageUri)"
    if why:
        raise refused(403, f'admission webhook "{_VALIDATOR}" denied the request: {why}')


def _pod_template(predictor: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    copied = {key: value for key, value in meta["annotations"].items() if key not in _NOT_COPIED}
    return {
        "labels": predictor.get("labels", {}),
        "annotations": {**copied, **predictor.get("annotations", {})},
        "uri": predictor["model"].get("storageUri"),
        "account": predictor.get("serviceAccountName"),
    }


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
    """Lays one object over another, as KServe does for canaries: empty values replace nothing."""
    for key, value in other.items():
        if isinstance(value, dict):
            one[key] = merged(one.get(key, {}), value)
        elif value != "":
            one[key] = copy.deepcopy(value)
    return one


def release(version: int, decided: int | None = None) -> Release:
    return Release(
        version=str(version),
        uri=f"s3://models/cxrflow/{version}",
        decided=f"2026-01-{decided or version:02d}T00:00:00+00:00",
        reason="coronet alone passes the gate.",
        run="run-1",
        fingerprint="abc",
        trust=f"unproven: no adults without covid in span {version}",
    )


def noted(cluster: Cluster, name: str) -> dict[str, Any]:
    """Returns what the stored state has under a name."""
    assert cluster.held
    found: dict[str, Any] = json.loads(cluster.held["data"][name])
    return found


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
