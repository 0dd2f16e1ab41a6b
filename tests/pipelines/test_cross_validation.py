from pathlib import Path

import yaml

from tests.pipelines.cli import cxrflow
from training.recipes import recipe_named


def test_folds_are_trained_in_parallel_and_collected(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    cxrflow("compile", str(file), "--pipeline", "cross-validation")
    spec = next(yaml.safe_load_all(file.read_text()))
    assert spec["pipelineInfo"]["name"] == "cxrflow-cross-validation"
    tasks = spec["root"]["dag"]["tasks"]
    (loop,) = [task for task in tasks.values() if "parameterIterator" in task]
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--trials"}
    assert loop["iteratorPolicy"] == {"parallelismLimit": 1}  # kind's single machine
    names = {task["taskInfo"]["name"] for task in tasks.values()}
    assert "Compare with the published figures" in names
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["trials"]["defaultValue"] == list(
        recipe_named("resnet50-10fold").trials("10-fold")
    )
    assert all(value.get("description") for value in parameters.values())


def test_a_trial_is_a_recipe_on_a_division() -> None:
    recipe = recipe_named("soares-vgg16")
    assert recipe.trials("70/10/20") == ("soares-vgg16@70/10/20",)
    assert recipe.trials("2-fold") == ("soares-vgg16@fold-01-of-02", "soares-vgg16@fold-02-of-02")
