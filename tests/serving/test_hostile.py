"""Clients that send what they should not, or stop, or are many: the server says so and goes on."""

import contextlib
import io
import json
import socket
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import numpy as np
import psutil
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from PIL import Image

from serving import local
from serving.local import Server
from tests.serving.files import awaited, dicom, encoded, v1

GOOD = encoded(Image.linear_gradient("L"))


def require_well(url: str) -> None:
    answer = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(GOOD), timeout=60)
    assert answer.status_code == 200


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """Returns a PNG that says it is 40,000 x 40,000."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0))
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(b"\0" * 40_001) for _ in range(200)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("x.png", GOOD)
    return buffer.getvalue()


def moving() -> bytes:
    frames = [Image.new("L", (30, 30), shade) for shade in (0, 90, 200)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"only text", "is not an image: unknown format; expected JPEG, PNG, WEBP or DICOM"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://localhost'/></svg>",
            "not an image",
        ),
        (moving(), "is not an image"),
        (archive(), "is not an image"),
        (bomb(), "is too large: more than 40,000,000 pixels"),
        (encoded(Image.linear_gradient("L"), "JPEG")[:-200], "is corrupt"),
        (encoded(Image.linear_gradient("L"))[:-200], "is corrupt"),
        (dicom(None), "is no picture: the DICOM file has no pixels"),
        (dicom(np.zeros((4, 4), np.uint8), NumberOfFrames=3), "is several frames"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(
    url: str, verb: str, content: bytes, sentence: str
) -> None:
    answer = httpx.post(f"{url}/v1/models/cxrflow:{verb}", json=v1(GOOD, content), timeout=60)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.startswith("instances[1] ")
    assert sentence in error
    assert "\n" not in error


TENSOR = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}


@pytest.mark.parametrize(
    ("verb", "body", "sentence"),
    [
        ("v1/models/cxrflow:predict", b"", "the body is not JSON"),
        ("v1/models/cxrflow:predict", b"{", "the body is not JSON"),
        ("v1/models/cxrflow:predict", b"[" * 100_000, "the body is not JSON"),
        ("v1/models/cxrflow:predict", b'{"instances": [NaN]}', "the body is not JSON"),
        ("v1/models/cxrflow:predict", b'{"instances": 5}', "instances: "),
        ("v1/models/cxrflow:explain", b"null", "the body: "),
        (
            "v1/models/cxrflow:predict",
            v1(*[b"x"] * 1000),
            "the request has 1000 images; the limit is 64",
        ),
        ("v2/models/cxrflow/infer", {"inputs": []}, "inputs: "),
        ("v2/models/cxrflow/infer", {"inputs": [TENSOR]}, "image_bytes has no data"),
        (
            "v2/models/cxrflow/infer",
            {"inputs": [{**TENSOR, "shape": [2], "data": ["eA=="]}]},
            "shape",
        ),
        (
            "v2/models/cxrflow/infer",
            {"inputs": [{**TENSOR, "name": "x", "data": ["eA=="]}]},
            "BYTES",
        ),
        (
            "v2/models/cxrflow/infer",
            b'{"inputs": [{"name": "image_bytes", "shape": [1], "datatype": "FP32", "data": [Infinity]}]}',
            "the body is not JSON",
        ),
        (
            "v2/models/cxrflow/infer",
            {"inputs": [{**TENSOR, "datatype": "FP32", "data": ["1"]}]},
            "of datatype BYTES",
        ),
    ],
)
def test_a_request_that_is_none_is_refused_in_one_sentence(
    url: str, verb: str, body: bytes | dict, sentence: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(f"{url}/{verb}", content=content, timeout=60)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "99999"])
def test_a_wrong_length_of_json_is_refused(url: str, length: str) -> None:
    answer = httpx.post(
        f"{url}/v2/models/cxrflow/infer",
        content=b"{}",
        headers={"Inference-Header-Content-Length": length},
    )
    assert answer.status_code == 400


def test_a_tensor_that_is_cut_off_is_refused(url: str) -> None:
    head = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 9}}]}).encode()
    answer = httpx.post(
        f"{url}/v2/models/cxrflow/infer",
        content=head + b"\xff\xff\0\0short",
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status_code == 400


def test_no_client_can_take_the_model_away(url: str) -> None:
    for verb in ("unload", "load"):
        answer = httpx.post(f"{url}/v2/repository/models/cxrflow/{verb}")
        assert answer.status_code in (404, 405)
    require_well(url)


def test_another_models_name_is_not_found(url: str) -> None:
    assert httpx.post(f"{url}/v1/models/other:predict", json=v1(GOOD)).status_code == 404
    assert httpx.get(f"{url}/v2/models/other").status_code == 404


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_of_200_mb_is_refused_without_being_kept(server: Server, chunked: bool) -> None:
    process = psutil.Process(server.pid)
    before = process.memory_info().rss

    def body():
        for _ in range(200):
            yield b"x" * 1_000_000

    content = body() if chunked else b"x" * 200_000_000
    answer = httpx.post(f"{server.url}/v1/models/cxrflow:predict", content=content, timeout=60)
    assert answer.status_code == 413
    assert "larger than 32 MB" in answer.json()["error"]
    assert process.memory_info().rss - before < 100e6
    require_well(server.url)


def connected(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def head(length: int) -> bytes:
    return (
        "POST /v1/models/cxrflow:predict HTTP/1.1\r\nHost: x\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_a_client_that_goes_away_is_forgotten(url: str) -> None:
    body = json.dumps(v1(*[GOOD] * 30)).encode()
    for sent in (head(len(body)), head(len(body)) + body[:-5], head(len(body)) + body):
        with connected(url) as client:
            client.sendall(sent)
    require_well(url)


@pytest.fixture(scope="module")
def strict(version: Path, tmp_path_factory: pytest.TempPathFactory):
    """A server that bears little."""
    home = tmp_path_factory.mktemp("strict")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "HEADER_SECONDS": "0.5", "BODY_SECONDS": "0.5", "QUEUE": "2", "BODIES_MB": "1",
            "BODY_MB": "0.9", "CONNECTIONS": "8",
        }.items():  # fmt: skip
            patch.setenv(f"CXRFLOW_{name}", value)
        server = local.serve(version, home)
    yield server
    local.stop(home)


def test_a_header_that_never_ends_is_cut_off(strict: Server) -> None:
    with connected(strict.url) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert client.recv(1) == b""
    with connected(strict.url) as idle:
        assert idle.recv(1) == b""


def test_a_body_that_never_ends_is_given_up(strict: Server) -> None:
    with connected(strict.url) as client:
        client.sendall(head(1000) + b"{")
        assert client.recv(12) == b"HTTP/1.1 408"


def test_more_than_may_wait_is_turned_away_at_once(strict: Server) -> None:
    answer = httpx.post(f"{strict.url}/v1/models/cxrflow:predict", json=v1(*[GOOD] * 3), timeout=60)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "busy" in answer.json()["error"]
    require_well(strict.url)


def test_more_than_may_wait_is_turned_away_over_grpc(strict: Server) -> None:
    tensor = InferInput("image_bytes", [3], "BYTES", [GOOD] * 3)

    async def ask() -> None:
        await InferenceGRPCClient(strict.grpc, retries=0).infer(InferRequest("cxrflow", [tensor]))

    with pytest.raises(grpc.RpcError) as caught:
        awaited(ask())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "busy" in caught.value.details()


def test_more_bodies_than_fit_are_turned_away_at_once(strict: Server) -> None:
    with connected(strict.url) as slow:
        slow.sendall(head(800_000) + b"{")
        status = 200
        while status == 200:  # until the slow one's header has been read
            answer = httpx.post(
                f"{strict.url}/v1/models/cxrflow:predict", content=b"x" * 300_000, timeout=60
            )
            status = answer.status_code if answer.status_code != 400 else 200
        assert (status, answer.headers["retry-after"]) == (503, "1")


def test_more_connections_than_may_be_are_turned_away(strict: Server) -> None:
    log = Path(strict.log).read_text()
    for _ in range(50):  # until the idle ones are not cut off meanwhile
        with contextlib.ExitStack() as idle:
            for _ in range(8):
                idle.enter_context(connected(strict.url))
            answer = httpx.get(f"{strict.url}/v2/health/live", timeout=60)
        if answer.status_code != 200:
            break
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "busy" in answer.json()["error"]
    assert Path(strict.log).read_text() == log


def test_200_clients_at_once_are_answered_or_told_to_come_again(server: Server) -> None:
    def ask(_: int) -> int:
        answer = httpx.post(f"{server.url}/v1/models/cxrflow:predict", json=v1(GOOD), timeout=120)
        return answer.status_code

    with ThreadPoolExecutor(200) as pool:
        statuses = list(pool.map(ask, range(200)))
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 100
    require_well(server.url)


# In a process of its own, which does not keep the test from asking.
THIRTY_TWO = """
import sys, threading
import httpx
url, body = sys.argv[1], open(sys.argv[2], "rb").read()
answered = threading.Semaphore(0)

