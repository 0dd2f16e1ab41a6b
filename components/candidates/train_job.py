"""Trains on several machines with a TrainJob of Kubeflow Trainer, whose nodes run `train_node`.

Kubeflow Trainer has no runtime for TensorFlow; ours is manifests/many-nodes. The environment names the other
nodes to each node (see `training.workers`). Inputs and result are in a directory that all nodes share.
"""

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from kubernetes import client

from core.artifacts import CARD
from core.errors import UserError
from core.files import alone, read_json, sha256_of, write_aside, write_json
from core.kubernetes_api import Conflict, KubernetesApi
from core.progress import Progress, logger
from training import HOSTS
from training.recipes import recipe_named

Manifest: TypeAlias = dict[str, Any]

PORT = 29500

REQUEST, MODEL = "request.json", "model"
_LINES = 20


def train_job(
    template: Manifest,
    request: Mapping[str, Any],
    inputs: Mapping[str, Path],
    output: Path,
    checkpoints: Path,
    *,
    api: client.ApiClient | None = None,
    poll_seconds: float = 10.0,
) -> dict[str, Any]:
    """Trains a recipe on several machines and waits for it.

    A repeated call with the same arguments and inputs waits for the existing job. A failed job is recreated
    and resumes from its checkpoint. A job that has succeeded is deleted. If two runs request the same
    training, one waits until the other has ended, then trains from its complete checkpoint, which takes no
    time.

    Args:
      template: the TrainJob without its name and command: `spec.trainer` has `image`, `numNodes` and
        `resourcesPerNode`. A recipe with a frozen base is trained on one node, because only its head
        trains.
      request: `recipe`, `epochs`, `weights`, `precision`, `seed` and `division`, as for the step.
      inputs: the directories `examples` and `records`, and optionally `lungs` and `start`; see
        `components.candidates.train.train`.
      output: the directory to write; see `components.candidates.train.train`.
      checkpoints: a directory that every node sees at the same path.
      api: of Kubernetes; by default that of the pod's cluster.
      poll_seconds: between two looks at the job.

    Returns:
      see `components.candidates.train.train`.

    Raises:
      UserError: the job fails, with the end of its log; or the cluster rejects it.
    """
    recipe = recipe_named(request["recipe"])
    asked = {**request, "inputs": {name: _digest(path) for name, path in inputs.items()}}
    digest = hashlib.sha256(json.dumps([asked, template], sort_keys=True).encode()).hexdigest()
    # A pod's name has 63 characters at most, of which JobSet needs 15.
    name = f"cxrflow-{re.sub('[^a-z0-9]+', '-', recipe.name)[:24].strip('-')}-{digest[:10]}"
    home = checkpoints / "jobs" / name
    job = _job(template, name, home, nodes=1 if recipe.frozen else None)
    namespace = template["metadata"]["namespace"]
    path = f"/apis/{template['apiVersion']}/namespaces/{namespace}/trainjobs"
    kubernetes = KubernetesApi("train", f"TrainJob {namespace}/{name}", "manifests/many-nodes", api)

    # Another run may request the same training. Not every file system has locks: see `_collected`.
    nodes = job["spec"]["trainer"]["numNodes"]
    with alone(home), Progress(f"training {recipe.name} on {nodes} nodes"):
        return _waited_for(kubernetes, path, job, asked, inputs, home, output, poll_seconds)


def _waited_for(
    kubernetes: KubernetesApi,
    path: str,
    job: Manifest,
    asked: Mapping[str, Any],
    inputs: Mapping[str, Path],
    home: Path,
    output: Path,
    poll_seconds: float,
) -> dict[str, Any]:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    failed = kubernetes.call("GET", f"{path}/{name}")
    if _state(failed) == "Failed":
        _delete(kubernetes, path, failed)
        uid = failed["metadata"]["uid"]
        while (there := kubernetes.call("GET", f"{path}/{name}")) and there["metadata"][
            "uid"
        ] == uid:
            time.sleep(poll_seconds)
    while True:
        there = kubernetes.call("GET", f"{path}/{name}")
        if there is None:
            _prepare(home, asked, inputs)
            _create(kubernetes, path, job)
            logger.info(
                "%s: on %d nodes, as TrainJob %s/%s",
                asked["recipe"], job["spec"]["trainer"]["numNodes"], namespace, name,
            )  # fmt: skip
        elif _state(there) == "Failed":
            raise UserError(
                f"train: TrainJob {namespace}/{name} failed: {_message(there)}. The end of its log:\n"
                f"{_log(kubernetes, namespace, name)}"
            )
        elif _state(there) == "Complete" and _collected(kubernetes, path, there, home, output):
            card: dict[str, Any] = read_json(output / CARD)
            return card
        time.sleep(poll_seconds)


