"""Harmony, the format of OpenAI's gpt-oss models, as its published guide describes it.

Every conversation opens with a system message the server writes (identity, knowledge cutoff, date, reasoning effort,
channels); the caller's system text and functions form one developer message. The opening is a fixed text and enters
as its token count.
"""

from __future__ import annotations

from tokenizers_offline.layouts.base import ModelSpec, Piece, Rendered
from tokenizers_offline.layouts.conversation import Turn, arguments_text, spaced, turns
from tokenizers_offline.layouts.harmony_tools import render_functions
from tokenizers_offline.layouts.open_models import label, offered_tools, text_items
from tokenizers_offline.prompt import ChatPrompt, Prompt

SYSTEM_TOKENS = 61
"""The server's own system message with a date, markers included."""

FUNCTIONS_CHANNEL_TOKENS = 14
"""One more line in it when there are functions: calls go to the commentary channel."""

GENERATION_TOKENS = 2
"""``<|start|>assistant``."""


class HarmonyLayout:
    """`Layout` of gpt-oss."""

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        if not isinstance(prompt, ChatPrompt):
            return text_items(prompt, model)
        tools = offered_tools(prompt)
        conversation = turns(prompt)
        tokens = SYSTEM_TOKENS + GENERATION_TOKENS + (FUNCTIONS_CHANNEL_TOKENS if tools else 0)
        sections = []
        system = "\n\n".join(turn.content for turn in conversation if turn.role == "system")
        if system:
            sections.append(f"# Instructions\n\n{system}")
        if tools:
            sections.append(f"# Tools\n\n{render_functions(tools)}")
        pieces: list[Piece] = []
        if sections:
            tokens += 4  # <|start|>developer<|message|> ... <|end|>
            pieces.append(Piece("\n\n".join(sections)))
        last_answer = max(
            (i for i, turn in enumerate(conversation) if turn.role == "assistant" and turn.content), default=-1
        )
        for index, turn in enumerate(conversation):
            if turn.role == "system":
                continue
            tokens += self._write(turn, pieces, keeps_thinking=index > last_answer)
        return label(prompt, pieces, model, tokens=tokens)

    def _write(self, turn: Turn, pieces: list[Piece], *, keeps_thinking: bool) -> int:
        """Add a turn's text; the answer is its markers' tokens."""
        if turn.role == "assistant":
            tokens = 0
            if turn.reasoning and keeps_thinking:  # <|start|>assistant<|channel|>analysis<|message|> ... <|end|>
                pieces.append(Piece(turn.reasoning))
                tokens += 6
            if turn.content:  # the same on the final channel
                pieces.append(Piece(turn.content))
                tokens += 6
            for call in turn.calls:
                # <|start|>assistant to=functions.NAME<|channel|>commentary json<|message|> ... <|call|>
                pieces += [Piece(f" to=functions.{call.name}"), Piece(arguments_text(call))]
                tokens += 7
            return tokens
        if turn.role == "tool":
            # <|start|>functions.NAME to=assistant<|channel|>commentary<|message|> ... <|end|>
            pieces += [Piece(f"functions.{turn.name} to=assistant"), Piece(spaced(turn.content))]
            return 5
        pieces.append(Piece(turn.content))
        return 4
