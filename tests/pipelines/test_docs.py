"""The commands of docs/kubernetes.md that need no cluster, run as they stand."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from tests.api import served
from tests.pipelines.test_kubeflow import Api
from tests.serving.cluster.played import Cluster

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
CLUSTER = re.findall(r"```sh cluster\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.split("\n")[0][:40] for block in BLOCKS])
def test_a_block_runs(
    block: str,
    kubernetes: Cluster,
    version: Path,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects, _ = fsspec.core.url_to_fs(bucket)
    objects.makedirs("mlpipeline", exist_ok=True)
    if "cxrflow deploy" in block:
        shutil.copytree(version, tmp_path / "cxrflow-output" / "store" / "cxrflow" / "1")
        kubernetes.found = None
        kubernetes.answers = json.loads((version / "known_answers.json").read_text())
        block = block.replace("--canary 50", "--canary 50 --canary-minutes 0")
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    if not shutil.which("kubectl"):
        block = block.replace("kubectl kustomize", f"{ROOT}/.tools/kustomize build")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with served(Api().serve) as url:
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "KF_PIPELINES_ENDPOINT": url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr


def test_what_needs_a_cluster_is_marked() -> None:
    assert len(BLOCKS) == 5
    assert len(CLUSTER) == 6
    assert PAGE.count("```") == 2 * (len(BLOCKS) + len(CLUSTER))
