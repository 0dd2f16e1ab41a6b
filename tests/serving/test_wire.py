"""What other clients than Python's send: bytes on a socket, and what comes back."""

import gzip
import json
import socket
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as services
from PIL import Image

from serving.local import Server
from tests.serving.files import encoded, v1

GOOD = json.dumps(v1(encoded(Image.linear_gradient("L")))).encode()
PREDICT = "v1/models/cxrflow:predict"
# As Java's HttpClient sends it with its first request.
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
CLOSE = "Connection: close\r\n"


def request(
    *headers: str, method: str = "POST", path: str = PREDICT, version: str = "1.1"
) -> bytes:
    return f"{method} /{path} HTTP/{version}\r\nHost: x\r\n{''.join(headers)}\r\n".encode()


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}\r\n"


def statuses(url: str, *parts: bytes) -> list[int]:
    """Returns the status of each answer to what is sent, in parts that the server reads one by one."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            client.sendall(part)
        answer = b""
        while received := client.recv(65536):
            answer += received
    lines = answer.replace(b"HTTP/1.1 ", b"\nHTTP/1.1 ").splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith(b"HTTP/1.1 ")]


def test_an_offer_of_http_2_is_ignored_and_the_body_is_read(url: str) -> None:
    offer = request(H2C, CLOSE, length(GOOD)) + GOOD
    assert statuses(url, offer) == [200]
    assert statuses(url, *(offer[i : i + 50] for i in range(0, len(offer), 50))) == [200]


def test_an_offer_does_not_touch_the_requests_before_and_after_it(url: str) -> None:
    plain = request(length(GOOD)) + GOOD
    offer = request(H2C, length(GOOD)) + GOOD
    last = request(H2C, CLOSE, length(GOOD)) + GOOD
    assert statuses(url, plain + offer + plain + offer + last) == [200] * 5


def test_an_offer_comes_with_whatever_a_request_may_have(url: str) -> None:
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    chunked = request(H2C, CLOSE, "Transfer-Encoding: chunked\r\n") + chunks
    assert statuses(url, chunked) == [200]
    waiting = request(H2C, CLOSE, "Expect: 100-continue\r\n", length(GOOD))
    assert statuses(url, waiting, GOOD) == [100, 200]
    assert statuses(url, request(H2C, length(GOOD), version="1.0") + GOOD) == [200]
    packed = gzip.compress(GOOD)
    header = request(H2C, CLOSE, "Content-Encoding: gzip\r\n", length(packed))
    assert statuses(url, header + packed) == [200]
    websocket = "Connection: upgrade\r\nConnection: close\r\nUpgrade: websocket\r\n"
    assert statuses(url, request(websocket, method="GET", path="v2/health/live")) == [200]


@pytest.mark.parametrize(
    "sent",
    [
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        request("Content-Length: x\r\n"),
    ],
)
def test_what_is_not_http_is_refused_and_counted_and_not_logged(
    server: Server, sent: bytes
) -> None:
    def count() -> float:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        name = 'cxrflow_rejected_total{reason="not HTTP"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before, log = count(), Path(server.log).read_text()
    assert statuses(server.url, sent) == [400]
    assert count() == before + 1
    assert Path(server.log).read_text() == log


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(GOOD)),
        ("X-GZIP", gzip.compress(GOOD)),
        ("gzip", gzip.compress(GOOD[:20]) + gzip.compress(GOOD[20:])),
        ("deflate", zlib.compress(GOOD)),
        ("identity", GOOD),
    ],
)
def test_a_compressed_body_is_read(url: str, encoding: str, packed: bytes) -> None:
    headers = {"Content-Encoding": encoding}
    for content in (packed, iter([packed[:9], packed[9:]])):
        answer = httpx.post(f"{url}/{PREDICT}", content=content, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text


def test_a_compressed_body_of_v2_is_read_with_its_length_of_json(url: str) -> None:
    """Triton's clients give the length of the JSON before compression."""
    image = encoded(Image.linear_gradient("L"))
    size = 4 + len(image)
    tensor = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
    answer = httpx.post(
        f"{url}/v2/models/cxrflow/infer",
        content=zlib.compress(head + len(image).to_bytes(4, "little") + image),
        headers={
            "Content-Encoding": "deflate", "Inference-Header-Content-Length": str(len(head)),
        },
        timeout=60,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("encoding", "body", "status", "words"),
    [
        ("br", GOOD, 415, "Content-Encoding br is not supported"),
        ("gzip, gzip", GOOD, 415, "compressed once with gzip or deflate"),
        ("gzip", GOOD, 400, "the body is not gzip"),
        ("deflate", GOOD, 400, "the body is not deflate"),
        ("gzip", gzip.compress(GOOD)[:-1], 400, "the body is not gzip"),
        ("gzip", gzip.compress(GOOD) + b"more", 400, "the body is not gzip"),
        ("gzip", b"", 400, "the body is not gzip"),
        ("gzip", gzip.compress(bytes(200_000_000)), 413, "the body is larger than 32 MB"),
    ],
)
def test_a_compressed_body_that_cannot_be_read_is_refused(
    url: str, encoding: str, body: bytes, status: int, words: str
) -> None:
    answer = httpx.post(
        f"{url}/{PREDICT}", content=body, headers={"Content-Encoding": encoding}, timeout=60
    )
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert answer.headers.get("accept-encoding") == ("gzip, deflate" if status == 415 else None)


