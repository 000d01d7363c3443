"""Where a request goes: choosing an upstream, and the request that it is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import unquote_plus, urlsplit

from gateway.errors import ModelNotFound, NotFound
from gateway.forwarded_headers import Headers, request_headers

if TYPE_CHECKING:
    from gateway.settings import UpstreamSettings

# Who serves the model, where that changes the bill: the words of the counting rules, by the end of the host's name.
_PLATFORMS = (
    ("api.openai.com", "openai"),
    (".openai.azure.com", "azure"),
    (".services.ai.azure.com", "azure"),
    (".models.ai.azure.com", "azure"),
    (".cognitiveservices.azure.com", "azure"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gemini"),
    ("aiplatform.googleapis.com", "vertex"),
    (".amazonaws.com", "bedrock"),
    ("openrouter.ai", "openrouter"),
    ("api.groq.com", "groq"),
    ("api.x.ai", "xai"),
    ("api.mistral.ai", "mistral"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.z.ai", "zai"),
    ("open.bigmodel.cn", "zai"),
    ("api.deepseek.com", "deepseek"),
    ("api.cerebras.ai", "cerebras"),
    ("huggingface.co", "huggingface"),
    ("api.together.xyz", "together"),
    ("api.fireworks.ai", "fireworks"),
)


class Outgoing(NamedTuple):
    """A request as it is sent. `target` is the raw path and query below the upstream's base."""

    method: str
    target: str
    headers: Headers
    body: bytes | None


class UpstreamAnswer(Protocol):
    """An answer whose head has arrived. `read` gives the next body bytes, ``b""`` at the end; it raises
    `UpstreamError` when the body breaks off. `close` is due in every case: it drops an unread rest."""

    status: int
    reason: bytes
    headers: Headers

    async def read(self) -> bytes: ...

    def close(self) -> None: ...


class UpstreamClient(Protocol):
    """Whoever carries requests out. Raises `UpstreamError` or `UpstreamTimeout` when no answer's head arrives."""

    async def send(self, outgoing: Outgoing) -> UpstreamAnswer: ...


class Upstream:
    """One configured upstream, ready to use."""

    __slots__ = ("_api_key", "_base_end", "_extra", "_models", "_overheads", "client", "name", "platform", "settings")

    def __init__(self, settings: UpstreamSettings, client: UpstreamClient) -> None:
        self.settings = settings
        self.name = settings.name
        self.client = client
        self.platform = settings.platform or platform_of(settings.url)
        self._api_key = settings.api_key
        self._base_end = "/" + urlsplit(settings.url.rstrip("/")).path.rpartition("/")[2]
        self._models = re.compile("|".join(translate(pattern) for pattern in settings.models)).match
        self._overheads = [_read_overhead(pattern, tokens) for pattern, tokens in settings.overheads.items()]
        self._extra = [(name.encode(), value.encode()) for name, value in settings.headers.items()]

    def serves(self, *, format_name: str | None, model: str | None) -> bool:
        """Whether this upstream takes a request of this format for this model (None: no format knows the path)."""
        formats = self.settings.formats
        if format_name is not None and formats and format_name not in formats:
            return False
        return model is None or model in self.settings.deployments or self._models(model) is not None

    def model_of(self, name: str) -> str:
        """The model behind a deployment's name; any other name is itself."""
        return self.settings.deployments.get(name, name)

    def overhead(self, model: str, *, with_tools: bool) -> int | None:
        """Tokens of the hidden prompt configured for a model here, by the first pattern that matches; None without."""
        for matches, text_tokens, tools_tokens in self._overheads:
            if matches(model):
                return tools_tokens if with_tools else text_tokens
        return None

    def prepare(
        self,
        method: str,
        raw_target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes | None,
        *,
        key: str | None,
        format_name: str | None,
        plain: bool,
    ) -> Outgoing:
        """The request to send: hop-by-hop headers off, credentials exchanged, prefix cut.

        `key` is the caller's own upstream key if it has one; it wins over the upstream's. With neither, the caller's
        credential travels on. `plain` asks for an answer without compression.
        """
        credential = key or self._api_key
        target = self._target(raw_target, drop_key=credential is not None)
        sent, own = request_headers(headers, exchanges_credential=credential is not None, plain=plain)
        if credential is not None:
            sent.append(_credential_header(credential, format_name, self.platform, own))
        for name, value in self._extra:
            lowered = name.lower()
            sent = [pair for pair in sent if pair[0].lower() != lowered]
            sent.append((name, value))
        return Outgoing(method, target, sent, body)

    def _target(self, raw_target: str, *, drop_key: bool) -> str:
        prefix = self.settings.prefix
        if prefix and raw_target.startswith(prefix):
            raw_target = raw_target[len(prefix) :]
        if not raw_target.startswith("/"):
            raw_target = "/" + raw_target
        if len(self._base_end) > 1 and raw_target.startswith(self._base_end + "/"):
            # A base that ends in /v1 and a path that starts with it name one directory, not two.
            raw_target = raw_target[len(self._base_end) :]
        if drop_key and "?" in raw_target:
            path, _, query = raw_target.partition("?")
            kept = [pair for pair in query.split("&") if unquote_plus(pair.partition("=")[0]) != "key"]
            raw_target = f"{path}?{'&'.join(kept)}" if any(kept) else path
        return raw_target


