"""Tollgate's budgets in a LiteLLM proxy: hold before a call, settle with what the provider reports.

Put this file beside LiteLLM's config.yaml and name it there::

    litellm_settings:
      callbacks: tollgate_litellm.tollgate

Environment: ``TOLLGATE_URL`` (where Tollgate listens), ``TOLLGATE_KEY`` (the key that budgets see for callers with no
other), ``TOLLGATE_ON_ERROR`` (``refuse``, the default, or ``allow``: what happens while Tollgate cannot be reached).

Whose key is used: ``tollgate_key`` in the metadata of the LiteLLM key, else of its team, else the request's header
``x-tollgate-key``, else ``TOLLGATE_KEY``. The header wins over nothing that an administrator has set.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import litellm
from litellm._logging import verbose_proxy_logger as log
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException

FORMATS = {
    "completion": "openai_chat",
    "acompletion": "openai_chat",
    "text_completion": "openai_completions",
    "atext_completion": "openai_completions",
    "embeddings": "openai_embeddings",
    "embedding": "openai_embeddings",
    "aembedding": "openai_embeddings",
    "responses": "openai_responses",
    "aresponses": "openai_responses",
    "anthropic_messages": "anthropic_messages",
}
"""What LiteLLM calls a call -> how Tollgate reads its body. Other calls (images, audio, files) hold nothing."""

COUNTED_FIELDS = (
    *("messages", "system", "prompt", "suffix", "input", "instructions"),
    *("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "response_format", "text"),
    *("reasoning", "reasoning_effort", "thinking", "modalities", "audio", "prediction"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of", "stream", "dimensions"),
)
"""What Tollgate is told of a body: the rest costs nothing, and LiteLLM adds things of its own to it."""

CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
CAP_FIELDS = {"openai_responses": "max_output_tokens"}
TOLD_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
TIMEOUT_S = 10.0
TRIES = 3
"""How often the end of a call is told while Tollgate does not answer; it counts once however often it is heard."""
MARK = "tollgate_hold"
_CLIENT_LEFT = 499


class Hold:
    """One admission, until it has been ended. `events` is what a stream's caller has been sent."""

    # No dataclass: LiteLLM loads this file in a way that those cannot be made in.
    def __init__(self, hold_id: str, answer_to: str) -> None:
        self.id = hold_id
        self.answer_to = answer_to
        self.events: list[bytes] = []


class Tollgate(CustomLogger):
    """Holds every call on its caller's budgets, and ends each hold exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self._url = os.environ.get("TOLLGATE_URL", "http://localhost:8000").rstrip("/")
        self._key = os.environ.get("TOLLGATE_KEY")
        self._allow_on_error = os.environ.get("TOLLGATE_ON_ERROR", "refuse") == "allow"
        self._client: httpx.AsyncClient | None = None
        self._holds: dict[str, Hold] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any] | None:
        """Hold what the call needs, or refuse it as OpenAI would."""
        name = FORMATS.get(call_type)
        if name is None:
            return None
        asked = {
            "format": name,
            "request": _body(data),
            "key": _key_of(user_api_key_dict, data) or self._key,
        }
        try:
            answer = await self._post("/v1/admissions", json=asked)
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:  # nothing answers, or something that is not Tollgate
            if self._allow_on_error:
                log.warning("Tollgate cannot be reached, the call is let through: %s", error)
                return None
            raise ProxyException(
                message=f"Tollgate, which keeps the budgets, cannot be reached: {type(error).__name__}.",
                type="server_error",
                param=None,
                code=503,
            ) from error
        if answer.status_code != 201:
            _refuse(answer, told["error"])
        self._holds[_mark(data)] = Hold(told["id"], told["answer_to"])
        if told["output_cap"] is not None:
            for cap in CAPS:
                _extra(data).pop(cap, None)
            data[_cap_field(name, data)] = told["output_cap"]
        return data

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> None:
        """Settle a whole answer, before its caller has it. One from LiteLLM's cache costs nothing."""
        hold = self._holds.pop(_mark_of(data), None)
        if hold is None:
            return
        if (getattr(response, "_hidden_params", None) or {}).get("cache_hit"):
            await self._end(f"/v1/admissions/{hold.id}/release")
        else:
            await self._end(hold.answer_to, content=_json(response), content_type="application/json")

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Settle a stream when it has ended, however it ends: by its usage, or by what was relayed until then."""
        hold = self._holds.get(_mark_of(request_data))
        if hold is None:
            async for piece in response:
                yield piece
            return
        whole = False
        try:
            async for piece in response:
                hold.events.append(_event(piece))
                yield piece
            whole = True
        finally:
            # Closing a stream early runs this while its task is being cancelled: the end is told by a task of its own.
            self._holds.pop(_mark_of(request_data), None)
            if whole:
                hold.events += _bill(response)
                hold.events.append(b"data: [DONE]\n\n")
            ending = asyncio.ensure_future(
                self._end(hold.answer_to, content=b"".join(hold.events), content_type="text/event-stream")
            )
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            if whole:
                await asyncio.shield(ending)

    async def async_post_call_failure_hook(
        self, request_data: dict[str, Any], original_exception: Exception, user_api_key_dict: Any, **_: Any
    ) -> None:
        """Give the hold of a call that failed for good back. LiteLLM's own retries and fallbacks are behind it.

        A caller who left before the answer has cost its prompt: the provider has read that.
        """
        hold = self._holds.pop(_mark_of(request_data), None)
        if hold is None:
            return
        if hold.events or getattr(original_exception, "status_code", None) == _CLIENT_LEFT:
            await self._end(hold.answer_to, content=b"".join(hold.events), content_type="text/event-stream")
        else:
            await self._end(f"/v1/admissions/{hold.id}/release")

    async def _end(self, path: str, *, content: bytes = b"", content_type: str = "application/json") -> None:
        """Tell how a call ended. A hold that cannot be ended is charged as held when its time is over."""
        for tried in range(1, TRIES + 1):
            try:
                answer = await self._post(path, content=content, headers={"Content-Type": content_type})
            except httpx.HTTPError as error:
                log.warning("Tollgate was not told of an end (%d of %d): %r", tried, TRIES, error)
            else:
                if answer.status_code < 500:
                    if answer.status_code >= 400:
                        log.error("Tollgate refused an end: %s", answer.text)
                    return
            await asyncio.sleep(0.2 * tried)

    async def _post(self, path: str, **options: Any) -> httpx.Response:
        if self._client is None:
            self._client = httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT_S, trust_env=False)
        return await self._client.post(path, **options)


def _mark(data: dict[str, Any]) -> str:
    """Give a call a name that only this process knows, where every later hook finds it.

    LiteLLM's own ids will not do: callers may choose them, and one could end another call's hold.
    """
    request = data.get("proxy_server_request")
    if not isinstance(request, dict):
        request = data["proxy_server_request"] = {}
    request[MARK] = secrets.token_hex(16)
    return str(request[MARK])


def _mark_of(data: dict[str, Any]) -> str:
    request = data.get("proxy_server_request")
    return str(request.get(MARK, "")) if isinstance(request, dict) else ""


def _body(data: dict[str, Any]) -> dict[str, Any]:
    """What of a call costs tokens, with the model that LiteLLM's router will ask for."""
    sent = {**data, **_extra(data)}
    body = {name: sent[name] for name in COUNTED_FIELDS if sent.get(name) is not None}
    body["model"] = _model_behind(str(data.get("model", "")))
    return body


