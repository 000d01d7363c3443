"""Anthropic's Messages API, at its own address and on Vertex AI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.errors import GatewayError, NotFound
from gateway.formats.anthropic_answer import AnthropicReader
from gateway.formats.anthropic_content import read_prompt
from gateway.formats.anthropic_early_end import AnthropicEarlyEnd
from gateway.formats.base import Call, Route, UsageReader, retry_headers
from gateway.formats.early_end import EarlyEnd
from gateway.formats.fields import Fields, read_object, write_object
from gateway.formats.listening import is_event_stream
from tokenizers_offline.prompt import TokenCount

_MIN_THINKING_TOKENS = 1024
"""The smallest `thinking.budget_tokens` the API accepts; it must also stay below `max_tokens`."""

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """The token of ``Authorization: Bearer``; None for any other scheme."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class AnthropicMessages:
    """`RequestFormat` of ``/v1/messages`` and its token count."""

    name = "anthropic_messages"
    routes = (
        Route("POST", re.compile(r"/v1/messages$"), "generate"),
        Route("POST", re.compile(r"/v1/messages/count_tokens$"), "count"),
        Route("POST", re.compile(r"/models/count-tokens(?:@\w+)?:rawPredict$"), "count"),
        Route("POST", re.compile(r"/models/(?P<model>claude[^/:]*):rawPredict$"), "generate"),
        Route("POST", re.compile(r"/models/(?P<model>claude[^/:]*):(?P<stream>streamRawPredict)$"), "generate"),
    )

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        return headers.get("x-api-key") or bearer_token(headers)

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        fields = Fields(read_object(body))
        return Call(
            format=self.name,
            kind=route.kind,
            model=path.get("model") or fields.required_text("model"),
            prompt=read_prompt(fields),
            output_cap=0 if route.kind == "count" else fields.integer("max_tokens", minimum=0),
            stream=route.kind != "count" and (fields.boolean("stream") or "stream" in path),
            body=fields.raw,
        )

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader:
        events = is_event_stream(content_type=content_type, stream=call.stream)
        return AnthropicReader(events=events, failed=status >= 400)

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        facts: dict[str, Any] = {
            "type": _ERROR_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error"),
            "message": error.message,
        }
        facts |= {name: value for name, value in (("code", error.code), ("param", error.param)) if value}
        if error.details:
            facts["details"] = error.details
        headers = {"Content-Type": "application/json", **retry_headers(error)}
        request_id = headers.get("x-tollgate-request-id")
        return error.status, headers, write_object({"type": "error", "error": facts, "request_id": request_id})

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        if call.kind == "embed":
            raise NotFound("The Messages API has no embeddings to count.")
        return write_object({"input_tokens": count.input_tokens})

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        """`thinking.budget_tokens` is lowered too, since the API refuses one that is not below `max_tokens`;
        where even its minimum does not fit, thinking is switched off."""
        return write_object(lower_cap(call.body, cap))

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        return AnthropicEarlyEnd(call) if is_event_stream(content_type=content_type, stream=call.stream) else None

    def with_usage_requested(self, call: Call) -> bytes | None:
        return None


def lower_cap(body: Mapping[str, Any], cap: int) -> dict[str, Any]:
    """The body with `max_tokens` at most `cap`, and thinking fitted below it."""
    lowered = dict(body)
    named = Fields(body).integer("max_tokens")
    lowered["max_tokens"] = cap = cap if named is None else min(cap, named)
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if type(thinking) is dict else None
    if type(thinking) is dict and type(budget) is int and budget >= cap:  # anything else is the upstream's to refuse
        fits = cap > _MIN_THINKING_TOKENS
        lowered["thinking"] = {**thinking, "budget_tokens": cap - 1} if fits else {"type": "disabled"}
    return lowered
