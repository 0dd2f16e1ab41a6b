"""The exported model: its signatures, its predictions, its weights. It needs no Keras."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from core.errors import UserError
from core.progress import Progress
from training.without_keras import tf

_BATCH = 16
_OUTPUTS = {"classify": {"probabilities", "classes", "ood_score"}}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The signatures of an exported model, as functions of named tensors; see `export.export`."""

    predict: Callable[..., dict[str, tf.Tensor]]
    preprocess: Callable[..., dict[str, tf.Tensor]]
    classify: Callable[..., dict[str, tf.Tensor]]
    explain: Callable[..., dict[str, tf.Tensor]]


def load(directory: Path) -> Exported:
    """Returns the signatures of the SavedModel in a directory.

    Raises:
      UserError: a signature is missing or incomplete.
    """
    with Progress("loading the model"):
        loaded = tf.saved_model.load(str(directory))
    named = {"predict": "serving_default"}
    signatures = {}
    for field in fields(Exported):
        name = named.get(field.name, field.name)
        signature = loaded.signatures.get(name)
        if not signature or not _OUTPUTS.get(name, set()) <= set(signature.structured_outputs):
            raise UserError(
                f"{directory}: the model's signature {name!r} is missing or incomplete, because another "
                "release exported it. Export it again with `cxrflow run`."
            )
        signatures[field.name] = loaded.signatures[name]
        signatures[field.name].model = loaded  # a signature alone does not keep variables alive
    return Exported(**signatures)


def predictions(
    exported: Exported,
    images: tf.data.Dataset,
    classes: Sequence[str],
) -> pd.DataFrame:
    """Predicts images with an exported model, through the signature that is served.

    Args:
      exported: the model.
      images: see `data.encoded_images`; their number must be known.
      classes: in the order of the model's outputs.

    Returns:
      one row per image, sorted by `id`: `id`, `truth`, `predicted`, a probability for each
      class, and `abstained`, whether the server would abstain.
    """
    parts = []
    with Progress("images predicted", len(images)) as progress:
        for content, position, identity in images.batch(_BATCH).prefetch(1):
            answer = exported.predict(image_bytes=content)
            probabilities = answer["probabilities"].numpy()
            part = pd.DataFrame(probabilities, columns=list(classes))
            part.insert(0, "id", [value.decode() for value in identity.numpy()])
            part.insert(1, "truth", [classes[i] for i in position.numpy()])
            part.insert(2, "predicted", [classes[i] for i in probabilities.argmax(axis=1)])
            part["abstained"] = answer["ood_score"].numpy() > 1
            parts.append(part)
            progress.advance(len(part))
    return pd.concat(parts, ignore_index=True).sort_values("id", ignore_index=True)


def digest_of_weights(directory: Path) -> str:
    """Returns a digest of the weights of the SavedModel in a directory, as 64 hexadecimal digits.

    It depends on the numbers alone, because two exports of the same model give different files.

    Raises:
      UserError: the model was not exported by `export.export`.
    """
    reader = tf.train.load_checkpoint(str(directory / "variables" / "variables"))
    names = [
        name for name, dtype in reader.get_variable_to_dtype_map().items() if dtype.is_floating
    ]
    # Keras' archive also has `_all_variables`, whose order changes with each export.
    names = sorted(name for name in names if name.startswith("variables/"))
    if not names:
        raise UserError(f"{directory}: the model has no readable weights; train it again")
    digest = hashlib.sha256()
    for name in names:
        digest.update(np.ascontiguousarray(reader.get_tensor(name)).tobytes())
    return digest.hexdigest()
