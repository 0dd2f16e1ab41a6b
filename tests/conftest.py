"""What tests share: phantoms, what comes of them step by step, and where the real X-rays are."""

import dataclasses
import fcntl
import functools
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from core.imports import uncollected

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A process of tests for each core: more threads would only get in each other's way.
    for threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(threads, "1")

# Where tests are run in the background interrupts are ignored, which every process would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
# httpx reads all certificates for every request, which takes longer than many a request.
httpx._transports.default.create_ssl_context = functools.cache(httpx.create_ssl_context)

Make = Callable[[Path], object]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Imports all tests, and with them TensorFlow, without looking for garbage."""
    with uncollected():
        return (yield)


REAL_DATA, KSERVE_SCHEMAS = "CXRFLOW_REAL_DATA", "CXRFLOW_KSERVE_SCHEMAS"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Make], Path]:
    """Returns a maker of directories that all processes of a test run share: the first to ask makes one."""
    home = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        home = home.parent
    home = home / "shared"
    home.mkdir(exist_ok=True)

    def once(name: str, make: Make) -> Path:
        directory, made = home / name, home / f"{name}.made"
        with (home / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(directory, ignore_errors=True)
                make(directory)
                made.touch()
        return directory

    return once


@pytest.fixture(scope="session")
def phantom_sources(shared) -> Path:
    from components.data import phantoms

    return shared("phantoms", lambda directory: phantoms.write(directory, patients=14))


@pytest.fixture(scope="session")
def covid_directory(phantom_sources: Path) -> Path:
    return phantom_sources / "covid-chestxray-dataset"


@pytest.fixture(scope="session")
def kermany_directory(phantom_sources: Path) -> Path:
    return phantom_sources / "chest_xray"


@pytest.fixture(scope="session")
def examples(shared, covid_directory: Path, kermany_directory: Path) -> Path:
    from components.data.ingest import ingest

    return shared(
        "examples", lambda directory: ingest(covid_directory, kermany_directory, directory)
    )


@pytest.fixture(scope="session")
def directories(covid_directory: Path, kermany_directory: Path) -> dict[str, Path]:
    return {"covid-chestxray": covid_directory, "kermany": kermany_directory}


@pytest.fixture(scope="session")
def records(shared, examples: Path, directories: dict[str, Path]) -> Path:
    from components.data.write_records import write_records

    return shared("records", lambda directory: write_records(examples, directories, directory))


@pytest.fixture(scope="session")
def tiny_cnn():
    """`cnn-dubey`, made quick."""
    from training.recipes import recipe_named

    return dataclasses.replace(recipe_named("cnn-dubey"), input_size=(40, 40), epochs=2, batch=8)


@pytest.fixture(scope="session")
def model(shared, tiny_cnn, records: Path) -> Path:
    from components.candidates.train import train

    def make(directory: Path) -> None:
        train(
            tiny_cnn, records, directory / "model", directory / "checkpoints", precision="float32"
        )

    return shared("trained", make) / "model"


@pytest.fixture(scope="session")
def evaluation(shared, model: Path, records: Path) -> Path:
    from components.candidates.evaluate import evaluate

    return shared("evaluation", lambda directory: evaluate(model, records, directory))


@pytest.fixture(scope="session")
def lungs(shared, covid_directory: Path, examples: Path, records: Path) -> Path:
    from components.trust.find_lungs import find_lungs

    def make(directory: Path) -> None:
        kept = directory / "kept"
        find_lungs(covid_directory, examples, records, directory / "lungs", kept=kept)

    return shared("segmenter", make) / "lungs"


@pytest.fixture(scope="session")
def audit(shared, model: Path, records: Path, examples: Path, lungs: Path) -> Path:
    from components.trust.audit import audit

    return shared("audit", lambda directory: audit(model, records, examples, lungs, directory))


@pytest.fixture(scope="session")
def validation(shared, examples: Path, directories: dict[str, Path]) -> Path:
    from components.data.validate import validate

    return shared("validation", lambda output: validate(examples, output, directories=directories))


# Of a module: its event loop would be in the way of tests that have one of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)))
    with sync_playwright() as playwright:
        # A test of our own files needs no sandbox, which containers do not allow.
        browser = playwright.chromium.launch(executable_path=executable, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """Returns a maker of smooth grey pictures, uint8 [height, width], another for every seed."""

    def make(height: int, width: int, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        waves = sum(
            random.uniform(0.3, 1) * np.sin(random.uniform(1, 9) * x + random.uniform(1, 9) * y)
            for _ in range(6)
        )
        scaled = (waves - waves.min()) / max(np.ptp(waves), 1e-9)
        return (scaled * 255).astype(np.uint8)

    return make


def real_x_rays() -> Path | None:
    """Returns the directory of real X-rays: `covid-chestxray-dataset` and `chest_xray`; or None."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    directory = Path(os.environ.get(REAL_DATA, beside))
    there = (directory / "covid-chestxray-dataset" / "metadata.csv").is_file()
    return directory if there else None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """See `real_x_rays`."""
    directory = real_x_rays()
    if not directory:
        _missing(f"no real X-rays: let {REAL_DATA} name them")
    return directory


