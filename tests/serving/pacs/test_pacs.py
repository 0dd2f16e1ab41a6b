"""The worker beside a PACS: a real Orthanc, the real server, and real kills."""

import base64
import contextlib
import io
import logging
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import data_store
import httpx
import numpy as np
import pydicom
import pytest
import requests
import tenacity
from prometheus_client import REGISTRY, generate_latest
from pydicom.uid import CTImageStorage, generate_uid

from core.errors import UserError
from serving.pacs import Away, dicomweb, endpoint, watermark, worker
from serving.pacs.report import identifiers
from serving.pacs.worker import Waiting, Worker
from tests.serving.files import encoded, v1
from tests.serving.pacs.orthanc import Orthanc, running
from tests.serving.pacs.radiographs import NAME, pixels, radiograph
from tests.serving.pacs.stub import Stub, answering

SR, CAPTURE = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"
# Of pydicom's collection: chests, uncompressed and in JPEG 2000; without pixels; a spine and a shin.
PICTURES = ("RG1_UNCR.dcm", "RG1_J2KI.dcm")
NO_PICTURE = ("chrJapMulti.dcm", "chrKoreanMulti.dcm")
NOT_CHEST = ("6154", "RG3_UNCR.dcm")
SMALL = pixels(0)[::4, ::4]
# All that `radiograph` writes about a patient.
SECRETS = ("Müller", "Jürgen", "4711", "19510203", "A-8899", "Weiß")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("orthanc"), free_port()) as orthanc:
        yield orthanc


@pytest.fixture
def orthanc(pacs: Orthanc) -> Orthanc:
    """The module's Orthanc, without studies."""
    pacs.clear()
    return pacs


@pytest.fixture
def stub() -> Iterator[Stub]:
    with answering() as stub:
        yield stub


@pytest.fixture
def hire(orthanc: Orthanc, tmp_path: Path) -> Callable[..., Worker]:
    """Returns a maker of workers that remember nothing but the watermark, as after a restart."""

    def make(
        url: str, since: date | None = None, session: requests.Session | None = None
    ) -> Worker:
        return Worker(
            pacs=dicomweb.connect(orthanc.dicomweb, session or requests.Session()),
            endpoint=httpx.Client(base_url=url, timeout=60),
            model="cxrflow",
            file=tmp_path / "watermark.json",
            since=since or date.today() - timedelta(1),
            overlap=timedelta(7),
        )

    return make


def stored(orthanc: Orthanc) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(io.BytesIO(content)) for content in orthanc.files()]


def require_answered_once(orthanc: Orthanc, *images: bytes, version: str = "1") -> None:
    """Checks that each image has one report and one capture, and that there is nothing else."""
    expected = [
        uid
        for image in images
        for uid in vars(
            identifiers(pydicom.dcmread(io.BytesIO(image)).SOPInstanceUID, "cxrflow", version)
        ).values()
    ]
    assert sorted(orthanc.answers()) == sorted(expected)


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


# The real server.


