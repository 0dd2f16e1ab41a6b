"""Guards the application: limits the size, the duration and the memory of requests."""

import asyncio
import contextlib
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import metrics
from serving.limits import Limits

# Scripts and styles only from the page's own files; pictures only those that the page makes.
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
# Reasons of rejections by status, for the metrics.
_KINDS = {
    400: "broken encoding",
    408: "body too slow",
    413: "body too large",
    415: "unknown encoding",
    503: "busy",
}
_REFUSAL_HEADERS = {415: (b"accept-encoding", b"gzip, deflate"), 503: (b"retry-after", b"1")}
_ENCODINGS = ("gzip", "x-gzip", "deflate")
# Set in a request's `state` if there are too many connections.
_CROWDED = "crowded"
# How long a rejected client may continue sending, so that it can read the answer.
_LINGER_SECONDS = 2.0


class Guard:
    """Reads each request completely, within limits of size, time and memory, before the application sees it.

    Compressed bodies are decompressed within the same limits. HEAD is answered like GET, without a body. If a
    client disconnects, its request is dropped.
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
        try:
            await self._handle(scope, receive, answer)
        except _Refused as refused:
            await self._refuse(refused, receive, answer)

    async def _handle(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if scope.get("state", {}).get(_CROWDED):
            raise _busy()
        encoding = _encoding(scope)
        room = self._room(scope)
        with self._reserved(room):
            body = await self._body(receive, room)
            if body is None:
                metrics.REJECTED.labels("client gone").inc()
                return
            if encoding:
                body = await self._unpacked(body, encoding)
            with self._reserved(len(body) if encoding else 0):
                await self._answered(scope, body, receive, answer)

    def _room(self, scope: Scope) -> int:
        """Returns the most bytes that a request's body may have."""
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers:
            return self._limits.body_bytes
        # uvicorn's parser has already rejected anything but a number.
        room = int(headers.get(b"content-length", 0))
        if room > self._limits.body_bytes:
            raise self._too_large()
        return room

    @contextlib.contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        if size > self._free:
            raise _busy()
        self._free -= size
        try:
            yield
        finally:
            self._free += size

    async def _body(self, receive: Receive, room: int) -> bytes | None:
        """Returns a request's body, or None if the client disconnected before its end."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > room:
                        raise self._too_large()
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise _Refused(408, "the body did not arrive in time") from None

    async def _unpacked(self, body: bytes, encoding: str) -> bytes:
        """Returns the decompressed body. The caller must reserve its size before the next await."""
        most = min(self._limits.body_bytes, self._free)
        with self._reserved(most):
            try:
                # Large bodies would block the event loop.
                content = await asyncio.to_thread(_decompressed, body, most + 1)
            except (zlib.error, EOFError):
                raise _Refused(
                    400, f"the body is not {encoding}, as Content-Encoding says"
                ) from None
        if len(content) <= most:
            return content
        raise self._too_large() if most == self._limits.body_bytes else _busy()

    async def _answered(
        self, scope: Scope, body: bytes, receive: Receive, answer: "_Answer"
    ) -> None:
        # uvicorn still has the original scope and leaves out the body of an answer to HEAD.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        application = asyncio.ensure_future(
            self._app({**scope, "method": method}, _replay(body, receive), answer.send)
        )
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
                raise _Refused(503, "no answer in time; try again")
        finally:
            for task in (application, gone):
                task.cancel()
            await asyncio.gather(application, gone, return_exceptions=True)

    def _too_large(self) -> "_Refused":
        return _Refused(413, f"the body is larger than {self._limits.body_mb:g} MB")

    async def _refuse(self, refused: "_Refused", receive: Receive, answer: "_Answer") -> None:
        metrics.REJECTED.labels(_KINDS[refused.status]).inc()
        content = json.dumps({"error": refused.reason}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        if refused.status in _REFUSAL_HEADERS:
            headers.append(_REFUSAL_HEADERS[refused.status])
        start = {"type": "http.response.start", "status": refused.status, "headers": headers}
        await answer.send(start)
        await answer.send({"type": "http.response.body", "body": content, "more_body": True})
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            pass
        await answer.send({"type": "http.response.body", "body": b""})


class _Refused(Exception):
    """A request is rejected with an HTTP status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def _busy() -> _Refused:
    return _Refused(503, "the server is busy; try again in a second")


