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
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.locations import create

logger = logging.getLogger("cxrflow.serving")

_ROWS_A_FILE = 500
_SECONDS_A_FILE = 300.0
# While its place cannot be reached, rows are kept up to this many; then the oldest are dropped.
_MOST_ROWS = 10_000


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
        self._full = asyncio.Event()

    def add(self, version: str, label: str, statistics: Callable[[], dict[str, Any]]) -> None:
        """Keeps an image's statistics, or not, by lot."""
        if random.random() >= self._share:
            return
        day = datetime.now(UTC).date().isoformat()
        self._rows.append({"day": day, "version": version, "label": label, **statistics()})
        del self._rows[:-_MOST_ROWS]
        if len(self._rows) >= _ROWS_A_FILE:
            self._full.set()

    async def write(self) -> None:
        """Writes what has come, now and then; cancelled, it ends after the last rows."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), _SECONDS_A_FILE)
                self._full.clear()
                await asyncio.to_thread(self._flush)
        finally:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        name = f"{rows[0]['day']}-{uuid.uuid4().hex}.jsonl"
        try:
            create(self._place / name, "".join(json.dumps(row) + "\n" for row in rows).encode())
        except Exception as error:  # the log must not take the server down, wherever it lies
            logger.error("the feature log cannot be written to %s: %s", self._place, error)
            self._rows = [*rows, *self._rows][-_MOST_ROWS:]
