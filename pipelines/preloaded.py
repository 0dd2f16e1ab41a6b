"""Starts steps on this machine from a process that has already imported what they need.

Importing TensorFlow takes seconds of processor time, and most steps of a run need it. One process imports it
beside the first steps; each later step is a fork of that process. As in `multiprocessing`'s fork server, the
process has no other Python thread and has not begun to compute, so it can be forked safely.

    python -m pipelines.preloaded MODULE ARGUMENTS …

runs a module as `python -m MODULE ARGUMENTS …` does, in a fork if that process is ready, and otherwise here.
"""

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

_ADDRESS = "CXRFLOW_PRELOADED"
_SELF, _EXECUTOR = "pipelines.preloaded", "kfp.dsl.executor_main"
_SERVE = "--serve"
_IMPORTED = (
    "components.candidates.evaluate",
    "components.candidates.train",
    "components.data.write_shards",
    "components.trust.audit",
    "components.trust.find_lungs",
)


def command(whole: Sequence[str]) -> list[str]:
    """Returns the command of a KFP component, changed so that it starts as a fork where that is possible."""
    return [part.replace(f"-m {_EXECUTOR} ", f"-m {_SELF} {_EXECUTOR} ") for part in whole]


@contextlib.contextmanager
def available(directory: Path, log: TextIO) -> Iterator[Callable[[], None]]:
    """Yields a function to be called whenever a step begins that computes.

    Its first call starts the process that imports, and from the second on steps are forks of it.

    Args:
      directory: for a socket.
      log: gets what the imports print.
    """
    begun: list[subprocess.Popen[bytes]] = []
    address = str(directory / "preloaded")

    def step_begins() -> None:
        if begun:
            os.environ[_ADDRESS] = address
        elif sys.platform == "linux":  # on macOS, forks of processes that use its frameworks crash
            # It ends when its standard input does, so it outlives nobody who was killed.
            begun.append(
                subprocess.Popen(
                    [sys.executable, "-m", _SELF, _SERVE, address],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                )
            )

    try:
        yield step_begins
    finally:
        os.environ.pop(_ADDRESS, None)
        for process in begun:
            process.kill()
            process.communicate()


def main() -> None:
    """Runs the program; see the module."""
    first, *arguments = sys.argv[1:]
    if first == _SERVE:
        connection = _forked(arguments[0])
        if connection:
            _be_step(connection)
    elif not _started_as_fork([first, *arguments]):
        _run([first, *arguments])


def _started_as_fork(program: list[str]) -> bool:
    """Runs a program in a fork and ends with its code; returns False if no fork is to be had."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.environ.get(_ADDRESS, ""))
            socket.send_fds(connection, [b"\n"], [0, 1, 2])
            forked = connection.recv(1)
        except OSError:
            return False
        if not forked:
            return False  # that process has ended meanwhile
        # The fork gets it as well, and may clean up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        asked = json.dumps(
            {
                "program": program,
                "directory": str(Path.cwd()),
                "environment": {**os.environ},
                "path": sys.path,
            }
        )
        connection.sendall(f"{asked}\n".encode())
        # The kernel closes its end when the fork has ended, however it does.
        code = connection.makefile("rb").read()
    sys.exit(code[0] if code else "the step ended without a code; was it killed?")


def _forked(address: str) -> socket.socket | None:
    """Imports, and forks for every connection until standard input ends.

    Returns:
      in a fork its connection; None in the process itself, at its end.
    """
    atexit.register(_leave)  # the first to be registered is the last to be called
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()  # whoever connects while it imports waits
            for name in _IMPORTED:
                importlib.import_module(name)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
                connection, _ = listener.accept()
                if not os.fork():
                    return connection
                connection.close()
    except KeyboardInterrupt:
        # What looks for the processes of a run finds forks by this one, so it is the last to end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(ChildProcessError):
            os.wait()
    return None


def _be_step(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    connection.sendall(b"\n")
    for own, given in enumerate(files):
        os.dup2(given, own)
        os.close(given)
    asked = json.loads(connection.makefile("r").readline())
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["directory"])
    sys.path[:] = asked["path"]
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()
    code = 1
    try:
        _run(asked["program"])
        code = 0
    finally:
        connection.sendall(bytes([code]))


def _leave() -> None:
    # Otherwise Python would first take all modules apart, which takes a second.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_with(connection: socket.socket) -> None:
    """Ends this process if the one that asked for it is killed."""
    if not connection.recv(1):
        os.kill(os.getpid(), signal.SIGTERM)


def _run(program: list[str]) -> None:
    sys.argv = program
    runpy.run_module(program[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
