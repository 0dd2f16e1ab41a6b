"""The ServingRuntime: held against KServe's own schema, and started as it says."""

import subprocess
import sys
from importlib.metadata import version as release
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
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


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a cluster's schema with what a cluster would drop without a word made an error."""
    made = {
        key: strict(value) if isinstance(value, dict) else value for key, value in schema.items()
    }
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        made["additionalProperties"] = False
    return made


def test_it_is_what_kserve_takes(kserve_schemas: Path) -> None:
    crd = yaml.safe_load((kserve_schemas / "serving.kserve.io_servingruntimes.yaml").read_text())
    (served,) = [one for one in crd["spec"]["versions"] if one["name"] == "v1alpha1"]
    schema = strict(served["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {}
    errors = [
        f"{'/'.join(map(str, error.instance_path))}: {error.message}"
        for error in jsonschema_rs.validator_for(schema).iter_errors(RUNTIME)
    ]
    assert not errors


def test_it_keeps_to_the_restricted_pod_security_standard(container: dict[str, Any]) -> None:
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["runAsNonRoot"]
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["readOnlyRootFilesystem"]
    assert set(container["resources"]) == {"requests", "limits"}


def test_its_image_is_this_release(container: dict[str, Any]) -> None:
    assert container["image"] == f"cxrflow-serving:{release('cxrflow')}"


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
