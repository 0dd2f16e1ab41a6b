from pathlib import Path

import pytest
import yaml

from pipelines.targets import LOCAL, TARGETS
from pipelines.training_pipeline import training_pipeline
from tests.pipelines.cli import cxrflow


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict:
    file = tmp_path_factory.mktemp("compile") / "pipeline.yaml"
    cxrflow("compile", str(file))
    return next(yaml.safe_load_all(file.read_text()))


def names(dag: dict) -> set[str]:
    return {task["taskInfo"]["name"] for task in dag["tasks"].values()}


def conditional(spec: dict, dag: dict) -> tuple[str, dict]:
    """Returns the condition and the inside of the one conditional part of a DAG."""
    (task,) = [task for task in dag["tasks"].values() if "triggerPolicy" in task]
    inside = spec["components"][task["componentRef"]["name"]]["dag"]
    return task["triggerPolicy"]["condition"], inside


def test_names_tell_the_story(spec: dict) -> None:
    assert spec["pipelineInfo"]["name"] == "cxrflow-training"
    assert names(spec["root"]["dag"]) == {"Check for new data", "there-is-something-new"}
    condition, new = conditional(spec, spec["root"]["dag"])
    assert "== 'new'" in condition
    assert names(new) == {
        "Ingest what is new, split by patient",
        "Validate against the schema, look for drift",
        "Choose whether to train",
        "enough-is-new",
    }
    condition, enough = conditional(spec, new)
    assert "== 'train'" in condition
    assert names(enough) == {
        "Write TFRecords",
        "Predict with the version that is served",
        "candidates",
        "Learn where the lungs are",
        "Gate on recall, trust and the champion",
        "Report",
        "a-candidate-passed",
    }
    condition, passed = conditional(spec, enough)
    assert "== 'deploy'" in condition
    assert names(passed) == {"Deploy the winner"}
    (loop,) = [task for task in enough["tasks"].values() if "parameterIterator" in task]
    assert loop["iteratorPolicy"] == {"parallelismLimit": 1}  # kind's single machine
    assert names(spec["components"][loop["componentRef"]["name"]]["dag"]) == {
        "Train a candidate",
        "Evaluate it on the test split",
        "Audit what it looks at",
    }


def test_every_step_runs_in_an_image_of_ours_and_installs_nothing(spec: dict) -> None:
    for executor in spec["deploymentSpec"]["executors"].values():
        container = executor["container"]
        assert container["image"].startswith("cxrflow-")
        assert "pip install" not in " ".join(container["command"])


def test_every_parameter_has_a_default_and_is_described(spec: dict) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    required = {name for name, value in parameters.items() if not value.get("isOptional")}
    assert required == set()
    assert all(value.get("description") for value in parameters.values())


def test_on_a_cluster_trust_is_enforced_and_here_it_is_shown() -> None:
    for target, trust in ((LOCAL, "flag"), *((target, "enforce") for target in TARGETS.values())):
        assert training_pipeline(target).component_spec.inputs["trust"].default == trust


def test_evaluation_gives_the_ui_metrics_a_matrix_and_a_page(spec: dict) -> None:
    outputs = spec["components"]["comp-evaluate-step"]["outputDefinitions"]["artifacts"]
    kinds = {value["artifactType"]["schemaTitle"] for value in outputs.values()}
    assert {"system.Metrics", "system.ClassificationMetrics", "system.HTML"} <= kinds


def test_compiling_again_gives_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for file in (first, second):
        cxrflow("compile", str(file))
    assert first.read_text() == second.read_text()