class Upstreams:
    """All upstreams, in the order of the configuration: the first that serves a request gets it."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.all = tuple(upstreams)
        self._plain = tuple(u for u in upstreams if not u.settings.prefix)
        self._prefixed = tuple(u for u in upstreams if u.settings.prefix)
        self._serving = lru_cache(maxsize=4096)(self._first_that_serves)

    def choose(self, path: str, *, format_name: str | None, model: str | None) -> Upstream:
        """The upstream for a request: a prefix decides first, then format and model. Raises `ModelNotFound`, or
        `NotFound` for a path without a model."""
        for upstream in self._prefixed or ():
            if path.startswith(upstream.settings.prefix.rstrip("/") + "/") and upstream.serves(
                format_name=format_name, model=model
            ):
                return upstream
        chosen = self._serving(format_name, model)
        if chosen is not None:
            return chosen
        names = ", ".join(u.name for u in self.all) or "none"
        if model is None:
            raise NotFound(f"No upstream takes the path {path}. Configured upstreams: {names}.")
        raise ModelNotFound(
            f"No upstream serves the model '{model}'. Configured upstreams: {names}; add the model to one's `models`.",
            param="model",
        )

    def _first_that_serves(self, format_name: str | None, model: str | None) -> Upstream | None:
        return next((u for u in self._plain if u.serves(format_name=format_name, model=model)), None)


def platform_of(url: str) -> str:
    """Who serves at an address, in the counting rules' words; "" when unknown."""
    host = urlsplit(url).hostname or ""
    for end, platform in _PLATFORMS:
        if host == end or host.endswith(end if end[0] in ".-" else "." + end) or _regional(host, end):
            return platform
    return ""


def _regional(host: str, end: str) -> bool:
    """Vertex puts the region before its host with a hyphen (``europe-west1-aiplatform…``)."""
    return end == "aiplatform.googleapis.com" and host.endswith("-" + end)


def _read_overhead(pattern: str, tokens: int | Mapping[str, int]) -> tuple[Callable[[str], object], int, int]:
    matches = re.compile(translate(pattern)).match
    if isinstance(tokens, int):
        return matches, tokens, tokens
    text = tokens.get("text", 0)
    return matches, text, tokens.get("tools", text)


def _credential_header(credential: str, format_name: str | None, platform: str, own: bytes) -> tuple[bytes, bytes]:
    """The header this API reads a key from; on a path no format knows, where the caller put its own."""
    key = credential.encode()
    if platform == "azure":
        return (b"api-key", key)
    if platform in ("vertex", "bedrock", "openrouter"):
        return (b"Authorization", b"Bearer " + key)
    if format_name is None:
        if own in (b"x-api-key", b"api-key", b"x-goog-api-key"):
            return (own, key)
    elif format_name.startswith("anthropic"):
        return (b"x-api-key", key)
    elif format_name.startswith("gemini"):
        return (b"x-goog-api-key", key)
    return (b"Authorization", b"Bearer " + key)
