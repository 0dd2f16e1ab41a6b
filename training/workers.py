"""Training on several machines: how their processes connect, and which one writes the results."""

import json
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from training import HOSTS

# Environment variable with the index of a pod in an Indexed Job of Kubernetes.
INDEX = "JOB_COMPLETION_INDEX"


class _Workers(tf.distribute.MultiWorkerMirroredStrategy):  # type: ignore[misc]
    """Reduces what Keras 3 passes to it: whole structures, and scalars along an axis.

    TensorFlow's strategy supports neither, so Keras' `fit` fails with it
    (https://github.com/keras-team/keras/issues/20585).
    """

    def reduce(self, reduce_op: Any, value: Any, axis: int | None) -> Any:
        def reduced(part: Any) -> Any:
            rank = self.experimental_local_results(part)[0].shape.rank
            return super(_Workers, self).reduce(reduce_op, part, axis if rank else None)

        return tf.nest.map_structure(reduced, value)


def join() -> tf.distribute.Strategy | None:
    """Connects to the machines named in the environment. Call it before any other use of TensorFlow.

    Returns:
      a MultiWorkerMirroredStrategy over all GPUs of all machines; None if there is only one machine.
    """
    hosts = [host for host in os.environ.get(HOSTS, "").split(",") if host]
    if len(hosts) < 2:
        return None
    task = {"type": "worker", "index": int(os.environ[INDEX])}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": hosts}, "task": task})
    return _Workers()


def leads(strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether this process writes the shared results: it is the first of several, or the only one."""
    return not isinstance(strategy, _Workers) or strategy.cluster_resolver.task_id == 0


def wait_for_all(strategy: tf.distribute.Strategy | None) -> None:
    """Waits until every machine has got here, because a machine that ends early looks like a failed one."""
    if isinstance(strategy, _Workers):
        strategy.reduce("SUM", tf.constant(1.0), None)


def in_batches_for_all(datasets: Sequence[tf.data.Dataset]) -> list[tf.data.Dataset]:
    """Returns datasets of which every machine gets its share of each batch.

    By default, TensorFlow gives each machine its share of the files, so the batches would differ from those
    on one machine.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return [dataset.with_options(options) for dataset in datasets]
