"""What the direct endpoints have in common: strict JSON in, JSON out, errors in one shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway.errors import BadRequest, GatewayError
from gateway.formats.fields import read_object
from gateway.incoming import read_body
from gateway.runtime import RUNTIME

_Model = TypeVar("_Model", bound=BaseModel)


def answer(value: Mapping[str, Any], *, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def error_body(error: GatewayError) -> bytes:
    """``{"error": {message, type, param, code}}``, with the error's own details beside them."""
    return orjson.dumps(
        {
            "error": {
                **error.details,
                "message": error.message,
                "type": error.type,
                "param": error.param,
                "code": error.code,
            }
        }
    )


async def read_json(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises `BadRequest` or `PayloadTooLarge`."""
    runtime = request.app[RUNTIME].current
    return read_object(await read_body(request, max_body_bytes=runtime.settings.server.max_body_bytes))


def read_as(model: type[_Model], value: Mapping[str, Any]) -> _Model:
    """The object as `model`. Raises `BadRequest` naming the first wrong field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = _write_path(first["loc"])
        raise BadRequest(
            f"'{field}': {first['msg']}." if field else f"{first['msg']}.",
            param=field or None,
            code="missing_required_parameter" if first["type"] == "missing" else "invalid_value",
        ) from None


def _write_path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


async def refuse_method(request: web.Request) -> web.StreamResponse:
    """For a direct endpoint called with another method."""
    resource = request.match_info.route.resource
    allowed = request.app[METHODS].get(resource.canonical, "") if resource is not None else ""
    raise GatewayError(
        f"{request.path} does not answer {request.method}; use {allowed}.",
        status=405,
        type="invalid_request_error",
        code="method_not_allowed",
        headers={"Allow": allowed},
    )


METHODS = web.AppKey("methods", dict[str, str])
"""Which methods each direct endpoint answers, by its path."""
