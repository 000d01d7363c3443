"""Metrics that others load: Prometheus accepts them, dashboard and alerts ask only for what is exported."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest
import yaml

from gateway.formats import FORMATS
from gateway.genai_metrics import OTHER, Known, provider
from policies.model import StoreLost
from tests.conftest import RunningGateway, StartGateway, config_for

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "grafana" / "tollgate.json").read_text(encoding="utf-8"))
RULES = DOCS / "alerts" / "tollgate.rules.yml"
ALERTS = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="there is no promtool here (Debian: apt-get install prometheus)"
)


def panel_queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$job", ".*")


def queries() -> list[str]:
    return [*panel_queries(), *(alert["expr"] for alert in ALERTS)]


async def promtool(*arguments: str, given: bytes = b"") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "promtool", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(given), 30)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def busy_gateway(start_gateway: StartGateway, **sections: Any) -> RunningGateway:
    gateway = await start_gateway(config_for(**sections))
    await gateway.post("/v1/chat/completions", CHAT)
    longer = [{"role": "user", "content": "Say more than one token, please."}]
    await gateway.post("/v1/chat/completions", {**CHAT, "messages": longer, "stream": True})
    await gateway.post("/v1/chat/completions", {**CHAT, "max_tokens": 10**6})
    return gateway


async def exported(gateway: RunningGateway) -> str:
    _, body = await gateway.get("/metrics", key=None)
    return str(body.decode())


def value(text: str, name: str, **labels: str) -> float:
    """The sum of all samples with these labels."""
    total = 0.0
    for line in text.splitlines():
        sample = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
        if sample and sample[1] == name and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', sample[2])).items():
            total += float(sample[3])
    return total


@needs_promtool
async def test_prometheus_accepts_what_is_exported(start_gateway: StartGateway) -> None:
    gateway = await busy_gateway(start_gateway, metrics={"most_keys": 5})
    status, complaints = await promtool("check", "metrics", given=(await exported(gateway)).encode())
    assert (status, complaints) == (0, "")


@needs_promtool
async def test_prometheus_accepts_the_alert_rules() -> None:
    status, said = await promtool("check", "rules", str(RULES))
    assert status == 0, said
    assert f"{len(ALERTS)} rules found" in said


@needs_promtool
async def test_prometheus_accepts_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(panel_queries())]
    file = tmp_path / "panels.yml"
    await asyncio.to_thread(file.write_text, yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    status, said = await promtool("check", "rules", str(file))
    assert status == 0, said
    assert f"{len(rules)} rules found" in said


def expected(alert: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """An alert as promtool is to find it: its labels and annotations filled in."""
    told = {
        key: re.sub(r"{{ \$labels\.(\w+) }}", lambda found: {"job": "t", **labels}[found[1]], text)
        for key, text in alert["annotations"].items()
    }
    return {"exp_labels": {**alert["labels"], "job": "t", **labels}, "exp_annotations": told}


def drifting(family: str, *, more: int, less: int) -> list[tuple[str, str]]:
    """Two hours of a family whose bills are off by so many tokens in a thousand."""
    labels = f'job="t", upstream="own", family="{family}"'
    return [
        (f'tollgate_miscounted_tokens_total{{{labels}, direction="more"}}', f"0+{more}x130"),
        (f'tollgate_miscounted_tokens_total{{{labels}, direction="less"}}', f"0+{less}x130"),
        (f'tollgate_tokens_total{{{labels}, kind="input", source="reported"}}', "0+1000x130"),
    ]


@needs_promtool
async def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Prometheus itself evaluates them: each fires for the series that it is about, and for no other."""
    series = [
        ('tollgate_store_up{job="t", instance="lost"}', "0x10"),
        ('tollgate_store_up{job="t", instance="well"}', "1x10"),
        ('tollgate_refusals_total{job="t", budget="main"}', "0+60x30"),
        ('tollgate_requests_total{job="t", upstream="bad", outcome="cut"}', "0+10x30"),
        ('tollgate_requests_total{job="t", upstream="bad", outcome="ok"}', "0+90x30"),
        ('tollgate_requests_total{job="t", upstream="good", outcome="ok"}', "0+90x30"),
        ('tollgate_requests_total{job="t", upstream="good", outcome="cut"}', "0+1x30"),
        ('tollgate_requests_total{job="t", upstream="", outcome="failed"}', "0+1x30"),
        ('tollgate_degraded_decisions_total{job="t", mode="allow"}', "0+1x30"),
        ('tollgate_config_last_reload_successful{job="t", instance="lost"}', "1x5 0x25"),
        ('tollgate_config_last_reload_successful{job="t", instance="well"}', "1x30"),
        ('tollgate_config_hash{job="t", instance="lost"}', "77x30"),
        ('tollgate_config_hash{job="t", instance="well"}', "77x5 78x25"),
        ('tollgate_config_hash{job="u", instance="other"}', "79x30"),
        ('tollgate_webhook_deliveries_total{job="t", result="failed"}', "0+1x30"),
        ('tollgate_webhook_deliveries_total{job="u", result="delivered"}', "0+1x30"),
        ('tollgate_counting_seconds_bucket{job="t", le="0.1"}', "0+50x30"),
        ('tollgate_counting_seconds_bucket{job="t", le="0.5"}', "0+100x30"),
        ('tollgate_counting_seconds_bucket{job="t", le="+Inf"}', "0+100x30"),
        *drifting("low", more=30, less=0),
        *drifting("high", more=0, less=30),
        *drifting("even", more=30, less=29),
    ]

    def expect(at: str, name: str, *fired: dict[str, str]) -> dict[str, Any]:
        alert = next(each for each in ALERTS if each["alert"] == name)
        return {"eval_time": at, "alertname": name, "exp_alerts": [expected(alert, labels) for labels in fired]}

    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series],
                "alert_rule_test": [
                    expect("30s", "TollgateStoreLost"),
                    expect("3m", "TollgateStoreLost", {"instance": "lost"}),
                    expect("20m", "TollgateBudgetRefuses", {"budget": "main"}),
                    expect("15m", "TollgateUpstreamFails", {"upstream": "bad"}),
                    expect("15m", "TollgateFails", {}),
                    expect("15m", "TollgateDecidesWithoutStore", {"mode": "allow"}),
                    expect("4m", "TollgateConfigRefused"),
                    expect("7m", "TollgateConfigRefused", {"instance": "lost"}),
                    expect("15m", "TollgateConfigsDiffer"),
                    expect("25m", "TollgateConfigsDiffer", {}),
                    expect("15m", "TollgateSlow", {}),
                    expect("15m", "TollgateWebhookUnreachable", {}),
                    expect(
                        "2h", "TollgateCountsDrift", *({"upstream": "own", "family": each} for each in ("high", "low"))
                    ),
                ],
            }
        ],
    }
    checks = test["tests"][0]["alert_rule_test"]  # type: ignore[index]
    assert {each["alertname"] for each in checks if each["exp_alerts"]} == {alert["alert"] for alert in ALERTS}
    file = tmp_path / "alerts_test.yml"
    await asyncio.to_thread(file.write_text, yaml.safe_dump(test))
    status, said = await promtool("test", "rules", str(file))
    assert status == 0, said


