"""A few hundred inputs of every kind in each run of the tests, the same ones every time; and those once found."""

from __future__ import annotations

import json

import pytest

from gateway import formats
from gateway.errors import BadRequest
from gateway.formats.anthropic_messages import lower_cap
from gateway.formats.base import Call
from gateway.incoming import tidy
from gateway.logging import render_json
from tests.conftest import RunningGateway, StartGateway, config_for
from tests.fakes import FakeUpstream
from tests.fuzz.mutation import Seeded
from tests.fuzz.targets import TARGETS
from tokenizers_offline.prompt import TextPrompt

INPUTS = {"bodies": 150, "prompts": 12, "configs": 25, "access_lines": 150, "files": 300}


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_lets_out_more_than_its_callers_are_promised(name: str) -> None:
    for seed in range(INPUTS.get(name, 800)):
        TARGETS[name](Seeded(seed))


@pytest.mark.parametrize("messages", [5, "Hi", [None], [{"content": [5]}], [{"content": 5}], {"a": 1}])
def test_a_cap_is_written_into_an_invoke_body_whose_messages_are_no_list(messages: object) -> None:
    bedrock = next(fmt for fmt in formats.FORMATS if fmt.name == "bedrock")
    body = {"prompt": "Hi", "messages": messages}
    call = Call(format="bedrock", kind="generate", model="meta.llama3", prompt=TextPrompt(("Hi",)), body=body)
    assert json.loads(bedrock.with_output_cap(call, 7))["max_gen_len"] == 7


@pytest.mark.parametrize("budget", ["many", None, 1.5, [], {}, True])
def test_a_thinking_budget_that_is_no_number_is_left_to_the_upstream(budget: object) -> None:
    thinking = {"type": "enabled", "budget_tokens": budget}
    assert lower_cap({"max_tokens": 50, "thinking": thinking}, 7) == {"max_tokens": 7, "thinking": thinking}


async def test_a_body_that_cannot_be_written_again_leaves_no_hold(
    start_gateway: StartGateway, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway: RunningGateway = await start_gateway(
        config_for(upstreams=[{"name": "up", "url": upstream.url}], output_hold="clamp")
    )
    chat = formats.FORMATS[0]

    def fail(*_: object) -> bytes:
        raise ValueError("cannot be written")

    monkeypatch.setattr(type(chat), "with_output_cap", fail)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    response, _ = await gateway.post("/v1/chat/completions", body)
    assert response.status == 500
    budget = await gateway.budget()
    assert (budget["used"], budget["held"]) == (0, 0)
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["../x", "..", "/..", "x/../y", "\\..\\x"])
def test_no_path_climbs_even_one_that_begins_nowhere(path: str) -> None:
    with pytest.raises(BadRequest):
        tidy(path)


def test_a_scrubbed_quote_ends_no_value() -> None:
    line = render_json(None, "", {"event": "request", "path": 'Bearer x","key_id":"admin'})
    assert json.loads(line).keys() == {"event", "path"}
