"""Cloud Storage over HTTP: a real emulator, behind a proxy that does to requests what a test wants."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from tenacity import retry, stop_after_delay, wait_fixed

PROGRAM = Path(__file__).parents[2] / ".tools" / "fake-gcs-server"


@dataclass(kw_only=True)
class Faults:
    """What happens to the next requests instead of an answer.

    Attributes:
      where: in the method and URL of the requests that are meant, e.g. `POST /upload`.
      after: so many of them are answered first.
      queue: a status each, or `drop`.
      always: the same for every request.
    """

    where: str = ""
    after: int = 0
    queue: list[str] = field(default_factory=list)
    always: str = ""

    def next(self, request: str) -> str:
        if self.where not in request:
            return ""
        if self.after:
            self.after -= 1
            return ""
        return self.queue.pop(0) if self.queue else self.always


@contextlib.contextmanager
def running(port: int, own_port: int) -> Iterator[tuple[str, Faults]]:
    """Yields the URL of a Cloud Storage without buckets, and the faults of its network."""
    assert PROGRAM.is_file(), "`make test` fetches the emulator of Cloud Storage"
    url, behind = f"http://localhost:{port}", f"http://localhost:{own_port}"
    faults = Faults()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = faults.next(f"{self.command} {self.path}")
            if fault == "drop":
                self.close_connection = True
                return
            if fault:
                answer = httpx.Response(int(fault), json={"error": {"message": f"told to {fault}"}})
            else:
                headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                answer = client.request(
                    self.command, behind + self.path, content=body, headers=headers
                )
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    command = [PROGRAM, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"]
    command += ["-port", str(own_port), "-external-url", url, "-log-level", "error"]
    process = subprocess.Popen([str(word) for word in command])
    server = ThreadingHTTPServer(("localhost", port), Proxy)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    try:
        with httpx.Client(headers={"Accept-Encoding": "identity"}, timeout=30) as client:
            _wait_for(client, behind)
            yield url, faults
    finally:
        server.shutdown()
        server.server_close()
        process.terminate()
        process.wait(30)


@retry(stop=stop_after_delay(30), wait=wait_fixed(0.1), reraise=True)
def _wait_for(client: httpx.Client, url: str) -> None:
    client.get(f"{url}/storage/v1/b").raise_for_status()
