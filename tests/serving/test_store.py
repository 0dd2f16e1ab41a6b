from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.errors import UserError
from serving import store


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Path]:
    saved_model, card = tmp_path / "saved_model", tmp_path / "model.json"
    (saved_model / "variables").mkdir(parents=True)
    (saved_model / "saved_model.pb").write_text("graph")
    card.write_text("{}")
    return {".": saved_model, "model.json": card}


def test_a_version_is_what_tensorflow_serving_expects(made, tmp_path: Path) -> None:
    version = store.publish(made, tmp_path / "store", "cxr")
    assert version == tmp_path / "store" / "cxr" / "1"
    assert (version / "saved_model.pb").read_text() == "graph"
    assert (version / "variables").is_dir()
    assert (version / "model.json").is_file()
    assert (tmp_path / "store" / "cxr" / "latest").readlink() == Path("1")


def test_versions_are_counted_and_never_overwritten(made, tmp_path: Path) -> None:
    first = store.publish(made, tmp_path / "store", "cxr")
    (made["."] / "saved_model.pb").write_text("another")
    second = store.publish(made, tmp_path / "store", "cxr")
    assert second.name == "2"
    assert (first / "saved_model.pb").read_text() == "graph"
    assert (tmp_path / "store" / "cxr" / "latest").readlink() == Path("2")


def test_publishers_at_once_get_versions_of_their_own(made, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(store.publish, made, tmp_path / "s", "cxr") for _ in range(16)]
    assert sorted(int(future.result().name) for future in futures) == list(range(1, 17))
    assert (tmp_path / "s" / "cxr" / "latest").readlink() == Path("16")


def test_a_publication_that_fails_leaves_nothing(made, tmp_path: Path) -> None:
    store.publish(made, tmp_path / "store", "cxr")
    with pytest.raises(FileNotFoundError):
        store.publish({**made, "gone": tmp_path / "gone"}, tmp_path / "store", "cxr")
    home = tmp_path / "store" / "cxr"
    assert sorted(entry.name for entry in home.iterdir()) == ["1", "latest"]


def test_a_version_is_found_from_itself_and_from_where_all_are(made, tmp_path: Path) -> None:
    store.publish(made, tmp_path / "store", "cxr")
    version = store.publish(made, tmp_path / "store", "cxr")
    assert store.version_in(version) == version
    assert store.version_in(version.parent) == version
    with pytest.raises(UserError, match="holds no published model"):
        store.version_in(tmp_path / "store")


def test_what_was_published_is_verified(made, tmp_path: Path) -> None:
    version = store.publish(made, tmp_path / "store", "cxr")
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
    made, tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    version = store.publish(made, tmp_path / "store", "cxr")
    if content is None:
        (version / name).unlink()
    else:
        (version / name).write_text(content)
    with pytest.raises(UserError, match=words):
        store.verified(version)
