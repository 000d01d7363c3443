"""What `tollgate explain` says, and that the gateway then does just that."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.config import load_settings
from policies.engine import BudgetEngine
from policies.model import Estimate
from policies.stores import open_store
from policies.usage import Usage
from tests.conftest import MODELS_DIR, digest

CONFIG = f"""
store: {{url: "sqlite:///STORE"}}
tokenizers: {{dir: "{MODELS_DIR}"}}
upstreams: [{{name: own, url: "http://127.0.0.1:9", models: "gpt-*"}}, {{name: echo, url: "echo:"}}]
keys:
  - {{id: alice, digest: "{digest("sk-alice")}", tags: {{team: search}}}}
  - {{id: bob, digest: "{digest("sk-bob")}", disabled: true}}
output_hold_floor: 300
budgets:
  - {{name: day, each: key, limits: [{{tokens: 1000, per: day}}]}}
  - {{name: ads, match: {{team: ads, model: "gpt-*"}}, limits: [{{requests: 1, per: day}}]}}
  - {{name: shy, match: {{team: "s*"}}, mode: shadow, output_hold: 7, limits: [{{tokens: 1, per: minute}}]}}
  - {{name: minis, match: {{model: "*-mini"}}, models: {{deny: "gpt-4o-mini"}}}}
