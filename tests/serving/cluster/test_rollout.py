"""Rolling out on KServe, against a played API of Kubernetes: what a real cluster does not do on demand.

tests/cluster/test_rollout.py shows the rest on a real one.
"""

import copy
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
import yaml

from core import kubernetes_api
from core.errors import UserError
from core.files import write_json
from core.kubernetes_api import KubernetesApi
from serving.cluster import known_answers, watch
from serving.cluster.inference_service import InferenceService
from serving.cluster.manifest import manifest_of
from serving.cluster.policy import Policy, parse_steps
from serving.cluster.rollout import RolledBack, go_back, promote, roll_out
from serving.cluster.state import Release, State, load, save
from serving.verdict import LessTrusted
from tests.api import answered
from tests.manifests.schemas import errors
from tests.serving.cluster.played import (
    ANSWERS,
    NAME,
    NAMESPACE,
    TEMPLATE,
    Behaviour,
    Cluster,
    connected,
    merged,
    noted,
    refused,
    release,
    running,
)

QUICK = Policy(step_seconds=0, ready_seconds=0.05, poll_seconds=0.001)


@pytest.fixture(params=["Standard", "Knative"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def cluster(mode: str, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    template = yaml.safe_load(TEMPLATE.read_text())
    template["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = mode
    if mode == "Knative":
        del template["spec"]["predictor"]["scaleMetric"]
    monkeypatch.setattr(KubernetesApi.call.retry, "wait", tenacity.wait_none())
    monkeypatch.setattr(known_answers, "SLOWEST_SECONDS", 600)  # however busy this machine is
    return Cluster(template=template)


standard = pytest.mark.parametrize("mode", ["Standard"], indirect=True)


@pytest.fixture
def service(cluster: Cluster) -> Iterator[InferenceService]:
    with running(cluster) as url:
        yield InferenceService(NAMESPACE, NAME, connected(url))


def rolled_out(service: InferenceService, one: Release, policy: Policy = QUICK) -> list[str]:
    said: list[str] = []
    roll_out(service, one, policy, ANSWERS, said)
    return [line.split(": ", 1)[-1] for line in said]


def shares(cluster: Cluster) -> list[dict[str, float]]:
    """Records the shares of the traffic after each change."""
    seen: list[dict[str, float]] = []

    def look(method: str, path: str) -> None:
        if cluster.found and (not seen or seen[-1] != cluster.shares()):
            seen.append(cluster.shares())

    cluster.meanwhile = look
    return seen


def once(cluster: Cluster, percent: int, happens: Any) -> None:
    """Has something happen at the first request after version 2 has got a share of the traffic."""

    def look(method: str, path: str) -> None:
        if cluster.found and cluster.shares().get("2") == percent:
            cluster.meanwhile = lambda method, path: None
            happens()

    cluster.meanwhile = look


def at_a_look(cluster: Cluster, percent: int, number: int, happens: Any) -> None:
    """Has something happen when version 2 is asked for its metrics the nth time at a share."""
    looks: list[str] = []

    def look(method: str, path: str) -> None:
        if path.endswith("/metrics") and "-v2-" in path and cluster.shares().get("2") == percent:
            looks.append(path)
            if len(looks) == number:
                happens()

    cluster.meanwhile = look


def replace_pods(cluster: Cluster) -> None:
    """Has other pods take the place of all of version 2."""
    for deployment in cluster.deployments.values():
        deployment.pods = {name: pod for name, pod in deployment.pods.items() if "-v1-" in name}
    cluster.reconcile()


def test_a_first_version_is_served_at_once(
    cluster: Cluster, service: InferenceService, kserve_schemas: Path
) -> None:
    said = rolled_out(service, release(1))
    assert said[0] == "nothing is served yet: served at once"
    assert said[1].startswith("1 known images answered by cxrflow-v1-")
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
    got = [one.get("2", 0) for one in seen]
    assert sorted(set(got)) == [0, 10, 50, 100]
    assert got == sorted(got)
    assert {"1": 100, "2": 0} in seen, "first without traffic"
    assert cluster.shares() == {"2": 100}
    assert said[0] == "beside version 1, without traffic"
    assert said[1].startswith("1 known images answered by cxrflow-v2-")
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
            r"5.0 % of its \d+ requests failed; stable version: 0.0 %",
        ),
        (Behaviour(seconds=0.5), "a prediction takes 500 ms; stable version: 100 ms"),
        (Behaviour(positive=0.9), "it predicts covid for 90 % of its images; stable version: 30 %"),
    ],
)
def test_a_canary_that_does_worse_is_rolled_back(
    cluster: Cluster, service: InferenceService, behaviour: Behaviour, words: str
) -> None:
    rolled_out(service, release(1))
    cluster.behaviours["2"] = behaviour
    with pytest.raises(RolledBack, match=rf"version 2 is rolled back, version 1 stays: {words}"):
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
        UserError,
        match=r"not ready after 0.05 s: 0 of 1 pods; cxrflow-v2-\S+: ImagePullBackOff see the registry",
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
        before = copy.deepcopy((cluster.found, cluster.held))
        assert rolled_out(service, one) == ["it is served"]
        assert (cluster.found, cluster.held) == before


class Killed(BaseException):
    pass


SNAPSHOT = ("found", "held", "deployments", "autoscalers", "routes", "_rolled_out")


@pytest.mark.parametrize("first", [True, False])
def test_killed_anywhere_and_run_again_it_ends_the_same(
    cluster: Cluster, service: InferenceService, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(steps=(50,), step_seconds=0, poll_seconds=0)
    if not first:
        rolled_out(service, release(1))
    before = copy.deepcopy({name: getattr(cluster, name) for name in SNAPSHOT})
    begun = len(cluster.requests)
    rolled_out(service, release(2), policy)
    # To be killed between two readings is the same as before them.
    calls = cluster.requests[begun:]
    writes = [
        place for place, call in enumerate(calls[:-1]) if call.startswith(("PATCH", "DELETE"))
    ]
    assert len(writes) > 3
    call = KubernetesApi.call
    for kill_at in (0, *(place + 1 for place in writes)):
        for name, value in copy.deepcopy(before).items():
            setattr(cluster, name, value)
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
        assert cluster.found
        assert noted(cluster, "last-rollout")["outcome"] == "served"


def test_of_two_at_once_the_later_decision_wins(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    other = InferenceService(NAMESPACE, NAME, service._api._api)

    def another() -> None:  # another run's first step, between two of ours
        assert cluster.held
        cluster.held["data"]["candidate"] = json.dumps(vars(release(3)))
        cluster.held["data"]["percent"] = "0"
        cluster.held["metadata"]["resourceVersion"] += "1"

    once(cluster, 50, another)
    with pytest.raises(UserError, match="version 2 is superseded by version 3"):
        rolled_out(service, release(2))
    rolled_out(other, release(3))
    assert cluster.shares() == {"3": 100}
    # And an earlier decision that comes late does nothing.
    with pytest.raises(UserError, match=r"superseded by version 3.*nothing was changed"):
        rolled_out(service, release(2))
    assert cluster.shares() == {"3": 100}


def test_an_apply_of_an_older_state_fails(
    cluster: Cluster, service: InferenceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run stores and applies a later candidate between our reading and our apply."""
    rolled_out(service, release(1))
    apply = InferenceService.apply
    raced: list[str] = []

    def slow(self: InferenceService, manifest: dict[str, Any]) -> dict[str, Any]:
        if not raced:
            raced.append("yes")
            stored = load(self)
            assert stored
            save(self, dataclasses.replace(stored, candidate=release(3), percent=0))
            with pytest.raises(UserError, match="superseded"):
                rolled_out(self, release(2))
        return apply(self, manifest)

    monkeypatch.setattr(InferenceService, "apply", slow)
    with pytest.raises(UserError, match="version 2 is superseded by version 3"):
        rolled_out(service, release(2))
    assert cluster.found
    shown = json.dumps(cluster.found["spec"])
    assert "s3://models/cxrflow/3" in shown
    assert "s3://models/cxrflow/2" not in shown


def test_a_state_that_is_overtaken_between_two_readings_is_not_applied(
    cluster: Cluster, service: InferenceService
) -> None:
    """Whichever of the two is read first: another run changes both before the second is read."""
    rolled_out(service, release(1))
    raced: list[int] = []

    def look(method: str, path: str) -> None:
        assert cluster.found
        assert cluster.held
        pending = '"2"' in cluster.held["data"].get("candidate", "")
        shown = "s3://models/cxrflow/2" in json.dumps(cluster.found["spec"])
        before, ends = cluster.requests[-2], ("/inferenceservices/cxrflow", "/cxrflow-rollout")
        both = before.startswith("GET") and before.endswith(ends) and path.endswith(ends)
        if method == "GET" and both and pending and not shown and not raced:
            raced.append(len(cluster.history))
            cluster.held["data"]["candidate"] = json.dumps(vars(release(3)))
            cluster.held["metadata"]["resourceVersion"] += "1"
            wanted = State(stable=release(1), candidate=release(3), whole=2)
            cluster.apply(manifest_of(cluster.template, wanted, cluster.found))

    cluster.meanwhile = look
    with pytest.raises(UserError, match="version 2 is superseded by version 3"):
        rolled_out(service, release(2))
    assert raced
    assert "s3://models/cxrflow/2" not in json.dumps(cluster.history[raced[0] :])


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


@pytest.mark.parametrize("between", [True, False])
def test_deleted_by_hand_meanwhile_it_is_not_made_again(
    cluster: Cluster, service: InferenceService, between: bool
) -> None:
    rolled_out(service, release(1))
    if between:  # our reading and our apply

        def look(method: str, path: str) -> None:
            if method == "PATCH" and path.endswith("/inferenceservices/cxrflow"):
                cluster.delete()

        cluster.meanwhile = look
    else:
        once(cluster, 10, cluster.delete)
    with pytest.raises(UserError, match="was deleted meanwhile"):
        rolled_out(service, release(2))
    assert cluster.found is None
    cluster.meanwhile = lambda method, path: None
    # Run again, it begins anew.
    assert rolled_out(service, release(2))[0] == "nothing is served yet: served at once"
    assert cluster.shares() == {"2": 100}


@pytest.mark.parametrize(
    "fields", [{"minReplicas": 5}, {"minReplicas": 5, "serviceAccountName": "other"}]
)
def test_another_field_managers_change_is_said_and_not_overwritten(
    cluster: Cluster, service: InferenceService, fields: dict[str, Any]
) -> None:
    rolled_out(service, release(1))
    cluster.foreign = {"spec": {"predictor": fields}}
    with pytest.raises(UserError, match=r'conflicts? with "kubectl-edit"') as error:
        rolled_out(service, release(2))
    assert all(f".spec.predictor.{name}" in str(error.value) for name in fields)
    assert cluster.shares() == {"1": 100}
    # Taken back, the rollout continues.
    cluster.foreign = {}
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


def test_an_inference_service_of_someone_else_is_left_alone(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.found = {
        "metadata": {"name": NAME, "uid": "theirs", "resourceVersion": "9"},
        "spec": {"predictor": {"model": {}}},
    }
    before = copy.deepcopy(cluster.found)
    with pytest.raises(UserError, match="was not made by cxrflow"):
        rolled_out(service, release(1))
    assert cluster.found == before


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
        (403, "Kubernetes answers 403: fault 403 .*admission control"),
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
            cluster.faults = [fault] * 10000

    cluster.meanwhile = meanwhile
    with pytest.raises(UserError, match=words):
        rolled_out(service, release(2))
    # Its candidate is not blamed for that, and continues when run again.
    assert noted(cluster, "candidate")["version"] == "2"
    cluster.faults.clear()
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


API_IS_AWAY = [
    pytest.param(lambda: refused(503, "apiserver is shutting down"), id="API"),
    pytest.param(lambda: answered(502, b"<html>Bad Gateway</html>"), id="gateway"),
    pytest.param(lambda: answered(429, b"Too many requests, please try again later."), id="busy"),
]


def away_when_asked(cluster: Cluster, path_ends: str, answer: Any, times: int) -> list[str]:
    """Has the API away when version 2 is asked, so many times; returns the calls that it did not answer."""
    missed: list[str] = []

    def look(method: str, path: str) -> None:
        if path.endswith(path_ends) and "-v2-" in path and len(missed) < times:
            missed.append(path)
            raise answer()

    cluster.meanwhile = look
    return missed


@pytest.mark.parametrize("asked", [":predict", "/metrics"])
@pytest.mark.parametrize("answer", API_IS_AWAY)
def test_an_api_that_is_away_while_a_canary_is_asked_does_not_decide_about_it(
    cluster: Cluster, service: InferenceService, answer: Any, asked: str
) -> None:
    rolled_out(service, release(1))
    times = 3 * kubernetes_api._ATTEMPTS
    missed = away_when_asked(cluster, asked, answer, times)
    said = rolled_out(service, release(2), dataclasses.replace(QUICK, ready_seconds=600))
    assert len(missed) == times
    assert not [line for line in said if "rolled back" in line]
    assert cluster.shares() == {"2": 100}


@pytest.mark.parametrize("answer", API_IS_AWAY)
def test_an_api_that_stays_away_while_a_canary_is_asked_leaves_a_rollout_that_continues(
    cluster: Cluster, service: InferenceService, answer: Any
) -> None:
    rolled_out(service, release(1))
    missed = away_when_asked(cluster, ":predict", answer, 10**6)
    with pytest.raises(UserError, match="run it again to continue") as error:
        rolled_out(service, release(2))
    assert not isinstance(error.value, RolledBack)
    # It waited.
    assert len(missed) > kubernetes_api._ATTEMPTS
    assert noted(cluster, "candidate") == vars(release(2))
    assert noted(cluster, "last-rollout")["version"] == "1", "it is not rolled back"
    cluster.meanwhile = lambda method, path: None
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


def test_a_deletion_while_the_api_was_away_is_noticed(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))

    def look(method: str, path: str) -> None:
        if path.endswith(":predict") and "-v2-" in path:
            if len(missed) == kubernetes_api._ATTEMPTS - 1:
                cluster.delete()
            missed.append(path)
            raise refused(503, "apiserver is shutting down")

    missed: list[str] = []
    cluster.meanwhile = look
    with pytest.raises(UserError, match="was deleted meanwhile"):
        rolled_out(service, release(2), dataclasses.replace(QUICK, ready_seconds=600))
    assert cluster.found is None


def test_a_canary_that_answers_known_images_with_errors_is_rolled_back(
    cluster: Cluster, service: InferenceService
) -> None:
    """An answer of the pod itself, which the API's proxy passes on as it is."""
    rolled_out(service, release(1))
    away_when_asked(cluster, ":predict", lambda: answered(500, b'{"error": "internal"}'), 10**6)
    with pytest.raises(RolledBack, match=r"its server answers 500.*internal"):
        rolled_out(service, release(2))
    assert cluster.shares() == {"1": 100}


def test_a_token_is_sent_and_missed(cluster: Cluster) -> None:
    cluster.token = "secret"
    with running(cluster) as url:
        rolled_out(InferenceService(NAMESPACE, NAME, connected(url, "secret")), release(1))
        with pytest.raises(UserError, match="401"):
            rolled_out(InferenceService(NAMESPACE, NAME, connected(url)), release(1))


@standard
@pytest.mark.parametrize(
    "one", [release(2), dataclasses.replace(release(2), run="", fingerprint="")]
)
def test_a_canary_keeps_its_pods_whatever_is_known_of_it(
    cluster: Cluster, service: InferenceService, one: Release
) -> None:
    """An empty value of a canary's does not replace the stable version's, in KServe."""
    rolled_out(service, release(1))
    rolled_out(service, one, dataclasses.replace(QUICK, steps=(100,)))
    (deployment,) = cluster.deployments.values()
    assert json.loads(deployment.template["annotations"]["cxrflow/release"])["run"] == one.run
    assert len(deployment.pods) == 2


def test_the_verdict_is_a_note_on_the_predictor(
    cluster: Cluster, service: InferenceService
) -> None:
    for version in (1, 2):
        rolled_out(service, release(version))
        assert cluster.found
        predictor = cluster.found["spec"]["predictor"]
        assert predictor["annotations"]["cxrflow/trust"] == release(version).trust


@standard
def test_a_canary_has_its_own_verdict_and_the_stable_version_keeps_its(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    seen: set[tuple[str, str]] = set()

    def look(method: str, path: str) -> None:
        for deployment in cluster.deployments.values():
            labels, notes = (deployment.template[key] for key in ("labels", "annotations"))
            seen.add((labels["cxrflow/version"], notes["cxrflow/trust"]))

    cluster.meanwhile = look
    rolled_out(service, release(2))
    assert seen == {(str(version), release(version).trust) for version in (1, 2)}


@standard
def test_a_version_of_an_earlier_release_gets_no_verdict_so_its_pods_stay(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, dataclasses.replace(release(1), trust=""))
    assert cluster.held
    stable = json.loads(cluster.held["data"]["stable"])
    del stable["trust"]  # as that release stored it
    cluster.held["data"]["stable"] = json.dumps(stable)
    first, seen = set(cluster.pods("1")), set()

    def look(method: str, path: str) -> None:
        seen.update(cluster.pods("1"))

    cluster.meanwhile = look
    rolled_out(service, release(2))
    assert seen == first


def judged(version: int, trust: str) -> Release:
    return dataclasses.replace(release(version), trust=trust)


@pytest.mark.parametrize("trust", ["unproven: no adults", "not trusted: leaks"])
def test_a_less_trusted_version_is_not_put_beside_a_more_trusted_one(
    cluster: Cluster, service: InferenceService, trust: str
) -> None:
    rolled_out(service, judged(1, "trusted"))
    before = copy.deepcopy((cluster.found, cluster.held))
    with pytest.raises(
        LessTrusted, match=rf"version 1, which is served and stays.*model is {trust}"
    ):
        rolled_out(service, judged(2, trust))
    assert (cluster.found, cluster.held) == before
    rolled_out(service, judged(3, "trusted"))
    assert cluster.shares() == {"3": 100}


def test_a_trusted_version_that_is_promoted_meanwhile_is_not_replaced(
    cluster: Cluster, service: InferenceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run promotes a trusted version before this one begins its canary."""
    rolled_out(service, judged(1, "unproven: no adults"))
    apply_state, raced = InferenceService.apply_state, []

    def slow(self: InferenceService, manifest: dict[str, Any]) -> dict[str, Any]:
        if not raced:
            raced.append("yes")
            rolled_out(self, judged(2, "trusted"))
        return apply_state(self, manifest)

    monkeypatch.setattr(InferenceService, "apply_state", slow)
    with pytest.raises(LessTrusted, match="version 2, which is served"):
        rolled_out(service, judged(3, "unproven: no adults"))
    assert cluster.shares() == {"2": 100}


@pytest.mark.parametrize("served", ["", "unproven: it was published without a verdict"])
def test_a_version_without_a_verdict_gives_way_to_any(
    cluster: Cluster, service: InferenceService, served: str
) -> None:
    rolled_out(service, judged(1, served))
    rolled_out(service, judged(2, "not trusted: leaks"))
    assert cluster.shares() == {"2": 100}


@pytest.mark.parametrize("published", [True, False])
def test_a_person_may_go_back_to_a_less_trusted_version_which_keeps_its_verdict(
    cluster: Cluster, service: InferenceService, tmp_path: Path, published: bool
) -> None:
    first, second = (
        dataclasses.replace(judged(version, trust), uri=str(tmp_path / str(version)))
        for version, trust in ((1, "not trusted: leaks"), (2, "trusted"))
    )
    rolled_out(service, first)
    rolled_out(service, second)
    if published:
        trust = {"verdict": "not trusted", "reasons": ["leaks"]}
        rows = [{"recipe": "cnn", "trust": trust}]
        write_json(tmp_path / "1" / "decision.json", {"winner": "cnn", "candidates": rows})
    go_back(service, "1", QUICK, [])
    assert cluster.shares() == {"1": 100}
    assert cluster.found
    words = "not trusted: leaks" if published else "unknown: the model store could not be read"
    assert cluster.found["spec"]["predictor"]["annotations"]["cxrflow/trust"] == words
    assert noted(cluster, "stable")["reason"] == "rolled back to by hand"


def test_a_person_may_promote_a_less_trusted_canary(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, judged(1, "trusted"))
    stored = load(service)
    assert stored
    save(service, dataclasses.replace(stored, candidate=judged(2, "not trusted: leaks"), percent=0))
    promote(service)
    assert cluster.shares() == {"2": 100}


@standard
def test_a_lost_state_loses_no_note_of_what_is_served_so_its_pods_stay(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, judged(1, "trusted"))
    first, seen = set(cluster.pods("1")), set()
    cluster.held = None
    with pytest.raises(LessTrusted):
        rolled_out(service, judged(2, "unproven: no adults"))
    stable = noted(cluster, "stable")
    assert (stable["trust"], stable["run"]) == ("trusted", release(1).run)

    def look(method: str, path: str) -> None:
        seen.update(cluster.pods("1"))
        for deployment in cluster.deployments.values():
            assert "cxrflow/trust" in deployment.template["annotations"]

    cluster.meanwhile = look
    rolled_out(service, judged(2, "trusted"))
    assert seen == first


@standard
def test_where_kserve_does_not_split_traffic_it_switches_after_the_known_answers(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.splits = False
    rolled_out(service, release(1))
    seen = shares(cluster)
    said = rolled_out(service, release(2))
    assert seen[-1] == {"2": 100}
    assert {"1": 100, "2": 0} not in seen
    assert [line for line in said if "does not split traffic" in line]
    assert [line for line in said if "known images answered by cxrflow-v2-" in line]
    assert not [line for line in said if re.fullmatch(r"\d+ % of the traffic", line)]
    # With wrong answers it never serves.
    cluster.behaviours["3"] = Behaviour(covid=0.2)
    with pytest.raises(RolledBack, match="evaluation had covid 90"):
        rolled_out(service, release(3))
    assert cluster.shares() == {"2": 100}


def broken(cluster: Cluster, version: str) -> None:
    cluster.behaviours[version] = Behaviour(ready=False, trouble="CrashLoopBackOff")
    cluster.reconcile()


NO_READY_POD = "version 1 has no ready pod, so there is no traffic to split: switched at once, "


@standard
@pytest.mark.parametrize("splits", [True, False])
def test_where_the_stable_version_is_broken_the_next_is_checked_and_replaces_it(
    cluster: Cluster, service: InferenceService, splits: bool
) -> None:
    cluster.splits = splits
    rolled_out(service, release(1))
    broken(cluster, "1")
    said = rolled_out(service, release(2))
    assert [line for line in said if "known images answered by cxrflow-v2-" in line]
    assert NO_READY_POD + "without a canary" in said
    assert not [line for line in said if "% of the traffic" in line and "pods" not in line]
    assert cluster.shares() == {"2": 100}


@standard
def test_where_the_stable_version_is_broken_a_wrong_one_does_not_replace_it(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    broken(cluster, "1")
    cluster.behaviours["2"] = Behaviour(covid=0.2)
    with pytest.raises(RolledBack, match=r"rolled back, version 1 stays.*evaluation had covid 90"):
        rolled_out(service, release(2))
    assert cluster.shares() == {"1": 100}


@standard
def test_a_first_version_that_was_never_ready_does_not_block_the_next(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.behaviours["1"] = Behaviour(ready=False)
    with pytest.raises(UserError, match="ImagePullBackOff"):
        rolled_out(service, release(1))
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


@standard
def test_a_stable_version_that_breaks_beside_a_canary_is_replaced_by_it(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    at_a_look(cluster, 10, 1, lambda: broken(cluster, "1"))
    said = rolled_out(service, release(2))
    assert NO_READY_POD + "without a canary" in said
    # It is asked once more, before it gets everything.
    assert len([line for line in said if "known images answered by cxrflow-v2-" in line]) >= 2
    assert cluster.shares() == {"2": 100}


@standard
def test_a_stable_version_whose_pod_is_replaced_is_not_taken_for_broken(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    broken(cluster, "1")
    looks: list[str] = []

    def look(method: str, path: str) -> None:
        if path.endswith("/pods"):
            looks.append(path)
            if len(looks) == 6:
                cluster.behaviours.clear()
                cluster.reconcile()

    cluster.meanwhile = look
    said = rolled_out(service, release(2), dataclasses.replace(QUICK, ready_seconds=600))
    assert len(looks) >= 6
    assert NO_READY_POD + "without a canary" not in said
    assert any(line.startswith("at 50 %") for line in said)


@standard
def test_without_a_gateway_it_switches(cluster: Cluster, service: InferenceService) -> None:
    cluster.gateway = False
    rolled_out(service, release(1))
    said = rolled_out(service, release(2))
    assert [line for line in said if "does not split traffic" in line]
    assert cluster.pods("2")
    assert not cluster.pods("1")


@standard
@pytest.mark.parametrize("splits", [True, False])
def test_what_kserve_leaves_of_versions_that_are_gone_is_deleted(
    cluster: Cluster, service: InferenceService, splits: bool
) -> None:
    cluster.splits = splits
    cluster.routes["theirs"] = {
        "metadata": {"name": "cxrflow-v9-predictor", "ownerReferences": [{"uid": "other"}]},
        "spec": {},
    }
    rolled_out(service, release(1))
    rolled_out(service, release(2))
    cluster.behaviours["3"] = Behaviour(covid=0.2)
    with pytest.raises(RolledBack, match="evaluation had"):
        rolled_out(service, release(3))
    predictor = "cxrflow-predictor" if splits else "cxrflow-v2-predictor"
    assert set(cluster.routes) == {"theirs", "cxrflow", predictor}
    assert set(cluster.autoscalers) == {"cxrflow-v2-predictor"}


def test_without_requests_it_is_not_promoted(cluster: Cluster, service: InferenceService) -> None:
    rolled_out(service, release(1))
    cluster.traffic = 0
    for _ in range(2):  # also when it is run again
        with pytest.raises(UserError, match=r"not promoted: at 10 % only 0 requests came") as error:
            rolled_out(service, release(2))
        assert not isinstance(error.value, RolledBack), "it may be tried again"
        assert cluster.shares() == {"1": 100, "2": 0}, "nobody watches it now"
    cluster.traffic = 1000
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


def test_the_platform_team_may_promote_unseen(cluster: Cluster, service: InferenceService) -> None:
    rolled_out(service, release(1))
    cluster.traffic = 0
    said = rolled_out(service, release(2), dataclasses.replace(QUICK, unseen=True))
    unseen = [line for line in said if line.startswith("continues unseen: at ")]
    assert len(unseen) == 3
    assert cluster.shares() == {"2": 100}
    # Not with errors, though.
    cluster.traffic, cluster.behaviours["3"] = 1000, Behaviour(failing=0.5)
    with pytest.raises(RolledBack, match="failed"):
        rolled_out(service, release(3), dataclasses.replace(QUICK, unseen=True))


@standard
def test_a_share_that_the_route_never_had_proves_nothing(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))

    def refuse() -> None:  # the route goes back to 0 % at the second look
        cluster.routes[NAME]["spec"]["rules"][0]["backendRefs"][0]["weight"] = 100
        cluster.routes[NAME]["spec"]["rules"][0]["backendRefs"][1]["weight"] = 0

    at_a_look(cluster, 10, 2, refuse)
    with pytest.raises(UserError, match=r"not promoted: at 10 % the route gave it only 0 % of the"):
        rolled_out(service, release(2))


@pytest.mark.parametrize("number", [1, 2])
def test_a_canary_that_crashes_is_rolled_back(
    cluster: Cluster, service: InferenceService, number: int
) -> None:
    """Also where it is up again at each look, and has no failed request."""
    rolled_out(service, release(1))
    cluster.behaviours["2"] = Behaviour()

    def crash() -> None:
        cluster.behaviours["2"].restarts = 2

    at_a_look(cluster, 50, number, crash)
    with pytest.raises(
        RolledBack, match=r"its server was restarted: cxrflow-v2-\S+ \(2 times; .*OOMKilled"
    ):
        rolled_out(service, release(2), dataclasses.replace(QUICK, step_seconds=0.1))
    assert cluster.shares() == {"1": 100}


def test_a_canary_in_a_crash_loop_is_rolled_back(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    cluster.behaviours["2"] = Behaviour()

    def crash() -> None:
        cluster.behaviours["2"] = Behaviour(ready=False, restarts=5, trouble="CrashLoopBackOff")
        cluster.reconcile()

    at_a_look(cluster, 10, 1, crash)
    with pytest.raises(UserError, match="CrashLoopBackOff"):
        rolled_out(service, release(2), dataclasses.replace(QUICK, step_seconds=0.1))
    assert cluster.shares() == {"1": 100}


def test_a_canary_that_does_not_answer_is_rolled_back(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    cluster.behaviours["2"] = Behaviour(metrics=False)
    with pytest.raises(RolledBack, match="its server does not answer /metrics"):
        rolled_out(service, release(2))


def test_a_stable_pod_that_does_not_answer_is_not_the_canarys_fault(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    cluster.behaviours["1"] = Behaviour(metrics=False)
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


@standard
@pytest.mark.parametrize("splits", [True, False])
@pytest.mark.parametrize("busy", [0, 5])
def test_a_canary_has_the_pods_of_its_share_before_it_gets_it(
    cluster: Cluster, service: InferenceService, busy: int, splits: bool
) -> None:
    cluster.splits = splits
    rolled_out(service, release(1))
    cluster.busy = busy  # the autoscaler's, over the least of 2
    cluster.reconcile()
    whole = max(busy, 2)
    least: dict[float, int] = {}
    stable: list[int] = []

    def look(method: str, path: str) -> None:
        share = cluster.shares().get("2", 0)
        if cluster.pods("1"):
            stable.append(len(cluster.pods("1")))
        if cluster.pods("2"):
            least[share] = min(least.get(share, 99), len(cluster.pods("2")))

    cluster.meanwhile = look
    rolled_out(service, release(2))
    assert least[100] >= whole
    assert min(stable) >= whole, "the stable version keeps its own meanwhile"
    if splits:
        assert least[10] >= whole * 0.1
        assert least[50] >= whole * 0.5
    bounds = cluster.autoscalers["cxrflow-v2-predictor"]["spec"]
    assert bounds == {"minReplicas": 2, "maxReplicas": 8}, (
        "then it is as the platform team wants it"
    )


@standard
def test_pods_that_kserve_adds_until_a_canary_is_ready_are_not_counted(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    cluster.behaviours["2"] = Behaviour(ready=False)
    starting: list[int] = []

    def look(method: str, path: str) -> None:
        if cluster.pods("2") and not starting:
            starting.append(len(cluster.pods("1")))
            cluster.behaviours.clear()
            cluster.busy = starting[0]  # the autoscaler removes them only some minutes later
            cluster.reconcile()

    cluster.meanwhile = look
    rolled_out(service, release(2), dataclasses.replace(QUICK, ready_seconds=30))
    assert starting == [3]
    assert max(one["canary"][0]["predictor"]["minReplicas"] for one in cluster.history[1:-1]) == 2
    assert noted(cluster, "replicas") == 1, "the next rollout counts anew"


@standard
def test_one_pod_is_not_doubled_for_a_canary(cluster: Cluster, service: InferenceService) -> None:
    predictor = cluster.template["spec"]["predictor"]
    predictor["minReplicas"] = 1
    del predictor["maxReplicas"]
    rolled_out(service, release(1))
    most: list[int] = []
    cluster.meanwhile = lambda method, path: most.append(len(cluster.pods("1")))
    rolled_out(service, release(2))
    assert max(most) == 1


@pytest.mark.parametrize(
    "ended",
    [
        {"status": {"phase": "Failed", "reason": "Evicted"}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ],
)
def test_a_pod_that_was_evicted_or_drained_is_none(
    cluster: Cluster, service: InferenceService, monkeypatch: pytest.MonkeyPatch, ended: Any
) -> None:
    """It was ready and is not any more, which is not the version's fault: another one takes its place."""
    rolled_out(service, release(1))
    pods, gone = cluster._pods, []

    def with_gone(labels: dict[str, str]) -> list[dict[str, Any]]:
        return [*pods(labels), *gone]

    def evict() -> None:
        for one in pods({"serving.kserve.io/inferenceservice": NAME, "cxrflow/version": "2"}):
            gone.append(merged(one, ended))
            gone[-1]["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        replace_pods(cluster)

    monkeypatch.setattr(cluster, "_pods", with_gone)
    at_a_look(cluster, 50, 2, evict)
    rolled_out(service, release(2), dataclasses.replace(QUICK, step_seconds=0.2))
    assert gone
    assert cluster.shares() == {"2": 100}


def test_a_canary_whose_new_pods_are_never_ready_is_not_promoted(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    cluster.behaviours["2"] = Behaviour()

    def evict() -> None:
        cluster.behaviours["2"] = Behaviour(ready=False, trouble="CrashLoopBackOff")
        replace_pods(cluster)

    at_a_look(cluster, 100, 2, evict)
    policy = dataclasses.replace(QUICK, steps=(50, 100), step_seconds=0.2, unseen=True)
    with pytest.raises(UserError, match="CrashLoopBackOff"):
        rolled_out(service, release(2), policy)
    assert cluster.shares() == {"1": 100}


def test_a_pod_that_goes_away_while_it_is_asked_is_not_the_versions_fault(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    gone: list[str] = []

    def look(method: str, path: str) -> None:
        if path.endswith(":predict") and "-v2-" in path and not gone:
            gone.append(path)
            replace_pods(cluster)

    cluster.meanwhile = look
    rolled_out(service, release(2))
    assert gone
    assert cluster.shares() == {"2": 100}


def test_a_pod_that_crashes_each_time_it_is_asked_is_the_versions_fault(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))

    def asked(method: str, path: str) -> None:
        if path.endswith(":predict") and "-v2-" in path:
            cluster.behaviours["2"] = Behaviour(ready=False)
            raise refused(503, "error trying to reach service: connection reset by peer")

    cluster.meanwhile = asked
    with pytest.raises(RolledBack, match="connection reset"):
        rolled_out(service, release(2))
    assert cluster.shares() == {"1": 100}


def test_a_version_whose_pods_are_evicted_each_time_they_are_asked_is_rolled_back(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))

    def look(method: str, path: str) -> None:
        if path.endswith(":predict") and "-v2-" in path:
            replace_pods(cluster)

    cluster.meanwhile = look
    with pytest.raises(RolledBack, match="does not answer"):
        rolled_out(service, release(2))
    assert cluster.shares() == {"1": 100}


@standard
def test_a_route_that_forgets_a_canary_is_not_a_kserve_that_does_not_split(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))

    def look(method: str, path: str) -> None:
        if cluster.held and cluster.held["data"]["percent"] == "50":
            del cluster.routes[NAME]["spec"]["rules"][0]["backendRefs"][1:]

    cluster.meanwhile = look
    with pytest.raises(UserError, match=r"not promoted: at 50 % the route gave it only 0 % of the"):
        rolled_out(service, release(2))


def test_with_smaller_shares_than_it_has_it_is_watched_all_the_same(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    once(cluster, 50, lambda: cluster.faults.extend([401] * 9))
    with pytest.raises(UserError):
        rolled_out(service, release(2))
    cluster.faults.clear()
    cluster.traffic = 0
    with pytest.raises(UserError, match="not promoted: at 50 % only 0 requests came"):
        rolled_out(service, release(2), dataclasses.replace(QUICK, steps=(20,)))


@standard
def test_where_kserve_does_not_split_traffic_a_restart_speaks_against_it_too(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.splits = False
    rolled_out(service, release(1))
    cluster.behaviours["2"] = Behaviour(restarts=7)
    with pytest.raises(RolledBack, match=r"its server was restarted: cxrflow-v2-\S+ \(7 times"):
        rolled_out(service, release(2))
    assert cluster.shares() == {"1": 100}


def test_what_serves_already_is_not_deleted_when_its_state_is_lost(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    cluster.held = None
    cluster.behaviours["1"] = Behaviour(covid=0.2)
    assert rolled_out(service, release(1)) == ["it is served"]
    assert cluster.shares() == {"1": 100}


@pytest.mark.parametrize("mode", ["Knative"], indirect=True)
def test_a_canary_whose_state_is_lost_is_not_taken_for_the_stable_version(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))
    once(cluster, 10, lambda: cluster.faults.extend([401] * 9))
    with pytest.raises(UserError):
        rolled_out(service, release(2))
    cluster.faults.clear()
    cluster.held = None
    with pytest.raises(
        UserError, match=r"version 2 is a canary of .*which names the stable version"
    ):
        rolled_out(service, release(2))
    assert cluster.shares() == {"1": 90, "2": 10}


def test_a_first_version_that_was_refused_is_not_served_before_a_later_one(
    cluster: Cluster, service: InferenceService
) -> None:
    def look(method: str, path: str) -> None:
        if method == "PATCH" and path.endswith("/inferenceservices/cxrflow"):
            raise refused(403, "exceeded quota")

    cluster.meanwhile = look
    with pytest.raises(UserError, match="exceeded quota"):
        rolled_out(service, release(1))
    seen = shares(cluster)
    rolled_out(service, release(2))
    assert all("1" not in share for share in seen)
    assert cluster.shares() == {"2": 100}


@standard
def test_a_missing_runtime_is_named(cluster: Cluster, service: InferenceService) -> None:
    rolled_out(service, release(1))
    reconcile = cluster.reconcile

    def without_runtime() -> None:
        reconcile()
        assert cluster.found
        for deployment in cluster.deployments.values():
            deployment.pods.clear()
        cluster.found["status"]["modelStatus"] = {
            "lastFailureInfo": {"message": "Waiting for runtime to become available"}
        }

    cluster.reconcile = without_runtime  # type: ignore[method-assign]
    with pytest.raises(UserError, match="0 of 1 pods; KServe says Waiting for runtime to become"):
        rolled_out(service, release(2))


def test_a_wrong_first_version_is_deleted_but_not_what_is_beside_it(
    cluster: Cluster, service: InferenceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later run puts its candidate beside a first version that is just being found wrong."""
    cluster.behaviours["1"] = Behaviour(covid=0.2)
    check = watch.known_answers.check

    def slow(ask: Any, answers: Any, who: str) -> str:
        if "-v1-" in who and "candidate" not in (cluster.held or {"data": {}})["data"]:
            stored = load(service)
            assert stored
            save(service, dataclasses.replace(stored, candidate=release(2), replicas=1))
        return check(ask, answers, who)

    monkeypatch.setattr(watch.known_answers, "check", slow)
    with pytest.raises(UserError, match="version 1 is superseded by version 2"):
        rolled_out(service, release(1))
    assert cluster.found, "it is not deleted with its candidate"
    assert noted(cluster, "candidate")["version"] == "2"


def test_a_deletion_has_what_was_read_as_its_precondition(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.behaviours["1"] = Behaviour(covid=0.2)
    deleted: list[str] = []

    def look(method: str, path: str) -> None:
        if method == "DELETE" and not deleted:
            deleted.append(path)
            cluster.touch()  # KServe writes the status between our reading and our deletion

    cluster.meanwhile = look
    with pytest.raises(UserError, match="is deleted, nothing is served"):
        rolled_out(service, release(1))
    assert deleted
    assert cluster.found is None
    cluster.behaviours.clear()
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


def test_an_inference_service_that_is_recreated_meanwhile_is_not_deleted(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.behaviours["1"] = Behaviour(covid=0.2)

    def look(method: str, path: str) -> None:
        if method == "DELETE" and cluster.found:
            cluster.found["metadata"]["uid"] = "another"

    cluster.meanwhile = look
    with pytest.raises(UserError, match="evaluation had covid 90"):
        rolled_out(service, release(1))
    assert cluster.found


@pytest.mark.parametrize("percent", [None, 10])
def test_an_inference_service_of_an_earlier_release_is_taken_over(
    cluster: Cluster, service: InferenceService, percent: int | None
) -> None:
    """Its state was in its annotations, and there is no ConfigMap."""
    rolled_out(service, release(1))
    if percent:
        once(cluster, percent, lambda: cluster.faults.extend([401] * 9))
        with pytest.raises(UserError, match="401"):
            rolled_out(service, release(2))
        cluster.faults.clear()
    assert cluster.found
    cluster.held = None
    notes = cluster.found["metadata"]["annotations"]
    notes["cxrflow/stable"] = json.dumps(vars(release(1)))
    notes["cxrflow/last-rollout"] = json.dumps(
        {"version": "1", "decided": release(1).decided, "outcome": "served"}
    )
    if percent:
        notes["cxrflow/candidate"] = json.dumps(vars(release(2)))
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}
    assert noted(cluster, "stable") == vars(release(2))
    assert "cxrflow/stable" not in cluster.found["metadata"]["annotations"]


@standard
def test_a_restored_inference_service_is_taken_over(
    cluster: Cluster, service: InferenceService
) -> None:
    """From a backup it comes back as another object."""
    rolled_out(service, release(1))
    assert cluster.found
    assert cluster.held
    cluster.found["metadata"]["uid"] = "another"
    cluster.reconcile()
    assert rolled_out(service, release(1)) == ["it is served"]
    assert cluster.held["data"]["inference-service-uid"] == "another"
    cluster.held = None  # without its ConfigMap
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


def test_a_damaged_state_says_what_to_do(cluster: Cluster, service: InferenceService) -> None:
    rolled_out(service, release(1))
    assert cluster.held
    cluster.held["data"]["stable"] = "{"
    with pytest.raises(UserError, match=r"ConfigMap cxrflow-rollout .*is damaged.*delete it"):
        rolled_out(service, release(2))
    cluster.held = None  # as it says
    rolled_out(service, release(2))
    assert cluster.shares() == {"2": 100}


@standard
def test_a_name_in_the_model_is_reported_as_the_webhooks_refusal(
    cluster: Cluster, service: InferenceService
) -> None:
    cluster.template["spec"]["predictor"]["model"]["name"] = "kserve-container"
    with pytest.raises(
        UserError,
        match=r"'name' field is not allowed in standard predictor \(a webhook of the cluster rejects",
    ):
        rolled_out(service, release(1))


def test_an_inference_service_that_changes_all_the_time_ends_it(
    cluster: Cluster, service: InferenceService
) -> None:
    rolled_out(service, release(1))

    def look(method: str, path: str) -> None:
        if method == "PATCH" and path.endswith("/inferenceservices/cxrflow"):
            cluster.touch()

    cluster.meanwhile = look
    with pytest.raises(UserError, match="changed all the time by someone else"):
        rolled_out(service, release(2))


@pytest.mark.parametrize("text", ["ten", "0,50", "50,10", "50,101", "10,10"])
def test_shares_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="canary"):
        parse_steps(text)


def test_shares_are_read() -> None:
    assert parse_steps("10, 50,100") == (10, 50, 100)
    assert parse_steps("") == ()
