"""Files as clients send them."""

import asyncio
import base64
import io
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane"


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def dicom(
    values: np.ndarray | None,
    *,
    bits: int = 8,
    photometric: str = "MONOCHROME2",
    **attributes: Any,
) -> bytes:
    """Returns a DICOM file of stored values, uint8 or (u)int16 [height, width] or with colours."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"  # digital X-ray image
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientName = PATIENT
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    if values is not None:
        dataset.Rows, dataset.Columns = values.shape[:2]
        dataset.SamplesPerPixel = 3 if values.ndim == 3 else 1
        if values.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.PhotometricInterpretation = photometric
        dataset.BitsAllocated = 8 * values.dtype.itemsize
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        dataset.PixelRepresentation = int(values.dtype.kind == "i")
        dataset.PixelData = values.tobytes()
        dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def encapsulated(content: bytes, syntax: str, frame: bytes) -> bytes:
    """Returns a DICOM file with its pixels compressed: `frame` is of the transfer syntax `syntax`."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Returns what a coroutine does, in a thread: Playwright's loop runs in the tests' own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def v1(*contents: bytes) -> dict[str, Any]:
    """Returns the body of a V1 request."""
    return {
        "instances": [
            {"image_bytes": {"b64": base64.b64encode(content).decode()}} for content in contents
        ]
    }
