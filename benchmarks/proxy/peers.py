"""Other proxies that are installed: nginx and Envoy, which only pass on, LiteLLM and Portkey, which know LLM APIs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks.proxy.targets import KEY, ROOT, Target, free_port


def nginx(folder: Path, upstream_port: int) -> Target | None:
    """nginx with one worker, proxying only; None where it is not installed."""
    found = shutil.which("nginx")
    if found is None:
        return None
    port = free_port()
    path = folder / "nginx.conf"
    path.write_text(
        f"worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; client_max_body_size 64m; client_body_buffer_size 1m; keepalive_requests 100000000;\n"
        f" upstream mock {{ server 127.0.0.1:{upstream_port}; keepalive 512; keepalive_requests 100000000; }}\n"
        f" server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://mock; proxy_http_version 1.1;\n"
        '  proxy_set_header Connection ""; proxy_buffering off; } } }\n'
    )
    return Target("nginx", port, [found, "-c", str(path)])


def envoy(folder: Path, upstream_port: int) -> Target | None:
    """Envoy with one worker, proxying only; None where ``ENVOY`` names no binary and none is on the path."""
    found = os.environ.get("ENVOY") or shutil.which("envoy")
    if found is None:
        return None
    port = free_port()
    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "mock", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}],
    }

    def at(where: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": where}}

    config = {
        "static_resources": {
            "listeners": [
                {"address": at(port), "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}
            ],
            "clusters": [
                {
                    "name": "mock",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "mock",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(upstream_port)}}]}],
                    },
                }
            ],
        }
    }
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    return Target("envoy", port, [found, "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"])


def litellm(folder: Path, upstream_port: int) -> Target | None:
    """LiteLLM's proxy with a key and limits a minute; None where ``LITELLM`` names none, and ``make compat`` has not
    installed it."""
    found = os.environ.get("LITELLM") or shutil.which(str(ROOT / ".venv-compat" / "bin" / "litellm"))
    if found is None:
        return None
    port = free_port()
    model = {
        "model": "openai/gpt-4o",
        "api_base": f"http://127.0.0.1:{upstream_port}/v1",
        "api_key": "sk-mock",
        "tpm": 10**12,
        "rpm": 10**9,
    }
    config = {
        "model_list": [{"model_name": "gpt-4o", "litellm_params": model}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(config))
    return Target("LiteLLM", port, [found, "--config", str(path), "--host", "127.0.0.1", "--port", str(port)])


def portkey(folder: Path, upstream_port: int) -> Target | None:
    """Portkey's gateway, which has no budgets of its own; None where ``PORTKEY`` names no start-server.js (npm:
    @portkey-ai/gateway)."""
    found, node = os.environ.get("PORTKEY"), shutil.which("node")
    if found is None or node is None:
        return None
    port = free_port()
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1"}
    return Target("Portkey", port, [node, found, f"--port={port}", "--headless"], headers)


PEERS: tuple[Callable[[Path, int], Target | None], ...] = (nginx, envoy, portkey, litellm)
