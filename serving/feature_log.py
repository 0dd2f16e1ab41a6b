"""Logs statistics of served images, which validation compares with the training data.

Each row is one image from a random sample: `day`, `version`, `label`, and, as ingest records them, `width`,
`height`, `mode`, `brightness`, `contrast` and `frame`. No pixels, names, headers or times of day are kept.
The log is a series of JSON lines files, each written as a whole, in the directory or the place at `gs://` or
`s3://` that `CXRFLOW_FEATURE_LOG` names.
"""

import asyncio
import contextlib
import json
import logging
import random
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.locations import create
from serving import metrics

logger = logging.getLogger("cxrflow.serving")

_ROWS_A_FILE = 500
_SECONDS_A_FILE = 300.0
# Rows kept while the place cannot be reached; beyond that the oldest are dropped.
_MOST_ROWS = 10_000
# Pause before a retry, doubled each time up to the last.
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 5.0, 300.0


class FeatureLog:
    """Rows waiting to be written, and their destination."""

    def __init__(self, place: Path, share: float) -> None:
        """Makes an empty log.

        Args:
          place: a directory, created if missing, or a place at `gs://` or `s3://`.
          share: the share of images to log, in 0..1.
        """
        self._place, self._share = place, share
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()  # guards the rows, which another thread writes
        self._full = asyncio.Event()
        self._pause = 0.0  # over 0 while the place is unavailable

    def add(self, version: str, label: str, statistics: Callable[[], dict[str, Any]]) -> None:
        """Logs an image's statistics if it falls into the random sample."""
        if random.random() >= self._share:
            return
        day = datetime.now(UTC).date().isoformat()
        self._keep([{"day": day, "version": version, "label": label, **statistics()}])
        if len(self._rows) >= _ROWS_A_FILE:
            self._full.set()

    async def write(self) -> None:
        """Writes waiting rows from time to time; when cancelled, it writes the last rows and ends.

        While the place is unavailable it retries at growing intervals, and the server's log says so once.
        Dropped rows are counted in a metric.
        """
        try:
            while True:
                # Before Python 3.12, `asyncio.wait_for` loses a cancellation that comes as the event is set.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SECONDS_A_FILE):
                        await self._full.wait()
                self._full.clear()
                while not await asyncio.to_thread(self._flush):
                    await asyncio.sleep(self._pause)
        finally:
            if not self._pause:  # an unavailable place would keep the server from stopping
                self._flush()
            metrics.FEATURE_ROWS_DROPPED.inc(len(self._rows))

    def _keep(self, rows: list[dict[str, Any]], *, first: bool = False) -> None:
        with self._lock:
            self._rows = [*rows, *self._rows] if first else [*self._rows, *rows]
            dropped = max(0, len(self._rows) - _MOST_ROWS)
            del self._rows[:dropped]
        metrics.FEATURE_ROWS_DROPPED.inc(dropped)

    def _flush(self) -> bool:
        """Writes the waiting rows and returns whether that succeeded; if not, keeps them."""
        with self._lock:
            rows, self._rows = self._rows, []
        if not rows:
            return True
        name = f"{rows[0]['day']}-{uuid.uuid4().hex}.jsonl"
        try:
            create(self._place / name, "".join(json.dumps(row) + "\n" for row in rows).encode())
        except Exception as error:  # no failure of the log may take the server down
            if not self._pause:
                reason = " ".join(str(error).split())
                logger.error(
                    "the feature log cannot be written to %s; will retry: %s",
                    self._place,
                    reason,
                )
            self._pause = min(2 * self._pause or _FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS)
            self._keep(rows, first=True)
            return False
        if self._pause:
            logger.info("the feature log can be written to %s again", self._place)
        self._pause = 0.0
        return True
