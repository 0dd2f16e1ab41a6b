"""Servers with certificates of one's own, as in a hospital."""

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# What the clients of an endpoint and of a PACS say of a server.
ASKED = """
import sys
from pathlib import Path
from core.errors import UserError
from serving import client
from serving.pacs import service
url, image = sys.argv[1:]
for ask in (
    lambda: client.predict(Path(image), url),
    lambda: service._endpoint(url).get("/"),
    lambda: service._session().get(url),
):
    try:
        print(ask())
    except Exception as error:
        print(error)
"""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of localhost that it has signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    encoding = serialization.Encoding.PEM
    unencrypted = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, unencrypted)
        + signed.public_bytes(encoding)
    )
    return file


@pytest.fixture
def url(certificate: Path) -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self.rfile.read(length)
            self.send_response(418)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("localhost", 0), Answers) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("trusted", [True, False])
def test_servers_are_verified_with_the_certificates_of_the_environment(
    url: str, certificate: Path, trusted: bool, tmp_path: Path
) -> None:
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    others = {name: value for name, value in os.environ.items() if name not in names}
    image = tmp_path / "image.png"
    image.touch()
    said = subprocess.run(
        [sys.executable, "-c", ASKED, url, image],
        env=others | (dict.fromkeys(names, str(certificate)) if trusted else {}),
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert len(said) == 3
    for answer in said:
        assert ("418" in answer) == trusted
        assert ("CERTIFICATE_VERIFY_FAILED" in answer) != trusted
