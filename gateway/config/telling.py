"""The sections of config.yaml about what a gateway tells others: metrics, and the webhook."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from gateway.config.fields import Secret, mistake, option
from gateway.http.origin import Origin

Names = Annotated[int, Field(ge=0, le=10_000)]


def _webhook_url(value: Any) -> Any:
    remedy = "write `https://host/path`, where notices are to be posted to"
    if not isinstance(value, str) or not re.fullmatch(r"https?://[!-~]+", value) or "#" in value:
        raise mistake("is not a webhook", remedy)
    try:
        Origin.from_url(value)
    except ValueError:
        raise mistake("is not a webhook", remedy) from None
    return value


def _webhook_secret(value: str) -> str:
    if not value.startswith("whsec_"):
        return value
    try:
        base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        remedy = "take it over whole, or leave `whsec_` away to have it taken as it is"
        raise mistake("begins with `whsec_` and goes on with what is no base64", remedy) from None
    return value


WebhookUrl = Annotated[str, BeforeValidator(_webhook_url), WithJsonSchema({"type": "string", "pattern": "^https?://"})]
WebhookSecret = Annotated[Secret, AfterValidator(_webhook_secret)]


class MetricsSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    most_models: Names = option(
        100, "How many model names `gen_ai_*` metrics tell apart; later ones count as `other`.", example="100"
    )
    most_keys: Names = option(
        0, "How many keys `tollgate_key_tokens_total` tells apart; with 0 no metric names a key.", example="50"
    )


class WebhookSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: WebhookUrl = option(..., "Where notices are posted.", example="https://ops.example.com/tollgate")
    secret: WebhookSecret = option(
        ..., "What they are signed with (Standard Webhooks, HMAC-SHA256).", example="${TOLLGATE_WEBHOOK_SECRET}"
    )
