"""The layout of OpenAI's models: picks the rules of the API a prompt came in through."""

from __future__ import annotations

import re
from functools import lru_cache

from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.openai_chat import add_chat
from tokenizers_offline.layouts.openai_models import find_generation
from tokenizers_offline.layouts.openai_responses import add_responses
from tokenizers_offline.layouts.openai_tally import Tally
from tokenizers_offline.prompt import Accuracy, ChatPrompt, Dialect, Prompt, TextPrompt

_OWN_NAME = re.compile(r"(?:chatgpt|codex|computer-use|davinci|babbage|gpt|o\d|text)")
_ROUTES_TO_RESPONSES = ("openrouter", "vercel")
_SERVER_TOOL_TOKENS = 500
_SELDOM_SEEN = re.compile(r"o1-(?:mini|preview)|computer-use|gpt-4\.5")
_BEFORE_RESPONSES = re.compile(r"gpt-(?:3\.?5|4(?:-|$))")
"""Models older than the responses API, which few call through it."""


class OpenAILayout:
    """Chat completions, responses, completions and embeddings of OpenAI's models, wherever they are served."""

    def render(self, prompt: Prompt, model: ModelSpec, *, platform: str = "", template: str = "") -> Rendered:
        tally = Tally()
        if isinstance(prompt, TextPrompt):
            _add_texts(tally, prompt)
            return tally.render()
        name = _bare_name(model.name, model.family)
        generation = find_generation(name)
        through_responses = _is_responses(prompt, name, platform)
        if through_responses:
            add_responses(tally, prompt, name, generation)
        else:
            add_chat(tally, prompt, name, generation)
        _add_unknowable(tally, prompt)
        if _is_seldom_seen(name, through_responses):
            tally.doubt("This model was seen in few bills through this API.", extra=4)
        return tally.render()


@lru_cache(maxsize=1024)
def _bare_name(model: str, family: str) -> str:
    """The maker's own name: without the host's prefixes, and the family's for names made up in the config."""
    name = model.lower().removeprefix("ft:").rsplit("/", 1)[-1].removeprefix("openai.")
    return name if _OWN_NAME.match(name) else family.lower()


@lru_cache(maxsize=1024)
def _is_seldom_seen(name: str, through_responses: bool) -> bool:
    return bool(_SELDOM_SEEN.match(name) or (through_responses and _BEFORE_RESPONSES.match(name)))


def _is_responses(prompt: ChatPrompt, name: str, platform: str) -> bool:
    """OpenRouter and Vercel send chat completions for the models from GPT-4.1 on to OpenAI's responses API."""
    if platform in _ROUTES_TO_RESPONSES:
        return not name.startswith(("gpt-3.5", "gpt-4o", "chatgpt-4o", "gpt-4-", "o1")) and name != "gpt-4"
    return prompt.dialect is Dialect.OPENAI_RESPONSES


def _add_texts(tally: Tally, prompt: TextPrompt) -> None:
    tally.add_feature(prompt.purpose)
    for item in prompt.items:
        if isinstance(item, str):
            tally.add_text(item)
        else:
            tally.add_tokens(len(item))
    if prompt.suffix:
        tally.add_text(prompt.suffix)
        tally.doubt("How a suffix joins its prompt is not documented.", extra=16)


def _add_unknowable(tally: Tally, prompt: ChatPrompt) -> None:
    for name in prompt.server_tools:
        tally.add_feature("server_tools")
        tally.add_tokens(_SERVER_TOOL_TOKENS)
        tally.doubt(
            f"The provider's own tool '{name}' adds a prompt and results that cannot be known before the call.",
            factor=2.0,
            extra=8000,
            accuracy=Accuracy.ESTIMATE,
        )
    for name in prompt.unknowable:
        tally.add_feature(name)
        tally.doubt(
            f"What '{name}' refers to is stored by the provider and cannot be counted before the call.",
            factor=2.0,
            extra=16_000,
            accuracy=Accuracy.ESTIMATE,
        )
