"""Training on several machines: how their processes find one another, and who writes for all."""

import json
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from training import HOSTS

# In the environment of each: which one it is, as Kubernetes numbers the pods of an Indexed Job.
INDEX = "JOB_COMPLETION_INDEX"


class _Workers(tf.distribute.MultiWorkerMirroredStrategy):  # type: ignore[misc]
    """Takes what Keras 3 gives it to reduce: whole structures, and scalars along an axis.

    TensorFlow's own takes neither, so that Keras's `fit` fails
    (https://github.com/keras-team/keras/issues/20585).
    """

    def reduce(self, reduce_op: Any, value: Any, axis: int | None) -> Any:
        def reduced(one: Any) -> Any:
            rank = self.experimental_local_results(one)[0].shape.rank
            return super(_Workers, self).reduce(reduce_op, one, axis if rank else None)

        return tf.nest.map_structure(reduced, value)


def join() -> tf.distribute.Strategy | None:
    """Joins the machines that the environment names; to be called before TensorFlow does anything.

    Returns:
      a MultiWorkerMirroredStrategy over every GPU of all of them, or None where there is but one.
    """
    hosts = [host for host in os.environ.get(HOSTS, "").split(",") if host]
    if len(hosts) < 2:
        return None
    task = {"type": "worker", "index": int(os.environ[INDEX])}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": hosts}, "task": task})
    return _Workers()


def leads(strategy: tf.distribute.Strategy | None) -> bool:
    """Says whether this process writes what all of them share: the first of several, or the only one."""
    return not isinstance(strategy, _Workers) or strategy.cluster_resolver.task_id == 0


def wait_for_all(strategy: tf.distribute.Strategy | None) -> None:
    """Returns when every machine has got here: one that is gone looks like one that has failed."""
    if isinstance(strategy, _Workers):
        strategy.reduce("SUM", tf.constant(1.0), None)


def in_batches_for_all(datasets: Sequence[tf.data.Dataset]) -> list[tf.data.Dataset]:
    """Returns datasets of which every machine gets its share of each batch.

    TensorFlow would rather give each its share of the files, and the batches would be others than on one
    machine.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return [dataset.with_options(options) for dataset in datasets]
