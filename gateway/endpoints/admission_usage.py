"""The usage that ends an admission: the provider's own block, read by the rules that its answers are read by."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from gateway.formats import FORMATS
from gateway.formats.base import Call, RequestFormat
from gateway.formats.openai_usage import read_chat_usage, read_responses_usage
from policies.usage import Usage
from tokenizers_offline.prompt import TextPrompt

Tokens = Annotated[int, Field(ge=0, le=10**12, strict=True)]


class AdmissionUsage(BaseModel):
    """What the provider reported, in its own words: OpenAI's, Anthropic's or Gemini's."""

    model_config = ConfigDict(extra="ignore")

    input_tokens: Tokens = Field(validation_alias=AliasChoices("input_tokens", "prompt_tokens", "promptTokenCount"))
    output_tokens: Tokens = Field(
        default=0, validation_alias=AliasChoices("output_tokens", "completion_tokens", "candidatesTokenCount")
    )
    thoughts_tokens: Tokens = Field(default=0, validation_alias=AliasChoices("thoughtsTokenCount"))
    cached_tokens: Tokens = 0
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    reasoning_tokens: Tokens = 0


def read_usage(block: dict[str, Any], checked: AdmissionUsage) -> Usage:
    """The usage of a block that has been checked. What is cached or thought may also be named flat."""
    if "promptTokenCount" in block:
        usage = _from_answer("gemini", {"usageMetadata": block})
    elif "prompt_tokens" in block:
        usage = read_chat_usage(block)
    elif "cache_read_input_tokens" in block or "cache_creation_input_tokens" in block:
        usage = _from_answer("anthropic_messages", {"type": "message", "usage": block})
    else:
        usage = read_responses_usage(block)
    if usage is None:
        usage = Usage(checked.input_tokens, checked.output_tokens)
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=max(usage.cached_tokens, min(checked.cached_tokens, usage.input_tokens)),
        reasoning_tokens=max(usage.reasoning_tokens, min(checked.reasoning_tokens, usage.output_tokens)),
    )


def _from_answer(format_name: str, document: dict[str, Any]) -> Usage | None:
    fmt = FORMAT_BY_NAME[format_name]
    call = Call(format=format_name, kind="generate", model="", prompt=TextPrompt(()))
    reader = fmt.usage_reader(call, status=200, content_type="application/json")
    reader.feed(orjson.dumps(document))
    reader.finish()
    return reader.usage


FORMAT_BY_NAME: dict[str, RequestFormat] = {fmt.name: fmt for fmt in FORMATS}
