"""Mistral's instruct format of the tekken tokenizer, as the maker's mistral-common package writes it.

The control tokens are counted as one token each: only the later vocabularies spell all of them.
"""

from __future__ import annotations

import re

from tokenizers_offline.layouts.base import ModelSpec, Piece, Rendered
from tokenizers_offline.layouts.conversation import Turn, arguments_text, function_of, spaced, turns
from tokenizers_offline.layouts.open_models import label, offered_tools, text_items
from tokenizers_offline.prompt import ChatPrompt, Prompt, ToolSpec

NAMED_TOOL_TOKENS = 4
"""What naming the tool to call costs on Mistral's own service (22 of 25 recorded calls)."""

# The models of the v3 tekken tokenizer: the system text goes in front of the last user text.
_SYSTEM_INSIDE = re.compile(r"nemo|pixtral-12b|ministral-\db-24|ministral-(?:3|8)b-2410")


class MistralLayout:
    """`Layout` of Mistral models since Nemo."""

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        if not isinstance(prompt, ChatPrompt):
            return text_items(prompt, model)
        conversation = turns(prompt)
        tools = offered_tools(prompt)
        inside = _SYSTEM_INSIDE.search(str(model.options.get("bare_name", ""))) is not None
        tokens = 1  # <s>
        pieces: list[Piece] = []
        system = "\n\n".join(turn.content for turn in conversation if turn.role == "system")
        if system and not inside:
            pieces.append(Piece(system))
            tokens += 2  # [SYSTEM_PROMPT] [/SYSTEM_PROMPT]
        if tools:
            pieces.append(Piece(spaced([_declaration(tool) for tool in tools])))
            tokens += 2  # [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS]
            if prompt.tool_choice is not None and prompt.tool_choice.mode == "named":
                tokens += NAMED_TOOL_TOKENS
        last_user = max((i for i, turn in enumerate(conversation) if turn.role == "user"), default=-1)
        for index, turn in enumerate(conversation):
            if turn.role == "system":
                continue
            prefix = f"{system}\n\n" if system and inside and index == last_user else ""
            tokens += _write(turn, pieces, prefix=prefix)
        return label(prompt, pieces, model, tokens=tokens)


def _declaration(tool: ToolSpec) -> dict[str, object]:
    function = function_of(tool)
    return {
        "type": "function",
        "function": {
            "name": function["name"],
            "description": function.get("description", ""),
            "parameters": function.get("parameters", {}),
        },
    }


def _write(turn: Turn, pieces: list[Piece], *, prefix: str) -> int:
    """Add a turn's text; the answer is its control tokens."""
    if turn.role == "assistant":
        pieces += [Piece(text) for text in (turn.reasoning, turn.content) if text]
        tokens = 1  # </s>
        for call in turn.calls:  # [TOOL_CALLS] name [ARGS] arguments
            pieces += [Piece(call.name), Piece(arguments_text(call))]
            tokens += 2
        return tokens
    if turn.role == "tool":
        pieces.append(Piece(turn.content))
        return 2  # [TOOL_RESULTS] [/TOOL_RESULTS]
    pieces.append(Piece(prefix + turn.content))
    return 2  # [INST] [/INST]
