"""A real Orthanc, started and stopped by a test."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import tenacity

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc:
    """An Orthanc with its DICOMweb plugin, on loopback, with all its files in a directory."""

    def __init__(self, home: Path, port: int, **settings: Any) -> None:
        self.url = f"http://localhost:{port}"
        self.dicomweb = f"{self.url}/dicom-web"
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)
        (home / "orthanc.json").write_text(
            json.dumps(
                {
                    "Name": "cxrflow",
                    "StorageDirectory": str(home / "storage"),
                    "IndexDirectory": str(home / "index"),
                    "HttpPort": port,
                    "DicomServerEnabled": False,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "SyncStorageArea": False,
                    # However busy this machine is: it closes idle connections after a second, which a
                    # client may be about to use.
                    "KeepAlive": False,
                    "HttpRequestTimeout": 600,
                    "Plugins": [str(PLUGIN)],
                    "DicomWeb": {"Enable": True, "EnableWado": False},
                    **settings,
                }
            )
        )

    def start(self) -> None:
        program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
        assert program, "no Orthanc: `make pacs` installs it"
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(self._home / "orthanc.json")], stdout=log, stderr=log
            )
        self._wait()

    @tenacity.retry(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.1))
    def _wait(self) -> None:
        httpx.get(f"{self.url}/system").raise_for_status()

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def upload(self, *contents: bytes) -> None:
        """Stores DICOM files."""
        with httpx.Client(timeout=60) as client:
            for content in contents:
                client.post(f"{self.url}/instances", content=content).raise_for_status()

    def files(self) -> list[bytes]:
        """Returns the files of reports and captures."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            return [
                client.get(f"/instances/{instance}/file").content
                for series in self._answers(client)
                for instance in series["Instances"]
            ]

    def answers(self) -> list[str]:
        """Returns the SOPInstanceUIDs of reports and captures."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            return [
                instance["MainDicomTags"]["SOPInstanceUID"]
                for series in self._answers(client)
                for instance in client.get(f"/series/{series['ID']}/instances").json()
            ]

    def _answers(self, client: httpx.Client) -> list[dict[str, Any]]:
        every = client.get("/series", params={"expand": ""}).json()
        return [one for one in every if one["MainDicomTags"]["Modality"] in ("SR", "OT")]

    def clear(self) -> None:
        """Deletes all studies."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for study in client.get("/studies").json():
                client.delete(f"/studies/{study}")


@contextlib.contextmanager
def running(home: Path, port: int, **settings: Any) -> Iterator[Orthanc]:
    orthanc = Orthanc(home, port, **settings)
    orthanc.start()
    try:
        yield orthanc
    finally:
        orthanc.stop()
