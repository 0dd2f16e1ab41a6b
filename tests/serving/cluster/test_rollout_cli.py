"""What a person does with a rollout: through the command line and a kubeconfig."""

import json
from pathlib import Path
from typing import Any

import pytest

from serving import store
from serving.cluster.state import ROLLED_BACK
from tests.pipelines.cli import cxrflow
from tests.serving.cluster.played import Cluster, noted


def test_a_canary_is_promoted(kubernetes: Cluster) -> None:
    assert cxrflow("promote").endswith("version 3 is promoted\n")
    assert kubernetes.shares() == {"3": 100}
    assert len(kubernetes.pods("3")) == 2, "it had the pods for all of the traffic before"
    assert noted(kubernetes, "last-rollout")["reason"] == "promoted by hand"
    assert "has no canary; version 3 is served" in cxrflow("promote", fails=True)


def test_a_canary_is_taken_back(kubernetes: Cluster) -> None:
    assert cxrflow("rollback") == "the canary is rolled back; version 2 stays\n"
    assert kubernetes.shares() == {"2": 100}
    outcome = noted(kubernetes, "last-rollout")
    assert (outcome["version"], outcome["outcome"]) == ("3", ROLLED_BACK)
    assert "name the version to go back to" in cxrflow("rollback", fails=True)


def test_any_earlier_version_is_gone_back_to(kubernetes: Cluster) -> None:
    said = cxrflow("rollback", "1")
    assert said.endswith("version 1 is served\n")
    assert kubernetes.shares() == {"1": 100}
    assert kubernetes.found
    assert kubernetes.found["spec"]["predictor"]["model"]["storageUri"] == "s3://models/cxrflow/1"


def test_where_nothing_is_served_it_is_said(kubernetes: Cluster) -> None:
    kubernetes.delete()
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
    kubernetes: Cluster, version: Path, bucket: str, known: list[dict[str, Any]]
) -> None:
    kubernetes.delete()
    kubernetes.answers = known
    said = cxrflow("deploy", str(version), "--store", f"{bucket}/laptop", "--canary", "")
    assert f"published as {bucket}/laptop/cxrflow/1" in said
    assert "version 1: it is served" in said
    unseen = cxrflow("deploy", str(version), "--store", f"{bucket}/laptop", "--canary-unseen")
    assert "version 1: it is served" in unseen
    assert noted(kubernetes, "stable")["uri"] == f"{bucket}/laptop/cxrflow/1"
    decision = json.loads((version / "decision.json").read_text())
    assert noted(kubernetes, "stable")["decided"] == decision["decided"]
    error = cxrflow("deploy", str(version), fails=True)
    assert "give the --store that KServe reads" in error


@pytest.fixture
def known(version: Path) -> list[dict[str, Any]]:
    return json.loads((version / "known_answers.json").read_text())


def test_a_damaged_version_is_not_deployed(version: Path, tmp_path: Path) -> None:
    candidate = store.assemble({"model.json": version / "model.json"}, tmp_path / "made", "cxrflow")
    (candidate / "model.json").write_text("{}")
    assert "model.json is damaged" in cxrflow("deploy", str(candidate), "--check", fails=True)
