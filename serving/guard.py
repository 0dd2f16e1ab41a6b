"""What stands before the application: no request may be too large, too slow or waited for in vain."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import metrics
from serving.limits import Limits

# No script or style but the page's own files; pictures of the page's own making.
_CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_KINDS = {408: "body too slow", 413: "body too large", 503: "busy"}
# How long a client that is turned away may go on sending, so that it gets to read the answer.
_LINGER_SECONDS = 2.0


class Guard:
    """Reads each request whole before the application sees it, within limits of size, time and memory.

    A client that goes away while it is answered is no longer worked for.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._free = int(limits.bodies_mb * 1e6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one connection of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        declared = dict(scope["headers"]).get(b"content-length")
        # One without a length may become as large as it may be.
        room = int(declared) if declared and declared.isdigit() else self._limits.body_bytes
        if scope["method"] in ("GET", "HEAD"):
            room = 0
        if room > self._limits.body_bytes:
            await self._refuse(413, self._too_large(), receive, answer)
        elif room > self._free:
            await self._refuse(503, "the server is busy; try again in a second", receive, answer)
        else:
            self._free -= room
            try:
                await self._answered(scope, receive, answer, room)
            finally:
                self._free += room

    async def _answered(self, scope: Scope, receive: Receive, answer: "_Answer", room: int) -> None:
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await _body(receive, room)
        except TimeoutError:
            await self._refuse(408, "the body did not come in time", receive, answer)
            return
        except _TooLarge:
            await self._refuse(413, self._too_large(), receive, answer)
            return
        if body is None:
            metrics.REJECTED.labels("client gone").inc()
            return
        application = asyncio.ensure_future(self._app(scope, _replay(body, receive), answer.send))
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.wait(
                {application, gone},
                timeout=self._limits.answer_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if application.done():
                await application
            elif gone.done():
                metrics.REJECTED.labels("client gone").inc()
            elif not answer.status:
                await self._refuse(503, "no answer in time; try again", receive, answer)
        finally:
            for task in (application, gone):
                task.cancel()
            await asyncio.gather(application, gone, return_exceptions=True)

    def _too_large(self) -> str:
        return f"the body is larger than {self._limits.body_mb:g} MB"

    async def _refuse(self, status: int, reason: str, receive: Receive, answer: "_Answer") -> None:
        metrics.REJECTED.labels(_KINDS[status]).inc()
        content = json.dumps({"error": reason}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        await answer.send({"type": "http.response.start", "status": status, "headers": headers})
        await answer.send({"type": "http.response.body", "body": content, "more_body": True})
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            pass
        await answer.send({"type": "http.response.body", "body": b""})


class _TooLarge(Exception):
    pass


class _Answer:
    """Adds what every answer has, and counts it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            metrics.REQUESTS.labels(self.status).inc()
            own = {name for name, _ in message["headers"]}
            added = [header for header in _HEADERS if header[0] not in own]
            message = {**message, "headers": [*message["headers"], *added]}
        await self._send(message)


async def _body(receive: Receive, room: int) -> bytes | None:
    """Returns a request's body, or None where the client went away before its end."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > room:
            raise _TooLarge
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """Returns uvicorn's protocol with a limit on the time that a request's header takes."""

    class Protocol(HttpToolsProtocol):
        _header_due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_header()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._expect_header()

        def on_headers_complete(self) -> None:
            self._expect_nothing()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            super().connection_lost(exc)

        def _expect_header(self) -> None:
            self._expect_nothing()
            self._header_due = self.loop.call_later(limits.header_seconds, self._close)

        def _expect_nothing(self) -> None:
            if self._header_due:
                self._header_due.cancel()

        def _close(self) -> None:
            metrics.REJECTED.labels("header too slow").inc()
            self.transport.close()

    return Protocol
