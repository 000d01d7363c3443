"""Google's Gemini API, in AI Studio and on Vertex AI."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gateway.errors import GatewayError, NotFound
from gateway.formats.anthropic_messages import bearer_token
from gateway.formats.base import Call, Route, UsageReader, retry_headers
from gateway.formats.early_end import EarlyEnd
from gateway.formats.fields import Fields, read_object, write_object
from gateway.formats.gemini_answer import GeminiArrayReader, GeminiReader
from gateway.formats.gemini_content import child, either, read_embedding, read_prompt
from gateway.formats.gemini_early_end import GeminiEarlyEnd
from tokenizers_offline.prompt import MediaPart, TextPrompt, TokenCount, ToolResultPart

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""google.rpc.Code by its HTTP mapping (google/rpc/code.proto)."""

_RPC = "type.googleapis.com/google.rpc."
_MODEL = r"(?:/publishers/(?P<publisher>[^/:]+))?/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+)"
"""A publisher in the path is Vertex AI's mark; it counts otherwise than AI Studio."""


class Gemini:
    """`RequestFormat` of generateContent, its stream, countTokens and the embeddings."""

    name = "gemini"
    routes = (
        Route("POST", re.compile(_MODEL + r":generateContent$"), "generate"),
        Route("POST", re.compile(_MODEL + r":(?P<stream>streamGenerateContent)$"), "generate"),
        Route("POST", re.compile(_MODEL + r":countTokens$"), "count"),
        Route("POST", re.compile(_MODEL + r":(?:embedContent|batchEmbedContents)$"), "embed"),
    )

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        return headers.get("x-goog-api-key") or query.get("key") or bearer_token(headers)

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        fields = Fields(read_object(body))
        model = path.get("model") or fields.required_text("model").removeprefix("models/")
        if route.kind == "embed":
            texts = read_embedding(fields)
            return Call(self.name, "embed", model, texts, output_cap=0, choices=len(texts.items), body=fields.raw)
        vertex = bool(path.get("publisher"))
        if route.kind == "count":
            asked = child(fields, "generateContentRequest") or fields
            return Call(self.name, "count", model, read_prompt(asked, vertex=vertex), output_cap=0, body=fields.raw)
        prompt = read_prompt(fields, vertex=vertex)
        config = child(fields, "generationConfig")
        cap = config.integer(either(config, "maxOutputTokens"), minimum=0) if config else None
        choices = config.integer(either(config, "candidateCount"), minimum=0) if config else None
        return Call(
            format=self.name,
            kind="generate",
            model=model,
            prompt=prompt,
            output_cap=cap or None,  # 0 is protobuf's "not set"
            choices=choices or 1,
            stream="stream" in path,
            body=fields.raw,
        )

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader:
        failed = status >= 400
        events = "event-stream" in content_type.lower()
        if call.stream and not events:
            return GeminiArrayReader(failed=failed)
        return GeminiReader(events=events, failed=failed)

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        status = _STATUSES.get(error.status, "INTERNAL" if error.status >= 500 else "FAILED_PRECONDITION")
        facts: dict[str, Any] = {"code": error.status, "message": error.message, "status": status}
        details = _explain(error)
        if details:
            facts["details"] = details
        headers = {"Content-Type": "application/json; charset=UTF-8", **retry_headers(error)}
        return error.status, headers, write_object({"error": facts})

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        if call.kind == "embed":
            raise NotFound("Gemini counts the tokens of embeddings under :countTokens, with `contents`.")
        answer: dict[str, Any] = {"totalTokens": count.input_tokens}
        if not _has_media(call):
            answer["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": count.input_tokens}]
        return write_object(answer)

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        body = dict(call.body)
        fields = Fields(body)
        spelt = either(fields, "generationConfig")
        config = Fields(body.get(spelt) or {}, parent=fields, key=spelt)
        name = either(config, "maxOutputTokens")
        named = config.integer(name)
        body[spelt] = {**config.raw, name: min(cap, named) if named else cap}
        return write_object(body)

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        return GeminiEarlyEnd(call, events="event-stream" in content_type.lower()) if call.stream else None

    def with_usage_requested(self, call: Call) -> bytes | None:
        return None


def _explain(error: GatewayError) -> list[dict[str, Any]]:
    """The error's facts as google.rpc detail messages (google/rpc/error_details.proto)."""
    details: list[dict[str, Any]] = []
    facts = {name: value if type(value) is str else str(value) for name, value in error.details.items()}
    if error.status == 429:
        subject = facts.get("scope") or facts.get("budget") or "caller"
        violation = {"subject": subject, "description": error.message}
        quota = {"quotaId": facts.get("budget"), "quotaMetric": facts.get("meter"), "quotaValue": facts.get("limit")}
        violation |= {name: value for name, value in quota.items() if value is not None}
        details.append({"@type": f"{_RPC}QuotaFailure", "violations": [violation]})
    if error.code:
        reason = {"reason": error.code.upper(), "domain": "tollgate", "metadata": facts}
        details.append({"@type": f"{_RPC}ErrorInfo", **reason})
    if error.param:
        violation = {"field": error.param, "description": error.message}
        details.append({"@type": f"{_RPC}BadRequest", "fieldViolations": [violation]})
    if error.retry_after_s is not None:
        wait = math.ceil(max(0.0, error.retry_after_s) * 1000) / 1000
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": f"{wait:g}s"})
    return details


def _has_media(call: Call) -> bool:
    if isinstance(call.prompt, TextPrompt):
        return False
    parts = [part for message in call.prompt.messages for part in message.parts]
    nested = [inner for part in parts if isinstance(part, ToolResultPart) for inner in part.parts]
    return any(isinstance(part, MediaPart) for part in (*parts, *nested))
