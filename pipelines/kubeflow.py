"""Submits, schedules and lists runs through the API of Kubeflow Pipelines."""

import contextlib
import hashlib
import io
import json
import re
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import kfp_server_api
import tenacity
import urllib3
from google.protobuf import json_format
from kfp import Client, compiler

from core.errors import UserError
from core.files import write_aside
from core.kubernetes_api import TRANSIENT
from pipelines.targets import SERVICE_ACCOUNT, Target
from pipelines.training_pipeline import training_pipeline

EXPERIMENT = "cxrflow"
_ATTEMPTS = 5
_TIMEOUT = (10.0, 60.0)  # to connect, and for the answer, in seconds
_SECONDS = {"m": 60, "h": 3600, "d": 86400}

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ClusterRun:
    """A run of a pipeline: its id, name, state, time of creation, and how long it took, if it has ended."""

    id: str
    name: str
    state: str
    created: datetime
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a pipeline is run: a cron expression of six fields, or an interval in `seconds`."""

    cron: str | None = None
    seconds: int | None = None


def parse_schedule(cron: str, every: str) -> Schedule:
    """Reads a schedule.

    Args:
      cron: of five fields, or six with seconds first; in UTC unless Kubeflow Pipelines is configured
        otherwise.
      every: a number of minutes, hours or days, e.g. 30m, 12h, 7d.

    Raises:
      UserError: not exactly one of them is given, or it cannot be read.
    """
    if bool(cron) == bool(every):
        raise UserError('schedule: give either --cron, e.g. "0 3 * * 1", or --every, e.g. 7d')
    if cron:
        fields = cron.split()
        if len(fields) not in (5, 6):
            raise UserError(
                f"schedule: {cron!r} has {len(fields)} fields; cron has five (minute, hour, day, month, "
                "weekday), or six with seconds before"
            )
        return Schedule(cron=" ".join(fields if len(fields) == 6 else ["0", *fields]))
    match = re.fullmatch(r"([1-9]\d*)([mhd])", every)
    if not match:
        raise UserError(f"schedule: {every!r} is not an interval; give e.g. 30m, 12h or 7d")
    return Schedule(seconds=int(match[1]) * _SECONDS[match[2]])


def write(pipeline: Any, file: Path) -> None:
    """Compiles a pipeline to YAML; written aside and renamed."""
    with write_aside(file) as aside:
        # The compiler requires the ending.
        written = aside.with_suffix(".yaml")
        compiler.Compiler().compile(pipeline, str(written))
        written.rename(aside)


def specification(pipeline: Any) -> dict[str, Any]:
    """Returns a pipeline as Kubeflow Pipelines' API takes it; it equals the YAML of `write`."""
    return {
        "pipeline_spec": json_format.MessageToDict(pipeline.pipeline_spec),
        "platform_spec": json_format.MessageToDict(pipeline.platform_spec),
    }


