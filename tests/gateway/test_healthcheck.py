"""The container's own question whether its gateway lives."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import healthcheck
from tests.conftest import StartGateway, config_for
from tests.gateway.test_serving import certificate as certificate  # a fixture
from tests.plugins.processes import free_port


async def ask(monkeypatch: pytest.MonkeyPatch, port: int, host: str = "0.0.0.0") -> int:
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("PORT", str(port))
    return await asyncio.to_thread(healthcheck.main)


async def test_healthcheck_is_content_while_the_gateway_is(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway(config_for())
    assert await ask(monkeypatch, gateway.port) == 0
    assert await ask(monkeypatch, gateway.port, host="127.0.0.1") == 0


async def test_healthcheck_fails_when_nothing_listens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    assert await ask(monkeypatch, port) == 1
    assert f"127.0.0.1:{port} does not answer" in capsys.readouterr().err


async def answering(reply: bytes, context: ssl.SSLContext | None = None) -> tuple[asyncio.Server, int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


async def test_healthcheck_fails_when_the_gateway_is_not_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, port = await answering(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    async with server:
        assert await ask(monkeypatch, port) == 1
    assert "/health answers 503" in capsys.readouterr().err


async def test_healthcheck_speaks_tls_when_the_gateway_does(
    monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    server, port = await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", context)
    async with server:
        assert await ask(monkeypatch, port) == 0


def test_healthcheck_imports_next_to_nothing() -> None:
    listed = "import gateway.healthcheck, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-I", "-c", listed], capture_output=True, text=True, check=True).stdout
    assert not {"ssl", "asyncio", "aiohttp", "urllib.request", "http.client"} & set(modules.split())
