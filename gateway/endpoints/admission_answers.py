"""The end of an admission, told by the provider's answer itself: read here as if it had passed through."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.account import Account
from gateway.admitting import UNMATCHED
from gateway.endpoints.admission_usage import FORMAT_BY_NAME
from gateway.endpoints.admissions import find_admission, repeated
from gateway.endpoints.answers import answer, read_as
from gateway.endpoints.budgets import describe
from gateway.errors import BadRequest
from gateway.exchange import EXCHANGE, Exchange
from gateway.formats.base import Call, UsageReader
from gateway.incoming import read_body
from gateway.runtime import RUNTIME
from gateway.unmatched import listener_for_unmatched
from policies.ledger import LedgerEntry
from policies.model import Key, Reservation
from tokenizers_offline.prompt import Accuracy, TextPrompt, TokenCount


class Facts(BaseModel):
    """What the admission put into the path of its answer; `status` is the provider's, and the caller's to add."""

    model_config = ConfigDict(extra="ignore")

    format: str = Field(UNMATCHED, description="As the admission's `answer_to` says, like the three below.")
    input_tokens: Annotated[int, Field(ge=0, le=10**12)] | None = Field(None, description="What was counted.")
    accuracy: Accuracy = Field(Accuracy.ESTIMATE, description="How exact that is.")
    stream: bool = Field(False, description="Whether the answer was asked for as a stream.")
    status: Annotated[int, Field(ge=100, le=599)] = Field(
        200, description="The provider's status where it is not 200; the caller's to add."
    )


async def take_answer(request: web.Request) -> web.Response:
    """Settle an admission by the provider's answer, whole or cut short: by its usage, or else by what it says."""
    runtime = request.app[RUNTIME].current
    exchange = request[EXCHANGE]
    facts = read_as(Facts, dict(request.query))
    content_type = request.headers.get("Content-Type", "")
    reader = _reader(facts, content_type=content_type)
    body = await read_body(request, max_body_bytes=runtime.settings.server.max_body_bytes)
    found = await find_admission(runtime, request, key=None)
    if isinstance(found, LedgerEntry):
        return await repeated(runtime, found, "settled" if facts.status < 300 else "released")
    _continue(exchange, found, facts)
    account = Account(runtime, exchange, found)
    account.progress = "sent"
    listening = account.answered(facts.status, reader)
    if listening is not None:
        exchange.relayed_bytes = len(body)
        listening.feed(body)
        listening.finish()
        exchange.outcome = "ok" if listening.complete else "cut"
    elif facts.status >= 300:
        exchange.outcome = "declined"
    await account.close()
    usage = exchange.usage
    if usage is None:
        return answer({"id": found.id, "released": True, "budgets": describe(exchange.statuses)})
    return answer(
        {
            "id": found.id,
            "settled": True,
            "usage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_tokens": usage.cached_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
                "source": usage.source,
            },
            "budgets": describe(exchange.statuses),
        }
    )


def _reader(facts: Facts, *, content_type: str) -> UsageReader | None:
    if facts.format == UNMATCHED:
        return listener_for_unmatched("POST")(facts.status, content_type)
    fmt = FORMAT_BY_NAME.get(facts.format)
    if fmt is None:
        raise BadRequest(
            f"There is no format '{facts.format}'. Send the answer to the `answer_to` of its admission as it is.",
            param="format",
        )
    call = Call(format=fmt.name, kind="generate", model="", prompt=TextPrompt(()), stream=facts.stream)
    return fmt.usage_reader(call, status=facts.status, content_type=content_type)


def _continue(exchange: Exchange, reservation: Reservation, facts: Facts) -> None:
    """Let an exchange stand for the one that was admitted, so that it is measured and written down like any other."""
    subject = reservation.subject
    exchange.id = reservation.id
    exchange.key = Key(id=subject.key_id, digest="", tags=subject.tags)
    exchange.model = subject.model
    exchange.upstream = subject.upstream
    exchange.format = FORMAT_BY_NAME.get(facts.format)
    exchange.stream = facts.stream
    exchange.choices = reservation.choices
    exchange.held_input = reservation.held_input
    exchange.held_output = reservation.held_output
    if facts.input_tokens is not None:
        counted = min(facts.input_tokens, reservation.held_input)
        exchange.count = TokenCount(counted, facts.accuracy, upper=reservation.held_input, encoding="")