def _collected(
    kubernetes: KubernetesApi, path: str, job: Manifest, home: Path, output: Path
) -> bool:
    """Copies the result of a job that has succeeded, and deletes the job; returns whether there was one.

    On a file system without locks there is none if another run has taken it, or was killed while it did.
    """
    try:
        with write_aside(output) as aside:
            shutil.copytree(home / MODEL, aside)
        taken = True
    except (FileNotFoundError, shutil.Error):
        if (home / MODEL).exists():  # the copy failed for another reason, such as a full disk
            raise
        taken = False
    # Renamed before the job is deleted, so that the files of another run that starts then are not removed.
    gone = home.with_name(f"{home.name}-{job['metadata']['uid']}")
    with contextlib.suppress(FileNotFoundError):
        home.rename(gone)
    _delete(kubernetes, path, job)
    shutil.rmtree(gone, ignore_errors=True)
    return taken


def _delete(kubernetes: KubernetesApi, path: str, job: Manifest) -> None:
    """Deletes a job, unless another run has recreated it."""
    known = {"uid": job["metadata"]["uid"]}
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": known}
    with contextlib.suppress(Conflict):
        kubernetes.call("DELETE", f"{path}/{job['metadata']['name']}", options)


def _digest(directory: Path) -> str:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    content = [(path.relative_to(directory).as_posix(), sha256_of(path)) for path in files]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _job(template: Manifest, name: str, home: Path, nodes: int | None) -> Manifest:
    trainer = template["spec"]["trainer"]
    nodes = nodes or trainer["numNodes"]
    # As JobSet names the pods, in a service of the job's name.
    hosts = ",".join(f"{name}-node-0-{index}.{name}:{PORT}" for index in range(nodes))
    trainer = {
        **trainer,
        "numNodes": nodes,
        "command": ["python", "-m", "components.candidates.train_node", str(home)],
        "env": [*trainer.get("env", []), {"name": HOSTS, "value": hosts}],
    }
    return {
        **template,
        "metadata": {**template["metadata"], "name": name},
        "spec": {**template["spec"], "trainer": trainer},
    }


def _prepare(home: Path, request: Mapping[str, Any], inputs: Mapping[str, Path]) -> None:
    with write_aside(home) as aside:
        for name, directory in inputs.items():
            shutil.copytree(directory, aside / name)
        write_json(aside / REQUEST, request)


def _create(kubernetes: KubernetesApi, path: str, job: Manifest) -> None:
    try:
        made = kubernetes.call("POST", path, job)
    except Conflict:  # by another run, or by this one before it was killed: it is the same training
        return
    if made is None:
        raise UserError(
            "train: the cluster knows no TrainJob. Install Kubeflow Trainer and apply manifests/many-nodes, "
            "or train on one node: leave --nodes out"
        )


def _state(job: Manifest | None) -> str:
    """Returns `Complete`, `Failed`, or an empty text while it runs."""
    for condition in (job or {}).get("status", {}).get("conditions", []):
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            return str(condition["type"])
    return ""


def _message(job: Manifest) -> str:
    conditions = [each for each in job["status"]["conditions"] if each["type"] == "Failed"]
    return "; ".join(condition.get("message", "") for condition in conditions)


def _log(kubernetes: KubernetesApi, namespace: str, name: str) -> str:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    selector = f"jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0"
    answer = kubernetes.call("GET", f"{pods}?labelSelector={selector}")
    if not answer or not answer["items"]:
        return "(its pods are gone)"
    newest = max(answer["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    log = f"{pods}/{newest['metadata']['name']}/log?tailLines={_LINES}"
    return str(kubernetes.call("GET", log, raw=True) or "(it is empty)").strip()
