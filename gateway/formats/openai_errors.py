"""What all OpenAI dialects share at their edges: where the key sits and how an error looks."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import GatewayError
from gateway.formats.base import retry_headers
from gateway.formats.fields import write_object


def read_credential(headers: Mapping[str, str]) -> str | None:
    """The key from ``Authorization: Bearer`` or Azure's ``api-key``."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("api-key") or None


def render_openai_error(error: GatewayError) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an error in OpenAI's shape, with the error's details beside its four fields."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    body = write_object({"error": {**error.details, **fields}})
    return error.status, {"Content-Type": "application/json", **retry_headers(error)}, body
