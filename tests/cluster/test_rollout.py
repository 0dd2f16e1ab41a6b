"""Versions rolled out on a real cluster: KServe's controller, a kubelet, the serving image.

Where kwok simulates the node, tests that need a real container are skipped.

The tests are in the order of a cluster's life, and each begins with a version that it needs served.
"""

import base64
import contextlib
import dataclasses
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import UserError
from serving.cluster import known_answers, rollout, watch
from serving.cluster.inference_service import InferenceService
from serving.cluster.policy import Policy
from serving.cluster.state import Release, now
from serving.store import number_of
from tests.cluster import node, predictors, processes, splitting
from tests.cluster.control_plane import HOST, PROGRAMS, Cluster
from tests.cluster.predictors import NAMESPACE
from tests.cluster.test_manifests import APPLY, MANIFESTS
from tests.pipelines.cli import cxrflow

containers = pytest.mark.usefixtures("containers")

QUICK = Policy(steps=(), ready_seconds=180, poll_seconds=0.5)


@pytest.fixture(scope="module")
def served(cluster: Cluster, store: str) -> Iterator[Cluster]:
    """The cluster with the overlay `kind` and the key to the model store, as `make kind-up` has them."""
    cluster.kubectl(*APPLY, "--kustomize", str(MANIFESTS / "overlays" / "kind"))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "cxrflow-object-store",
            "namespace": "cxrflow",
            "annotations": {
                "serving.kserve.io/s3-endpoint": f"{HOST}:9000",
                "serving.kserve.io/s3-usehttps": "0",
                "serving.kserve.io/s3-region": "us-east-1",
            },
        },
        "stringData": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
    }
    cluster.kubectl("create", "--filename=-", body=secret)
    with pytest.MonkeyPatch.context() as patch:
        account = cluster.service_account("kubeflow", "cxrflow-pipeline")
        patch.setenv("KUBECONFIG", str(account))
        # Kubernetes' client has read the variable when it was imported.
        patch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(account))
        yield cluster


def released(uri: str) -> Release:
    """Returns the release of a published version, as the pipeline makes it: always with a verdict."""
    version = number_of(uri)
    return Release(version=version, uri=uri, decided=now(), reason="passed", trust="unproven")


@pytest.fixture(scope="module")
def releases(versions: list[Path], served: Cluster, store: str) -> list[Release]:
    """The three versions, published."""
    from serving import store as stores

    uris = [stores.publish(version, store) for version in versions]
    return [released(uri) for uri in uris]


@pytest.fixture(scope="module")
def answers(versions: list[Path]) -> list[dict[str, Any]]:
    return known_answers.read(versions[0])


