"""The built images, each asked to do its work: run by `make images-test`."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from importlib.metadata import version as release
from pathlib import Path

import httpx
import pytest
import tenacity

from tests.serving.files import dicom, v1

BUILD = Path(__file__).parents[2] / "build"
TARGETS = ("data", "training", "serving", "pacs")
USER = 10001

STATISTICS = """
from importlib.metadata import version
from pathlib import Path
from components.data.validate import validate
assert version("tensorflow-data-validation") == "1.21.0"
validate(Path("/examples"), Path("/made/validation"))
"""
EPOCH = """
import dataclasses
from pathlib import Path
from components.candidates.train import train
from training.recipes import recipe_named
recipe = dataclasses.replace(recipe_named("cnn-dubey"), input_size=(40, 40), epochs=1)
train(recipe, Path("/records"), Path("/made/model"), Path("/made/checkpoints"), precision="float32")
"""


def buildah(*arguments: str) -> str:
    return subprocess.check_output(["buildah", *arguments], text=True).strip()


@contextlib.contextmanager
def container(target: str) -> Iterator[str]:
    name = buildah("from", "--pull-never", f"localhost/cxrflow-{target}:{release('cxrflow')}")
    try:
        yield name
    finally:
        buildah("rm", name)


def command(name: str, volumes: dict[Path, str], *program: str) -> list[str]:
    mounted = [
        option for here, there in volumes.items() for option in ("--volume", f"{here}:{there}")
    ]
    return ["buildah", "run", "--isolation", "chroot", *mounted, name, "--", *program]


def run(target: str, volumes: dict[Path, str], *program: str) -> str:
    with container(target) as name:
        done = subprocess.run(
            command(name, volumes, *program), capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def made() -> Iterator[Path]:
    """A directory that the images' user may write to."""
    directory = Path(f"/tmp/cxrflow-images-{os.getpid()}")
    directory.mkdir()
    os.chown(directory, USER, USER)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def readable(tmp_path: Path):
    """Returns a function that copies a directory to where the images' user may read it."""
    copies = []

    def copy(directory: Path) -> Path:
        there = Path(f"/tmp/cxrflow-images-{os.getpid()}-{len(copies)}")
        copies.append(there)
        shutil.copytree(directory, there)
        subprocess.check_call(["chmod", "-R", "a+rX", str(there)])
        return there

    yield copy
    for there in copies:
        shutil.rmtree(there)


def test_the_data_image_computes_statistics(examples: Path, readable, made: Path) -> None:
    volumes = {readable(examples): "/examples", made: "/made"}
    run("data", volumes, "python", "-c", STATISTICS)
    assert (made / "validation" / "train" / "FeatureStats.pb").stat().st_size
    assert json.loads((made / "validation" / "anomalies.json").read_text()) is not None


def test_the_training_image_trains_an_epoch(records: Path, readable, made: Path) -> None:
    run("training", {readable(records): "/records", made: "/made"}, "python", "-c", EPOCH)
    assert json.loads((made / "model" / "model.json").read_text())["recipe"]["epochs"] == 1


@tenacity.retry(stop=tenacity.stop_after_delay(120), wait=tenacity.wait_fixed(0.5))
def ready(url: str) -> None:
    httpx.get(f"{url}/v2/health/ready").raise_for_status()


def test_the_serving_image_answers(version: Path, readable, picture) -> None:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            ports.append(probe.getsockname()[1])
    with container("serving") as name:
        told = json.loads(buildah("inspect", name))["OCIv1"]["config"]
        program = [
            *told["Entrypoint"],
            *told["Cmd"],
            f"--port={ports[0]}",
            f"--grpc-port={ports[1]}",
        ]
        server = subprocess.Popen(command(name, {readable(version): "/mnt/models"}, *program))
        try:
            url = f"http://localhost:{ports[0]}"
            ready(url)
            answer = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(dicom(picture(80, 70))))
            (prediction,) = answer.raise_for_status().json()["predictions"]
            assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert httpx.get(url).text.startswith("<!doctype html>")
        finally:
            subprocess.run(["pkill", "-f", f"port={ports[0]}"], check=False)
            server.wait(60)


def test_the_pacs_image_starts_and_stops() -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    away = ["--dicomweb=http://localhost:1/dicom-web", "--url=http://localhost:1"]
    with container("pacs") as name:
        told = json.loads(buildah("inspect", name))["OCIv1"]["config"]
        program = [*told["Entrypoint"], *away, f"--port={port}", "--watermark=/tmp/watermark.json"]
        worker = subprocess.Popen(command(name, {}, *program))
        try:
            waits_for_endpoint(port)
        finally:
            subprocess.run(["pkill", "-TERM", "-f", f"port={port}"], check=False)
            worker.wait(60)


@tenacity.retry(stop=tenacity.stop_after_delay(120), wait=tenacity.wait_fixed(0.5))
def waits_for_endpoint(port: int) -> None:
    metrics = httpx.get(f"http://localhost:{port}/metrics").text
    assert 'cxrflow_pacs_away_total{system="endpoint"}' in metrics


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_nobody_and_has_no_tools_to_build_with(target: str) -> None:
    said = run(target, {}, "sh", "-c", "id -u; command -v gcc g++ cc pip uv || true")
    assert said.split() == [str(USER)]


@pytest.mark.parametrize(
    ("target", "lacks", "has"),
    [
        (
            "data",
            ["kserve"],
            ["components.trust.gate", "components.data.ingest", "components.release.report"],
        ),
        (
            "training",
            ["apache_beam", "kserve"],
            [
                "components.trust.audit",
                "components.candidates.evaluate",
                "components.candidates.reproduce",
                "components.candidates.train_job",
                "components.candidates.train_node",
            ],
        ),
        (
            "serving",
            ["apache_beam", "tensorflow_data_validation"],
            ["components.candidates.champion", "components.release.deploy"],
        ),
        ("pacs", ["kfp", "kserve", "tensorflow"], ["pipelines.cli", "serving.pacs.service"]),
    ],
)
def test_an_image_has_what_its_steps_need_and_no_more(
    target: str, lacks: list[str], has: list[str]
) -> None:
    code = f"""
import importlib, importlib.util
if {target != "pacs"}:
    import kfp.dsl.executor_main
for name in {has}:
    importlib.import_module(name)
print([name for name in {lacks} if importlib.util.find_spec(name)])
"""
    assert run(target, {}, "python3", "-c", code).strip() == "[]"


def test_sample_data_is_drawn_as_the_job_on_a_cluster_does() -> None:
    command = "python -m pipelines sample-data /tmp/.drawn --patients 10 && ls /tmp/.drawn"
    assert "chest_xray" in run("data", {}, "sh", "-c", command)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_says_what_is_in_it(target: str) -> None:
    with container(target) as name:
        labels = json.loads(buildah("inspect", name))["OCIv1"]["config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == release("cxrflow")
    bill = json.loads((BUILD / f"cxrflow-{target}.cdx.json").read_text())
    packages = {one["name"]: one["version"] for one in bill["components"]}
    names = ["highdicom", "pydicom"] if target == "pacs" else ["tensorflow", "kfp"]
    code = f"import importlib.metadata as m; print(*map(m.version, {names}))"
    installed = run(target, {}, "python", "-c", code).split()
    assert installed == [packages[name] for name in names]
