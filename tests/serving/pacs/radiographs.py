"""Drawn radiographs as a modality sends them."""

import io
from datetime import date
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from components.data.phantoms import draw_with_lungs

NAME = "Müller^Jürgen"


def pixels(seed: int, label: str = "covid") -> np.ndarray:
    """Returns a drawn radiograph, uint8 [288, 320]."""
    return np.asarray(draw_with_lungs(label, np.random.default_rng(seed))[0])


def radiograph(values: np.ndarray, study: str = "", series: str = "", **attributes: Any) -> bytes:
    """Returns a DICOM file of a frontal chest radiograph, with what a device writes about a patient."""
    cr = attributes.get("Modality") == "CR"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = (
        ComputedRadiographyImageStorage if cr else DigitalXRayImageStorageForPresentation
    )
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID = study or generate_uid()
    image.SeriesInstanceUID = series or generate_uid()
    image.PatientName, image.PatientID = NAME, "4711-secret"
    image.PatientBirthDate, image.PatientSex = "19510203", "M"
    image.StudyDate = f"{date.today():%Y%m%d}"
    image.StudyTime, image.StudyID, image.AccessionNumber = "101500", "S1", "A-8899"
    image.ReferringPhysicianName = "Weiß^Anna"
    image.Modality, image.BodyPartExamined, image.ViewPosition = "DX", "CHEST", "PA"
    image.SeriesNumber, image.InstanceNumber = 1, 1
    image.PatientOrientation = ["L", "F"]
    image.Rows, image.Columns = values.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = 8 * values.dtype.itemsize
    image.BitsStored, image.HighBit = image.BitsAllocated, image.BitsAllocated - 1
    image.PixelRepresentation = 0
    image.PixelData = values.tobytes()
    image["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for name, value in attributes.items():
        if value is None:
            delattr(image, name)
        else:
            setattr(image, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, image)
    return buffer.getvalue()
