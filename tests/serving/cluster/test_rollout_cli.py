"""What a person does with a rollout: through the command line and a kubeconfig.

What succeeds is shown on a real cluster: tests/cluster/test_rollout.py.
"""

from pathlib import Path

import pytest

from serving import store
from serving.cluster.state import ROLLED_BACK
from tests.pipelines.cli import cxrflow
from tests.serving.cluster.played import Cluster, noted


def test_a_canary_is_taken_back(kubernetes: Cluster) -> None:
    assert cxrflow("rollback") == "the canary is rolled back; version 2 stays\n"
    assert kubernetes.shares() == {"2": 100}
    outcome = noted(kubernetes, "last-rollout")
    assert (outcome["version"], outcome["outcome"]) == ("3", ROLLED_BACK)
    assert "name the version to go back to" in cxrflow("rollback", fails=True)
    assert "has no canary; version 2 is served" in cxrflow("promote", fails=True)


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


def test_a_version_is_deployed_from_a_store_that_the_cluster_reads(version: Path) -> None:
    error = cxrflow("deploy", str(version), fails=True)
    assert "give the --store that KServe reads" in error


def test_a_damaged_version_is_not_deployed(version: Path, tmp_path: Path) -> None:
    candidate = store.assemble({"model.json": version / "model.json"}, tmp_path / "made", "cxrflow")
    (candidate / "model.json").write_text("{}")
    assert "model.json is damaged" in cxrflow("deploy", str(candidate), "--check", fails=True)
