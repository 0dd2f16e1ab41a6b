"""How a step tells the user what it is doing, and how far it is.

Steps log to the logger `cxrflow`. Its lines carry the prefix below, so that `cxrflow run` can show
them and send everything else a step prints (TensorFlow, Beam, KFP) to the run's log file.

What takes long says how far it is (`Progress`): in a terminal as one live line, else as lines of the log.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

PREFIX = "cxrflow: "
# Where the variable is set, whoever listens shows lines with this prefix in place of each other.
LIVE_PREFIX, LIVE = "cxrflow-live:", "CXRFLOW_LIVE"

_SECONDS_BETWEEN_LINES, _SECONDS_BETWEEN_LOOKS = 10.0, 1.0

logger = logging.getLogger("cxrflow")


class _StandardOutput(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever sys.stdout is at the time, which a test or the KFP executor may replace."""

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
    # In one piece, for other threads may print, too.
    sys.stdout.write(f"{LIVE_PREFIX} {text}\n")
    sys.stdout.flush()


_show_live: Callable[[str], None] | None = _to_listener if os.environ.get(LIVE) else None


@contextlib.contextmanager
def shown_live(show: Callable[[str], None]) -> Iterator[None]:
    """Lets `show` have how far this process is, in place of the log.

    Args:
      show: gets the line that takes the place of the one before; an empty one removes it.
    """
    global _show_live
    before, _show_live = _show_live, show
    try:
        yield
    finally:
        _show_live = before


class Progress:
    """Says how far something is and how long it will still take, while a `with` block lasts.

    It looks every second, from a thread of its own, so that a clock is seen to go on where what is counted
    is slow. A live line is shown at every look; the log gets a line after ten seconds, and then one every
    ten. What ends sooner says nothing.
    """

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
        """Begins now.

        Args:
          what: is counted, such as `images opened`, or what is waited for.
          total: how many there are; 0: nothing is counted, and how long it has taken is said instead.
          done: how many were done before, which tell nothing of the speed.
          counted: returns how many are done, where what works cannot call `advance`; or None.
          figures: returns what else is said, such as a loss; or None.
          clock: seconds, from any start.
        """
        self._what, self._total, self._figures, self._clock = what, total, figures, clock
        self._before = self._done = done
        self._counted = counted
        self._began = self._said = clock()
        # Speed is measured from the first that is done: it may have waited for a compiler, or for workers.
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
        """Counts `number` more as done; any thread may."""
        with self._lock:
            self._now(self._done + number)

    def rate(self) -> float:
        """Returns how many are done a second since the first was; 0 where that is all."""
        if not self._first:
            return 0.0
        began, done = self._first
        return (self._done - done) / max(self._clock() - began, 1e-9)

    def look(self) -> None:
        """Says how far it is, if it is time to."""
        if self._counted:
            self._now(self._counted())
        if _show_live:
            _show_live(self._text())
        else:
            self.say(self._text())

    def say(self, text: str, *, always: bool = False) -> None:
        """Has the log say something, also where there is a live line.

        Args:
          text: what.
          always: if not, only where ten seconds have passed since it last said anything.
        """
        if always or self._clock() - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = self._clock()
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
        # Fewer or more may come than were announced: what was withdrawn, or is tried again.
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
