"""Gateways served as `tollgate serve` serves them, with their guards, and bytes to throw at them."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
import yaml
from aiohttp import web

from gateway.logging import configure_logging
from tests.conftest import KEY

CHAT = "/v1/chat/completions"


@dataclass
class Served:
    """A gateway behind its guards, spoken to in bytes."""

    port: int
    runtime: Any
    runner: Any

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def send(self, data: bytes, *, for_s: float = 30) -> bytes:
        """Everything that is answered until the gateway closes, or until nothing more comes."""
        return await exchange(self.port, data, for_s=for_s)


async def exchange(port: int, data: bytes, *, for_s: float = 30) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        writer.write(data)
        async with asyncio.timeout(for_s):
            while piece := await reader.read(65536):
                got += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return got


def post(body: bytes = b"", *, path: str = CHAT, key: str | None = KEY, headers: bytes = b"") -> bytes:
    """A whole POST that asks for the connection to be closed."""
    credential = b"Authorization: Bearer " + key.encode() + b"\r\n" if key else b""
    head = b"POST %s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n" % path.encode("latin-1")
    return head + credential + headers + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


@contextmanager
def as_a_process_logs(style: Literal["json", "console"]) -> Iterator[io.StringIO]:
    """Everything that is logged meanwhile, as `tollgate serve` writes it; no logger keeps it for later."""
    root = logging.getLogger()
    handlers, level, written = root.handlers[:], root.level, io.StringIO()
    configure_logging(level="DEBUG", style=style, stream=written)
    structlog.configure(cache_logger_on_first_use=False)
    try:
        yield written
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path, counter: Any) -> AsyncIterator[Serve]:
    """Serve a config dictionary; `server` changes its server section."""
    from gateway.app import build_app, load_tokenizers
    from gateway.config import load_settings
    from gateway.runtime import RUNTIME
    from gateway.serving import make_runner

    runners: list[Any] = []

    async def start(config: dict[str, Any], **server: Any) -> Served:
        config = {**config, "server": {**config["server"], "shutdown_timeout": "1s", **server}}
        path = tmp_path / f"served{len(runners)}.yaml"
        await asyncio.to_thread(path.write_text, yaml.safe_dump(config))
        await asyncio.to_thread(counter.warm, ["o200k_base"])  # seconds on a busy machine, at the first time
        settings = await asyncio.to_thread(load_settings, path, env={})
        own = settings.tokenizers.unknown_model == "estimate"
        app = build_app(settings, counter=await asyncio.to_thread(load_tokenizers, settings) if own else counter)
        runner = make_runner(app, settings.server)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return Served(runner.addresses[0][1], app[RUNTIME].current, runner)

    yield start
    for runner in reversed(runners):
        await runner.cleanup()