def test_an_image_gets_a_report_and_a_capture_in_its_study(
    orthanc: Orthanc, hire, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    values = pixels(1)
    image = radiograph(values)
    study = generate_uid()
    deep = radiograph(
        (255 - values).astype(np.uint16) * 257, study, Modality="CR", PatientOrientation=None,
        PhotometricInterpretation="MONOCHROME1", BodyPartExamined=None, InstanceNumber=None,
        SeriesDescription="Thorax p.a.", ViewPosition="",
    )  # fmt: skip
    others = [
        radiograph(values, study, ViewPosition="LL"),
        radiograph(values, study, BodyPartExamined="HAND"),
        radiograph(values, study, BodyPartExamined="", StudyDescription="Knee"),
        radiograph(values, study, SOPClassUID=CTImageStorage, Modality="CT"),
    ]
    orthanc.upload(image, deep, *others)
    one = hire(url)
    one.round()

    answer = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(encoded(values))).json()
    (prediction,), version = answer["predictions"], answer["model_version"]
    require_answered_once(orthanc, image, deep, version=version)
    sources = {
        read.SOPInstanceUID: read for read in map(pydicom.dcmread, map(io.BytesIO, (image, deep)))
    }
    for made in stored(orthanc):
        require_valid(made, tmp_path)
        source = sources[source_of(made)]
        for name in ("StudyInstanceUID", "PatientName", "PatientID", "PatientBirthDate",
                     "PatientSex", "AccessionNumber", "StudyDate", "ReferringPhysicianName"):  # fmt: skip
            assert made[name].value == source[name].value
        assert made.PatientName == NAME
        if made.SOPClassUID == SR:
            require_said(made, prediction, version, tmp_path)

    for study_of_it in orthanc_studies(orthanc):
        assert set(modalities(orthanc, study_of_it)) >= {"SR", "OT"}
    before = orthanc.files()
    for again in (one, hire(url)):  # whether it remembers or not
        again.round()
    assert sorted(orthanc.files()) == sorted(before)

    told = caplog.text + (tmp_path / "watermark.json").read_text() + generate_latest().decode()
    own = [one.SOPInstanceUID for one in (*sources.values(), *stored(orthanc))]
    for secret in (*SECRETS, *own, study):
        assert secret not in told


def orthanc_studies(orthanc: Orthanc) -> list[str]:
    return httpx.get(f"{orthanc.url}/studies").json()


def modalities(orthanc: Orthanc, study: str) -> list[str]:
    series = httpx.get(f"{orthanc.url}/studies/{study}/series").json()
    return [one["MainDicomTags"]["Modality"] for one in series]


def source_of(made: pydicom.Dataset) -> str:
    if made.SOPClassUID == CAPTURE:
        return made.SourceImageSequence[0].ReferencedSOPInstanceUID
    (evidence,) = made.CurrentRequestedProcedureEvidenceSequence
    (series,) = evidence.ReferencedSeriesSequence
    (image,) = series.ReferencedSOPSequence
    return image.ReferencedSOPInstanceUID


def require_valid(made: pydicom.Dataset, directory: Path) -> None:
    """Checks with a validator that shares no code with ours."""
    file = directory / "made.dcm"
    made.save_as(file)
    checked = subprocess.run(["dciodvfy", file], capture_output=True, text=True, check=False)
    assert "Error" not in checked.stderr + checked.stdout, checked.stderr
    assert {SR: "ComprehensiveSR", CAPTURE: "SCImage"}[made.SOPClassUID] in checked.stderr


