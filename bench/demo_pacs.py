"""`make demo-pacs`: a PACS, the demo's server and the worker between them, until interrupted.

    python -m bench.demo_pacs HOME

HOME is the output of `make demo`.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import tenacity
from pydicom.uid import generate_uid

from serving import ports
from tests.serving.pacs.orthanc import running
from tests.serving.pacs.radiographs import pixels, radiograph

_SECONDS = 180
_PATIENTS = ("Drawn^One", "Drawn^Two")


def main(home: Path) -> None:
    place = home / "pacs"
    shutil.rmtree(place, ignore_errors=True)
    http, grpc, metrics = (ports.free(wanted) for wanted in (8080, 8081, 9090))
    url = f"http://localhost:{http}"
    with (
        running(place, ports.free(8042)) as orthanc,
        cxrflow("serve", str(home / "store" / "cxrflow"), f"--port={http}", f"--grpc-port={grpc}"),
    ):
        ready(f"{url}/v2/health/ready")
        worker = (
            "pacs", f"--dicomweb={orthanc.dicomweb}", f"--url={url}",
            f"--watermark={place / 'watermark.json'}", f"--port={metrics}", "--every=1",
        )  # fmt: skip
        print("cxrflow", *worker, flush=True)
        with cxrflow(*worker):
            for seed, (name, label) in enumerate(zip(_PATIENTS, ("covid", "normal"), strict=True)):
                orthanc.upload(
                    radiograph(
                        pixels(seed, label), generate_uid(), PatientName=name,
                        PatientID=f"demo-{seed}", StudyDescription="Chest, drawn",
                    )
                )  # fmt: skip
            for study in answered(orthanc.url):
                print(f"report and capture: {orthanc.url}/app/explorer.html#study?uuid={study}")
            print(f"metrics: http://localhost:{metrics}/metrics")
            print("Ctrl-C stops Orthanc, the server and the worker.", flush=True)
            threading.Event().wait()


@contextlib.contextmanager
def cxrflow(*arguments: str) -> Iterator[None]:
    process = subprocess.Popen([str(Path(sys.executable).with_name("cxrflow")), *arguments])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@tenacity.retry(stop=tenacity.stop_after_delay(_SECONDS), wait=tenacity.wait_fixed(0.3))
def ready(url: str) -> None:
    httpx.get(url).raise_for_status()


@tenacity.retry(stop=tenacity.stop_after_delay(_SECONDS), wait=tenacity.wait_fixed(0.3))
def answered(url: str) -> list[str]:
    """Returns Orthanc's names of the studies, once each has an image, a report and a capture."""
    studies = httpx.get(f"{url}/studies", params={"expand": ""}).json()
    if not all(len(study["Series"]) == 3 for study in studies):
        raise tenacity.TryAgain
    return [study["ID"] for study in studies]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
        main(Path(sys.argv[1]))