@pytest.fixture(scope="module")
def checked(answers: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The known answers where a server gives them; else None: they are not checked."""
    return None if node.why_not() else answers


def wrong(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns known answers that no model gives."""
    return [{**row, "probabilities": dict.fromkeys(row["probabilities"], 0.0)} for row in answers]


def decided(release: Release) -> Release:
    """Returns a release that was decided for now."""
    return dataclasses.replace(release, decided=now())


def rolled_out(
    release: Release,
    answers: list[dict[str, Any]] | None = None,
    policy: Policy = QUICK,
    service: InferenceService | None = None,
) -> list[str]:
    """Rolls a release out as the pipeline's account does; returns what was done."""
    said: list[str] = []
    service = service or InferenceService("cxrflow", "cxrflow")
    rollout.roll_out(service, decided(release), policy, answers, said)
    return said


def stored(cluster: Cluster, what: str) -> Any:
    """Returns a part of the stored state of the rollout."""
    return json.loads(cluster.get("configmap", "cxrflow-rollout", NAMESPACE)["data"][what])


def ensure(cluster: Cluster, release: Release) -> list[predictors.Pod]:
    """Has a version served, and nothing left of others, and returns its pods."""
    if predictors.shares(cluster) != {release.version: 100}:
        rolled_out(release)
    processes.until(lambda: predictors.versions(cluster) == {release.version}, "others are gone")
    return processes.until(lambda: predictors.pods(cluster, release.version), "it is served")


@contextlib.contextmanager
def forwarded(cluster: Cluster) -> Iterator[str]:
    """Forwards the Service, as docs/kubernetes.md does; yields its URL."""
    command = ["--kubeconfig", cluster.kubeconfig("admin"), NAMESPACE, "port-forward"]
    process = processes.start(
        [PROGRAMS / "kubectl", *command, "svc/cxrflow-page", "8080:80"], cluster.logs
    )
    try:
        process.until(lambda: "Forwarding from 127" in process.log.read_text(), "it is forwarded")
        yield "http://127.0.0.1:8080"
    finally:
        process.process.terminate()


@containers
def test_the_first_version_answers_through_the_service(
    served: Cluster, versions: list[Path], store: str, covid_directory: Path
) -> None:
    said = cxrflow("deploy", str(versions[0]), "--store", store)
    assert "nothing is served yet" in said
    assert "4 known images answered by cxrflow-v1-predictor" in said
    assert said.endswith("version 1: it is served\n")
    assert predictors.shares(served) == {"1": 100}
    image = covid_directory / "images" / "phantom-0000.png"
    with forwarded(served) as url:
        answer = cxrflow("predict", str(image), "--url", url)
    assert "covid" in answer


def test_its_pods_keep_to_the_restricted_standard(served: Cluster, releases: list[Release]) -> None:
    ensure(served, releases[0])
    # Kubernetes refuses the namespace's pods otherwise.
    labels = served.get("namespace", "cxrflow")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    (pod,) = served.get("pods", NAMESPACE, "--selector=cxrflow/version=1")["items"]
    # Without a token of the cluster.
    assert not [one for one in pod["spec"]["volumes"] if "projected" in one]
    bare = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare", "namespace": "cxrflow"},
        "spec": {"containers": [{"name": "bare", "image": "bare"}]},
    }
    said = served.kubectl("create", "--dry-run=server", "--filename=-", body=bare, fails=True)
    assert 'violates PodSecurity "restricted:latest"' in said


def test_a_deployment_that_is_repeated_changes_nothing(
    served: Cluster, releases: list[Release]
) -> None:
    before = ensure(served, releases[0])
    generation = served.get("inferenceservice", "cxrflow", NAMESPACE)["metadata"]["generation"]
    rolled_out(releases[0])
    found = served.get("inferenceservice", "cxrflow", NAMESPACE)
    assert found["metadata"]["generation"] == generation
    assert predictors.pods(served, "1") == before


@containers
def test_a_version_whose_answers_are_wrong_is_rolled_back_and_the_stable_pods_stay(
    served: Cluster, releases: list[Release], answers: list[dict[str, Any]]
) -> None:
    before = ensure(served, releases[0])
    with pytest.raises(rollout.RolledBack, match="evaluation had"):
        rolled_out(releases[1], wrong(answers))
    assert predictors.shares(served) == {"1": 100}
    assert predictors.pods(served, "1") == before
    assert predictors.templates(served, "1") == 1
    processes.until(
        lambda: "cxrflow-v2-predictor" not in predictors.names(served, "deployment"),
        "the canary's pods are gone",
    )


@containers
def test_the_next_version_is_checked_beside_it_and_then_replaces_it_without_a_restart(
    served: Cluster, releases: list[Release], versions: list[Path], store: str
) -> None:
    before = ensure(served, releases[0])
    seen: list[predictors.Pod] = []

    class Watched(InferenceService):
        """Notes the pods of both versions when the candidate is asked."""

        def post(self, pod: str, path: str, body: Any) -> Any:
            if not seen:
                assert predictors.pods(served, "1") == before
                seen.extend(predictors.pods(served, "2"))
                assert predictors.shares(served) == {"1": 100, "2": 0}
            return super().post(pod, path, body)

    said = rolled_out(
        releases[1],
        known_answers.read(versions[1]),
        Policy(steps=(50,), step_seconds=0, ready_seconds=180, poll_seconds=0.5),
        Watched("cxrflow", "cxrflow"),
    )
    assert any("does not split traffic" in line for line in said)
    assert predictors.shares(served) == {"2": 100}
    assert seen
    assert seen == predictors.pods(served, "2")
    assert [pod.restarts for pod in seen] == [0] * len(seen)
    assert predictors.templates(served, "2") == 1
    processes.until(
        lambda: "cxrflow-v1-predictor" not in predictors.names(served, "deployment"),
        "the pods of the earlier version are gone",
    )
    for kind in ("httproute", "horizontalpodautoscaler"):
        assert "cxrflow-v1-predictor" not in predictors.names(served, kind)


