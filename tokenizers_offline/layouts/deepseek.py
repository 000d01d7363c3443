"""DeepSeek V3.2 and V4, whose prompts are written by code in the makers' packages and not by a template.

The two share one shape: a start token, the system text with instructions for tools after it, user text and tools'
results behind ``<｜User｜>``, answers behind ``<｜Assistant｜>`` and a thinking marker, calls as DSML blocks. The long
instructions around tools are fixed texts that end in line breaks, so they enter as their token counts, measured once
with the models' own vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tokenizers_offline.layouts.base import ModelSpec, Piece, Rendered
from tokenizers_offline.layouts.conversation import Turn, arguments_object, function_of, spaced, turns
from tokenizers_offline.layouts.open_models import label, offered_tools, text_items
from tokenizers_offline.prompt import ChatPrompt, Dialect, Prompt, ToolCallPart, ToolSpec

_START = "<｜begin▁of▁sentence｜>"
_END = "<｜end▁of▁sentence｜>"
_DSML = "｜DSML｜"


@dataclass(frozen=True, slots=True)
class DeepSeekFormat:
    """What differs between the versions. The token figures exclude the blank lines next to the caller's own text.

    `tools_before_tokens` and `tools_after_tokens` are the instructions before and after the tools' JSON lines,
    `schema_tokens` those before a response format, `effort_tokens` those of the highest reasoning effort.
    """

    block: str
    result: tuple[str, str]
    results: tuple[str, str]
    result_joint: str
    tools_before_tokens: int
    tools_after_tokens: int
    tools_joint: str
    schema_tokens: int
    effort_tokens: int
    results_are_user_text: bool


V3_2 = DeepSeekFormat(
    block="function_calls",
    result=("<result>", "</result>"),
    results=("\n\n<function_results>\n", "\n</function_results>\n\n"),
    result_joint="\n",
    tools_before_tokens=243,
    tools_after_tokens=3,
    tools_joint="\n",
    schema_tokens=15,
    effort_tokens=0,
    results_are_user_text=False,
)
V4 = DeepSeekFormat(
    block="tool_calls",
    result=("<tool_result>", "</tool_result>"),
    results=("", ""),
    result_joint="\n\n",
    tools_before_tokens=203,
    tools_after_tokens=18,
    tools_joint="\n\n",
    schema_tokens=15,
    effort_tokens=79,
    results_are_user_text=True,
)


@dataclass(slots=True)
class _Writer:
    """Collects text and token figures; a figure ends the stretch of text before it."""

    pieces: list[Piece] = field(default_factory=list)
    tokens: int = 0
    text: list[str] = field(default_factory=list)

    def add_tokens(self, tokens: int) -> None:
        if tokens:
            self.flush()
            self.tokens += tokens

    def flush(self) -> None:
        if joined := "".join(self.text):
            self.pieces.append(Piece(joined, specials=True))
        self.text.clear()


class DeepSeekLayout:
    """`Layout` of DeepSeek models with an encoding of their own."""

    def __init__(self, form: DeepSeekFormat) -> None:
        self._form = form

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        if not isinstance(prompt, ChatPrompt):
            return text_items(prompt, model)
        form = self._form
        tools = offered_tools(prompt)
        conversation = turns(prompt)
        thinks = _thinks(prompt, model)
        writer = _Writer()
        writer.text.append(_START)
        # DeepSeek's responses API asks for the highest effort by itself (7 of 7 recorded calls).
        if thinks and (
            prompt.options.get("reasoning_effort") in ("max", "xhigh") or prompt.dialect is Dialect.OPENAI_RESPONSES
        ):
            writer.add_tokens(form.effort_tokens)
        if not conversation or conversation[0].role != "system":
            self._write_extras(writer, prompt, tools)
        last_user = max((i for i, turn in enumerate(conversation) if turn.role == "user"), default=-1)
        for index, turn in enumerate(conversation):
            before = conversation[index - 1] if index else None
            after = conversation[index + 1] if index + 1 < len(conversation) else None
            match turn.role:
                case "system":
                    writer.text.append(turn.content)
                    if index == 0:
                        self._write_extras(writer, prompt, tools)
                case "assistant":
                    keeps_thinking = thinks and (bool(tools) or index > last_user)
                    writer.text += self._answer(turn, keeps_thinking=keeps_thinking)
                case "tool":
                    writer.text += self._result(turn, before, after)
                case _:
                    joined = form.results_are_user_text and before is not None and before.role in ("user", "tool")
                    writer.text += ["\n\n" if joined else "<｜User｜>", turn.content]
            asks = turn.role in ("user", "tool") and (after is None or after.role == "assistant")
            if asks and (form.results_are_user_text or turn.role == "user"):
                writer.text.append("<｜Assistant｜>")
            if asks:
                opens = thinks and (bool(tools) or index >= last_user)
                writer.text.append("<think>" if opens else "</think>")
        writer.flush()
        return label(prompt, writer.pieces, model, tokens=writer.tokens)

    def _write_extras(self, writer: _Writer, prompt: ChatPrompt, tools: tuple[ToolSpec, ...]) -> None:
        """What follows the system text: instructions with the tools, and the response format."""
        form = self._form
        if tools:
            writer.text.append("\n\n")
            writer.add_tokens(form.tools_before_tokens)
            writer.text.append("\n".join(spaced(function_of(tool)) for tool in tools) + form.tools_joint)
            writer.add_tokens(form.tools_after_tokens)
        if prompt.output_schema is not None and prompt.output_schema.schema is not None:
            writer.text.append("\n\n")
            writer.add_tokens(form.schema_tokens)
            writer.text.append(spaced(prompt.output_schema.schema))

    def _answer(self, turn: Turn, *, keeps_thinking: bool) -> Iterator[str]:
        if keeps_thinking:
            yield f"{turn.reasoning}</think>"
        yield turn.content
        if turn.calls:
            block = self._form.block
            yield f"\n\n<{_DSML}{block}>\n"
            yield "\n".join(_invocation(call) for call in turn.calls)
            yield f"\n</{_DSML}{block}>"
        yield _END

    def _result(self, turn: Turn, before: Turn | None, after: Turn | None) -> Iterator[str]:
        form = self._form
        first = before is None or before.role != "tool"
        if form.results_are_user_text:
            yield "<｜User｜>" if first and (before is None or before.role != "user") else form.result_joint
        else:
            yield form.results[0] if first else form.result_joint
        yield f"{form.result[0]}{turn.content}{form.result[1]}"
        if after is None or after.role != "tool":
            yield form.results[1]


def _thinks(prompt: ChatPrompt, model: ModelSpec) -> bool:
    """Whether the request turns thinking on; the markers cost the same either way, kept reasoning does not."""
    if prompt.thinking is not None:
        return prompt.thinking.get("type") != "disabled"
    kwargs = prompt.options.get("chat_template_kwargs")
    if isinstance(kwargs, dict) and "thinking" in kwargs:
        return bool(kwargs["thinking"])
    if prompt.options.get("reasoning_effort") in ("none", "minimal"):
        return False
    return bool(model.options.get("thinking", False))


def _invocation(call: ToolCallPart) -> str:
    arguments = arguments_object(call)
    if not isinstance(arguments, dict):
        arguments = {"arguments": arguments}
    lines = [
        f'<{_DSML}parameter name="{name}" string="{"true" if isinstance(value, str) else "false"}">'
        f"{value if isinstance(value, str) else spaced(value)}</{_DSML}parameter>"
        for name, value in arguments.items()
    ]
    return "\n".join([f'<{_DSML}invoke name="{call.name}">', *lines, f"</{_DSML}invoke>"])