"""
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there"}]}


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("STORE", str(tmp_path / "budgets.db")))
    (tmp_path / "chat.json").write_text(json.dumps(CHAT))
    monkeypatch.chdir(tmp_path)
    for name in ("TOLLGATE_CONFIG", "TOLLGATE_STORE", "MODELS_DIR"):
        monkeypatch.delenv(name, raising=False)
    return path


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as end:
        cli.main(["explain", *arguments, "--json"])
    out = capsys.readouterr().out
    return int(end.value.code or 0), json.loads(out) if out else None


def use(config: Path, tokens: int) -> None:
    """Have alice use up tokens, as a gateway beside would."""

    async def settle() -> None:
        settings = await asyncio.to_thread(load_settings, config, env={})
        engine = BudgetEngine(settings.policy, open_store(settings.store.url), owner="other")
        subject = settings.policy.subject(settings.policy.keys[0], model="gpt-4o", upstream="own")
        decision = await engine.reserve(subject, Estimate(tokens, output_cap=0), now=time.time())
        assert decision.reservation is not None
        await engine.settle(decision.reservation, Usage(tokens, 0), now=time.time())
        await engine.close(now=time.time())

    asyncio.run(settle())


def test_a_request_that_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = explain(capsys, "--key", "alice", "--request", "chat.json")
    assert (code, told["answer"]["passes"], told["upstream"]) == (0, True, "own")
    assert told["count"] == {
        "input_tokens": 9, "accuracy": "exact", "upper_bound": 9, "encoding": "o200k_base", "notes": [],
    }  # fmt: skip
    assert told["held"] == {"input_tokens": 9, "output_tokens": 300}
    day, ads, shy, minis = told["budgets"]
    assert (day["matches"], day["why"]) == (True, ["it is for everyone"])
    assert day["output_hold"].startswith("the file's output_hold: learned")
    assert (ads["matches"], ads["why"]) == (False, ["tag team 'search' is not among ads"])
    assert (shy["why"], shy["output_hold"]) == (["tag team 'search' is among s*"], "7 tokens (its own output_hold)")
    assert (minis["matches"], minis["why"]) == (False, ["model 'gpt-4o' is not among *-mini"])
    limits = {each["budget"]: each for each in told["limits"]}
    assert (limits["day"]["would_hold"], limits["day"]["least"], limits["day"]["remaining"]) == (309, 10, 1000)
    assert limits["day"]["resets_at"] > limits["day"]["since"]
    assert (limits["shy"]["mode"], limits["shy"]["fits"]) == ("shadow", False)
    assert "shy" in told["shadowed"][0]


def test_a_request_that_is_refused_is_told_what_the_caller_would_be(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    use(config, 999)
    code, told = explain(capsys, "--key", "alice", "--request", "chat.json")
    assert (code, told["held"]) == (1, None)
    assert (told["answer"]["status"], told["answer"]["code"]) == (429, "insufficient_quota")
    assert (told["answer"]["budget"], told["answer"]["scope"]) == ("day", "key=alice")
    (day,) = (each for each in told["limits"] if each["budget"] == "day")
    assert (day["used"], day["remaining"], day["fits"]) == (999, 1, False)


def test_nothing_is_held_by_explaining(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        _, told = explain(capsys, "--key", "alice", "--request", "chat.json")
        assert {(each["used"], each["held"]) for each in told["limits"]} == {(0, 0)}


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("--key", "alice", "--model", "gpt-4o-mini"), 403, "model_not_allowed"),
        (("--key", "bob", "--model", "gpt-4o"), 401, "invalid_api_key"),
    ],
)
def test_refusals_that_no_counter_is_asked_for(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, code: str
) -> None:
    exit_code, told = explain(capsys, *arguments)
    assert (exit_code, told["answer"]["status"], told["answer"]["code"]) == (1, status, code)
    assert told["count"] is None


def test_the_requests_own_cap_is_what_is_held(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "capped.json").write_text(json.dumps({**CHAT, "max_tokens": 40, "n": 2}))
    _, told = explain(capsys, "--key", "alice", "--request", "capped.json")
    assert told["held"]["output_tokens"] == 80
    assert told["budgets"][0]["output_hold"] == "the request's own cap of 40"


def test_a_model_that_nobody_knows_is_answered_as_the_gateway_would(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = explain(capsys, "--key", "alice", "--model", "gtp-5x-nope")
    assert (code, told["answer"]["status"], told["answer"]["code"]) == (1, 404, "model_not_found")
    assert "gtp-5x-nope" in told["answer"]["message"]
    with pytest.raises(SystemExit) as end:
        cli.main(["explain", "--key", "alice", "--model", "gtp-5x-nope"])
    assert end.value.code == 1
    assert "answer    404 model_not_found: " in capsys.readouterr().out


def test_a_hold_that_shrinks_is_told_as_it_would_be_made(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    config.write_text(config.read_text().replace("output_hold_floor", "output_hold: clamp\noutput_hold_floor"))
    use(config, 900)
    _, told = explain(capsys, "--key", "alice", "--request", "chat.json")
    (day,) = (each for each in told["limits"] if each["budget"] == "day")
    assert (told["held"], told["output_cap"]["forwarded"]) == ({"input_tokens": 9, "output_tokens": 91}, 91)
    assert (day["would_hold"], day["remaining"], day["fits"]) == (100, 100, True)


def test_who_is_limited_by_nothing_is_told_so(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    config.write_text(config.read_text().replace("name: day, each: key", "name: day, each: key, match: {key: bob}"))
    code, told = explain(capsys, "--key", "alice", "--model", "gpt-4o", "--store", "memory:")
    assert (code, told["answer"]["passes"]) == (0, True)
    config.write_text(config.read_text().replace('team: "s*"', "team: none"))
    _, told = explain(capsys, "--key", "alice", "--model", "gpt-4o")
    assert (told["limits"], told["answer"]["message"]) == ([], "forwarded to 'own'; no budget limits it")


@pytest.mark.parametrize(
    ("name", "body", "arguments"),
    [
        ("chat", CHAT, ()),
        ("responses", {"model": "gpt-4o", "input": "Hello there", "max_output_tokens": 20}, ()),
        ("completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello there", "max_tokens": 9}, ()),
        ("embeddings", {"model": "text-embedding-3-small", "input": ["Hello", "there"]}, ()),
        ("messages", {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": CHAT["messages"]}, ()),
        ("gemini", {"contents": [{"parts": [{"text": "Hello there"}]}]}, ("--model", "gemini-2.5-flash")),
    ],
)
def test_requests_of_every_api_are_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, body: dict[str, Any], arguments: tuple[str, ...]
) -> None:
    (tmp_path / f"{name}.json").write_text(json.dumps(body))
    code, told = explain(capsys, "--key", "alice", "--request", f"{name}.json", *arguments)
    assert (code, told["answer"]["passes"]) == (0, True)
    assert told["count"]["input_tokens"] >= 2
    assert told["model"] == body.get("model", "gemini-2.5-flash")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--key", "alise", "--model", "gpt-4o"), 1, "did you mean `alice`?"),
        (("--key", "alice", "--request", "missing.json"), 1, "missing.json cannot be read"),
        (("--key", "alice"), 2, "give --model, or --request"),
    ],
)
def test_what_is_wrong_is_said(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["explain", *arguments])
    assert end.value.code == code
    assert message in capsys.readouterr().err


def test_people_get_tables_and_are_told_what_a_memory_store_hides(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["explain", "--key", "alice", "--request", "chat.json", "--store", "memory:"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert "9 tokens (exact; o200k_base)" in out
    assert "is not among" in out
    assert "passes: forwarded to 'own'" in out
    assert "`memory:`" in out