class Kubeflow:
    """A connection to Kubeflow Pipelines."""

    def __init__(self, host: str | None, token: str | None) -> None:
        """Connects.

        Args:
          host: its URL; None: `KF_PIPELINES_ENDPOINT`, or through the cluster of the kubeconfig or pod.
          token: bearer token; None: as the SDK finds one.

        Raises:
          UserError: it does not answer, or denies access.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._client = self._ask(lambda: _Client(host=host, existing_token=token))
        # The SDK's own calls write a file and read it again, which takes longer than the rest of a command.
        self._api = self._client._run_api.api_client

    def submit(self, target: Target, arguments: Mapping[str, Any]) -> ClusterRun:
        """Runs the main job once, and returns the run.

        Raises:
          UserError: it was not accepted; no run was created.
        """
        experiment = self._experiment()
        name = f"cxrflow-training {datetime.now(UTC):%Y-%m-%d %H:%M} {uuid.uuid4().hex[:6]}"
        wanted = kfp_server_api.V2beta1Run(
            experiment_id=experiment,
            display_name=name,
            pipeline_spec=specification(training_pipeline(target)),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(arguments)),
            service_account=SERVICE_ACCOUNT,
        )

        def made() -> ClusterRun | None:
            return next((run for run in self.runs(50) if run.name == name), None)

        service = kfp_server_api.RunServiceApi(self._api)
        self._once(lambda: service.run_service_create_run(run=wanted), made)
        run = made()
        assert run
        return run

    def schedule(
        self, target: Target, arguments: Mapping[str, Any], when: Schedule
    ) -> tuple[str, bool]:
        """Schedules the main job, and replaces the target's earlier schedule.

        Returns:
          the schedule's name, and whether anything was changed.

        Raises:
          UserError: it was not accepted; the earlier schedule stays.
        """
        experiment = self._experiment()
        name = f"cxrflow-training on {target.name}"
        spec = specification(training_pipeline(target))
        text = json.dumps([spec, dict(arguments), vars(when)], sort_keys=True)
        description = f"fingerprint {hashlib.sha256(text.encode()).hexdigest()}"

        def made() -> Any:
            return next(
                (
                    schedule
                    for schedule in self._schedules(experiment, name)
                    if schedule.description == description and schedule.status == "ENABLED"
                ),
                None,
            )

        before = self._schedules(experiment, name)
        same = made()
        if not same:
            wanted = kfp_server_api.V2beta1RecurringRun(
                experiment_id=experiment,
                display_name=name,
                description=description,
                mode=kfp_server_api.RecurringRunMode.ENABLE,
                max_concurrency=1,
                no_catchup=True,
                trigger=_trigger(when),
                pipeline_spec=spec,
                runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(arguments)),
                service_account=SERVICE_ACCOUNT,
            )
            service = kfp_server_api.RecurringRunServiceApi(self._api)
            self._once(
                lambda: service.recurring_run_service_create_recurring_run(recurring_run=wanted),
                made,
            )
        kept = same.recurring_run_id if same else None
        others = [old.recurring_run_id for old in before if old.recurring_run_id != kept]
        for old in others:
            self._ask(lambda old=old: self._client.delete_recurring_run(old))  # type: ignore[misc]
        return name, not same or bool(others)

    def runs(self, most: int) -> Sequence[ClusterRun]:
        """Returns the newest runs, newest first."""
        experiment = self._experiment()
        listed = self._ask(
            lambda: self._client.list_runs(
                page_size=most, sort_by="created_at desc", experiment_id=experiment
            )
        )
        return [_run(run) for run in listed.runs or []]

    def _schedules(self, experiment: str, name: str) -> list[Any]:
        listed = self._ask(
            lambda: self._client.list_recurring_runs(page_size=100, experiment_id=experiment)
        )
        return [made for made in listed.recurring_runs or [] if made.display_name == name]

    def _experiment(self) -> str:
        made = self._ask(lambda: self._client.create_experiment(EXPERIMENT))
        return str(made.experiment_id)

    def _once(self, make: Callable[[], Any], made: Callable[[], Any]) -> None:
        """Creates something once: before a retry it checks whether the first attempt has worked."""

        def attempt() -> None:
            try:
                make()
            except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
                if not _is_transient(error) or not made():
                    raise

        self._ask(attempt)

    def _ask(self, call: Callable[[], T]) -> T:
        """Returns the result of a call, with retries."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient),
            wait=_WAIT,
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            reraise=True,
        )
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the SDK prints links
                return retrying(call)
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
            raise _explained(error) from error


_WAIT = tenacity.wait_exponential_jitter(initial=0.2, max=10)


class _Client(Client):  # type: ignore[misc]
    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        # The first request. KFP's own method retries for 25 seconds, even if access is denied, and then does
        # not say why; and it has no timeout.
        rest = self._healthz_api.api_client.rest_client
        request = rest.request

        def limited(*arguments: Any, **options: Any) -> Any:
            return request(*arguments, **{**options, "_request_timeout": _TIMEOUT})

        rest.request = limited
        return self._healthz_api.healthz_service_get_healthz()


def _trigger(when: Schedule) -> Any:
    if when.cron:
        cron = kfp_server_api.V2beta1CronSchedule(cron=when.cron)
        return kfp_server_api.V2beta1Trigger(cron_schedule=cron)
    periodic = kfp_server_api.V2beta1PeriodicSchedule(interval_second=when.seconds)
    return kfp_server_api.V2beta1Trigger(periodic_schedule=periodic)


def _run(run: Any) -> ClusterRun:
    seconds = None
    if run.finished_at and run.finished_at > run.created_at:
        seconds = (run.finished_at - run.created_at).total_seconds()
    return ClusterRun(
        id=run.run_id,
        name=run.display_name,
        state=(run.state or "PENDING").lower(),
        created=run.created_at,
        seconds=seconds,
    )


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, urllib3.exceptions.HTTPError) or (
        isinstance(error, kfp_server_api.ApiException) and error.status in TRANSIENT
    )


def _explained(error: kfp_server_api.ApiException | urllib3.exceptions.HTTPError) -> UserError:
    if not isinstance(error, kfp_server_api.ApiException):
        pool = getattr(error, "pool", None)
        where = f" at {pool.scheme}://{pool.host}:{pool.port}" if pool else ""
        return UserError(
            f"Kubeflow Pipelines does not answer{where} ({getattr(error, 'reason', error)}). Is --host "
            "right? Once `kubectl port-forward -n kubeflow svc/ml-pipeline 8888` runs, it is "
            "http://localhost:8888"
        )
    advice = {
        HTTPStatus.UNAUTHORIZED: "give a valid token: --token, or KF_PIPELINES_TOKEN",
        HTTPStatus.FORBIDDEN: "this account is not allowed to",
    }.get(error.status, "nothing was created")
    try:
        said = json.loads(error.body)
        reason = said.get("error_message") or said.get("message") or error.body
    except (TypeError, ValueError, AttributeError):
        reason = error.body or error.reason
    return UserError(f"Kubeflow Pipelines answers {error.status}: {str(reason)[:300]} ({advice})")
