"""The state of a rollout as metrics, from the files that Kubernetes makes of the ConfigMap."""

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from serving.cluster.inference_service import InferenceService
from serving.cluster.reconcile import agreed
from serving.cluster.rollout import take_back
from serving.cluster.state import SERVED, State, load, save
from serving.rollout_metrics import RolloutMetrics
from tests.serving.cluster.played import TEMPLATE, Cluster, connected, release, running


@pytest.fixture
def service() -> Iterator[InferenceService]:
    """Version 2 is served, and version 3 is a canary."""
    with running(Cluster(template=yaml.safe_load(TEMPLATE.read_text()))) as url:
        service = InferenceService("cxrflow", "cxrflow", connected(url))
        outcome = {"version": "2", "decided": release(2).decided, "outcome": SERVED}
        stable = State(stable=release(2), outcome=outcome)
        save(service, dataclasses.replace(stable, candidate=release(3), percent=10))
        agreed(service, service.template(), 0)
        yield service


CANDIDATE = ("cxrflow_rollout_candidate_percent", "3")


def metrics(directory: Path) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(RolloutMetrics(directory))
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def mounted(service: InferenceService, directory: Path) -> Path:
    """Makes of the stored state what the kubelet makes of it."""
    held = service.read_state()
    assert held
    directory.mkdir()
    for key, value in held["data"].items():
        (directory / key).write_text(value)
    return directory


def test_a_candidate_and_the_end_of_its_rollout_are_told(
    service: InferenceService, tmp_path: Path
) -> None:
    assert metrics(mounted(service, tmp_path / "before")) == {CANDIDATE: 10}
    take_back(service)
    stored = load(service)
    assert stored
    at = datetime.fromisoformat(stored.outcome["at"]).timestamp()
    assert metrics(mounted(service, tmp_path / "after")) == {
        ("cxrflow_rollout_ended_timestamp_seconds", "3", "rolled back"): at
    }


def test_without_a_rollout_nothing_is_told(tmp_path: Path) -> None:
    assert metrics(tmp_path / "not mounted") == {}
    assert metrics(tmp_path) == {}


@pytest.mark.parametrize(
    ("file", "content"),
    [("last-rollout", "{"), ("last-rollout", "[]"), ("candidate", "{}"), ("percent", "many")],
)
def test_a_damaged_state_does_not_break_the_scrape(
    service: InferenceService, tmp_path: Path, file: str, content: str
) -> None:
    directory = mounted(service, tmp_path / "state")
    (directory / file).write_text(content)
    told = metrics(directory)
    assert told == ({} if file != "last-rollout" else {CANDIDATE: 10})
