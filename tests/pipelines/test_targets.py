"""What a cluster is told of each step, in a form that a person can read."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components, dsl

from pipelines.targets import KIND, place
from tests.pipelines.cli import cxrflow

SNAPSHOTS = Path(__file__).parent / "snapshots"
OWN = {"gke": ("--registry", "registry.example.org/", "--store", "gs://bucket/models")}


def described(file: Path) -> str:
    spec, platform = yaml.safe_load_all(file.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    dags = [spec["root"]["dag"]] + [
        one["dag"] for one in spec["components"].values() if "dag" in one
    ]
    lines = []
    for dag in dags:
        for name, task in sorted(dag["tasks"].items()):
            limit = task.get("iteratorPolicy", {}).get("parallelismLimit")
            if "parameterIterator" in task:
                lines += [f"{task['taskInfo']['name']}: {limit or 'all'} at once", ""]
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            if label:
                container = spec["deploymentSpec"]["executors"][label]["container"]
                lines += [name, *step(task, container, executors[label]), ""]
    return "\n".join(lines)


def step(task: dict[str, Any], container: dict[str, Any], pod: dict[str, Any]) -> list[str]:
    resources = container["resources"]
    retry = task["retryPolicy"]
    said = {
        "image": container["image"],
        "cpu": f"{resources['resourceCpuRequest']} to {resources['resourceCpuLimit']}",
        "memory": f"{resources['resourceMemoryRequest']} to {resources['resourceMemoryLimit']}",
        "gpus": " ".join(
            f"{one['resourceCount']} {one['resourceType']}"
            for one in [resources.get("accelerator")]
            if one
        ),
        "cached": "yes" if task["cachingOptions"] else "no",
        "retries": f"{retry['maxRetryCount']}, after {retry['backoffDuration']}, each time "
        f"{retry['backoffFactor']:g} times as long, at most {retry['backoffMaxDuration']}",
        "ended after": f"{int(pod['activeDeadlineSeconds']) / 3600:g} h",
        "user": str(pod["securityContext"]["runAsUser"]),
        "volumes": ", ".join(
            [
                f"{one['pvcNameParameter']['runtimeValue']['constant']} at {one['mountPath']}"
                for one in pod.get("pvcMount", [])
            ]
            + [
                f"{one['medium']} {one['sizeLimit']} at {one['mountPath']}"
                for one in pod.get("emptyDirMounts", [])
            ]
        ),
        "environment": ", ".join(
            f"{one['name']}={one['value']}" for one in container.get("env", [])
        ),
        "secrets": ", ".join(
            f"{key['envVar']} from {one['secretNameParameter']['runtimeValue']['constant']}"
            for one in pod.get("secretAsEnv", [])
            for key in one["keyToEnv"]
        ),
        "nodes": ", ".join(
            f"{k}={v}" for k, v in pod.get("nodeSelector", {}).get("labels", {}).items()
        ),
        "tolerates": ", ".join(one["key"] for one in pod.get("tolerations", [])),
    }
    return [f"  {name:<12} {value}" for name, value in said.items() if value]


@pytest.mark.parametrize("target", ["kind", "minikube", "gke"])
def test_each_step_is_placed_as_the_snapshot_says(target: str, tmp_path: Path) -> None:
    """With UPDATE_SNAPSHOTS=1 the snapshots are written: read the difference before you keep it."""
    file = tmp_path / "pipeline.yaml"
    cxrflow("compile", str(file), "--target", target, *OWN.get(target, ()))
    snapshot = SNAPSHOTS / f"{'gke' if target == 'gke' else 'kind'}.txt"
    text = described(file)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.write_text(text)
    assert text == snapshot.read_text()
    # By KFP's own loader, too.
    loaded = components.load_component_from_file(str(file))
    assert loaded.pipeline_spec.pipeline_info.name == "cxrflow-training"


def test_folds_are_placed_too(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    cxrflow(
        "compile", str(file), "--target", "gke", *OWN["gke"], "--pipeline", "cross-validation",
        "--gpus", "8",
    )  # fmt: skip
    text = described(file)
    assert "gpus         8 nvidia.com/gpu" in text
    assert text.startswith("trials: all at once") or "\ntrials: all at once" in text


def test_several_nodes_train_a_candidate_and_its_step_waits(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    cxrflow("compile", str(file), "--target", "gke", *OWN["gke"], "--nodes", "2", "--gpus", "8")
    steps = dict(one.split("\n", 1) for one in described(file).split("\n\n") if "\n" in one)
    assert "gpus" not in steps["train-step"]
    assert "ended after  72 h" in steps["train-step"]
    assert "cxrflow-data at /data" in steps["train-step"]
    assert "gpus         8 nvidia.com/gpu" in steps["find-lungs-step"]
    spec, _ = yaml.safe_load_all(file.read_text())
    (job,) = {
        json.dumps(task["inputs"]["parameters"]["job"]["runtimeValue"]["constant"])
        for component in spec["components"].values()
        for name, task in component.get("dag", {}).get("tasks", {}).items()
        if name == "train-step"
    }
    trainer = json.loads(job)["spec"]["trainer"]
    assert trainer["numNodes"] == 2
    assert trainer["image"].startswith("registry.example.org/cxrflow-training:")
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == 8


def test_a_step_that_does_not_say_what_it_needs_is_not_compiled() -> None:
    @dsl.component
    def other_step() -> None:
        pass

    def pipeline() -> None:
        other_step()
        place(KIND)

    with pytest.raises(ValueError, match="other-step does not say what it needs"):
        dsl.pipeline(pipeline, name="p")


def test_the_placeholders_of_gke_are_not_compiled(tmp_path: Path) -> None:
    error = cxrflow("compile", str(tmp_path / "p.yaml"), "--target", "gke", fails=True)
    assert error.startswith("error: gke: replace the placeholder in")
    assert error.count("\n") == 1
