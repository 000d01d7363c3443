"""One gateway of several workers, callers that never pause, and a configuration that changes under them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.overspend.fleet import Process, free_port
from benchmarks.overspend.upstream import LedgerUpstream
from benchmarks.reloads.file import ADMIN, BAD, FIRST_LIMIT, KEY, WAYS, configuration, numbered_key, version_of

KNOWN_WITHIN_S = 10.0
"""Longer than any machine should need; how long it took is a figure."""

STARTED_WITHIN_S = 120.0

ASKED_FOR = ("", "", "/admin/reload", "SIGHUP")
"""How a reload is asked for, in turn: not at all (the file is followed), or so."""


@dataclass(frozen=True)
class Scale:
    """How large a drill is."""

    workers: int = 2
    callers: int = 16
    reloads: int = 60
    bad: int = 50


@dataclass
class Findings:
    """What came of a drill. `violations` contradict the promises."""

    requests: int = 0
    streams: int = 0
    charged: int = 0
    known_after_s: list[float] = field(default_factory=list)
    refused_files: int = 0
    violations: list[str] = field(default_factory=list)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note a violation unless something holds."""
        if not holds:
            self.violations.append(otherwise)


class Drill:
    """Drives one gateway; `run` returns what it found."""

    def __init__(self, scale: Scale, folder: Path, client: aiohttp.ClientSession, upstream_url: str) -> None:
        self._scale = scale
        self._client = client
        self._folder = folder
        self._file = folder / "config.yaml"
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._upstream_url = upstream_url
        self._log = folder / "gateway.log"
        self._gateway = Process([sys.executable, "-m", "gateway", "serve", "--config", str(self._file)], self._log)
        self._cases = count()
        self._stopping = False
        self.findings = Findings()

    async def run(self, upstream: LedgerUpstream) -> Findings:
        """Start, load, reload, break, mend, stop, and hold the store's figures against the upstream's journal."""
        self._file.write_text(self._text(0))
        self._gateway.start()
        try:
            await self._started()
            async with self._callers():
                last = await self._change_often()
                await self._write_bad_files(last)
                await self._mend(last + 1)
            await self._compare(upstream.journal)
        finally:
            self._gateway.send(signal.SIGTERM)
            status = await self._gateway.gone()
        self.findings.expect(status == 0, f"the gateway ended with {status}")
        self._read_log()
        return self.findings

    async def _change_often(self) -> int:
        ways, asked_for = cycle(WAYS), cycle(ASKED_FOR)
        for number in range(1, self._scale.reloads + 1):
            way, how = next(ways), next(asked_for)
            text = self._text(number)
            await asyncio.to_thread(way, self._file, text)
            since_s = time.monotonic()
            if how == "/admin/reload":
                status, told = await self._admin("POST", "/admin/reload")
                self.findings.expect(status == 200, f"reload {number} was answered {status}: {told}")
            elif how == "SIGHUP":
                self._gateway.send(signal.SIGHUP)
            await self._all_workers_have(version_of(text), since_s, f"reload {number} ({way.__name__} {how})")
            await self._in_force(number)
        return self._scale.reloads

    async def _all_workers_have(self, version: str, since_s: float, what: str) -> None:
        while True:
            hashes = await self._config_hashes()
            if len(hashes) == self._scale.workers and set(hashes.values()) == {float(int(version, 16))}:
                self.findings.known_after_s.append(time.monotonic() - since_s)
                return
            if time.monotonic() - since_s > KNOWN_WITHIN_S:
                self.findings.violations.append(f"{what} was not known to all workers: {hashes}")
                return
            await asyncio.sleep(0.02)

    async def _in_force(self, number: int) -> None:
        """Whichever worker is asked: the new limit holds, the new key opens, the one before does not."""
        for _ in range(2 * self._scale.workers):
            row = await self._budget(KEY)
            limit = row["limit"] if row else None
            self.findings.expect(limit == FIRST_LIMIT + number, f"after reload {number} a worker has the limit {limit}")
            self.findings.expect(await self._budget(numbered_key(number)) is not None, f"key {number} is not known")
            self.findings.expect(await self._budget(numbered_key(number - 1)) is None, f"key {number - 1} still opens")

    async def _write_bad_files(self, last: int) -> None:
        in_force, bad = await self._config_hashes(), cycle(BAD)
        ways, failures = cycle(WAYS), await self._metric("tollgate_config_reload_failures_total")
        for number in range(self._scale.bad):
            await asyncio.to_thread(next(ways), self._file, next(bad) + f"# {number}\n")
            if number % 10 == 9:
                self._gateway.send(signal.SIGHUP)
            else:
                status, told = await self._admin("POST", "/admin/reload")
                self.findings.expect(status == 400, f"bad file {number} was answered {status}: {told}")
                self.findings.refused_files += status == 400
        await self._until_every_worker_refuses()
        self.findings.expect(await self._config_hashes() == in_force, "a bad file changed the version in force")
        await self._in_force(last)
        status, health = await self._get("/health", key="")
        said = (status, health["status"], health["config"]["status"], bool(health["config"]["problems"]))
        self.findings.expect(said == (200, "degraded", "degraded", True), f"/health says {said} of a bad file")
        counted = await self._metric("tollgate_config_reload_failures_total") - failures
        self.findings.expect(counted >= self.findings.refused_files, f"{counted} failures are counted")

    async def _until_every_worker_refuses(self) -> None:
        """The last bad file has been seen by all once none says that it is well."""
        deadline_s = time.monotonic() + KNOWN_WITHIN_S
        while time.monotonic() < deadline_s:
            said = [(await self._get("/health", key=""))[1]["config"]["status"] for _ in range(4 * self._scale.workers)]
            if set(said) == {"degraded"}:
                self.findings.expect(
                    await self._metric("tollgate_config_last_reload_successful") == 0, "the metric says all is well"
                )
                return
        self.findings.violations.append("some worker never noticed a bad file")

    async def _mend(self, number: int) -> None:
        text = self._text(number)
        await asyncio.to_thread(WAYS[0], self._file, text)
        await self._all_workers_have(version_of(text), time.monotonic(), "the good file after the bad ones")
        await self._in_force(number)
        for _ in range(2 * self._scale.workers):
            _, health = await self._get("/health", key="")
            self.findings.expect(health["status"] == "ok", f"/health says {health['status']} of a mended file")
        self.findings.expect(
            await self._metric("tollgate_config_last_reload_successful") == 1, "the metric says that the file is bad"
        )

    @asynccontextmanager
    async def _callers(self) -> AsyncIterator[None]:
        callers = [asyncio.create_task(self._caller()) for _ in range(self._scale.callers)]
        try:
            yield
        finally:
            self._stopping = True
            await asyncio.gather(*callers)

    async def _caller(self) -> None:
        while not self._stopping:
            number = next(self._cases)
            streamed = number % 2 == 0
            plan = {"case": number, "fate": "stream" if streamed else "whole", "output": 7 + number % 5}
            plan |= {"pieces": 4, "pause_ms": 15 + number % 40}
            body = {
                "model": "gpt-4o", "stream": streamed, "max_tokens": 50,
                "metadata": {name: str(value) for name, value in plan.items()},
                "messages": [{"role": "user", "content": "word " * (1 + number % 9)}],
            }  # fmt: skip
            headers = {"Authorization": f"Bearer {KEY}"} | ({"Connection": "close"} if number % 3 == 0 else {})
            try:
                async with self._client.post(self._url + "/v1/chat/completions", json=body, headers=headers) as answer:
                    said = await answer.read()
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                self.findings.violations.append(f"request {number} failed: {type(error).__name__} {error}")
                continue
            whole = said.endswith(b"data: [DONE]\n\n") if streamed else said.endswith(b"}")
            self.findings.expect(answer.status == 200 and whole, f"request {number}: {answer.status} {said[-200:]!r}")
            self.findings.requests += 1
            self.findings.streams += streamed

    async def _compare(self, journal: list[dict[str, Any]]) -> None:
        """What the upstream served, what the store holds against the key, and what the ledger sums up are the same."""
        served = sum(line["input"] + line["output"] for line in journal)
        deadline_s = time.monotonic() + KNOWN_WITHIN_S
        while (row := await self._budget(KEY)) is None or row["held"]:
            if time.monotonic() > deadline_s:
                break
            await asyncio.sleep(0.05)
        used = row and (row["used"], row["held"])
        self.findings.expect(used == (served, 0), f"the upstream served {served}, the store says {used}")
        _, usage = await self._admin("GET", "/admin/usage?by=key")
        total = usage["total"]
        self.findings.expect(
            (total["tokens"], total["requests"]) == (served, len(journal)),
            f"the upstream served {len(journal)} requests and {served} tokens, the ledger says {total}",
        )
        self.findings.expect(len(journal) == self.findings.requests, "a request was sent upstream twice")
        self.findings.charged = served

    def _read_log(self) -> None:
        """Each reload is told with what changed, each bad file with what is wrong, and nothing else went wrong."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        reloads = [line for line in lines if (line["logger"], line["event"]) == ("config", "config_reloaded")]
        self.findings.expect(
            all(line["changes"] and line["version"] for line in reloads[:-1]), "a reload tells no diff"
        )
        self.findings.expect(len(reloads) >= self._scale.workers * self._scale.reloads, f"{len(reloads)} reloads told")
        refused = [line for line in lines if line["event"] == "config_reload_failed"]
        self.findings.expect(
            all(line["problems"] and line["level"] == "error" for line in refused), "no problem is told"
        )
        self.findings.expect(len(refused) >= self._scale.bad, f"{len(refused)} bad files told")
        loud = [
            line for line in lines
            if line.get("level") in ("warning", "error", "critical") and line["event"] != "config_reload_failed"
        ]  # fmt: skip
        self.findings.expect(not loud, f"the log complains: {loud[:3]}")

    def _text(self, number: int) -> str:
        return configuration(
            number,
            port=self._port,
            workers=self._scale.workers,
            upstream_url=self._upstream_url,
            folder=self._folder,
        )

    async def _started(self) -> None:
        """Wait until all workers serve, and have loaded the tokenizer that the callers need."""
        deadline_s = time.monotonic() + STARTED_WITHIN_S
        while True:
            try:
                if len(await self._config_hashes()) == self._scale.workers:
                    await asyncio.gather(*(self._count() for _ in range(8 * self._scale.workers)))
                    return
            except (aiohttp.ClientError, TimeoutError):  # a tokenizer takes long to load on a busy machine
                pass
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the gateway did not come up:\n{self._gateway.log_text[-2000:]}")
            await asyncio.sleep(0.1)

    async def _count(self) -> None:
        asked, headers = {"text": "word", "model_name": "gpt-4o"}, {"Connection": "close"}
        async with self._client.post(self._url + "/calculate", json=asked, headers=headers) as answer:
            answer.raise_for_status()

    async def _config_hashes(self) -> dict[str, float]:
        """The version that each worker, by its pid, has in force."""
        text = await self._metrics()
        return {
            pid: float(value) for pid, value in re.findall(r'^tollgate_config_hash\{pid="(\d+)"\} (\S+)$', text, re.M)
        }

    async def _metric(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", await self._metrics(), re.M)
        return float(found[1]) if found else 0.0

    async def _metrics(self) -> str:
        async with self._client.get(self._url + "/metrics") as answer:
            return await answer.text()

    async def _budget(self, key: str) -> dict[str, Any] | None:
        """A key's budget as some worker tells it; None for a key it does not know."""
        status, told = await self._get("/budgets", key=key)
        return told["data"][0] if status == 200 else None

    async def _get(self, path: str, *, key: str) -> tuple[int, Any]:
        # A connection of its own, so that any worker may take it.
        headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
        async with self._client.get(self._url + path, headers=headers) as answer:
            return answer.status, await answer.json()

    async def _admin(self, method: str, path: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {ADMIN}", "Connection": "close"}
        async with self._client.request(method, self._url + path, headers=headers) as answer:
            return answer.status, await answer.json()


async def drill(scale: Scale, folder: Path) -> Findings:
    """Run one."""
    upstream = LedgerUpstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=2**20, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    timeout = aiohttp.ClientTimeout(total=60)
    async with server, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as client:
        return await Drill(scale, folder, client, f"http://127.0.0.1:{port}").run(upstream)
