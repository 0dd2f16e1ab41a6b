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

from components.data.sources import fetch, further, listed
from components.data.sources.further import COLLECTIONS, Further, fetch_further
from core.errors import UserError
from core.progress import Progress
from pipelines import data_cli
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


def test_a_listing_of_a_part_is_an_error(publisher: Publisher, tmp_path: Path) -> None:
    listing = f"/repos/ieee8023/covid-chestxray-dataset/git/trees/{COMMIT}"
    publisher.files[listing] = json.dumps({"tree": [], "truncated": True}).encode()
    with pytest.raises(UserError, match="only a part of the repository's files"):
        get(publisher, tmp_path)


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


FURTHER = {collection.repository.name: collection for collection in COLLECTIONS}
# As published: what there is, and what is said of it.
LAYOUTS: dict[str, dict[str, bytes]] = {
    "covid-cxnet": {
        "metadata.csv": "\ufefffilename,patient_id,sex,age,view,label,location\n"
        "002.png,10,female,68.5,AP,COVID-19,Spain\n003.jpg,10,male,,,,\n".encode(),
        "chest_xray_images/covid19/001.jpeg": IMAGE,
        "chest_xray_images/covid19/002.jpg": IMAGE,
        "chest_xray_images/covid19/003.jpg": IMAGE,
        "checkpoints/model.hdf5": IMAGE,
    },
    "figure1": {
        "metadata.csv": b"patientid,sex,age,finding,view,notes\n"
        b"COVID-00003a,M,50+,COVID-19,AP erect,\x96\nCOVID-00003b,M,early 40s,,,\n"
        b"COVID-00004,F,,No finding,PA,\n",
        "images/COVID-00003a.png": IMAGE,
        "images/COVID-00003b.jpg": IMAGE,
        "images/COVID-00004.jpg": IMAGE,
    },
    "actualmed": {
        "metadata.csv": b"patientid,finding,view,imagename\r\nANON1,No finding,PA,CR.1.2.png\r\n"
        b"ANON2,COVID-19,AP,DX.1.2.png\r\n",
        "images/CR.1.2.png": IMAGE,
        "images/DX.1.2.png": IMAGE,
    },
    "hannover": {
        "data.csv": b"patient_id,image_id,sex,age,projection\n024e,fff1,f,,pa\n",
        "png/fff1.png": IMAGE,
        "nii/fff1.nii": IMAGE,
    },
}
SAID = {
    "covid-cxnet": [
        ("001.jpeg", "covid", "file-001", "", None, None, ""),
        ("002.jpg", "covid", "10", "AP", 68.5, "F", "Spain"),
        ("003.jpg", None, "10", "", None, "M", ""),
    ],
    "figure1": [
        ("COVID-00003a.png", "covid", "covid-00003", "AP", 50, "M", "COVID-00003"),
        ("COVID-00003b.jpg", None, "covid-00003", "", 40, "M", "COVID-00003"),
        ("COVID-00004.jpg", "normal", "covid-00004", "PA", None, "F", "COVID-00004"),
    ],
    "actualmed": [
        ("CR.1.2.png", "normal", "anon1", "PA", None, None, ""),
        ("DX.1.2.png", "covid", "anon2", "AP", None, None, ""),
    ],
    "hannover": [("fff1.png", "covid", "024e", "PA", None, "F", "")],
}


def published_further(publisher: Publisher, collection: Further) -> dict[str, str]:
    """Publishes a collection, and returns the URL path of each of its files."""
    repository, tree, paths = collection.repository, [], {}
    for path, content in LAYOUTS[repository.name].items():
        paths[path] = f"/{repository.path}/{repository.commit}/{path}"
        publisher.files[paths[path]] = content
        sha = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        tree.append({"path": path, "type": "blob", "size": len(content), "sha": sha})
    listing = f"/repos/{repository.path}/git/trees/{repository.commit}"
    publisher.files[listing] = json.dumps({"tree": tree}).encode()
    return paths


@pytest.mark.parametrize("name", FURTHER)
def test_a_further_collection_is_ready_to_be_named_as_a_source(
    publisher: Publisher, tmp_path: Path, name: str
) -> None:
    paths = published_further(publisher, FURTHER[name])
    publisher.faults[next(path for path in paths.values() if path[-3:] != "csv")] = ["drop"]
    file = fetch_further(FURTHER[name], tmp_path, publisher.url, publisher.url)
    assert file == tmp_path / name / "images.csv"
    (source,) = listed.parse([f"{name}={file}"]).values()
    rows = list(listed.read(source, ["PA", "AP"], to_train_on=True))
    told = [
        (Path(r.path).name, r.label, r.patient.partition("/")[2], r.view, r.age, r.sex, r.origin)
        for r in rows
    ]
    assert told == SAID[name]
    assert all((source.directory / row.path).read_bytes() == IMAGE for row in rows)
    assert not {"nii", "checkpoints"} & {path.name for path in (tmp_path / name).iterdir()}
    again = file.read_bytes()
    publisher.files = {path: publisher.files[path] for path in publisher.files if "trees" in path}
    fetch_further(FURTHER[name], tmp_path, publisher.url, publisher.url)
    assert file.read_bytes() == again, "what is there is not fetched again"


@pytest.mark.parametrize("name", FURTHER)
def test_a_further_collection_that_was_changed_is_not_taken(
    publisher: Publisher, tmp_path: Path, name: str
) -> None:
    paths = published_further(publisher, FURTHER[name])
    image = next(path for path in paths.values() if path[-3:] != "csv")
    publisher.faults[image] = ["lie"] * 20
    with pytest.raises(UserError, match=f"{name}: .*checksum does not match") as caught:
        fetch_further(FURTHER[name], tmp_path, publisher.url, publisher.url)
    assert FURTHER[name].repository.where_to_get_it in str(caught.value)
    assert not (tmp_path / name / "images.csv").exists()


def test_the_command_prints_what_to_name_and_every_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    said: list[tuple[str, str]] = []
    monkeypatch.setattr(data_cli, "print_rows", said.extend)
    monkeypatch.setattr(fetch, "fetch_covid", lambda *_: tmp_path / "covid")
    monkeypatch.setattr(fetch, "fetch_kermany", lambda *_: tmp_path / "kermany")

    def record(collection: Further, directory: Path) -> Path:
        fetched.append(collection.repository.name)
        return Path("data", collection.repository.name, "images.csv")

    monkeypatch.setattr(further, "fetch_further", record)
    data_cli.fetch(tmp_path)
    assert [name for name, _ in said] == ["covid", "kermany"]
    said.clear()
    data_cli.fetch(tmp_path, further=True)
    assert fetched == list(FURTHER)
    assert ("covid-cxnet", "covid-cxnet=data/covid-cxnet/images.csv") in said
    assert {collection.licence for collection in COLLECTIONS} <= {value for _, value in said}


def test_the_command_says_what_cannot_be_reached(tmp_path: Path, monkeypatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://localhost:9")
    error = cxrflow("data", "fetch", str(tmp_path), fails=True)
    assert error.startswith("error: covid-chestxray: https://api.github.com/")
    assert error.count("\n") == 1