def dumped(made: pydicom.Dataset, directory: Path) -> str:
    file = directory / "report.dcm"
    made.save_as(file)
    return subprocess.run(
        ["dsrdump", "--print-long-values", "--print-all-codes", file],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def require_said(
    report: pydicom.Dataset, prediction: dict[str, Any], version: str, directory: Path
) -> None:
    said = dumped(report, directory)
    numbers = dict(re.findall(r'NUM:\(\S+?,99CXRFLOW,"(.*?)"\)="(.*?)"', said))
    score = numbers.pop("Out-of-distribution score; the model abstains above 1")
    assert float(score) == pytest.approx(prediction["ood_score"], rel=1e-2, abs=1e-3)
    if prediction["abstained"]:
        assert not numbers, "the probabilities mean nothing"
        assert '"The model abstains")' in said
    else:
        assert {name.removeprefix("Probability of "): float(share) for name, share in
                numbers.items()} == pytest.approx(prediction["probabilities"], abs=1e-3)  # fmt: skip
        assert f'(label-{prediction["label"]},99CXRFLOW,"{prediction["label"]}")' in said
    assert f'99CXRFLOW,"{prediction["trust"]["verdict"]}")' in said
    assert "; ".join(prediction["trust"]["reasons"]) in said
    assert "Research use only" in said
    assert f'"Algorithm Version")="{version}"' in said


def test_the_servers_heat_map_is_part_of_an_answer_over_v2(url: str) -> None:
    asked = endpoint.picture_alone(pydicom.dcmread(io.BytesIO(radiograph(pixels(2)))))
    assert not any(secret.encode("latin-1") in asked for secret in SECRETS)
    with httpx.Client(base_url=url, timeout=60) as client:
        answer = endpoint.ask(client, "cxrflow", asked)
        assert answer.version == endpoint.served(client, "cxrflow")
    told = httpx.post(
        f"{url}/v1/models/cxrflow:explain", json=v1(encoded(pixels(2))), timeout=60
    ).json()
    (prediction,), (explanation,) = told["predictions"], told["explanations"]
    assert answer.probabilities == pytest.approx(prediction["probabilities"], abs=1e-5)
    assert encoded_as(answer.overlay) == explanation["overlay"]["b64"]
    assert encoded_as(answer.picture) == explanation["picture"]["b64"]


def encoded_as(content: bytes) -> str:
    return base64.b64encode(content).decode()


def find(name: str) -> bytes:
    places = (Path(package.__file__).parent / "data" for package in (pydicom, data_store))
    return next(file for place in places for file in place.rglob(name)).read_bytes()


def test_pydicoms_collection(orthanc: Orthanc, hire, url: str, tmp_path: Path) -> None:
    files = {name: find(name) for name in (*PICTURES, *NO_PICTURE, *NOT_CHEST)}
    orthanc.upload(*files.values())
    unusable = count("cxrflow_pacs_unusable_total", reason="no picture")
    hire(url, date(1990, 1, 1)).round()
    read = [pydicom.dcmread(io.BytesIO(files[name])) for name in PICTURES]
    pictures = {one.SOPInstanceUID: one for one in read}
    made = stored(orthanc)
    assert {source_of(one) for one in made} == pictures.keys()
    assert len(made) == 2 * len(pictures)
    without = count("cxrflow_pacs_unusable_total", reason="no picture") - unusable
    assert without == len(NO_PICTURE)
    for one in made:
        require_valid(one, tmp_path)
        assert one.PatientName == pictures[source_of(one)].PatientName


# A stub, which can be told what to answer.


@contextlib.contextmanager
def killed_at(step: str, after: bool) -> Iterator[None]:
    """Ends the process, as far as a test can do so within its own, when a step is first reached."""
    module, name = {
        "version": (endpoint, "served"),
        "studies": (dicomweb, "studies"),
        "instances": (dicomweb, "instances"),
        "fetch": (dicomweb, "fetch"),
        "ask": (endpoint, "ask"),
        "describe": (worker, "described"),
        "store": (dicomweb, "store"),
        "watermark": (watermark, "write"),
    }[step]
    real = getattr(module, name)

    def ends(*arguments: Any) -> Any:
        if after:
            real(*arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, ends)
        yield


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "step",
    ["version", "studies", "instances", "fetch", "ask", "describe", "store", "watermark"],
)
def test_killed_at_any_step_it_answers_once(
    orthanc: Orthanc, hire, stub: Stub, step: str, after: bool
) -> None:
    image = radiograph(SMALL)
    orthanc.upload(image)
    with killed_at(step, after), pytest.raises(KeyboardInterrupt):
        hire(stub.url).round()
    hire(stub.url).round()
    require_answered_once(orthanc, image)
    asked_twice = (step, after) in {
        ("ask", True),
        ("describe", False),
        ("describe", True),
        ("store", False),
    }
    assert len(stub.asked) == (2 if asked_twice else 1)


