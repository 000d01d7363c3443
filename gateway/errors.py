"""One tree of what can go wrong for a caller; each format renders it in its own dialect.

GatewayError
├── BadRequest              400  malformed body, wrong field, missing model
├── Unauthorized            401  no key, unknown, disabled or expired key
├── Forbidden               403  model not allowed for this key, admin only
├── NotFound                404  no such path
│   └── ModelNotFound       404  unknown model, with the nearest names
├── MethodNotAllowed        405
├── RequestTimeout          408  head or body did not arrive in time
├── PayloadTooLarge         413  body over `server.max_body`
├── BudgetRefused           429 / 413  a budget says no (see `policies`)
├── Unavailable             503  overload, draining, tokenizer not installed
│   └── StoreUnavailable    503  the budget store cannot be reached
└── UpstreamError           502  refused, reset, garbage, TLS
    └── UpstreamTimeout     504
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class GatewayError(Exception):
    """An error a caller sees: `message` says what, which one and what to do next.

    `type` and `code` are OpenAI's words (other formats map them), `param` the offending field,
    `retry_after_s` the true wait, `should_retry` what SDKs are told (None: say nothing),
    `details` extra facts a format may show (budget, scope, asked, available, resets_at).
    """

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,  # noqa: A002 - the field's name on the wire
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status if status is not None else self.__class__.status
        self.type = type if type is not None else self.__class__.type
        self.code = code if code is not None else self.__class__.code
        self.param = param
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.headers = dict(headers or {})
        self.details = dict(details or {})


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class Unauthorized(GatewayError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(GatewayError):
    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class PayloadTooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class BudgetRefused(GatewayError):
    status = 429
    type = "tokens"
    code = "rate_limit_exceeded"


class Unavailable(GatewayError):
    status = 503
    type = "server_error"
    code = "unavailable"


class StoreUnavailable(Unavailable):
    code = "budget_store_unavailable"


class UpstreamError(GatewayError):
    status = 502
    type = "server_error"
    code = "upstream_error"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
