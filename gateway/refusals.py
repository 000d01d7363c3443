"""Why a request may not pass, as the error a caller sees: statuses, codes and waits of law 9."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.errors import BadRequest, BudgetRefused, Forbidden, GatewayError, StoreUnavailable, Unauthorized
from policies.model import KeyRefused, Refusal, StoreLost

STORE_RETRY_AFTER_S = 5.0
"""What callers are told to wait when the budget store is lost: reconnecting is tried more often than that."""


def error_for_refusal(refusal: Refusal) -> GatewayError:
    """The error for a budget's no."""
    details = {
        "budget": refusal.budget,
        "scope": refusal.scope,
        "unit": refusal.unit,
        "per": refusal.per,
        "limit": refusal.limit,
        "asked": refusal.asked,
        "available": refusal.available,
        "resets_at": write_time(refusal.resets_at),
    }
    match refusal.reason:
        case "window_full":
            return BudgetRefused(
                refusal.message,
                type="requests" if refusal.unit in ("requests", "concurrent") else "tokens",
                retry_after_s=refusal.retry_after_s,
                details=details,
            )
        case "quota_spent":
            return BudgetRefused(
                refusal.message,
                type="insufficient_quota",
                code="insufficient_quota",
                should_retry=False,
                details=details,
            )
        case "never_fits":
            return BudgetRefused(
                refusal.message,
                status=413,
                type="invalid_request_error",
                code="request_exceeds_budget",
                should_retry=False,
                details=details,
            )
        case "model_denied":
            return Forbidden(refusal.message, code="model_not_allowed", param="model", details=details)
        case "output_cap_required":
            return BadRequest(refusal.message, code="output_cap_required", param="max_tokens", details=details)


def error_for_key(refused: KeyRefused) -> Unauthorized:
    """The error for a credential that admits nobody."""
    return Unauthorized(str(refused), details={"reason": refused.reason}, should_retry=False)


def error_for_store(lost: StoreLost) -> StoreUnavailable:
    """The error for a budget store that cannot be reached."""
    return StoreUnavailable(
        f"The budget store cannot be reached, so nothing can be admitted: {lost}. Try again shortly.",
        retry_after_s=STORE_RETRY_AFTER_S,
    )


def write_time(at: float | None) -> str | None:
    """RFC 3339 in UTC with whole seconds, None where there is no such time."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