@pytest.mark.parametrize("part", [0, 1], ids=["report", "capture"])
def test_what_was_stored_in_part_is_completed(
    orthanc: Orthanc, hire, stub: Stub, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = radiograph(SMALL)
    orthanc.upload(image)
    real = dicomweb.store
    with monkeypatch.context() as patch:
        patch.setattr(dicomweb, "store", lambda pacs, study, made: real(pacs, study, [made[part]]))
        hire(stub.url).round()
    assert len(stored(orthanc)) == 1
    hire(stub.url).round()
    require_answered_once(orthanc, image)


def test_a_worker_notices_what_the_pacs_lost(orthanc: Orthanc, hire, stub: Stub) -> None:
    image = radiograph(SMALL)
    orthanc.upload(image)
    one = hire(stub.url)
    one.round()
    for series in httpx.get(f"{orthanc.url}/series", params={"expand": ""}).json():
        if series["MainDicomTags"]["Modality"] == "OT":
            httpx.delete(f"{orthanc.url}/series/{series['ID']}").raise_for_status()
    one.round()
    require_answered_once(orthanc, image)


def test_what_the_pacs_refuses_is_tried_again(
    orthanc: Orthanc, hire, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, good = radiograph(SMALL), radiograph(SMALL)
    refused = pydicom.dcmread(io.BytesIO(image)).SOPInstanceUID
    orthanc.upload(image, good)
    real = worker.described

    def invalid(source: pydicom.Dataset, answer: endpoint.Answer) -> Any:
        made = real(source, answer)
        if source.SOPInstanceUID == refused:
            del made[1].SOPInstanceUID
        return made

    failed = count("cxrflow_pacs_failed_total", step="store")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "described", invalid)
        with pytest.raises(Waiting):
            hire(stub.url).round()
    assert count("cxrflow_pacs_failed_total", step="store") == failed + 1
    assert not (hire(stub.url).file).exists(), "the watermark stays where it is"
    hire(stub.url).round()
    require_answered_once(orthanc, image, good)


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (400, "instances[0] is several frames: the DICOM file has 9 frames", "several frames"),
        (400, "instances[0] is of Jane Doe: no", "rejected"),
        (413, "too large", "too large"),
    ],
)
def test_an_image_that_cannot_be_read_is_counted_once(
    orthanc: Orthanc, hire, stub: Stub, status: int, error: str, reason: str
) -> None:
    before = count("cxrflow_pacs_unusable_total", reason=reason)
    orthanc.upload(radiograph(SMALL))
    stub.refusal = status, error
    one = hire(stub.url)
    one.round()
    orthanc.upload(radiograph(SMALL))
    one.round()
    assert not stored(orthanc)
    assert len(stub.asked) == 2
    assert count("cxrflow_pacs_unusable_total", reason=reason) == before + 2
    assert watermark.read(one.file) == date.today()


@pytest.mark.parametrize("changes", [{"PatientSex": "unknown"}, {"StudyTime": "quarter past ten"}])
def test_invalid_attributes_of_a_patient_do_not_stop_it(
    orthanc: Orthanc, hire, stub: Stub, changes: dict[str, str]
) -> None:
    with pydicom.config.disable_value_validation():
        image = radiograph(SMALL, **changes)
    good = radiograph(SMALL)
    orthanc.upload(image, good)
    hire(stub.url).round()
    assert {source_of(one) for one in stored(orthanc)} >= {
        pydicom.dcmread(io.BytesIO(good)).SOPInstanceUID
    }


def test_an_error_of_the_endpoint_keeps_one_image_waiting_and_loses_none(
    orthanc: Orthanc, hire, stub: Stub
) -> None:
    image = radiograph(SMALL)
    orthanc.upload(image)
    stub.refusal = 500, "internal error"
    with pytest.raises(Waiting):
        hire(stub.url).round()
    assert count("cxrflow_pacs_waiting") == 1
    stub.refusal = None
    hire(stub.url).round()
    require_answered_once(orthanc, image)
    assert count("cxrflow_pacs_waiting") == 0


