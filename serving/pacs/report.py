"""What is stored about an image: a Structured Report (TID 1500) and a Secondary Capture.

Their identifiers follow from the image, the model and its version alone.
"""

import uuid
import warnings
from dataclasses import dataclass
from importlib.metadata import version as release
from typing import Any

import highdicom as hd
import numpy as np
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from serving.pacs import Unusable
from serving.pacs.capture import RESEARCH_ONLY, drawn
from serving.pacs.endpoint import Answer

SCHEME = "99CXRFLOW"
_MANUFACTURER = "cxrflow"
_UTF_8 = "ISO_IR 192"
_SPACE = uuid.UUID("6d0bd9c5-6e1d-4c1a-9c3b-0f3c8f6f6c55")
# Type 2 attributes: they must be there, and may be empty.
_PATIENT_AND_STUDY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# What a lossy compression of the radiograph must tell in all that is derived from it (PS3.3, C.7.6.1.1.5).
_LOSSY = (
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
# Last among the series of a study.
_REPORTS, _CAPTURES = 9901, 9902


@dataclass(frozen=True)
class Identifiers:
    """The SOPInstanceUIDs of what is stored about an image."""

    report: str
    capture: str


def identifiers(instance: str, model: str, version: str) -> Identifiers:
    """Returns the identifiers for an image, a model and its version."""
    return Identifiers(
        _uid("report", instance, model, version), _uid("capture", instance, model, version)
    )


def _uid(*parts: str) -> str:
    """Returns a UID that follows from the parts (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(_SPACE, chr(0).join(parts)).int}"


def described(image: Dataset, answer: Answer) -> tuple[Dataset, Dataset]:
    """Returns the report and the capture of an image.

    Args:
      image: as it is stored in the PACS.
      answer: of the endpoint.

    Raises:
      Unusable: the image lacks an identifier, or an attribute of its patient or study cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning would quote the value
            return _report(image, answer), _capture(image, answer)
    except Exception:  # pydicom and highdicom may raise any error for invalid attributes
        raise Unusable("invalid attributes") from None


def _report(image: Dataset, answer: Answer) -> Dataset:
    source = _source(image)
    own = identifiers(source.SOPInstanceUID, answer.model, answer.version)
    unit = codes.UCUM.NoUnits
    measurements = [sr.Measurement(_code("ood-score"), _short(answer.ood_score), unit)]
    if not answer.abstained:
        measurements += [
            sr.Measurement(
                Code(f"probability-{name}", SCHEME, f"Probability of {name}"), _short(share), unit
            )
            for name, share in answer.probabilities.items()
        ]
    label = "abstained" if answer.abstained else f"label-{answer.label}"
    meaning = "The model abstains" if answer.abstained else answer.label
    trust = answer.trust.replace(" ", "-")
    group = sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(
            _uid("group", source.SOPInstanceUID, answer.model, answer.version),
            f"{answer.model} {answer.version}",
        ),
        algorithm_id=sr.AlgorithmIdentification(
            answer.model, answer.version, manufacturer=_MANUFACTURER
        ),
        measurements=measurements,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(_code("label"), Code(label, SCHEME, meaning)),
            sr.QualitativeEvaluation(_code("trust"), Code(f"trust-{trust}", SCHEME, answer.trust)),
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)
        ],
    )
    texts = {
        "trust-reasons": answer.trust_reasons,
        "doubts": answer.doubts,
        "use": RESEARCH_ONLY,
    }
    group[0].ContentSequence.extend(
        sr.TextContentItem(_code(name), text, sr.RelationshipTypeValues.CONTAINS)
        for name, text in texts.items()
        if text
    )
    device = sr.DeviceObserverIdentifyingAttributes(
        _uid("device", answer.model),
        name=answer.model,
        manufacturer_name=_MANUFACTURER,
        model_name=f"{answer.model} {answer.version}",
    )
    content = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=Code("399208008", "SCT", "Plain chest X-ray"),
        imaging_measurements=[group],
    )
    return sr.ComprehensiveSR(
        [source],
        content,
        sop_instance_uid=own.report,
        instance_number=source.InstanceNumber,
        is_complete=True,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                SCHEME, "cxrflow", responsible_organization=_MANUFACTURER
            )
        ],
        **_of_series("report", _REPORTS, source, answer),
    )


def _capture(image: Dataset, answer: Answer) -> Dataset:
    source = _source(image)
    own = identifiers(source.SOPInstanceUID, answer.model, answer.version)
    capture = hd.sc.SCImage.from_ref_dataset(
        source,
        np.asarray(drawn(answer)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        sop_instance_uid=own.capture,
        instance_number=source.InstanceNumber,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **_of_series("capture", _CAPTURES, source, answer),
    )
    capture.BodyPartExamined = "CHEST"
    capture.PatientOrientation = []
    for name in ("PatientOrientation", "BurnedInAnnotation", *_LOSSY):
        if image.get(name):
            setattr(capture, name, image.get(name))
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [
        sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    capture.SourceImageSequence = [reference]
    capture.DerivationDescription = f"Heat map and answer of {answer.model} {answer.version}"
    return capture


def _source(image: Dataset) -> Dataset:
    """Returns what report and capture take over from an image, with its empty attributes."""
    source = Dataset()
    for name in _IDENTIFIERS:
        setattr(source, name, str(getattr(image, name)))
    for name in _PATIENT_AND_STUDY:
        setattr(source, name, image.get(name) or "")
    if source.PatientSex not in ("M", "F", "O"):
        source.PatientSex = ""
    for name in ("PatientAge", "PatientSize", "PatientWeight", "StudyDescription"):
        if image.get(name):
            setattr(source, name, image.get(name))
    try:
        source.InstanceNumber = max(1, int(image.InstanceNumber))
    except (AttributeError, TypeError, ValueError):
        source.InstanceNumber = 1
    return source


def _of_series(what: str, number: int, source: Dataset, answer: Answer) -> dict[str, Any]:
    return {
        "series_instance_uid": _uid(
            what, "series", source.SeriesInstanceUID, answer.model, answer.version
        ),
        "series_number": number,
        "series_description": f"{answer.model} {answer.version}: {what}, research use only"[:64],
        "manufacturer": _MANUFACTURER,
        "manufacturer_model_name": answer.model,
        "software_versions": [f"{_MANUFACTURER} {release('cxrflow')}", answer.version],
        "device_serial_number": answer.version,
        "specific_character_set": _UTF_8,
    }


def _short(value: float) -> float:
    return round(value, 4)


_MEANINGS = {
    "label": "Most probable class",
    "trust": "Verdict of trust on the model",
    "ood-score": "Out-of-distribution score; the model abstains above 1",
    "trust-reasons": "Reasons for the verdict of trust",
    "doubts": "Doubts about the image",
    "use": "Intended use",
}


def _code(value: str) -> Code:
    return Code(value, SCHEME, _MEANINGS[value])
