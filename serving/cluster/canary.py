"""Judges a canary: what its pods count, and which counts make it fail or leave it unproven.

These are pure functions; `serving.cluster.watch` queries the pods.
"""

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

# Counters of one server process: from a metric's name and label to its value.
Counters: TypeAlias = Mapping[tuple[str, str], float]

# With fewer, nothing is concluded.
LEAST_REQUESTS, LEAST_PREDICTIONS = 20, 100
_MORE_ERRORS = 0.01
_SLOWER, _SECONDS_SLOWER = 2.0, 0.05
_DRIFT = 0.2

_REQUESTS, _ERRORS, _SECONDS, _CLASSES = "requests", "errors", "seconds", "classes"


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at one pod.

    Attributes:
      name, uid, ready, restarts, trouble: see `serving.cluster.inference_service.Pod`.
      counters: of its server; None if it did not answer.
    """

    name: str
    uid: str
    ready: bool
    restarts: int
    trouble: str = ""
    counters: Counters | None = None


def counters(metrics: str) -> Counters:
    """Returns the counters in a server's `/metrics`: the requests that ran the model, and failed ones.

    Probes and pages are not counted: Kubernetes probes every pod several times a minute.
    """
    counted: dict[tuple[str, str], float] = collections.defaultdict(float)
    for family in text_string_to_metric_families(metrics):
        for name, labels, value, *_ in family.samples:
            if name in ("request_predict_seconds_count", "request_explain_seconds_count"):
                counted[_REQUESTS, name] += value
            elif name == "request_predict_seconds_sum":
                counted[_SECONDS, ""] += value
            elif name == "cxrflow_requests_total" and labels["status"].startswith("5"):
                counted[_ERRORS, labels["status"]] += value
            elif name == "cxrflow_predictions_total":
                counted[_CLASSES, labels["class"]] += value
    return counted


def increase(before: Counters | None, now: Counters, *, restarted: bool = False) -> Counters:
    """Returns how much the counters of a pod have grown between two looks, as Prometheus' `increase` does.

    A counter that has fallen was reset to zero, so all of its value is new. All counters of a process are
    reset together, so one that has fallen, or a known restart, resets all of them. Without an earlier look
    nothing counts as new.
    """
    if before is None:
        return {}
    if restarted or any(now.get(key, 0.0) < value for key, value in before.items()):
        return dict(now)
    return {key: value - before.get(key, 0.0) for key, value in now.items()}


@dataclass(kw_only=True)
class Evidence:
    """What the pods of one version showed while it was watched.

    Attributes:
      counted: the increases of all pods, including those that are gone.
      restarted: Kubernetes' reason for each pod whose server was restarted since the pod was created.
      unready: Kubernetes' reason for each pod that was ready and no longer is.
      silent, mute: ready pods that did not answer at the last look, and at the last two looks.
    """

    counted: dict[tuple[str, str], float] = field(
        default_factory=lambda: collections.defaultdict(float)
    )
    restarted: dict[str, str] = field(default_factory=dict)
    unready: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    mute: set[str] = field(default_factory=set)
    _last: dict[str, Look] = field(default_factory=dict)

    def add(self, looks: Sequence[Look]) -> None:
        """Adds a look at all pods of the version."""
        was_silent, self.silent = self.silent, set()
        for look in looks:
            before = self._last.get(look.uid)
            if look.restarts:
                self.restarted[look.name] = f"{look.restarts} times; {look.trouble}".rstrip("; ")
            if before and before.ready and not look.ready:
                self.unready[look.name] = look.trouble
            if look.ready and look.counters is None:
                self.silent.add(look.name)
            if look.counters is not None:
                grown = increase(
                    before.counters if before else None,
                    look.counters,
                    restarted=before is not None and look.restarts > before.restarts,
                )
                for key, value in grown.items():
                    self.counted[key] += value
            elif before:  # the next increase is measured from the last known counters
                look = replace(look, restarts=before.restarts, counters=before.counters)
            self._last[look.uid] = look
        self.mute = self.silent & was_silent

    @property
    def requests(self) -> float:
        """Requests that ran the model."""
        return self._of(_REQUESTS)

    @property
    def errors(self) -> float:
        """Requests that the server failed: status 5xx."""
        return self._of(_ERRORS)

    @property
    def predictions(self) -> float:
        """Requests for a prediction, whose total time is `seconds`."""
        return self.counted[_REQUESTS, "request_predict_seconds_count"]

    @property
    def seconds(self) -> float:
        """The total time of all predictions."""
        return self._of(_SECONDS)

    @property
    def classes(self) -> dict[str, float]:
        """Predicted images, by class."""
        return {label: value for (kind, label), value in self.counted.items() if kind == _CLASSES}

    @property
    def failing(self) -> float:
        """The share of requests that failed, in 0..1, including those that failed before the model ran."""
        most = max(self.requests, self.errors)
        return self.errors / most if most else 0.0

    def _of(self, kind: str) -> float:
        return sum(value for (of, _), value in self.counted.items() if of == kind)


# The beginning of reasons that may be the cluster's fault, not the version's.
NOT_READY = "not ready"


def why_not(candidate: Evidence, stable: Evidence) -> str | None:
    """Returns why a canary must be rolled back, or None.

    Crashes: its server was restarted, or does not answer. Readiness: one of its pods was ready and no longer
    is. Errors: its share of failed requests is more than 0.01 higher than the stable version's. Latency: a
    prediction takes more than twice as long, and over 50 ms longer. Drift: a class's share of the predictions
    differs by more than 0.2 (TFDV's L-infinity distance for categories). Nothing is concluded from fewer than
    `LEAST_REQUESTS` requests or `LEAST_PREDICTIONS` images.
    """
    if candidate.restarted:
        return f"its server was restarted: {_named(candidate.restarted)}"
    if candidate.mute:
        return f"its server does not answer /metrics: {', '.join(sorted(candidate.mute))}"
    if candidate.unready:
        return f"{NOT_READY} any more: {_named(candidate.unready)}"
    asked = max(candidate.requests, candidate.errors)
    if asked >= LEAST_REQUESTS and candidate.failing > stable.failing + _MORE_ERRORS:
        return (
            f"{100 * candidate.failing:.1f} % of its {asked:.0f} requests failed; stable version: "
            f"{100 * stable.failing:.1f} %"
        )
    if min(candidate.predictions, stable.predictions) >= LEAST_REQUESTS:
        mean = candidate.seconds / candidate.predictions
        usual = stable.seconds / stable.predictions
        if mean > _SLOWER * usual and mean > usual + _SECONDS_SLOWER:
            return f"a prediction takes {1000 * mean:.0f} ms; stable version: {1000 * usual:.0f} ms"
    total, usual_total = sum(candidate.classes.values()), sum(stable.classes.values())
    if min(total, usual_total) >= LEAST_PREDICTIONS:
        for name in sorted({*candidate.classes, *stable.classes}):
            share = candidate.classes.get(name, 0) / total
            usual = stable.classes.get(name, 0) / usual_total
            if abs(share - usual) > _DRIFT:
                return (
                    f"it predicts {name} for {100 * share:.0f} % of its images; stable version: "
                    f"{100 * usual:.0f} %"
                )
    return None


def unproven(candidate: Evidence, percent: int, shares: Sequence[float | None]) -> str | None:
    """Returns why there is too little evidence to promote a canary that has not failed, or None.

    Args:
      candidate: its evidence.
      percent: the share of the traffic that it should have.
      shares: the share that the route gave it at each look; None if the route did not list it.
    """
    least = min((share or 0.0 for share in shares), default=0.0)
    if least < percent:
        return f"the route gave it only {least:.0f} % of the traffic"
    if candidate.requests < LEAST_REQUESTS:
        return f"only {candidate.requests:.0f} requests came; at least {LEAST_REQUESTS} are needed"
    return None


def _named(pods: Mapping[str, str]) -> str:
    return ", ".join(f"{pod} ({why})" if why else pod for pod, why in sorted(pods.items()))
