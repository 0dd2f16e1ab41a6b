"""Turns off TensorFlow's tuning of datasets, for which their readers may have to wait."""

import tensorflow as tf


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset without TensorFlow's tuning of parallelism while it is read.

    The thread that tunes sleeps for as long as the dataset has been read already, up to a minute. It can miss
    the signal to end, and whoever drops the iterator then waits until it wakes. Without it, every map has as
    many threads as there are cores, but at most 16. What is derived from the dataset is untuned as well,
    except by `flat_map` and `window`.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
