"""The echo model behind the same door as any other upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gateway import formats
from gateway.echo import anthropic, gemini, openai, responses, sse
from gateway.echo.reply import compose
from gateway.errors import GatewayError, NotFound
from gateway.formats.fields import write_object
from tokenizers_offline.prompt import TextPrompt

if TYPE_CHECKING:
    from gateway.counting import Counting
    from gateway.formats.base import Call, RequestFormat, Route
    from gateway.forwarded_headers import Headers
    from gateway.settings import UpstreamSettings
    from gateway.upstream import Outgoing


class EchoAnswer:
    """An answer that is already known; streamed ones are handed out piece by piece."""

    def __init__(self, body: bytes | list[bytes], *, status: int = 200, content_type: str = "application/json") -> None:
        self.status = status
        self.reason = b""
        pieces = [body] if isinstance(body, bytes) else body
        self.headers: Headers = [(b"Content-Type", content_type.encode())]
        if isinstance(body, bytes):
            self.headers.append((b"Content-Length", b"%d" % len(body)))
        self._pieces = iter(pieces)

    async def read(self) -> bytes:
        """The next piece, ``b""`` at the end."""
        await asyncio.sleep(0)  # let others in between two pieces, as a network would
        return next(self._pieces, b"")

    def close(self) -> None:
        """Forget the rest."""
        self._pieces = iter(())


class EchoUpstream:
    """Answers requests in the dialect they come in. `clock` dates the answers."""

    def __init__(self, settings: UpstreamSettings, counting: Counting, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._counting = counting
        self._clock = clock

    async def send(self, outgoing: Outgoing) -> EchoAnswer:
        """Answer one request."""
        raw_path, _, query = outgoing.target.partition("?")
        path = unquote(raw_path)
        matched = formats.match(outgoing.method, path)
        if matched is None:
            return self._answer_other(outgoing.method, path)
        fmt, route, groups = matched
        try:
            return await self._answer(fmt, route, fmt.parse(route, groups, outgoing.body or b""), query)
        except GatewayError as error:
            status, headers, body = fmt.render_error(error)
            return EchoAnswer(body, status=status, content_type=headers.get("Content-Type", "application/json"))

    async def _answer(self, fmt: RequestFormat, route: Route, call: Call, query: str) -> EchoAnswer:
        model = self._settings.deployments.get(call.model, call.model)
        platform = self._settings.platform
        if route.kind == "embed" and isinstance(call.prompt, TextPrompt):
            count = await self._counting.count(model, call.prompt, platform=platform)
            items = call.prompt.items
            if fmt.name == "openai_embeddings":
                return _json(openai.embeddings(call, items, count.input_tokens))
            if fmt.name == "gemini":
                return _json(gemini.embedded(call, items, count.input_tokens))
        reply = await compose(
            call, model=model, platform=platform, counting=self._counting, created_at=int(self._clock())
        )
        match fmt.name, call.stream:
            case "openai_chat", False:
                return _json(openai.chat(reply))
            case "openai_chat", True:
                return _stream(openai.chat_stream(reply, with_usage=call.wants_usage))
            case "openai_completions", False:
                return _json(openai.completion(reply))
            case "openai_completions", True:
                return _stream(openai.completion_stream(reply, with_usage=call.wants_usage))
            case "openai_responses", False:
                return _json(responses.response(reply, call.body))
            case "openai_responses", True:
                return _stream(responses.response_stream(reply, call.body))
            case "anthropic_messages", False:
                return _json(anthropic.message(reply))
            case "anthropic_messages", True:
                return _stream(anthropic.message_stream(reply))
            case "gemini", False:
                return _json(gemini.generated(reply))
            case "gemini", True:
                as_events = "alt=sse" in query.split("&")
                content_type = sse.CONTENT_TYPE if as_events else "application/json"
                return EchoAnswer(gemini.generated_stream(reply, as_events=as_events), content_type=content_type)
        raise NotFound(f"The echo upstream does not speak {fmt.name}.")

    def _answer_other(self, method: str, path: str) -> EchoAnswer:
        if method == "GET" and path in ("/v1/models", "/v1beta/models"):
            names = [spec.family for spec in self._counting.counter.catalog.models()]
            return _json(_list_gemini(names) if path == "/v1beta/models" else _list(names))
        body = {
            "error": {
                "message": f"The echo upstream has nothing at {method} {path}.",
                "type": "invalid_request_error",
                "param": None,
                "code": "not_found",
            }
        }
        return EchoAnswer(write_object(body), status=404)


def _list(names: Iterable[str]) -> dict[str, Any]:
    """Both OpenAI's and Anthropic's SDKs read this list."""
    data = [
        {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "tollgate",
            "type": "model",
            "display_name": name,
            "created_at": "1970-01-01T00:00:00Z",
        }
        for name in names
    ]
    return {"object": "list", "data": data, "has_more": False, "first_id": None, "last_id": None}


def _list_gemini(names: Iterable[str]) -> dict[str, Any]:
    return {"models": [{"name": f"models/{name}", "displayName": name} for name in names]}


def _json(value: dict[str, Any]) -> EchoAnswer:
    return EchoAnswer(write_object(value))


def _stream(events: list[bytes]) -> EchoAnswer:
    return EchoAnswer(events, content_type=sse.CONTENT_TYPE)
