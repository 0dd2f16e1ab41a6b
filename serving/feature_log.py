"""What validation may compare with the training data of what is served: statistics of images alone.

A sample of the images that were answered is kept, a row each: `day`, `version`, `label`, and as ingest
records them `width`, `height`, `mode`, `brightness`, `contrast` and `frame`. No pixel, no name, no header
and no time of day is kept. Files of JSON lines are written whole, one after the other, where the setting
`CXRFLOW_FEATURE_LOG` says: a directory, or a place at `gs://` or `s3://`.
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
# While its place cannot be reached, rows are kept up to this many; then the oldest are dropped.
_MOST_ROWS = 10_000
# Then it is tried again after this long, doubled each time up to the last.
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 5.0, 300.0


class FeatureLog:
    """Rows that wait to be written, and where to."""

    def __init__(self, place: Path, share: float) -> None:
        """Makes an empty log.

        Args:
          place: a directory, made where missing.
          share: of the images that are kept, in 0..1.
        """
        self._place, self._share = place, share
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()  # of the rows, which are written in a thread
        self._full = asyncio.Event()
        self._pause = 0.0  # over 0 while the place is away

    def add(self, version: str, label: str, statistics: Callable[[], dict[str, Any]]) -> None:
        """Keeps an image's statistics, or not, by lot."""
        if random.random() >= self._share:
            return
        day = datetime.now(UTC).date().isoformat()
        self._keep([{"day": day, "version": version, "label": label, **statistics()}])
        if len(self._rows) >= _ROWS_A_FILE:
            self._full.set()

    async def write(self) -> None:
        """Writes what has come, now and then; cancelled, it ends after the last rows.

        While the place is away it is tried less and less often, however much comes, and the log of the
        server says so once. Rows that are dropped are counted in a metric.
        """
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), _SECONDS_A_FILE)
                self._full.clear()
                while not await asyncio.to_thread(self._flush):
                    await asyncio.sleep(self._pause)
        finally:
            if not self._pause:  # a place that is away would keep the server from stopping
                self._flush()
            metrics.FEATURE_ROWS_DROPPED.inc(len(self._rows))

    def _keep(self, rows: list[dict[str, Any]], *, first: bool = False) -> None:
        with self._lock:
            self._rows = [*rows, *self._rows] if first else [*self._rows, *rows]
            dropped = max(0, len(self._rows) - _MOST_ROWS)
            del self._rows[:dropped]
        metrics.FEATURE_ROWS_DROPPED.inc(dropped)

    def _flush(self) -> bool:
        """Writes what has come and returns whether that went well; if not, it is kept."""
        with self._lock:
            rows, self._rows = self._rows, []
        if not rows:
            return True
        name = f"{rows[0]['day']}-{uuid.uuid4().hex}.jsonl"
        try:
            create(self._place / name, "".join(json.dumps(row) + "\n" for row in rows).encode())
        except Exception as error:  # the log must not take the server down, wherever it lies
            if not self._pause:
                reason = " ".join(str(error).split())
                logger.error(
                    "the feature log cannot be written to %s and is tried again: %s",
                    self._place,
                    reason,
                )
            self._pause = min(2 * self._pause or _FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS)
            self._keep(rows, first=True)
            return False
        if self._pause:
            logger.info("the feature log is written to %s again", self._place)
        self._pause = 0.0
        return True
