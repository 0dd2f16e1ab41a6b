"""A training on several machines: processes of this one, with the cluster's part played over HTTP."""

import contextlib
import dataclasses
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kmock
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from kubernetes import client

from components.candidates import train_job as train_job_module
from components.candidates.train import train
from components.candidates.train_job import train_job
from core.divisions import HOLD_OUT
from core.errors import UserError
from core.files import write_json
from pipelines.targets import KIND, job_template
from tests.api import refused, served
from tests.manifests.schemas import errors
from training.recipes import recipe_named, with_epochs

JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/kubeflow/trainjobs"
ACCESS = Path(__file__).parents[3] / "manifests" / "many-nodes" / "access.yaml"
REQUEST = {
    "recipe": "cnn-dubey+quick",
    "epochs": "cnn-dubey+quick=6",
    "weights": "none",
    "precision": "float32",
    "seed": 0,
    "division": HOLD_OUT,
}


@dataclass(kw_only=True)
class Trainer:
    """Kubeflow Trainer, its pods processes of this machine.

    Attributes:
      kill_after: the epoch after which the second node of the first job is killed; 0: none is.
      knows: whether TrainJobs are known at all.
    """

    directory: Path
    schemas: Path
    kill_after: int = 0
    knows: bool = True
    job: dict[str, Any] | None = None
    jobs: list[dict[str, Any]] = field(default_factory=list)
    pods: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def serve(self, request: kmock.Request) -> Any:
        method, path = request.method.value, request.url.path
        self.require_allowed(method, path)
        if path == JOBS and method == "POST" and self.knows:
            assert not errors(request.data, self.schemas)
            meta = {**request.data["metadata"], "uid": f"uid-{len(self.jobs)}"}
            self.start({**request.data, "metadata": meta})
            return self.job
        if path.startswith(f"{JOBS}/") and self.job:
            assert path == f"{JOBS}/{self.job['metadata']['name']}"
            if method == "DELETE":
                wanted = (request.data or {}).get("preconditions", {}).get("uid")
                if wanted not in (None, self.job["metadata"]["uid"]):
                    raise refused(409, "Precondition failed: UID in precondition")
                found, self.job = self.job, None
                return found
            return {**self.job, "status": self.status()}
        if path.endswith("/pods"):
            wanted = f"jobset.sigs.k8s.io/jobset-name={self.jobs[-1]['metadata']['name']}"
            assert request.params["labelSelector"].split(",")[0] == wanted
            meta = {"name": "node-0-0-abcde", "creationTimestamp": "2026-01-01T00:00:00Z"}
            return {"items": [{"metadata": meta}]}
        if path.endswith("/pods/node-0-0-abcde/log"):
            log = self.log(0).read_text().splitlines()
            return "\n".join(log[-int(request.params["tailLines"]) :]).encode()
        raise refused(404, "not found")

    @staticmethod
    def require_allowed(method: str, path: str) -> None:
        role, _ = yaml.safe_load_all(ACCESS.read_text())
        verb = {"GET": "get", "POST": "create", "DELETE": "delete"}[method]
        kind = "trainjobs"
        if "/pods" in path:
            kind = "pods/log" if path.endswith("/log") else "pods"
            verb = "list" if kind == "pods" else verb
        assert any(kind in one["resources"] and verb in one["verbs"] for one in role["rules"])

    def start(self, job: dict[str, Any]) -> None:
        self.job = job
        self.jobs.append(job)
        trainer = job["spec"]["trainer"]
        environment = {one["name"]: one["value"] for one in trainer["env"] if "value" in one}
        name = re.escape(job["metadata"]["name"])
        # What the headless service of the JobSet resolves.
        for node in range(trainer["numNodes"]):
            address = f"localhost:{free_port()}"
            environment = {
                key: re.sub(rf"{name}-node-0-{node}\.{name}:\d+", address, value)
                for key, value in environment.items()
            }
        command = [sys.executable, *trainer["command"][1:]]
        self.pods = []
        for node in range(trainer["numNodes"]):
            with self.log(node).open("wb") as log:
                self.pods.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=subprocess.STDOUT,
                        env={**os.environ, **environment, "JOB_COMPLETION_INDEX": str(node)},
                    )
                )  # fmt: skip

    def log(self, node: int) -> Path:
        return self.directory / f"{node}.log"

    def status(self) -> dict[str, Any]:
        if self.kill_after and len(self.jobs) == 1 and self.epochs_done() >= self.kill_after:
            self.pods[1].kill()
            self.pods[1].wait()
        codes = [pod.poll() for pod in self.pods]
        if any(codes):
            for pod in self.pods:
                pod.kill()
            return {"conditions": [condition("Failed", "jobset failed due to some Job failure")]}
        if codes == [0] * len(codes):
            return {"conditions": [condition("Complete", "jobset completed successfully")]}
        return {"conditions": []}

    def epochs_done(self) -> int:
        (history,) = [*self.directory.glob("checkpoints/dubey-*/history.csv")] or [None]
        return len(pd.read_csv(history)) if history else 0


