"""KServe's protocols: from a request to the images in it, and from answers to a response.

V1: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
V2 (Open Inference Protocol): https://github.com/kserve/open-inference-protocol
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import RequestedOutput, deserialize_bytes_tensor
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving import metrics

INPUT = "image_bytes"
# The label where the model abstains.
UNKNOWN = "unknown"
# Of the binary data extension: how much of the body is JSON.
JSON_LENGTH = "inference-header-content-length"


def invalid(reason: str, kind: str = "invalid request") -> InvalidInput:
    """Returns the error of a request that is turned away, and counts it by its kind."""
    metrics.REJECTED.labels(kind).inc()
    return InvalidInput(reason)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class Base64(_Strict):
    """A file in base64."""

    b64: str


class Instance(_Strict):
    """One image of V1."""

    image_bytes: Base64


class V1Request(_Strict):
    """The body of `:predict` and `:explain`."""

    instances: list[Instance] = Field(min_length=1)


class Tensor(_Strict):
    """An input of V2; `data` is base64 of a file each, unless the tensor follows the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str] | None = None
    parameters: dict[str, Any] | None = None


class WantedOutput(_Strict):
    """An output that V2 asks for."""

    name: str
    parameters: dict[str, Any] | None = None


class V2Request(_Strict):
    """The body of `infer`."""

    id: str | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] | None = None
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is answered about an image.

    Attributes:
      probabilities: float32 [classes].
      ood_score: see `serving.version.Classified`.
      doubts: sentences; see `serving.radiograph`.
      explanation: what `:explain` adds, or None.
    """

    probabilities: np.ndarray
    ood_score: float
    doubts: tuple[str, ...]
    explanation: dict[str, Any] | None = None

    @property
    def abstained(self) -> bool:
        """Whether the image is too unlike what was trained on to be answered."""
        return self.ood_score > 1

    def label(self, classes: Sequence[str]) -> str:
        """Returns the most probable class, or `UNKNOWN`."""
        return UNKNOWN if self.abstained else classes[int(self.probabilities.argmax())]


def images_of_v1(body: bytes) -> list[str]:
    """Returns the base64 of each image in the JSON of a V1 request.

    Raises:
      InvalidInput: the body is not as it must be.
    """
    request = _validated(
        V1Request, body, '{"instances": [{"image_bytes": {"b64": "<base64 of the file>"}}]}'
    )
    return [instance.image_bytes.b64 for instance in request.instances]


def v2_request(body: bytes, json_length: str | None, name: str, version: str = "") -> InferRequest:
    """Returns a V2 request of REST; its tensor's data is bytes, or text where that is base64.

    KServe's own reading takes every tensor of bytes for text.

    Args:
      body: JSON, and after it, where the binary data extension is used, the tensor.
      json_length: the header that says how much of the body is JSON.
      name: of the model.
      version: of it that is asked; empty: the one that is served.

    Raises:
      InvalidInput: the body is not as it must be.
    """
    if json_length is not None and not _is_length(json_length, len(body)):
        raise invalid(f"{JSON_LENGTH} must be a number of bytes, at most the body's")
    end = len(body) if json_length is None else int(json_length)
    request = _validated(
        V2Request,
        body[:end],
        f'{{"inputs": [{{"name": "{INPUT}", "shape": [1], "datatype": "BYTES", "data": ["<base64 of '
        'the file>"]}]}',
    )
    (tensor,) = request.inputs
    data: list[Any] | None = tensor.data
    if data is None:
        if json_length is None:
            raise invalid(f"input {INPUT} has no data")
        data = _unpacked(body[end:])
    wanted = [RequestedOutput(one.name, one.parameters) for one in request.outputs or ()]
    return InferRequest(
        model_name=name,
        model_version=version,
        request_id=request.id,
        parameters=request.parameters,
        infer_inputs=[InferInput(tensor.name, tensor.shape, tensor.datatype, data)],
        request_outputs=wanted or None,
    )


def _is_length(text: str, most: int) -> bool:
    # Not isdigit: it takes a superscript, too. And int refuses thousands of digits.
    return text.isdecimal() and len(text) <= len(str(most)) and int(text) <= most


def images_of_v2(request: InferRequest) -> list[str | bytes]:
    """Returns the images of a V2 request, of REST or gRPC: files, or text where it is base64.

    Raises:
      InvalidInput: it has not one tensor of bytes with as many elements as its shape says.
    """
    inputs = request.inputs
    if len(inputs) != 1 or inputs[0].name != INPUT or inputs[0].datatype != "BYTES":
        raise invalid(f"send one input, {INPUT!r}, of datatype BYTES")
    (tensor,) = inputs
    raw = tensor._raw_data
    images: list[str | bytes] = [*(_unpacked(raw) if raw is not None else tensor.data)]
    if not images or list(tensor.shape) not in ([len(images)], [len(images), 1]):
        raise invalid(
            f"input {INPUT} has {len(images)} elements, and its shape is {list(tensor.shape)}; send "
            "at least one element, and their number as shape"
        )
    return images


def _unpacked(raw: bytes) -> list[bytes]:
    try:
        return list(deserialize_bytes_tensor(raw))
    except Exception:  # numpy and struct raise what they like of a wrong length
        raise invalid(
            f"the tensor of {INPUT} is not elements with their length in 4 bytes before them"
        ) from None


def _validated(kind: type[BaseModel], body: bytes, wanted: str) -> Any:
    try:
        return kind.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise invalid(f"the body is not JSON; send {wanted}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise invalid(f"{where}: {first['msg']}; send {wanted}") from None


def v1_response(answers: Sequence[Answer], classes: Sequence[str], name: str, version: str) -> Any:
    """Returns the JSON of a V1 response: `predictions`, `explanations` if any, and the model's name."""
    response: dict[str, Any] = {
        "model_name": name,
        "model_version": version,
        "predictions": [
            {
                "label": answer.label(classes),
                "probabilities": dict(zip(classes, answer.probabilities.tolist(), strict=True)),
                "abstained": answer.abstained,
                "ood_score": answer.ood_score,
                "suspect": bool(answer.doubts),
                "reasons": list(answer.doubts),
            }
            for answer in answers
        ],
    }
    explanations = [answer.explanation for answer in answers if answer.explanation]
    if explanations:
        response["explanations"] = explanations
    return response


