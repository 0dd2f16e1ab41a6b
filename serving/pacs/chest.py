"""Which images of a study are frontal chest radiographs, by their attributes."""

from pydicom import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation

_CLASSES = (ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation)
# In the languages whose words differ; BodyPartExamined is a defined English term, descriptions are not.
_CHEST = ("CHEST", "THORAX", "TORAX", "TÓRAX", "LUNG")
_FRONTAL = ("PA", "AP")
_LATERAL = ("LATERAL", "LAT ", "SEITLICH")
_DESCRIPTIONS = ("ProtocolName", "SeriesDescription", "StudyDescription")


def is_radiograph(image: Dataset) -> bool:
    """Returns whether an instance is a radiograph for presentation (CR or DX), of any body part."""
    return image.get("SOPClassUID") in _CLASSES


def refusal(image: Dataset) -> str | None:
    """Returns why a radiograph is not asked about: `not chest` or `not frontal`; None if it is asked about.

    Body part and view decide if they are given, else the descriptions of protocol, series and study. A view
    that nothing names counts as frontal.
    """
    described = " ".join(_text(image, name) for name in _DESCRIPTIONS) + " "
    part = _text(image, "BodyPartExamined") or described
    if not any(word in part for word in _CHEST):
        return "not chest"
    view = _text(image, "ViewPosition")
    if view not in _FRONTAL if view else any(word in described for word in _LATERAL):
        return "not frontal"
    return None


def ruled_out(found: Dataset) -> str | None:
    """Returns what `refusal` does, for a search result, which may lack attributes that the image has.

    Not every PACS returns all attributes, so that only those that are there can rule an image out.
    """
    if not _text(found, "BodyPartExamined") and refusal(found) == "not chest":
        return None
    return refusal(found)


def _text(image: Dataset, name: str) -> str:
    try:
        return str(image.get(name) or "").strip().upper()
    except Exception:  # pydicom converts values on access and may raise any error
        return ""
