"""TensorFlow without Keras, for code that trains nothing.

TensorFlow imports Keras while it is imported itself, and Keras imports pandas, scikit-learn and Matplotlib
where they are installed (`make bench ONLY=startup` shows the cost). If TensorFlow is told to use
Keras 2, whose package tf-keras is not installed, it imports none of them. `import keras` still gives Keras 3.
"""

import os

from core.imports import uncollected

_KERAS_2 = "TF_USE_LEGACY_KERAS"
_given = os.environ.get(_KERAS_2)
os.environ[_KERAS_2] = "1"
try:
    with uncollected():
        import tensorflow as tf
finally:
    if _given is None:
        del os.environ[_KERAS_2]
    else:
        os.environ[_KERAS_2] = _given

# Where Keras 2 would be.
tf.__path__[:] = [part for part in tf.__path__ if part]

__all__ = ["tf"]
