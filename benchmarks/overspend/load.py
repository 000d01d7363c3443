"""The callers: as many streams at once as asked for, some of which hang up, while gateways die under them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence

import aiohttp

from benchmarks.overspend.cases import STREAMED, Case, Outcome, Scale, secret
from benchmarks.overspend.fleet import Gateway

AFTER_REFUSAL_S = (0.5, 4.0)


class Crowd:
    """Callers that take one case after another."""

    def __init__(self, client: aiohttp.ClientSession, gateways: Sequence[Gateway], cases: Iterator[Case]) -> None:
        self._client = client
        self._gateways = gateways
        self._cases = cases
        self._luck = random.Random(2)
        self.outcomes: list[Outcome] = []
        self.streaming = 0
        self.most_streaming = 0

    async def run(self, scale: Scale) -> None:
        """Keep `scale.callers` callers busy for `scale.seconds`, then let them finish."""
        until_s = time.monotonic() + scale.seconds
        async with asyncio.TaskGroup() as group:
            for number in range(scale.callers):
                group.create_task(self._caller(until_s, wait_s=number / scale.callers * scale.stream_s[0]))

    async def _caller(self, until_s: float, *, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        while time.monotonic() < until_s:
            up = [gateway for gateway in self._gateways if gateway.up]
            if not up:  # the only one was killed, and is being started again
                await asyncio.sleep(0.05)
                continue
            gateway = self._luck.choice(up)
            case = next(self._cases, None)
            if case is None:
                return
            outcome = Outcome(case, drains=gateway.drains)
            self.outcomes.append(outcome)
            try:
                async with asyncio.timeout(case.leaves_after_s):
                    await self._ask(gateway, outcome)
            except TimeoutError:
                outcome.left = True
            except (aiohttp.ClientError, ConnectionError) as error:
                outcome.error = type(error).__name__
                await asyncio.sleep(0.2)
            if outcome.status == 429:
                await asyncio.sleep(self._luck.uniform(*AFTER_REFUSAL_S))

    async def _ask(self, gateway: Gateway, outcome: Outcome) -> None:
        case = outcome.case
        async with self._client.post(
            gateway.url + "/v1/chat/completions",
            json=case.body(),
            headers={"Authorization": f"Bearer {secret(case.key_id)}"},
        ) as answer:
            outcome.status = answer.status
            outcome.request_id = answer.headers.get("x-tollgate-request-id", "")
            if answer.status != 200 or case.fate not in STREAMED:
                body = await answer.read()
                if answer.status == 200:
                    outcome.received = json.loads(body)["choices"][0]["message"]["content"].count("word")
                    outcome.complete = True
                return
            self.streaming += 1
            self.most_streaming = max(self.most_streaming, self.streaming)
            try:
                async for line in answer.content:
                    if line.startswith(b"data: [DONE]"):
                        outcome.complete = True
                    else:
                        outcome.received += line.count(b" word")
            finally:
                self.streaming -= 1
