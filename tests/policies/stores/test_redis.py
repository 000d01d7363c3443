"""What is Redis's own: losing and finding it again, its clock, its addresses, and many replicas."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from policies.model import StoreLost
from policies.stores import open_store
from policies.stores.base import State
from policies.stores.redis import RedisStore
from policies.stores.redis_address import redis_address
from tests.policies.redis_server import RedisServer, free_port
from tests.policies.stores.test_contract import DAY, MINUTE, NOW, entry, granted, order, rigid


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may stop."""
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, **{"server_time": False, "timeout_s": 0.5, **options})  # type: ignore[arg-type]
    yield store
    await store.close()


async def back(store: RedisStore) -> None:
    """Wait until the store has found its server by itself."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await store.ping()
            except StoreLost:
                await asyncio.sleep(0.02)


async def test_store_is_lost_at_once_when_nobody_listens(tmp_path: Path) -> None:
    async with opened(f"unix://{tmp_path}/no.sock") as store:
        for _ in range(3):
            with pytest.raises(StoreLost, match="tried again by itself"):
                await store.reserve(order(rigid(DAY, 1, 10)), now=NOW)


async def test_store_finds_its_server_again_after_a_restart(own_server: RedisServer) -> None:
    async with opened(own_server.url(prefix="p")) as store:
        await granted(store, order(rigid(DAY, 60, 100)))
        await asyncio.to_thread(own_server.stop)
        with pytest.raises(StoreLost):
            await store.settle("r1", (10,), read=[], now=NOW)
        store.record(entry("lost"))
        await asyncio.to_thread(own_server.start)
        await back(store)
        settled = await store.settle("r1", (10,), read=[DAY], now=NOW)
        assert settled == (True, (State(10, 0),))
        await store.beat("me", now=NOW)
        assert [line.request_id async for line in store.entries()] == ["lost"]


async def test_store_is_lost_when_the_server_hangs_and_back_when_it_goes_on(own_server: RedisServer) -> None:
    async with opened(own_server.url(prefix="p"), timeout_s=0.1) as store:
        await store.ping()
        await asyncio.to_thread(own_server.freeze)
        with pytest.raises(StoreLost, match=r"no answer for 0\.1 s"):
            await store.reserve(order(rigid(DAY, 60, 100)), now=NOW)
        await asyncio.to_thread(own_server.thaw)
        await back(store)
        await granted(store, order(rigid(DAY, 40, 100), hold_id="r2"))


async def test_scripts_are_sent_again_when_the_server_has_forgotten_them(own_server: RedisServer) -> None:
    async with opened(own_server.url(prefix="p")) as store:
        await granted(store, order(rigid(DAY, 10, 100)))
        await asyncio.to_thread(own_server.command, "SCRIPT", "FLUSH")
        reserved = store.reserve(order(rigid(DAY, 10, 100), hold_id="r2"), now=NOW)
        settled = store.settle("r2", (4,), read=[DAY], now=NOW)
        await reserved
        assert (await settled).states == (State(4, 10),)


async def test_counters_expire_when_nobody_can_need_them_any_more(own_server: RedisServer) -> None:
    async with opened(own_server.url(prefix="p")) as store:
        await granted(store, order(rigid(DAY, 10, 100), rigid(MINUTE._replace(expires_at=0.0), 1, 100)))
        lives = await asyncio.to_thread(own_server.command, "TTL", f"{{p}}:c:{DAY.series}@{DAY.slot}")
        assert int(lives) == pytest.approx(DAY.expires_at - NOW, abs=5)
        forever = await asyncio.to_thread(own_server.command, "TTL", f"{{p}}:c:{MINUTE.series}@{MINUTE.slot}")
        assert int(forever) == -1
        # Settled long after its window, a counter still lives for a while.
        await store.settle("r1", (10, 1), read=[], now=DAY.expires_at + 1000)
        late = await asyncio.to_thread(own_server.command, "TTL", f"{{p}}:c:{DAY.series}@{DAY.slot}")
        assert int(late) == pytest.approx(3600, abs=5)


async def test_windows_follow_the_servers_clock(redis_server: RedisServer) -> None:
    async with opened(redis_server.url(prefix="clock"), server_time=True) as store:
        assert store.aligned(NOW) == NOW
        await store.beat("me", now=NOW)
        seconds, _ = (await asyncio.to_thread(redis_server.command, "TIME")).split()
        assert store.aligned(NOW) == pytest.approx(int(seconds), abs=3)
        before = store.aligned(NOW)
        await store.beat("me", now=before)
        assert store.aligned(NOW) == pytest.approx(before, abs=0.5)


async def test_replicas_share_a_prefix_and_nothing_with_others(redis_server: RedisServer) -> None:
    async with (
        opened(redis_server.url(prefix="ours")) as one,
        opened(redis_server.url(prefix="ours")) as two,
        opened(redis_server.url(prefix="others")) as other,
    ):
        await granted(one, order(rigid(DAY, 60, 100)))
        assert await two.read([DAY], now=NOW) == (State(0, 60),)
        assert await other.read([DAY], now=NOW) == (State(0, 0),)
        assert [hold.id for hold in await two.holds()] == ["r1"]
        assert await other.counters() == []


async def test_password_is_used_and_never_told(tmp_path: Path) -> None:
    port = free_port()
    server = RedisServer(tmp_path, "--requirepass", "s3cret", port=port)
    await asyncio.to_thread(server.start)
    try:
        async with opened(f"redis://:s3cret@127.0.0.1:{port}/2?prefix=p") as store:
            await granted(store, order(rigid(DAY, 60, 100)))
        async with opened(f"redis://:wrong-one@127.0.0.1:{port}") as store:
            with pytest.raises(StoreLost) as lost:
                await store.ping()
            assert "wrong-one" not in str(lost.value)
            assert f"redis://127.0.0.1:{port}" in str(lost.value)
    finally:
        await asyncio.to_thread(server.stop)


async def test_tls_server_is_reached_and_one_nobody_vouches_for_is_not(tmp_path: Path) -> None:
    port, cert, key = free_port(), tmp_path / "cert.pem", tmp_path / "key.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    await asyncio.to_thread(
        subprocess.run, [*make, *names, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    tls = [
        "--tls-port",
        str(port),
        "--tls-cert-file",
        str(cert),
        "--tls-key-file",
        str(key),
        "--tls-auth-clients",
        "no",
    ]
    server = RedisServer(tmp_path, *tls)
    await asyncio.to_thread(server.start)
    try:
        async with opened(f"rediss://127.0.0.1:{port}?ssl_ca_certs={cert}", timeout_s=2.0) as store:
            await granted(store, order(rigid(DAY, 60, 100)))
        async with opened(f"rediss://127.0.0.1:{port}", timeout_s=2.0) as store:
            with pytest.raises(StoreLost, match=r"(?i)certificate"):
                await store.ping()
    finally:
        await asyncio.to_thread(server.stop)


async def test_sentinels_name_the_master(tmp_path: Path) -> None:
    port, sentinel_port = free_port(), free_port()
    config = tmp_path / "sentinel.conf"
    master = RedisServer(tmp_path / "m", port=port)

    def start() -> subprocess.Popen[bytes]:
        config.write_text(f"port {sentinel_port}\nsentinel monitor budgets 127.0.0.1 {port} 1\n")
        master.start()
        return subprocess.Popen(["redis-server", str(config), "--sentinel"], stdout=subprocess.DEVNULL)

    sentinel = await asyncio.to_thread(start)
    try:
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel_port}/budgets/3?prefix=p"
        async with opened(url, timeout_s=2.0) as store:
            await back(store)
            await granted(store, order(rigid(DAY, 60, 100)))
        assert "p" in await asyncio.to_thread(master.command, "-n", "3", "KEYS", "*")
    finally:
        sentinel.kill()
        await asyncio.to_thread(sentinel.wait)
        await asyncio.to_thread(master.stop)


async def test_cluster_is_reached_through_any_of_its_nodes(tmp_path: Path) -> None:
    servers = []
    for name in ("a", "b"):
        port, bus = free_port(), free_port()
        servers.append(RedisServer(tmp_path / name, "--cluster-enabled", "yes", "--cluster-port", str(bus), port=port))
        servers[-1].bus = bus  # type: ignore[attr-defined]
    owner, other = servers

    def start() -> None:
        for server in servers:
            server.start()
        owner.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        other.command("CLUSTER", "MEET", "127.0.0.1", str(owner.port), str(owner.bus))  # type: ignore[attr-defined]

    await asyncio.to_thread(start)
    try:
        async with opened(f"redis://127.0.0.1:{other.port}?prefix=p", timeout_s=2.0) as store:
            await back(store)
            outcome = await granted(store, order(rigid(DAY, 60, 100), rigid(MINUTE, 5, 100)))
            assert outcome.amounts == (60, 5)
            await store.settle("r1", (1, 1), read=[DAY, MINUTE], now=NOW, entry=entry())
        assert await asyncio.to_thread(owner.command, "DBSIZE") != "0"
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://host:6379/0?prefix=", "prefix"),
        ("redis://host?prefix=a{b}", "prefix"),
        ("redis+sentinel://host:26379", "service"),
        ("redis+sentinel://host:port/service", "port"),
    ],
)
def test_url_is_refused_when_it_cannot_be_meant(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_store(url)


def test_url_options_reach_the_connection() -> None:
    address = redis_address("rediss+sentinel://u:p%40ss@h1:1,h2/svc/3?ssl_cert_reqs=none", timeout_s=1.0)
    assert address.sentinels == (("h1", 1), ("h2", 26379))
    assert (address.service, address.options["db"], address.options["username"]) == ("svc", 3, "u")
    assert address.options["password"] == "p@ss"
    assert address.options["ssl_cert_reqs"] == "none"
    assert "p@ss" not in address.name
    assert "p%40ss" not in address.name
    assert redis_address("valkey://h:7", timeout_s=1.0).options["port"] == 7
