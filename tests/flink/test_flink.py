"""The same steps on a Flink cluster: Beam's job server, its mini-cluster, and workers of their own."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tenacity import retry, stop_after_delay, wait_fixed

from components.data.ingest import ingest
from components.data.write_records import write_records
from tests.components.data.test_write_records import contents

JARS = Path(__file__).parents[2] / ".tools" / "flink"


@dataclass(frozen=True, kw_only=True)
class Flink:
    """A running cluster: the options that name it to Beam, and the process whose children work."""

    options: list[str]
    workers: psutil.Process


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flink]:
    assert list(JARS.glob("beam-runners-flink-*.jar")), "`make test` fetches Flink"
    log = tmp_path_factory.mktemp("flink") / "log"
    job_port, pool_port = (_unused_port() for _ in range(2))
    job_server = ["java", "-cp", f"{JARS}/*", "org.apache.beam.runners.flink.FlinkJobServerDriver"]
    job_server += ["--flink-master", "[local]", "--job-port", str(job_port)]
    job_server += ["--artifact-port", "0", "--expansion-port", "0"]
    pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
    pool += ["--service_port", str(pool_port)]
    # The pool starts its workers as `python`.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as file:
        processes = [
            subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "PATH": path})
            for command in (job_server, pool)
        ]
        try:
            for port in (job_port, pool_port):
                _wait_for(port, log)
            yield Flink(
                options=[
                    "--runner=PortableRunner",
                    f"--job_endpoint=localhost:{job_port}",
                    "--environment_type=EXTERNAL",
                    f"--environment_config=localhost:{pool_port}",
                    "--parallelism=2",
                ],
                workers=psutil.Process(processes[1].pid),
            )
        finally:
            for process in processes:
                process.terminate()
                process.wait(30)


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@retry(stop=stop_after_delay(60), wait=wait_fixed(0.2))
def _wait_for(port: int, log: Path) -> None:
    try:
        socket.create_connection(("localhost", port)).close()
    except OSError as error:
        raise AssertionError(log.read_text()) from error


def test_ingest_and_records_are_the_same_as_on_this_machine_byte_for_byte(
    flink: Flink, directories: dict[str, Path], examples: Path, records: Path, tmp_path: Path
) -> None:
    ingest(*directories.values(), tmp_path / "examples", beam_options=flink.options)
    for name in ("examples.parquet", "excluded.parquet"):
        assert (tmp_path / "examples" / name).read_bytes() == (examples / name).read_bytes()
    write_records(examples, directories, tmp_path / "records", beam_options=flink.options)
    assert contents(tmp_path / "records") == contents(records)


def test_a_worker_that_is_lost_leaves_nothing_that_looks_whole_and_the_next_run_mends_it(
    flink: Flink, directories: dict[str, Path], examples: Path, records: Path, tmp_path: Path
) -> None:
    kermany = Path(shutil.copytree(directories["kermany"], tmp_path / "kermany"))
    sources = {**directories, "kermany": kermany}
    # Whoever opens it waits for what is written to it.
    image = next(kermany.glob("train/NORMAL/*"))
    content = image.read_bytes()
    image.unlink()
    os.mkfifo(image)

    def kill_whoever_reads() -> None:
        with image.open("wb"):
            for worker in flink.workers.children(recursive=True):
                worker.kill()

    killer = threading.Thread(target=kill_whoever_reads)
    killer.start()
    output = tmp_path / "records"
    with pytest.raises(RuntimeError, match="failed"):
        write_records(examples, sources, output, beam_options=flink.options)
    killer.join()
    assert not (output / "manifest.json").exists()
    assert not list(output.glob(".*.tmp"))
    image.unlink()
    image.write_bytes(content)
    write_records(examples, sources, output, beam_options=flink.options)
    assert contents(output) == contents(records)