@pytest.mark.parametrize("said", ["application/json; charset=utf-8", "text/plain;charset=latin1"])
def test_json_is_read_whatever_charset_is_said(url: str, said: str) -> None:
    answer = httpx.post(f"{url}/{PREDICT}", content=GOOD, headers={"Content-Type": said})
    assert answer.status_code == 200


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000])
def test_a_length_of_json_that_python_takes_for_digits_is_refused(url: str, length: str) -> None:
    header = request(
        CLOSE, f"Inference-Header-Content-Length: {length}\r\n", "Content-Length: 2\r\n",
        path="v2/models/cxrflow/infer",
    )  # fmt: skip
    assert statuses(url, header.decode().encode("latin-1") + b"{}") == [400]


@pytest.mark.parametrize(
    "path", ["", "metrics", "model", "v2", "v2/health/live", "v2/health/ready", "v1/models/cxrflow"]
)
def test_head_answers_as_get_does_without_a_body(url: str, path: str) -> None:
    answer = httpx.head(f"{url}/{path}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_get_may_have_a_body(url: str) -> None:
    header = request(CLOSE, length(GOOD), method="GET", path="v2/health/live")
    assert statuses(url, header + GOOD) == [200]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", PREDICT, "POST"),
        ("PUT", PREDICT, "POST"),
        ("GET", "v1/models/cxrflow:explain", "POST"),
        ("GET", "v2/models/cxrflow/infer", "POST"),
        ("DELETE", "v2/models/cxrflow", "GET, HEAD"),
        ("POST", "v1/models/cxrflow", "GET, HEAD"),
        ("POST", "v2/health/live", "GET, HEAD"),
        ("OPTIONS", PREDICT, "POST"),
    ],
)
def test_another_method_is_told_which_is_allowed(
    url: str, method: str, path: str, allowed: str
) -> None:
    answer = httpx.request(method, f"{url}/{path}")
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json() == {"error": f"this path supports {allowed}"}


@pytest.mark.parametrize("path", ["nothing", "v1/models/cxrflow:train", "page/nothing.js"])
def test_a_path_that_is_not_there_is_told_as_every_error_is(url: str, path: str) -> None:
    answer = httpx.get(f"{url}/{path}")
    assert answer.status_code == 404
    assert "unknown path" in answer.json()["error"]


V2_BODY = {
    "inputs": [
        {
            "name": "image_bytes", "shape": [1], "datatype": "BYTES",
            "data": [json.loads(GOOD)["instances"][0]["image_bytes"]["b64"]],
        }
    ]
}  # fmt: skip


