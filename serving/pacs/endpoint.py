"""The model server, asked over the Open Inference Protocol (V2)."""

import base64
import io
import json
import re
import struct
from dataclasses import dataclass
from typing import Any

import httpx
import pydicom
from pydicom import Dataset

from serving.pacs import Away, Failed, Unusable

_OUTPUTS = (
    "label", "probabilities", "classes", "abstained", "ood_score", "reasons", "trust",
    "trust_reasons", "picture", "overlay",
)  # fmt: skip
# Why the server rejects an image; see `core.images.opened` and `serving.dicom.to_png`.
_KINDS = {
    "empty", "not an image", "too large", "corrupt", "no picture", "several frames", "not supported",
}  # fmt: skip
# Groups of the picture's attributes, and PresentationLUTShape.
_PICTURE_GROUPS, _PICTURE_TAGS = (0x0028, 0x7FE0), (0x20500020,)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A model's answer for an image.

    Attributes:
      model, version: that answered.
      label: the most probable class, or `unknown`.
      probabilities: by class, in 0..1; without meaning if the model abstains.
      abstained: whether the image is too unlike the training images.
      ood_score: over 1 if so.
      doubts: why it may not be a frontal chest radiograph, as one line; "" for none.
      trust: the verdict on the model: `trusted`, `unproven` or `not trusted`.
      trust_reasons: for the verdict, as one line; "" for none.
      picture: a PNG of the radiograph in grey.
      overlay: a PNG of the heat map with transparency, of the same size.
    """

    model: str
    version: str
    label: str
    probabilities: dict[str, float]
    abstained: bool
    ood_score: float
    doubts: str
    trust: str
    trust_reasons: str
    picture: bytes
    overlay: bytes


def served(client: httpx.Client, model: str) -> str:
    """Returns the version of a model that the endpoint serves.

    Args:
      client: its base URL is the endpoint's.

    Raises:
      Away: the endpoint does not answer, or its answers lack what a report needs.
    """
    try:
        response = client.get(f"/v2/models/{model}")
        if response.status_code != httpx.codes.OK:
            raise Away("endpoint", f"HTTP status {response.status_code}")
        told = response.json()
        if not {output["name"] for output in told["outputs"]}.issuperset(_OUTPUTS):
            raise Away("endpoint", f"the model does not have the outputs {', '.join(_OUTPUTS)}")
        return str(told["versions"][0])
    except httpx.HTTPError as error:
        raise Away("endpoint", type(error).__name__) from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise Away("endpoint", "its answer is not of the Open Inference Protocol") from None


def ask(client: httpx.Client, model: str, content: bytes) -> Answer:
    """Returns the endpoint's answer for a DICOM file.

    Raises:
      Away: the endpoint does not answer.
      Failed: it fails for this image.
      Unusable: it rejects this image.
    """
    tensor = struct.pack("<I", len(content)) + content
    described = {
        "inputs": [
            {
                "name": "image_bytes",
                "shape": [1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(tensor)},
            }
        ],
        "outputs": [{"name": name} for name in _OUTPUTS],
    }
    head = json.dumps(described).encode()
    try:
        response = client.post(
            f"/v2/models/{model}/infer",
            content=head + tensor,
            headers={
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(len(head)),
            },
        )
    except httpx.ReadTimeout:
        raise Failed("ask", "no answer in time") from None
    except httpx.HTTPError as error:
        raise Away("endpoint", type(error).__name__) from None
    status = response.status_code
    if status == httpx.codes.BAD_REQUEST:
        raise Unusable(_kind(response))
    if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        raise Unusable("too large")
    if status == httpx.codes.INTERNAL_SERVER_ERROR:
        raise Failed("ask", f"HTTP status {status}")
    if status != httpx.codes.OK:
        raise Away("endpoint", f"HTTP status {status}")
    try:
        return _answer(model, response.json())
    except (ValueError, KeyError, IndexError, TypeError):
        raise Failed("ask", "the answer is not of the Open Inference Protocol") from None


def _answer(model: str, told: dict[str, Any]) -> Answer:
    data = {output["name"]: output["data"] for output in told["outputs"]}
    return Answer(
        model=model,
        version=str(told["model_version"]),
        label=data["label"][0],
        probabilities=dict(zip(data["classes"], data["probabilities"], strict=True)),
        abstained=bool(data["abstained"][0]),
        ood_score=float(data["ood_score"][0]),
        doubts=data["reasons"][0],
        trust=data["trust"][0],
        trust_reasons=data["trust_reasons"][0],
        picture=base64.b64decode(data["picture"][0]),
        overlay=base64.b64decode(data["overlay"][0]),
    )


def _kind(response: httpx.Response) -> str:
    try:
        (kind,) = re.findall(r"instances\[0\] is ([a-z ]+):", response.json()["error"])
    except (ValueError, KeyError, TypeError):
        kind = ""
    return kind if kind in _KINDS else "rejected"


def picture_alone(image: Dataset) -> bytes:
    """Returns a DICOM file of the picture and its display attributes, without the patient's.

    Raises:
      Unusable: the image cannot be written.
    """
    alone = Dataset()
    for element in image.elements():
        if element.tag.group in _PICTURE_GROUPS or element.tag in _PICTURE_TAGS:
            alone[element.tag] = element
    buffer = io.BytesIO()
    try:
        # Unchanged values in the file's own transfer syntax.
        alone.file_meta = pydicom.dataset.FileMetaDataset()
        alone.file_meta.TransferSyntaxUID = image.file_meta.TransferSyntaxUID
        alone.preamble = b"\0" * 128
        implicit, little_endian = image.original_encoding
        alone.set_original_encoding(implicit, little_endian, image.original_character_set)
        pydicom.dcmwrite(buffer, alone)
    except Exception:  # pydicom may raise any error for a damaged file
        raise Unusable("corrupt") from None
    return buffer.getvalue()
