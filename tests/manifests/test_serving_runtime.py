"""The ServingRuntime, started as it says."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import tenacity
import yaml

from tests.serving.files import encoded, v1

ROOT = Path(__file__).parents[2]
RUNTIME = yaml.safe_load((ROOT / "manifests" / "base" / "serving-runtime.yaml").read_text())


@pytest.fixture(scope="session")
def container() -> dict[str, Any]:
    (container,) = RUNTIME["spec"]["containers"]
    return container


@tenacity.retry(stop=tenacity.stop_after_delay(120), wait=tenacity.wait_fixed(0.5))
def ready(url: str, process: subprocess.Popen) -> None:
    assert process.poll() is None
    httpx.get(url).raise_for_status()


def test_what_it_starts_gets_ready_and_answers(
    container: dict[str, Any], version: Path, picture, unused_ports: tuple[int, int]
) -> None:
    port, grpc_port = unused_ports
    replaced = {
        "/mnt/models": str(version),
        "{{.Name}}": "lungs",
        "8080": str(port),
        "8081": str(grpc_port),
    }
    arguments = container["args"]
    for text, instead in replaced.items():
        assert sum(text in argument for argument in arguments) == 1
        arguments = [argument.replace(text, instead) for argument in arguments]
    process = subprocess.Popen([sys.executable, "-m", "serving.server", *arguments])
    try:
        path = container["readinessProbe"]["httpGet"]["path"]
        ready(f"http://localhost:{port}{path}", process)
        answer = httpx.post(
            f"http://localhost:{port}/v1/models/lungs:predict", json=v1(encoded(picture(80, 70)))
        )
        assert answer.raise_for_status().json()["model_name"] == "lungs"
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
