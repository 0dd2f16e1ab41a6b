"""The sequence of a rollout on KServe: the first version is served at once, each later one as a canary.

Each step is decided from the stored state (`serving.cluster.state`) and from what the cluster shows. What it
decides is stored, then applied (`serving.cluster.reconcile`). So a rollout that is killed can be restarted,
and concurrent rollouts detect each other: the later decision wins. `serving.cluster.watch` looks at pods and
traffic, and `serving.cluster.canary` judges a canary.
"""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from core.errors import UserError
from core.kubernetes_api import Conflict, Unavailable
from serving.cluster import canary
from serving.cluster.inference_service import InferenceService, Manifest, Pod
from serving.cluster.known_answers import Unfit
from serving.cluster.manifest import is_knative, least_replicas
from serving.cluster.policy import Policy
from serving.cluster.reconcile import agreed, tidy
from serving.cluster.state import ROLLED_BACK, SERVED, Release, State, load, now, save, served
from serving.cluster.watch import Unproven, Watch
from serving.verdict import in_words, of_version, require_no_less

logger = logging.getLogger("cxrflow")


class RolledBack(UserError):
    """A version failed while it was served, or was rolled back by hand: a retry is of no use."""


def roll_out(
    service: InferenceService,
    release: Release,
    policy: Policy,
    answers: list[dict[str, Any]] | None,
    said: list[str],
    *,
    by_hand: bool = False,
) -> None:
    """Rolls a release out, from wherever an earlier attempt stopped; does nothing if it is served already.

    Args:
      service: that serves it.
      release: to be served.
      policy: how it is rolled out.
      answers: its known answers (see `serving.cluster.known_answers`); None: they are not checked.
      said: gets what was done, in sentences.
      by_hand: whether a person chose the release, which may then be less trusted than the version that is
        served.

    Raises:
      RolledBack: it was rolled back.
      verdict.LessTrusted: the version that is served is trusted more; nothing was changed.
      UserError: it was not ready in time, there was too little evidence to promote it, a later decision
        superseded it, its InferenceService was deleted meanwhile, or Kubernetes' API was unavailable for
        longer than the policy's `ready_seconds`; then a repeated call continues.
    """
    _Rollout(service, release, policy, answers, said, by_hand=by_hand).run()


def promote(service: InferenceService) -> Release:
    """Gives a canary all of the traffic, by hand, once it has the pods for it; returns it.

    Raises:
      UserError: there is no canary, or it does not become ready.
    """
    state = _served(service)
    if not state.candidate:
        raise UserError(
            f"promote: {service} has no canary; version {state.stable.version} is served"
        )
    release = dataclasses.replace(state.candidate, reason="promoted by hand")
    roll_out(service, release, Policy(steps=()), None, [], by_hand=True)
    return release


def take_back(service: InferenceService) -> Release:
    """Removes a canary, by hand; returns the version that stays served.

    Raises:
      UserError: there is no canary, or the InferenceService is changed at the same time.
    """
    state = _served(service)
    if not state.candidate:
        raise UserError(
            f"rollback: {service} has no canary; name the version to go back to: cxrflow rollback VERSION"
        )
    outcome = _outcome(state.candidate, ROLLED_BACK, "rolled back by hand")
    try:
        save(service, _alone(state, state.stable, outcome))
    except Conflict as error:
        raise UserError(f"{service} was changed at the same time; try again") from error
    template = service.template()
    there = agreed(service, template, Policy().poll_seconds)
    if there:
        tidy(service, template, *there)
    return state.stable


def go_back(service: InferenceService, version: str, policy: Policy, said: list[str]) -> None:
    """Rolls back to an earlier version of the store, by hand, as soon as that is ready.

    Args:
      service: that serves another version of the same store.
      version: its number.
      policy: how long it may take to become ready.
      said: gets what was done, in sentences.

    Raises:
      UserError: see `roll_out`, which this calls without a canary and without known answers.
    """
    home = _served(service).stable.uri.rpartition("/")[0]
    uri = f"{home}/{version}"
    release = Release(
        version=version,
        uri=uri,
        decided=now(),
        reason="rolled back to by hand",
        trust=_trust_of(uri),
    )
    policy = dataclasses.replace(policy, steps=())
    roll_out(service, release, policy, None, said, by_hand=True)


def _trust_of(uri: str) -> str:
    """Returns the verdict on a version of the store in words, or that it is not known.

    Going back must not fail because the store, which the cluster reads, cannot be read from here.
    """
    try:
        trust = of_version(uri)
    except UserError:
        trust = None
    return in_words(trust) if trust else "unknown: the model store could not be read"


