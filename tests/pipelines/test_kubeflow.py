"""Runs and schedules, against the API of Kubeflow Pipelines over HTTP."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tenacity
import yaml

from core.errors import UserError
from pipelines import kubeflow
from pipelines.cluster_cli import Job
from pipelines.kubeflow import Kubeflow, Schedule, parse_schedule, write
from pipelines.targets import GKE, KIND
from pipelines.training_pipeline import training_pipeline
from tests.api import served
from tests.pipelines.cli import cxrflow
from tests.pipelines.kubeflow_api import MADE, Api

WEEKLY = Schedule(cron="0 0 3 * * 1")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(kubeflow, "_WAIT", tenacity.wait_none())
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def url(api: Api) -> Iterator[str]:
    with served(api.serve) as url:
        yield url


@pytest.fixture
def there(url: str) -> Kubeflow:
    return Kubeflow(url, None)


def test_a_run_is_submitted_with_its_arguments_and_account(api: Api, there: Kubeflow) -> None:
    run = there.submit(KIND, {"recipes": ["cnn-dubey"], "seed": 3})
    (made,) = api.runs
    assert run.id == made["run_id"]
    assert made["service_account"] == "cxrflow-pipeline"
    assert made["runtime_config"]["parameters"] == {"recipes": ["cnn-dubey"], "seed": 3}
    spec = made["pipeline_spec"]
    assert spec["pipeline_spec"]["pipelineInfo"]["name"] == "cxrflow-training"
    assert "kubernetes" in spec["platform_spec"]["platforms"]
    assert [one["display_name"] for one in api.experiments] == ["cxrflow"]


@pytest.mark.parametrize("fault", ["drop", "lost", 429, 500, 503])
def test_a_run_is_made_once_whatever_becomes_of_the_answer(
    api: Api, there: Kubeflow, fault: int | str
) -> None:
    there.runs(1)  # the experiment is there
    api.faults = [fault]
    run = there.submit(KIND, {})
    assert [one["display_name"] for one in api.runs] == [run.name]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, "answers 401: fault 401 .*give a valid token"),
        (403, "answers 403: fault 403 .*this account is not allowed to"),
        (409, "answers 409: fault 409 .*nothing was created"),
        (503, "answers 503: fault 503 .*nothing was created"),
        ("drop", "does not answer .*Is --host right"),
        ("hang", "does not answer .*timed out"),
    ],
)
def test_what_is_refused_is_said_and_nothing_is_made(
    api: Api, there: Kubeflow, fault: int | str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.runs(1)
    there.schedule(KIND, {}, WEEKLY)
    if fault == "hang":
        monkeypatch.setattr(kubeflow, "_TIMEOUT", (0.2, 0.2))
    before = copy.deepcopy(api.schedules)
    for ask in (lambda: there.submit(KIND, {}), lambda: there.schedule(KIND, {"seed": 1}, WEEKLY)):
        api.faults = [fault] * 9
        with pytest.raises(UserError, match=words):
            ask()
    assert api.runs == []
    assert api.schedules == before


def test_nobody_there_is_said(unused_ports: tuple[int, int]) -> None:
    url = f"http://localhost:{unused_ports[0]}"
    with pytest.raises(UserError, match=f"does not answer at {url} .*Is --host right"):
        Kubeflow(url, None)


def test_a_token_lets_in(api: Api, url: str) -> None:
    api.token = "secret"
    assert Kubeflow(url, "secret").runs(5) == []
    with pytest.raises(UserError, match="answers 401: no token"):
        Kubeflow(url, "other")


def test_a_schedule_is_replaced_and_never_doubled(api: Api, there: Kubeflow) -> None:
    assert there.schedule(KIND, {}, WEEKLY) == ("cxrflow-training on kind", True)
    (first,) = api.schedules
    assert first["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert first["no_catchup"] is True
    assert first["service_account"] == "cxrflow-pipeline"
    assert there.schedule(KIND, {}, WEEKLY) == ("cxrflow-training on kind", False)
    assert api.schedules == [first]
    for arguments, when in (({"seed": 1}, WEEKLY), ({"seed": 1}, Schedule(seconds=3600))):
        assert there.schedule(KIND, arguments, when)[1]
        assert len(api.schedules) == 1
    assert api.schedules[0]["trigger"]["periodic_schedule"]["interval_second"] == 3600
    # Another target's is another.
    there.schedule(GKE, {}, WEEKLY)
    assert len(api.schedules) == 2


def test_a_schedule_that_was_left_doubled_is_mended(api: Api, there: Kubeflow) -> None:
    there.schedule(KIND, {}, WEEKLY)
    # Killed after the new one was made and before the old one was removed.
    stale = {**copy.deepcopy(api.schedules[0]), "recurring_run_id": "old", "description": "before"}
    api.schedules.append(stale)
    assert there.schedule(KIND, {}, WEEKLY)[1]
    assert [one["recurring_run_id"] for one in api.schedules] == ["recurringruns-2"]


def test_runs_are_listed_the_newest_first(api: Api, there: Kubeflow) -> None:
    there.runs(1)
    for number, state in enumerate(("SUCCEEDED", "RUNNING")):
        api.runs.append(
            {
                "run_id": str(number),
                "display_name": f"run {number}",
                "state": state,
                "created_at": MADE,
                **({"finished_at": "2026-03-01T11:30:00Z"} if state == "SUCCEEDED" else {}),
            }
        )
    newest, oldest = there.runs(10)
    assert (newest.id, newest.state, newest.seconds) == ("1", "running", None)
    assert (oldest.state, oldest.seconds) == ("succeeded", 5400)


@pytest.mark.parametrize(
    ("cron", "every", "when"),
    [
        ("0 3 * * 1", "", WEEKLY),
        ("30 0 3 * * 1", "", Schedule(cron="30 0 3 * * 1")),
        ("", "90m", Schedule(seconds=5400)),
        ("", "7d", Schedule(seconds=604800)),
    ],
)
def test_schedules_are_read(cron: str, every: str, when: Schedule) -> None:
    assert parse_schedule(cron, every) == when


@pytest.mark.parametrize(
    ("cron", "every", "words"),
    [
        ("", "", "give either --cron"),
        ("0 3 * * 1", "7d", "give either --cron"),
        ("0 3 * *", "", "has 4 fields"),
        ("", "weekly", "'weekly' is not an interval"),
        ("", "0h", "'0h' is not an interval"),
    ],
)
def test_what_is_no_schedule_is_refused(cron: str, every: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_schedule(cron, every)


def test_as_a_user_does_it(api: Api, url: str) -> None:
    assert "no run yet" in cxrflow("runs", "--host", url)
    said = cxrflow("submit", "--recipes", "cnn-dubey", "--gate", "covid=0.8", "--host", url)
    assert said.startswith("run    runs-2\n")
    assert "enforce: only trusted candidates that pass the gate are deployed" in said
    (made,) = api.runs
    parameters = made["runtime_config"]["parameters"]
    assert parameters == {"recipes": ["cnn-dubey"], "gate": "covid=0.8"}
    listed = cxrflow("runs", "--host", url)
    assert "pending" in listed
    assert "2026-03-01 10:00" in listed
    said = cxrflow("schedule", "--every", "7d", "--host", url)
    assert said.startswith("cxrflow-training on kind is scheduled\n")
    error = cxrflow("submit", "--recipes", "vgg", "--host", url, fails=True)
    assert "unknown recipe 'vgg'" in error
    assert json.dumps(api.schedules).count("cxrflow-pipeline")


def test_every_option_of_submit_reaches_the_parameter_it_is_for(api: Api, url: str) -> None:
    options = {
        "--covid": ("covid_directory", "/data/covid"),
        "--kermany": ("kermany_directory", "/data/kermany"),
        "--source": ("sources", ["clinic=/data/clinic.csv"]),
        "--external": ("external", ["other=/data/other.csv"]),
        "--recipes": ("recipes", ["cnn-dubey"]),
        "--gate": ("gate", "covid=0.8"),
        "--trust": ("trust", "flag"),
        "--epochs": ("epochs", "cnn-dubey=3"),
        "--weights": ("weights", "none"),
        "--seed": ("seed", 0),
        "--canary": ("canary", "50,100"),
        "--canary-minutes": ("canary_minutes", 0.5),
        "--beam-option": ("beam_options", ["--runner=FlinkRunner"]),
    }
    texts = [
        f"{option}={value[0] if isinstance(value, list) else value}"
        for option, (_, value) in options.items()
    ]
    cxrflow("submit", *texts, "--canary-unseen", "--host", url)
    (made,) = api.runs
    parameters = made["runtime_config"]["parameters"]
    assert parameters == dict(options.values()) | {"canary_unseen": True}
    assert parameters.keys() <= training_pipeline(KIND).component_spec.inputs.keys()
    assert parameters.keys() == Job.__dataclass_fields__.keys()


def test_what_is_submitted_is_what_is_compiled(api: Api, there: Kubeflow, tmp_path: Path) -> None:
    there.submit(KIND, {})
    write(training_pipeline(KIND), tmp_path / "pipeline.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    assert api.runs[0]["pipeline_spec"] == {"pipeline_spec": spec, "platform_spec": platform}
