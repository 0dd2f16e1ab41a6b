import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest

from components.data.facts import inspect
from serving import feature_log, metrics
from serving.feature_log import FeatureLog
from tests.serving.files import v1


@pytest.fixture
def logging_server(
    version: Path, tmp_path: Path, unused_ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, subprocess.Popen]]:
    monkeypatch.setenv("CXRFLOW_FEATURE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("CXRFLOW_FEATURE_SHARE", "1")
    port, grpc_port = unused_ports
    command = [str(Path(sys.executable).with_name("cxrflow")), "serve", str(version)]
    process = subprocess.Popen([*command, "--port", str(port), "--grpc-port", str(grpc_port)])
    url = f"http://localhost:{port}"
    for _ in range(600):
        try:
            if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                break
        except httpx.TransportError:
            with pytest.raises(subprocess.TimeoutExpired):  # it must not have ended
                process.wait(0.1)
    yield url, process
    process.kill()


def test_what_is_served_is_described_as_ingest_describes_it_and_by_nothing_else(
    logging_server: tuple[str, subprocess.Popen], covid_directory: Path, tmp_path: Path
) -> None:
    url, process = logging_server
    files = sorted((covid_directory / "images").glob("phantom-000[0-5].*"))
    for file in files:
        httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(file.read_bytes()), timeout=30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, -signal.SIGTERM)
    (written,) = (tmp_path / "log").glob("*.jsonl")
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert len(rows) == len(files)
    for row, file in zip(rows, files, strict=True):
        facts = inspect(file.read_bytes())
        assert set(row) == {
            "day", "version", "label", "width", "height", "mode", "brightness", "contrast", "frame"
        }  # fmt: skip
        assert (row["width"], row["height"], row["mode"]) == (facts.width, facts.height, facts.mode)
        for name in ("brightness", "contrast", "frame"):
            # Of the 40 x 40 pixels that this small model is shown, not of the file's.
            assert row[name] == pytest.approx(getattr(facts, name), abs=0.05)
        assert file.name not in json.dumps(row)


def test_a_place_that_cannot_be_written_costs_no_answer_and_loses_nothing(tmp_path: Path) -> None:
    place = tmp_path / "log"
    place.write_text("a file is in the way")
    log = FeatureLog(place, 1.0)
    log.add("1", "covid", lambda: {"width": 9})
    assert not log._flush()
    place.unlink()
    log.add("1", "normal", lambda: {"width": 8})
    assert log._flush()
    (file,) = place.glob("*.jsonl")
    assert pd.read_json(file, lines=True)["width"].tolist() == [9, 8]


def dropped() -> float:
    return metrics.FEATURE_ROWS_DROPPED._value.get()


def test_while_the_place_is_away_it_is_tried_less_and_less_often_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feature_log, "_ROWS_A_FILE", 2)
    monkeypatch.setattr(feature_log, "_MOST_ROWS", 3)
    log, before, create = FeatureLog(tmp_path, 1.0), dropped(), feature_log.create
    attempts: list[Path] = []
    pauses: list[float] = []

    def away_nine_times(file: Path, content: bytes) -> None:
        attempts.append(file)
        if len(attempts) < 10:
            raise OSError("connection refused\nby the bucket")
        create(file, content)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        for width in range(10):  # more comes meanwhile than may be kept
            log.add("1", "covid", lambda width=width: {"width": width})

    async def serve() -> None:
        writing = asyncio.create_task(log.write())
        for width in (1, 2):
            log.add("1", "covid", lambda width=width: {"width": width})
        while not list(tmp_path.glob("*.jsonl")):
            await asyncio.to_thread(lambda: None)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    monkeypatch.setattr(feature_log, "create", away_nine_times)
    monkeypatch.setattr(asyncio, "sleep", pause)
    with caplog.at_level("INFO", "cxrflow.serving"):
        asyncio.run(serve())
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert len(attempts) == 10
    (file,) = tmp_path.glob("*.jsonl")
    assert pd.read_json(file, lines=True)["width"].tolist() == [7, 8, 9]
    assert dropped() - before == 2 + 9 * 10 - 3
    away, back = (record.getMessage() for record in caplog.records)
    assert "cannot be written" in away
    assert "\n" not in away
    assert "again" in back


@pytest.mark.parametrize("turns", range(6))
def test_a_server_that_stops_as_the_log_is_full_stops(
    turns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_log, "_ROWS_A_FILE", 1)
    log = FeatureLog(tmp_path, 1.0)

    async def serve() -> None:
        writing = asyncio.create_task(log.write())
        await asyncio.sleep(0)
        log.add("1", "covid", lambda: {"width": 1})
        for _ in range(turns):  # of the event loop, from the full log to the stop
            await asyncio.sleep(0)
        writing.cancel()
        stopped, _ = await asyncio.wait({writing}, timeout=10)
        assert stopped

    asyncio.run(serve())
    (file,) = tmp_path.glob("*.jsonl")
    assert len(pd.read_json(file, lines=True)) == 1


def test_a_place_that_is_away_does_not_keep_the_server_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_log, "_ROWS_A_FILE", 2)
    log, before, attempts = FeatureLog(tmp_path, 1.0), dropped(), []

    def away(*_: object) -> None:
        attempts.append(1)
        raise OSError("no answer")

    async def serve() -> None:
        paused = asyncio.Event()

        async def pause(_: float) -> None:
            paused.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(asyncio, "sleep", pause)
        writing = asyncio.create_task(log.write())
        for width in (1, 2):
            log.add("1", "covid", lambda width=width: {"width": width})
        await paused.wait()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    monkeypatch.setattr(feature_log, "create", away)
    asyncio.run(serve())
    assert len(attempts) == 1
    assert dropped() - before == 2