def _served(service: InferenceService) -> State:
    state = served(service)
    if not state:
        raise UserError(f"there is no {service}; deploy a version first: cxrflow submit")
    return state


def _alone(state: State, stable: Release, outcome: Mapping[str, str]) -> State:
    return dataclasses.replace(
        state, stable=stable, candidate=None, percent=0, replicas=1, whole=1, outcome=outcome
    )


def _outcome(release: Release, outcome: str, reason: str) -> dict[str, str]:
    return {
        "version": release.version,
        "decided": release.decided,
        "outcome": outcome,
        "reason": reason,
        "at": now(),
    }


def _rolled_back(reason: str) -> type[UserError]:
    return UserError if reason.startswith(canary.NOT_READY) else RolledBack


class _Rollout:
    def __init__(
        self,
        service: InferenceService,
        release: Release,
        policy: Policy,
        answers: list[dict[str, Any]] | None,
        said: list[str],
        *,
        by_hand: bool,
    ) -> None:
        self._by_hand = by_hand
        self._service, self._release, self._policy = service, release, policy
        self._answers, self._said = answers, said
        self._template = service.template()
        self._watch = Watch(service, self._template, release.version, policy, self._say)

    def run(self) -> None:
        self._replace_unborn()
        seen = False
        away: float | None = None  # since when the API fails before the next step is taken
        while True:
            try:
                there = self._agreed()
                if there is None:
                    self._begin(seen)
                    seen = False
                else:
                    seen = True
                    if self._advances(*there):
                        return
                away = None
            except Conflict:
                logger.info("the cluster has changed meanwhile; looking again")
                seen = True
            except Unavailable as error:
                # It says nothing about the version, so its state stays as it is.
                away = away or time.monotonic()
                if time.monotonic() - away > self._policy.ready_seconds:
                    raise
                logger.warning("waiting until Kubernetes' API is available again: %s", error)
                time.sleep(self._policy.poll_seconds)

    def _agreed(self) -> tuple[Manifest, State] | None:
        return agreed(self._service, self._template, self._policy.poll_seconds)

    def _replace_unborn(self) -> None:
        """Replaces the state of an earlier first version whose InferenceService the cluster has refused."""
        stored = load(self._service)
        if (
            stored
            and not stored.service_uid
            and stored.stable.decided < self._release.decided
            and self._service.read() is None
        ):
            with contextlib.suppress(Conflict):
                self._save(stored, stable=self._release)

    def _begin(self, seen: bool) -> None:
        stored = load(self._service)
        if seen and not (stored and stored.withdrawn):
            raise UserError(
                f"deploy: {self._service} was deleted meanwhile, by someone else: nothing is served. "
                "Run it again to deploy it again."
            )
        if stored and not stored.service_uid:  # another rollout has just begun
            return
        self._say("nothing is served yet: served at once")
        first = State(stable=self._release, whole=least_replicas(self._template))
        if stored:
            first = dataclasses.replace(
                first, uid=stored.uid, resource_version=stored.resource_version
            )
        save(self._service, first)

    def _advances(self, there: Manifest, state: State) -> bool:
        """Takes the next step; returns whether it was the last."""
        release = self._release
        if state.outcome.get("outcome") == ROLLED_BACK and _is(state.outcome, release):
            raise _rolled_back(state.outcome["reason"])(
                f"deploy: version {release.version} was rolled back: {state.outcome['reason']}"
            )
        for known in (state.stable, state.candidate):
            if known and known.version == release.version and known.uri != release.uri:
                raise UserError(
                    f"deploy: version {release.version} of another store is served, {known.uri}, and this is "
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
            if not self._by_hand:
                require_no_less(release.trust, state.stable.trust, state.stable.version)
            self._say(f"beside version {state.stable.version}, without traffic")
            whole = self._whole(state)
            self._save(
                state,
                candidate=release,
                percent=0,
                whole=whole,
                replicas=_needed(whole, next(iter(self._policy.steps), 100)),
            )
        elif state.candidate or not _is(state.outcome, release):
            if not state.outcome and not state.candidate:
                self._confirm(state)
            self._end(state, state.stable, SERVED, release.reason)
        else:
            self._settle(there, state)
            self._say("it is served")
            return True
        return False

    def _confirm(self, state: State) -> None:
        """Waits until a first version is ready and checks its answers; if they are wrong, it is deleted."""
        pods = self._watch.ready(state, 1)
        try:
            self._check(pods)
        except Unfit as error:
            self._save(state, withdrawn=True)
            self._agreed()
            raise UserError(f"{error}: {self._service} is deleted, nothing is served") from error

    def _try(self, state: State) -> None:
        assert state.candidate
        version, stable = self._release.version, state.stable.version
        try:
            pods = self._watch.ready(state, state.replicas)
            unsplit = self._unsplit(state)
            if state.percent == 0 or unsplit:
                self._check(pods)
            elif self._policy.steps:
                self._watch.watch(state)
            # Pods may have been replaced meanwhile.
            self._watch.require_steady(state, state.replicas)
        except Unfit as error:
            self._say(f"rolled back: {error}")
            self._end(state, state.stable, ROLLED_BACK, str(error))
            there = self._agreed()
            if there:
                self._settle(*there)
            raise _rolled_back(str(error))(
                f"deploy: version {version} is rolled back, version {stable} stays: {error}"
            ) from error
        except Unproven as error:
            self._say(f"not promoted, and without traffic again: {error}")
            self._save(state, percent=0)
            self._agreed()
            raise UserError(
                f"deploy: version {version} is not promoted: {error}. It stays beside version {stable} "
                "without traffic: run it again to try again, `cxrflow promote` serves it, `cxrflow rollback` "
                "removes it, and --canary-unseen promotes versions that got too few requests to be judged"
            ) from error
        self._advance(state, unsplit)

    def _unsplit(self, state: State) -> str:
        """Returns why the candidate cannot be a canary, in a sentence, or an empty text if it can."""
        if not self._policy.steps:
            return ""
        if self._watch.is_broken(state):
            return (
                f"version {state.stable.version} has no ready pod, so there is no traffic to split: switched "
                "at once, without a canary"
            )
        # A candidate that has a share was in the route: what vanishes from it since is no evidence.
        if state.percent or self._watch.splits(state):
            return ""
        return (
            f"KServe does not split traffic on this cluster (the HTTPRoute {self._service.name} does not "
            "list the candidate): switched at once, without a canary"
        )

    def _advance(self, state: State, unsplit: str) -> None:
        """Gives the candidate its next share of the traffic, or all of it, once it has the pods for it."""
        assert state.candidate
        steps = () if unsplit else self._policy.steps
        later = [step for step in steps if step > state.percent]
        share = later[0] if later else 100
        whole = self._whole(state)
        needed = _needed(whole, share)
        if self._is_standard and state.replicas < needed:
            self._say(f"{needed} pods, for {share} % of the traffic")
            self._save(state, replicas=needed, whole=whole)
        elif later:
            self._say(f"{share} % of the traffic")
            # Pods for the next share start while this one is watched.
            following = _needed(whole, later[1] if later[1:] else 100)
            self._save(state, percent=share, whole=whole, replicas=max(state.replicas, following))
        else:
            if unsplit:
                self._say(unsplit)
            self._say("promoted")
            stable = dataclasses.replace(
                state.candidate, decided=self._release.decided, reason=self._release.reason
            )
            self._end(state, stable, SERVED, self._release.reason)

    @property
    def _is_standard(self) -> bool:
        return not is_knative(self._template)

    def _whole(self, state: State) -> int:
        """Returns how many pods serve all of the traffic, autoscaled ones included."""
        if not self._is_standard:
            return 1  # Knative scales each revision by its own requests
        ready = sum(pod.ready for pod in self._service.pods(state.stable.version))
        if state.candidate:
            # Until a canary is ready, KServe runs as many more of the stable version: see `manifest_of`.
            ready -= state.replicas
        return max(state.whole, least_replicas(self._template), ready)

    def _check(self, pods: list[Pod]) -> None:
        if self._answers is not None:
            self._watch.check(pods, self._answers)

    def _settle(self, there: Manifest, state: State) -> None:
        if self._watch.settled(state):
            tidy(self._service, self._template, there, state)
        else:
            self._say(f"KServe's HTTPRoute {self._service.name} still lists other versions")

    def _save(self, state: State, **changes: Any) -> None:
        save(self._service, dataclasses.replace(state, **changes))

    def _end(self, state: State, stable: Release, outcome: str, reason: str) -> None:
        save(self._service, _alone(state, stable, _outcome(self._release, outcome, reason)))

    def _say(self, text: str) -> None:
        line = f"version {self._release.version}: {text}"
        self._said.append(f"{now()} {line}")
        logger.info("%s", line)


def _needed(whole: int, share: int) -> int:
    """Returns how many pods a share of the traffic needs, in percent, where all of it needs `whole`."""
    return max(1, math.ceil(whole * share / 100))


def _is(outcome: Mapping[str, str], release: Release) -> bool:
    known = (outcome.get("version"), outcome.get("decided"))
    return known == (release.version, release.decided)
