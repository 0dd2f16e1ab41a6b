"""The targets of pipelines: this machine, or a cluster that an overlay of manifests/ sets up."""

import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_context import Pipeline

from components.steps import NEEDS, Size
from core.artifacts import Trust

# As in manifests/base.
SERVICE_ACCOUNT = "cxrflow-pipeline"
NAMESPACE = "cxrflow"
_STEPS = "kubeflow"  # the namespace of the steps
_RUNTIME = "cxrflow-training"  # of manifests/many-nodes
_CLAIM, _DATA = "cxrflow-data", "/data"
_USER = 10001


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Request and limit of processors and of memory, in Kubernetes' notation."""

    cpu: tuple[str, str]
    memory: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A place to run pipelines.

    Attributes:
      name: of the overlay; empty: this machine, where a step is a process.
      at_once: how many candidates are trained at the same time; 0: all of them.
      store: the model store.
      namespace: of the InferenceService; empty: none.
      trust: which candidates are deployed unless a run says otherwise.
      data: the directory of both datasets and of everything that outlives a run.
      resources: of steps, by their size; see `components.steps`.
      gpus: of each step of size `training`; training shares each batch among them.
      nodes: how many train one candidate together, each with `gpus`; see
        `components.candidates.train_job`.
      accelerator: the type of GPU, a label of its nodes.
      registry: prefix of the images' names.
      object_store: endpoint of an S3 whose credentials are in the secret of Kubeflow Pipelines; empty:
        the pod's account has access.
    """

    name: str
    at_once: int
    store: str
    namespace: str
    data: str
    trust: Trust = Trust.ENFORCE
    resources: Mapping[Size, Resources] = field(default_factory=dict)
    gpus: int = 0
    nodes: int = 1
    accelerator: str = ""
    registry: str = ""
    object_store: str = ""


LOCAL = Target(name="", at_once=1, store="models", namespace="", data=".", trust=Trust.FLAG)

# A single node on a laptop: one training at a time, and the object store of Kubeflow Pipelines.
_SMALL: Mapping[Size, Resources] = {
    "data": Resources(cpu=("500m", "2"), memory=("2G", "4G")),
    "training": Resources(cpu=("1", "4"), memory=("3G", "8G")),
    "light": Resources(cpu=("500m", "2"), memory=("1G", "4G")),
}
_SEAWEEDFS = "http://seaweedfs.kubeflow:9000"
_SECRET = "mlpipeline-minio-artifact"
_SECRET_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
_BUCKET = "s3://mlpipeline/cxrflow/models"

KIND, MINIKUBE = (
    Target(
        name=name,
        at_once=1,
        store=_BUCKET,
        namespace=NAMESPACE,
        data=_DATA,
        resources=_SMALL,
        object_store=_SEAWEEDFS,
    )
    for name in ("kind", "minikube")
)
GKE = Target(
    name="gke",
    at_once=0,
    store="gs://BUCKET/models",
    namespace=NAMESPACE,
    data=_DATA,
    resources={
        "data": Resources(cpu=("8", "16"), memory=("16G", "32G")),
        "training": Resources(cpu=("16", "44"), memory=("48G", "160G")),
        "light": Resources(cpu=("2", "4"), memory=("4G", "8G")),
    },
    gpus=4,
    accelerator="nvidia-l4",
    registry="europe-docker.pkg.dev/PROJECT/cxrflow/",
)
TARGETS = {target.name: target for target in (KIND, MINIKUBE, GKE)}


def place(target: Target) -> None:
    """Gives every task of the pipeline that is being defined its image, resources, volumes and limits.

    What a step needs is declared in `components.steps`. For this machine nothing is set.

    Raises:
      ValueError: the pipeline has a task that is not one of those steps.
    """
    if not target.name:
        return
    # This class is not meant for authors of pipelines, but only it has all tasks, so that none is forgotten.
    tasks = Pipeline.get_default_pipeline().tasks.values()
    # At each of the calls that place a task, KFP inspects the whole stack, which is short in a new thread.
    with ThreadPoolExecutor(1) as thread:
        list(thread.map(functools.partial(_place, target), tasks))


def _place(target: Target, task: dsl.PipelineTask) -> None:
    step = task.component_spec.name
    if step not in NEEDS:
        raise ValueError(f"{step} does not say what it needs: define it in components/steps.py")
    needs = NEEDS[step]
    waits = needs.distributed and target.nodes > 1
    size = "light" if waits else needs.size
    resources = target.resources[size]
    task.set_container_image(target.registry + task.container_spec.image)
    task.set_cpu_request(resources.cpu[0]).set_cpu_limit(resources.cpu[1])
    task.set_memory_request(resources.memory[0]).set_memory_limit(resources.memory[1])
    task.set_retry(2, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")
    kubernetes.set_timeout(task, 3600 * needs.hours)
    kubernetes.set_security_context(
        task, run_as_user=_USER, run_as_group=_USER, run_as_non_root=True
    )
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    if needs.storage:
        kubernetes.mount_pvc(task, pvc_name=_CLAIM, mount_path=_DATA)
        _let_into_object_store(target, task)
    if target.gpus and size == "training":
        _give_gpus(target, task)


def job_template(target: Target) -> dict[str, Any]:
    """Returns the template of TrainJobs; empty if a candidate is trained on one node.

    See `components.candidates.train_job`.
    """
    if target.nodes < 2:
        return {}
    resources = target.resources["training"]
    gpus = {"nvidia.com/gpu": target.gpus} if target.gpus else {}
    let_in: list[dict[str, Any]] = []
    if target.object_store:
        let_in = [{"name": name, "value": value} for name, value in _reached(target).items()] + [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": _SECRET, "key": key}}}
            for key, name in _SECRET_KEYS.items()
        ]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"namespace": _STEPS, "labels": {"app.kubernetes.io/part-of": "cxrflow"}},
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "TrainingRuntime",
                "name": _RUNTIME,
            },
            "trainer": {
                "image": f"{target.registry}cxrflow-training:{version('cxrflow')}",
                "numNodes": target.nodes,
                "env": let_in,
                "resourcesPerNode": {
                    "requests": {"cpu": resources.cpu[0], "memory": resources.memory[0]},
                    "limits": {"cpu": resources.cpu[1], "memory": resources.memory[1], **gpus},
                },
            },
        },
    }


def _let_into_object_store(target: Target, task: dsl.PipelineTask) -> None:
    """Gives a task access to the target's object store, if it has one."""
    if target.object_store:
        for name, value in _reached(target).items():
            task.set_env_variable(name, value)
        kubernetes.use_secret_as_env(task, secret_name=_SECRET, secret_key_to_env=_SECRET_KEYS)


def _reached(target: Target) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": target.object_store, "AWS_DEFAULT_REGION": "us-east-1"}


def _give_gpus(target: Target, task: dsl.PipelineTask) -> None:
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(target.gpus)
    kubernetes.add_node_selector(task, "cloud.google.com/gke-accelerator", target.accelerator)
    kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    # NCCL shares memory between GPUs here, and a container has 64 MB of it.
    kubernetes.empty_dir_mount(
        task, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory", size_limit="16Gi"
    )