def condition(kind: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": "True", "message": message}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def trainer(tmp_path: Path, trainer_schemas: Path) -> Iterator[Trainer]:
    made = Trainer(directory=tmp_path, schemas=trainer_schemas)
    yield made
    for pod in made.pods:
        pod.kill()
        pod.wait()


def variables(model: Path) -> list[np.ndarray]:
    return [one.numpy() for one in tf.saved_model.load(str(model / "saved_model")).variables]


def run(trainer: Trainer, records: Path, examples: Path, **more: Path) -> dict[str, Any]:
    template = job_template(dataclasses.replace(KIND, nodes=2))
    with served(trainer.serve) as url:
        return train_job(
            template,
            REQUEST,
            {"examples": examples, "records": records, **more},
            trainer.directory / "model",
            trainer.directory / "checkpoints",
            api=client.ApiClient(client.Configuration(host=url)),
            poll_seconds=0.1,
        )


def test_two_nodes_train_what_one_does_also_when_one_of_them_was_killed(
    trainer: Trainer,
    records: Path,
    examples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(seconds: float) -> None:
        raise KeyboardInterrupt

    # The step itself is killed as it waits, and finds its job again.
    with monkeypatch.context() as patch:
        patch.setattr("components.candidates.train_job.time.sleep", killed)
        with pytest.raises(KeyboardInterrupt):
            run(trainer, records, examples)
    assert len(trainer.jobs) == 1
    trainer.kill_after = 1
    with pytest.raises(
        UserError, match=r"TrainJob kubeflow/cxrflow-cnn-dubey-quick-\w+ failed"
    ) as error:
        run(trainer, records, examples)
    assert "cxrflow-cnn-dubey" in str(error.value).splitlines()[0]
    assert len(str(error.value).splitlines()) > 5, "the end of its log"
    card = run(trainer, records, examples)
    assert re.search(r"resuming after epoch [1-5] of 6", trainer.log(0).read_text())
    assert (card["replicas"], card["batch"]) == (2, 16)
    assert trainer.job is None, "it is deleted"
    assert not list((tmp_path / "checkpoints" / "jobs").iterdir())
    first, second = trainer.jobs
    assert first["spec"] == second["spec"]
    assert first["metadata"]["name"] == second["metadata"]["name"]
    assert {"AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY"} <= {
        one["name"] for one in first["spec"]["trainer"]["env"]
    }
    assert first["spec"]["trainer"]["resourcesPerNode"]["limits"] == {"cpu": "4", "memory": "8G"}

    alone = train(
        with_epochs(recipe_named(REQUEST["recipe"]), REQUEST["epochs"]),
        records,
        tmp_path / "alone",
        tmp_path / "alone-checkpoints",
        weights="none",
        precision="float32",
        examples=examples,
    )
    # The same batches, and so the same weights but for the order of sums: others are a hundred times
    # further off.
    together, one = variables(tmp_path / "model"), variables(tmp_path / "alone")
    for theirs, ours in zip(together, one, strict=True):
        assert np.abs(theirs - ours).mean() < 1e-5
    history = [pd.read_csv(tmp_path / name / "history.csv") for name in ("model", "alone")]
    figures = ["epoch", "loss", "val_loss", "val_accuracy"]
    pd.testing.assert_frame_equal(*(one[figures] for one in history), rtol=2e-2, atol=2e-2)
    assert alone["training_images"] == card["training_images"]


def test_what_it_goes_on_from_makes_it_another_job(
    trainer: Trainer, records: Path, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that an earlier run left there must not be taken for this one's."""
    names = []

    def refuse(self: Trainer, job: dict[str, Any]) -> None:
        names.append(job["metadata"]["name"])
        raise refused(400, "seen")

    monkeypatch.setattr(Trainer, "start", refuse)
    for weights in ("one", "one", "other"):
        start = tmp_path / "start"
        start.mkdir(exist_ok=True)
        (start / "weights").write_text(weights)
        with pytest.raises(UserError, match="seen"):
            run(trainer, records, examples, start=start)
    first, same, other = names
    assert first == same != other
    assert re.fullmatch(r"[a-z0-9-]{1,48}", first)


def succeed(trainer: Trainer, job: dict[str, Any]) -> None:
    """A job that has its result at once."""
    home = Path(job["spec"]["trainer"]["command"][-1])
    write_json(home / "model" / "model.json", {"of": job["metadata"]["uid"]})
    trainer.job, trainer.pods = job, []
    trainer.jobs.append(job)


@pytest.mark.parametrize("locks", [True, False])
def test_two_runs_that_share_a_job_both_get_its_model(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """The first to end deletes the job and its directory; the other must not lose what it copies."""
    monkeypatch.setattr(Trainer, "start", succeed)
    if not locks:
        monkeypatch.setattr(train_job_module, "alone", lambda _: contextlib.nullcontext())
    (tmp_path / "examples").mkdir()
    copytree, others = shutil.copytree, []

    def slow(source: Path, target: Path) -> Path:
        # While the first copies the result, the second begins; without locks it ends before the first.
        if source.name == "model" and not others:
            others.append(
                threading.Thread(target=run, args=(trainer, *[tmp_path / "examples"] * 2))
            )
            others[0].start()
            if not locks:
                others[0].join()
        return copytree(source, target)

    monkeypatch.setattr(train_job_module.shutil, "copytree", slow)
    card = run(trainer, tmp_path / "examples", tmp_path / "examples")
    others[0].join()
    assert card["of"] in {job["metadata"]["uid"] for job in trainer.jobs}
    assert (tmp_path / "model" / "model.json").exists()
    assert trainer.job is None
    assert not [one for one in (tmp_path / "checkpoints" / "jobs").iterdir() if one.is_dir()]


def test_a_result_that_cannot_be_copied_is_kept(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "start", succeed)
    (tmp_path / "examples").mkdir()
    copytree = shutil.copytree

    def full(source: Path, target: Path) -> Path:
        if source.name == "model":
            raise shutil.Error([(str(source), str(target), "No space left on device")])
        return copytree(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(train_job_module.shutil, "copytree", full)
        with pytest.raises(shutil.Error, match="No space left"):
            run(trainer, tmp_path / "examples", tmp_path / "examples")
    run(trainer, tmp_path / "examples", tmp_path / "examples")
    assert len(trainer.jobs) == 1
    assert (tmp_path / "model" / "model.json").exists()


def test_a_job_whose_result_is_gone_is_run_again(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was killed after it had taken the result and before it deleted the job."""
    (tmp_path / "examples").mkdir()

    def lost(trainer: Trainer, job: dict[str, Any]) -> None:
        succeed(trainer, job)
        if len(trainer.jobs) == 1:
            shutil.rmtree(job["spec"]["trainer"]["command"][-1])

    monkeypatch.setattr(Trainer, "start", lost)
    card = run(trainer, tmp_path / "examples", tmp_path / "examples")
    assert card["of"] == "uid-1"
    assert trainer.job is None


def test_where_there_is_no_kubeflow_trainer_it_says_so(
    trainer: Trainer, records: Path, examples: Path
) -> None:
    trainer.knows = False
    with pytest.raises(UserError, match="Install Kubeflow Trainer and apply manifests/many-nodes"):
        run(trainer, records, examples)


def test_one_node_is_no_job() -> None:
    assert job_template(KIND) == {}
