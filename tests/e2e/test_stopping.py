"""Ctrl-C and SIGTERM, with real processes: nothing lives on, and the same command ends well."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from core.artifacts import CARD, DECISION, KNOWN_ANSWERS, SAVED_MODEL
from core.errors import UserError
from serving import local, ports, store
from tests.processes import PROGRAM, SIGNALS, Started

both_signals = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    with contextlib.ExitStack() as begun:
        yield lambda *command: begun.enter_context(Started.begin(command, tmp_path))


@pytest.fixture(scope="module")
def published(
    model: Path, evaluation: Path, decision: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A version with what a server needs."""
    directory = tmp_path_factory.mktemp("published")
    candidate = store.assemble(
        {
            ".": model / SAVED_MODEL,
            CARD: model / CARD,
            KNOWN_ANSWERS: evaluation / KNOWN_ANSWERS,
            DECISION: decision,
        },
        directory / "candidate",
        "cxrflow",
    )
    return Path(store.publish(candidate, str(directory / "store")))


def log_named_in(line: str) -> Path:
    (log,) = re.findall(r"is in (\S+/run\.log)\)", line)
    return Path(log)


STUBBORN = """
import hashlib, subprocess, sys
from pipelines import stopping
child = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); "
    "time.sleep(999)"
)
with stopping.cleanly(seconds=0.5):
    started = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
    started.stdout.readline()
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)  # minutes below Python
"""


@both_signals
def test_neither_a_child_that_ignores_it_nor_work_below_python_delays_the_end(
    start, number
) -> None:
    started = start(sys.executable, "-c", STUBBORN)
    started.until(lambda: "ready" in started.said())
    started.send(number)
    started.send(number)
    assert started.ends(number) == "interrupted\n"


# Where the tests are run by `nohup`, SIGHUP is ignored.
HANDLED = """
import signal, threading
from pipelines import stopping
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with stopping.cleanly():
    try:
        print("ready", flush=True)
        threading.Event().wait()
    finally:
        print("tidied up", flush=True)
"""


BESIDE = f"""
import signal, subprocess, sys
from pipelines import stopping
signal.signal(signal.SIGINT, signal.SIG_IGN)
with stopping.cleanly():
    subprocess.run([sys.executable, "-c", {HANDLED!r}], stderr=subprocess.DEVNULL)
"""


def test_in_the_background_of_a_shell_all_is_tidied_up_too(start) -> None:
    """There, commands and what they start ignore SIGINT."""
    started = start(sys.executable, "-c", BESIDE)
    started.until(lambda: "ready" in started.said())
    started.send(signal.SIGTERM)
    assert started.ends(signal.SIGTERM) == "interrupted\n"
    assert "tidied up" in started.said()


GOES_ON = """
import subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pipelines import stopping
step = [sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(999)"]
with stopping.cleanly(), ThreadPoolExecutor(1) as pool:
    steps = [pool.submit(subprocess.run, step, stderr=subprocess.DEVNULL) for _ in range(9)]
    steps[-1].result()
"""


@both_signals
def test_nothing_is_started_after_it(start, number) -> None:
    started = start(sys.executable, "-c", GOES_ON)
    started.until(lambda: "ready" in started.said())
    started.process.send_signal(number)
    started.ends(number)
    assert started.said() == "ready\n"


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGHUP], ids=lambda number: number.name)
def test_what_must_be_tidied_up_is(start, number) -> None:
    started = start(sys.executable, "-c", HANDLED)
    started.until(lambda: "ready" in started.said())
    started.send(number)
    assert started.ends(number) == "interrupted\n"
    assert "tidied up" in started.said()


