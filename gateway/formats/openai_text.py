"""OpenAI's plain-text endpoints: completions and embeddings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.formats.base import Call, Route, UsageReader
from gateway.formats.early_end import EarlyEnd
from gateway.formats.fields import Fields, name_type, read_object
from gateway.formats.listening import is_event_stream
from gateway.formats.openai_caps import lower_caps, lower_completion_caps, read_cap
from gateway.formats.openai_chat import asks_usage, read_choices, request_usage
from gateway.formats.openai_early_end import ChoicesEarlyEnd
from gateway.formats.openai_errors import read_credential, render_openai_error
from gateway.formats.openai_usage import EmbeddingsAnswerReader
from tokenizers_offline.prompt import TextPrompt, TokenCount

_NO_PROMPT = ((0,),)
"""Without a prompt a completion starts from ``<|endoftext|>`` (OpenAI's API reference): one token."""


class OpenAICompletions:
    """`RequestFormat` of ``/completions``."""

    name = "openai_completions"
    routes: tuple[Route, ...] = (
        Route(
            "POST",
            re.compile(r"/(?:deployments|engines)/(?P<model>[^/]+)/completions$|(?<!/chat)/completions$"),
            "generate",
        ),
    )

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        return read_credential(headers)

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        fields = Fields(read_object(body))
        items = read_items(fields, "prompt") if fields.has("prompt") else _NO_PROMPT
        stream = fields.boolean("stream")
        answers = max(fields.integer("n", minimum=1) or 1, fields.integer("best_of", minimum=0) or 1)
        return Call(
            format=self.name,
            kind=route.kind,
            model=path.get("model") or fields.required_text("model"),
            prompt=TextPrompt(items, purpose="completion", suffix=fields.text("suffix")),
            output_cap=read_cap(fields, "max_tokens", "max_completion_tokens"),
            choices=answers * len(items),
            stream=stream,
            body=fields.raw,
            wants_usage=not stream or asks_usage(fields),
        )

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader:
        return read_choices(call, status=status, content_type=content_type)

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        return render_openai_error(error)

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        raise NotFound("Completions have no count endpoint; use POST /calculate.")

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        return lower_completion_caps(call, cap, unnamed="max_tokens")

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        if not is_event_stream(content_type=content_type, stream=call.stream):
            return None
        return ChoicesEarlyEnd(call, kind="text_completion", empty={"text": ""})

    def with_usage_requested(self, call: Call) -> bytes | None:
        return request_usage(call)


class OpenAIEmbeddings:
    """`RequestFormat` of ``/embeddings``: all input, no output."""

    name = "openai_embeddings"
    routes: tuple[Route, ...] = (
        Route("POST", re.compile(r"(?:/(?:deployments|engines)/(?P<model>[^/]+))?/embeddings$"), "embed"),
    )

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        return read_credential(headers)

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        fields = Fields(read_object(body))
        if not fields.has("input"):
            raise fields.wrong("input", "is missing.", code="missing_required_parameter")
        return Call(
            format=self.name,
            kind=route.kind,
            model=path.get("model") or fields.required_text("model"),
            prompt=TextPrompt(read_items(fields, "input"), purpose="embedding"),
            output_cap=0,
            body=fields.raw,
        )

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader:
        return EmbeddingsAnswerReader(failed=status >= 400)

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        return render_openai_error(error)

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        raise NotFound("Embeddings have no count endpoint; use POST /calculate.")

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        return lower_caps(call, cap, names=[])

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        return None

    def with_usage_requested(self, call: Call) -> bytes | None:
        return None


def read_items(fields: Fields, name: Literal["prompt", "input"]) -> tuple[str | tuple[int, ...], ...]:
    """A string, strings, one array of token ids, or arrays of token ids: one item for each text."""
    value = fields.raw.get(name)
    if type(value) is str:
        return (value,)
    if type(value) is not list:
        raise fields.wrong(
            name, f"must be a string or an array of strings or token ids, not {name_type(value)}.", code="invalid_type"
        )
    if not value:
        raise fields.wrong(name, "must not be empty.", code="invalid_value")
    kinds = set(map(type, value))
    if kinds == {int}:
        return (_read_ids(fields, name, value),)
    if kinds == {str}:
        return tuple(value)
    if kinds <= {str, list}:
        return tuple(
            item if type(item) is str else _read_ids(fields, f"{name}[{index}]", item)
            for index, item in enumerate(value)
        )
    expected = (int,) if type(value[0]) is int else (str, list)
    odd = next(index for index, item in enumerate(value) if type(item) not in expected)
    path = fields.path_of(f"{name}[{odd}]")
    raise BadRequest(
        f"'{path}' must be a string or an array of token ids, not {name_type(value[odd])}.",
        param=path,
        code="invalid_type",
    )


def _read_ids(fields: Fields, name: str, ids: list[object]) -> tuple[int, ...]:
    if set(map(type, ids)) - {int}:
        raise fields.wrong(name, "must hold token ids (integers) only.", code="invalid_type")
    return tuple(ids)  # type: ignore[arg-type]
