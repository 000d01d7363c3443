"""The LiteLLM proxy: before Tollgate, behind it, and with Tollgate's plug-in."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml

from tests.compat.cells import Row
from tests.compat.gateways import Gateway, Place
from tests.compat.provider import Provider
from tests.compat.scripts import ROOT, VENV
from tests.plugins.processes import free_port, running

PLUGIN = ROOT / "docs" / "plugins" / "litellm" / "tollgate_litellm.py"
MODELS = ("gpt-4o", "text-embedding-3-small")
KEY_IN_BODY = {"COMPAT_KEY_IN_BODY": "1"}


async def as_client(stack: AsyncExitStack, row: Row, *, provider: Provider, echo_url: str) -> Place:
    """client -> LiteLLM -> Tollgate -> provider."""
    gateway = await stack.enter_async_context(Gateway(row, upstream_url=provider.url))
    url = await start(stack, upstream_url=gateway.url)
    # Its own words for a provider's 429 stand around Tollgate's.
    return gateway.place(provider, url=url, environment=KEY_IN_BODY | {"COMPAT_ERRORS_REWRITTEN": "1"})


async def as_upstream(stack: AsyncExitStack, row: Row, *, provider: Provider, echo_url: str) -> Place:
    """client -> Tollgate -> recorder -> LiteLLM -> echo: LiteLLM is the provider, so its bills are recorded."""
    litellm_url = await start(stack, upstream_url=echo_url)
    recorder = await stack.enter_async_context(Provider(litellm_url))
    gateway = await stack.enter_async_context(Gateway(row, upstream_url=recorder.url))
    return gateway.place(recorder)


async def with_plugin(stack: AsyncExitStack, row: Row, *, provider: Provider, echo_url: str) -> Place:
    """client -> LiteLLM -> provider, and LiteLLM asks Tollgate."""
    gateway = await stack.enter_async_context(Gateway(row, upstream_url=provider.url))
    url = await start(stack, upstream_url=provider.url, tollgate_url=gateway.url)
    return gateway.place(provider, url=url, environment=KEY_IN_BODY)


async def start(stack: AsyncExitStack, *, upstream_url: str, tollgate_url: str = "") -> str:
    """The proxy with a deployment a model; with the plug-in where there is a Tollgate to ask. Gives its address."""
    config: dict[str, Any] = {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {
                    "model": f"openai/{model}",
                    "api_base": f"{upstream_url}/v1",
                    "api_key": "sk-litellm",
                    "configurable_clientside_auth_params": ["api_key"],
                },
            }
            for model in MODELS
        ]
        + [
            {
                "model_name": "claude-sonnet-4-5",
                "litellm_params": {
                    "model": "anthropic/claude-sonnet-4-5",
                    "api_base": upstream_url,
                    "api_key": "sk-litellm",
                },
            }
        ],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        # Without a master key any key is let in: whose it is, is for Tollgate to say.
        "general_settings": {
            "allow_client_side_credentials": True,
            "forward_client_headers_to_llm_api": True,
            "dangerously_permit_weak_or_unset_master_key": True,
        },
    }
    if tollgate_url:
        config["litellm_settings"] |= {"callbacks": "tollgate_litellm.tollgate"}
    folder = await asyncio.to_thread(_prepare, config)
    stack.push_async_callback(asyncio.to_thread, shutil.rmtree, folder)
    port = free_port()
    command = [str(VENV / "bin" / "litellm"), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "TOLLGATE_URL": tollgate_url,
        "NO_PROXY": "*",
        "PATH": f"{VENV / 'bin'}:/usr/bin:/bin",
    }
    await stack.enter_async_context(running(command, port=port, folder=folder, environment=environment))
    return f"http://127.0.0.1:{port}"


def _prepare(config: dict[str, Any]) -> Path:
    """A folder with the configuration and the plug-in in it."""
    folder = Path(mkdtemp())
    shutil.copy(PLUGIN, folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder
