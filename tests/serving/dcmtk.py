"""DCMTK, a reader and writer of DICOM that shares no code with ours."""

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes


def shown(content: bytes, bits: int = 16) -> np.ndarray | None:
    """Returns a file's picture in 0..1, or None where it cannot be read.

    The first look-up table is applied, else the first window. DCMTK itself reads no JPEG 2000, so that
    pydicom and Pillow decode it first.

    Args:
      bits: of the picture, 8 or 16; 8 are quicker.
    """
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax in JPEG2000TransferSyntaxes:
        try:
            content = _decoded(dataset)
        except RuntimeError:
            return None
    # As of release 3.6.8 one program reads them all.
    old = "dcml2pnm" if syntax in JPEGLSTransferSyntaxes else "dcmj2pnm"
    options = ["--no-overlays", "--write-raw-pnm" if bits == 8 else "--write-16-bit-png"]
    if dataset.get("VOILUTSequence"):
        options += ["--use-voi-lut", "1"]
    elif dataset.get("WindowWidth") is not None:
        options += ["--use-window", "1"]
    made = _run([shutil.which("dcm2img") or old, *options], content)
    if made is None:
        return None
    picture = Image.open(io.BytesIO(made))
    return np.asarray(picture) / (65_535 if picture.mode.startswith("I") else 255)


def compressed(content: bytes, program: str, *options: str) -> bytes:
    """Returns a file as one of DCMTK's programs compresses it."""
    made = _run([program, *options], content)
    assert made is not None
    return made


def _decoded(dataset: pydicom.Dataset) -> bytes:
    values = pixel_array(dataset, decoding_plugin="pillow")
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if values.ndim == 3:
        dataset.PhotometricInterpretation = "RGB"
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _run(command: list[str], content: bytes) -> bytes | None:
    with tempfile.TemporaryDirectory() as directory:
        source, made = Path(directory, "source.dcm"), Path(directory, "made")
        source.write_bytes(content)
        done = subprocess.run([*command, source, made], capture_output=True, check=False)
        return made.read_bytes() if done.returncode == 0 and made.exists() else None
