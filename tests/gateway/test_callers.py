"""Whose address a request is logged under."""

from __future__ import annotations

import pytest
import structlog

from gateway.callers import client_address
from tests.conftest import StartGateway, config_for, digest

TRUSTED = ("10.0.0.0/8", "127.0.0.1/32")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.7", "", "10.0.0.7"),
        ("10.0.0.7", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.7", "192.0.2.66, 198.51.100.1, 10.1.1.1", "198.51.100.1"),
        ("10.0.0.7", "10.2.2.2, 10.1.1.1", "10.2.2.2"),
        ("10.0.0.7", "198.51.100.1, not-an-address\n", "10.0.0.7"),
        ("10.0.0.7", "2001:db8::1", "2001:db8::1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_only_trusted_proxies_name_their_client(peer: str, forwarded: str, client: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == client


@pytest.mark.parametrize(("trusted", "client"), [([], "127.0.0.1"), (["127.0.0.0/8"], "198.51.100.1")])
async def test_the_log_line_names_the_client_that_trusted_proxies_forward(
    start_gateway: StartGateway, trusted: list[str], client: str
) -> None:
    gateway = await start_gateway(config_for(server={"trusted_proxies": trusted}))
    body = {"text": "Hello", "model_name": "gpt-4o"}
    with structlog.testing.capture_logs() as lines:
        await gateway.post("/calculate", body, headers={"X-Forwarded-For": "198.51.100.1"})
    assert [line["client"] for line in lines if line["event"] == "request"] == [client]


async def test_the_audit_log_names_the_client_and_not_the_proxy(start_gateway: StartGateway) -> None:
    config = config_for(server={"trusted_proxies": ["127.0.0.0/8"]}, admin={"digest": digest("admin")})
    gateway = await start_gateway(config)
    with structlog.testing.capture_logs() as lines:
        response, _ = await gateway.post(
            "/admin/keys", {"id": "bob"}, key="admin", headers={"X-Forwarded-For": "198.51.100.1"}
        )
    assert response.status == 201
    assert [line["remote"] for line in lines if line.get("actor") == "admin"] == ["198.51.100.1"]
