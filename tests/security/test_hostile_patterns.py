"""Inputs that make a pattern, a schema or a search take for ever: each is answered in time."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from fnmatch import translate
from typing import Any

import pytest

from gateway import formats
from gateway.config.quantities import parse_amount, parse_duration, parse_size
from gateway.formats.openai_usage import ChatAnswerReader
from gateway.formats.sse import SseSplitter
from gateway.incoming import tidy
from gateway.logging import render_json
from gateway.settings import UpstreamSettings
from gateway.upstream import Upstream
from policies.matching import _globs
from tests.conftest import KEY, RunningGateway, StartGateway, config_for
from tests.fakes import FakeUpstream
from tokenizers_offline.catalog import Catalog
from tokenizers_offline.prompt import UnknownModel

MOST_S = 5.0
"""CPU time; what grows with the square of these sizes takes minutes."""


def timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


HOSTILE_LINES = (
    "://" * 300_000, "://" + "a:" * 500_000, "://a:" + "b" * 1_000_000, "Bearer " * 150_000,
    "Bearer " + '\\"' * 500_000,
    "sk-" * 300_000, "AIza" * 250_000, "?key=" * 200_000, "hf_" + "a" * 1_000_000, "://" + "@" * 1_000_000,
    "\u202e" * 300_000,
)  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE_LINES, ids=range(len(HOSTILE_LINES)))
def test_a_hostile_line_is_scrubbed_in_time(value: str) -> None:
    assert timed(lambda: render_json(None, "", {"event": "request", "path": value})) < MOST_S


@pytest.mark.parametrize(
    "pattern", ["*a*a*a*a*a*a*a*a*a*b", "*" * 30 + "b", "*?*?*?*?*?*?*?*b", "[a-z]*[a-z]*[a-z]*[a-z]*!"]
)
def test_a_hostile_model_name_is_matched_in_time(pattern: str) -> None:
    name = "a" * 20_000
    upstream = Upstream(UpstreamSettings(name="up", url="http://up", models=(pattern,)), client=None)  # type: ignore[arg-type]
    assert timed(lambda: upstream.serves(format_name=None, model=name)) < MOST_S
    globs = _globs((pattern,), models=True)
    assert globs is not None
    assert timed(lambda: globs(name)) < MOST_S
    assert timed(lambda: re.compile(translate(pattern)).match(name)) < MOST_S


@pytest.mark.parametrize(
    "name", ["a" * 1_000_000, "gpt-" * 250_000, "/" * 1_000_000, "-" * 1_000_000, "gpt-4o:" * 100_000]
)
def test_an_endless_model_name_is_unknown_in_time(name: str) -> None:
    catalog = Catalog.load()

    def resolve() -> None:
        with pytest.raises(UnknownModel) as unknown:
            catalog.resolve(name)
        assert len(str(unknown.value)) < 2000

    assert timed(resolve) < MOST_S


@pytest.mark.parametrize(
    "path",
    [
        "/" * 8000,
        "/." * 4000,
        "/%25" * 2000,
        "/models/" * 1000 + ":",
        "/deployments/" * 600,
        ";" * 8000,
        "/model/" + "a" * 8000,
        "\\" * 8000,
    ],
)
def test_a_hostile_path_is_read_in_time(path: str) -> None:
    def read() -> None:
        formats.match.__wrapped__("POST", tidy("/" + path))

    assert timed(read) < MOST_S


@pytest.mark.parametrize("parse", [parse_amount, parse_duration, parse_size])
@pytest.mark.parametrize("text", ["1" * 100_000, "1_" * 50_000, "1m" * 50_000, "1." * 50_000, " " * 100_000])
def test_a_hostile_quantity_is_read_in_time(parse: Callable[[str], object], text: str) -> None:
    def read() -> None:
        with contextlib.suppress(ValueError):
            parse(text)

    assert timed(read) < MOST_S


@pytest.mark.parametrize("piece", [b"data: x\n", b"data: x\r\n", b"\r", b":", b"x"])
def test_an_event_in_very_many_pieces_is_read_in_time(piece: bytes) -> None:
    def read() -> None:
        splitter = SseSplitter()
        for _ in range(200_000):
            splitter.feed(piece)
        splitter.finish()

    assert timed(read) < MOST_S


@pytest.mark.parametrize(
    "text", [b'"usage": {' * 100_000, b'"usage":{{}' + b"{}" * 500_000, b'"usage"' + b" " * 1_000_000]
)
def test_a_hostile_answer_is_read_in_time(text: bytes) -> None:
    def read() -> None:
        reader = ChatAnswerReader(events=False, failed=False, hide_usage=False)
        reader.feed(text)
        reader.finish()

    assert timed(read) < MOST_S


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema, "b": {"type": "array", "items": {"type": "integer"}}}}
    return schema


SCHEMAS: dict[str, dict[str, Any]] = {
    "ref-to-itself": {"$ref": "#"},
    "ref-loop": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "ref-bomb": {
        "$defs": {
            f"d{at}": {"type": "object", "properties": {c: {"$ref": f"#/$defs/d{at + 1}"} for c in "abcdefgh"}}
            for at in range(30)
        },
        "$ref": "#/$defs/d0",
    },
    "recursive-tree": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
    "deep": _nested(60),
    "wide": {"type": "object", "properties": {f"p{at}": {"type": "string", "enum": ["x"] * 10} for at in range(5000)}},
    "any-of-many": {"anyOf": [{"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}] * 50}}}] * 50},
    "huge-range": {"type": "integer", "minimum": -(10**300), "maximum": 10**300, "multipleOf": 1e-300},
    "enum-of-everything": {"enum": [None, True, 0, 1.5, "a", [], {}, ["\ud800"]]},
}


@pytest.fixture
async def running(start_gateway: StartGateway, upstream: FakeUpstream) -> RunningGateway:
    config = config_for(upstreams=[{"name": "up", "url": upstream.url}])
    config["budgets"][0]["limits"] = [{"tokens": "1T", "per": "day"}]
    return await start_gateway(config)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("model", ["gpt-4o", "qwen3-8b", "claude-sonnet-4-5"])
async def test_a_hostile_schema_is_counted_or_refused_in_time(
    running: RunningGateway, schema: dict[str, Any], model: str
) -> None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "o", "schema": schema}},
    }
    await running.post("/calculate", {"model_name": model, "text": "warm"})
    started = time.process_time()
    response, answer = await running.post("/calculate", {"model_name": body.pop("model"), **body})
    assert response.status in (200, 400), answer
    assert time.process_time() - started < MOST_S
    if response.status == 200:
        assert 0 < answer["token_count"] <= answer["upper_bound"]


async def test_one_hostile_request_holds_up_no_other(running: RunningGateway) -> None:
    """A megabyte of one word is counted on a thread, and the loop goes on."""
    await running.post("/calculate", {"model_name": "gpt-4o", "text": "warm"})
    slow = asyncio.create_task(running.post("/calculate", {"model_name": "gpt-4o", "text": "ab" * 500_000}))
    await asyncio.sleep(0)
    started = time.perf_counter()
    response, _ = await running.get("/budgets", key=KEY)
    assert response.status == 200
    assert time.perf_counter() - started < 10
    assert (await slow)[0].status == 200
