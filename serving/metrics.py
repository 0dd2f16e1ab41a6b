"""Prometheus metrics, besides KServe's own latency histograms (`request_predict_seconds` etc.)."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("cxrflow_requests", "Answered requests, by HTTP status.", ["status"])
BATCH_SIZE = Histogram(
    "cxrflow_batch_size", "Images in a batch of the model.", ["verb"], buckets=(1, 2, 4, 8, 16, 32)
)
PREDICTIONS = Counter("cxrflow_predictions", "Predicted images, by class.", ["class"])
DOUBTED = Counter("cxrflow_doubted", "Predicted images that do not look like chest radiographs.")
TRUSTED = Gauge(
    "cxrflow_model_trusted",
    "Whether the version that is served has the verdict trusted: 1, else 0.",
)
EXPECTED = Gauge(
    "cxrflow_expected_share",
    "The share of the test split's images that got this label from the version that is served.",
    ["class"],
)
FEATURE_ROWS_DROPPED = Counter(
    "cxrflow_feature_rows_dropped", "Rows of the feature log that could not be written."
)
REJECTED = Counter("cxrflow_rejected", "Rejected requests, by reason.", ["reason"])

# These count from zero, because Prometheus does not see the first event of a series that begins with it.
REQUESTS.labels(500)
REQUESTS.labels(503)
REJECTED.labels("busy")
