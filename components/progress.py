"""How a step tells the user what it is doing.

Steps log to the logger `cxrflow`. Its lines carry the prefix below, so that `cxrflow run` can show
them and send everything else a step prints (TensorFlow, Beam, KFP) to the run's log file.
"""

import logging
import sys

PREFIX = "cxrflow: "

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
