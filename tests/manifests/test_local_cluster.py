"""`make kind-up`, as far as it goes without a cluster: with programs that only note what they are told."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.manifests.schemas import unrestricted
from tests.manifests.test_overlays import ROOT

SCRIPT = ROOT / "manifests" / "local-cluster.sh"
TOOLS = ("kind", "minikube", "kubectl", "helm", "docker", "podman", "make")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory with every tool, each noting its arguments in `said` beside it."""
    directory = tmp_path / "tools"
    directory.mkdir()
    for name in TOOLS:
        file = directory / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/said\n')
        file.chmod(0o755)
    # What `docker save` would have written is removed at the end.
    (directory / "rm").write_text("#!/bin/sh\n")
    (directory / "rm").chmod(0o755)
    return directory


def run(tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{tools}:/usr/bin:/bin" if (tools / "kubectl").exists() else str(tools)
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), *arguments],
        env={"PATH": path, "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("provider", ["kind", "minikube"])
def test_everything_is_set_up_in_order_and_again(
    tools: Path, tmp_path: Path, provider: str
) -> None:
    for _ in range(2):
        done = run(tools, "up", provider)
        assert done.returncode == 0, done.stderr
    said = (tmp_path / "said").read_text()
    order = [
        said.index(text)
        for text in (
            f"{provider} {'create cluster' if provider == 'kind' else '--profile cxrflow status'}",
            "env/platform-agnostic?ref=2.17.0",
            "kserve-resources --version v0.21.0",
            "make images",
            f"apply -k manifests/overlays/{provider}",
            "apply -f manifests/jobs/sample-data.yaml",
            "auth can-i patch",
        )
    ]
    assert order == sorted(order)
    assert "cxrflow submit" in done.stdout


@pytest.mark.parametrize("missing", ["kind", "kubectl", "helm"])
def test_a_missing_tool_is_named(tools: Path, missing: str) -> None:
    (tools / missing).unlink()
    for tool in ("dirname", "sed"):  # and nothing else of the system
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    done = subprocess.run(
        ["/bin/bash", str(SCRIPT), "up", "kind"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {missing} is not installed; see https://")


def test_it_is_deleted(tools: Path, tmp_path: Path) -> None:
    assert run(tools, "down", "kind").returncode == 0
    assert (tmp_path / "said").read_text() == "kind delete cluster --name cxrflow\n"


def test_the_job_that_draws_is_restricted() -> None:
    job = yaml.safe_load((ROOT / "manifests" / "jobs" / "sample-data.yaml").read_text())
    assert not unrestricted(job["spec"]["template"]["spec"])


def test_skaffold_builds_what_the_manifests_name() -> None:
    configuration = (ROOT / "skaffold.yaml").read_text()
    skaffold = yaml.safe_load(configuration)
    release = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert release
    assert skaffold["build"]["tagPolicy"]["customTemplate"]["template"] == release[1]
    names = [f"cxrflow-{target}" for target in ("data", "training", "serving")]
    for build in (skaffold["build"], *(profile["build"] for profile in skaffold["profiles"])):
        assert [artifact["image"] for artifact in build["artifacts"]] == names
        for artifact in build["artifacts"]:
            assert artifact["docker"]["buildArgs"]["VERSION"] == release[1]
            dockerfile = (ROOT / artifact["docker"]["dockerfile"]).read_text()
            assert f" AS {artifact['docker']['target']}\n" in dockerfile
    for profile in skaffold["profiles"]:
        paths = profile.get("manifests", skaffold["manifests"])["kustomize"]["paths"]
        assert paths == [f"manifests/overlays/{profile['name']}"]
