"""The model's own chat template, rendered with its generation prompt as its reference server does.

Templates are data from the tokenizer store, run in jinja2's sandbox with the settings that transformers uses
(trim_blocks, lstrip_blocks, loop controls, ``tojson`` that keeps non-ASCII, ``raise_exception``,
``strftime_now``): 203 of 203 conversations rendered the same. What callers write is only ever a value in a
template, never a template.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tokenizers_offline.layouts.base import ModelSpec, Piece, Rendered
from tokenizers_offline.layouts.conversation import (
    Turn,
    arguments_object,
    arguments_text,
    compact,
    function_of,
    tool_object,
    turns,
)
from tokenizers_offline.layouts.open_models import label, offered_tools, plain_conversation, text_items
from tokenizers_offline.prompt import ChatPrompt, Dialect, MediaPart, Prompt, TextPart, ToolCallPart, ToolSpec

MOST_SYSTEM_TURNS = 100
"""Some templates join system messages by copying them again for each; conversations with more are not rendered."""

_A_DAY = datetime(2026, 11, 23, 12, tzinfo=UTC)
"""Templates print today's date; its tokens are as many on any day, so a layout needs no clock."""

_TEMPLATE_AS_IT_IS = ("", "ollama")
"""Platforms whose prompts are the installed template's: an unknown host, and Ollama, which dates no prompt."""

_PASSED_OPTIONS = ("enable_thinking", "thinking", "clear_thinking", "reasoning_effort")
_OWN_NAMES = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})


class TemplateRefused(Exception):
    """The template called ``raise_exception``: it does not take this conversation."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A compiled template and what a trial run found out about it."""

    template: jinja2.Template
    wants_objects: bool
    """Whether tool arguments must be objects; the rest join them as text."""
    wants_lists: bool
    """Whether contents must be lists of parts."""
    shows_media: bool
    shows_tools: bool
    tells_none: bool
    """Whether an absent content must be None; the rest print the word."""

    def render(self, conversation: list[Turn], tools: list[dict[str, Any]], variables: dict[str, Any]) -> str:
        """The prompt's text. Raises what the template raises."""
        messages = [self._message(turn) for turn in conversation]
        return self.template.render(
            messages=messages, tools=tools or None, add_generation_prompt=True, documents=None, **variables
        )

    def _message(self, turn: Turn) -> dict[str, Any]:
        content: Any = turn.content
        if turn.has_media and self.shows_media:
            content = [_content_item(part) for part in turn.parts]
        elif self.wants_lists:
            content = [{"type": "text", "text": turn.content}]
        elif turn.calls and not turn.content and self.tells_none:
            content = None
        message: dict[str, Any] = {**turn.extra, "role": turn.role, "content": content}
        if turn.reasoning:
            message["reasoning_content"] = turn.reasoning
        if turn.calls:
            message["tool_calls"] = [self._call(call) for call in turn.calls]
        if turn.call_id:
            message["tool_call_id"] = turn.call_id
        if turn.name:
            message["name"] = turn.name
        return message

    def _call(self, call: ToolCallPart) -> dict[str, Any]:
        arguments = arguments_object(call) if self.wants_objects else arguments_text(call)
        return {"type": "function", "id": call.call_id, "function": {"name": call.name, "arguments": arguments}}


class JinjaLayout:
    """`Layout` of every model that comes with a chat template."""

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        if not isinstance(prompt, ChatPrompt):
            return text_items(prompt, model)
        conversation = turns(prompt)
        if not template:
            return plain_conversation(prompt, conversation, model, "The model's chat template is not installed.")
        if sum(turn.role == "system" for turn in conversation) > MOST_SYSTEM_TURNS:
            return plain_conversation(prompt, conversation, model, f"More than {MOST_SYSTEM_TURNS} system messages.")
        try:
            chat_template = compile_template(template, compact=platform == "ollama" or prompt.dialect is Dialect.OLLAMA)
            tools = offered_tools(prompt)
            text = chat_template.render(
                conversation, [_shape(tool, model) for tool in tools], _variables(prompt, model)
            )
        except Exception as error:
            return plain_conversation(prompt, conversation, model, f"The chat template failed: {_reason(error)}.")
        unseen_tools = tools if not chat_template.shows_tools else ()
        tokens = _option(model, "extra_tokens") + (_option(model, "tools_tokens") if tools else 0)
        if platform not in _TEMPLATE_AS_IT_IS:
            has_system = any(turn.role == "system" for turn in conversation)
            tokens += _option(model, "host_tokens_with_system" if has_system else "host_tokens")
        return label(prompt, [Piece(text, specials=True)], model, tokens=tokens, unseen_tools=unseen_tools)


