"""The KServe model server of an exported model.

    python -m serving.server --model-dir DIRECTORY [--name NAME] [--port PORT]

answers V1 predictions, `{"instances": [{"image_bytes": {"b64": "..."}}]}`, with
`{"predictions": [{"label": ..., "probabilities": {class: 0..1}}]}`; KServe adds health, readiness,
metrics and the rest.
"""

import asyncio
import base64
import binascii
import sys
from pathlib import Path
from typing import Annotated, Any

import tensorflow as tf
import typer
from kserve import InferRequest, Model, ModelServer
from kserve.errors import InvalidInput, ModelNotReady

from components.errors import UserError
from components.images import BadImage, for_tensorflow, to_png
from serving import NAME, PORT, store
from training import export


class ChestXrayModel(Model):  # type: ignore[misc]
    """Classifies images of chest X-rays; ready once the model has answered a first, blank image."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name)
        self._directory = directory
        self._classify: Any = None

    def load(self) -> bool:
        """Loads the model and compiles it by asking it once, so that no user waits for that.

        Raises:
          UserError: there is no model in the directory.
        """
        self._classify = export.load(store.saved_model(self._directory)).classify
        blank = tf.io.encode_png(tf.zeros((8, 8, 1), tf.uint8)).numpy()
        self._probabilities([blank])
        self.ready = True
        return self.ready

    async def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Returns the predictions of a V1 request; see the module.

        Raises:
          InvalidInput: an instance is not as it must be, or its image cannot be read.
          ModelNotReady: `load` has not ended.
        """
        if not self.ready:
            raise ModelNotReady(self.name)
        # In a thread: the event loop must go on answering probes meanwhile (kserve#3950).
        return await asyncio.to_thread(self._predict, payload)

    def _predict(self, payload: dict[str, Any] | InferRequest) -> dict[str, Any]:
        instances = payload.get("instances") if isinstance(payload, dict) else None
        if not isinstance(instances, list) or not instances:
            raise InvalidInput(
                'send JSON (Content-Type: application/json) of the V1 protocol: {"instances": '
                '[{"image_bytes": {"b64": "<base64 of the file>"}}]}'
            )
        images = [_image(i, instance) for i, instance in enumerate(instances)]
        names, probabilities = self._probabilities(images)
        return {
            "predictions": [
                {
                    "label": names[row.argmax()],
                    "probabilities": dict(zip(names, map(float, row), strict=True)),
                }
                for row in probabilities
            ]
        }

    def _probabilities(self, images: list[bytes]) -> tuple[list[str], Any]:
        try:
            answer = self._classify(image_bytes=tf.constant(images))
        except tf.errors.InvalidArgumentError:
            # TensorFlow cannot read one of them: a rare kind, which Pillow reads, or a damaged one.
            whole = [_readable(i, to_png, content) for i, content in enumerate(images)]
            answer = self._classify(image_bytes=tf.constant(whole))
        names = [name.decode() for name in answer["classes"][0].numpy()]
        return names, answer["probabilities"].numpy()


def _image(position: int, instance: Any) -> bytes:
    try:
        encoded = instance["image_bytes"]["b64"]
        content = base64.b64decode(encoded, validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise InvalidInput(
            f'instances[{position}] is not {{"image_bytes": {{"b64": "<base64 of the file>"}}}}'
        ) from error
    return _readable(position, for_tensorflow, content)


def _readable(position: int, read: Any, content: bytes) -> bytes:
    try:
        return bytes(read(content))
    except BadImage as error:
        raise InvalidInput(f"instances[{position}] is {error.kind}: {error}") from error


def main(
    model_dir: Annotated[Path, typer.Option()],
    name: Annotated[str, typer.Option()] = NAME,
    port: Annotated[int, typer.Option()] = PORT,
) -> None:
    """Serves a model until it is told to stop.

    Raises:
      UserError: there is no model in the directory.
    """
    model = ChestXrayModel(name, model_dir)
    model.load()
    ModelServer(http_port=port, enable_grpc=False).start([model])


if __name__ == "__main__":
    try:
        typer.run(main)
    except UserError as error:
        sys.exit(f"error: {error}")
