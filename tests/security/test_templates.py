"""Chat templates run over what strangers wrote: it is text to them, and what they may do is bounded."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.conftest import RunningGateway, StartGateway, config_for
from tests.fakes import FakeUpstream
from tests.tokenizers_offline.layouts.conversations import chat, said
from tokenizers_offline.catalog import Catalog
from tokenizers_offline.layouts.base import ModelSpec
from tokenizers_offline.layouts.jinja import JinjaLayout
from tokenizers_offline.store import TokenizerStore

HOSTILE = (
    "{{ 7*7 }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{% for x in range(10**9) %}x{% endfor %}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}", "{{ self.__init__.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}", "{{ config }}", "{{ messages.append(1) }}", "{#", "{% raw %}",
    "{{ namespace(a=1) }}", "#{7*7}", "${7*7}",
    "<%= 7*7 %>", "{{ 'a' * 10**9 }}", "{{ lipsum.__globals__ }}",
)  # fmt: skip
MODEL = ModelSpec("m", "m", "e", "jinja", options={"bos_token": "<s>", "eos_token": "</s>"})
LAYOUT = JinjaLayout()


@pytest.mark.parametrize("text", HOSTILE)
def test_no_template_of_a_model_runs_what_a_message_says(text: str) -> None:
    """Every installed one, with the text as content, role, name, tool and argument."""
    store = TokenizerStore(_models_dir())
    templates = {model.template: model for model in Catalog.load().models() if model.layout == "jinja"}
    assert len(templates) > 10
    started = time.process_time()
    for name, model in templates.items():
        rendered = LAYOUT.render(chat(said("user", text)), model, template=store.template(name) or "")
        shown = "".join(piece.text for piece in rendered.pieces)
        assert text.strip() in shown, name
        assert "49" not in shown.replace(text, ""), name
        assert "root:" not in shown
    assert time.process_time() - started < 20


def _models_dir() -> Any:
    from tests.conftest import MODELS_DIR

    return MODELS_DIR


@pytest.fixture
async def running(start_gateway: StartGateway, upstream: FakeUpstream) -> RunningGateway:
    return await start_gateway(config_for(upstreams=[{"name": "up", "url": upstream.url}]))


@pytest.mark.parametrize("where", ["role", "name", "tool", "text", "arguments", "call id", "kwargs", "kwargs name"])
async def test_no_field_of_a_request_is_run(running: RunningGateway, where: str) -> None:
    evil = "{{ ''.__class__.__mro__ }}{% for x in range(10**9) %}x{% endfor %}"
    function: dict[str, Any] = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    user: dict[str, Any] = {"role": "user", "content": "Hi"}
    kwargs: dict[str, Any] = {}
    match where:
        case "role":
            user["role"] = evil
        case "name":
            user["name"] = evil
        case "tool":
            function["name"] = evil
        case "text":
            function["description"] = evil
        case "arguments":
            call["function"]["arguments"] = evil  # type: ignore[index]
        case "call id":
            call["id"] = evil
        case "kwargs":
            kwargs = {"enable_thinking": evil, "thinking": [evil], "documents": evil}
        case _:
            kwargs = {
                evil: 1,
                "__class__": 1,
                "raise_exception": "x",
                "range": 5,
                "messages": [],
                "loop": {},
                "namespace": 1,
            }
    body = {
        "model_name": "qwen3-8b",
        "messages": [
            user,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "x"},
        ],
        "tools": [{"type": "function", "function": function}],
        "chat_template_kwargs": kwargs,
    }
    started = time.process_time()
    response, answer = await running.post("/calculate", body)
    assert response.status in (200, 400), answer
    assert time.process_time() - started < 20
    if response.status == 200:
        assert answer["token_count"] < 2000


@pytest.mark.parametrize(
    "template",
    [
        "{% for x in range(10**9) %}x{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{{ messages.__class__ }}",
        "{{ strftime_now.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
    ],
)
def test_a_template_that_reaches_out_gets_nothing(template: str) -> None:
    """Templates come from packages: sandboxed, they are no code."""
    rendered = LAYOUT.render(chat(said("user", "hello")), MODEL, template=template)
    shown = "".join(piece.text for piece in rendered.pieces)
    assert "hello" in shown or shown.strip() in ("", "None")
    for sign in ("root:", "<class", "<module", "__builtins__"):
        assert sign not in shown
