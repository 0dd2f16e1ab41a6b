"""Which share of the traffic a canary really gets, from routes as KServe's controller writes them."""

from typing import Any

import pytest

from serving.cluster.route import is_seen_ready, is_settled, knative_share, leftovers, share


def route(name: str, *rules: dict[str, int | None]) -> dict[str, Any]:
    """A route whose rules have backends by name, with a weight or, as without canaries, none."""
    made = [
        {
            "backendRefs": [
                {
                    "kind": "Service",
                    "name": f"cxrflow-{backend}-predictor",
                    "namespace": "cxrflow",
                    "port": 80,
                    **({} if weight is None else {"weight": weight}),
                }
                for backend, weight in rule.items()
            ]
        }
        for rule in rules
    ]
    return {"metadata": {"name": name}, "spec": {"rules": made}}


@pytest.mark.parametrize(
    ("routes", "found"),
    [
        ([], None),  # no Gateway API, or no gateway
        ([route("cxrflow", {"v1": None})], None),  # KServe 0.20.0, at any share
        ([route("cxrflow", {"v1": 100, "v2": 0})], 0.0),  # 0.21, ready and without traffic
        ([route("cxrflow", {"v1": 90, "v2": 10})], 10.0),
        ([route("cxrflow", {"v1": 0, "v2": 100})], 100.0),
        ([route("cxrflow", {"v2": None})], 100.0),
        ([route("cxrflow", {"v1": 90, "v2": 10}, {"v1": 90, "v2": 10})], 10.0),  # gRPC and REST
        ([route("cxrflow", {"v1": 90, "v2": 10}, {"v1": 100, "v2": 0})], 0.0),
        ([route("cxrflow", {"v1": 90, "v2": 10}, {"v1": None})], None),
        # Of another InferenceService, or of the predictor's own host.
        ([route("other", {"v2": 100}), route("cxrflow-predictor", {"v2": 100})], None),
    ],
)
def test_the_share_of_a_predictor(routes: list[dict[str, Any]], found: float | None) -> None:
    assert share(routes, "cxrflow", "v2") == found


def test_a_route_is_settled_when_it_lists_one_version_alone() -> None:
    assert is_settled([], "cxrflow", "v2")
    assert is_settled([route("cxrflow", {"v2": None})], "cxrflow", "v2")
    assert not is_settled([route("cxrflow", {"v1": None})], "cxrflow", "v2")
    assert not is_settled([route("cxrflow", {"v1": 100, "v2": 0})], "cxrflow", "v1")


def test_the_share_of_the_newest_revision() -> None:
    traffic = [
        {"latestRevision": True, "percent": 10, "revisionName": "cxrflow-predictor-00002"},
        {"percent": 90, "revisionName": "cxrflow-predictor-00001", "tag": "prev"},
    ]
    component = {"latestCreatedRevision": "cxrflow-predictor-00002", "traffic": traffic}
    assert knative_share({"status": {"components": {"predictor": component}}}) == 10
    assert knative_share({}) is None


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        ({}, False),
        ({"name": "v2", "ready": False, "trafficPercent": 10}, False),
        ({"name": "v2", "ready": True, "trafficPercent": 0}, False),  # of an earlier share
        ({"name": "v3", "ready": True, "trafficPercent": 10}, False),
        ({"name": "v2", "ready": True, "trafficPercent": 10}, True),
    ],
)
def test_kserve_has_seen_it_ready(status: dict[str, Any], seen: bool) -> None:
    found = {
        "status": {
            "conditions": [{"type": "PredictorReady", "status": "True"}],
            "canaryStatuses": [status] if status else [],
        }
    }
    assert is_seen_ready(found, "v2", 10) is seen
    # It writes no route while the stable version is not ready.
    found["status"]["conditions"][0]["status"] = "False"
    assert not is_seen_ready(found, "v2", 10)


def test_what_is_left_of_versions_that_are_gone() -> None:
    def named(name: str, owner: str = "ours") -> dict[str, Any]:
        return {"metadata": {"name": name, "ownerReferences": [{"uid": owner}]}}

    left = named("cxrflow-v1-predictor")
    others = [
        named("cxrflow"),
        named("cxrflow-predictor"),
        named("cxrflow-v2-predictor"),
        named("cxrflow-v1-predictor", "theirs"),
        named("cxrflow-video-transformer"),
        {"metadata": {"name": "cxrflow-v1-predictor"}},
    ]
    assert leftovers([left, *others], "cxrflow", "ours", {"v2"}) == [left]