@lru_cache(maxsize=128)
def compile_template(source: str, *, compact: bool = False) -> ChatTemplate:
    """Compile a template once and try it out. Raises `jinja2.TemplateError` when it is not one.

    `compact`: JSON is printed without blanks, as servers written in Go do (Ollama).
    """
    template = (_COMPACT_ENVIRONMENT if compact else _ENVIRONMENT).from_string(source)
    draft = ChatTemplate(
        template,
        wants_objects=True,
        wants_lists=False,
        shows_media="image" in source,
        shows_tools="tools" in source,
        tells_none="is none" in source or "is not none" in source,
    )
    if not _renders(draft, _QUESTION) and _renders(replace(draft, wants_lists=True), _QUESTION):
        draft = replace(draft, wants_lists=True)
    shapes = ((True, draft.tells_none), (False, draft.tells_none), (True, False), (False, False))
    drafts = [replace(draft, wants_objects=objects, tells_none=tells) for objects, tells in shapes]
    return next((tried for tried in drafts if _renders(tried, _CALL)), draft)


_QUESTION = [Turn("user", "question")]
_CALL = [
    *_QUESTION,
    Turn("assistant", "", calls=(ToolCallPart("probe", '{"a": 1}', call_id="abcdefghi"),)),
    Turn("tool", "answer", call_id="abcdefghi", name="probe"),
]
"""What a template is tried out with; nine letters are the only call ids Mistral's takes."""


def _renders(template: ChatTemplate, conversation: list[Turn]) -> bool:
    probe = tool_object(ToolSpec("probe", "a probe", {"type": "object", "properties": {}}))
    try:
        template.render(conversation, [probe], {"bos_token": "", "eos_token": ""})
    except Exception:
        return False
    return True


def _option(model: ModelSpec, name: str) -> int:
    return int(model.options.get(name, 0))


def _shape(tool: ToolSpec, model: ModelSpec) -> dict[str, Any]:
    """A tool as the model's servers hand it to the template; SGLang, unlike vLLM, cuts the wrapper off."""
    match model.options.get("tool_shape"):
        case "function":
            return function_of(tool)
        case "wrapped":
            return {"function": function_of(tool)}
        case _:
            return tool_object(tool)


def _variables(prompt: ChatPrompt, model: ModelSpec) -> dict[str, Any]:
    variables: dict[str, Any] = {"bos_token": "", "eos_token": ""}
    variables.update({k: v for k, v in model.options.items() if k in ("bos_token", "eos_token", *_PASSED_OPTIONS)})
    variables.update({k: prompt.options[k] for k in _PASSED_OPTIONS if k in prompt.options})
    given = prompt.options.get("chat_template_kwargs")
    if isinstance(given, dict):
        variables.update({k: v for k, v in given.items() if isinstance(k, str) and k not in _OWN_NAMES})
    if prompt.thinking is not None and "enable_thinking" not in variables:  # Z.ai: {"type": "enabled" | "disabled"}
        variables["enable_thinking"] = prompt.thinking.get("type") != "disabled"
    return variables


def _content_item(part: TextPart | MediaPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = "image" if part.kind == "document" else part.kind
    return {"type": kind, kind: part.url or ""}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"


def _raise_exception(message: str) -> str:
    raise TemplateRefused(message)


def _strftime_now(form: str) -> str:
    return _A_DAY.strftime(form)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Generation(Extension):
    """``{% generation %}``: templates mark answers with it for training; for a prompt it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it a variable of instances

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_PLAIN: dict[type, Any] = {str: "", int: 0, bool: False, dict: {}, list: [], tuple: (), Namespace: Namespace()}
"""The values templates mostly handle, with an example of each: what is safe on them, their type alone decides."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's own rules, remembered for plain values: templates ask three times and more for each message."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        kind: Any = type(obj)
        return _is_safe_on(kind, attr) if kind in _PLAIN else super().is_safe_attribute(obj, attr, value)


@lru_cache(maxsize=1024)
def _is_safe_on(kind: Any, attribute: str) -> bool:
    return ImmutableSandboxedEnvironment().is_safe_attribute(_PLAIN[kind], attribute, None)


def _environment(tojson: Callable[..., str]) -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
    environment.filters["tojson"] = tojson
    functions: dict[str, Callable[..., Any]] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.globals.update(functions)
    return environment


_ENVIRONMENT = _environment(_tojson)
_COMPACT_ENVIRONMENT = _environment(lambda value, **_: compact(value))