def _encoding(scope: Scope) -> str | None:
    """Returns the compression of a request's body, or None if it is not compressed."""
    said = b",".join(value for name, value in scope["headers"] if name == b"content-encoding")
    encodings = [name.strip() for name in said.decode("latin-1").lower().split(",")]
    encodings = [name for name in encodings if name not in ("", "identity")]
    if not encodings:
        return None
    if len(encodings) == 1 and encodings[0] in _ENCODINGS:
        return encodings[0]
    raise _Refused(
        415,
        f"Content-Encoding {', '.join(encodings)[:100]} is not supported; send the body uncompressed, or "
        "compressed once with gzip or deflate",
    )


def _decompressed(body: bytes, most: int) -> bytes:
    """Decompresses gzip or deflate and returns at most `most` bytes.

    Raises:
      zlib.error: the body is neither.
      EOFError: the body is cut off, or has data after its end.
    """
    content = b""
    while True:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        content += unpacker.decompress(body, most - len(content))
        if len(content) >= most:
            return content
        if not unpacker.eof:
            raise EOFError
        body = unpacker.unused_data
        if not body:
            return content
        if not body.startswith(
            b"\x1f\x8b"
        ):  # of gzip, a file may have several members (RFC 1952, 2.2)
            raise EOFError


class _Answer:
    """Adds the common headers to an answer and counts it."""

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


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


class _Parser:
    """httptools' parser, except for requests that offer another protocol or are not HTTP.

    If a request offers another protocol (`Upgrade`), httptools ends it after its header and ignores its body;
    Java's client, for example, offers HTTP/2 in its first request. A server may ignore the offer, so the
    header is parsed again without it. Data that is not HTTP is answered here, because uvicorn would log it,
    and a client could fill the log.
    """

    def __init__(self, protocol: "_Protocol") -> None:
        self._protocol = protocol
        self._renew()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self._protocol)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it

    def feed_data(self, data: bytes) -> None:
        """Parses the next data."""
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                (end_of_header,) = offer.args
                data = self._protocol.header_without_offer() + data[end_of_header:]
                self._renew()  # the old parser takes no more data if the connection is to be closed
            except httptools.HttpParserError:
                metrics.REJECTED.labels("not HTTP").inc()
                self._protocol.send_400_response("This is not HTTP/1.1.")
                return


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits on the number of connections and the time for a request's header."""

    limits: Limits
    _header_due: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.parser = _Parser(self)  # type: ignore[assignment]

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_header()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][_CROWDED] = len(self.connections) > self.limits.connections
        self._expect_header()

    def on_headers_complete(self) -> None:
        self._expect_nothing()
        if not self.parser.should_upgrade():
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            raise ValueError("this is not a proxy")  # makes the parser reject the request

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def header_without_offer(self) -> bytes:
        """Returns the header that was parsed last, without its offer of another protocol."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                options = (option.strip() for option in value.split(b","))
                value = b", ".join(option for option in options if option.lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def _expect_header(self) -> None:
        self._expect_nothing()
        self._header_due = self.loop.call_later(self.limits.header_seconds, self._close)

    def _expect_nothing(self) -> None:
        if self._header_due:
            self._header_due.cancel()

    def _close(self) -> None:
        metrics.REJECTED.labels("header too slow").inc()
        self.transport.close()


def protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """Returns uvicorn's protocol class with these limits."""
    return type("Protocol", (_Protocol,), {"limits": limits})
