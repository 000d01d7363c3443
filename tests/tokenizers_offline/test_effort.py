"""What laying a prompt out will take, told before it is done."""

from __future__ import annotations

from typing import Any

import pytest

from tokenizers_offline.counter import MOST_LAYOUT_US
from tokenizers_offline.effort import layout_us
from tokenizers_offline.prompt import (
    ChatPrompt,
    Dialect,
    MediaPart,
    Message,
    OpaquePart,
    OutputSchema,
    Part,
    TextPart,
    TextPrompt,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)


def chat(*parts: Part, messages: int = 1, **more: Any) -> ChatPrompt:
    return ChatPrompt(Dialect.OPENAI_CHAT, (Message("user", parts),) * messages, **more)


def cost(prompt: ChatPrompt | TextPrompt, layout: str = "openai") -> float:
    return layout_us(prompt, layout, enough=MOST_LAYOUT_US)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


SELF_REFERENCE = {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}}


@pytest.mark.parametrize("layout", ["openai", "anthropic", "gemini", "jinja", "harmony"])
def test_small_prompts_are_laid_out_at_once(layout: str) -> None:
    tool = ToolSpec("f", "d", {"type": "object", "properties": {"a": {"type": "string"}}})
    assert cost(chat(TextPart("a" * 1000), messages=10, tools=(tool,)), layout) < MOST_LAYOUT_US
    assert cost(TextPrompt(("a" * 1_000_000,)), layout) == 0


@pytest.mark.parametrize(
    "prompt",
    [
        chat(TextPart("hi"), messages=10_000),
        chat(TextPart("a" * 20_000_000)),
        chat(MediaPart("document", media_type="application/pdf", data="JVBERi0=")),
        chat(ToolCallPart("f", '{"a": "' + "b" * 500_000 + '"}')),
        chat(ToolResultPart((TextPart("x"),), response={"a": ["b"] * 100_000})),
        chat(ThinkingPart("a" * 20_000_000)),
        chat(OpaquePart("search_result", {"text": "a" * 500_000})),
        chat(TextPart("hi"), tools=(ToolSpec("f", None, SELF_REFERENCE),)),
        chat(TextPart("hi"), output_schema=OutputSchema(SELF_REFERENCE)),
        chat(TextPart("hi"), tools=(ToolSpec("f", None, nested(400)),)),
        chat(TextPart("hi"), tools=(ToolSpec("f", None, {"type": "object", "properties": {"a": {}}}),) * 9000),
    ],
    ids=["messages", "text", "pdf", "call", "result", "thoughts", "opaque", "bomb", "output", "nested", "tools"],
)
def test_large_prompts_are_laid_out_in_a_thread(prompt: ChatPrompt) -> None:
    assert cost(prompt) > MOST_LAYOUT_US


def test_templates_cost_more_a_message() -> None:
    prompt = chat(TextPart("hi"), messages=400)
    assert cost(prompt) < MOST_LAYOUT_US < cost(prompt, "jinja")


def test_images_are_read_at_once() -> None:
    assert cost(chat(MediaPart("image", data="AAAA"), messages=10)) < MOST_LAYOUT_US
