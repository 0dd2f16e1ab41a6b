"""The way of the data through object stores: sources, archive, shards, versions, and what serves them."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import httpx
import pandas as pd
import pytest
from tenacity import retry, stop_after_delay, wait_fixed

from components.candidates.evaluate import evaluate
from components.data import span_tables, spans
from components.data.ingest import ingest
from components.data.write_records import write_records
from components.release.deploy import deploy
from core.errors import UserError
from core.locations import location
from serving import store
from tests.e2e import cloud_storage
from tests.e2e.cloud_storage import Faults
from tests.serving.files import v1
from training import data
from training.data import read_manifest


@pytest.fixture(scope="module")
def cloud() -> Iterator[Faults]:
    """A Cloud Storage with the bucket `gs://cxrflow`, and its faults."""
    import socket

    probes = [socket.create_server(("localhost", 0)) for _ in range(2)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    with (
        cloud_storage.running(*ports) as (url, faults),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it would ask Google
        objects, _ = fsspec.core.url_to_fs("gs://cxrflow")
        objects.mkdir("cxrflow")
        yield faults
        type(objects).clear_instance_cache()


@pytest.fixture
def faults(cloud: Faults) -> Iterator[Faults]:
    yield cloud
    cloud.where, cloud.after, cloud.queue, cloud.always = "", 0, [], ""


@pytest.fixture(params=["gs", "s3"])
def place(request: pytest.FixtureRequest, cloud: Faults, bucket: str) -> str:
    return "gs://cxrflow" if request.param == "gs" else bucket


# Copies of what never changes are kept by its place, and outlive the emulators.
ONCE = uuid.uuid4().hex


def put(directory: Path, place: str) -> None:
    objects, path = fsspec.core.url_to_fs(place)
    objects.put(f"{directory}/", f"{path}/", recursive=True)


def test_all_that_a_run_reads_and_leaves_may_lie_in_an_object_store(
    place: str,
    phantom_sources: Path,
    examples: Path,
    records: Path,
    tiny_cnn,
    model: Path,
    audit: Path,
    decision: Path,
    unused_ports: tuple[int, int],
    covid_directory: Path,
    tmp_path: Path,
) -> None:
    put(phantom_sources, f"{place}/data")
    sources = {
        "covid-chestxray": location(f"{place}/data/covid-chestxray-dataset"),
        "kermany": location(f"{place}/data/chest_xray"),
    }
    archive = location(f"{place}/archive")
    ingest(*sources.values(), tmp_path / "examples", archive=archive)
    found, wanted = (
        pd.read_parquet(directory / "examples.parquet")
        for directory in (tmp_path / "examples", examples)
    )
    pd.testing.assert_frame_equal(found, wanted)
    write_records(tmp_path / "examples", sources, tmp_path / "records", archive=archive)
    splits = read_manifest(tmp_path / "records")["splits"]
    assert splits == read_manifest(records)["splits"]
    # As a training reads them.
    training = (read_manifest(tmp_path / "records"), tiny_cnn, ("train",))
    read = list(data.pixels(tmp_path / "records", *training))
    assert len(read) == sum(data.class_counts(*training).values())
    evaluate(model, tmp_path / "records", tmp_path / "evaluation")
    version = deploy(model, tmp_path / "evaluation", audit, decision, f"{place}/{ONCE}", "cxrflow")
    assert version == f"{place}/{ONCE}/cxrflow/1" == store.newest(f"{place}/{ONCE}", "cxrflow")
    image = covid_directory / "images" / "phantom-0000.png"
    answer = served(version, unused_ports, image.read_bytes())
    assert answer["model_version"] == "1"
    (prediction,) = answer["predictions"]
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def served(version: str, ports: tuple[int, int], image: bytes) -> dict:
    """Returns what `cxrflow serve` answers about an image."""
    program = Path(sys.executable).with_name("cxrflow")
    options = ["--port", str(ports[0]), "--grpc-port", str(ports[1])]
    process = subprocess.Popen([program, "serve", version, *options])
    url = f"http://localhost:{ports[0]}"

    @retry(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True)
    def ready() -> None:
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200

    try:
        ready()
        answer = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(image), timeout=30)
        return dict(answer.raise_for_status().json())
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    (tmp_path / "saved_model").mkdir()
    for name in ("saved_model.pb", "variables"):
        (tmp_path / "saved_model" / name).write_bytes(name.encode() * 1000)
    return store.assemble({".": tmp_path / "saved_model"}, tmp_path / "version", "cxr")


def test_an_overloaded_store_is_asked_again(faults: Faults, candidate: Path) -> None:
    faults.queue = ["503", "429", "drop", "503"]
    version = store.publish(candidate, f"gs://cxrflow/{ONCE}/busy")
    assert not faults.queue
    assert store.verified(store.fetched(version))["version"] == "1"


@pytest.mark.parametrize("uploads", range(4))
def test_a_publication_that_is_cut_off_anywhere_does_not_count(
    faults: Faults, candidate: Path, uploads: int
) -> None:
    models = f"gs://cxrflow/{ONCE}/cut-off-after-{uploads}"
    faults.where, faults.after, faults.always = "POST /upload", uploads, "403"
    with pytest.raises(UserError, match=f"{models}/cxr cannot be read or written"):
        store.publish(candidate, models)
    faults.always = ""
    assert store.newest(models, "cxr") is None
    version = store.publish(candidate, models)
    assert store.newest(models, "cxr") == version
    store.verified(store.fetched(version))


@pytest.mark.parametrize("archive", ["gs://cxrflow/locked", "gs://nowhere/archive"])
def test_a_store_that_does_not_let_in_or_is_not_there_is_said(
    faults: Faults,
    covid_directory: Path,
    kermany_directory: Path,
    candidate: Path,
    tmp_path: Path,
    archive: str,
) -> None:
    if "locked" in archive:
        faults.always = "403"
    with pytest.raises(UserError, match=f"{archive}.*Is the bucket there, and may this account"):
        ingest(covid_directory, kermany_directory, tmp_path / "out", archive=location(archive))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="Is the bucket there, and may this account"):
        store.publish(candidate, archive)


def test_of_two_ingests_into_one_store_one_is_told(
    cloud: Faults, covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    archive = location("gs://cxrflow/two")
    ingest(covid_directory, kermany_directory, tmp_path / "one", archive=archive)
    first = spans.newest(archive)
    assert first
    with pytest.raises(UserError, match="another ingest has added span 1"):
        span_tables.commit(archive, first, {})
    assert json.loads((archive / "spans" / "00001.json").read_text())["digest"] == first.digest
