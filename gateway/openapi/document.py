"""The OpenAPI document of the endpoints that an application answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gateway.openapi.answers import ErrorAnswer
from gateway.openapi.operations import OPERATIONS, Operation

Schemas = Mapping[Any, Any]
"""What stands for a (model, mode) in the document."""

DESCRIPTION = """\
Tollgate's own endpoints: counting, budgets, admissions, administration.

Requests to providers' APIs (`/v1/chat/completions`, `/v1/messages`, ...) are forwarded and described by the providers.
Other proxies ask at `/v1/ext_authz/...` (Envoy) and `/v1/auth_request/...` (nginx), with the path and method of the
request that they are about to forward.
"""

_REASONS = {
    400: "The request is wrong; the message names the field.",
    401: "No key, or one that admits nobody.",
    403: "Not for this key; administration is closed where no admin key is configured.",
    404: "There is no such thing.",
    409: "It cannot be done as things stand.",
    413: "The body, or what it asks of a budget, is larger than can ever pass.",
    429: "A budget refuses; `Retry-After` says when it would not.",
    503: "The budget store cannot be reached, or a tokenizer is not installed.",
}
_SECURITY: Mapping[str, list[dict[str, list[str]]]] = {
    "key": [{"key": []}, {"key_header": []}],
    "admin": [{"admin_key": []}, {"admin_key_header": []}],
}
_SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "A caller's key."},
    "key_header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "A caller's key."},
    "admin_key": {"type": "http", "scheme": "bearer", "description": "The admin key."},
    "admin_key_header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The admin key."},
}


def describe(endpoints: Iterable[tuple[str, str]], *, version: str) -> dict[str, Any]:
    """The document for these (method, path), in their order. Raises KeyError for one that `OPERATIONS` lacks."""
    operations = {(method, path): OPERATIONS[method, path] for method, path in endpoints}
    schemas, definitions = _schemas(operations.values())
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in operations.items():
        paths.setdefault(path, {})[method.lower()] = _describe_operation(method, path, operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tollgate", "version": version, "description": DESCRIPTION},
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": definitions, "securitySchemes": _SCHEMES},
    }


def _schemas(operations: Iterable[Operation]) -> tuple[Schemas, dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(ErrorAnswer, "serialization"): None}
    for operation in operations:
        if operation.body is not None:
            wanted[operation.body, "validation"] = None
        for answer in operation.answers.values():
            if not isinstance(answer, str):
                wanted[answer, "serialization"] = None
    schemas, definitions = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    named: dict[str, Any] = definitions["$defs"]
    return schemas, named


def _describe_operation(method: str, path: str, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    words = [word for word in re.split(r"[^a-z0-9]+", path) if word not in ("", "v1", "id", "name")]
    described: dict[str, Any] = {
        "operationId": "_".join([method.lower(), *words]) + ("_one" if path.endswith("}") else ""),
        "summary": operation.summary,
        "tags": [words[0] if operation.caller == "admin" else "budgets" if operation.caller == "key" else "gateway"],
        "responses": _responses(operation, schemas),
    }
    example = {} if operation.path_example is None else {"example": operation.path_example}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}, **example}
        for name in re.findall(r"{(\w+)}", path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}, "example": shown}
        for name, meaning, shown in operation.query
    ]
    if operation.parameters is not None:
        parameters += _read_as(operation.parameters)
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        content = {"schema": schemas[operation.body, "validation"]}
        if operation.example is not None:
            content["example"] = operation.example
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": content},
        }
    elif operation.media:
        media = {kind: {"schema": {}, "example": example} for kind, example in operation.media.items()}
        described["requestBody"] = {"required": False, "content": media}
    if operation.caller != "anyone":
        described["security"] = _SECURITY[operation.caller]
    return described


def _read_as(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The query parameters that a model is read from."""
    schema = model.model_json_schema(mode="validation")
    definitions = schema.get("$defs", {})
    described = []
    for name, field in schema["properties"].items():
        inner = definitions.get(field.get("$ref", "").rpartition("/")[2], {})
        kinds = [each for each in field.get("anyOf", ()) if each.get("type") != "null"]
        wanted = {**inner, **(kinds[0] if kinds else {}), **field}
        meaning = wanted.pop("description", "")
        schema_of = {key: value for key, value in wanted.items() if key not in ("$ref", "anyOf", "title", "default")}
        described.append({"name": name, "in": "query", "description": meaning, "schema": schema_of})
    return described


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        if isinstance(answer, str):
            content: dict[str, Any] = {answer: {}}
            description = operation.summary
        else:
            content = {"application/json": {"schema": schemas[answer, "serialization"]}}
            description = (answer.__doc__ or operation.summary).strip()
        responses[str(status)] = {"description": description, "content": content}
    error = {"application/json": {"schema": schemas[ErrorAnswer, "serialization"]}}
    for status in operation.all_errors:
        responses[str(status)] = {"description": _REASONS[status], "content": error}
    return responses
