"""Rolling a version out on KServe: straight where none is served, else as a canary that is watched.

All state is on the InferenceService itself, so that whoever is killed can be run again, and two at once
see each other: each look at the object decides what to do next, and each change is of the object as it
was read. The later decision wins.
"""

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from core.errors import UserError
from core.kubernetes_api import Conflict
from serving.cluster import known_answers
from serving.cluster.inference_service import (
    VERSION_LABEL,
    InferenceService,
    Manifest,
    Pod,
)
from serving.cluster.known_answers import Unfit
from serving.cluster.policy import Policy

logger = logging.getLogger("cxrflow")

SERVED, ROLLED_BACK = "served", "rolled back"

# Annotations, which hold the state.
STABLE, CANDIDATE, OUTCOME = "cxrflow/stable", "cxrflow/candidate", "cxrflow/last-rollout"
_MODE = "serving.kserve.io/deploymentMode"

# Fewer tell nothing.
_LEAST_REQUESTS, _LEAST_PREDICTIONS = 20, 100
_MORE_ERRORS = 0.01
_SLOWER, _SECONDS_SLOWER = 2.0, 0.05
_DRIFT = 0.2


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version of the model that shall be served, and why.

    Attributes:
      version: its number in the model store.
      uri: where KServe finds it.
      decided: when the gate, or a person, decided for it: ISO 8601 in UTC.
      reason: that decision, in a sentence.
      run: of the pipeline, where it is from one.
      fingerprint: of the data it was trained on.
    """

    version: str
    uri: str
    decided: str
    reason: str
    run: str = ""
    fingerprint: str = ""


class RolledBack(UserError):
    """A version was judged while it was served, or taken back by hand: the same again is of no use."""


# How the reason begins where a version never got ready, which may be the cluster's fault.
_NOT_READY = "not ready after"


@dataclass(frozen=True, kw_only=True)
class State:
    """What the object says of a rollout.

    Attributes:
      stable: what is served.
      candidate: what is tried beside it, if anything, with `percent` of the traffic.
      outcome: of the last rollout, if one ended: `version`, `decided`, `outcome` (`SERVED` or
        `ROLLED_BACK`), `reason` and `at`.
      uid, resource_version: of the object, if there is one.
    """

    stable: Release
    candidate: Release | None = None
    percent: int = 0
    outcome: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""
    resource_version: str = ""


def state_of(manifest: Manifest) -> State:
    """Returns the state that an InferenceService is in.

    Raises:
      UserError: it was not made by this program.
    """
    notes = manifest["metadata"].get("annotations", {})
    if STABLE not in notes:
        raise UserError(
            f"deploy: the InferenceService {manifest['metadata']['name']} was not made by cxrflow; delete "
            "it, or choose another name"
        )
    predictor = manifest["spec"]["predictor"]
    canaries = manifest["spec"].get("canary", [])
    percent = (
        canaries[0]["trafficPercent"] if canaries else predictor.get("canaryTrafficPercent", 0)
    )
    return State(
        stable=Release(**json.loads(notes[STABLE])),
        candidate=Release(**json.loads(notes[CANDIDATE])) if CANDIDATE in notes else None,
        percent=percent,
        outcome=json.loads(notes.get(OUTCOME, "{}")),
        uid=manifest["metadata"].get("uid", ""),
        resource_version=manifest["metadata"].get("resourceVersion", ""),
    )


def manifest_of(template: Manifest, state: State) -> Manifest:
    """Returns the InferenceService that has a state, whole: what is left out is taken off the cluster.

    Args:
      template: what the platform team wants, with the deployment mode: `Standard` has a canary beside
        the predictor, under a name of its own, which it keeps when it is promoted, so that its pods
        stay; `Knative` splits traffic between the revisions of one predictor.
      state: to be in.
    """
    meta, spec = template["metadata"], template["spec"]
    notes = {STABLE: json.dumps(asdict(state.stable))}
    if state.candidate:
        notes[CANDIDATE] = json.dumps(asdict(state.candidate))
    if state.outcome:
        notes[OUTCOME] = json.dumps(dict(state.outcome))
    made: Manifest = {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {**meta, "annotations": {**meta.get("annotations", {}), **notes}},
    }
    if state.uid:  # both are preconditions; without, an object that was deleted would be made again
        made["metadata"].update(uid=state.uid, resourceVersion=state.resource_version)
    if _is_knative(template):
        predictor = _predictor(spec["predictor"], state.candidate or state.stable)
        if state.candidate:
            predictor["canaryTrafficPercent"] = state.percent
        made["spec"] = {**spec, "predictor": predictor}
        return made
    predictor = _predictor(spec["predictor"], state.stable)
    made["spec"] = {**spec, "predictor": {"name": _name(state.stable), **predictor}}
    if state.candidate:
        canary = _predictor(spec["predictor"], state.candidate)
        for scaled in ("maxReplicas", "scaleMetric", "scaleTarget", "autoScaling"):
            canary.pop(scaled, None)  # a canary has a fixed number
        canary.update(name=_name(state.candidate), minReplicas=1)
        made["spec"]["canary"] = [{"predictor": canary, "trafficPercent": state.percent}]
    return made


def _predictor(wanted: Manifest, release: Release) -> Manifest:
    return {
        **wanted,
        "labels": {**wanted.get("labels", {}), VERSION_LABEL: release.version},
        "model": {**wanted["model"], "storageUri": release.uri},
    }


def _name(release: Release) -> str:
    return f"v{release.version}"


def _is_knative(template: Manifest) -> bool:
    return template["metadata"].get("annotations", {}).get(_MODE) in ("Knative", "Serverless")


@dataclass(kw_only=True)
class Traffic:
    """What pods of a version have answered, counted since they started or between two looks.

    Attributes:
      requests, errors: HTTP requests, and those among them that failed by the server's fault.
      predictions: predict requests, and the `seconds` they took together.
      classes: images by predicted class.
    """

    requests: float = 0
    errors: float = 0
    predictions: float = 0
    seconds: float = 0
    classes: dict[str, float] = field(default_factory=dict)

    def since(self, before: "Traffic") -> "Traffic":
        """Returns what came since an earlier look; all of it where a pod was restarted."""
        if self.requests < before.requests:
            return self
        return Traffic(
            requests=self.requests - before.requests,
            errors=self.errors - before.errors,
            predictions=self.predictions - before.predictions,
            seconds=self.seconds - before.seconds,
            classes={
                name: count - before.classes.get(name, 0) for name, count in self.classes.items()
            },
        )


def traffic_in(metrics: str, traffic: Traffic) -> None:
    """Adds what a server's `/metrics` says to `traffic`."""
    for family in text_string_to_metric_families(metrics):
        for name, labels, value, *_ in family.samples:
            if name == "cxrflow_requests_total":
                traffic.requests += value
                traffic.errors += value if labels["status"].startswith("5") else 0
            elif name == "request_predict_seconds_count":
                traffic.predictions += value
            elif name == "request_predict_seconds_sum":
                traffic.seconds += value
            elif name == "cxrflow_predictions_total":
                label = labels["class"]
                traffic.classes[label] = traffic.classes.get(label, 0) + value


