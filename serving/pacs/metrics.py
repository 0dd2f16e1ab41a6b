"""Prometheus metrics of the worker. None has a label that comes from a patient's data."""

from prometheus_client import Counter, Gauge

ANSWERED = Counter("cxrflow_pacs_answered", "Images whose report and capture were stored.")
UNUSABLE = Counter("cxrflow_pacs_unusable", "Images that get no report, by reason.", ["reason"])
FAILED = Counter("cxrflow_pacs_failed", "Steps that failed and are tried again.", ["step"])
AWAY = Counter(
    "cxrflow_pacs_away", "Rounds that ended early, by the system that did not work.", ["system"]
)
WAITING = Gauge("cxrflow_pacs_waiting", "Images of the last round that still wait for an answer.")
LAST_ROUND = Gauge(
    "cxrflow_pacs_last_round_timestamp_seconds", "When a round last ended with nothing waiting."
)
