"""Amazon Bedrock's runtime API: Converse, InvokeModel, their streams and CountTokens.

Bedrock signs bodies (SigV4), so only callers with a Bedrock API key (a bearer token) can be told apart, and a body
that the gateway rewrites is accepted by the upstream under its own key only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from gateway.errors import GatewayError
from gateway.formats.anthropic_answer import AnthropicReader
from gateway.formats.anthropic_messages import bearer_token, lower_cap
from gateway.formats.base import Call, Route, UsageReader, retry_headers
from gateway.formats.bedrock_answer import BedrockReader, BedrockStreamReader
from gateway.formats.bedrock_content import read_converse, read_invoke
from gateway.formats.early_end import EarlyEnd
from gateway.formats.fields import Fields, read_object, write_object
from tokenizers_offline.prompt import Prompt, TextPrompt, TokenCount

_EXCEPTIONS = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    413: "ValidationException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
    504: "ModelTimeoutException",
}
"""The error names of the Bedrock Runtime API reference; callers' SDKs raise by them."""

_MODEL = r"/model/(?P<model>.+)"
_CAPS = ("max_tokens", "max_completion_tokens", "max_gen_len", "max_tokens_to_sample")
_NESTED_CAPS = (
    ("inferenceConfig", "maxTokens"),
    ("inferenceConfig", "max_new_tokens"),
    ("textGenerationConfig", "maxTokenCount"),
)


class Bedrock:
    """`RequestFormat` of ``/model/{id}/converse`` and ``/model/{id}/invoke``."""

    name = "bedrock"
    routes = (
        Route("POST", re.compile(_MODEL + r"/converse$"), "generate"),
        Route("POST", re.compile(_MODEL + r"/(?P<stream>converse-stream)$"), "generate"),
        Route("POST", re.compile(_MODEL + r"/(?P<invoke>invoke)$"), "generate"),
        Route("POST", re.compile(_MODEL + r"/(?P<invoke>invoke)-(?P<stream>with-response-stream)$"), "generate"),
        Route("POST", re.compile(_MODEL + r"/count-tokens$"), "count"),
    )

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        return bearer_token(headers) or headers.get("x-api-key")

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        fields = Fields(read_object(body))
        model = path.get("model") or fields.required_text("modelId")
        if route.kind == "count":
            prompt = _read_counted(fields)
            return Call(self.name, "count", model, prompt, output_cap=0, body=fields.raw)
        prompt = read_invoke(fields) if "invoke" in path else read_converse(fields)
        embeds = isinstance(prompt, TextPrompt) and prompt.purpose == "embedding" and _read_cap(fields) is None
        return Call(
            format=self.name,
            kind="embed" if embeds else "generate",
            model=model,
            prompt=prompt,
            output_cap=0 if embeds else _read_cap(fields),
            choices=max(1, fields.integer("num_generations") or 1),
            stream="stream" in path,
            body=fields.raw,
        )

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader:
        failed = status >= 400
        if call.stream:
            return BedrockStreamReader(failed=failed)
        if "anthropic_version" in call.body:
            return AnthropicReader(events=False, failed=failed)
        return BedrockReader(failed=failed)

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        default = "InternalServerException" if error.status >= 500 else "ValidationException"
        headers = {
            "Content-Type": "application/json",
            "x-amzn-ErrorType": _EXCEPTIONS.get(error.status, default),
            **retry_headers(error),
        }
        return error.status, headers, write_object({"message": error.message, **error.details})

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        return write_object({"inputTokens": count.input_tokens})

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        """The cap goes where the body has one already; a body without any gets its family's own field."""
        body = dict(call.body)
        if "anthropic_version" in body:
            return write_object(lower_cap(body, cap))
        for holder, name in _NESTED_CAPS:
            config = body.get(holder)
            if type(config) is dict and type(config.get(name)) is int:
                return write_object(body | {holder: config | {name: min(cap, config[name])}})
        named = [name for name in _CAPS if type(body.get(name)) is int]
        if named:
            return write_object(body | {name: min(cap, body[name]) for name in named})
        if _speaks_converse(body):
            config = Fields(body).mapping("inferenceConfig") or {}
            return write_object(body | {"inferenceConfig": config | {"maxTokens": cap}})
        if "inputText" in body:
            return write_object(body | {"textGenerationConfig": {"maxTokenCount": cap}})
        return write_object(body | {("max_gen_len" if "llama" in call.model else "max_tokens"): cap})

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        return None

    def with_usage_requested(self, call: Call) -> bytes | None:
        return None


def _speaks_converse(body: Mapping[str, Any]) -> bool:
    """Whether the body is Converse's (also Nova's own): its messages hold lists of blocks without a ``type``."""
    messages = body.get("messages")
    if type(messages) is not list:
        return False
    for message in messages:
        content = message.get("content") if type(message) is dict else None
        if type(content) is not list or any(type(block) is not dict or "type" in block for block in content):
            return False
    return True


def _read_cap(fields: Fields) -> int | None:
    """The largest cap named, wherever the family keeps it."""
    caps = [fields.integer(name, minimum=0) for name in _CAPS]
    for holder, name in _NESTED_CAPS:
        config = fields.child(holder)
        caps.append(config.integer(name, minimum=0) if config else None)
    return max((cap for cap in caps if cap is not None), default=None)


def _read_counted(fields: Fields) -> Prompt:
    """The prompt inside a CountTokens body: a Converse request, or an InvokeModel body as base64."""
    asked = fields.required_child("input")
    converse = asked.child("converse")
    if converse is not None:
        return read_converse(converse)
    invoked = asked.required_child("invokeModel")
    try:
        inner = base64.b64decode(invoked.required_text("body"), validate=True)
    except (binascii.Error, ValueError):
        raise invoked.wrong("body", "must be base64.", code="invalid_value") from None
    return read_invoke(Fields(read_object(inner)))