def why_not(candidate: Traffic, stable: Traffic) -> str | None:
    """Returns what is wrong with a canary's answers beside the stable version's, or None.

    Errors: over one request in a hundred more of its requests fail. Latency: a prediction takes more
    than twice as long. Drift: a class's share of the predictions differs by more than 0.2 (the
    L-infinity distance, as TFDV has it for categories). Of too few requests nothing is said.
    """
    if candidate.requests >= _LEAST_REQUESTS:
        share = candidate.errors / candidate.requests
        usual = stable.errors / stable.requests if stable.requests else 0.0
        if share > usual + _MORE_ERRORS:
            return (
                f"{100 * share:.1f} % of its {candidate.requests:.0f} requests failed, of the stable "
                f"version's {100 * usual:.1f} %"
            )
    if min(candidate.predictions, stable.predictions) >= _LEAST_REQUESTS:
        mean = candidate.seconds / candidate.predictions
        usual = stable.seconds / stable.predictions
        if mean > _SLOWER * usual and mean > usual + _SECONDS_SLOWER:
            return (
                f"a request takes it {1000 * mean:.0f} ms, the stable version {1000 * usual:.0f} ms"
            )
    total, usual_total = sum(candidate.classes.values()), sum(stable.classes.values())
    if min(total, usual_total) >= _LEAST_PREDICTIONS:
        for name in sorted({*candidate.classes, *stable.classes}):
            share = candidate.classes.get(name, 0) / total
            usual = stable.classes.get(name, 0) / usual_total
            if abs(share - usual) > _DRIFT:
                return (
                    f"it calls {100 * share:.0f} % of its images {name}, the stable version "
                    f"{100 * usual:.0f} %"
                )
    return None


def roll_out(
    service: InferenceService,
    release: Release,
    policy: Policy,
    answers: list[dict[str, Any]] | None,
    said: list[str],
) -> None:
    """Has a release served, from wherever an earlier attempt left it; does nothing if it is.

    Args:
      service: to serve it.
      release: to be served.
      policy: how.
      answers: what it is known to answer (see `serving.cluster.known_answers`); None: it is not asked.
      said: gets what was done, in sentences.

    Raises:
      RolledBack: it was rolled back.
      UserError: it never got ready, was superseded by a later decision, or its InferenceService was
        deleted meanwhile.
    """
    _Rollout(service, release, policy, answers, said).run()


