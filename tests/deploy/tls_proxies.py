"""nginx and Envoy before Tollgate, from the files that the documentation shows, with a certificate of a test's own."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.plugins.envoy_server import ENVOY, NO_ENVOY, point_at, started
from tests.plugins.nginx_server import NGINX
from tests.plugins.processes import free_port, running

SHOWN = Path(__file__).resolve().parents[2] / "docs" / "deploy"
MISSING = {
    "nginx": "" if NGINX else "there is no nginx here (Debian: apt-get install nginx)",
    "envoy": "" if ENVOY else NO_ENVOY,
}


@dataclass(frozen=True)
class Certificate:
    """For localhost and 127.0.0.1, signed by itself."""

    certificate: Path
    key: Path

    def trusted(self) -> ssl.SSLContext:
        """What a caller needs to know that it talks to the right one."""
        return ssl.create_default_context(cafile=str(self.certificate))


def make_certificate(folder: Path) -> Certificate:
    """Write a key and a certificate that is good for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(folder / "tls.crt", folder / "tls.key")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made.key.write_bytes(private)
    return made


@asynccontextmanager
async def before(tollgate_url: str, certificate: Certificate, *, program: str) -> AsyncIterator[str]:
    """`program` before a gateway; gives the address that callers use."""
    port = free_port()
    serve = {"nginx": _nginx, "envoy": _envoy}[program]
    async with serve(tollgate_url, certificate, port=port):
        yield f"https://localhost:{port}"


@asynccontextmanager
async def _nginx(tollgate_url: str, certificate: Certificate, *, port: int) -> AsyncIterator[None]:
    folder = Path(await asyncio.to_thread(mkdtemp))
    places = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    changes = {
        "user www-data;": "" if os.geteuid() else "user root;",
        "events {": f"pid {folder}/nginx.pid;\nerror_log stderr;\nevents {{",
        "http {\n": f"http {{\n    client_body_temp_path {folder}/body;\n{places}",
        "/var/log/nginx/tollgate.log": "/dev/stdout",
        "server 127.0.0.1:8000": f"server {urlsplit(tollgate_url).netloc}",
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/tls/tls.crt": str(certificate.certificate),
        "/etc/tls/tls.key": str(certificate.key),
    }
    try:
        text = await asyncio.to_thread((SHOWN / "nginx.conf").read_text)
        for shown, tried in changes.items():
            assert shown in text, shown
            text = text.replace(shown, tried)
        await asyncio.to_thread((folder / "nginx.conf").write_text, text)
        command = [NGINX or "nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-g", "daemon off;"]
        async with running(command, port=port, folder=folder):
            yield
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)


@asynccontextmanager
async def _envoy(tollgate_url: str, certificate: Certificate, *, port: int) -> AsyncIterator[None]:
    text = await asyncio.to_thread((SHOWN / "envoy.yaml").read_text)
    for shown, tried in (("/etc/tls/tls.crt", certificate.certificate), ("/etc/tls/tls.key", certificate.key)):
        assert shown in text
        text = text.replace(shown, str(tried))
    config = yaml.safe_load(text)
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    (cluster,) = config["static_resources"]["clusters"]
    point_at(cluster, tollgate_url)
    async with started(yaml.safe_dump(config), port=port):
        yield
