"""What a person does with a rollout: through the command line and a kubeconfig."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import store
from serving.rollout import ROLLED_BACK, State, manifest_of
from tests.pipelines.cli import cxrflow
from tests.serving.cluster import Cluster, running
from tests.serving.test_rollout import TEMPLATE, noted, release


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that the kubeconfig names, with a token; version 2 is served, 3 a canary."""
    made = Cluster(template=yaml.safe_load(TEMPLATE.read_text()), token="secret")
    with running(made) as url:
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": url}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
            "contexts": [{"name": "it", "context": {"cluster": "here", "user": "me"}}],
            "current-context": "it",
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        state = State(
            stable=release(2),
            candidate=release(3),
            percent=10,
            outcome={"version": "2", "decided": release(2).decided, "outcome": "served"},
        )
        made.apply(manifest_of(made.template, state))
        yield made


def test_a_canary_is_promoted(cluster: Cluster) -> None:
    assert cxrflow("promote") == "version 3 is promoted\n"
    assert cluster.shares() == {"3": 100}
    assert noted(cluster, "last-rollout")["reason"] == "promoted by hand"
    assert "has no canary; version 3 is served" in cxrflow("promote", fails=True)


def test_a_canary_is_taken_back(cluster: Cluster) -> None:
    assert cxrflow("rollback") == "the canary is taken back; version 2 goes on\n"
    assert cluster.shares() == {"2": 100}
    outcome = noted(cluster, "last-rollout")
    assert (outcome["version"], outcome["outcome"]) == ("3", ROLLED_BACK)
    assert "name the version to go back to" in cxrflow("rollback", fails=True)


def test_any_earlier_version_is_gone_back_to(cluster: Cluster) -> None:
    said = cxrflow("rollback", "1")
    assert said.endswith("version 1 is served\n")
    assert cluster.shares() == {"1": 100}
    assert cluster.found
    assert cluster.found["spec"]["predictor"]["model"]["storageUri"] == "s3://models/cxrflow/1"


def test_where_nothing_is_served_it_is_said(cluster: Cluster) -> None:
    cluster.found = None
    error = cxrflow("rollback", "1", fails=True)
    assert error == (
        "error: there is no InferenceService cxrflow/cxrflow; deploy a version first: cxrflow submit\n"
    )


def test_without_a_cluster_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "no cluster is known" in cxrflow("promote", fails=True)


def test_a_version_is_checked_alone(version: Path) -> None:
    assert cxrflow("deploy", str(version), "--check").startswith(
        "4 known images answered by a server"
    )


def test_a_version_is_deployed_from_a_laptop(
    cluster: Cluster, version: Path, bucket: str, known: list[dict[str, Any]]
) -> None:
    cluster.found = None
    cluster.answers = known
    said = cxrflow("deploy", str(version), "--store", f"{bucket}/laptop", "--canary", "")
    assert f"published as {bucket}/laptop/cxrflow/1" in said
    assert "version 1: it is served" in said
    assert noted(cluster, "stable")["uri"] == f"{bucket}/laptop/cxrflow/1"
    decision = json.loads((version / "decision.json").read_text())
    assert noted(cluster, "stable")["decided"] == decision["decided"]
    error = cxrflow("deploy", str(version), fails=True)
    assert "name the --store that KServe reads" in error


@pytest.fixture
def known(version: Path) -> list[dict[str, Any]]:
    return json.loads((version / "known_answers.json").read_text())


def test_a_damaged_version_is_not_deployed(version: Path, tmp_path: Path) -> None:
    candidate = store.assemble({"model.json": version / "model.json"}, tmp_path / "made", "cxrflow")
    (candidate / "model.json").write_text("{}")
    assert "model.json is damaged" in cxrflow("deploy", str(candidate), "--check", fails=True)
