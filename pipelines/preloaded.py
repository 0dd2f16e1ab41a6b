"""Starts steps on this machine from a process that has already imported what they need.

Importing TensorFlow takes seconds of processor time, and most steps of a run need it. One process imports it
beside the first steps, and later steps are forks of that process. As in `multiprocessing`'s fork server, it
has no other Python thread and has not begun to compute, so it can be forked safely.

    python -P -m pipelines.preloaded MODULE ARGUMENTS …

runs a module as `python -m MODULE ARGUMENTS …` does: in a fork once the imports are done, if there is a
process to fork, and otherwise in this process. At its end, a fork calls its exit handlers and flushes its
standard streams, but does not delete its modules and objects, which takes long. So a file that a step leaves
open loses what is in its buffer.
"""

import atexit
import contextlib
import ctypes
import importlib
import json
import logging
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from core.imports import end_quickly, uncollected

# The environment variable with the path of the socket, where steps are forks.
ADDRESS = "CXRFLOW_PRELOADED"
_LONGEST_ADDRESS = 107  # bytes, on Linux
_PR_SET_CHILD_SUBREAPER = 36
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
    # -P: a directory `pipelines` where the user works must not shadow this package.
    return [part.replace(f"-m {_EXECUTOR} ", f"-P -m {_SELF} {_EXECUTOR} ") for part in whole]


@contextlib.contextmanager
def available(directory: Path, log: TextIO) -> Iterator[Callable[[bool], None]]:
    """Yields a function; call it at the start of every step, with whether the step computes.

    The first step that computes starts the process that imports; the steps after it start as forks. All steps
    stay new processes on macOS, where a process that has loaded the system's frameworks cannot be forked, and
    if the path of `directory` is too long for a socket.

    Args:
      directory: for a socket.
      log: gets what the imports print.
    """
    begun: list[subprocess.Popen[bytes]] = []
    address = str(directory / "preloaded")
    possible = sys.platform == "linux" and len(os.fsencode(address)) <= _LONGEST_ADDRESS

    def step_begins(computes: bool) -> None:
        if begun:
            os.environ[ADDRESS] = address
        elif possible and computes:
            # It ends when its standard input closes, so it does not outlive a run that is killed.
            begun.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", _SELF, _SERVE, address],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                )
            )

    if possible:
        _adopt_orphans(True)
    try:
        yield step_begins
    finally:
        os.environ.pop(ADDRESS, None)
        for process in begun:
            process.kill()
            process.communicate()
        if possible:
            _adopt_orphans(False)


def _adopt_orphans(wanted: bool) -> None:
    """Sets whether orphans below this process become its children; see prctl(2), Linux.

    Then a run still finds its forks, and can stop them, if the process that they are forks of was killed.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def main() -> None:
    """Runs the program; see the module."""
    first, *arguments = sys.argv[1:]
    if first == _SERVE:
        fork = _Fork()
        # The first handler to be registered is the last to be called.
        atexit.register(fork.leave)
        fork.connection = _forked(arguments[0])
        if fork.connection:
            _be_step(fork, fork.connection)
    elif not _started_as_fork([first, *arguments]):
        end_quickly()
        _run([first, *arguments])


def _started_as_fork(program: list[str]) -> bool:
    """Runs a program in a fork and ends with its code; returns False if there is no process to fork."""
    with socket.socket(socket.AF_UNIX) as connection:
        if connection.fileno() <= 2:  # a fork cannot start with a closed standard stream
            return False
        try:
            asked = json.dumps(
                {
                    "program": program,
                    "directory": str(Path.cwd()),
                    "environment": {**os.environ},
                    "path": sys.path,
                }
            )
            connection.connect(os.environ.get(ADDRESS, ""))
            socket.send_fds(connection, [b"\n"], [0, 1, 2])
            forked = connection.recv(1)
        except OSError:
            return False
        if not forked:
            return False  # that process has ended meanwhile
        # The fork gets the interrupt too and may clean up, so this process waits for it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = b""
        with contextlib.suppress(ConnectionError):  # the fork was killed
            connection.sendall(f"{asked}\n".encode())
            code = connection.recv(1)
    sys.exit(code[0] if code else "the step ended without a code; was it killed?")


def _forked(address: str) -> socket.socket | None:
    """Imports, and forks for every connection until standard input closes.

    Returns:
      in a fork its connection; None in the process itself, at its end.
    """
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()  # whoever connects during the imports waits
            _import()
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
                connection, _ = listener.accept()
                # Without memory for a fork, the step becomes a new process.
                with connection, contextlib.suppress(OSError):
                    if not os.fork():
                        return connection.dup()
    except KeyboardInterrupt:
        # A run finds forks as descendants of this process, so this process must end after them.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(ChildProcessError):
            os.wait()
    return None


def _import() -> None:
    # As KFP's handler in a step does, it keeps TensorFlow from adding one of its own, which would log twice.
    there = logging.NullHandler()
    logging.root.addHandler(there)
    # A collection in a fork would write to, and so copy, every page of what is imported.
    with uncollected():
        for name in _IMPORTED:
            importlib.import_module(name)
    logging.root.removeHandler(there)
    # Matplotlib registers the removal of its temporary directory, which all forks share. The run removes it.
    atexit.unregister(shutil.rmtree)
    # Otherwise each fork would print what is left in the buffers.
    sys.stdout.flush()
    sys.stderr.flush()
    # The other threads are the memory allocator's and OpenBLAS', which stop theirs around a fork.
    warnings.filterwarnings("ignore", r".*multi-threaded, use of fork", DeprecationWarning)


@dataclass
class _Fork:
    """A process that may become a fork.

    Attributes:
      connection: to the process that waits for it; None: this is no fork.
      pid: its own; a process that a step forks has another.
      code: the exit code.
    """

    connection: socket.socket | None = None
    pid: int = field(default_factory=os.getpid)
    code: int = 1

    def leave(self) -> None:
        """Ends this process, after all other exit handlers."""
        if os.getpid() != self.pid:
            return
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            # A step may have closed it.
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
        if self.connection:
            with contextlib.suppress(OSError):  # nobody waits any more
                self.connection.sendall(bytes([self.code]))
        os._exit(self.code if self.connection else 0)


def _be_step(fork: _Fork, connection: socket.socket) -> None:
    fork.pid = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    connection.sendall(b"\n")
    for own, given in enumerate(files):
        os.dup2(given, own)
        os.close(given)
    asked = json.loads(connection.makefile("r").readline())
    os.environ.update(asked["environment"])
    os.chdir(asked["directory"])
    sys.path[:] = asked["path"]
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()
    try:
        _run(asked["program"])
        fork.code = 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            fork.code = (end.code or 0) & 255
        raise


def _end_with(connection: socket.socket) -> None:
    """Ends this process if the one that waits for it is killed."""
    if not connection.recv(1):
        os.kill(os.getpid(), signal.SIGTERM)


def _run(program: list[str]) -> None:
    sys.argv = program
    runpy.run_module(program[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
