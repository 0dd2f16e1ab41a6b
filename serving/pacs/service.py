"""The worker as a process: its connections, metrics, log and signals."""

import logging
import os
import signal
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import FrameType

import httpx
import prometheus_client
import requests

from core.errors import UserError
from serving import ports
from serving.client import certificates
from serving.pacs import dicomweb, watermark
from serving.pacs.worker import Worker

logger = logging.getLogger("cxrflow.pacs")

# To connect to the endpoint, and to wait for its answer, which it gives up after 60 itself.
_TIMEOUT = httpx.Timeout(70, connect=5)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the worker works with.

    Attributes:
      dicomweb: URL of the DICOMweb service.
      url: of the endpoint.
      model: its name there.
      watermark: see `serving.pacs.watermark`.
      since: the first study date if there is no watermark; None for `days` ago.
      days: that an image may reach the PACS after its study.
      every: seconds between two rounds.
      host, port: of the metrics.
    """

    dicomweb: str
    url: str
    model: str
    watermark: Path
    since: date | None
    days: int
    every: float
    host: str
    port: int


def run(settings: Settings) -> None:
    """Runs a worker until SIGINT or SIGTERM; then it ends after the current image.

    Raises:
      UserError: an address is invalid, the port is in use, or the watermark cannot be read.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # It logs each request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    overlap = timedelta(settings.days)
    worker = Worker(
        pacs=dicomweb.connect(settings.dicomweb.rstrip("/"), _session()),
        endpoint=_endpoint(settings.url),
        model=settings.model,
        file=settings.watermark,
        since=settings.since or date.today() - overlap,
        overlap=overlap,
    )
    watermark.read(settings.watermark)
    try:
        server, thread = prometheus_client.start_http_server(settings.port, settings.host)
    except OSError as error:
        raise UserError(
            f"pacs: cannot listen on {settings.host}, port {settings.port}: {error.strerror}; choose "
            "another with --host or --port"
        ) from error

    def stop(*_: int | FrameType | None) -> None:
        worker.stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    logger.info("answering images of %s with %s", settings.dicomweb, settings.url)
    worker.run(settings.every)
    server.shutdown()
    thread.join()
    logger.info("stopped")


def _session() -> requests.Session:
    session = requests.Session()
    token, user = (os.environ.get(f"CXRFLOW_DICOMWEB_{name}") for name in ("TOKEN", "USER"))
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    elif user:
        session.auth = (user, os.environ.get("CXRFLOW_DICOMWEB_PASSWORD", ""))
    return session


def _endpoint(url: str) -> httpx.Client:
    token = os.environ.get("CXRFLOW_ENDPOINT_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    parsed = httpx.URL(url) if url.startswith(("http://", "https://")) else httpx.URL()
    if not parsed.host:
        raise UserError(f"pacs: --url {url!r} is not a URL of http or https")
    # A proxy of the environment cannot reach this machine's own servers.
    elsewhere = not ports.is_loopback(parsed.host)
    return httpx.Client(
        base_url=parsed,
        headers=headers,
        timeout=_TIMEOUT,
        trust_env=elsewhere,
        verify=certificates(),
    )
