"""Every layout by the name that `catalog.yaml` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tokenizers_offline.layouts.anthropic import AnthropicLayout
from tokenizers_offline.layouts.base import Layout
from tokenizers_offline.layouts.deepseek import V3_2, V4, DeepSeekLayout
from tokenizers_offline.layouts.gemini import GeminiLayout
from tokenizers_offline.layouts.harmony import HarmonyLayout
from tokenizers_offline.layouts.jinja import JinjaLayout
from tokenizers_offline.layouts.markup import MARKUPS, MarkupLayout
from tokenizers_offline.layouts.mistral import MistralLayout
from tokenizers_offline.layouts.openai import OpenAILayout
from tokenizers_offline.layouts.plain import PlainLayout

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "openai": OpenAILayout(),
        "anthropic": AnthropicLayout(),
        "gemini": GeminiLayout(),
        "jinja": JinjaLayout(),
        "harmony": HarmonyLayout(),
        "deepseek-v3.2": DeepSeekLayout(V3_2),
        "deepseek-v4": DeepSeekLayout(V4),
        "mistral-tekken": MistralLayout(),
        "plain": PlainLayout(),
        **{name: MarkupLayout(markup) for name, markup in MARKUPS.items()},
    }
)
