"""A server that follows `latest` beside a store or a machine that fails now and then."""

import asyncio
import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import tensorflow as tf

from core.artifacts import Verdict
from core.errors import UserError
from serving import model as serving_model
from serving import store
from serving.limits import Limits
from serving.model import ChestXrayModel
from serving.version import Version, may_pass


def wrapped(error: Exception) -> UserError:
    """Returns an error as `Version` raises it."""
    try:
        raise UserError("the version cannot be read") from error
    except UserError as made:
        return made


PASSING = [
    OSError(errno.EIO, "input/output error"),
    wrapped(OSError(errno.ESTALE, "stale file handle")),
    wrapped(tf.errors.UnavailableError(None, None, "the bucket is away")),
    tf.errors.ResourceExhaustedError(None, None, "out of memory"),
    MemoryError(),
]
FINAL = [
    UserError("saved_model.pb is damaged"),
    wrapped(FileNotFoundError(errno.ENOENT, "no such file")),
    wrapped(OSError("SavedModel file does not exist")),
    wrapped(tf.errors.DataLossError(None, None, "checksum")),
    wrapped(KeyError("recipe")),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass(error: Exception) -> None:
    assert may_pass(error)


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_what_stays(error: Exception) -> None:
    assert not may_pass(error)


class Loaded:
    """Stands for a version that is loaded."""

    classes: tuple[str, ...] = ()
    expected: ClassVar[dict[str, float]] = {}

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.about = {"version": directory.name, "trust": {"verdict": Verdict.TRUSTED}}

    def retire(self) -> None:
        pass


class Looks:
    """Lets a server look for a new version, as often as a test says, on a clock of its own."""

    def __init__(self, model: ChestXrayModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.now = model, 0.0
        self.fails: list[Exception] = []
        self.loads: list[float] = []
        monkeypatch.setattr(serving_model.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(serving_model, "Version", self.load)

    def load(self, directory: Path) -> Loaded:
        self.loads.append(self.now)
        if self.fails:
            raise self.fails.pop(0)
        return Loaded(directory)

    def look(self, seconds: int) -> None:
        async def follow() -> None:
            looks = 0

            async def sleep(_: float) -> None:
                nonlocal looks
                looks += 1
                self.now += 1
                if looks > seconds:
                    raise asyncio.CancelledError

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(asyncio, "sleep", sleep)
                with pytest.raises(asyncio.CancelledError):
                    await self.model.follow()

        asyncio.run(follow())

    def versions(self) -> tuple[str, str | None, str | None]:
        """Returns the version that is served, the one that is refused and the one that is delayed."""
        about = self.model.about()
        refused, delayed = (
            about[name] and about[name]["version"] for name in ("refused", "delayed")
        )
        return about["version"], refused, delayed


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str) -> Path:
        file = tmp_path / f"{text}.txt"
        file.write_text(text)
        made = store.assemble({"model.txt": file}, tmp_path / f"made-{text}", "cxr")
        return Path(store.publish(made, str(tmp_path / "store")))

    return make


@pytest.fixture
def looks(
    publish: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Looks]:
    publish("first")
    model = ChestXrayModel("cxr", tmp_path / "store" / "cxr", Limits())
    looks = Looks(model, monkeypatch)
    model.load()
    looks.loads.clear()
    yield looks
    model._decoders.shutdown()


def test_a_version_that_may_be_loaded_later_is_tried_less_and_less_often_until_it_is(
    looks: Looks, publish: Callable[[str], Path]
) -> None:
    publish("second")
    looks.fails = [OSError(errno.EIO, "input/output error") for _ in range(10)]
    looks.look(1)
    assert looks.versions() == ("1", None, "2")
    looks.look(2000)
    assert looks.versions() == ("2", None, None)
    pauses = [after - before for before, after in zip(looks.loads, looks.loads[1:], strict=False)]
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_version_that_stays_as_it_is_is_refused_until_there_is_another(
    looks: Looks, publish: Callable[[str], Path]
) -> None:
    publish("second")
    looks.fails = [UserError("model.txt is damaged")]
    looks.look(1000)
    assert looks.versions() == ("1", "2", None)
    assert len(looks.loads) == 1
    publish("third")
    looks.look(1)
    assert looks.versions() == ("3", None, None)


def test_another_version_does_not_wait_for_the_one_that_failed(
    looks: Looks, publish: Callable[[str], Path]
) -> None:
    publish("second")
    looks.fails = [OSError(errno.EIO, "input/output error") for _ in range(4)]
    looks.look(10)
    assert looks.versions() == ("1", None, "2")
    publish("third")
    looks.fails = [OSError(errno.EIO, "input/output error")]
    looks.loads.clear()
    looks.look(1)
    looks.look(2)
    assert looks.versions() == ("3", None, None)
    assert len(looks.loads) == 2


def test_a_disk_that_fails_is_nothing_that_stays(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Version` says otherwise of what it cannot read, but keeps the reason."""

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(json, "loads", failing)
    with pytest.raises((UserError, OSError)) as caught:
        Version(version)
    assert may_pass(caught.value)
