"""Every API dialect the gateway speaks, and which one a path belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from gateway.formats.anthropic_messages import AnthropicMessages
from gateway.formats.base import RequestFormat, Route
from gateway.formats.bedrock import Bedrock
from gateway.formats.cohere import Cohere
from gateway.formats.gemini import Gemini
from gateway.formats.ollama import Ollama
from gateway.formats.openai_chat import OpenAIChat
from gateway.formats.openai_responses import OpenAIResponses
from gateway.formats.openai_text import OpenAICompletions, OpenAIEmbeddings

FORMATS: tuple[RequestFormat, ...] = (
    OpenAIChat(),
    OpenAIResponses(),
    OpenAICompletions(),
    OpenAIEmbeddings(),
    AnthropicMessages(),
    Gemini(),
    Bedrock(),
    Cohere(),
    Ollama(),
)

_LENIENT = {route.pattern: re.compile(route.pattern.pattern, re.IGNORECASE) for fmt in FORMATS for route in fmt.routes}
"""Some upstreams take a path in capitals for the same: so must the budgets."""


@lru_cache(maxsize=4096)
def match(method: str, path: str) -> tuple[RequestFormat, Route, Mapping[str, str]] | None:
    """The format and route that answer a decoded path, with the path's named groups; None when no format knows it."""
    for fmt in FORMATS:
        for route in fmt.routes:
            found = _LENIENT[route.pattern].search(path) if route.method == method else None
            if found is not None:
                return fmt, route, {name: value for name, value in found.groupdict().items() if value is not None}
    return None
