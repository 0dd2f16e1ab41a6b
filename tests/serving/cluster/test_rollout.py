"""Rolling out on KServe, against Kubernetes' API over HTTP."""

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
import yaml

from core import kubernetes_api
from core.errors import UserError
from core.kubernetes_api import KubernetesApi
from serving.cluster.inference_service import InferenceService
from serving.cluster.policy import Policy, parse_steps
from serving.cluster.rollout import (
    Release,
    RolledBack,
    State,
    Traffic,
    manifest_of,
    roll_out,
    why_not,
)
from tests.manifests.schemas import errors
from tests.serving.cluster.played import (
    ANSWERS,
    NAME,
    NAMESPACE,
    TEMPLATE,
    Behaviour,
    Cluster,
    connected,
    noted,
    release,
    running,
)

QUICK = Policy(step_seconds=0, ready_seconds=0.05, poll_seconds=0.001)


@pytest.fixture(params=["Standard", "Knative"])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    template = yaml.safe_load(TEMPLATE.read_text())
    template["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = request.param
    if request.param == "Knative":
        del template["spec"]["predictor"]["scaleMetric"]
    monkeypatch.setattr(KubernetesApi.call.retry, "wait", tenacity.wait_none())
    return Cluster(template=template)


@pytest.fixture
def service(cluster: Cluster) -> Iterator[InferenceService]:
    with running(cluster) as url:
        yield InferenceService(NAMESPACE, NAME, connected(url))


def rolled_out(service: InferenceService, one: Release, policy: Policy = QUICK) -> list[str]:
    said: list[str] = []
    roll_out(service, one, policy, ANSWERS, said)
    return [line.split(": ", 1)[-1] for line in said]


def shares(cluster: Cluster) -> list[dict[str, int]]:
    """Records the shares of the traffic after each change."""
    seen: list[dict[str, int]] = []

    def look(method: str, path: str) -> None:
        if cluster.found and (not seen or seen[-1] != cluster.shares()):
            seen.append(cluster.shares())

    cluster.meanwhile = look
    return seen


def test_a_first_version_is_served_straight(
    cluster: Cluster, service: InferenceService, kserve_schemas: Path
) -> None:
    said = rolled_out(service, release(1))
    assert said[0] == "nothing is served yet: served straight"
    assert said[1].startswith("1 known images answered by cxrflow-v1-abc")
    assert cluster.shares() == {"1": 100}
    assert cluster.found
    assert cluster.found["spec"]["predictor"]["model"]["storageUri"] == "s3://models/cxrflow/1"
    assert cluster.found["spec"]["predictor"]["serviceAccountName"] == "cxrflow-predictor"
    assert noted(cluster, "stable") == vars(release(1))
    assert noted(cluster, "last-rollout")["outcome"] == "served"
    assert not errors({**cluster.found, "metadata": {}}, kserve_schemas)


def test_a_later_version_is_a_canary_until_it_is_promoted(
    cluster: Cluster, service: InferenceService, kserve_schemas: Path
) -> None:
    rolled_out(service, release(1))
    seen = shares(cluster)
    said = rolled_out(service, release(2))
    assert seen == [
        {"1": 100},
        {"1": 100, "2": 0},
        {"1": 90, "2": 10},
        {"1": 50, "2": 50},
        {"1": 0, "2": 100},
        {"2": 100},
    ]
    assert said[0] == "beside version 1, without traffic"
    assert said[1].startswith("1 known images answered by cxrflow-v2-abc")
    assert "promoted" in said
    for spec in cluster.history:
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "spec": spec,
        }
        assert not errors(manifest, kserve_schemas)
    if "name" in cluster.history[-1]["predictor"]:  # its pods stay when it is promoted
        (canary,) = cluster.history[-2]["canary"]
        assert canary["predictor"]["name"] == cluster.history[-1]["predictor"]["name"] == "v2"
        assert "maxReplicas" not in canary["predictor"]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (
            Behaviour(failing=0.05),
            r"5.0 % of its \d+ requests failed, of the stable version's 0.0 %",
        ),
        (Behaviour(seconds=0.5), "a request takes it 500 ms, the stable version 100 ms"),
        (Behaviour(positive=0.9), "it calls 90 % of its images covid, the stable version 30 %"),
    ],
)
def test_a_canary_that_does_worse_is_rolled_back(
    cluster: Cluster, service: InferenceService, behaviour: Behaviour, words: str
) -> None:
    rolled_out(service, release(1))
    cluster.behaviours["2"] = behaviour
    with pytest.raises(RolledBack, match=rf"version 2 is rolled back, version 1 goes on: {words}"):
        rolled_out(service, release(2), Policy(step_seconds=5, poll_seconds=0.001))
    assert cluster.shares() == {"1": 100}
    assert noted(cluster, "last-rollout")["outcome"] == "rolled back"
    # Tried again, as a retried step would, it is told at once, and nothing is changed.
    before = len(cluster.history)
    with pytest.raises(RolledBack, match=rf"was rolled back: {words}"):
        rolled_out(service, release(2))
    assert len(cluster.history) == before
    # The next one has its chance.
    rolled_out(service, release(3))
    assert cluster.shares() == {"3": 100}


