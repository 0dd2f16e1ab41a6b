"""The model that KServe's servers query, over both REST and gRPC."""

import asyncio
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException
from kserve import InferRequest, InferResponse, Model
from PIL import Image

from core.artifacts import Verdict
from core.errors import UserError
from core.images import BadImage, statistics, to_png
from serving import metrics, protocol, radiograph, store
from serving.dataplane import NoSuchVersion
from serving.feature_log import FeatureLog
from serving.limits import Limits
from serving.protocol import Answer
from serving.version import Explanation, Version, may_pass
from training import heat_maps
from training.without_keras import tf

logger = logging.getLogger("cxrflow.serving")

_SECONDS_BETWEEN_LOOKS = 1.0
# Pause before loading a version is retried, doubled each time up to the last.
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 2.0, 300.0


class Busy(GrpcException):
    """The queue is full; the client should retry."""

    status_code = StatusCode.UNAVAILABLE
    details = "the server is busy; try again in a second"


class ChestXrayModel(Model):  # type: ignore[misc]
    """Classifies and explains chest X-rays with the newest version of a model."""

    def __init__(
        self, name: str, directory: Path, limits: Limits, log: FeatureLog | None = None
    ) -> None:
        """Makes a model that is not loaded yet.

        Args:
          name: at the endpoint.
          directory: a version of the model store, or the directory of all versions of a model; then the
            link `latest` is followed.
          limits: of requests and the queue.
          log: for statistics of answered images; may be None.
        """
        super().__init__(name)
        self._directory = directory
        self._limits = limits
        self._log = log
        self._images = 0
        self._version: Version
        self._failure: _Failure | None = None
        # Threads, because decoding releases Python's lock.
        self._decoders = ThreadPoolExecutor(os.cpu_count(), "decoder", _give_way)

    def load(self) -> bool:
        """Loads the version to serve.

        Raises:
          UserError: there is no version, or it is damaged.
        """
        directory = store.version_in(self._directory)
        # TensorFlow's threads inherit the priority of the thread that starts them.
        self._version = self._decoders.submit(Version, directory).result()
        _tell(self._version)
        self.ready = True
        return self.ready

    async def follow(self) -> None:
        """Follows `latest`: loads each new version, and serves the current one until then.

        If a version cannot be loaded, it is rejected, or retried at growing intervals if the reason may pass.
        """
        while True:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            newest = self._newer_version()
            if newest:
                await self._change_to(newest)

    def _newer_version(self) -> Path | None:
        try:
            newest = store.version_in(self._directory)
        except (UserError, OSError):
            return None  # the store is unavailable, but the current version is loaded
        if newest == self._version.directory:
            self._failure = None
            return None
        failure = self._failure
        waits = failure and failure.directory == newest and time.monotonic() < failure.again
        return None if waits else newest

    async def _change_to(self, directory: Path) -> None:
        try:
            version = await self._in_decoders(Version, directory)
        except Exception as error:
            self._failure = self._failed(directory, error)
            return
        before, self._version = self._version, version
        _tell(version)
        self._failure = None
        before.retire()
        logger.info("serving version %s", version.about["version"])

    def _failed(self, directory: Path, error: Exception) -> "_Failure":
        known = isinstance(error, UserError)
        if not may_pass(error):
            logger.error("version %s is rejected: %s", directory.name, error, exc_info=not known)
            return _Failure(directory=directory, reason=str(error))
        before = self._failure
        same = before is not None and before.directory == directory
        pause = (
            min(2 * before.pause, _LAST_PAUSE_SECONDS) if before and same else _FIRST_PAUSE_SECONDS
        )
        logger.warning(
            "version %s cannot be loaded; will retry in %g seconds: %s",
            directory.name,
            pause,
            error,
        )
        return _Failure(
            directory=directory, reason=str(error), pause=pause, again=time.monotonic() + pause
        )

    def about(self) -> dict[str, Any]:
        """Returns what clients may know about the current version; see `Version.about`.

        It also has `refused`: a newer version that cannot be loaded, with the reason, or None; and `delayed`:
        the same for one that will be retried.
        """
        failure = self._failure
        told = failure and {"version": failure.directory.name, "reason": failure.reason}
        delayed = failure is not None and failure.again < math.inf
        return {
            **self._version.about,
            "refused": None if delayed else told,
            "delayed": told if delayed else None,
        }

    def document(self, name: str) -> Path:
        """Returns the path of a page about the current version, which may have been published without it."""
        return self._version.directory / name

    def get_input_types(self) -> list[dict[str, Any]]:
        """Returns the inputs of V2's metadata."""
        return protocol.inputs()

    def get_output_types(self) -> list[dict[str, Any]]:
        """Returns the outputs of V2's metadata."""
        return protocol.outputs(self._version.classes)

    async def predict(
        self,
        payload: list[str] | InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Returns the predictions of a V1 or V2 request; see `serving.protocol`.

        Args:
          payload: a V2 request, or for V1 the base64 of each image.
          headers, response_headers: unused.

        Raises:
          InvalidInput: the request, or an image in it, is invalid.
          NoSuchVersion: it names a version that is not being served.
          Busy: the queue is full.
        """
        v2 = isinstance(payload, InferRequest)
        images = protocol.images_of_v2(payload) if v2 else payload
        with self._version as version:
            name, number = self.name, version.about["version"]
            wanted = payload.model_version if isinstance(payload, InferRequest) else None
            if wanted and wanted != number:
                raise NoSuchVersion(name, wanted, number)
            explain = isinstance(payload, InferRequest) and protocol.wants_explanation(payload)
            answers = await self._answers(version, images, explain=explain)
            if v2:
                return protocol.v2_response(answers, version.about, name, payload)
            return dict(protocol.v1_response(answers, version.about, name))

    async def explain(
        self, payload: list[str], headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Returns what `predict` does and, for each image, the evidence for its label.

        Args:
          payload: the base64 of each image.
          headers: unused.

        Raises:
          InvalidInput, Busy: as `predict`.
        """
        with self._version as version:
            answers = await self._answers(version, payload, explain=True)
            return dict(protocol.v1_response(answers, version.about, self.name))

    async def _answers(
        self, version: Version, images: Sequence[str | bytes], *, explain: bool
    ) -> list[Answer]:
        limits = self._limits
        if len(images) > limits.instances:
            reason = f"the request has {len(images)} images; the limit is {limits.instances}"
            raise protocol.invalid(reason, "too many images")
        if self._images + len(images) > limits.queue:
            metrics.REJECTED.labels("busy").inc()
            raise Busy
        self._images += len(images)
        try:
            read = await self._read_all(version, images, with_picture=explain)
            answered = self._explained if explain else self._predicted
            answers = await asyncio.gather(*(answered(version, image) for image in read))
        finally:
            self._images -= len(images)
        for answer, image in zip(answers, read, strict=True):
            label = answer.label(version.classes)
            if self._log:
                self._log.add(version.about["version"], label, image.statistics)
            metrics.PREDICTIONS.labels(label).inc()
            if answer.doubts:
                metrics.DOUBTED.inc()
        return list(answers)

    async def _read_all(
        self, version: Version, images: Sequence[str | bytes], *, with_picture: bool
    ) -> list["_Read"]:
        reading = [
            self._in_decoders(_read, version, image, self._limits.pixels, with_picture)
            for image in images
        ]
        outcomes = await asyncio.gather(*reading, return_exceptions=True)
        for position, outcome in enumerate(outcomes):
            if isinstance(outcome, BadImage):
                reason = f"instances[{position}] is {outcome.kind}: {outcome}"
                raise protocol.invalid(reason, outcome.kind)
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, _Read)]

    async def _predicted(self, version: Version, image: "_Read") -> Answer:
        made = await asyncio.wrap_future(version.classify.ask(image.pixels))
        return Answer(
            probabilities=made.probabilities, ood_score=made.ood_score, doubts=image.doubts
        )

    async def _explained(self, version: Version, image: "_Read") -> Answer:
        made = await asyncio.wrap_future(version.explain.ask(image.pixels))
        explanation = await self._in_decoders(_drawn, version, image, made)
        return Answer(
            probabilities=made.probabilities,
            ood_score=made.ood_score,
            doubts=image.doubts,
            explanation=explanation,
        )

    def _in_decoders(self, work: Any, *arguments: Any) -> Any:
        return asyncio.get_running_loop().run_in_executor(self._decoders, work, *arguments)


