"""How OpenAI's model generations differ in what a prompt costs.

All figures were measured: recorded calls of 23 public projects (2023-2026) against the `usage` OpenAI reported
for them. OpenAI publishes only the first of them (3 tokens a message, 1 a name, 3 for the reply) in its cookbook.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Generation:
    """The constants of one generation of models.

    `reply`: tokens that open the answer. `heading`: what stands before the first system message when tools follow
    it. `tools_chat`, `tools_responses`: what tools cost in each API besides their text; `bare_tool`: the same for
    each tool without a description. `call_chat`, `call_responses`: what a tool call and its result cost besides
    their texts; `lone_call`: extra in the responses API for a call that was not made in parallel and carries its
    item's id. `merges_calls`: parallel calls are one call of `multi_tool_use.parallel` in chat. `history`: extra
    for each assistant text sent back. `named`: a named `tool_choice` besides the name; None where it costs
    nothing. `schema_responses`: a response schema in the responses API besides its text; `schema_beside_tools`: the
    same when there are tools too. `whole_limits`: bounds in a schema are shown as they came, not as floats.
    """

    reply: int = 3
    heading: str = ""
    tools_chat: int = -1
    tools_responses: int = -3
    bare_tool: int = 0
    call_chat: int = 4
    call_responses: int = 11
    lone_call: int = 3
    merges_calls: bool = True
    history: int = 0
    named: int | None = 7
    schema_responses: int = 1
    schema_beside_tools: int = 3
    whole_limits: bool = False


_CHAT = Generation()
_REASONING = replace(
    _CHAT,
    reply=2,
    named=None,
    tools_responses=0,
    call_responses=17,
    lone_call=0,
    schema_responses=0,
    schema_beside_tools=0,
)
_CODEX_MINI = replace(_REASONING, history=2, tools_responses=1)
_GPT_5 = replace(
    _REASONING,
    heading="# Instructions\n\n",
    tools_chat=81,
    tools_responses=3,
    bare_tool=-1,
    call_chat=10,
    merges_calls=False,
    history=2,
    whole_limits=True,
)
_GPT_5_CHAT = replace(_GPT_5, reply=3)
_GPT_5_4 = replace(_GPT_5, call_responses=20)

_GENERATIONS = (
    (re.compile(r"gpt-5-chat|chatgpt-5"), _GPT_5_CHAT),
    (re.compile(r"gpt-5\.(?:[4-9]|\d\d)|gpt-(?:[6-9]|\d\d)"), _GPT_5_4),
    (re.compile(r"gpt-5|codex-(?!mini)"), _GPT_5),
    (re.compile(r"codex-mini"), _CODEX_MINI),
    (re.compile(r"o\d|computer-use"), _REASONING),
)


@lru_cache(maxsize=1024)
def find_generation(model: str) -> Generation:
    """The generation of a bare lower-case model name; GPT-4o's constants for all that came before reasoning."""
    for pattern, generation in _GENERATIONS:
        if pattern.match(model):
            return generation
    return _CHAT
