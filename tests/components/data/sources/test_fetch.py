"""Against a server on this machine that drops connections, refuses and lies."""

import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tenacity import wait_none

from components.data.sources import fetch
from core.errors import UserError
from core.progress import Progress
from tests.pipelines.cli import cxrflow

COMMIT = "f" * 40
IMAGE = bytes(range(256)) * 2000


class Publisher:
    """Files by URL path, and what goes wrong with the next requests for one: faults, by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = {}
        self.ranges: list[str] = []
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        content = self.files.get(path)
        faults = self.faults.get(path, [])
        fault = faults.pop(0) if faults else ""
        if fault.isdigit() or content is None:
            request.send_error(int(fault or 404))
            return
        start = int((re.findall(r"\d+", request.headers.get("Range", "")) or ["0"])[0])
        if start:
            self.ranges.append(request.headers["Range"])
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        if fault == "drop":
            request.wfile.write(content[start : (start + len(content)) // 2])
            request.wfile.flush()
            request.connection.close()
        else:
            request.wfile.write(content[:0:-1] + b"?" if fault == "lie" else content[start:])


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    publisher = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            publisher.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    for function in (fetch.download, fetch._answer):
        monkeypatch.setattr(function.retry, "wait", wait_none())
    server = ThreadingHTTPServer(("localhost", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    publisher.url = f"http://localhost:{server.server_port}"
    yield publisher
    server.shutdown()
    server.server_close()


@pytest.fixture
def covid(publisher: Publisher) -> dict[str, bytes]:
    files = {"metadata.csv": b"a,b\n", "images/one.png": IMAGE, "README.md": b"not wanted"}
    tree = [{"path": "images", "type": "tree", "sha": "0" * 40}]
    for path, content in files.items():
        publisher.files[f"/ieee8023/covid-chestxray-dataset/{COMMIT}/{path}"] = content
        sha = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        tree.append({"path": path, "type": "blob", "size": len(content), "sha": sha})
    listing = f"/repos/ieee8023/covid-chestxray-dataset/git/trees/{COMMIT}"
    publisher.files[listing] = json.dumps({"tree": tree}).encode()
    return files


def get(publisher: Publisher, directory: Path) -> Path:
    return fetch.fetch_covid(directory, COMMIT, publisher.url, publisher.url)


def there(directory: Path) -> dict[str, bytes]:
    return {
        file.relative_to(directory).as_posix(): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


ONE = f"/ieee8023/covid-chestxray-dataset/{COMMIT}/images/one.png"


@pytest.mark.parametrize("faults", [[], ["drop", "drop"], ["lie"], ["503", "429"], ["drop", "lie"]])
def test_the_dataset_comes_whole_whatever_the_network_does(
    publisher: Publisher, covid: dict[str, bytes], tmp_path: Path, faults: list[str]
) -> None:
    publisher.faults[ONE] = list(faults)
    directory = get(publisher, tmp_path)
    assert there(directory) == {name: covid[name] for name in ("metadata.csv", "images/one.png")}
    assert bool(publisher.ranges) == ("drop" in faults)  # it goes on, it does not begin anew


def test_what_is_there_is_not_fetched_again_and_what_was_changed_is(
    publisher: Publisher, covid: dict[str, bytes], tmp_path: Path
) -> None:
    directory = get(publisher, tmp_path)
    publisher.faults[ONE] = ["404"]
    get(publisher, tmp_path)
    assert publisher.faults[ONE] == ["404"]  # nobody asked
    publisher.faults[ONE] = []
    (directory / "images/one.png").write_bytes(IMAGE[:-1])
    get(publisher, tmp_path)
    assert (directory / "images/one.png").read_bytes() == IMAGE


def test_megabytes_are_counted_once_whatever_the_network_does(
    publisher: Publisher,
    covid: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Counted(Progress):
        def __init__(self, what: str, total: float, done: float, figures: object) -> None:
            super().__init__(what, total, done=done)
            self.sum = done
            started.append(done)
            counted.append(self)

        def advance(self, number: float = 1) -> None:
            self.sum += number

    started: list[float] = []
    counted: list[Counted] = []
    monkeypatch.setattr(fetch, "Progress", Counted)
    publisher.faults[ONE] = ["drop", "lie"]
    get(publisher, tmp_path)
    get(publisher, tmp_path)
    megabytes = (len(IMAGE) + len(covid["metadata.csv"])) / 1e6
    assert started == [0, pytest.approx(megabytes)], "what is there is not fetched again"
    assert [one.sum for one in counted] == [pytest.approx(megabytes)] * 2


@pytest.mark.parametrize(("fault", "why"), [("lie", "checksum does not match"), ("403", "403")])
def test_what_cannot_be_had_is_named_and_not_there(
    publisher: Publisher, covid: dict[str, bytes], tmp_path: Path, fault: str, why: str
) -> None:
    publisher.faults[ONE] = [fault] * 20
    with pytest.raises(UserError, match=why) as caught:
        get(publisher, tmp_path)
    assert "one.png cannot be downloaded" in str(caught.value)
    assert "https://github.com/ieee8023/covid-chestxray-dataset" in str(caught.value)
    assert "images/one.png" not in there(tmp_path / "covid-chestxray-dataset")


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("chest_xray/train/NORMAL/IM-0001-0001.jpeg", IMAGE)
        packed.writestr("chest_xray/train/.DS_Store", b"macOS")
        packed.writestr("__MACOSX/chest_xray/._train", b"macOS")
    return buffer.getvalue()


def published(publisher: Publisher, content: bytes) -> None:
    details = {
        "download_url": f"{publisher.url}/zip",
        "size": len(content),
        "sha256_hash": hashlib.sha256(content).hexdigest(),
    }
    listing = [{"filename": "ChestXRay2017.zip", "content_details": details}]
    publisher.files["/public-api/datasets/rscbjbr9sj/files"] = json.dumps(listing).encode()
    publisher.files["/zip"] = content


def test_kermanys_archive_is_unpacked_without_what_does_not_belong(
    publisher: Publisher, tmp_path: Path
) -> None:
    published(publisher, archive())
    publisher.faults["/zip"] = ["drop"]
    directory = fetch.fetch_kermany(tmp_path, publisher.url)
    assert there(tmp_path) == {"chest_xray/train/NORMAL/IM-0001-0001.jpeg": IMAGE}
    publisher.files.clear()
    assert fetch.fetch_kermany(tmp_path, publisher.url) == directory


def test_an_archive_that_was_got_by_hand_is_taken(publisher: Publisher, tmp_path: Path) -> None:
    content = archive()
    published(publisher, content)
    publisher.faults["/zip"] = ["403"] * 20
    with pytest.raises(UserError, match="put it there by hand"):
        fetch.fetch_kermany(tmp_path, publisher.url)
    (tmp_path / "ChestXRay2017.zip").write_bytes(content)
    assert fetch.fetch_kermany(tmp_path, publisher.url).is_dir()


def test_the_command_says_what_cannot_be_reached(tmp_path: Path, monkeypatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://localhost:9")
    error = cxrflow("data", "fetch", str(tmp_path), fails=True)
    assert error.startswith("error: covid-chestxray: https://api.github.com/")
    assert error.count("\n") == 1
