"""The model server over HTTP, as its clients see it: started, asked, replaced and stopped."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from components.release.deploy import deploy
from components.trust import gate
from core.errors import UserError
from serving import client, local, ports
from tests.pipelines.cli import cxrflow


def test_what_is_deployed_can_be_explained(version: Path, model: Path) -> None:
    assert json.loads((version / "decision.json").read_text())["winner"] == "cnn-dubey"
    assert (version / "model.json").read_bytes() == (model / "model.json").read_bytes()


def test_it_answers_as_evaluation_did(url: str, evaluation: Path, directories) -> None:
    predictions = pd.read_parquet(evaluation / "predictions.parquet").head(4)
    files = [
        directories[source] / path
        for source, path in (identity.split("/", 1) for identity in predictions["id"])
    ]
    answers = [client.predict(file, url) for file in files]
    assert [answer["label"] for answer in answers] == predictions["predicted"].tolist()
    for name in ("normal", "covid"):
        served = [answer["probabilities"][name] for answer in answers]
        assert np.allclose(served, predictions[name], atol=1e-5)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_every_kind_of_image_is_answered(url: str, picture, tmp_path: Path) -> None:
    grey = Image.fromarray(picture(80, 60))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    files = []
    for image, kind in (
        (grey, "JPEG"),
        (grey, "WEBP"),
        (grey.convert("CMYK"), "JPEG"),
        (grey.convert("RGBA"), "PNG"),
        (deep, "PNG"),
    ):
        files.append(tmp_path / f"{len(files)}.img")
        files[-1].write_bytes(encoded(image, kind))
    answers = [client.predict(file, url) for file in files]
    assert all(np.isclose(sum(answer["probabilities"].values()), 1) for answer in answers)


def refused(url: str, **request) -> str:
    answer = httpx.post(f"{url}/v1/models/cxrflow:predict", timeout=60, **request)
    assert answer.status_code == 400
    return answer.json()["error"]


GREY = encoded(Image.linear_gradient("L"), "PNG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html>", "is not an image"),
        (encoded(Image.linear_gradient("L"), "JPEG")[:-200], "is corrupt"),
        (encoded(Image.new("1", (10_000, 10_000)), "PNG"), "is too large"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    url: str, content: bytes, reason: str
) -> None:
    instances = [{"image_bytes": {"b64": base64.b64encode(c).decode()}} for c in (GREY, content)]
    error = refused(url, json={"instances": instances})
    assert f"instances[1] {reason}" in error


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"instances": []},
        {"instances": [{"image": "x"}]},
        {"instances": [{"image_bytes": {"b64": 5}}]},
        {"instances": [None]},
    ],
)
def test_a_request_that_is_none_is_refused_with_what_it_should_be(url: str, body: dict) -> None:
    assert "image_bytes" in refused(url, json=body)


def test_what_is_no_base64_is_refused(url: str) -> None:
    body = {"instances": [{"image_bytes": {"b64": "not base64!"}}]}
    assert "instances[0] is not base64" in refused(url, json=body)


def test_json_is_read_whatever_the_content_type(url: str) -> None:
    """curl's --data says that it sends a form."""
    body = {"instances": [{"image_bytes": {"b64": base64.b64encode(GREY).decode()}}]}
    answer = httpx.post(
        f"{url}/v1/models/cxrflow:predict",
        content=json.dumps(body),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 200


def test_a_new_version_is_swapped_in_without_a_failed_request(
    url: str, model: Path, evaluation: Path, audit: Path, home: Path, tmp_path: Path
) -> None:
    before = local.running(home)
    decision = tmp_path / "decision"
    # With another gate, or it is the same version.
    gate.gate([evaluation], {"default": 0.0, "covid": 0.0}, decision, audits=[audit])
    content = base64.b64encode(encoded(Image.linear_gradient("L"), "PNG")).decode()
    body = {"instances": [{"image_bytes": {"b64": content}}]}
    versions: list[str] = []
    swapped = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as asking:
            while not (swapped.is_set() and versions[-1:] == [version.name]):
                answer = asking.post(f"{url}/v1/models/cxrflow:predict", json=body)
                versions.append(answer.raise_for_status().json()["model_version"])

    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask)
        while not versions and not asked.done():
            pass
        models = str(home / "store")
        version = Path(deploy(model, evaluation, audit, decision, models, "cxrflow", server=home))
        swapped.set()
        asked.result()
    assert versions == sorted(versions, key=int)
    assert versions[0] != versions[-1] == version.name
    assert local.running(home) == before
    assert httpx.get(f"{url}/model").json()["refused"] is None
    # A run whose version was superseded meanwhile is not kept waiting for it.
    assert local.serve(version.with_name(versions[0]), home) == before


