"""Where a pipeline runs: this machine, or a cluster as an overlay of manifests/ sets it up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from kfp import dsl, kubernetes

# What manifests/base has.
SERVICE_ACCOUNT = "cxrflow-pipeline"
NAMESPACE = "cxrflow"
_STEPS = "kubeflow"  # the namespace of the steps
_RUNTIME = "cxrflow-training"  # of manifests/many-nodes
_CLAIM, _DATA = "cxrflow-data", "/data"
_USER = 10001

_HOURS = {"data": 6, "training": 72, "waiting": 72, "light": 3}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a step asks for, and may use at most: processors and memory as Kubernetes writes them."""

    cpu: tuple[str, str]
    memory: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A place to run pipelines.

    Attributes:
      name: of the overlay; empty: this machine, where a step is a process.
      at_once: how many trainings run at the same time; 0: all of them.
      store: the model store.
      namespace: of the InferenceService; empty: none.
      data: the directory with both datasets and all that outlives a run.
      resources: of steps, by what they do; see `place`.
      gpus: of a training step, which shares its batches out to all of them.
      nodes: that train one candidate together, each with so many GPUs; see `components.candidates.train_job`.
      accelerator: the GPU's kind, a label of its nodes.
      registry: what stands before the images' names.
      object_store: the endpoint of an S3 whose credentials are in the secret of Kubeflow Pipelines;
        empty: the account of the pod is let in.
    """

    name: str
    at_once: int
    store: str
    namespace: str
    data: str
    resources: Mapping[str, Resources] = field(default_factory=dict)
    gpus: int = 0
    nodes: int = 1
    accelerator: str = ""
    registry: str = ""
    object_store: str = ""


LOCAL = Target(name="", at_once=1, store="models", namespace="", data=".")

# One node of a laptop: a training at a time, and the object store that Kubeflow Pipelines brings.
_SMALL = {
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


def place(
    target: Target,
    *,
    data: Sequence[Any],
    training: Sequence[Any],
    light: Sequence[Any],
    reading: Sequence[Any] = (),
    together: Sequence[Any] = (),
) -> None:
    """Says of each task what a cluster must know: image, resources, volumes, retries, time-outs.

    Args:
      target: nothing is said for this machine.
      data: tasks that read the datasets.
      training: tasks that train.
      light: all others.
      reading: those of them that read the datasets, or what outlives a run beside them.
      together: tasks that train, and where the target has several nodes for it wait for these.
    """
    if not target.name:
        return
    waiting = together if target.nodes > 1 else ()
    training = training if waiting else (*training, *together)
    for kind, tasks in (
        ("data", data),
        ("training", training),
        ("waiting", waiting),
        ("light", light),
    ):
        for task in tasks:
            _place(target, task, kind)
    for task in (*data, *training, *waiting, *reading):
        # Datasets, archive and store may lie in either.
        kubernetes.mount_pvc(task, pvc_name=_CLAIM, mount_path=_DATA)
        _let_into_object_store(target, task)
    if target.gpus:
        for task in training:
            _give_gpus(target, task)


def _place(target: Target, task: Any, kind: str) -> None:
    resources = target.resources["light" if kind == "waiting" else kind]
    task.set_container_image(target.registry + task.container_spec.image)
    task.set_cpu_request(resources.cpu[0]).set_cpu_limit(resources.cpu[1])
    task.set_memory_request(resources.memory[0]).set_memory_limit(resources.memory[1])
    task.set_retry(2, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")
    kubernetes.set_timeout(task, 3600 * _HOURS[kind])
    kubernetes.set_security_context(
        task, run_as_user=_USER, run_as_group=_USER, run_as_non_root=True
    )
    kubernetes.set_image_pull_policy(task, "IfNotPresent")


def job_template(target: Target) -> dict[str, Any]:
    """Returns what TrainJobs are made from; nothing where a candidate is trained on one node.

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
    """Gives a task the credentials of the target's object store, where it has any."""
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
