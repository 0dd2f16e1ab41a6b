from pathlib import Path

import pytest
import yaml

from tests.pipelines.cli import cxrflow


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict:
    file = tmp_path_factory.mktemp("compile") / "pipeline.yaml"
    cxrflow("compile", str(file))
    return next(yaml.safe_load_all(file.read_text()))


def names(dag: dict) -> set[str]:
    return {task["taskInfo"]["name"] for task in dag["tasks"].values()}


def test_names_tell_the_story(spec: dict) -> None:
    assert spec["pipelineInfo"]["name"] == "cxrflow-training"
    assert names(spec["root"]["dag"]) == {
        "Ingest both datasets, split by patient",
        "Validate against the schema",
        "Write TFRecords",
        "candidates",
        "Gate on the recall of every class",
        "Report",
        "a-candidate-passed",
    }
    assert names(spec["components"]["comp-for-loop-1"]["dag"]) == {
        "Train a candidate",
        "Evaluate it on the test split",
    }


def test_candidates_train_at_once_and_deploy_is_behind_the_gate(spec: dict) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    assert "iteratorPolicy" not in tasks["for-loop-1"]
    (conditional,) = [task for task in tasks.values() if "triggerPolicy" in task]
    assert "== 'deploy'" in conditional["triggerPolicy"]["condition"]
    inside = spec["components"][conditional["componentRef"]["name"]]["dag"]
    assert names(inside) == {"Deploy the winner"}
    everywhere = [task for name, task in tasks.items() if name != "condition-1"]
    assert all(task["componentRef"]["name"] != "comp-deploy-step" for task in everywhere)


def test_records_wait_for_validation(spec: dict) -> None:
    assert "validate-step" in spec["root"]["dag"]["tasks"]["write-records-step"]["dependentTasks"]


def test_every_step_runs_in_an_image_of_ours_and_installs_nothing(spec: dict) -> None:
    for executor in spec["deploymentSpec"]["executors"].values():
        container = executor["container"]
        assert container["image"].startswith("cxrflow-")
        assert "pip install" not in " ".join(container["command"])


def test_every_parameter_but_the_directories_has_a_default(spec: dict) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    required = {name for name, value in parameters.items() if not value.get("isOptional")}
    assert required == {"covid_directory", "kermany_directory"}
    assert all(value.get("description") for value in parameters.values())


def test_evaluation_gives_the_ui_metrics_a_matrix_and_a_page(spec: dict) -> None:
    outputs = spec["components"]["comp-evaluate-step"]["outputDefinitions"]["artifacts"]
    kinds = {value["artifactType"]["schemaTitle"] for value in outputs.values()}
    assert {"system.Metrics", "system.ClassificationMetrics", "system.HTML"} <= kinds


def test_compiling_again_gives_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for file in (first, second):
        cxrflow("compile", str(file))
    assert first.read_text() == second.read_text()
