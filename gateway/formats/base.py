"""The contract every API dialect fulfils: bytes in, `Call` or `Usage` out, no sockets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from gateway.errors import GatewayError
from policies.usage import Usage
from tokenizers_offline.prompt import Prompt, TokenCount

if TYPE_CHECKING:
    from gateway.formats.early_end import EarlyEnd

Kind = Literal["generate", "embed", "count"]


@dataclass(frozen=True, slots=True)
class Route:
    """A path the format answers to. `pattern` is matched against the end of the decoded path
    (any prefix an upstream declares may stand before it); named groups reach `parse`."""

    method: str
    pattern: re.Pattern[str]
    kind: Kind


class Call(NamedTuple):
    """What the caller asks.

    `output_cap` is the caller's own cap for one answer (None: no cap named), `choices` how many answers
    it may produce in all (n, best_of, candidates, times the prompts in a batch). `body` is the parsed
    JSON object, kept so that a cap or a usage request can be written into it.
    """

    format: str
    kind: Kind
    model: str
    prompt: Prompt
    output_cap: int | None = None
    choices: int = 1
    stream: bool = False
    body: Mapping[str, Any] = {}
    wants_usage: bool = True
    """False when a streaming caller did not ask for the usage chunk, so that it must be hidden again."""


class UsageReader(Protocol):
    """Listens to one answer. Bytes may be split anywhere; nothing it is fed may make it raise."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next decoded bytes and return what to relay: the very same object unless the usage chunk
        must be hidden (then bytes may be withheld until the next call)."""
        ...

    def finish(self) -> bytes:
        """The answer ended: return withheld bytes, if any."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The provider's own figures as far as they have been seen; None when the answer carried none."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the answer ended the way its format ends (last event, full JSON), so that `usage` is final."""
        ...

    @property
    def output_text(self) -> str:
        """Text, tool arguments and reasoning relayed so far, to be counted when no usage came."""
        ...

    def output_since(self, piece: int) -> list[str]:
        """The pieces of a stream's output text from this one on."""
        ...


class RequestFormat(Protocol):
    """One API dialect. Stateless; every method is pure and safe on hostile input."""

    @property
    def name(self) -> str: ...

    @property
    def routes(self) -> tuple[Route, ...]: ...

    def credential(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        """The caller's key from where this API puts it. `headers` is case-insensitive."""
        ...

    def parse(self, route: Route, path: Mapping[str, str], body: bytes) -> Call:
        """Read a body. Raises `BadRequest` naming the field."""
        ...

    def usage_reader(self, call: Call, *, status: int, content_type: str) -> UsageReader: ...

    def render_error(self, error: GatewayError) -> tuple[int, dict[str, str], bytes]:
        """The error in this API's own shape: status, headers (content-type included), body."""
        ...

    def render_count(self, call: Call, count: TokenCount) -> bytes:
        """The answer of this API's own count endpoint. Raises `NotFound` where it has none."""
        ...

    def with_output_cap(self, call: Call, cap: int) -> bytes:
        """The body with the cap on one answer lowered to `cap`."""
        ...

    def early_end(self, call: Call, *, content_type: str) -> EarlyEnd | None:
        """What ends a stream of this content type in this API's own way before its upstream does; None where it cannot
        be ended so."""
        ...

    def with_usage_requested(self, call: Call) -> bytes | None:
        """The body asking the upstream for usage in its stream; None when it already comes by itself."""
        ...


def retry_headers(error: GatewayError) -> dict[str, str]:
    """The headers that tell an SDK whether and when to try again, plus the error's own.

    ``Retry-After`` is whole seconds rounded up (RFC 9110), ``retry-after-ms`` and ``x-should-retry`` are what the
    OpenAI and Anthropic SDKs read first.
    """
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        wait_ms = max(0, math.ceil(error.retry_after_s * 1000))
        headers["Retry-After"] = str(-(-wait_ms // 1000))
        headers["retry-after-ms"] = str(wait_ms)
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    return headers