async def test_dashboard_and_alerts_ask_only_for_metrics_that_are_exported(start_gateway: StartGateway) -> None:
    text = await exported(await busy_gateway(start_gateway, metrics={"most_keys": 5}))
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    # A histogram with negative buckets has no sum: only what is seen as a sample is there.
    seen = set(re.findall(r"^(\w+)[ {]", text, re.MULTILINE))
    names = {name for name, kind in kinds.items() if kind != "histogram"} | seen
    variables = [each["query"] for each in DASHBOARD["templating"]["list"]]
    asked = {name for query in [*queries(), *variables] for name in re.findall(r"\b(?:tollgate|gen_ai)_\w+", query)}
    asked = {name for name in asked if not re.fullmatch(r"gen_ai_(request_model|token_type)", name)}
    assert len(asked) > 10
    assert asked <= names


async def test_tokens_and_times_follow_the_genai_conventions(start_gateway: StartGateway) -> None:
    text = await exported(await busy_gateway(start_gateway))
    labels = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "gen_ai_request_model": "gpt-4o"}
    assert value(text, "gen_ai_client_token_usage_count", **labels, gen_ai_token_type="input") == 2
    output = value(text, "gen_ai_client_token_usage_sum", **labels, gen_ai_token_type="output")
    assert output == value(text, "tollgate_tokens_total", kind="output") > 0
    assert value(text, "gen_ai_server_request_duration_seconds_count", **labels, error_type="") == 2
    assert value(text, "gen_ai_server_request_duration_seconds_count", error_type="request_exceeds_budget") == 1
    assert value(text, "gen_ai_server_time_to_first_token_seconds_count", **labels) == 2
    assert {provider(fmt.name) for fmt in FORMATS} == {
        "openai", "anthropic", "gcp.gemini", "aws.bedrock", "cohere", "ollama"
    }  # fmt: skip


