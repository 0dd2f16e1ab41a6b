"""Metrics of the rollout on the cluster.

The state of a rollout is a ConfigMap (see `serving.cluster.state`). The ServingRuntime mounts it, so the
server needs no permission and no connection to read it. Kubernetes updates the files within about a minute.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class RolloutMetrics(Collector):
    """Reads the state each time that metrics are scraped."""

    def __init__(self, directory: Path) -> None:
        """Names the directory.

        Args:
          directory: has a file for each key of the ConfigMap. Without a rollout it is empty.
        """
        self._directory = directory

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yields the candidate's share of the traffic, if there is one, and how the last rollout ended.

        If the state is missing or damaged, neither has a value.
        """
        candidate = GaugeMetricFamily(
            "cxrflow_rollout_candidate_percent",
            "The share of the traffic that a candidate should have, in percent.",
            labels=["candidate"],
        )
        ended = GaugeMetricFamily(
            "cxrflow_rollout_ended_timestamp_seconds",
            "When the last rollout ended, in seconds since the epoch, by its outcome.",
            labels=["candidate", "outcome"],
        )
        try:
            if (self._directory / "candidate").exists():
                release = json.loads((self._directory / "candidate").read_text())
                percent = float((self._directory / "percent").read_text())
                candidate.add_metric([release["version"]], percent)
            last = json.loads((self._directory / "last-rollout").read_text())
            if "at" in last:  # a version that was found on the cluster has no time
                at = datetime.fromisoformat(last["at"]).timestamp()
                ended.add_metric([last["version"], last["outcome"]], at)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        yield candidate
        yield ended
