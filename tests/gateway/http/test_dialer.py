from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest

from gateway.http import ConnectFailed, HttpClient, Origin, TimedOut
from gateway.http.dialer import Dialer, first_connected

from .conftest import Certificates, Client, RawServer, Serve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_connect_failed_names_the_address_when_nobody_listens(client: Client) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        origin = Origin("http", "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(
            ConnectFailed, match=f"cannot connect to 127.0.0.1:{origin.port}: Connection refused"
        ) as caught:
            await client.ask(origin)
    assert caught.value.nothing_sent


async def test_connect_failed_when_the_name_does_not_exist(client: Client) -> None:
    with pytest.raises(ConnectFailed, match=r"cannot connect to no-such-host\.invalid:80"):
        await client.ask(Origin("http", "no-such-host.invalid", 80))


async def test_request_over_ipv6(client: Client, serve: Serve) -> None:
    try:
        server = await serve.answers(OK, host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    assert (await client.ask(server.origin)).complete_body == b"ok"
    assert b"\r\nHost: [::1]:%d\r\n" % server.origin.port in server.heads[0]


async def test_request_to_a_name_uses_the_address_that_answers(client: Client, serve: Serve) -> None:
    # localhost is usually ::1 and 127.0.0.1; only the second listens.
    server = await serve.answers(OK, name="localhost")
    assert (await client.ask(server.origin)).complete_body == b"ok"


async def test_next_address_is_tried_when_the_first_is_silent() -> None:
    with socket.socket() as full, socket.socket() as listening, socket.socket() as filler:
        full.bind(("127.0.0.3", 0))
        port = full.getsockname()[1]
        full.listen(0)
        await asyncio.to_thread(
            filler.connect, ("127.0.0.3", port)
        )  # the backlog is full: a further connect gets no reply
        listening.bind(("127.0.0.1", port))
        listening.listen()
        silent = (socket.AF_INET, ("127.0.0.3", port))
        loop = asyncio.get_running_loop()
        started = loop.time()
        connected = await first_connected([silent, silent, (socket.AF_INET, ("127.0.0.1", port))])
        with connected:
            assert connected.getpeername() == ("127.0.0.1", port)
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert loop.time() - started < 2


async def test_connect_timeout_when_the_peer_does_not_finish_the_handshake(
    new_client: Callable[..., Client], serve: Serve, certificates: Certificates
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    server = await serve(talk)
    client = new_client(ssl_context=certificates.trusting)
    with pytest.raises(TimedOut) as caught:
        await client.ask(server.origin._replace(scheme="https"), connect_timeout_s=0.05)
    assert (caught.value.phase, caught.value.nothing_sent) == ("connect", True)


async def test_connect_failed_reports_the_first_address_when_none_answers() -> None:
    dead = [(socket.AF_INET, (f"127.0.0.{last}", 1)) for last in (4, 5)]
    with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.4"):
        await first_connected(dead)


# TLS.


async def test_request_over_tls(new_client: Callable[..., Client], serve: Serve, certificates: Certificates) -> None:
    client = new_client(ssl_context=certificates.trusting)
    server = await serve.answers(OK, OK, tls=certificates.server, name="localhost")
    body = b"x" * 300_000
    for _ in range(2):
        assert (await client.ask(server.origin, body=body)).complete_body == b"ok"
    assert server.bodies == [body, body]
    assert server.connections == 1
    by_address = await serve.answers(OK, tls=certificates.server)
    assert (await client.ask(by_address.origin)).complete_body == b"ok"


async def test_untrusted_certificate_is_refused(
    new_client: Callable[..., Client], serve: Serve, certificates: Certificates
) -> None:
    server = await serve.answers(OK, tls=certificates.server, name="localhost")
    with pytest.raises(ConnectFailed, match=r"certificate of localhost:.* is refused: self-signed") as caught:
        await new_client().ask(server.origin)
    assert caught.value.nothing_sent
    assert server.heads == []


async def test_certificate_for_another_name_is_refused(
    new_client: Callable[..., Client], serve: Serve, certificates: Certificates
) -> None:
    server = await serve.answers(OK, tls=certificates.server, host="127.0.0.2")
    with pytest.raises(ConnectFailed, match=r"is refused: IP address mismatch"):
        await new_client(ssl_context=certificates.trusting).ask(server.origin)


async def test_plain_server_is_refused_when_tls_is_expected(
    new_client: Callable[..., Client], serve: Serve, certificates: Certificates
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(100)

    server = await serve(talk)
    with pytest.raises(ConnectFailed, match=r"TLS with .* failed"):
        await new_client(ssl_context=certificates.trusting).ask(server.origin._replace(scheme="https"))


# Proxies.


async def test_http_request_goes_to_the_proxy_in_absolute_form(
    monkeypatch: pytest.MonkeyPatch, new_client: Callable[..., Client], serve: Serve
) -> None:
    proxy = await serve.answers(OK)
    monkeypatch.setenv("HTTP_PROXY", f"http://me:pw@127.0.0.1:{proxy.origin.port}")
    monkeypatch.setenv("NO_PROXY", "other.test")
    client = new_client(trust_env=True)
    assert (await client.ask(Origin("http", "up.test", 8080))).complete_body == b"ok"
    assert proxy.heads[0].startswith(b"POST http://up.test:8080/v1/x HTTP/1.1\r\nHost: up.test:8080\r\n")
    assert b"\r\nProxy-Authorization: Basic bWU6cHc=\r\n" in proxy.heads[0]


async def test_proxy_is_left_out_when_no_proxy_covers_the_origin(
    monkeypatch: pytest.MonkeyPatch, new_client: Callable[..., Client], serve: Serve
) -> None:
    server, proxy = await serve.answers(OK), await serve()
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.origin.port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert (await new_client(trust_env=True).ask(server.origin)).complete_body == b"ok"
    assert server.heads[0].startswith(b"POST /v1/x HTTP/1.1\r\n")


async def _tunnelling_proxy(serve: Serve, target: RawServer, *, said: bytes) -> RawServer:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await proxy.read_request(reader)
        writer.write(said)
        onward, back = await asyncio.open_connection("127.0.0.1", target.origin.port)
        try:
            await asyncio.gather(pump(reader, back), pump(onward, writer))
        finally:
            back.transport.abort()

    proxy = await serve(talk)
    return proxy


async def test_https_request_goes_through_a_tunnel(
    monkeypatch: pytest.MonkeyPatch, new_client: Callable[..., Client], serve: Serve, certificates: Certificates
) -> None:
    server = await serve.answers(OK, OK, tls=certificates.server, name="localhost")
    proxy = await _tunnelling_proxy(serve, server, said=b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:pw@127.0.0.1:{proxy.origin.port}")
    client = new_client(trust_env=True, ssl_context=certificates.trusting)
    for _ in range(2):
        assert (await client.ask(server.origin, body=b"x" * 200_000)).complete_body == b"ok"
    authority = server.origin.authority.encode()
    assert proxy.heads == [
        b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n" % (authority, authority)
    ]
    assert server.heads[0].startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert b"Proxy-Authorization" not in server.heads[0]


async def test_certificate_is_verified_through_a_tunnel(
    monkeypatch: pytest.MonkeyPatch, new_client: Callable[..., Client], serve: Serve, certificates: Certificates
) -> None:
    server = await serve.answers(OK, tls=certificates.server, name="localhost")
    proxy = await _tunnelling_proxy(serve, server, said=b"HTTP/1.1 200 OK\r\n\r\n")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.origin.port}")
    with pytest.raises(ConnectFailed, match=r"certificate of localhost:.* is refused"):
        await new_client(trust_env=True).ask(server.origin)
    assert server.heads == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "it answered 407 Proxy Authentication Required"),
        (b"HTTP/1.1 200 OK\r\n\r\nsurprise", "it sent bytes before the tunnel was used"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "it does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, "its answer has no end"),
        (b"", "it closed the connection"),
    ],
)
async def test_connect_failed_says_why_the_proxy_gave_no_tunnel(
    monkeypatch: pytest.MonkeyPatch,
    new_client: Callable[..., Client],
    serve: Serve,
    certificates: Certificates,
    said: bytes,
    reason: str,
) -> None:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        if said:
            with contextlib.suppress(ConnectionError):
                await writer.drain()
                await reader.read()
        gone.set()

    proxy = await serve(talk)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.origin.port}")
    client = new_client(trust_env=True, ssl_context=certificates.trusting)
    with pytest.raises(ConnectFailed, match=f"gave no way to up.test:443: {reason}") as caught:
        await client.ask(Origin("https", "up.test", 443))
    assert caught.value.nothing_sent
    await asyncio.wait_for(gone.wait(), 5)


def test_unusable_proxy_is_refused_when_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ValueError, match=r"HTTPS_PROXY: .*socks5"):
        HttpClient(limit_per_host=1, keepalive_s=1)
    HttpClient(limit_per_host=1, keepalive_s=1, trust_env=False)


def test_environment_is_not_read_when_it_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert Dialer(ssl_context=None, trust_env=False).absolute_form_proxy(Origin("http", "up.test", 80)) is None
