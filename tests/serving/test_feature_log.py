import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest

from components.facts import inspect
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
    from serving.feature_log import FeatureLog

    place = tmp_path / "log"
    place.write_text("a file is in the way")
    log = FeatureLog(place, 1.0)
    log.add("1", "covid", lambda: {"width": 9})
    log._flush()
    place.unlink()
    log.add("1", "normal", lambda: {"width": 8})
    log._flush()
    (file,) = place.glob("*.jsonl")
    assert pd.read_json(file, lines=True)["width"].tolist() == [9, 8]