def ask():
    with httpx.Client(timeout=120) as client:
        while True:
            client.post(url, content=body).raise_for_status()
            answered.release()

for _ in range(32):
    threading.Thread(target=ask, daemon=True).start()
for _ in range(32):
    answered.acquire()
print("all", flush=True)
sys.stdin.read()
"""


def test_probes_metrics_and_page_are_answered_while_32_predict(url: str, tmp_path: Path) -> None:
    """In the median in half of the time that a prediction takes there: they do not wait in its queue."""
    body = tmp_path / "body"
    body.write_text(json.dumps(v1(encoded(Image.effect_noise((1000, 1000), 60), "JPEG"))))
    predict = f"{url}/v1/models/cxrflow:predict"
    seconds: dict[str, list[float]] = {"v2/health/live": [], "metrics": [], "": []}
    with subprocess.Popen(
        [sys.executable, "-c", THIRTY_TWO, predict, str(body)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as asking:
        assert asking.stdout
        assert asking.stdout.readline() == "all\n"
        with httpx.Client(timeout=60) as client:
            for _ in range(15):
                for path, taken in seconds.items():
                    began = time.monotonic()
                    client.get(f"{url}/{path}").raise_for_status()
                    taken.append(time.monotonic() - began)
            began = time.monotonic()
            client.post(predict, content=body.read_bytes()).raise_for_status()
            predicting = time.monotonic() - began
        assert asking.poll() is None
        asking.kill()
    for path, taken in seconds.items():
        assert 2 * sorted(taken)[len(taken) // 2] < predicting, f"/{path}: {taken}"


def test_memory_returns_to_its_level(server: Server) -> None:
    process = psutil.Process(server.pid)
    mixed = [
        v1(GOOD), v1(bomb()), v1(b"text"), v1(encoded(Image.effect_noise((1500, 1200), 60), "JPEG")),
        v1(dicom(np.zeros((500, 500), np.uint16), bits=12)),
    ]  # fmt: skip

    def ask(number: int) -> None:
        verb = ("predict", "explain")[number % 2]
        address = f"{server.url}/v1/models/cxrflow:{verb}"
        answer = httpx.post(address, json=mixed[number % len(mixed)], timeout=120)
        assert answer.status_code in (200, 400)

    def rss_after(count: int) -> int:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(count)))
        return process.memory_info().rss

    level = rss_after(150)
    assert rss_after(300) - level < 60e6
    require_well(server.url)


def test_told_to_stop_it_finishes_what_it_accepted(version: Path, tmp_path: Path) -> None:
    server = local.serve(version, tmp_path)
    body = json.dumps(v1(*[encoded(Image.effect_noise((900, 900), 60))] * 12)).encode()
    assert len(body) < 32e6
    with connected(server.url) as client, ThreadPoolExecutor() as pool:
        client.sendall(head(len(body)) + body)
        while (
            'cxrflow_rejected_total{reason="not an image"}'
            not in httpx.get(f"{server.url}/metrics").text
        ):
            httpx.post(f"{server.url}/v1/models/cxrflow:predict", json=v1(b"text"), timeout=60)
        stopping = pool.submit(local.stop, tmp_path)
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        stopping.result()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)