def test_the_endpoint_or_the_pacs_away_is_waited_for(orthanc: Orthanc, hire, stub: Stub) -> None:
    image = radiograph(SMALL)
    orthanc.upload(image)
    one = hire(stub.url)
    before = {s: count("cxrflow_pacs_away_total", system=s) for s in ("pacs", "endpoint")}
    stub.refusal = 503, "busy"
    with pytest.raises(Away, match="endpoint: HTTP status 503"):
        one.round()
    stub.refusal = None
    with pytest.raises(Away, match="endpoint: ConnectError"):
        hire(f"http://localhost:{free_port()}").round()
    orthanc.stop()
    with pytest.raises(Away, match="pacs: ConnectionError"):
        one.round()
    orthanc.start()
    one.round()
    require_answered_once(orthanc, image)
    after = {s: count("cxrflow_pacs_away_total", system=s) for s in ("pacs", "endpoint")}
    assert after == {"pacs": before["pacs"] + 1, "endpoint": before["endpoint"] + 2}


def test_a_new_version_answers_once_too_also_during_a_rollout(
    orthanc: Orthanc, hire, stub: Stub
) -> None:
    image = radiograph(SMALL)
    orthanc.upload(image)
    one = hire(stub.url)
    one.round()
    stub.served = "2"
    with pytest.raises(Waiting):  # the canary is announced, the version before answers
        one.round()
    require_answered_once(orthanc, image, version="1")
    stub.version = "2"
    one.round()
    one.round()
    assert len(stub.asked) == 3
    uids = {made.SOPInstanceUID for made in stored(orthanc)}
    assert len(uids) == 4


def test_two_workers_at_once_leave_one_answer(orthanc: Orthanc, hire, stub: Stub) -> None:
    images = [radiograph(SMALL) for _ in range(6)]
    orthanc.upload(*images)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: one.round(), [hire(stub.url), hire(stub.url)]))
    require_answered_once(orthanc, *images)


def test_late_arrivals_and_the_watermark(orthanc: Orthanc, hire, stub: Stub) -> None:
    today = date.today()
    file = hire(stub.url).file
    watermark.write(file, today)
    late, too_late = (
        radiograph(SMALL, StudyDate=f"{today - timedelta(days):%Y%m%d}") for days in (7, 8)
    )
    orthanc.upload(late, too_late)
    hire(stub.url).round()
    require_answered_once(orthanc, late)
    # A worker that was away for long begins where it stopped.
    watermark.write(file, today - timedelta(30))
    hire(stub.url).round()
    require_answered_once(orthanc, late, too_late)
    assert file.read_text() == f'{{\n  "since": "{today}"\n}}\n'
    file.write_text("noise")
    with pytest.raises(UserError, match="is not a watermark"):
        watermark.read(file)


