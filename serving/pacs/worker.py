"""The worker: rounds of finding, asking and storing, until it is told to stop."""

import logging
import random
import threading
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import httpx
import tenacity
from dicomweb_client import DICOMwebClient

from serving.pacs import Away, Failed, Unusable, chest, dicomweb, endpoint, metrics, watermark
from serving.pacs.report import described, identifiers

logger = logging.getLogger("cxrflow.pacs")

_LONGEST_PAUSE_SECONDS = 60


class Waiting(Exception):
    """A round has ended, and some images still wait for an answer."""


@dataclass
class Known:
    """What this process remembers of a study, so that it looks only at what has changed.

    Attributes:
      settled: its number of instances and the model's version when nothing was waiting.
      unusable: images that get no report, with the version.
    """

    settled: tuple[int | None, str] | None = None
    unusable: set[tuple[str, str]] = field(default_factory=set)


@dataclass(kw_only=True)
class Worker:
    """A worker and what it remembers. It may be killed at any time: the PACS knows what is answered.

    Attributes:
      pacs: see `serving.pacs.dicomweb.connect`.
      endpoint: its base URL is the endpoint's.
      model: its name there.
      file: of the watermark.
      since: the day to begin with, if there is no watermark.
      overlap: how many days before the watermark are searched, for images that arrive late.
      stopping: set when the worker is to stop, which it does after the current image.
    """

    pacs: DICOMwebClient
    endpoint: httpx.Client
    model: str
    file: Path
    since: date
    overlap: timedelta
    stopping: threading.Event = field(default_factory=threading.Event)
    known: dict[str, Known] = field(default_factory=dict)

    def run(self, seconds: float) -> None:
        """Does one round after the other, `seconds` apart, until it is to stop.

        A round that fails is repeated after 1, 2, 4, ... seconds, at most a minute.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Away, Waiting)),
            wait=tenacity.wait_exponential_jitter(initial=1, max=_LONGEST_PAUSE_SECONDS),
            sleep=tenacity.sleep_using_event(self.stopping),
            stop=tenacity.stop_when_event_set(self.stopping),
            before_sleep=_say,
        )
        while not self.stopping.is_set():
            try:
                retrying(self.round)
            except tenacity.RetryError:
                return
            self.stopping.wait(seconds)

    def round(self) -> None:
        """Answers all images that are found and not answered yet.

        Raises:
          Away: the PACS or the endpoint does not work; the rest is left for the next round.
          Waiting: some images could not be answered now.
        """
        today = date.today()
        try:
            version = endpoint.served(self.endpoint, self.model)
            since = watermark.read(self.file)
            first = self.since if since is None else since - self.overlap
            studies = dicomweb.studies(self.pacs, first)
            self.known = {study.uid: self.known.get(study.uid, Known()) for study in studies}
            # So that an image at which a system fails does not keep others waiting, and two workers
            # seldom do the same.
            random.shuffle(studies)
            waiting = 0
            for study in studies:
                waiting += self._answer_study(study, version)
                if self.stopping.is_set():
                    return
        except Away as error:
            metrics.AWAY.labels(error.system).inc()
            raise
        metrics.WAITING.set(waiting)
        if waiting:
            raise Waiting(f"{waiting} images still wait for an answer")
        watermark.write(self.file, today)
        metrics.LAST_ROUND.set_to_current_time()

    def _answer_study(self, study: dicomweb.Study, version: str) -> int:
        """Returns how many images still wait."""
        known = self.known[study.uid]
        if study.instances is not None and known.settled == (study.instances, version):
            return 0
        try:
            present = dicomweb.instances(self.pacs, study.uid)
        except Failed as error:
            return self._failed(error)
        waiting, stored = 0, False
        for uid, found in present.items():
            if self.stopping.is_set():
                return waiting
            own = identifiers(uid, self.model, version)
            if not chest.is_radiograph(found) or (uid, version) in known.unusable:
                continue
            if {own.report, own.capture} <= present.keys():
                continue
            try:
                reason = chest.ruled_out(found)
                if reason:
                    raise Unusable(reason)
                answered = self._answer(study.uid, str(found.SeriesInstanceUID), uid)
                stored = True
                # During a rollout, another version may have answered.
                waiting += answered != version
            except Unusable as error:
                known.unusable.add((uid, version))
                metrics.UNUSABLE.labels(error.reason).inc()
            except Failed as error:
                waiting += self._failed(error)
        # What was stored is looked at in the next round.
        if not waiting and not stored:
            known.settled = (study.instances, version)
        return waiting

    def _failed(self, error: Failed) -> int:
        metrics.FAILED.labels(error.step).inc()
        logger.warning("an image waits: %s", error)
        return 1

    def _answer(self, study: str, series: str, uid: str) -> str:
        """Stores report and capture of an image, and returns the version that answered."""
        image = dicomweb.fetch(self.pacs, study, series, uid)
        reason = chest.refusal(image)
        if reason:
            raise Unusable(reason)
        answer = endpoint.ask(self.endpoint, self.model, endpoint.picture_alone(image))
        dicomweb.store(self.pacs, study, described(image, answer))
        metrics.ANSWERED.inc()
        return answer.version


def _say(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("%s; will try again in %.0f seconds", error, state.upcoming_sleep)