async def test_models_beyond_the_bound_count_as_other(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config_for(metrics={"most_models": 2}))
    for model in ("gpt-4o", "gpt-4o-mini", "gpt-4o-2024-08-06", "gpt-4-turbo"):
        response, _ = await gateway.post("/v1/chat/completions", {**CHAT, "model": model})
        assert response.status == 200
    text = await exported(gateway)
    models = set(re.findall(r'gen_ai_request_model="([^"]*)"', text))
    assert models == {"gpt-4o", "gpt-4o-mini", OTHER}
    assert value(text, "gen_ai_client_token_usage_count", gen_ai_request_model=OTHER, gen_ai_token_type="input") == 2


async def test_nothing_that_callers_invent_makes_series_without_end(start_gateway: StartGateway) -> None:
    budgets = [{"name": "main", "each": "key", "limits": [{"tokens": 100_000, "per": "day"}], "warn_at": ["1%"]}]
    gateway = await start_gateway(config_for(budgets=budgets, metrics={"most_models": 2, "most_keys": 1}))

    async def invent(word: str) -> None:
        named = {**CHAT, "model": f"gpt-4o-{word}", "user": word, "metadata": {"x": word}}
        await gateway.post("/v1/chat/completions", named)
        await gateway.post("/v1/chat/completions", {**CHAT, "model": word})
        await gateway.post("/v1/chat/completions", CHAT, key=f"sk-{word}")
        await gateway.post(f"/v1/{word}/chat/completions", CHAT, headers={"X-Word": word, "User-Agent": word})
        await gateway.post(f"/v1beta/models/{word}:generateContent", {"contents": []})
        await gateway.get(f"/{word}?{word}={word}")

    for word in ("ONE", "TWO", "THREE"):
        await invent(word)
    await exported(gateway)  # this request is counted too
    before = series(await exported(gateway))
    assert not [each for each in before if "_created" in each]
    for letter in ascii_uppercase:
        await invent(letter * 5)
    assert series(await exported(gateway)) == before


def series(text: str) -> set[str]:
    """Names and labels of all samples."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


async def test_keys_are_in_metrics_only_when_asked_for_and_bounded(start_gateway: StartGateway) -> None:
    assert "alice" not in await exported(await busy_gateway(start_gateway))
    named = await exported(await busy_gateway(start_gateway, metrics={"most_keys": 1}))
    assert value(named, "tollgate_key_tokens_total", key_id="alice", kind="output") > 0


def test_known_names_stay_known_when_the_bound_is_met() -> None:
    known = Known(1)
    assert [known.label(name) for name in ("a", "b", "a", "c")] == ["a", OTHER, "a", OTHER]


class LostStore:
    """A store behind a broken connection."""

    def aligned(self, now: float) -> float:
        return now

    async def beat(self, owner: str, *, now: float) -> None:
        raise StoreLost("redis at 127.0.0.1:1 does not answer")


async def test_a_lost_store_is_seen_in_the_metrics(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    engine = gateway.runtime.engine
    assert "tollgate_store_up 1.0" in await exported(gateway)
    working, engine.store = engine.store, LostStore()
    await engine.sweep(now=gateway.runtime.clock())
    engine.store = working
    assert "tollgate_store_up 0.0" in await exported(gateway)
