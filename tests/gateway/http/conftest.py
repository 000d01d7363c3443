"""Raw servers: each test says byte by byte what the upstream does, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.http import Answer, HttpClient, Origin

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


_NOWHERE = Origin("http", "127.0.0.1", 0)


@dataclass
class RawServer:
    """A TCP server that runs `talk` on every connection and keeps what it was sent."""

    talk: Talk
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    origin: Origin = _NOWHERE
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    errors: list[BaseException] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.tasks.discard(task)
            writer.transport.abort()

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request, note it, return its body. Raises IncompleteReadError when the client is gone."""
        head = await reader.readuntil(b"\r\n\r\n")
        body = b""
        lower = head.lower()
        if b"\r\ncontent-length: " in lower:
            body = await reader.readexactly(int(lower.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]))
        elif b"\r\ntransfer-encoding: chunked" in lower:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += await reader.readexactly(size)
                assert await reader.readexactly(2) == b"\r\n"
            assert await reader.readexactly(2) == b"\r\n"
        self.heads.append(head)
        self.bodies.append(body)
        return body


class Serve:
    """Starts raw servers; all of them end with the test."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack

    async def __call__(
        self, talk: Talk | None = None, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", name: str = ""
    ) -> RawServer:
        server = RawServer(talk or _unreachable)
        listening = await asyncio.start_server(server.handle, host, 0, ssl=tls)
        port = listening.sockets[0].getsockname()[1]
        server.origin = Origin("https" if tls else "http", name or host, port)

        async def stop() -> None:
            listening.close()
            for task in tuple(server.tasks):
                task.cancel()
            await asyncio.gather(*server.tasks, return_exceptions=True)
            await asyncio.sleep(0)
            assert server.errors == []

        self._stack.push_async_callback(stop)
        return server

    async def answers(self, *answers: bytes, **options: Any) -> RawServer:
        """A server that gives the answers in turn, over however many connections, and keeps these open."""
        waiting = list(answers)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.read_request(reader)
                writer.write(waiting.pop(0))

        server = await self(talk, **options)
        return server


async def _unreachable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise AssertionError("nobody should connect here")


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:
        yield Serve(stack)


class Client(HttpClient):
    """An `HttpClient` with a request's usual arguments filled in."""

    async def ask(self, origin: Origin, **changes: Any) -> Answer:
        wanted: dict[str, Any] = {
            "method": "POST",
            "target": b"/v1/x",
            "headers": [(b"Content-Type", b"application/json")],
            "body": b"{}",
            "connect_timeout_s": 5,
            "header_timeout_s": 5,
            "idle_timeout_s": 5,
            "total_timeout_s": 10,
        }
        return await self.request(origin, **(wanted | changes))


@pytest.fixture
async def new_client() -> AsyncIterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(**changes: Any) -> Client:
        wanted: dict[str, Any] = {"limit_per_host": 10, "keepalive_s": 30, "trust_env": False}
        clients.append(Client(**(wanted | changes)))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
async def client(new_client: Callable[..., Client]) -> Client:
    return new_client()


@dataclass(frozen=True)
class Certificates:
    server: ssl.SSLContext
    trusting: ssl.SSLContext


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A self-signed certificate for localhost and 127.0.0.1, and a context that trusts it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tollgate test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem: Path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return Certificates(server=server, trusting=ssl.create_default_context(cafile=pem))
