"""Envoy with Tollgate before it or beside it, from the files that the documentation shows."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

import yaml

from tests.plugins.processes import free_port, running

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ROOT / "docs" / "plugins" / "envoy"
ENVOY = shutil.which("envoy", path=f"{ROOT / '.venv-compat' / 'bin'}:{os.environ.get('PATH', '')}")
"""`make compat` installs one."""
NO_ENVOY = "there is no envoy here (`make compat` installs one into .venv-compat)"


@asynccontextmanager
async def serving(*, tollgate_url: str, provider_url: str) -> AsyncIterator[str]:
    """The documented configuration with other addresses, on a free port; gives its URL."""
    port = free_port()
    config = yaml.safe_load(await asyncio.to_thread((SHOWN / "envoy.yaml").read_text))
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    clusters = {each["name"]: each for each in config["static_resources"]["clusters"]}
    for name, url in (("tollgate", tollgate_url), ("provider", provider_url)):
        point_at(clusters[name], url)
    # The provider of a test speaks no TLS.
    del clusters["provider"]["transport_socket"]
    text = yaml.safe_dump(config)
    assert "/etc/envoy/tollgate.lua" in text
    text = text.replace("/etc/envoy/tollgate.lua", str(SHOWN / "tollgate.lua"))
    async with started(text, port=port):
        yield f"http://127.0.0.1:{port}"


def point_at(cluster: dict[str, object], url: str) -> None:
    """Give a cluster with one endpoint another address."""
    address = urlsplit(url)
    assignment = cluster["load_assignment"]
    assert isinstance(assignment, dict)
    endpoint = assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"] = {"address": address.hostname, "port_value": address.port}


@asynccontextmanager
async def started(text: str, *, port: int) -> AsyncIterator[None]:
    """Envoy with a configuration that listens on `port`."""
    folder = Path(await asyncio.to_thread(mkdtemp))
    path = folder / "envoy.yaml"
    command = [ENVOY or "envoy", "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    try:
        await asyncio.to_thread(path.write_text, text)
        async with running(command, port=port, folder=folder):
            yield
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)