def promote(service: InferenceService) -> Release:
    """Gives a canary all of the traffic at once, by hand; returns it.

    Raises:
      UserError: there is none, or the InferenceService is changed at the same time.
    """
    state = _served(service)
    if not state.candidate:
        raise UserError(
            f"promote: {service} has no canary; version {state.stable.version} is served"
        )
    _end(service, state, state.candidate, SERVED, "promoted by hand")
    return state.candidate


def take_back(service: InferenceService) -> Release:
    """Takes a canary away, by hand; returns the version that goes on.

    Raises:
      UserError: there is none, or the InferenceService is changed at the same time.
    """
    state = _served(service)
    if not state.candidate:
        raise UserError(
            f"rollback: {service} has no canary; name the version to go back to: cxrflow rollback VERSION"
        )
    _end(service, state, state.stable, ROLLED_BACK, "taken back by hand")
    return state.stable


def go_back(service: InferenceService, version: str, policy: Policy, said: list[str]) -> None:
    """Has an earlier version of the store served, by hand, as soon as it is ready.

    Args:
      service: that serves another version of the same store.
      version: its number.
      policy: how long it may take to get ready.
      said: gets what was done, in sentences.

    Raises:
      UserError: as `roll_out`, which this is without shares of the traffic and without questions.
    """
    home = _served(service).stable.uri.rpartition("/")[0]
    release = Release(
        version=version, uri=f"{home}/{version}", decided=now(), reason="gone back to by hand"
    )
    roll_out(service, release, dataclasses.replace(policy, steps=()), None, said)


def _served(service: InferenceService) -> State:
    found = service.read()
    if not found:
        raise UserError(f"there is no {service}; deploy a version first: cxrflow submit")
    return state_of(found)


def _end(
    service: InferenceService, state: State, stable: Release, outcome: str, reason: str
) -> None:
    assert state.candidate
    known = _outcome(state.candidate, outcome, reason)
    ended = dataclasses.replace(state, stable=stable, candidate=None, percent=0, outcome=known)
    try:
        service.apply(manifest_of(service.template(), ended))
    except Conflict as error:
        raise UserError(f"{service} was changed at the same time; try again") from error


def _outcome(release: Release, outcome: str, reason: str) -> dict[str, str]:
    return {
        "version": release.version,
        "decided": release.decided,
        "outcome": outcome,
        "reason": reason,
        "at": now(),
    }


def _rolled_back(reason: str) -> type[UserError]:
    return UserError if reason.startswith(_NOT_READY) else RolledBack


