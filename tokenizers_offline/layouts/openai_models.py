"""How OpenAI's model generations differ in what a prompt costs.

All figures were measured: recorded calls of 23 public projects (2023-2026) against the `usage` OpenAI reported
for them. OpenAI publishes only the first of them (3 tokens a message, 1 a name, 3 for the reply) in its cookbook.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Generation:
    """The constants of one generation of models.

    `reply`: tokens that open the answer. `apart`: tools stand in a message of their own in chat completions (else
    they follow the first system message). `tools_chat`: what that message costs besides its text.
    `tools_responses`: the same in the responses API. `call_chat`, `call_responses`: what a tool call and its
    result cost besides their texts. `history`: extra for each assistant text in chat history. `named`: a named
    `tool_choice` besides the name; None where it costs nothing. `schema_responses`: a JSON schema in the responses
    API besides its text. `keyword`: a JSON schema keyword shown as a comment of its own (``minimum``, ``format``).
    """

    reply: int = 3
    apart: bool = False
    tools_chat: int = 3
    tools_responses: int = -3
    bare_tool: int = 0
    call_chat: int = 4
    call_responses: int = 11
    history: int = 0
    named: int | None = 7
    schema_responses: int = 3
    keyword: int = 8


_CHAT = Generation()
_REASONING = replace(_CHAT, reply=2, named=None, tools_responses=0, call_responses=17)
_GPT_5 = replace(
    _REASONING,
    apart=True,
    tools_chat=85,
    tools_responses=3,
    bare_tool=-1,
    call_chat=10,
    history=2,
    schema_responses=1,
    keyword=7,
)
_GPT_5_CHAT = replace(_GPT_5, reply=3)
_GPT_5_4 = replace(_GPT_5, call_responses=20)

_GENERATIONS = (
    (re.compile(r"gpt-5(?:\.\d+)?-chat|chatgpt-5"), _GPT_5_CHAT),
    (re.compile(r"gpt-5\.(?:[4-9]|\d\d)|gpt-(?:[6-9]|\d\d)"), _GPT_5_4),
    (re.compile(r"gpt-5|codex-(?!mini)"), _GPT_5),
    (re.compile(r"o\d|codex|computer-use"), _REASONING),
)


def find_generation(model: str) -> Generation:
    """The generation of a bare lower-case model name; GPT-4o's constants for all that came before reasoning."""
    for pattern, generation in _GENERATIONS:
        if pattern.match(model):
            return generation
    return _CHAT
