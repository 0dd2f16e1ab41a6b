"""Compares the model server with the bare model, on the same image and in the same precision."""

import base64
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf
from PIL import Image

from components.data import phantoms
from core.artifacts import CARD, DECISION
from core.files import write_json
from core.labels import NORMAL
from serving import local, store
from training import architectures, export, saved_model
from training.recipes import Recipe, recipe_named

SIDE = 640
CLIENTS, SECONDS, TURNS = 32, 10, 3
LATENCIES, TURN = 240, 20
BATCHES = (4, 8, 16, 32)

# How many tutorials serve a model: one request after the other.
ONE_AT_A_TIME = """
import base64, json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
import tensorflow as tf
from training import saved_model
exported = saved_model.load(Path(sys.argv[1]))

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        images = [base64.b64decode(row["image_bytes"]["b64"]) for row in body["instances"]]
        answer = exported.predict(image_bytes=tf.constant(images))["probabilities"].numpy()
        content = json.dumps({"predictions": answer.tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

server = HTTPServer(("localhost", int(sys.argv[2])), Handler)
server.request_queue_size = 128
server.socket.listen(128)
print("ready", flush=True)
server.serve_forever()
"""


def serving(home: Path) -> list[str]:
    """Compares CoroNet's server with the bare model: latency, throughput, start, memory."""
    recipe = recipe_named("coronet-4class")
    version = published(recipe, home)
    random = np.random.default_rng(0)
    image, _ = phantoms.draw_with_lungs(NORMAL, random)
    file = home / "served.jpeg"
    image.resize((SIDE, SIDE * image.height // image.width), Image.Resampling.BICUBIC).save(
        file, quality=90
    )
    content = file.read_bytes()
    instance = {"image_bytes": {"b64": base64.b64encode(content).decode()}}
    body = json.dumps({"instances": [instance]}).encode()

    began = time.monotonic()
    server = local.serve(version, home / "server")
    start = time.monotonic() - began
    port = int(server.url.rsplit(":", 1)[1])
    alone_port, alone_server = one_at_a_time(version)
    try:
        exported = saved_model.load(version)
        together, bare_slowest, latency, slowest = latencies(exported, content, body, port)
        turns = [
            (
                best_of_batches(exported, content),
                throughput_of(port, body),
                throughput_of(alone_port, body),
            )
            for _ in range(TURNS)
        ]
        memory = psutil.Process(server.pid).memory_info().rss / 1e6
    finally:
        local.stop(home / "server")
        alone_server.kill()
    baseline, throughput, alone = (statistics.median(rates) for rates in zip(*turns, strict=True))
    return [
        ratio(
            latency / together,
            f"one client: median latency {1000 * latency:.1f} ms, to {1000 * together:.1f} ms for decoding "
            "and the bare call (wanted: at most 1.15)",
        ),
        ratio(
            slowest / together,
            f"one client: 99th percentile {1000 * slowest:.1f} ms, to the same median (wanted: at most "
            f"1.5; of the bare call: {bare_slowest / together:.2f})",
        ),
        ratio(
            throughput / baseline,
            f"{CLIENTS} clients: {throughput:.1f} images/s, to {baseline:.1f} of the bare model on decoded "
            "images with its best batch size (wanted: 0.9)",
        ),
        ratio(
            throughput / alone,
            f"{CLIENTS} clients: to {alone:.1f} images/s of a server that handles one request at a time "
            f"(wanted: 2; of the bare model: {baseline / alone:.2f})",
        ),
        f"        ready after {start:.1f} s (wanted: at most 10); memory after this load {memory:,.0f} MB",
    ]


def ratio(value: float, what: str) -> str:
    return f"[bold]{value:6.2f}[/]  {what}"


def published(recipe: Recipe, home: Path) -> Path:
    """Publishes an untrained model, which is as fast as a trained one."""
    export.export(architectures.build(recipe, "none", 0), recipe, home / "untrained")
    card = {
        "recipe": {"name": recipe.name, "classes": list(recipe.classes)},
        "starting_point": "not trained", "phantoms": True, "fingerprint": "",
    }  # fmt: skip
    decision = {"winner": recipe.name, "candidates": [{"recipe": recipe.name, "checks": []}]}
    write_json(home / CARD, card)
    write_json(home / DECISION, decision)
    files = {".": home / "untrained", CARD: home / CARD, DECISION: home / DECISION}
    candidate = store.assemble(files, home / "candidate", "cxrflow")
    return Path(store.publish(candidate, str(home / "store")))


def latencies(
    exported: saved_model.Exported, content: bytes, body: bytes, port: int
) -> tuple[float, float, float, float]:
    """Returns median and 99th percentile latency in seconds: of decoding with the bare call, and served."""
    bare: list[float] = []
    served: list[float] = []
    connection = http.client.HTTPConnection("localhost", port)

    def call() -> None:
        pixels = exported.preprocess(image_bytes=tf.constant(content))["pixels"]
        exported.classify(pixels=pixels[tf.newaxis])["probabilities"].numpy()

    for work, seconds in ((call, bare), (lambda: post(connection, body), served)) * (
        LATENCIES // TURN
    ):
        work()
        for _ in range(TURN):
            began = time.monotonic()
            work()
            seconds.append(time.monotonic() - began)
    return (
        statistics.median(bare),
        float(np.quantile(bare, 0.99)),
        statistics.median(served),
        float(np.quantile(served, 0.99)),
    )


def best_of_batches(exported: saved_model.Exported, content: bytes) -> float:
    """Returns the bare model's throughput on decoded images, in images/s, with the best batch size."""
    pixels = exported.preprocess(image_bytes=tf.constant(content))["pixels"]
    rates = []
    for size in BATCHES:
        batch = tf.stack([pixels] * size)
        exported.classify(pixels=batch)
        began = time.monotonic()
        for _ in range(64 // size):
            exported.classify(pixels=batch)["probabilities"].numpy()
        rates.append(64 / (time.monotonic() - began))
    return max(rates)


def throughput_of(port: int, body: bytes) -> float:
    """Returns a server's throughput in images/s with many clients that send without a pause."""
    answered: list[float] = []
    stop = threading.Event()

    def ask(_: int) -> None:
        connection = http.client.HTTPConnection("localhost", port)
        while not stop.is_set():
            post(connection, body)
            answered.append(time.monotonic())

    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = pool.map(ask, range(CLIENTS))
        time.sleep(SECONDS)
        stop.set()
        list(asking)
    # Count from the end of the first batch, because answers come in batches.
    counted = [moment for moment in answered if moment < answered[0] + SECONDS - 2]
    return len(counted) / (counted[-1] - counted[0])


def one_at_a_time(version: Path) -> tuple[int, subprocess.Popen[str]]:
    """Returns port and process of a server that handles one request at a time."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", ONE_AT_A_TIME, str(version), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return port, process


def post(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request(
        "POST", "/v1/models/cxrflow:predict", body, {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content
