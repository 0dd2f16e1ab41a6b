"""Messages and progress of steps.

Steps log to the logger `cxrflow`. Its lines have the prefix below, so that `cxrflow run` can show them and
send everything else that a step prints (TensorFlow, Beam, KFP) to the run's log file.

Long work reports its progress (`Progress`): as one live line in a terminal, else as lines of the log.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

PREFIX = "cxrflow: "
# If the variable is set, the listener shows lines with this prefix as one live line.
LIVE_PREFIX, LIVE = "cxrflow-live:", "CXRFLOW_LIVE"

_SECONDS_BEFORE_LINES, _SECONDS_BETWEEN_LINES, _SECONDS_BETWEEN_LOOKS = 5.0, 10.0, 1.0

logger = logging.getLogger("cxrflow")


class _StandardOutput(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the current sys.stdout, which a test or the KFP executor may replace."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


if not logger.handlers:
    _handler = _StandardOutput()
    _handler.setFormatter(logging.Formatter(PREFIX + "%(message)s"))
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _to_listener(text: str) -> None:
    # In one write, because other threads may print too.
    sys.stdout.write(f"{LIVE_PREFIX} {text}\n")
    sys.stdout.flush()


_show_live: Callable[[str], None] | None = _to_listener if os.environ.get(LIVE) else None


@contextlib.contextmanager
def shown_live(show: Callable[[str], None]) -> Iterator[None]:
    """Sends the progress of this process to `show` instead of the log.

    Args:
      show: gets each line, which replaces the previous one; an empty line removes it.
    """
    global _show_live
    before, _show_live = _show_live, show
    try:
        yield
    finally:
        _show_live = before


class Progress:
    """Reports progress and the remaining time during a `with` block.

    A thread checks every second, so that a live line's clock keeps running even if counting is slow. A live
    line is updated at every check. The log gets its first line five seconds after the process' first block
    began, and then one every ten seconds, whatever the number of blocks. A step is a process.
    """

    # When the log's next line is due, by the clock; None before the first block.
    _next_line: float | None = None

    def __init__(
        self,
        what: str,
        total: float = 0,
        *,
        done: float = 0,
        counted: Callable[[], float] | None = None,
        figures: Callable[[], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts now.

        Args:
          what: what is counted, such as `images opened`, or what is waited for.
          total: how many there are; if 0, the elapsed time is reported instead of a count.
          done: how many were done before; they do not count for the speed.
          counted: returns how many are done, if the work cannot call `advance`; or None.
          figures: returns further text, such as a loss; or None.
          clock: returns seconds from any starting point.
        """
        self._what, self._total, self._figures, self._clock = what, total, figures, clock
        self._before = self._done = done
        self._counted = counted
        self._began = clock()
        if Progress._next_line is None:
            Progress._next_line = self._began + _SECONDS_BEFORE_LINES
        # Speed is measured from the first one done, which may have waited for a compiler or for workers.
        self._first: tuple[float, float] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if _show_live:
            _show_live("")

    def advance(self, number: float = 1) -> None:
        """Counts `number` more as done; may be called from any thread."""
        with self._lock:
            self._now(self._done + number)

    def rate(self) -> float:
        """Returns how many are done per second since the first one; 0 if only that is done."""
        if not self._first:
            return 0.0
        began, done = self._first
        return (self._done - done) / max(self._clock() - began, 1e-9)

    def look(self) -> None:
        """Reports the progress, if it is time to."""
        if self._counted:
            self._now(self._counted())
        if _show_live:
            _show_live(self._text())
        else:
            self.say(self._text())

    def say(self, text: str, *, always: bool = False) -> None:
        """Logs a line, even if there is a live line.

        Args:
          text: the line.
          always: if False, log only if the next line is due.
        """
        if always or self._clock() >= (Progress._next_line or 0):
            Progress._next_line = self._clock() + _SECONDS_BETWEEN_LINES
            logger.info("%s", text)

    def _now(self, done: float) -> None:
        self._done = done
        if not self._first and done > self._before:
            self._first = self._clock(), done

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            self.look()

    def _text(self) -> str:
        if not self._total:
            return f"{self._what}, {_minutes(self._clock() - self._began)} so far"
        # There may be fewer or more than announced, if images were withdrawn or are retried.
        done = min(max(self._done, 0), self._total)
        parts = [f"{done:,.0f} of {self._total:,.0f} {self._what}"]
        rate = self.rate()
        if rate > 0:
            parts.append(f"{_minutes((self._total - done) / rate)} left")
        if self._figures:
            parts.append(self._figures())
        return ", ".join(part for part in parts if part)


def _minutes(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