def test_a_damaged_version_is_refused_and_the_one_before_goes_on(
    url: str, version: Path, home: Path
) -> None:
    served = httpx.get(f"{url}/model").json()["version"]
    damaged = version.parent / "99"
    shutil.copytree(version, damaged)
    (damaged / "variables" / "variables.index").write_bytes(b"noise")
    latest = version.parent / "latest"
    before = latest.readlink()
    latest.unlink()
    latest.symlink_to("99")
    with pytest.raises(UserError, match=r"variables.index is damaged.*is still served"):
        local.serve(damaged, home)
    latest.unlink()
    latest.symlink_to(before)
    shutil.rmtree(damaged)
    assert httpx.get(f"{url}/model").json()["version"] == served


def test_what_is_no_model_does_not_start_and_leaves_the_server_before(
    url: str, home: Path, tmp_path: Path
) -> None:
    before = local.running(home)
    with pytest.raises(UserError, match=r"did not start: .*holds no published model"):
        local.serve(tmp_path / "store" / "cxrflow" / "1", home)
    assert local.running(home) == before


def test_stopped_it_is_gone_and_a_client_says_so(
    version: Path, decision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image.png"
    Image.linear_gradient("L").save(image)
    # A hospital's proxy is not asked about this machine.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    started = local.serve(version, tmp_path / "server")
    assert client.predict(image, started.url)["probabilities"]
    # As an earlier release has written it.
    file = tmp_path / "server" / "server.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "started": 1.0}))
    server = local.stop(tmp_path / "server")
    assert server == started
    assert local.running(tmp_path / "server") is None
    assert local.stop(tmp_path / "server") is None
    with pytest.raises(client.NoServer, match="no answer from"):
        client.predict(image, server.url)
    error = cxrflow("predict", str(image), str(image), "--url", server.url, fails=True)
    assert error.count("no answer from") == 1


def test_a_process_that_has_the_id_of_a_server_that_is_gone_is_let_be(tmp_path: Path) -> None:
    told = {"url": "", "grpc": "", "model": "/store/cxrflow", "log": "", "pid": os.getpid()}
    (tmp_path / "server.json").write_text(json.dumps(told))
    assert local.running(tmp_path) is None
    assert local.stop(tmp_path) is None


def test_each_file_gets_its_answer_or_its_own_error(url: str, tmp_path: Path) -> None:
    good, text, gone, other = (tmp_path / name for name in ("1.png", "2.png", "3.png", "4.png"))
    for file in (good, other):
        file.write_bytes(GREY)
    text.write_text("only text")
    command = [str(Path(sys.executable).with_name("cxrflow")), "predict", "--url", url]
    done = subprocess.run(
        [*command, *map(str, (good, text, gone, other))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    answers = [line for line in done.stdout.splitlines() if str(tmp_path) in line]
    assert [line.split()[0] for line in answers] == [str(good), str(other)]
    assert done.stderr.splitlines() == [
        f"error: {text}: is not an image: unknown format; expected JPEG, PNG, WEBP or DICOM",
        f"error: {gone}: cannot be read: No such file or directory",
    ]


def test_where_another_server_answers_the_file_is_not_at_fault(url: str, tmp_path: Path) -> None:
    image = tmp_path / "1.png"
    image.write_bytes(GREY)
    with pytest.raises(UserError, match="answers 404: Model with name other does not exist"):
        client.predict(image, url, "other")


def test_of_two_that_start_at_once_each_gets_a_port(
    version: Path, server: local.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, seen_free = ports.free, iter([int(server.url.rpartition(":")[2])])
    monkeypatch.setattr(ports, "free", lambda wanted: next(seen_free, None) or free(wanted))
    other = local.serve(version, tmp_path)
    try:
        assert other.url != server.url
        assert local.running(tmp_path) == other
    finally:
        local.stop(tmp_path)


def test_where_the_system_does_not_tell_whose_a_port_is_who_answers_is_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(*_: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "connections", denied)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert local._listens(process, 1)
        process.communicate(b"\n")
