"""``/admin/keys``: who may call. Keys of the configuration are listed and not changed."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated, TypeVar

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr, WithJsonSchema

from gateway.audit import audit
from gateway.config.names import NAME_PATTERN, is_name
from gateway.describing import audited_key, describe_key
from gateway.endpoints.answers import answer, read_as, read_json
from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.moments import read_moment
from gateway.runtime import RUNTIME, Runtime
from policies.keyring import KeptKey, Keyring, KeyringError
from policies.windows import time_zone

if TYPE_CHECKING:
    from policies.model import Key

T = TypeVar("T")


def _checked_name(text: str) -> str:
    if not is_name(text):
        raise ValueError("is not a name; use letters, digits and . _ - + @, beginning with a letter or digit")
    return text


Name = Annotated[
    StrictStr, AfterValidator(_checked_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"})
]
Tags = dict[Name, Annotated[StrictStr, Field(max_length=256)]]


class CreateRequest(BaseModel):
    """A new key. `expires` is a date, a time or a duration from now."""

    model_config = ConfigDict(extra="forbid")

    id: Name
    tags: Tags = {}
    expires: StrictStr | None = None


class ExpireRequest(BaseModel):
    """When a key is refused by itself: a date, a time or a duration from now; null for never, now when left out."""

    model_config = ConfigDict(extra="forbid")

    at: StrictStr | None = "0s"


class TagsRequest(BaseModel):
    """All tags that a key is to have."""

    model_config = ConfigDict(extra="forbid")

    tags: Tags


async def list_keys(request: web.Request) -> web.Response:
    """Every key: the configuration's and the store's."""
    runtime = await _looked(request)
    data = [_described(runtime, key) for key in runtime.policy.keys]
    return answer({"object": "list", "data": data, "unused": sorted(_unused(runtime))})


async def show(request: web.Request) -> web.Response:
    """One key."""
    runtime = await _looked(request)
    key_id = request.match_info["id"]
    for key in runtime.policy.keys:
        if key.id == key_id:
            return answer(_described(runtime, key))
    raise _unknown(key_id)


async def create(request: web.Request) -> web.Response:
    """Make a key; its credential stands in this answer and nowhere else."""
    asked = read_as(CreateRequest, await read_json(request))
    runtime = await _looked(request)
    now = runtime.clock()
    expires = _moment(runtime, asked.expires, field="expires") if asked.expires is not None else None
    was_open = not runtime.policy.keys
    made, credential = await _done(_ring(runtime).create(asked.id, tags=asked.tags, expires=expires, now=now))
    audit(request, "key_created", key_id=asked.id, before=None, after=audited_key(made.key))
    body = {"key": credential, **await _now(request, made)}
    if was_open:
        body["warning"] = "This is the first key: from now on callers without a key are refused."
    return answer(body, status=201)


async def rotate(request: web.Request) -> web.Response:
    """Give a key a new credential, shown in this answer and nowhere else; the old one is refused at once."""
    runtime = await _looked(request)
    key_id = request.match_info["id"]
    made, credential = await _done(_ring(runtime).rotate(key_id, now=runtime.clock()))
    audit(request, "key_rotated", key_id=key_id, before=audited_key(made.key), after=audited_key(made.key))
    return answer({"key": credential, **await _now(request, made)})


async def disable(request: web.Request) -> web.Response:
    """Refuse a key from now on."""
    return await _set_disabled(request, disabled=True)


async def enable(request: web.Request) -> web.Response:
    """Admit a disabled key again."""
    return await _set_disabled(request, disabled=False)


async def expire(request: web.Request) -> web.Response:
    """Say when a key is refused by itself."""
    asked = read_as(ExpireRequest, await read_json(request) if request.body_exists else {})
    runtime = await _looked(request)
    at = _moment(runtime, asked.at, field="at") if asked.at is not None else None
    key_id = request.match_info["id"]
    before = await _done(_ring(runtime).find(key_id))
    after = await _done(_ring(runtime).expire(key_id, at=at, now=runtime.clock()))
    return await _changed(request, "key_expires", before, after)


async def retag(request: web.Request) -> web.Response:
    """Replace a key's tags."""
    asked = read_as(TagsRequest, await read_json(request))
    runtime = await _looked(request)
    key_id = request.match_info["id"]
    before = await _done(_ring(runtime).find(key_id))
    after = await _done(_ring(runtime).retag(key_id, asked.tags, now=runtime.clock()))
    return await _changed(request, "key_retagged", before, after)


async def _set_disabled(request: web.Request, *, disabled: bool) -> web.Response:
    runtime = await _looked(request)
    key_id = request.match_info["id"]
    before = await _done(_ring(runtime).find(key_id))
    after = await _done(_ring(runtime).disable(key_id, disabled=disabled, now=runtime.clock()))
    return await _changed(request, "key_disabled" if disabled else "key_enabled", before, after)


async def _changed(request: web.Request, action: str, before: KeptKey, after: KeptKey) -> web.Response:
    audit(request, action, key_id=after.key.id, before=audited_key(before.key), after=audited_key(after.key))
    return answer(await _now(request, after))


async def _looked(request: web.Request) -> Runtime:
    """The runtime with the newest of what operators changed, here or through another worker."""
    holder = request.app[RUNTIME]
    await holder.current.notes.look()
    return holder.current


async def _now(request: web.Request, kept: KeptKey) -> dict[str, object]:
    """A key that has just been changed, which this worker then knows too."""
    runtime = await _looked(request)
    return describe_key(kept.key, kept=kept, now=runtime.clock())


def _ring(runtime: Runtime) -> Keyring:
    return Keyring(runtime.engine.store, runtime.settings.policy.keys)


async def _done(change: Awaitable[T]) -> T:
    try:
        return await change
    except KeyringError as error:
        match error.reason:
            case "unknown":
                raise NotFound(str(error), param="id", code="key_not_found") from None
            case "configured":
                status, code = 409, "key_is_configured"
            case "taken":
                status, code = 409, "key_exists"
            case "changed":
                status, code = 409, "key_changed"
        raise GatewayError(str(error), status=status, type="invalid_request_error", param="id", code=code) from None


def _described(runtime: Runtime, key: Key) -> dict[str, object]:
    kept = runtime.kept.get(key.id)
    return describe_key(key, kept=kept if kept is not None and kept.key is key else None, now=runtime.clock())


def _unused(runtime: Runtime) -> set[str]:
    """Kept keys that clash with the configuration's."""
    used = {id(key) for key in runtime.policy.keys}
    return {key_id for key_id, kept in runtime.kept.items() if id(kept.key) not in used}


def _moment(runtime: Runtime, text: str, *, field: str) -> float:
    try:
        return read_moment(text, now=runtime.clock(), zone=time_zone(runtime.policy.time_zone), ahead=True)
    except ValueError as error:
        raise BadRequest(f"'{field}': {error}.", param=field, code="invalid_value") from None


def _unknown(key_id: str) -> NotFound:
    return NotFound(f"There is no key '{key_id}'; GET /admin/keys lists them.", param="id", code="key_not_found")