def _tell(version: Version) -> None:
    """Sets the metrics that describe the version."""
    metrics.TRUSTED.set(version.about["trust"]["verdict"] == Verdict.TRUSTED)
    metrics.EXPECTED.clear()
    for name, share in version.expected.items():
        metrics.EXPECTED.labels(name).set(share)
    for name in (*version.classes, protocol.UNKNOWN):
        metrics.PREDICTIONS.labels(name)  # from zero, as in `serving.metrics`


def _give_way() -> None:
    """Lowers this thread's priority, so that the event loop, which answers probes, runs first."""
    if sys.platform == "linux":  # elsewhere this would affect the whole process
        os.nice(5)


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """A version that could not be loaded, and why.

    `again` is the time of the next try, by `time.monotonic`; `pause` is the wait before it, in seconds.
    """

    directory: Path
    reason: str
    pause: float = 0
    again: float = math.inf


@dataclass(frozen=True, kw_only=True)
class _Read:
    """An image as read: the pixels for the network, the doubts, and the picture if requested."""

    pixels: np.ndarray
    doubts: tuple[str, ...]
    picture: Image.Image | None
    made: radiograph.Radiograph

    def statistics(self) -> dict[str, Any]:
        """Returns what the feature log keeps of the image."""
        grey = Image.fromarray(self.pixels[..., 0].astype(np.uint8))
        made = self.made
        return {
            "width": made.width, "height": made.height, "mode": made.mode, **statistics(grey),
        }  # fmt: skip


def _read(version: Version, image: str | bytes, max_pixels: int, with_picture: bool) -> _Read:
    made = radiograph.read(image, max_pixels)
    content = made.content
    try:
        pixels = version.preprocess(content)
    except tf.errors.InvalidArgumentError:
        # A rare kind that only Pillow reads, or a damaged file.
        content = to_png(content)
        pixels = version.preprocess(content)
    doubts = (*made.doubts, *radiograph.doubts_about_pixels(pixels))
    picture = radiograph.shown(content) if with_picture else None
    return _Read(pixels=pixels, doubts=doubts, picture=picture, made=made)


def _drawn(version: Version, image: _Read, made: Explanation) -> dict[str, Any]:
    assert image.picture
    return {
        "label": version.classes[int(made.probabilities.argmax())],
        "map": [[round(float(value), 4) for value in row] for row in made.heat_map],
        "picture": {"b64": radiograph.png(image.picture)},
        "overlay": {"b64": radiograph.png(heat_maps.layer(made.heat_map, image.picture.size))},
    }
