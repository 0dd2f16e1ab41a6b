import functools
import itertools
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import fsspec
import pytest

from core.errors import UserError
from serving import store

Make: TypeAlias = Callable[..., Path]


@pytest.fixture
def candidate(tmp_path: Path) -> Make:
    """Makes a version that is not published yet, another for every text."""
    numbers = itertools.count()

    def make(graph: str = "graph") -> Path:
        home = tmp_path / f"made-{next(numbers)}"
        saved_model, card = home / "saved_model", home / "model.json"
        (saved_model / "variables").mkdir(parents=True)
        (saved_model / "saved_model.pb").write_text(graph)
        card.write_text("{}")
        return store.assemble({".": saved_model, "model.json": card}, home / "version", "cxr")

    return make


@pytest.fixture
def publish(candidate: Make, tmp_path: Path) -> Make:
    """Publishes a version into a directory."""
    return lambda graph="graph": Path(store.publish(candidate(graph), str(tmp_path / "store")))


def test_a_version_is_what_tensorflow_serving_expects(publish: Make, tmp_path: Path) -> None:
    version = publish()
    assert version == tmp_path / "store" / "cxr" / "1"
    assert (version / "saved_model.pb").read_text() == "graph"
    assert (version / "variables").is_dir()
    assert (version / "model.json").is_file()
    assert (tmp_path / "store" / "cxr" / "latest").readlink() == Path("1")


def test_versions_are_counted_and_never_overwritten(publish: Make, tmp_path: Path) -> None:
    first, second = publish(), publish("another")
    assert second.name == "2"
    assert (first / "saved_model.pb").read_text() == "graph"
    assert (tmp_path / "store" / "cxr" / "latest").readlink() == Path("2")


def test_the_same_is_published_once(publish: Make, tmp_path: Path) -> None:
    first = publish()
    publish("another")
    link = tmp_path / "store" / "cxr" / "latest"
    assert publish() == first
    assert link.readlink() == Path("2")
    link.unlink()  # as if killed before it was made
    assert publish("another").name == "2"
    assert link.readlink() == Path("2")


def test_publishers_at_once_get_versions_of_their_own(candidate: Make, tmp_path: Path) -> None:
    made = [candidate(str(number)) for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(functools.partial(store.publish, store=str(tmp_path / "s")), made))
    assert sorted(int(store.number_of(version)) for version in versions) == list(range(1, 17))
    assert (tmp_path / "s" / "cxr" / "latest").readlink() == Path("16")


def test_the_same_published_twice_at_once_is_one_version(candidate: Make, tmp_path: Path) -> None:
    made = candidate("same")
    with ThreadPoolExecutor(4) as pool:
        versions = {*pool.map(lambda _: store.publish(made, str(tmp_path / "s")), range(4))}
    assert [Path(version).name for version in versions] == ["1"]


def test_a_slow_publisher_does_not_move_latest_back(
    publish: Make, candidate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look for the newest version and its move of `latest`, another one publishes."""
    symlink_to, others = Path.symlink_to, [candidate("other")]

    def slow(link: Path, *arguments: object, **named: object) -> None:
        if others:
            store.publish(others.pop(), str(tmp_path / "store"))
        symlink_to(link, *arguments, **named)

    monkeypatch.setattr(Path, "symlink_to", slow)
    assert publish().name == "1"
    assert not others
    assert (tmp_path / "store" / "cxr" / "latest").readlink() == Path("2")


def test_a_publication_that_fails_leaves_nothing(
    publish: Make, candidate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(shutil, "copytree", full)
    home = tmp_path / "store" / "cxr"
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text('{"model": "cxr", "files": {}}')
    with pytest.raises(OSError, match="no space left"):
        store.publish(other, str(home.parent))
    assert sorted(entry.name for entry in home.iterdir()) == ["1", "latest"]


def test_a_version_is_found_from_itself_and_from_where_all_are(
    publish: Make, tmp_path: Path
) -> None:
    publish()
    version = publish("another")
    assert store.version_in(version) == version
    assert store.version_in(version.parent) == version
    with pytest.raises(UserError, match="holds no published model"):
        store.version_in(tmp_path / "store")


def test_what_was_published_is_verified(publish: Make) -> None:
    version = publish()
    manifest = store.verified(version)
    assert (manifest["model"], manifest["version"]) == ("cxr", "1")
    assert set(manifest["files"]) == {"model.json", "saved_model.pb"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("saved_model.pb", "grapH", "saved_model.pb is damaged"),
        ("model.json", None, "model.json is missing"),
        ("manifest.json", "{", "manifest.json is damaged"),
        ("manifest.json", "[]", "manifest.json is damaged"),
    ],
)
def test_a_damaged_version_is_refused_with_what_is_damaged(
    publish: Make, name: str, content: str | None, words: str
) -> None:
    version = publish()
    if content is None:
        (version / name).unlink()
    else:
        (version / name).write_text(content)
    with pytest.raises(UserError, match=words):
        store.verified(version)


def test_an_object_store_has_the_same_versions(
    candidate: Make, bucket: str, tmp_path: Path
) -> None:
    first = store.publish(candidate(), f"{bucket}/models/")
    assert first == f"{bucket}/models/cxr/1"
    assert store.publish(candidate("another"), f"{bucket}/models") == f"{bucket}/models/cxr/2"
    assert store.publish(candidate(), f"{bucket}/models") == first
    objects, path = fsspec.core.url_to_fs(first)
    objects.get(path, str(tmp_path / "fetched"), recursive=True)
    assert store.verified(tmp_path / "fetched")["version"] == "1"
    assert (tmp_path / "fetched" / "saved_model.pb").read_text() == "graph"


def test_a_copy_of_an_object_stores_version_that_is_damaged_is_fetched_again(
    candidate: Make, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    version = store.publish(candidate(), f"{bucket}/copies")
    copy = store.fetched(version)
    (copy / "saved_model.pb").unlink()
    assert store.fetched(version) == copy
    assert (copy / "saved_model.pb").read_text() == "graph"
    objects, path = fsspec.core.url_to_fs(version)
    objects.pipe_file(f"{path}/saved_model.pb", b"grapH")
    (copy / "saved_model.pb").unlink()
    with pytest.raises(UserError, match=rf"^{version}: saved_model.pb is damaged"):
        store.fetched(version)


def test_publishers_to_an_object_store_at_once_get_versions_of_their_own(
    candidate: Make, bucket: str
) -> None:
    made = [candidate(str(number)) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(functools.partial(store.publish, store=f"{bucket}/many"), made))
    assert sorted(int(store.number_of(version)) for version in versions) == list(range(1, 7))


def test_a_publication_that_is_cut_off_does_not_count(
    candidate: Make, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, _ = fsspec.core.url_to_fs(bucket)
    with monkeypatch.context() as patch:

        def cut(*_: object) -> None:
            raise ConnectionResetError("cut off")

        patch.setattr(objects, "put_file", cut)
        with pytest.raises(
            UserError, match=r"s3://cxrflow/cut/cxr cannot be read or written: cut off"
        ):
            store.publish(candidate(), f"{bucket}/cut")
    assert not objects.glob("cxrflow/cut/cxr/*/manifest.json")
    assert store.publish(candidate(), f"{bucket}/cut") == f"{bucket}/cut/cxr/2"


def test_a_bucket_that_is_not_there_is_said(candidate: Make, bucket: str) -> None:
    with pytest.raises(UserError, match="s3://nowhere/models/cxr cannot be read or written"):
        store.publish(candidate(), "s3://nowhere/models")
