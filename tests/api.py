"""APIs over HTTP, played by a test."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp.web
import attrs
import kmock


@contextmanager
def served(serve: Callable[[kmock.Request], Any]) -> Iterator[str]:
    """Yields the URL of a server that answers every request as `serve` does."""
    started, ended = threading.Event(), asyncio.Event()
    addresses: list[str] = []
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with _Api() as handling, kmock.Server(handling) as server:
            # Without criteria: for each request, kmock applies them to all the requests before it.
            handling << serve
            addresses.append(str(server.url).rstrip("/"))
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert started.wait(30)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def dropped(request: kmock.Request) -> bytes:
    """Drops the connection instead of an answer."""
    request._raw_request.transport.abort()
    return b""


async def hanging(_: kmock.Request) -> None:
    """Never answers."""
    await asyncio.Event().wait()


class _Api(kmock.KubernetesScaffold):
    async def _render_error(self, exc: Exception) -> aiohttp.web.StreamResponse:
        if isinstance(exc, _Answered):
            return aiohttp.web.Response(status=exc.status, body=exc.body)
        return await super()._render_error(exc)


class _Answered(Exception):
    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body


def answered(status: int, body: bytes) -> Exception:
    """Returns what to raise for an answer that is not the API's: of a pod, or of a gateway before the API."""
    return _Answered(status, body)


def refused(
    status: int, message: str, causes: list[dict[str, str]] | None = None
) -> kmock.KubernetesError:
    """Returns what to raise for an answer that is no success."""
    details = {"causes": causes} if causes else None
    return _Refused(status=status, reason=str(status), message=message, details=details)


@attrs.frozen
class _Refused(kmock.KubernetesError):
    status: int = 0
    reason: str = ""
    message: str = ""
    details: Any = None