@pytest.mark.parametrize("limit", [2, 7])
def test_all_pages_are_read_whatever_the_limit_of_a_pacs(limit: int) -> None:
    rows = [{"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(5)]

    def search(offset: int) -> list[dict[str, Any]]:
        return rows[offset : offset + limit]

    found = dicomweb._all_pages(search, "StudyInstanceUID")
    assert list(found) == [f"1.2.{number}" for number in range(5)]
    # One that ignores the offset.
    assert len(dicomweb._all_pages(lambda offset: rows[:2], "StudyInstanceUID")) == 2


def test_an_abstention_has_no_probabilities_and_no_heat_map(
    orthanc: Orthanc, hire, stub: Stub, tmp_path: Path
) -> None:
    stub.abstained = True
    orthanc.upload(radiograph(SMALL))
    hire(stub.url).round()
    report, capture = sorted(stored(orthanc), key=lambda one: one.Modality, reverse=True)
    said = dumped(report, tmp_path)
    assert '"The model abstains")' in said
    assert "Probability of" not in said
    picture = capture.pixel_array.astype(int)
    assert np.ptp(picture[:60], axis=-1).max() == 0, "grey alone"


def test_the_heat_map_is_on_the_right_and_nothing_of_the_patient_in_the_picture(
    orthanc: Orthanc, hire, stub: Stub
) -> None:
    for name in (NAME, "Nobody"):
        orthanc.upload(radiograph(SMALL, PatientName=name))
    hire(stub.url).round()
    one, other = (made.pixel_array for made in stored(orthanc) if made.SOPClassUID == CAPTURE)
    assert np.array_equal(one, other)
    red = one[:60].astype(int)
    red = red[..., 0] - red[..., 1]
    middle = one.shape[1] // 2
    assert red[:, :middle].max() == 0
    assert red[:, middle:].max() > 50


def test_a_password_and_a_token(tmp_path: Path, stub: Stub, monkeypatch) -> None:
    from serving.pacs import service

    settings = {"AuthenticationEnabled": True, "RegisteredUsers": {"worker": "secret"}}
    home, port = tmp_path / "orthanc", free_port()
    locked = Orthanc(home, port, **settings)
    monkeypatch.setattr(Orthanc, "_wait", lambda self: opens(self.url))
    locked.start()
    try:
        with pytest.raises(Away, match="HTTP status 401"):
            dicomweb.studies(
                dicomweb.connect(locked.dicomweb, service._session()), date(2020, 1, 1)
            )
        monkeypatch.setenv("CXRFLOW_DICOMWEB_USER", "worker")
        monkeypatch.setenv("CXRFLOW_DICOMWEB_PASSWORD", "secret")
        client = dicomweb.connect(locked.dicomweb, service._session())
        assert dicomweb.studies(client, date(2020, 1, 1)) == []
    finally:
        locked.stop()
    monkeypatch.setenv("CXRFLOW_DICOMWEB_TOKEN", "abc")
    assert service._session().headers["Authorization"] == "Bearer abc"


@tenacity.retry(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.1))
def opens(url: str) -> None:
    httpx.get(url)


# Real processes.


@contextlib.contextmanager
def working(orthanc: Orthanc, stub: Stub, file: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """Yields a worker's process and the port of its metrics."""
    port = free_port()
    process = subprocess.Popen(
        [
            shutil.which("cxrflow", path=str(Path(sys.executable).parent)), "pacs",
            f"--dicomweb={orthanc.dicomweb}", f"--url={stub.url}", f"--watermark={file}",
            "--every=0.2", f"--port={port}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@tenacity.retry(
    stop=tenacity.stop_after_delay(1000),
    wait=tenacity.wait_fixed(0.1),
    retry=tenacity.retry_if_result(lambda number: number is False)
    | tenacity.retry_if_exception_type(httpx.HTTPError),
)
def until(condition: Callable[[], bool]) -> bool:
    return condition()


def number_of(orthanc: Orthanc) -> int:
    return httpx.get(f"{orthanc.url}/statistics").json()["CountInstances"]


def test_500_images_with_workers_killed_and_the_pacs_restarted(
    orthanc: Orthanc, stub: Stub, tmp_path: Path
) -> None:
    images = []
    for _ in range(50):
        study, series = generate_uid(), generate_uid()
        images += [radiograph(SMALL, study, series, InstanceNumber=n) for n in range(1, 11)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(orthanc.upload, images))
    file = tmp_path / "one.json"
    with working(orthanc, stub, file) as (one, _), working(orthanc, stub, tmp_path / "b") as second:
        until(lambda: number_of(orthanc) > 560)
        one.send_signal(signal.SIGKILL)
        one.wait()
        until(lambda: number_of(orthanc) > 700)
        orthanc.stop()
        orthanc.start()
        with working(orthanc, stub, file) as (third, port):
            until(lambda: number_of(orthanc) == 1500)
            done = "cxrflow_pacs_last_round_timestamp_seconds"
            until(lambda: metric(port, done) > 0 and metric(second[1], done) > 0)
            assert metric(port, "cxrflow_pacs_waiting") == 0
            third.terminate()
            assert third.wait(60) == 0
            said = third.stdout.read().decode()
            assert "stopped" in said
            assert not any(secret in said for secret in SECRETS)
        assert metric(second[1], 'cxrflow_pacs_away_total{system="pacs"}') >= 1
    require_answered_once(orthanc, *images)
    assert watermark.read(file) == date.today()


def metric(port: int, name: str) -> float:
    told = httpx.get(f"http://localhost:{port}/metrics").text
    return float(re.findall(rf"^{re.escape(name)} (.*)$", told, re.MULTILINE)[0])