@containers
def test_a_version_that_crashes_is_rolled_back(
    served: Cluster, releases: list[Release], store: str
) -> None:
    import boto3

    before = ensure(served, releases[1])
    bucket = boto3.resource("s3").Bucket("mlpipeline")
    for one in bucket.objects.filter(Prefix="cxrflow/models/cxrflow/3/"):
        key = one.key.replace("/cxrflow/3/", "/cxrflow/9/")
        if not key.endswith("saved_model.pb"):
            bucket.copy({"Bucket": "mlpipeline", "Key": one.key}, key)
    broken = released(f"{store}/cxrflow/9")
    policy = Policy(steps=(), ready_seconds=60, poll_seconds=0.5)
    with pytest.raises(UserError, match=r"not ready after 60 s: .*cxrflow-v9-predictor"):
        rolled_out(broken, None, policy)
    assert predictors.shares(served) == {"2": 100}
    assert predictors.pods(served, "2") == before


def test_any_earlier_version_can_be_restored(served: Cluster, releases: list[Release]) -> None:
    ensure(served, releases[1])
    assert cxrflow("rollback", "1").endswith("version 1 is served\n")
    assert predictors.shares(served) == {"1": 100}
    predictor = served.get("inferenceservice", "cxrflow", NAMESPACE)["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == releases[0].uri


class Killed(BaseException):
    """What a rollout dies of."""


def killed_after(writes: int) -> InferenceService:
    """Returns an InferenceService whose rollout is killed right after so many changes."""
    left = writes

    class Mortal(InferenceService):
        def _done(self, result: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return result

        def apply(self, manifest: Any) -> Any:
            return self._done(super().apply(manifest))

        def apply_state(self, manifest: Any) -> Any:
            return self._done(super().apply_state(manifest))

    return Mortal("cxrflow", "cxrflow")


def test_a_rollout_that_is_killed_at_each_step_is_finished_by_the_next(
    served: Cluster, releases: list[Release], checked: list[dict[str, Any]] | None
) -> None:
    before = ensure(served, releases[0])
    release = decided(releases[1])
    kills = 0
    while True:
        said: list[str] = []
        try:
            rollout.roll_out(killed_after(1), release, QUICK, checked, said)
        except Killed:
            kills += 1
            if predictors.shares(served) != {"2": 100}:
                assert predictors.pods(served, "1") == before
            continue
        break
    assert kills >= 4  # the candidate's state and pods, its promotion's state and pods
    assert predictors.shares(served) == {"2": 100}
    assert predictors.templates(served, "2") == 1


def test_a_canary_is_promoted_by_hand(served: Cluster, releases: list[Release]) -> None:
    ensure(served, releases[0])
    with pytest.raises(Killed):
        rolled_out(releases[1], service=killed_after(2))
    assert predictors.shares(served) == {"1": 100, "2": 0}
    assert cxrflow("promote").endswith("version 2 is promoted\n")
    assert predictors.shares(served) == {"2": 100}
    assert "has no canary; version 2 is served" in cxrflow("promote", fails=True)


@pytest.mark.parametrize("first", ["earlier", "later"])
def test_of_two_rollouts_at_once_the_later_decision_wins(
    served: Cluster, releases: list[Release], first: str
) -> None:
    """The first to begin has its candidate beside the stable version when the other one begins."""
    before = ensure(served, releases[1])
    releases_of = {"earlier": decided(releases[0]), "later": decided(releases[2])}
    second = "later" if first == "earlier" else "earlier"
    is_beside, has_decided = threading.Event(), threading.Event()
    ended: dict[str, str] = {}

    class First(InferenceService):
        def pods(self, version: str) -> Any:
            if version == releases_of[first].version:
                is_beside.set()
                assert has_decided.wait(120)
            return super().pods(version)

    class Second(InferenceService):
        def apply_state(self, manifest: Any) -> Any:
            stored = super().apply_state(manifest)
            has_decided.set()
            return stored

    def run(who: str, service: InferenceService) -> None:
        try:
            rollout.roll_out(service, releases_of[who], QUICK, None, [])
            ended[who] = "served"
        except UserError as error:
            ended[who] = str(error)
        finally:
            has_decided.set()

    threads = [
        threading.Thread(target=run, args=(first, First("cxrflow", "cxrflow"))),
        threading.Thread(target=run, args=(second, Second("cxrflow", "cxrflow"))),
    ]
    threads[0].start()
    assert is_beside.wait(120)
    assert predictors.pods(served, "2") == before
    threads[1].start()
    for thread in threads:
        thread.join()
    assert ended["later"] == "served"
    assert "version 1 is superseded by version 3, which was decided for later" in ended["earlier"]
    assert predictors.shares(served) == {"3": 100}
    assert stored(served, "stable")["decided"] == releases_of["later"].decided
    assert stored(served, "last-rollout")["version"] == "3"
    assert predictors.templates(served, "3") == 1


def test_another_field_manager_stops_it_and_is_named(
    served: Cluster, releases: list[Release]
) -> None:
    ensure(served, releases[2])
    found = served.get("inferenceservice", "cxrflow", NAMESPACE)
    foreign = {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "metadata": {"name": "cxrflow", "namespace": "cxrflow"},
        "spec": {"predictor": {"terminationGracePeriodSeconds": 61}},
    }
    for fields in ({}, {"serviceAccountName": "another"}):
        foreign["spec"]["predictor"] |= fields
        served.kubectl(
            "apply", "--server-side", "--force-conflicts", "--field-manager=platform",
            "--filename=-", body=foreign,
        )  # fmt: skip
        with pytest.raises(UserError, match="platform"):
            rolled_out(releases[0])
        assert predictors.shares(served) == {"3": 100}


def test_an_inference_service_that_is_deleted_meanwhile_is_not_made_again(
    served: Cluster, releases: list[Release]
) -> None:
    served.kubectl("delete", "inferenceservice", "cxrflow", NAMESPACE)
    ensure(served, releases[0])

    class Deleted(InferenceService):
        def pods(self, version: str) -> Any:
            if version == "2":
                served.kubectl(
                    "delete", "inferenceservice", "cxrflow", NAMESPACE, "--ignore-not-found"
                )
            return super().pods(version)

    with pytest.raises(UserError, match="was deleted meanwhile"):
        rolled_out(releases[1], service=Deleted("cxrflow", "cxrflow"))
    assert predictors.shares(served) == {}


@containers
def test_a_first_version_whose_answers_are_wrong_is_deleted(
    served: Cluster, releases: list[Release], answers: list[dict[str, Any]]
) -> None:
    assert predictors.shares(served) == {}
    with pytest.raises(UserError, match="is deleted, nothing is served"):
        rolled_out(releases[0], wrong(answers))
    assert predictors.shares(served) == {}


@pytest.fixture
def body(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"instances": [{"image_bytes": {"b64": answers[0]["image"]}}]}


WATCHED = Policy(steps=(50, 100), step_seconds=20, ready_seconds=180, poll_seconds=0.5)


@containers
def test_where_traffic_is_split_a_canary_is_promoted_by_what_came(
    served: Cluster,
    releases: list[Release],
    answers: list[dict[str, Any]],
    body: dict[str, Any],
) -> None:
    ensure(served, releases[0])
    with splitting.split(served), splitting.asked(served, body) as asked:
        said = rolled_out(releases[1], answers, WATCHED)
    assert not [line for line in said if "does not split" in line]
    assert any("at 50 %" in line for line in said)
    assert any("promoted" in line for line in said)
    assert predictors.shares(served) == {"2": 100}
    by = [name for name, _ in asked]
    assert by.count("cxrflow-v2-predictor") >= 40
    assert by.count("cxrflow-v1-predictor") >= 10
    assert {status for _, status in asked} == {200}


@containers
def test_a_canary_that_nobody_asked_is_not_promoted(
    served: Cluster, releases: list[Release]
) -> None:
    ensure(served, releases[1])
    with splitting.split(served):
        with pytest.raises(UserError, match="not promoted: at 50 % only 0 requests came"):
            rolled_out(releases[0], None, dataclasses.replace(WATCHED, step_seconds=2))
        assert predictors.shares(served) == {"2": 100, "1": 0}
        cxrflow("rollback")
    assert predictors.shares(served) == {"2": 100}


@containers
def test_a_canary_that_crashes_while_it_is_watched_is_rolled_back(
    served: Cluster, releases: list[Release], body: dict[str, Any]
) -> None:
    before = ensure(served, releases[1])
    killed: list[str] = []

    class Crashing(InferenceService):
        def get(self, pod: str, path: str) -> str:
            if not killed and pod.startswith("cxrflow-v1"):
                killed.append(pod)
                (one,) = predictors.pods(served, "1")
                node.kill(one.container)
            return super().get(pod, path)

    with (
        splitting.split(served),
        splitting.asked(served, body),
        pytest.raises(rollout.RolledBack, match=r"restarted|not ready any more"),
    ):
        rolled_out(releases[0], None, WATCHED, Crashing("cxrflow", "cxrflow"))
    assert killed
    assert predictors.shares(served) == {"2": 100}
    assert predictors.pods(served, "2") == before


@containers
def test_a_rollout_that_is_killed_at_a_share_leaves_it_and_is_finished_by_the_next(
    served: Cluster,
    releases: list[Release],
    answers: list[dict[str, Any]],
    body: dict[str, Any],
) -> None:
    before = ensure(served, releases[0])
    release, policy = decided(releases[1]), dataclasses.replace(WATCHED, step_seconds=30)
    seen: set[tuple[tuple[str, int], ...]] = set()

    class Watching(InferenceService):
        """Is killed in the middle of its watch, at its third look at the candidate."""

        looks = 0

        def get(self, pod: str, path: str) -> str:
            if pod.startswith("cxrflow-v2") and predictors.shares(served)["2"] == 50:
                self.looks += 1
                if self.looks == 3:
                    raise Killed
            return super().get(pod, path)

    with splitting.split(served), splitting.asked(served, body) as asked:
        with pytest.raises(Killed):
            rollout.roll_out(Watching("cxrflow", "cxrflow"), release, policy, answers, [])
        candidate = predictors.pods(served, "2")
        # It stands there, and both versions get requests.
        assert predictors.shares(served) == {"1": 50, "2": 50}
        since = len(asked)
        processes.until(lambda: len({name for name, _ in asked[since:]}) == 2, "both are asked")
        said: list[str] = []
        while not any("it is served" in line for line in said):
            said = []
            with contextlib.suppress(Killed):
                rollout.roll_out(killed_after(1), release, policy, answers, said)
            seen.add(tuple(predictors.shares(served).items()))
            if ("2", 100) not in predictors.shares(served).items():
                assert predictors.pods(served, "1") == before
    # None of them began again.
    assert seen == {(("1", 50), ("2", 50)), (("1", 0), ("2", 100)), (("2", 100),)}
    assert set(candidate) <= set(predictors.pods(served, "2"))
    assert stored(served, "last-rollout")["outcome"] == "served"
    assert {status for _, status in asked} == {200}


@pytest.fixture(scope="module")
def fails(failing: Path, releases: list[Release], store: str) -> Release:
    """The version that raises for white images, published."""
    from serving import store as stores

    uri = stores.publish(failing, store)
    return released(uri)


@pytest.fixture(scope="module")
def white() -> str:
    """A white PNG, in base64."""
    file = io.BytesIO()
    Image.new("L", (64, 64), 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@containers
def test_a_version_that_answers_a_known_image_with_an_error_is_rolled_back(
    served: Cluster,
    releases: list[Release],
    answers: list[dict[str, Any]],
    fails: Release,
    white: str,
) -> None:
    before = ensure(served, releases[1])
    with pytest.raises(rollout.RolledBack, match=r"its server answers 500: .*internal error"):
        rolled_out(fails, [*answers, {**answers[0], "image": white}])
    assert predictors.shares(served) == {"2": 100}
    assert predictors.pods(served, "2") == before


@containers
def test_a_canary_that_begins_to_answer_with_errors_is_rolled_back(
    served: Cluster,
    releases: list[Release],
    answers: list[dict[str, Any]],
    fails: Release,
    white: str,
) -> None:
    before = ensure(served, releases[1])
    service, said = InferenceService("cxrflow", "cxrflow"), []
    asks = {"instances": [{"image_bytes": {"b64": white}}]}
    reason = r"100.0 % of its \d+ requests failed; stable version: 0.0 %"
    policy = dataclasses.replace(WATCHED, step_seconds=120)
    with (
        splitting.split(served),
        splitting.asked(served, asks) as asked,
        pytest.raises(rollout.RolledBack, match=reason),
    ):
        rollout.roll_out(service, decided(fails), policy, answers, said)
    assert any("known images answered by" in line for line in said)
    assert any("50 % of the traffic" in line for line in said)
    assert predictors.shares(served) == {"2": 100}
    assert predictors.pods(served, "2") == before
    outcome = stored(served, "last-rollout")
    assert outcome["outcome"] == "rolled back"
    assert re.search(reason, outcome["reason"])
    failed = {name for name, status in asked if status == 500}
    assert failed == {f"cxrflow-v{fails.version}-predictor"}
    assert {status for name, status in asked if "-v2-" in name} == {200}


@containers
def test_a_broken_stable_version_is_replaced_by_the_next_one(
    served: Cluster,
    releases: list[Release],
    answers: list[dict[str, Any]],
    store: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import boto3

    monkeypatch.setattr(watch, "_BROKEN_SECONDS", 10)
    bucket = boto3.resource("s3").Bucket("mlpipeline")
    for one in bucket.objects.filter(Prefix="cxrflow/models/cxrflow/3/"):
        copy = one.key.replace("/cxrflow/3/", "/cxrflow/20/")
        bucket.copy({"Bucket": "mlpipeline", "Key": one.key}, copy)
    ensure(served, released(f"{store}/cxrflow/20"))
    # A node is lost, and the model is gone from the store.
    bucket.objects.filter(Prefix="cxrflow/models/cxrflow/20/").delete()
    served.kubectl("delete", "pods", NAMESPACE, "--selector=cxrflow/version=20")
    with pytest.raises(rollout.RolledBack, match="evaluation had"):
        rolled_out(releases[0], wrong(answers), WATCHED)
    assert predictors.shares(served) == {"20": 100}
    said = rolled_out(releases[0], answers, WATCHED)
    assert any("version 20 has no ready pod" in line for line in said)
    assert any("known images answered by cxrflow-v1-predictor" in line for line in said)
    assert predictors.shares(served) == {"1": 100}
    assert predictors.pods(served, "1")


@containers
def test_a_pod_is_drained_while_it_is_asked_without_a_failed_request(
    served: Cluster, releases: list[Release], body: dict[str, Any]
) -> None:
    template = served.get("configmap", "cxrflow-inference-service", NAMESPACE)
    text = template["data"]["inference-service.yaml"]
    assert "minReplicas: 1" in text
    two = {"data": {"inference-service.yaml": text.replace("minReplicas: 1", "minReplicas: 2")}}
    served.kubectl(
        "patch", "configmap", "cxrflow-inference-service", NAMESPACE, f"--patch={json.dumps(two)}"
    )
    rolled_out(releases[2])
    # It had the pods for all of the traffic before it got any.
    first, second = predictors.pods(served, "3")
    processes.until(
        lambda: served.get("poddisruptionbudget", "cxrflow-predictor", NAMESPACE)["status"][
            "disruptionsAllowed"
        ],
        "a pod may be evicted",
    )
    with splitting.asked(served, body) as asked:
        _evict(served, first.name)
        refused = _evict(served, second.name, fails=True)
        assert "disruption budget" in refused
        processes.until(
            lambda: (
                len(predictors.pods(served, "3")) == 2
                and first.name not in predictors.names(served, "pod")
            ),
            "another pod has taken its place",
        )
    assert len(asked) > 20
    assert {status for _, status in asked} == {200}


def _evict(cluster: Cluster, pod: str, fails: bool = False) -> str:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": "cxrflow"},
    }
    path = f"/api/v1/namespaces/cxrflow/pods/{pod}/eviction"
    return cluster.kubectl("create", f"--raw={path}", "--filename=-", body=eviction, fails=fails)
