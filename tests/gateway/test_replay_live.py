"""A replay says what the gateway answers when the same requests are really sent to it over HTTP."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from gateway.replaying import ModelMost
from policies.policy import Policy
from policies.replay import Replay
from policies.stores import open_store
from policies.traffic import traffic
from tests.conftest import KEY, MODELS_DIR, RunningGateway, StartGateway, config_for, digest
from tests.fakes import FakeClock

BOB = "sk-test-bob"
KEYS = [
    {"id": "alice", "digest": digest(KEY), "tags": {"team": "search"}},
    {"id": "bob", "digest": digest(BOB), "tags": {"team": "ads"}},
]
ROOMY = [{"name": "day", "each": "key", "limits": [{"tokens": "10M", "per": "day"}]}]
TIGHT = [
    {"name": "minute", "each": "key", "limits": [{"requests": 3, "per": "minute"}, {"tokens": 400, "per": "minute"}]},
    {"name": "slow", "limits": [{"tokens": 900, "per": "hour", "sliding": True}], "weights": {"output": 3}},
    {"name": "ads", "match": {"team": "ads"}, "output_hold": "clamp", "limits": [{"output_tokens": 150, "per": "day"}]},
    {"name": "short", "match": {"model": "claude-*"}, "max_input_tokens": 40, "models": {"deny": ["claude-3-opus"]}},
    {"name": "trial", "mode": "shadow", "each": "key", "limits": [{"requests": 2, "per": "day"}]},
]


def asked(dice: random.Random) -> tuple[float, str, str, dict[str, Any]]:
    """One request: seconds after the one before, path, key, body."""
    words = " ".join(["budget"] * dice.choice((3, 20, 60)))
    later, key = dice.choice((1.0, 1.0, 5.0, 20.0, 400.0)), dice.choice((KEY, KEY, BOB))
    match dice.randrange(4):
        case 0:
            return later, "/v1/embeddings", key, {"model": "text-embedding-3-small", "input": words}
        case 1:
            model = dice.choice(("claude-sonnet-4-5", "claude-3-opus"))
            messages = [{"role": "user", "content": words}]
            return (
                later,
                "/v1/messages",
                key,
                {"model": model, "max_tokens": dice.choice((5, 90)), "messages": messages},
            )
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": words}]}
    if dice.random() < 0.5:
        body["max_tokens"] = dice.choice((1, 30, 200))
    if dice.random() < 0.3:
        body["n"] = 2
    if dice.random() < 0.3:
        body["stream"] = True
    return later, "/v1/chat/completions", key, body


async def sent(gateway: RunningGateway, clock: FakeClock, requests: list[Any]) -> list[str]:
    """Send them one after another; return the budget that refused each, "" where it was admitted."""
    told = []
    for later, path, key, body in requests:
        clock.advance(later)
        response, _ = await gateway.post(path, body, key=key)
        (line,) = await gateway.runtime.engine.store.latest(limit=1)
        assert line.request_id == response.headers["x-tollgate-request-id"]
        assert (response.status == 200) == (line.refused_by == "")
        told.append(line.refused_by)
    return told


async def replayed(path: Path, policy: Policy) -> list[str]:
    most = ModelMost(MODELS_DIR, {})
    await asyncio.to_thread(most.load)
    replay = Replay(policy, model_max=most)
    told: list[str] = []
    store = open_store(f"sqlite:///{path}")
    async for page in traffic(store):
        for each in page:
            refused = replay.feed(each._replace(ends_at=each.at))  # by the test's clock, answers take no time
            told.append(refused.budget if refused is not None else "")
    await store.close()
    return told


async def test_a_replay_says_what_callers_are_answered(start_gateway: StartGateway, tmp_path: Path) -> None:
    dice = random.Random(5)
    requests = [asked(dice) for _ in range(120)]
    answers, policies = {}, {}
    for name, budgets in (("roomy", ROOMY), ("tight", TIGHT)):
        clock = FakeClock()
        settings = {"keys": KEYS, "budgets": budgets, "output_hold_floor": 60}
        store = {"url": f"sqlite:///{tmp_path}/{name}.db"}
        gateway = await start_gateway(config_for(store=store, **settings), clock=clock)
        answers[name] = await sent(gateway, clock, requests)
        policies[name] = gateway.runtime.policy
    assert set(answers["roomy"]) == {""}
    assert set(answers["tight"]) >= {"", "minute", "slow", "short"}
    assert await replayed(tmp_path / "roomy.db", policies["roomy"]) == answers["roomy"]
    assert await replayed(tmp_path / "roomy.db", policies["tight"]) == answers["tight"]
    assert await replayed(tmp_path / "tight.db", policies["tight"]) == answers["tight"]
