"""A model server in the background of this machine: start, find, stop.

Until a server is ready and recorded, it ends with the process that starts it, however that ends (see
`serving.server_child`). Then it is detached.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import tenacity

from core.errors import UserError
from core.files import read_json, write_json
from serving import GRPC_PORT, NAME, PORT, ports
from serving.client import certificates
from serving.cluster import known_answers
from serving.cluster.known_answers import Unfit

_SECONDS_TO_START = 180
_SECONDS_TO_STOP = 30
_LINES_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that was started on this machine.

    Attributes:
      url: its HTTP address, without a trailing slash.
      grpc: its gRPC address, as host:port.
      model: the directory of the model's versions, of which it serves the newest.
      log: its log file.
      pid: its process id.
    """

    url: str
    grpc: str
    model: str
    log: str
    pid: int


def serve(version: Path, home: Path) -> Server:
    """Serves a version, with the running server or a new one.

    A server follows the versions of one model. If the running one follows another model, it is replaced once
    the new server is ready.

    Args:
      version: of the model store, the newest of its model unless a newer one has been published meanwhile.
      home: the directory of `server.json`, which records the running server, and of the server's log.

    Raises:
      UserError: the server ended, was not ready in time, or rejects the version; the previous version
        stays in service.
    """
    before = running(home)
    if before and before.model == str(version.parent):
        _wait_until_served(before, version.name)
        return before
    server = _started(version.parent, home)
    if before:
        _terminate(before)
        Path(before.log).unlink(missing_ok=True)
    return server


def _is_port_in_use(error: BaseException) -> bool:
    return ports.IN_USE in str(error)


# Two runs that start at once choose the same free port, and one of them gets it.
@tenacity.retry(
    retry=tenacity.retry_if_exception(_is_port_in_use),
    stop=tenacity.stop_after_attempt(3),
    reraise=True,
)
def _started(model: Path, home: Path) -> Server:
    port = ports.free(PORT)
    # Its own: the previous server writes to another until it is replaced.
    log = home / f"server-{port}.log"
    try:
        with _starting(model, log, port, ports.free(GRPC_PORT)) as (server, detach):
            write_json(_state(home), asdict(server))
            detach()
    except _NotReadyError as error:
        raise UserError(
            f"serve: the server of {model} did not start: {error} (log: {log})"
        ) from error
    return server


def check(version: Path) -> str:
    """Serves a version in its own process and checks its known answers (`serving.cluster.known_answers`).

    Args:
      version: of the model store, or not published yet.

    Returns:
      a sentence about the answers.

    Raises:
      UserError: an answer is wrong, missing or slow, or the server does not start.
    """
    answers = known_answers.read(version)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "server.log")
        try:
            with _starting(version, log, ports.free(0), ports.free(0)) as (server, _):
                return known_answers.check(_asking(server), answers, "a server on this machine")
        except _NotReadyError as error:
            _print(log)
            raise UserError(
                f"check: the server of {version} did not start: {error}; its last lines are above, or "
                "in the run's log"
            ) from error
        except Unfit:
            _print(log)
            raise


