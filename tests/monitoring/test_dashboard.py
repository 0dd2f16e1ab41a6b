"""The dashboard's queries and the rules, asked of a real Prometheus that scrapes the real server."""

import json
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tenacity
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipelines.targets import SERVICE_ACCOUNT
from serving import local, ports
from serving.local import Server
from tests.serving.files import encoded, v1

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "manifests" / "components" / "monitoring"
DASHBOARD = json.loads((MONITORING / "cxrflow.json").read_text())
GROUPS = yaml.safe_load((MONITORING / "prometheus-rule.yaml").read_text())["spec"]["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
MONITOR = yaml.safe_load((MONITORING / "pod-monitor.yaml").read_text())
QUERIES = {
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    },
    **{note["name"]: note["expr"] for note in DASHBOARD["annotations"]["list"]},
}
# kube-state-metrics has them; the runbook says so.
OF_THE_CLUSTER = {"kube_pod_start_time", "kube_pod_service_account"}
# What can be true of this server: it is the only one, and just started.
FIRING = {"CxrflowRolloutHangs", "CxrflowRolledBack", "CxrflowNotTrusted"}
WITHOUT_HISTORY = {"cxrflow:predict_seconds:mean1w", "cxrflow:pipeline_step:started"}
REQUESTS, IMAGES = 21, 5

Ask = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def serving(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, which finds the state of a rollout."""
    home = tmp_path_factory.mktemp("monitored")
    state = home / "rollout"
    state.mkdir()
    last = {"version": "2", "outcome": "rolled back", "at": "2026-01-01T00:00:00.000000+00:00"}
    (state / "candidate").write_text('{"version": "3"}')
    (state / "percent").write_text("10")
    (state / "last-rollout").write_text(json.dumps(last))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRFLOW_ROLLOUT", str(state))
        server = local.serve(published / "cxrflow" / "1", home)
    yield server
    local.stop(home)


def configuration(server: Server) -> dict[str, Any]:
    """Returns what the Prometheus operator makes of the PodMonitor, as far as queries see it."""
    (endpoint,) = MONITOR["spec"]["podMetricsEndpoints"]
    (relabeling,) = endpoint["relabelings"]
    meta = MONITOR["metadata"]
    return {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": f"{meta['namespace']}/{meta['name']}",
                "metrics_path": endpoint["path"],
                "static_configs": [
                    {
                        "targets": [server.url.removeprefix("http://")],
                        "labels": {relabeling["targetLabel"]: "1", "pod": "cxrflow-predictor-1"},
                    }
                ],
            }
        ],
    }


@pytest.fixture(scope="module")
def ask(
    serving: Server,
    prometheus_program: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ask]:
    """Returns a function that asks Prometheus, which has seen requests of every kind."""
    home = tmp_path_factory.mktemp("prometheus")
    (home / "prometheus.yaml").write_text(yaml.safe_dump(configuration(serving)))
    address = f"127.0.0.1:{ports.free(0)}"

    def asked(query: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"http://{address}/api/v1/query", params={"query": query}, timeout=30)
        said = answer.json()
        assert said["status"] == "success", said
        return said["data"]["result"]

    @tenacity.retry(
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(120),
        retry=tenacity.retry_if_exception_type((httpx.HTTPError, json.JSONDecodeError))
        | tenacity.retry_if_result(lambda found: not found),
    )
    def seen(query: str) -> list[dict[str, Any]]:
        return asked(query)

    process = subprocess.Popen(
        [
            prometheus_program("prometheus"),
            f"--config.file={home / 'prometheus.yaml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ],
        env={**os.environ, "GOMAXPROCS": "1"},
    )
    try:
        send(serving.url, requests=1)
        # What is counted from here on is an increase.
        seen("count(request_explain_seconds_count)")
        send(serving.url, requests=REQUESTS)
        seen(f"request_predict_seconds_count >= {REQUESTS + 1}")
        yield asked
    finally:
        process.kill()
        process.wait()


def send(url: str, requests: int) -> None:
    """Sends predictions, one explanation, and what is no image."""
    random = np.random.default_rng(0)
    pictures = [encoded(random.integers(0, 255, (150, 140), np.uint8)) for _ in range(IMAGES)]
    model = f"{url}/v1/models/cxrflow"
    with httpx.Client(timeout=60) as client:
        for _ in range(requests):
            client.post(f"{model}:predict", json=v1(*pictures)).raise_for_status()
        client.post(f"{model}:explain", json=v1(pictures[0])).raise_for_status()
        assert client.post(f"{model}:predict", json=v1(b"text")).status_code == 400


def numbers(result: list[dict[str, Any]]) -> list[float]:
    return [float(row["value"][1]) for row in result]


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_of_the_dashboard_returns_data(ask: Ask, name: str) -> None:
    result = ask(QUERIES[name].replace("$__rate_interval", "1m"))
    assert result
    assert all(map(math.isfinite, numbers(result)))


def test_the_dashboard_tells_versions_classes_and_reasons_apart(ask: Ask) -> None:
    def labels(name: str, label: str) -> set[str]:
        result = ask(QUERIES[name].replace("$__rate_interval", "1m"))
        return {row["metric"][label] for row in result}

    assert labels("Requests that reached the model A", "version") == {"1"}
    assert labels("Answers by class A", "class") == {"covid", "normal", "unknown"}
    assert labels("Rejected requests by reason A", "reason") >= {"busy", "not an image"}
    assert labels("Rollouts", "outcome") == {"rolled back"}
    assert sum(numbers(ask(QUERIES["Answers by class A"]))) == pytest.approx(1)


@pytest.mark.parametrize("rule", RULES, ids=[r.get("alert") or r["record"] for r in RULES])
def test_a_rule_finds_what_is_true_of_the_server(ask: Ask, rule: dict[str, Any]) -> None:
    result = ask(rule["expr"])
    if "record" in rule:
        assert bool(result) == (rule["record"] not in WITHOUT_HISTORY)
    elif rule["alert"] == "CxrflowRolledBack":
        assert not result, "it was long ago"
        recent = rule["expr"].replace("24 * 3600", "1e10")
        assert ask(recent)
    elif "cxrflow:" not in rule["expr"]:  # else it needs the records
        assert bool(result) == (rule["alert"] in FIRING)


def test_every_metric_is_of_a_named_producer(ask: Ask, serving: Server) -> None:
    told = httpx.get(f"{serving.url}/metrics").text
    exposed = {
        sample.name for family in text_string_to_metric_families(told) for sample in family.samples
    }
    expressions = " ".join([*QUERIES.values(), *(rule["expr"] for rule in RULES)])
    assert f'service_account="{SERVICE_ACCOUNT}"' in expressions
    expressions = re.sub(r'"[^"]*"', "", expressions)
    used = set(re.findall(r"\b(?:cxrflow|request|kube)_\w+", expressions))
    assert used - OF_THE_CLUSTER <= exposed
    assert used >= OF_THE_CLUSTER
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    assert all(name in runbook for name in OF_THE_CLUSTER)
    records = {rule["record"] for rule in RULES if "record" in rule}
    assert set(re.findall(r"\bcxrflow:[\w:]+", expressions)) == records