def _extra(data: dict[str, Any]) -> dict[str, Any]:
    """What LiteLLM lays over the body that it sends."""
    extra = data.get("extra_body")
    return extra if isinstance(extra, dict) else {}


def _model_behind(name: str) -> str:
    """The provider's name of a model group, so that it is counted with its own tokenizer."""
    from litellm.proxy.proxy_server import llm_router

    for deployment in (llm_router.get_model_list(model_name=name) if llm_router else None) or []:
        name = deployment["litellm_params"]["model"]
        break
    try:
        return litellm.get_llm_provider(name)[0]
    except litellm.BadRequestError:
        return name


def _key_of(caller: Any, data: dict[str, Any]) -> str | None:
    for metadata in (getattr(caller, "metadata", None), getattr(caller, "team_metadata", None)):
        if metadata and metadata.get("tollgate_key"):
            return str(metadata["tollgate_key"])
    headers = (data.get("proxy_server_request") or {}).get("headers") or {}
    return next((value for name, value in headers.items() if name.lower() == "x-tollgate-key"), None)


def _cap_field(name: str, data: dict[str, Any]) -> str:
    if name == "openai_chat" and "max_completion_tokens" in data:
        return "max_completion_tokens"
    return CAP_FIELDS.get(name, "max_tokens")


def _refuse(answer: httpx.Response, error: dict[str, Any]) -> None:
    raise ProxyException(
        message=error["message"],
        type=error["type"],
        param=error["param"],
        code=answer.status_code,
        openai_code=error["code"],
        headers={name: answer.headers[name] for name in TOLD_HEADERS if name in answer.headers},
    )


def _event(piece: Any) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode()
    return b"data: " + _json(piece) + b"\n\n"


def _bill(stream: Any) -> list[bytes]:
    """The usage that LiteLLM keeps from callers who have not asked for it, as OpenAI's last event has it."""
    for piece in reversed(getattr(stream, "chunks", None) or []):
        usage = getattr(piece, "usage", None) or (getattr(piece, "_hidden_params", None) or {}).get("usage")
        if usage is not None:
            return [b'data: {"choices":[],"usage":' + _json(usage) + b"}\n\n"]
    return []


def _json(value: Any) -> bytes:
    if hasattr(value, "model_dump_json"):
        return value.model_dump_json(exclude_none=True).encode()
    return httpx.Request("POST", "http://localhost", json=value).content


tollgate = Tollgate()
