"""How a canary is judged, without a cluster."""

from typing import Any

import pytest

from serving.cluster.canary import Counters, Evidence, Look, counters, increase, unproven, why_not

METRICS = """# TYPE cxrflow_requests counter
cxrflow_requests_total{status="200"} 900
cxrflow_requests_total{status="500"} 3
cxrflow_requests_total{status="503"} 2
# TYPE request_predict_seconds histogram
request_predict_seconds_bucket{model_name="cxrflow",le="1.0"} 40
request_predict_seconds_count{model_name="cxrflow"} 40
request_predict_seconds_sum{model_name="cxrflow"} 8
# TYPE request_explain_seconds histogram
request_explain_seconds_count{model_name="cxrflow"} 5
# TYPE cxrflow_predictions counter
cxrflow_predictions_total{class="covid"} 30
cxrflow_predictions_total{class="normal"} 90
"""


def at(requests: float, errors: float = 0, pod: str = "a", restarts: int = 0, **more: Any) -> Look:
    found: Counters = {
        ("requests", "request_predict_seconds_count"): requests,
        ("errors", "500"): errors,
        ("seconds", ""): requests * more.pop("seconds", 0.1),
        ("classes", "covid"): requests * more.pop("covid", 0.5),
        ("classes", "normal"): requests * (1 - more.pop("normal", 0.5)),
    }
    made = {"ready": True, "counters": found, **more}
    return Look(name=pod, uid=f"uid-{pod}", restarts=restarts, **made)


def seen(*looks: list[Look]) -> Evidence:
    made = Evidence()
    for one in looks:
        made.add(one)
    return made


MANY = seen([at(0)], [at(1000)])


def test_what_is_counted_are_the_requests_that_ran_the_model() -> None:
    """Not the probes of the kubelet, of which there are dozens a share, nor the pages."""
    evidence = seen([Look(name="a", uid="a", ready=True, restarts=0, counters={})])
    evidence.add([Look(name="a", uid="a", ready=True, restarts=0, counters=counters(METRICS))])
    assert (evidence.requests, evidence.errors, evidence.predictions) == (45, 5, 40)
    assert evidence.seconds == 8
    assert evidence.classes == {"covid": 30, "normal": 90}
    assert evidence.failing == 5 / 45


@pytest.mark.parametrize(
    ("before", "now", "restarted", "grown"),
    [
        (None, 900, False, None),  # what it had counted before is not known to be new
        (50, 60, False, 10),
        (50, 7, False, 7),  # it began again at zero
        (50, 60, True, 60),  # the same, and it has already counted more
        (50, 50, False, 0),
    ],
)
def test_counters_grow_as_those_of_prometheus(
    before: float | None, now: float, restarted: bool, grown: float | None
) -> None:
    key = ("requests", "")
    found = increase(None if before is None else {key: before}, {key: now}, restarted=restarted)
    assert found.get(key) == grown


def test_one_counter_that_falls_shows_that_all_began_again() -> None:
    before = {("requests", ""): 50.0, ("errors", "500"): 2.0}
    assert increase(before, {("requests", ""): 60.0}) == {("requests", ""): 60.0}


def test_a_counter_that_appears_was_at_zero() -> None:
    """The first failed request makes the counter of its status."""
    assert increase({("requests", ""): 5.0}, {("requests", ""): 6.0, ("errors", "500"): 1.0}) == {
        ("requests", ""): 1.0,
        ("errors", "500"): 1.0,
    }


def test_pods_are_counted_each_by_itself() -> None:
    """A pod that scaling removes, restarts or brings back gives no negative and no lifetime totals."""
    evidence = seen(
        [at(1000, pod="a"), at(500, errors=50, pod="b")],
        [at(1010, pod="a"), at(520, errors=52, pod="b")],
        [at(1020, pod="a")],  # b is gone
        [at(1030, pod="a"), at(7, pod="c")],  # a new one
        [at(1040, pod="a"), at(17, pod="c"), at(540, errors=54, pod="b")],  # b is back
    )
    assert evidence.requests == 40 + (20 + 20) + 10
    assert evidence.errors == 4


def test_errors_of_one_pod_are_not_hidden_by_the_restart_of_another() -> None:
    evidence = seen(
        [at(100000, pod="a"), at(0, pod="b")],
        [at(5, pod="a"), at(95, errors=10, pod="b")],
    )
    assert (evidence.requests, evidence.errors) == (100, 10)
    assert why_not(evidence, MANY) == ("10.0 % of its 100 requests failed; stable version: 0.0 %")


def test_a_pod_that_did_not_answer_meanwhile_is_counted_from_its_last_answer() -> None:
    silent = Look(name="a", uid="uid-a", ready=True, restarts=0)
    evidence = seen([at(100)], [silent], [at(130)])
    assert evidence.requests == 30


def test_a_restart_speaks_against_it_although_all_is_well_at_each_look() -> None:
    evidence = seen([at(100)], [at(5, restarts=1, trouble="its last end: OOMKilled")])
    assert why_not(evidence, MANY) == (
        "its server was restarted: a (1 times; its last end: OOMKilled)"
    )


def test_a_pod_that_is_not_ready_any_more_speaks_against_it() -> None:
    evidence = seen([at(100)], [at(100, ready=False, counters=None, trouble="CrashLoopBackOff")])
    assert why_not(evidence, MANY) == "not ready any more: a (CrashLoopBackOff)"


def test_a_new_pod_that_is_not_ready_yet_does_not() -> None:
    starting = at(0, pod="b", ready=False, counters=None)
    assert why_not(seen([at(100)], [at(110), starting]), MANY) is None


def test_one_look_without_an_answer_does_not_but_two_do() -> None:
    silent = Look(name="a", uid="uid-a", ready=True, restarts=0)
    assert why_not(seen([at(100)], [silent]), MANY) is None
    assert why_not(seen([at(100)], [silent], [at(101)], [silent]), MANY) is None
    assert why_not(seen([at(100)], [silent], [silent]), MANY) == (
        "its server does not answer /metrics: a"
    )


def test_nothing_of_the_stable_version_speaks_against_the_canary() -> None:
    bad = seen([at(100)], [at(5, errors=5, restarts=3)], [at(5, ready=False, counters=None)])
    assert why_not(MANY, bad) is None


def test_of_few_requests_nothing_is_concluded() -> None:
    few = seen([at(0)], [at(5, errors=5, seconds=9, covid=0)])
    assert why_not(few, MANY) is None
    assert why_not(Evidence(), Evidence()) is None


def test_requests_that_fail_before_the_model_runs_count() -> None:
    assert why_not(seen([at(0)], [at(0, errors=30)]), MANY) == (
        "100.0 % of its 30 requests failed; stable version: 0.0 %"
    )


@pytest.mark.parametrize(
    ("requests", "shares", "words"),
    [
        (100, [10.0, 10.0], None),
        (20, [10.0], None),
        (19, [10.0], "only 19 requests came; at least 20 are needed"),
        (100, [10.0, 0.0, 10.0], "the route gave it only 0 % of the traffic"),
        (100, [10.0, None], "the route gave it only 0 % of the traffic"),
        (100, [], "the route gave it only 0 % of the traffic"),
    ],
)
def test_without_evidence_it_is_unproven(
    requests: float, shares: list[float | None], words: str | None
) -> None:
    assert unproven(seen([at(0)], [at(requests)]), 10, shares) == words
