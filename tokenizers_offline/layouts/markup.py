"""Layouts of families that come without a chat template, as data: what stands around each role's text.

Sources are the makers' own published chat code or model cards, named beside each entry. Where that code encodes every
stretch of text by itself (ChatGLM 3, Baichuan 2), so does the layout; elsewhere the conversation is one text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from tokenizers_offline.layouts.base import ModelSpec, Piece, Rendered
from tokenizers_offline.layouts.conversation import Turn, arguments_text, spaced, tool_object, turns
from tokenizers_offline.layouts.open_models import label, offered_tools, text_items
from tokenizers_offline.prompt import ChatPrompt, Prompt


@dataclass(frozen=True, slots=True)
class Markup:
    """What stands before and after each role's text. A role that is missing is written as the user's.

    Without a system role, the system text goes in front of the first user text, between the two `system_inside`.
    `start_tokens`, `role_tokens`, `generation_tokens` count special tokens that are added as ids, not as text;
    the roles in `without_id` have none. `apart`: each stretch is encoded by itself.
    `default_system_tokens` is what a default system text costs when the caller gives none. `tools` stands around
    the JSON list of functions; None: the family's own prompt has no place for functions.
    """

    roles: Mapping[str, tuple[str, str]]
    start: str = ""
    generation: str = ""
    system_inside: tuple[str, str] = ("", "\n\n")
    strip: bool = False
    apart: bool = False
    start_tokens: int = 0
    role_tokens: int = 0
    without_id: frozenset[str] = frozenset()
    generation_tokens: int = 0
    default_system_tokens: int = 0
    tools: tuple[str, str] | None = None


def _each_role(before: str, after: str) -> Mapping[str, tuple[str, str]]:
    roles = ("system", "user", "assistant", "tool")
    return MappingProxyType({role: (before.replace("ROLE", role), after) for role in roles})


_DEEPSEEK_ROLES = {
    "system": ("", "\n\n"),
    "user": ("User: ", "\n\n"),
    "assistant": ("Assistant: ", "<｜end▁of▁sentence｜>"),
}

MARKUPS: Mapping[str, Markup] = {
    # Qwen's, Yi's and Nous Hermes' model cards.
    "chatml": Markup(_each_role("<|im_start|>ROLE\n", "<|im_end|>\n"), generation="<|im_start|>assistant\n"),
    # Meta's llama repository (chat_completion); the system text stands inside the first user turn.
    "llama-2": Markup(
        {"user": ("<s>[INST] ", " [/INST]"), "assistant": (" ", " </s>")},
        system_inside=("<<SYS>>\n", "\n<</SYS>>\n\n"),
        strip=True,
    ),
    # Meta's llama-models prompt format for Llama 4.
    "llama-4": Markup(
        {
            **_each_role("<|header_start|>ROLE<|header_end|>\n\n", "<|eot|>"),
            "tool": ("<|header_start|>ipython<|header_end|>\n\n", "<|eot|>"),
        },
        start="<|begin_of_text|>",
        generation="<|header_start|>assistant<|header_end|>\n\n",
        strip=True,
    ),
    # Google's Gemma formatting guide: no system role.
    "gemma": Markup(
        {
            "user": ("<start_of_turn>user\n", "<end_of_turn>\n"),
            "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n"),
        },
        start="<bos>",
        generation="<start_of_turn>model\n",
        strip=True,
    ),
    # DeepSeek LLM's model card; DeepSeek MoE shares it.
    "deepseek-llm": Markup(_DEEPSEEK_ROLES, start="<｜begin▁of▁sentence｜>", generation="Assistant:"),
    # DeepSeek Coder's model card. Its default system text is 57 tokens long (55 with the vocabulary of v1.5).
    "deepseek-coder": Markup(
        {
            "system": ("", "\n"),
            "user": ("### Instruction:\n", "\n"),
            "assistant": ("### Response:\n", "\n<|EOT|>\n"),
        },
        start="<｜begin▁of▁sentence｜>",
        generation="### Response:\n",
        default_system_tokens=57,
    ),
    # Cohere's prompting guide for Command R.
    "command-r": Markup(
        {
            "system": ("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            "user": ("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            "assistant": ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        },
        start="<BOS_TOKEN>",
        generation="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    # Moonshot's tokenizer_config of Kimi K2. Its default system text costs 18 tokens, markers included.
    "kimi": Markup(
        {
            "system": ("<|im_system|>system<|im_middle|>", "<|im_end|>"),
            "user": ("<|im_user|>user<|im_middle|>", "<|im_end|>"),
            "assistant": ("<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"),
            "tool": ("<|im_system|>tool<|im_middle|>", "<|im_end|>"),
        },
        generation="<|im_assistant|>assistant<|im_middle|>",
        default_system_tokens=18,
        tools=("<|im_system|>tool_declare<|im_middle|>", "<|im_end|>"),
    ),
    # ChatGLM 3's tokenization_chatglm.build_single_message: the role's id, a line end by itself, the text by itself.
    "chatglm3": Markup(
        dict.fromkeys(("system", "user", "assistant", "tool"), ("\n", "")),
        apart=True,
        start_tokens=2,
        role_tokens=1,
        generation_tokens=1,
    ),
    # ChatGLM 1 and 2: rounds written out as text, two special tokens around.
    "chatglm2": Markup(
        {"user": ("[Round 1]\n\n问：", "\n\n"), "assistant": ("答：", "\n\n")}, generation="答：", start_tokens=2
    ),
    # Baichuan 2's generation_utils.build_chat_input: the role's id, then the text by itself; a system text has no id.
    "baichuan2": Markup(
        {"system": ("", ""), "user": ("", ""), "assistant": ("", "")},
        apart=True,
        role_tokens=1,
        without_id=frozenset({"system"}),
        generation_tokens=1,
    ),
    # Mistral's instruct models of the first tokenizer.
    "mistral-v1": Markup({"user": (" [INST] ", " [/INST]"), "assistant": (" ", "</s>")}, start="<s>", strip=True),
}


class MarkupLayout:
    """`Layout` of a family described by a `Markup`."""

    def __init__(self, markup: Markup) -> None:
        self._markup = markup

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        if not isinstance(prompt, ChatPrompt):
            return text_items(prompt, model)
        conversation = turns(prompt)
        markup = self._markup
        tokens = markup.start_tokens + markup.generation_tokens
        default_system = str(model.options.get("default_system", ""))
        if not any(turn.role == "system" for turn in conversation):
            if default_system:
                conversation.insert(0, Turn("system", default_system))
            tokens += int(model.options.get("default_system_tokens", markup.default_system_tokens))
        if "system" not in markup.roles:
            conversation = list(self._with_system_inside(conversation))
        tokens += markup.role_tokens * sum(turn.role not in markup.without_id for turn in conversation)
        offered = offered_tools(prompt)
        shown = ""
        if markup.tools and offered:
            before, after = markup.tools
            shown = f"{before}{spaced([tool_object(tool) for tool in offered])}{after}"
            offered = ()
        stretches = [markup.start, shown, *self._stretches(conversation), markup.generation]
        if markup.apart:
            pieces = [Piece(text, specials=True) for text in stretches if text]
        else:
            pieces = [Piece("".join(stretches), specials=True)]
        return label(prompt, pieces, model, tokens=tokens, unseen_tools=offered)

    def _stretches(self, conversation: list[Turn]) -> Iterator[str]:
        markup = self._markup
        for turn in conversation:
            before, after = markup.roles.get(turn.role) or markup.roles["user"]
            yield before
            yield turn.content.strip() if markup.strip else turn.content
            for call in turn.calls:
                yield f'{{"name": "{call.name}", "arguments": {arguments_text(call)}}}'
            yield after

    def _with_system_inside(self, conversation: list[Turn]) -> Iterator[Turn]:
        """The system text in front of the first user text."""
        before, after = self._markup.system_inside
        system = "\n\n".join(turn.content for turn in conversation if turn.role == "system")
        for turn in conversation:
            if turn.role == "system":
                continue
            if system and turn.role != "assistant":
                yield replace(turn, content=f"{before}{system}{after}{turn.content}")
                system = ""
            else:
                yield turn
        if system:
            yield Turn("user", f"{before}{system}")