class _Rollout:
    def __init__(
        self,
        service: InferenceService,
        release: Release,
        policy: Policy,
        answers: list[dict[str, Any]] | None,
        said: list[str],
    ) -> None:
        self._service, self._release, self._policy = service, release, policy
        self._answers, self._said = answers, said
        self._template = service.template()

    def run(self) -> None:
        seen = False
        while True:
            found = self._service.read()
            if found is None and seen:
                raise UserError(
                    f"deploy: {self._service} was deleted meanwhile, by someone else: nothing is served. "
                    "Run it again to deploy anew."
                )
            try:
                if found is None:
                    self._begin()
                elif self._goes_on(state_of(found)):
                    return
            except Conflict:
                logger.info("the InferenceService was changed meanwhile; looking again")
            seen = True

    def _begin(self) -> None:
        self._say("nothing is served yet: served straight")
        first = State(stable=self._release)
        self._service.apply(manifest_of(self._template, first))

    def _goes_on(self, state: State) -> bool:
        """Takes the next step; returns whether it was the last."""
        release = self._release
        if state.outcome.get("outcome") == ROLLED_BACK and _is(state.outcome, release):
            raise _rolled_back(state.outcome["reason"])(
                f"deploy: version {release.version} was rolled back: {state.outcome['reason']}"
            )
        for one in (state.stable, state.candidate):
            if one and one.version == release.version and one.uri != release.uri:
                raise UserError(
                    f"deploy: version {release.version} of another store is served, {one.uri}, and this is "
                    f"{release.uri}; keep to one store, or delete {self._service}"
                )
        holder = state.candidate or state.stable
        if holder.version != release.version and holder.decided > release.decided:
            raise UserError(
                f"deploy: version {release.version} is superseded by version {holder.version}, which was "
                f"decided for later ({holder.decided}); nothing was changed"
            )
        if state.candidate and state.candidate.version == release.version:
            self._try(state)
        elif state.stable.version != release.version:
            self._say(f"beside version {state.stable.version}, without traffic")
            self._write(state, candidate=release, percent=0)
        elif _is(state.outcome, release):
            self._say("it is served")
            return True
        elif state.outcome:
            self._write_outcome(state, release, SERVED, release.reason)  # it is served already
        else:
            self._confirm(state)
        return False

    def _confirm(self, state: State) -> None:
        """Sees a first version ready and right; where it is wrong, nothing is served."""
        pods = self._ready()
        try:
            self._check(pods)
        except Unfit as error:
            self._service.delete()
            raise UserError(f"{error}: {self._service} is deleted, nothing is served") from error
        self._write_outcome(state, self._release, SERVED, self._release.reason)

    def _try(self, state: State) -> None:
        try:
            pods = self._ready()
            if state.percent == 0:
                self._check(pods)
            else:
                self._watch(state)
        except Unfit as error:
            self._say(f"rolled back: {error}")
            self._write_outcome(state, state.stable, ROLLED_BACK, str(error))
            raise _rolled_back(str(error))(
                f"deploy: version {self._release.version} is rolled back, version "
                f"{state.stable.version} goes on: {error}"
            ) from error
        later = [step for step in self._policy.steps if step > state.percent]
        if later:
            self._say(f"{later[0]} % of the traffic")
            self._write(state, candidate=self._release, percent=later[0])
        else:
            self._say("promoted")
            self._write_outcome(state, self._release, SERVED, self._release.reason)

    def _ready(self) -> list[Pod]:
        """Returns the pods of the release once they are ready."""
        until = time.monotonic() + self._policy.ready_seconds
        while True:
            pods = self._service.pods(self._release.version)
            if pods and all(pod.ready for pod in pods):
                return pods
            if time.monotonic() > until:
                trouble = "; ".join(pod.trouble for pod in pods if pod.trouble)
                raise Unfit(
                    f"{_NOT_READY} {self._policy.ready_seconds:g} s: "
                    f"{trouble or f'{len(pods)} pods, none says why'}"
                )
            self._look_again()

    def _check(self, pods: list[Pod]) -> None:
        if self._answers is None:
            return
        path = f"/v1/models/{self._service.name}:predict"
        for pod in pods:
            ask = functools.partial(self._service.post, pod.name, path)
            self._say(known_answers.check(ask, self._answers, pod.name))

    def _watch(self, state: State) -> None:
        versions = (self._release.version, state.stable.version)
        before = [self._traffic(version) for version in versions]
        until = time.monotonic() + self._policy.step_seconds
        while True:
            ended = time.monotonic() > until
            now = [self._traffic(version) for version in versions]
            candidate, stable = (n.since(b) for n, b in zip(now, before, strict=True))
            reason = why_not(candidate, stable)
            if reason:
                raise Unfit(reason)
            if ended:
                self._say(
                    f"at {state.percent} %: {candidate.requests:.0f} requests, {candidate.errors:.0f} "
                    f"failed; version {state.stable.version}: {stable.requests:.0f}, "
                    f"{stable.errors:.0f} failed"
                )
                return
            self._look_again()

    def _traffic(self, version: str) -> Traffic:
        traffic = Traffic()
        for pod in self._service.pods(version):
            if pod.ready:
                traffic_in(self._service.get(pod.name, "/metrics"), traffic)
        return traffic

    def _look_again(self) -> None:
        """Waits for the next look, and notices who changed the object meanwhile."""
        time.sleep(self._policy.poll_seconds)
        found = self._service.read()
        versions = [release and release.version for release in _releases(found)]
        if self._release.version not in versions:
            raise Conflict

    def _write(self, state: State, **changes: Any) -> None:
        """Changes the object from a state that was read.

        Raises:
          Conflict: it is in another state by now. KServe writes the object's status all the time, which
            is none.
        """
        while True:
            try:
                self._service.apply(
                    manifest_of(self._template, dataclasses.replace(state, **changes))
                )
            except Conflict:
                found = self._service.read()
                newer = found and state_of(found)
                if not newer or not _same(newer, state):
                    raise
                state = newer
            else:
                return

    def _write_outcome(self, state: State, stable: Release, outcome: str, reason: str) -> None:
        known = _outcome(self._release, outcome, reason)
        self._write(state, stable=stable, candidate=None, percent=0, outcome=known)

    def _say(self, text: str) -> None:
        line = f"version {self._release.version}: {text}"
        self._said.append(f"{now()} {line}")
        logger.info("%s", line)


def _releases(found: Manifest | None) -> tuple[Release | None, Release | None]:
    if found is None:
        return None, None
    state = state_of(found)
    return state.stable, state.candidate


def _is(outcome: Mapping[str, str], release: Release) -> bool:
    known = (outcome.get("version"), outcome.get("decided"))
    return known == (release.version, release.decided)


def _same(one: State, other: State) -> bool:
    return (one.stable, one.candidate, one.percent) == (
        other.stable,
        other.candidate,
        other.percent,
    )


def now() -> str:
    """Returns the time as ISO 8601 in UTC, to the microsecond, so that decisions can be ordered."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