def v2_response(
    answers: Sequence[Answer],
    classes: Sequence[str],
    name: str,
    version: str,
    request: InferRequest,
) -> InferResponse:
    """Returns a V2 response with all outputs that `outputs` describes, or those that were asked for."""
    count = len(answers)
    probabilities = np.stack([answer.probabilities for answer in answers])
    data = {
        "label": [answer.label(classes) for answer in answers],
        "probabilities": probabilities.ravel().tolist(),
        "classes": list(classes),
        "abstained": [answer.abstained for answer in answers],
        "ood_score": [answer.ood_score for answer in answers],
        "suspect": [bool(answer.doubts) for answer in answers],
        "reasons": ["; ".join(answer.doubts) for answer in answers],
    }
    wanted = [one.name for one in request.request_outputs or ()]
    unknown = [name for name in wanted if name not in data]
    if unknown:
        raise invalid(f"there is no output {unknown[0]!r}; there are {', '.join(data)}")
    return InferResponse(
        response_id=request.id or uuid.uuid4().hex,
        model_name=name,
        model_version=version,
        infer_outputs=[
            InferOutput(
                one["name"],
                [count if side == -1 else side for side in one["shape"]],
                one["datatype"],
                data[one["name"]],
            )
            for one in outputs(classes)
            if not wanted or one["name"] in wanted
        ],
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )


def inputs() -> list[dict[str, Any]]:
    """Returns the inputs of V2's metadata."""
    return [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]


def outputs(classes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the outputs of V2's metadata; `classes` names the columns of `probabilities`."""
    return [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(classes)]},
        {"name": "classes", "datatype": "BYTES", "shape": [len(classes)]},
        {"name": "abstained", "datatype": "BOOL", "shape": [-1]},
        {"name": "ood_score", "datatype": "FP32", "shape": [-1]},
        {"name": "suspect", "datatype": "BOOL", "shape": [-1]},
        {"name": "reasons", "datatype": "BYTES", "shape": [-1]},
    ]
