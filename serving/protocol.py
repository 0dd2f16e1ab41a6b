"""KServe's protocols: from a request to its images, and from answers to a response.

V1: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
V2 (Open Inference Protocol): https://github.com/kserve/open-inference-protocol
"""

import uuid
from collections.abc import Mapping, Sequence
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
# The label if the model abstains.
UNKNOWN = "unknown"
# Outputs of V2 that take an explanation to compute, so that they are sent only if a request names them.
EXPLANATION = ("picture", "overlay")
# A header of the binary data extension: how many bytes of the body are JSON.
JSON_LENGTH = "inference-header-content-length"


def invalid(reason: str, kind: str = "invalid request") -> InvalidInput:
    """Returns the error for an invalid request, and counts it by its kind."""
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
    """An input of V2; `data` is the base64 of each file, unless the tensor follows the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str] | None = None
    parameters: dict[str, Any] | None = None


class WantedOutput(_Strict):
    """An output that a V2 request asks for."""

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
    """The answer for one image.

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
        """Whether the image is too unlike the training images to be answered."""
        return self.ood_score > 1

    def label(self, classes: Sequence[str]) -> str:
        """Returns the most probable class, or `UNKNOWN`."""
        return UNKNOWN if self.abstained else classes[int(self.probabilities.argmax())]


def images_of_v1(body: bytes) -> list[str]:
    """Returns the base64 of each image in the JSON of a V1 request.

    Raises:
      InvalidInput: the body is invalid.
    """
    request = _validated(
        V1Request, body, '{"instances": [{"image_bytes": {"b64": "<base64 of the file>"}}]}'
    )
    return [instance.image_bytes.b64 for instance in request.instances]


def v2_request(body: bytes, json_length: str | None, name: str, version: str = "") -> InferRequest:
    """Returns a V2 request of REST; the tensor's data is bytes, or base64 as text.

    KServe's own parser treats every bytes tensor as text.

    Args:
      body: JSON, followed by the tensor if the binary data extension is used.
      json_length: the header with the number of bytes of JSON.
      name: of the model.
      version: the requested version; empty for the one being served.

    Raises:
      InvalidInput: the body is invalid.
    """
    if json_length is not None and not _is_length(json_length, len(body)):
        raise invalid(f"{JSON_LENGTH} must be a number of bytes, at most the size of the body")
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
    wanted = [RequestedOutput(output.name, output.parameters) for output in request.outputs or ()]
    return InferRequest(
        model_name=name,
        model_version=version,
        request_id=request.id,
        parameters=request.parameters,
        infer_inputs=[InferInput(tensor.name, tensor.shape, tensor.datatype, data)],
        request_outputs=wanted or None,
    )


def _is_length(text: str, most: int) -> bool:
    # isdigit would accept superscripts, and int rejects thousands of digits.
    return text.isdecimal() and len(text) <= len(str(most)) and int(text) <= most


def images_of_v2(request: InferRequest) -> list[str | bytes]:
    """Returns the images of a V2 request, of REST or gRPC: files as bytes, or base64 as text.

    Raises:
      InvalidInput: it is not one bytes tensor whose shape is its number of elements.
    """
    inputs = request.inputs
    if len(inputs) != 1 or inputs[0].name != INPUT or inputs[0].datatype != "BYTES":
        raise invalid(f"send one input, {INPUT!r}, of datatype BYTES")
    (tensor,) = inputs
    raw = tensor._raw_data
    images: list[str | bytes] = [*(_unpacked(raw) if raw is not None else tensor.data)]
    if not images or list(tensor.shape) not in ([len(images)], [len(images), 1]):
        raise invalid(
            f"input {INPUT} has {len(images)} elements, but its shape is {list(tensor.shape)}; send "
            "at least one element, and the number of elements as the shape"
        )
    return images


def wants_explanation(request: InferRequest) -> bool:
    """Returns whether a V2 request names an output of `EXPLANATION`."""
    return any(output.name in EXPLANATION for output in request.request_outputs or ())


def _unpacked(raw: bytes) -> list[bytes]:
    try:
        return list(deserialize_bytes_tensor(raw))
    except Exception:  # numpy and struct raise various errors for a wrong length
        raise invalid(
            f"the tensor {INPUT} is invalid; send each element after its length in 4 bytes"
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


def v1_response(answers: Sequence[Answer], about: Mapping[str, Any], name: str) -> Any:
    """Returns the JSON of a V1 response: `predictions`, any `explanations`, the model's name and version.

    Args:
      answers: one for each image.
      about: the version that answered; see `serving.version.Version`.
      name: of the model.
    """
    classes = about["classes"]
    response: dict[str, Any] = {
        "model_name": name,
        "model_version": about["version"],
        "predictions": [
            {
                "label": answer.label(classes),
                "probabilities": dict(zip(classes, answer.probabilities.tolist(), strict=True)),
                "abstained": answer.abstained,
                "ood_score": answer.ood_score,
                "suspect": bool(answer.doubts),
                "reasons": list(answer.doubts),
                "trust": about["trust"],
            }
            for answer in answers
        ],
    }
    explanations = [answer.explanation for answer in answers if answer.explanation]
    if explanations:
        response["explanations"] = explanations
    return response


def v2_response(
    answers: Sequence[Answer], about: Mapping[str, Any], name: str, request: InferRequest
) -> InferResponse:
    """Returns a V2 response with the requested outputs, by default all but those of `EXPLANATION`.

    Args:
      answers, about, name: see `v1_response`.
      request: that is answered.
    """
    count, classes = len(answers), about["classes"]
    probabilities = np.stack([answer.probabilities for answer in answers])
    data = {
        "label": [answer.label(classes) for answer in answers],
        "probabilities": probabilities.ravel().tolist(),
        "classes": list(classes),
        "abstained": [answer.abstained for answer in answers],
        "ood_score": [answer.ood_score for answer in answers],
        "suspect": [bool(answer.doubts) for answer in answers],
        "reasons": ["; ".join(answer.doubts) for answer in answers],
        "trust": [about["trust"]["verdict"]],
        "trust_reasons": ["; ".join(about["trust"]["reasons"])],
    }
    explained = [answer.explanation for answer in answers if answer.explanation]
    for name_of_output in EXPLANATION if explained else ():
        data[name_of_output] = [explanation[name_of_output]["b64"] for explanation in explained]
    wanted = [output.name for output in request.request_outputs or ()]
    unknown = [name for name in wanted if name not in data]
    if unknown:
        known = ", ".join(output["name"] for output in outputs(classes))
        raise invalid(f"unknown output {unknown[0]!r}; choose from {known}")
    return InferResponse(
        response_id=request.id or uuid.uuid4().hex,
        model_name=name,
        model_version=about["version"],
        infer_outputs=[
            InferOutput(
                output["name"],
                [count if side == -1 else side for side in output["shape"]],
                output["datatype"],
                data[output["name"]],
            )
            for output in outputs(classes)
            if output["name"] in (wanted or data)
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
        {"name": "trust", "datatype": "BYTES", "shape": [1]},
        {"name": "trust_reasons", "datatype": "BYTES", "shape": [1]},
        *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in EXPLANATION),
    ]
