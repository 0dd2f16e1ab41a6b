"""A published version of the model, loaded: its answers, and what is known about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.artifacts import CARD, DECISION
from core.errors import UserError
from core.files import read_json
from serving import metrics, protocol, store, verdict
from serving.batches import Batches
from training import saved_model
from training.without_keras import tf

# Larger batches are no faster on CPUs and would delay the first images.
LARGEST_BATCH = 16

# TensorFlow's errors for a temporary failure of disk, network or memory.
_MAY_PASS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)
_NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True, kw_only=True)
class Classified:
    """A model's prediction for an image.

    Attributes:
      probabilities: float32 [classes].
      ood_score: how far the image is from the training images; over 1 the probabilities mean nothing (see
        `training.ood`).
    """

    probabilities: np.ndarray
    ood_score: float


@dataclass(frozen=True, kw_only=True)
class Explanation(Classified):
    """A prediction with its heat map.

    Attributes:
      heat_map: float32 [rows, columns] in 0..1: the evidence for the most probable class.
    """

    heat_map: np.ndarray


class Version:
    """Answers images in batches. The constructor warms the model up with a blank image.

    Attributes:
      directory: of the model store.
      about: what clients may know about it: `name`, `version`, `recipe`, `classes`, `starting_point`,
        `phantoms`, `quick`, `fingerprint` of the data, `trust`, the verdict (see `serving.verdict`),
        `answers`, what it answered on the pipeline's test split (see `components.candidates.evaluate`; None
        if an earlier release published it), and `recall`, rows of `class` and `recall` with its interval
        there.
      classes: in the order of the probabilities.
      expected: the share of the test split's images that got each label, in 0..1; empty if an earlier release
        published the version.
      classify: from float32 [height, width, 1] in 0..255 to a `Classified`.
      explain: from the same to an `Explanation`.
    """

    def __init__(self, directory: Path) -> None:
        """Loads a version.

        Raises:
          UserError: the version is damaged, or of another release.
        """
        self.directory = directory
        self.about = _about(directory)
        self.classes: tuple[str, ...] = tuple(self.about["classes"])
        answers = self.about["answers"]
        self.expected: dict[str, float] = (
            {**answers["classes"], protocol.UNKNOWN: answers["abstained"]} if answers else {}
        )
        try:
            self._exported = saved_model.load(directory)
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise UserError(f"{directory}: TensorFlow cannot load the model: {error}") from error
        blank = tf.io.encode_png(tf.zeros((8, 8, 1), tf.uint8)).numpy()
        # Compile now, so that no client waits for it.
        pixels = self.preprocess(blank)
        names = self._exported.classify(pixels=pixels[np.newaxis])["classes"].numpy()[0]
        if tuple(name.decode() for name in names) != self.classes:
            raise UserError(f"{directory}: the model's classes differ from those in its card")
        self.classify = Batches(self._classify, LARGEST_BATCH)
        self.explain = Batches(self._explain, LARGEST_BATCH)
        self._users, self._retired = 0, False

    def preprocess(self, content: bytes) -> np.ndarray:
        """Returns the pixels of a file that the network sees: float32 [height, width, 1] in 0..255.

        Raises:
          tf.errors.InvalidArgumentError: it is not a JPEG or PNG that TensorFlow can read.
        """
        pixels = self._exported.preprocess(image_bytes=tf.constant(content))["pixels"]
        return np.asarray(pixels)

    def _classify(self, pixels: Sequence[np.ndarray]) -> Sequence[Classified]:
        metrics.BATCH_SIZE.labels("predict").observe(len(pixels))
        answer = self._exported.classify(pixels=tf.constant(np.stack(pixels)))
        rows = zip(answer["probabilities"].numpy(), answer["ood_score"].numpy(), strict=True)
        return [Classified(probabilities=row, ood_score=float(score)) for row, score in rows]

    def _explain(self, pixels: Sequence[np.ndarray]) -> Sequence[Explanation]:
        metrics.BATCH_SIZE.labels("explain").observe(len(pixels))
        answer = self._exported.explain(
            pixels=tf.constant(np.stack(pixels)), positions=tf.fill([len(pixels)], -1)
        )
        rows = zip(
            *(answer[name].numpy() for name in ("probabilities", "ood_score", "heat_maps")),
            strict=True,
        )
        return [
            Explanation(probabilities=row, ood_score=float(score), heat_map=heat_map)
            for row, score, heat_map in rows
        ]

    # Both run only in the event loop's thread.

    def __enter__(self) -> "Version":
        self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        self._close_if_unused()

    def retire(self) -> None:
        """Ends the version's threads once no request uses it."""
        self._retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retired and not self._users:
            self.classify.close()
            self.explain.close()


def may_pass(error: BaseException) -> bool:
    """Returns whether loading a version that failed with this error may succeed later.

    Disk, network and memory may recover; damaged or missing files and files of another release do not.
    """
    cause: BaseException | None = error
    while cause:
        system = (
            isinstance(cause, OSError) and cause.errno is not None
        )  # TensorFlow's errors have none
        if isinstance(cause, (MemoryError, *_MAY_PASS)):
            return True
        if system and not isinstance(cause, _NOT_THERE):
            return True
        cause = cause.__cause__
    return False


def _about(directory: Path) -> dict[str, Any]:
    manifest = store.verified(directory)
    try:
        card = read_json(directory / CARD)
        decision = read_json(directory / DECISION)
        (winner,) = (row for row in decision["candidates"] if row["recipe"] == decision["winner"])
        if winner["recipe"] != card["recipe"]["name"]:
            raise UserError(
                f"{directory}: the model is of recipe {card['recipe']['name']!r}, but the decision is "
                f"for {winner['recipe']!r}"
            )
        return {
            "name": manifest["model"],
            "version": manifest["version"],
            "recipe": card["recipe"]["name"],
            "classes": card["recipe"]["classes"],
            "starting_point": card["starting_point"],
            "phantoms": card["phantoms"],
            "quick": card["recipe"].get("quick", False),  # missing in earlier releases
            "fingerprint": card["fingerprint"],
            "trust": verdict.of_winner(decision),
            "answers": winner.get("answers"),  # missing in earlier releases
            "recall": [{"class": row["class"], **row["recall"]} for row in winner["checks"]],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{directory}: the model's card or the gate's decision is missing or incomplete ({error!r})"
            "; publish a model from the pipeline"
        ) from error
