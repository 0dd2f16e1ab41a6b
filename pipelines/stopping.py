"""Clean termination: a signal ends this process and all its descendants within five seconds.

A thread waits for the signal, because the main thread receives none while TensorFlow works. A process with
its own session, such as the model server that a run starts, is not touched.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import psutil

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A terminal sends SIGINT to the whole process group. Processes get this long to end by themselves, because a
# second SIGINT would interrupt their cleanup.
_SECONDS_BY_THEMSELVES = 1.0
# Time for this process to clean up once the others have ended.
_SECONDS_TO_LEAVE = 1.0
_SECONDS_BETWEEN_LOOKS = 0.05

_line = "interrupted"


class Stopped(BaseException):
    """A signal has come. Not an `Exception`, so that no code handles it as an error of its work."""


def say_when_stopped(line: str) -> None:
    """Sets the line that is printed on standard error when a signal ends this process."""
    global _line
    _line = line


@contextlib.contextmanager
def cleanly(seconds: float = 2.5) -> Iterator[None]:
    """Lets SIGINT, SIGTERM and SIGHUP end the block, all descendants of this process, and then itself.

    The descendants get SIGINT, so that they clean up, and SIGKILL if that takes too long. Where SIGINT is
    ignored, as in the background of a shell, they ignore it too, and get SIGTERM. The block ends with
    `Stopped`. Further signals have no effect. A signal that this process was started to ignore, as by
    `nohup`, stays ignored, and one that the block handles is left to it.

    Args:
      seconds: from the signal to SIGKILL.

    Raises:
      SystemExit: a signal came; the code is 128 plus its number, as in shells: 130 for SIGINT.
    """
    stopping = _Stopping(seconds)
    try:
        with stopping.listening():
            yield
    except BaseException:
        if not stopping.signal:
            raise
    if stopping.signal:
        stopping.say()
        # While it ends, Python gives signals that have handlers their default effect again.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + stopping.signal)


class _Stopping:
    """Listens for signals and acts on the first one.

    Attributes:
      signal: its number; 0 until it comes.
    """

    def __init__(self, seconds: float) -> None:
        self.signal = 0
        self._seconds = seconds
        self._ended = threading.Event()
        self._raised = False
        self._saying = threading.Lock()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        # A copy, because a run redirects standard error to its log. It may be closed.
        try:
            self._errors = os.dup(2)
        except OSError:
            self._errors = os.open(os.devnull, os.O_WRONLY)
        heard, self._told = os.pipe()
        os.set_blocking(self._told, False)
        watcher = threading.Thread(target=self._watch, args=[heard], daemon=True)
        watcher.start()
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        before = {
            number: handler for number, handler in before.items() if handler != signal.SIG_IGN
        }
        wakeup = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        for number in before:
            signal.signal(number, self._stop)
        try:
            yield
        finally:
            if not self.signal:
                for number, handler in before.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(wakeup)
                os.close(self._told)
                watcher.join()
                os.close(heard)
                os.close(self._errors)

    def say(self) -> None:
        """Prints the line, once."""
        if self._saying.acquire(blocking=False):
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(self._errors, f"{_line}\n".encode())

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self._raised:
            return
        self._raised = True
        # The watcher is also told here, because asyncio, where it is used, receives signals in its place.
        with contextlib.suppress(BlockingIOError):
            os.write(self._told, bytes([number]))
        self._ended.wait(self._seconds + _SECONDS_TO_LEAVE)
        raise Stopped

    def _watch(self, heard: int) -> None:
        while not self.signal:
            told = os.read(heard, 1)
            if not told:
                return
            if told[0] in _SIGNALS and signal.getsignal(told[0]) == self._stop:
                self.signal = told[0]
        # Otherwise KFP's threads would start the next step.
        sys.addaudithook(_start_nothing)
        self._end_all()
        self.say()
        os._exit(128 + self.signal)

    def _end_all(self) -> None:
        """Ends all processes below this one, including those that are just starting, until the time is up."""
        began = time.monotonic()
        known: set[psutil.Process] = set()
        asked: set[psutil.Process] = set()
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        asking = signal.SIGTERM if ignored else signal.SIGINT
        waited = _SECONDS_BY_THEMSELVES if self.signal == signal.SIGINT else 0.0
        while (passed := time.monotonic() - began) < self._seconds + _SECONDS_TO_LEAVE:
            # Those whose parents have ended are no longer below this process.
            known |= _below()
            known = {process for process in known if _lives(process)}
            for process in known:
                with contextlib.suppress(psutil.NoSuchProcess):
                    if passed >= self._seconds or self._ended.is_set():
                        process.kill()
                    elif passed >= waited and process not in asked:
                        asked.add(process)
                        process.send_signal(asking)
            if not known:
                self._ended.set()
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _start_nothing(event: str, _: tuple[object, ...]) -> None:
    if event == "subprocess.Popen":
        raise RuntimeError("interrupted: no more processes are started")


def _below() -> set[psutil.Process]:
    return {
        process
        for process in psutil.Process().children(recursive=True)
        if _is_in_this_session(process.pid)
    }


def _is_in_this_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == os.getsid(0)
    except (ProcessLookupError, PermissionError):
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