@pytest.fixture(scope="session")
def decision(shared, evaluation: Path, audit: Path) -> Path:
    """The gate's, without thresholds: the tiny model has learnt little."""
    from components.trust import gate

    def make(directory: Path) -> None:
        gate.gate([evaluation], {"default": 0.0}, directory / "decision", audits=[audit])

    file = shared("decided", make) / "decision"
    assert json.loads(file.read_text())["winner"] == "cnn-dubey"
    return file


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from serving import local

    directory = tmp_path_factory.mktemp("server")
    yield directory
    local.stop(directory)


@pytest.fixture(scope="session")
def published(shared, model: Path, evaluation: Path, audit: Path, decision: Path) -> Path:
    """A model store with one version of `cxrflow`, to be read."""
    from components.release.deploy import deploy

    def make(directory: Path) -> None:
        deploy(model, evaluation, audit, decision, str(directory), "cxrflow")

    return shared("store", make)


@pytest.fixture(scope="session")
def version(published: Path, home: Path) -> Path:
    """A published version, in a store of this process's own, served at `home`."""
    from serving import local

    shutil.copytree(published, home / "store", symlinks=True)
    served = home / "store" / "cxrflow" / "1"
    local.serve(served, home)
    return served


@pytest.fixture
def server(version: Path, home: Path):
    """The running server of a tiny model, as the pipeline deploys one: a `serving.local.Server`."""
    from serving import local

    running = local.running(home)
    assert running
    return running


@pytest.fixture
def url(server) -> str:
    return server.url


@pytest.fixture
def unused_ports() -> tuple[int, int]:
    """Returns ports that nobody listens on."""
    probes = [socket.socket(), socket.socket()]
    for probe in probes:
        probe.bind(("localhost", 0))
    one, other = (probe.getsockname()[1] for probe in probes)
    for probe in probes:
        probe.close()
    return one, other


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The URL of a bucket of a server that speaks S3."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://localhost:{server.get_host_and_port()[1]}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        objects, _ = fsspec.core.url_to_fs("s3://cxrflow")
        objects.mkdir("cxrflow")
        yield "s3://cxrflow"
        type(objects).clear_instance_cache()
    server.stop()


@pytest.fixture
def kubernetes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator:
    """A `tests.serving.cluster.Cluster` that the kubeconfig names; version 2 is served, 3 a canary."""
    import yaml

    from serving.cluster import known_answers
    from serving.cluster.inference_service import InferenceService
    from serving.cluster.reconcile import agreed
    from serving.cluster.state import SERVED, State, load, save
    from tests.serving.cluster.played import TEMPLATE, Cluster, connected, release, running

    monkeypatch.setattr(known_answers, "SLOWEST_SECONDS", 600)  # however busy this machine is
    cluster = Cluster(template=yaml.safe_load(TEMPLATE.read_text()), token="secret")
    with running(cluster) as url:
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
        outcome = {"version": "2", "decided": release(2).decided, "outcome": SERVED}
        service = InferenceService("cxrflow", "cxrflow", connected(url, "secret"))
        save(service, State(stable=release(2), outcome=outcome))
        agreed(service, cluster.template, 0)
        stored = load(service)
        assert stored
        save(service, dataclasses.replace(stored, candidate=release(3), percent=10, whole=2))
        agreed(service, cluster.template, 0)
        yield cluster


@pytest.fixture(scope="session")
def kserve_schemas() -> Path:
    """The directory of KServe's CustomResourceDefinitions."""
    beside = Path(__file__).parents[2] / "shared" / "crds"
    directory = Path(os.environ.get(KSERVE_SCHEMAS, beside))
    if not directory.is_dir():
        _missing(f"no schemas of KServe in {directory}: let {KSERVE_SCHEMAS} name them")
    return directory


@pytest.fixture(scope="session")
def trainer_schemas() -> Path:
    """The directory of Kubeflow Trainer's CustomResourceDefinitions."""
    directory = Path(__file__).parents[1] / ".tools" / "trainer-schemas"
    if not directory.is_dir():
        _missing("no schemas of Kubeflow Trainer: `make trainer` fetches them")
    return directory


@pytest.fixture(scope="session")
def monitoring_schemas() -> Path:
    """The directory of the Prometheus operator's CustomResourceDefinitions."""
    directory = Path(__file__).parents[1] / ".tools" / "monitoring-schemas"
    if not directory.is_dir():
        _missing("no schemas of the Prometheus operator: `make prometheus` generates them")
    return directory


@pytest.fixture(scope="session")
def prometheus_program() -> Callable[[str], str]:
    """Returns a finder of Prometheus' programs, `prometheus` and `promtool`."""

    def found(name: str) -> str:
        unpacked = Path(__file__).parents[1] / ".tools" / "prometheus"
        program = shutil.which(name) or shutil.which(name, path=str(unpacked))
        if not program:
            _missing(f"no {name}: `make prometheus` fetches it")
        assert program
        return program

    return found


def _missing(message: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
