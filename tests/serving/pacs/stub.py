"""An endpoint that speaks as much of V2 as the worker uses, and answers at once."""

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from serving.pacs.endpoint import _OUTPUTS
from tests.serving.files import encoded

PICTURE = encoded(Image.linear_gradient("L").resize((64, 60)))
OVERLAY = encoded(Image.new("RGBA", (64, 60), (255, 0, 0, 80)))


class Stub:
    """What it answers with, which a test may change, and what it was asked.

    Attributes:
      served, version: what it says it serves, and what answers.
      refusal: a status and an error instead of answers.
      asked: the files it was sent.
    """

    def __init__(self) -> None:
        self.url = ""
        self.served = self.version = "1"
        self.refusal: tuple[int, str] | None = None
        self.abstained = False
        self.asked: list[bytes] = []

    def outputs(self) -> dict[str, list[Any]]:
        return {
            "label": ["unknown" if self.abstained else "covid"],
            "probabilities": [0.25, 0.75],
            "classes": ["normal", "covid"],
            "abstained": [self.abstained],
            "ood_score": [1.5 if self.abstained else 0.5],
            "reasons": [""],
            "trust": ["not trusted"],
            "trust_reasons": ["it looks at the frame – not at the lungs"],
            "picture": [base64.b64encode(PICTURE).decode()],
            "overlay": [base64.b64encode(OVERLAY).decode()],
        }


@contextlib.contextmanager
def answering(port: int = 0) -> Iterator[Stub]:
    """Yields a stub that listens on a port."""
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told = {"versions": [stub.served], "outputs": [{"name": n} for n in _OUTPUTS]}
            self.answer(200, told)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            length = int(self.headers["Inference-Header-Content-Length"])
            asked, tensor = json.loads(body[:length]), body[length:]
            (described,) = asked["inputs"]
            assert described["parameters"]["binary_data_size"] == len(tensor)
            assert int.from_bytes(tensor[:4], "little") == len(tensor) - 4
            stub.asked.append(tensor[4:])
            if stub.refusal:
                status, error = stub.refusal
                self.answer(status, {"error": error})
                return
            outputs = [{"name": name, "data": data} for name, data in stub.outputs().items()]
            told = {"model_name": "cxrflow", "model_version": stub.version, "outputs": outputs}
            self.answer(200, told)

        def answer(self, status: int, told: Any) -> None:
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("localhost", port), Handler)
    server.daemon_threads = True
    stub.url = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