def test_a_canary_with_other_answers_gets_no_traffic(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    seen = shares(cluster)
    cluster.behaviours["2"] = Behaviour(covid=0.2)
    with pytest.raises(UserError, match=r"rolled back.*evaluation had covid 90"):
        rolled_out(service, release(2))
    assert all(share.get("2", 0) == 0 for share in seen)
    assert cluster.shares() == {"1": 100}


def test_a_canary_that_is_never_ready_is_rolled_back_with_the_reason(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    cluster.behaviours["2"] = Behaviour(ready=False)
    with pytest.raises(
        UserError, match=r"not ready after 0.05 s: ImagePullBackOff see the registry"
    ) as error:
        rolled_out(service, release(2))
    assert not isinstance(error.value, RolledBack), "it may be the cluster's fault"
    assert cluster.shares() == {"1": 100}


def test_a_first_version_with_other_answers_is_taken_away(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.behaviours["1"] = Behaviour(covid=0.2)
    with pytest.raises(UserError, match="is deleted, nothing is served"):
        rolled_out(service, release(1))
    assert cluster.found is None


def test_a_first_version_that_is_never_ready_stays_to_be_looked_at(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.behaviours["1"] = Behaviour(ready=False)
    with pytest.raises(UserError, match="ImagePullBackOff"):
        rolled_out(service, release(1))
    cluster.behaviours.clear()
    rolled_out(service, release(1))
    assert noted(cluster, "last-rollout")["outcome"] == "served"


def test_run_twice_it_changes_nothing(cluster: Cluster, service: InferenceService) -> None:
    for one in (release(1), release(2)):
        rolled_out(service, one)
        before = cluster.found
        assert rolled_out(service, one) == ["it is served"]
        assert cluster.found == before


class Killed(BaseException):
    pass


def test_killed_anywhere_and_run_again_it_ends_the_same(
    cluster: Cluster, service: InferenceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(steps=(50,), step_seconds=0, poll_seconds=0)
    rolled_out(service, release(1))
    first = copy.deepcopy(cluster.found)
    begun = len(cluster.requests)
    rolled_out(service, release(2), policy)
    calls = len(cluster.requests) - begun
    assert calls > 12
    call = KubernetesApi.call
    for kill_at in range(calls):
        cluster.found = copy.deepcopy(first)
        left = iter(range(kill_at))

        def until_killed(self: InferenceService, *args: Any, left=left, **kwargs: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return call(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(KubernetesApi, "call", until_killed)
            with pytest.raises(Killed):
                rolled_out(service, release(2), policy)
        rolled_out(service, release(2), policy)
        assert cluster.shares() == {"2": 100}
        assert noted(cluster, "stable") == vars(release(2))


def test_of_two_at_once_the_later_decision_wins(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    other = InferenceService(NAMESPACE, NAME, service._api._api)
    started = []

    def meanwhile(method: str, path: str) -> None:
        if not started and cluster.found and cluster.shares().get("2") == 50:
            started.append(True)
            cluster.meanwhile = lambda method, path: None
            # Another run's first step, between two of ours.
            state = State(stable=release(1), candidate=release(3))
            cluster.apply(manifest_of(cluster.template, state))

    cluster.meanwhile = meanwhile
    with pytest.raises(UserError, match="version 2 is superseded by version 3"):
        rolled_out(service, release(2))
    rolled_out(other, release(3))
    assert cluster.shares() == {"3": 100}
    # And an earlier decision that comes late does nothing.
    with pytest.raises(UserError, match=r"superseded by version 3.*nothing was changed"):
        rolled_out(service, release(2))
    assert cluster.shares() == {"3": 100}


def test_what_kserve_writes_meanwhile_is_no_conflict(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))

    def meanwhile(method: str, path: str) -> None:
        if path.endswith("/pods"):
            cluster.touch()

    cluster.meanwhile = meanwhile
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


def test_deleted_by_hand_meanwhile_it_is_not_made_again(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))

    def meanwhile(method: str, path: str) -> None:
        if cluster.found and cluster.shares().get("2") == 10:
            cluster.found = None

    cluster.meanwhile = meanwhile
    with pytest.raises(UserError, match="was deleted meanwhile"):
        rolled_out(service, release(2))
    assert cluster.found is None


def test_another_field_managers_change_is_said_and_not_overwritten(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    assert cluster.found
    cluster.foreign = {"spec": {"predictor": {"minReplicas": 5}}}
    with pytest.raises(
        UserError, match=r'conflict with "kubectl-edit": .spec.predictor.minReplicas'
    ):
        rolled_out(service, release(2))
    assert cluster.shares() == {"1": 100}


def test_an_inference_service_of_someone_else_is_left_alone(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.found = {"metadata": {"name": NAME}, "spec": {"predictor": {}}}
    with pytest.raises(UserError, match="was not made by cxrflow"):
        rolled_out(service, release(1))


def test_the_same_number_of_another_store_is_not_taken_for_it(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    other = dataclasses.replace(release(1), uri="s3://others/cxrflow/1", decided="2027")
    with pytest.raises(UserError, match="version 1 of another store is served"):
        rolled_out(service, other)


@pytest.mark.parametrize("fault", [429, 500, 503, "drop"])
def test_a_busy_or_absent_api_is_asked_again(
    cluster: Cluster, service: InferenceService, fault: int | str
) -> None:
    rolled_out(service, release(1))
    cluster.faults = [fault, fault]
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, "Kubernetes answers 401: fault 401 .*log in again"),
        (403, "Kubernetes answers 403: fault 403 .*see the role"),
        (500, "Kubernetes answers 500: fault 500"),
        ("drop", "Kubernetes' API does not answer .*nothing more was changed"),
        ("hang", "Kubernetes' API does not answer .*timed out"),
    ],
)
def test_an_api_that_stays_away_ends_it_with_the_reason(
    cluster: Cluster,
    service: InferenceService,
    fault: int | str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault == "hang":
        monkeypatch.setattr(kubernetes_api, "_SECONDS", 1)
    rolled_out(service, release(1))

    def meanwhile(method: str, path: str) -> None:
        if cluster.found and cluster.shares().get("2") == 10:
            cluster.meanwhile = lambda method, path: None
            cluster.faults = [fault] * kubernetes_api._ATTEMPTS

    cluster.meanwhile = meanwhile
    with pytest.raises(UserError, match=words):
        rolled_out(service, release(2))
    # Its candidate is not blamed for that, and goes on when run again.
    assert noted(cluster, "candidate")["version"] == "2"
    cluster.faults.clear()
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


def test_a_token_is_sent_and_missed(cluster: Cluster) -> None:
    cluster.token = "secret"
    with running(cluster) as url:
        rolled_out(InferenceService(NAMESPACE, NAME, connected(url, "secret")), release(1))
        with pytest.raises(UserError, match="401"):
            rolled_out(InferenceService(NAMESPACE, NAME, connected(url)), release(1))


def test_an_earlier_version_is_gone_back_to(cluster: Cluster, service: InferenceService) -> None:
    for version in (1, 2):
        rolled_out(service, release(version))
    rolled_out(service, release(1, decided=9), Policy(steps=(), ready_seconds=1, poll_seconds=0))
    assert cluster.shares() == {"1": 100}


def test_of_few_requests_nothing_is_said() -> None:
    few = Traffic(requests=5, errors=5, predictions=5, seconds=50, classes={"covid": 5})
    many = Traffic(requests=900, predictions=900, seconds=9, classes={"normal": 900})
    assert why_not(few, many) is None
    assert why_not(Traffic(), Traffic()) is None


def test_counts_of_a_restarted_pod_begin_anew() -> None:
    before = Traffic(requests=50, classes={"covid": 9})
    assert Traffic(requests=60, classes={"covid": 10}).since(before).classes == {"covid": 1}
    assert Traffic(requests=7, classes={"covid": 2}).since(before).requests == 7


@pytest.mark.parametrize("text", ["ten", "0,50", "50,10", "50,101", "10,10"])
def test_shares_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="canary"):
        parse_steps(text)


def test_shares_are_read() -> None:
    assert parse_steps("10, 50,100") == (10, 50, 100)
    assert parse_steps("") == ()
