"""The guard by itself, where a test must say what happens at the same time."""

import asyncio
import gzip
from typing import Any

from serving.guard import Guard
from serving.limits import Limits

PACKED = gzip.compress(bytes(600_000))


class Request:
    """A request whose body comes when the test says so."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "headers": list(headers)}
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.read = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        self.read.set()
        return await self.incoming.get()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and "error" in str(message.get("body")):
            self.incoming.put_nowait({"type": "http.disconnect"})  # it has read why

    def comes(self, body: bytes) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": body})

    @property
    def status(self) -> int:
        return self.sent[0]["status"]


def packed() -> Request:
    request = Request(
        (b"content-length", str(len(PACKED)).encode()), (b"content-encoding", b"gzip")
    )
    request.comes(PACKED)
    return request


async def application(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


def test_what_a_body_unpacks_to_must_fit_into_what_is_free() -> None:
    async def ask() -> None:
        guard = Guard(application, Limits(bodies_mb=1, body_mb=0.9))
        slow = Request((b"content-length", b"800000"))
        waiting = asyncio.create_task(guard(slow.scope, slow.receive, slow.send))
        await slow.read.wait()
        turned_away = packed()
        await guard(turned_away.scope, turned_away.receive, turned_away.send)
        assert turned_away.status == 503
        slow.comes(bytes(800_000))
        await waiting
        assert slow.status == 200
        # Nothing stays reserved, however often.
        for _ in range(5):
            answered = packed()
            await guard(answered.scope, answered.receive, answered.send)
            assert (answered.status, answered.sent[1]["body"]) == (200, b"600000")

    asyncio.run(ask())