def _asking(server: Server) -> known_answers.Ask:
    address = f"{server.url}/v1/models/{NAME}:predict"

    def ask(body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer = httpx.post(
                address, json=body, timeout=60, trust_env=False, verify=certificates()
            )
        except httpx.HTTPError as error:
            raise Unfit(f"check: the server does not answer ({error})") from error
        if answer.status_code != httpx.codes.OK:
            raise Unfit(f"check: the server answers {answer.status_code}: {answer.text}")
        return dict(answer.json())

    return ask


def _print(log: Path) -> None:
    """Prints the last lines of a log that will be deleted."""
    lines = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:]
    print("last lines of the checked server:", *lines, sep="\n  ", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _starting(
    model: Path, log: Path, port: int, grpc_port: int
) -> Iterator[tuple[Server, Callable[[], None]]]:
    """Starts a server on loopback and stops it at the end of the block, unless it is detached.

    Args:
      model: a version of the model store, or the directory of its versions.
      log: the server's log file.
      port, grpc_port: free ones.

    Yields:
      the server, once it is ready, and a function that detaches it.

    Raises:
      _NotReadyError: the server ended or was not ready in time; the message is its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "serving.server_child", _serves(str(model))]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--port={port}", f"--grpc-port={grpc_port}"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    assert process.stdin
    line = process.stdin
    url, detached = f"http://localhost:{port}", False

    def detach() -> None:
        nonlocal detached
        os.write(line.fileno(), b"1")
        detached = True

    try:
        try:
            _wait_until_ready(process, port)
        except _NotReadyError as error:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise _NotReadyError(lines[-1] if lines else error) from error
        server = Server(
            url=url,
            grpc=f"localhost:{grpc_port}",
            model=str(model),
            log=str(log),
            pid=process.pid,
        )
        yield server, detach
    finally:
        line.close()
        if not detached:
            process.kill()
            process.wait()


def running(home: Path) -> Server | None:
    """Returns the server that `serve` last started with this `home`, if it is still running."""
    if not _state(home).is_file():
        return None
    told = read_json(_state(home))
    told.pop("started", None)  # of earlier releases
    server = Server(**told)
    return server if _process(server) else None


def stop(home: Path) -> Server | None:
    """Stops the server, waits until it has ended and returns it; None if there was none."""
    server = running(home)
    if server:
        _terminate(server)
    _state(home).unlink(missing_ok=True)
    return server


class _NotReadyError(Exception):
    pass


def _get(url: str) -> httpx.Response:
    # A proxy of the environment cannot reach this machine's own servers.
    return httpx.get(url, timeout=5, trust_env=False, verify=certificates())


@tenacity.retry(
    wait=tenacity.wait_fixed(0.3),
    stop=tenacity.stop_after_delay(_SECONDS_TO_START),
    retry=tenacity.retry_if_exception_type(httpx.HTTPError),
    retry_error_callback=lambda state: _raise_not_ready(),
)
def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    if process.poll() is not None:
        raise _NotReadyError(f"exit code {process.returncode}")
    _get(f"http://localhost:{port}/v1/models/{NAME}").raise_for_status()
    if not _listens(process, port):
        raise httpx.ConnectError("another process answers")


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            connections = psutil.Process(process.pid).connections("tcp")
        except psutil.AccessDenied:  # the system does not tell; then who answers is taken for it
            return True
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in connections
        )
    return False


@tenacity.retry(
    wait=tenacity.wait_fixed(0.3),
    stop=tenacity.stop_after_delay(_SECONDS_TO_START),
    retry=tenacity.retry_if_exception_type(httpx.HTTPError)
    | tenacity.retry_if_result(lambda served: not served),
    retry_error_callback=lambda state: _raise_not_served(state.args[0]),
)
def _wait_until_served(server: Server, version: str) -> bool:
    if _process(server) is None:
        raise UserError(f"serve: the server ended; its log is {server.log}")
    about = _get(f"{server.url}/model").raise_for_status().json()
    refused = about["refused"]
    if refused and refused["version"] == version:
        raise UserError(
            f"serve: {refused['reason']}; version {about['version']} is still served at {server.url}"
        )
    return int(about["version"]) >= int(version)  # another run may have published meanwhile


def _raise_not_served(server: Server) -> None:
    why = ""
    with contextlib.suppress(httpx.HTTPError):
        delayed = _get(f"{server.url}/model").json()["delayed"]
        why = f": {delayed['reason']}" if delayed else ""
    raise UserError(
        f"serve: the server did not load the version within {_SECONDS_TO_START} seconds{why} (its log is "
        f"{server.log})"
    )


def _raise_not_ready() -> None:
    raise _NotReadyError(f"not ready after {_SECONDS_TO_START} seconds")


def _terminate(server: Server) -> None:
    process = _process(server)
    if process:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_STOP)
        except psutil.TimeoutExpired:
            process.kill()


def _process(server: Server) -> psutil.Process | None:
    # Process ids are reused. When a process was started is no help, because it changes with the clock.
    try:
        process = psutil.Process(server.pid)
        return process if _serves(server.model) in process.cmdline() else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # a zombie is among the former
        return None


def _serves(model: str) -> str:
    return f"--model-dir={model}"


def _state(home: Path) -> Path:
    return home / "server.json"