def test_the_version_that_the_metadata_names_answers(url: str) -> None:
    told = httpx.get(f"{url}/v2/models/cxrflow").json()
    (version,) = told["versions"]
    there = f"{url}/v2/models/cxrflow/versions/{version}"
    assert httpx.get(there).json() == told
    assert httpx.get(f"{there}/ready").json() == {"name": "cxrflow", "ready": True}
    answer = httpx.post(f"{there}/infer", json=V2_BODY, timeout=60).raise_for_status().json()
    assert answer["model_version"] == version


def test_another_version_is_not_found(url: str) -> None:
    there = f"{url}/v2/models/cxrflow/versions/99"
    for answer in (
        httpx.get(there), httpx.get(f"{there}/ready"), httpx.post(f"{there}/infer", json=V2_BODY),
    ):  # fmt: skip
        assert answer.status_code == 404
        assert "version 99 of cxrflow is not being served; version " in answer.json()["error"]


def test_the_server_names_no_extension_that_it_has_not(server: Server) -> None:
    assert httpx.get(f"{server.url}/v2").json()["extensions"] == ["binary_tensor_data"]
    with grpc.insecure_channel(server.grpc) as channel:
        told = services.GRPCInferenceServiceStub(channel).ServerMetadata(
            messages.ServerMetadataRequest()
        )
    assert list(told.extensions) == ["binary_tensor_data"]


def test_grpc_knows_versions_as_http_does(server: Server) -> None:
    version = httpx.get(f"{server.url}/model").json()["version"]
    with grpc.insecure_channel(server.grpc) as channel:
        stub = services.GRPCInferenceServiceStub(channel)
        told = stub.ModelMetadata(messages.ModelMetadataRequest(name="cxrflow", version=version))
        assert list(told.versions) == [version]
        assert told.platform == "tensorflow_savedmodel"
        assert stub.ModelReady(messages.ModelReadyRequest(name="cxrflow", version=version)).ready
        tensor = messages.ModelInferRequest.InferInputTensor(
            name="image_bytes", datatype="BYTES", shape=[1]
        )
        tensor.contents.bytes_contents.append(encoded(Image.linear_gradient("L")))
        for ask, asked in (
            (stub.ModelMetadata, messages.ModelMetadataRequest(name="cxrflow", version="99")),
            (stub.ModelReady, messages.ModelReadyRequest(name="cxrflow", version="99")),
            (
                stub.ModelInfer,
                messages.ModelInferRequest(
                    model_name="cxrflow", model_version="99", inputs=[tensor]
                ),
            ),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                ask(asked)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            assert "version 99" in caught.value.details()


def test_refusals_over_grpc_leave_nothing_in_the_log(server: Server) -> None:
    log = Path(server.log).read_text()
    with grpc.insecure_channel(server.grpc) as channel:
        stub = services.GRPCInferenceServiceStub(channel)
        raw = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for ask, asked, code in (
            (
                stub.RepositoryModelUnload,
                messages.RepositoryModelUnloadRequest(model_name="cxrflow"),
                grpc.StatusCode.UNIMPLEMENTED,
            ),
            (
                stub.RepositoryModelLoad,
                messages.RepositoryModelLoadRequest(model_name="cxrflow"),
                grpc.StatusCode.UNIMPLEMENTED,
            ),
            (
                stub.ModelReady,
                messages.ModelReadyRequest(name="other"),
                grpc.StatusCode.NOT_FOUND,
            ),
            (
                stub.ModelInfer,
                messages.ModelInferRequest(model_name="cxrflow"),
                grpc.StatusCode.INVALID_ARGUMENT,
            ),
            (raw, b"\xff\xff\xff", grpc.StatusCode.UNKNOWN),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                ask(asked)
            assert caught.value.code() == code
        # Answered after whatever the calls before have left to do.
        assert stub.ServerLive(messages.ServerLiveRequest()).live
    assert Path(server.log).read_text() == log
