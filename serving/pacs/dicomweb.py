"""The PACS over DICOMweb: finds studies and images (QIDO-RS), fetches (WADO-RS) and stores (STOW-RS)."""

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset

from core.errors import UserError
from serving.pacs import Away, Failed, Unusable

# To connect, and between two bytes of an answer.
_SECONDS = (5, 60)
_MODALITIES = ("CR", "DX")
# Answers of a PACS, or a proxy before it, that have nothing to do with what was asked.
_AWAY = {401, 403, 407, 408, 429, 502, 503, 504}
_ATTRIBUTES = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "BodyPartExamined",
    "ViewPosition", "SeriesDescription", "ProtocolName", "StudyDescription",
)  # fmt: skip

# Their messages may have identifiers, and values of attributes.
for _name in ("dicomweb_client", "highdicom", "pydicom", "urllib3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Study:
    """A study that has images of the modalities CR or DX.

    Attributes:
      uid: its StudyInstanceUID.
      instances: how many it has; None if the PACS does not say.
    """

    uid: str
    instances: int | None


def connect(url: str, session: requests.Session) -> DICOMwebClient:
    """Returns a client of a DICOMweb service, which retries nothing by itself.

    Raises:
      UserError: it is not a URL.
    """
    try:
        client = DICOMwebClient(url, session=session, timeout=_SECONDS)
    except ValueError as error:
        raise UserError(f"pacs: --dicomweb {url!r} is not a URL of http or https") from error
    client.set_http_retry_params(retry=False)
    return client


def studies(client: DICOMwebClient, since: date) -> list[Study]:
    """Returns the studies with CR or DX images and a StudyDate of `since` or later.

    Raises:
      Away: the PACS does not answer, or it rejects the search.
    """
    found: dict[str, Dataset] = {}
    for modality in _MODALITIES:
        filters = {"StudyDate": f"{since:%Y%m%d}-", "ModalitiesInStudy": modality}
        search = functools.partial(client.search_for_studies, search_filters=filters)
        try:
            found |= _all_pages(search, "StudyInstanceUID")
        except Failed as error:
            raise Away("pacs", error.reason) from None
    return [Study(uid, _whole(row)) for uid, row in found.items()]


def instances(client: DICOMwebClient, study: str) -> dict[str, Dataset]:
    """Returns the instances of a study by SOPInstanceUID, each with the attributes to choose by.

    Raises:
      Away: the PACS does not answer.
      Failed: it rejects the search.
    """
    search = functools.partial(client.search_for_instances, study, fields=_ATTRIBUTES)
    return _all_pages(search, "SOPInstanceUID")


def _all_pages(
    search: Callable[..., list[dict[str, dict[str, object]]]], identifier: str
) -> dict[str, Dataset]:
    """Returns all results of a search by an identifier, without those that lack it."""
    found: dict[str, Dataset] = {}
    while True:
        with _asked("find"):
            # Without a limit: Orthanc applies it to a search by modality before it filters.
            page = search(offset=len(found))
            try:
                rows = {str(row[identifier].value): row for row in map(Dataset.from_json, page)}
            except Exception:  # pydicom may raise any error for what is not DICOM's JSON
                raise Failed("find", "the results are not DICOM") from None
        # A PACS may have a limit of its own, and it may ignore the offset.
        if rows.keys() <= found.keys():
            return found
        found |= rows


def _whole(row: Dataset) -> int | None:
    number = row.get("NumberOfStudyRelatedInstances")
    return None if number is None else int(number)


def fetch(client: DICOMwebClient, study: str, series: str, instance: str) -> Dataset:
    """Returns an image as it is stored.

    Raises:
      Away: the PACS does not answer.
      Failed: it rejects the request.
      Unusable: what it sends is not DICOM.
    """
    with _asked("fetch"):
        try:
            return client.retrieve_instance(study, series, instance)
        except requests.RequestException:
            raise
        except Exception:  # pydicom may raise any error for a damaged file
            raise Unusable("corrupt") from None


def store(client: DICOMwebClient, study: str, datasets: Sequence[Dataset]) -> None:
    """Stores instances of a study in one request.

    Raises:
      Away: the PACS does not answer.
      Failed: it does not store all of them.
    """
    with _asked("store"):
        told = client.store_instances(datasets, study)
    if told.get("FailedSOPSequence"):
        raise Failed("store", "the PACS did not store all instances")


@contextlib.contextmanager
def _asked(step: str) -> Iterator[None]:
    """Turns errors of requests, whose messages have identifiers, into ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning may quote a value
            yield
    except requests.HTTPError as error:
        status = error.response.status_code
        if status in _AWAY:
            raise Away("pacs", f"HTTP status {status}") from None
        raise Failed(step, f"HTTP status {status}") from None
    except requests.ReadTimeout:
        raise Failed(step, f"no answer within {_SECONDS[1]} seconds") from None
    except requests.RequestException as error:
        raise Away("pacs", type(error).__name__) from None