@pytest.mark.parametrize(
    ("step", "number"),
    # The second is a fork, and an orphan.
    [("ingest", signal.SIGINT), ("write records", signal.SIGTERM)],
    ids=["ingest", "write_records"],
)
def test_beams_workers_end_with_the_run(
    start, step: str, number, covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    options = ("runner=FnApiRunner", "direct_running_mode=multi_processing", "direct_num_workers=2")
    started = start(
        PROGRAM, "run", "--covid", covid_directory, "--kermany", kermany_directory,
        "--weights", "none", "--output", tmp_path / "output",
        *(f"--beam-option=--{option}" for option in options),
    )  # fmt: skip
    started.until(lambda: step in started.said() and started.alive("sdk_worker_main"))
    if step == "write records":
        of_run = psutil.Process(started.process.pid).children()
        (preloaded,) = (process for process in of_run if "--serve" in process.cmdline())
        preloaded.kill()
    started.send(number)
    line = started.ends(number)
    assert line.count("\n") == 1
    assert line.startswith("interrupted; run the same command to continue, trainings")
    assert "Executing task" in log_named_in(line).read_text()


@both_signals
@pytest.mark.parametrize(
    ("command", "imported"),
    [
        ((PROGRAM, "sample-data"), "typer"),
        ((PROGRAM, "sample-data"), "core.artifacts"),
        ((sys.executable, "-m", "bench.growth"), "numpy"),
    ],
    ids=["cxrflow, early", "cxrflow, late", "growth-demo"],
)
def test_it_ends_as_well_while_it_imports(
    start, command: tuple[str, ...], imported: str, number, tmp_path: Path
) -> None:
    # Then Python tells on standard error what it has imported.
    started = start("env", "PYTHONPROFILEIMPORTTIME=1", *command, tmp_path / "output")
    started.until(lambda: re.search(rf"\| +{imported}\n", started.errors()))
    started.send(number)
    said = started.ends(number).splitlines()
    assert [line for line in said if " | " not in line] == ["interrupted"]


@both_signals
def test_drawing_ends_and_leaves_nothing(start, number, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    started = start(PROGRAM, "sample-data", home / "data", "--patients", "2000")
    started.until(lambda: any(home.rglob("*.png")))
    started.send(number)
    assert started.ends(number) == "interrupted\n"
    assert not any(home.iterdir())


@both_signals
def test_further_signals_change_nothing_until_the_very_end(start, number, tmp_path: Path) -> None:
    started = start(PROGRAM, "sample-data", tmp_path / "data", "--patients", "2000")
    started.until(lambda: any(tmp_path.rglob("*.png")))
    while started.process.poll() is None:
        started.send(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.process.wait(0.003)
    assert started.ends(number) == "interrupted\n"


def test_a_command_works_without_standard_error(start, tmp_path: Path) -> None:
    started = start("sh", "-c", f"{PROGRAM} stop --output {tmp_path} 2>&-")
    assert started.ends_well() == "no server is running\n"


@both_signals
def test_the_demo_ends_with_all_that_make_has_started(start, number, tmp_path: Path) -> None:
    # `make` does not look at its own environment, which is there.
    command = (
        "make",
        "-o",
        ".venv/.ready",
        "demo",
        f"DEMO={tmp_path / 'demo'}",
        f"RUN={Path(sys.executable).parent}/",
    )
    started = start(*command)
    started.until(lambda: "ingest" in started.said() and started.alive("ephemeral_component"))
    started.send(number)
    assert started.process.wait(60) != 0
    assert started.alive() == []
    assert "interrupted; run the same command to continue" in started.errors()
    assert "Traceback" not in started.errors()


SERVED = """
import subprocess, sys
from pathlib import Path
from bench import demo
from bench.commands import begin
from serving import local
output, published = map(Path, sys.argv[1:])
def cxrflow(command, *arguments):
    if command == "run":
        local.serve(published, output / "server")
    if command == "predict":
        subprocess.run(["tail", "--follow", "/dev/null"])
demo.cxrflow = cxrflow
sys.argv[2:] = ["--keep"]
begin(demo.main)
"""


@both_signals
def test_the_demo_stops_its_server(start, number, published: Path, tmp_path: Path) -> None:
    started = start(sys.executable, "-c", SERVED, tmp_path / "demo", published)
    started.until(lambda: started.alive("tail --follow"))
    assert started.alive("serving.server")
    started.send(number)
    assert started.ends(number) == "interrupted\n"
    assert "the server is stopped" in started.said()


@both_signals
def test_a_growing_dataset_ends_with_the_run_that_it_has_come_to(
    start, number, tmp_path: Path
) -> None:
    started = start(sys.executable, "-m", "bench.growth", tmp_path / "growth")
    started.until(lambda: "ingest" in started.said() and started.alive("ephemeral_component"))
    started.send(number)
    run, growth = started.ends(number).splitlines()
    assert "Executing task" in log_named_in(run).read_text()
    assert growth == "interrupted"


def test_trainings_in_folds_end_and_continue_and_are_summed(
    start, covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    command = (
        PROGRAM, "reproduce", "cnn-dubey", "--covid", covid_directory, "--kermany", kermany_directory,
        "--folds", "2", "--epochs", "1", "--output", tmp_path / "output",
    )  # fmt: skip
    started = start(*command)
    started.until(lambda: "from scratch" in started.said())
    started.send(signal.SIGINT)
    started.ends(signal.SIGINT)
    started = start(*command)
    started.until(lambda: "cnn-dubey: trained in" in started.said())
    started.send(signal.SIGTERM)
    started.ends(signal.SIGTERM)
    said = start(*command).ends_well()
    assert "already trained, to epoch 1 of 1" in said
    steps = [line.split(" ", 1)[1] for line in said.splitlines() if line[:1].isdigit()]
    assert steps[:2] == ["ingest", "write records"]
    assert steps.count("train") == steps.count("evaluate") == 2
    assert steps[-1] == "reproduce"
    assert str(tmp_path / "output" / "cnn-dubey.html") in said
    assert "Drawn images" in (tmp_path / "output" / "cnn-dubey.html").read_text()
    (dubey,) = json.loads((tmp_path / "output" / "cnn-dubey.json").read_text())["recipes"]
    assert [fold["division"] for fold in dubey["folds"]] == ["fold-01-of-02", "fold-02-of-02"]
    assert sum(map(sum, dubey["metrics"]["confusion"])) == dubey["images"]


@both_signals
def test_the_server_of_a_check_ends_with_it(start, number, published: Path) -> None:
    command = (PROGRAM, "deploy", published, "--check")
    started = start(*command)
    started.until(lambda: started.alive("serving.server"))
    started.send(number)
    assert started.ends(number) == "interrupted\n"


def test_a_server_that_starts_ends_with_its_run_and_one_that_runs_is_left(
    start, published: Path, tmp_path: Path
) -> None:
    home = tmp_path / "server"
    script = Path(__file__).with_name("serving_pipeline.py")
    command = (sys.executable, script, home, tmp_path / "output", published)
    for number in SIGNALS:
        started = start(*command, published)  # whose step of its own must not begin
        started.until(lambda started=started: started.alive("serving.server"))
        started.send(number)
        assert log_named_in(started.ends(number)).is_file()
        assert local.running(home) is None

    killed = start(*command)
    killed.until(lambda: killed.alive("serving.server"))
    (server,) = killed.alive("serving.server")
    step = server.parent()
    assert step
    step.kill()
    assert psutil.wait_procs([server], timeout=60)[0] == [server]
    assert killed.process.wait(60) == 1

    ended = start(*command)
    ended.ends_well()
    running = local.running(home)
    assert running
    try:
        (alive,) = ended.alive()
        assert alive.pid == running.pid == os.getsid(running.pid)
        assert httpx.get(f"{running.url}/v2/health/ready").status_code == 200
        listening = [one for one in alive.connections("inet") if one.status == "LISTEN"]
        assert len(listening) == 2
        assert {one.laddr.ip.removeprefix("::ffff:") for one in listening} == {"127.0.0.1"}
    finally:
        assert local.stop(home) == running
    assert ended.alive() == []


def test_it_says_that_it_serves_once_it_does_and_that_it_is_open(
    start, published: Path, unused_ports: tuple[int, int]
) -> None:
    port, grpc_port = unused_ports
    options = ("--port", port, "--grpc-port", grpc_port)
    started = start(PROGRAM, "serve", published, "--host", "0.0.0.0", *options)
    started.until(lambda: "no authentication" in started.said())
    assert "serving" in started.said().splitlines()[0]
    assert httpx.get(f"http://localhost:{port}/model").json()["name"] == "cxrflow"
    others = (ports.free(0), ports.free(0))
    for refused, option, both in (
        (port, "--port", (port, others[1])),
        (grpc_port, "--grpc-port", (others[0], grpc_port)),
    ):
        other = start(PROGRAM, "serve", published, "--port", both[0], "--grpc-port", both[1])
        assert other.process.wait(60) == 1
        said = other.errors()
        assert said == f"error: serve: port {refused} is in use; choose another with {option}\n"
        assert other.said() == ""
    started.send(signal.SIGTERM)
    assert started.process.wait(60) == 0


def test_a_check_that_fails_names_no_log_that_is_gone(
    published: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    version = tmp_path / "1"
    version.mkdir()
    shutil.copy(published / KNOWN_ANSWERS, version)
    with pytest.raises(
        UserError, match=r"did not start: error: .* holds no published model"
    ) as error:
        local.check(version)
    named = re.findall(r"/\S+\.log", str(error.value))
    assert all(Path(log).exists() for log in named)
    assert "holds no published model" in capfd.readouterr().err
