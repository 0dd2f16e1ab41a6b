"""Watches a release on the cluster: waits for its pods and for KServe, and queries the pods of a canary.

`serving.cluster.canary` judges what they show.
"""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from core.kubernetes_api import Conflict
from core.progress import Progress
from serving.cluster import canary, known_answers, route
from serving.cluster.inference_service import ROUTES, InferenceService, Manifest, Pod, shown
from serving.cluster.known_answers import Unfit
from serving.cluster.manifest import is_knative, manifest_of, predictor_name
from serving.cluster.policy import Policy
from serving.cluster.state import State, load

logger = logging.getLogger("cxrflow")

# Pods that may go away while they are asked for known answers.
_MOST_LOST = 3
# Without a ready pod for so long, a stable version is broken: a pod that is only replaced is back sooner.
_BROKEN_SECONDS = 120


class Unproven(Exception):
    """A canary has not failed, but there is too little evidence to promote it."""


class Watch:
    """Watches one version.

    Before each look it checks that the stored state is still the one it works on. If another rollout has
    changed the state, or someone the InferenceService, it raises Conflict.
    """

    def __init__(
        self,
        service: InferenceService,
        template: Manifest,
        version: str,
        policy: Policy,
        say: Callable[[str], None],
    ) -> None:
        """Names what is watched.

        Args:
          service, template: the InferenceService, and the platform team's part of it.
          version: of the model.
          policy: how long it may take to become ready, and how long a canary is watched.
          say: gets the results, in sentences.
        """
        self._service, self._template, self._version = service, template, version
        self._policy, self._say = policy, say
        self._is_standard = not is_knative(template)
        self._lost = 0
        self._broken = False

    def ready(self, state: State, needed: int) -> list[Pod]:
        """Returns the ready pods of the release once there are as many as needed.

        Raises:
          Unfit: there are too few in time.
        """
        until = time.monotonic() + self._policy.ready_seconds
        with Progress(f"waiting until version {self._version} is ready"):
            while True:
                pods = self._service.pods(self._version)
                ready = [pod for pod in pods if pod.ready]
                if len(ready) >= needed:
                    return ready
                if time.monotonic() > until:
                    trouble = "; ".join(f"{pod.name}: {pod.trouble}" for pod in pods if pod.trouble)
                    raise Unfit(
                        f"{canary.NOT_READY} after {self._policy.ready_seconds:g} s: {len(ready)} of "
                        f"{needed} pods; {trouble or _complaints(self._service.read())}"
                    )
                self.again(state)

    def check(self, pods: list[Pod], answers: list[dict[str, Any]]) -> None:
        """Checks the known answers of each pod.

        Raises:
          Unfit: an answer is wrong, missing or slow.
          Conflict: a pod was evicted or drained while it was asked.
        """
        path = f"/v1/models/{self._service.name}:predict"
        for pod in pods:
            ask = functools.partial(self._service.post, pod.name, path)
            try:
                self._say(known_answers.check(ask, answers, pod.name))
            except Unfit:
                there = {other.uid for other in self._service.pods(self._version)}
                self._lost += pod.uid not in there
                # A pod that a node evicts each time it is asked is the version's fault after all.
                if pod.uid in there or self._lost > _MOST_LOST:
                    raise
                raise Conflict from None

    def require_steady(self, state: State, needed: int) -> None:
        """Checks that as many pods as needed are ready, and that no server was restarted.

        Raises:
          Unfit: there are too few in time, or a server was restarted.
        """
        evidence = canary.Evidence()
        evidence.add([self._look(pod) for pod in self.ready(state, needed)])
        reason = canary.why_not(evidence, canary.Evidence())
        if reason:
            raise Unfit(reason)

    def is_broken(self, state: State) -> bool:
        """Returns whether the stable version has no ready pod, if that is so for two minutes.

        KServe writes no route then. In Knative mode a version without pods may only be idle.
        """
        if not self._is_standard:
            return False
        stable = state.stable.version
        until = time.monotonic() + min(_BROKEN_SECONDS, self._policy.ready_seconds)
        with Progress(f"waiting for version {stable}, which is not ready"):
            while True:
                there = self._service.read()
                ready = there is not None and route.is_stable_ready(there)
                if ready or any(pod.ready for pod in self._service.pods(stable)):
                    self._broken = False
                    return False
                if self._broken or time.monotonic() > until:
                    self._broken = True
                    return True
                self.again(state)

    def splits(self, state: State) -> bool:
        """Returns whether KServe lists the candidate in the route, once KServe has seen it ready.

        Raises:
          Unfit: KServe has not seen it ready in time.
        """
        assert state.candidate
        if not self._is_standard:
            return True
        name = predictor_name(state.candidate)
        until = time.monotonic() + self._policy.ready_seconds
        with Progress(f"waiting until KServe finds version {self._version} ready"):
            while True:
                there = self._service.read()
                if there and route.is_seen_ready(there, name, state.percent):
                    return self._share(state) is not None
                if time.monotonic() > until:
                    raise Unfit(
                        f"{canary.NOT_READY} for KServe after {self._policy.ready_seconds:g} s, although its "
                        f"pods are; {_complaints(there)}"
                    )
                self.again(state)

    def watch(self, state: State) -> None:
        """Watches the candidate at its share of the traffic.

        Raises:
          Unfit: it does worse than the stable version.
          Unproven: there is too little evidence.
        """
        candidate, stable = canary.Evidence(), canary.Evidence()
        shares: list[float | None] = []
        with Progress(f"watching version {self._version} at {state.percent} %"):
            until = time.monotonic() + self._policy.ready_seconds
            while (self._share(state) or 0.0) < state.percent and time.monotonic() < until:
                self.again(state)
            until = time.monotonic() + self._policy.step_seconds
            while True:
                is_last = bool(shares) and time.monotonic() > until and not candidate.silent
                candidate.add(self._looks(self._version))
                stable.add(self._looks(state.stable.version))
                shares.append(self._share(state))
                reason = canary.why_not(candidate, stable)
                if reason:
                    raise Unfit(reason)
                if is_last and not candidate.silent:
                    break
                self.again(state)
        self._say(
            f"at {state.percent} %: {candidate.requests:.0f} requests, {candidate.errors:.0f} failed; "
            f"version {state.stable.version}: {stable.requests:.0f}, {stable.errors:.0f} failed"
        )
        missing = canary.unproven(candidate, state.percent, shares)
        if missing and not self._policy.unseen:
            raise Unproven(f"at {state.percent} % {missing}")
        if missing:
            self._say(f"continues unseen: at {state.percent} % {missing}")

    def _share(self, state: State) -> float | None:
        """Returns the share of the traffic that the candidate really gets, in percent, or None."""
        assert state.candidate
        if not self._is_standard:
            there = self._service.read()
            return route.knative_share(there) if there else None
        name = predictor_name(state.candidate)
        return route.share(self._service.items(ROUTES), self._service.name, name)

    def _looks(self, version: str) -> list[canary.Look]:
        return [self._look(pod) for pod in self._service.pods(version)]

    def _look(self, pod: Pod) -> canary.Look:
        metrics = ""
        if pod.ready:
            try:
                metrics = self._service.get(pod.name, "/metrics")
            except Unfit as error:
                logger.info("%s does not answer /metrics: %s", pod.name, error)
        return canary.Look(**vars(pod), counters=canary.counters(metrics) if metrics else None)

    def again(self, state: State) -> None:
        """Waits for the next look.

        Raises:
          Conflict: the state was changed meanwhile, or the InferenceService no longer follows it.
        """
        time.sleep(self._policy.poll_seconds)
        there = self._service.read()
        stored = load(self._service)
        if not there or not stored or stored.resource_version != state.resource_version:
            raise Conflict
        if shown(there) != shown(manifest_of(self._template, state, there)):
            raise Conflict

    def settled(self, state: State) -> bool:
        """Waits until the route sends all traffic to the stable version; returns whether it did in time."""
        name = predictor_name(state.stable)
        until = time.monotonic() + self._policy.ready_seconds
        while self._is_standard and not route.is_settled(
            self._service.items(ROUTES), self._service.name, name
        ):
            if time.monotonic() > until:
                return False
            self.again(state)
        return True


def _complaints(service: Manifest | None) -> str:
    """Returns what KServe says is wrong with an InferenceService."""
    status = (service or {}).get("status", {})
    failure = status.get("modelStatus", {}).get("lastFailureInfo", {}).get("message")
    said = [
        f"{condition['type']}: {reason}"
        for condition in status.get("conditions", [])
        if condition["status"] == "False"
        and (reason := condition.get("message") or condition.get("reason"))
    ]
    return "KServe says " + "; ".join([*([failure] if failure else []), *said] or ["nothing"])
