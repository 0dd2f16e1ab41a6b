"""A server of a tiny model, as the pipeline deploys one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import gate
from components.deploy import deploy
from serving import local


@pytest.fixture(scope="session")
def decision(evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gate's, without thresholds: the tiny model has learnt little."""
    file = tmp_path_factory.mktemp("gate") / "decision"
    gate.gate([evaluation], {"default": 0.0}, file)
    assert json.loads(file.read_text())["winner"] == "cnn-dubey"
    return file


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("server")
    yield directory
    local.stop(directory)


@pytest.fixture(scope="session")
def version(model: Path, decision: Path, home: Path) -> Path:
    return deploy(model, decision, home / "store", "cxrflow", home)


@pytest.fixture
def server(version: Path, home: Path) -> local.Server:
    running = local.running(home)
    assert running
    return running


@pytest.fixture
def url(server: local.Server) -> str:
    return server.url
