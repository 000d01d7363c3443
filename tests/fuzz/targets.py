"""The doors that strangers' bytes come in by. A target takes choices, makes an input of them and pushes it through;
what it lets out is a bug, except the error that its callers are promised."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gateway.unmatched as unmatched
from gateway import access_logs, formats, refusing_connections
from gateway.config import ConfigError, load_settings
from gateway.decoding import decoder_for
from gateway.errors import GatewayError
from gateway.formats.base import Call, RequestFormat, Route
from gateway.http.answer import Answer
from gateway.http.answer_parser import AnswerParser
from gateway.http.errors import BadAnswer
from gateway.incoming import tidy
from gateway.logging import render_json
from policies.usage import Usage
from tests.conftest import MODELS_DIR
from tests.fuzz import seeds
from tests.fuzz.mutation import Source, mutate_bytes, mutate_json, pick, split
from tokenizers_offline.documents import count_pages, read_text
from tokenizers_offline.images import measure
from tokenizers_offline.payload import Payload
from tokenizers_offline.prompt import CountingError, MediaPart, TextPrompt

Target = Callable[[Source], int]
"""Returns the size of the input it tried."""

_ROUTES: list[tuple[RequestFormat, Route]] = [(fmt, route) for fmt in formats.FORMATS for route in fmt.routes]
_CONTENT_TYPES = (
    "application/json", "text/event-stream; charset=utf-8", "application/x-ndjson",
    "application/vnd.amazon.eventstream", "",
)  # fmt: skip


def _parsed(source: Source) -> tuple[RequestFormat, Call | None, int]:
    fmt, route = pick(source, _ROUTES)
    body = mutate_json(source, seeds.BODIES)
    groups = {name: pick(source, seeds.MODELS) for name in route.pattern.groupindex}
    try:
        return fmt, fmt.parse(route, groups, body), len(body)
    except GatewayError as error:
        fmt.render_error(error)
        return fmt, None, len(body)


def bodies(source: Source) -> int:
    """Request bodies of every format: read, and written again with a cap and a wish for usage."""
    fmt, call, size = _parsed(source)
    if call is not None and call.kind == "generate":  # no other has an output to cap
        json.loads(fmt.with_output_cap(call, 1 + source.below(1000)))
        fmt.with_usage_requested(call)
    return size


def prompts(source: Source) -> int:
    """The same, counted with the layout of any model."""
    _, call, size = _parsed(source)
    if call is None:
        return size
    try:
        count = _counter().count(
            pick(source, seeds.MODELS), call.prompt, platform=pick(source, ("", "ollama", "openai", "groq"))
        )
    except CountingError:
        return size
    assert 0 <= count.input_tokens <= count.upper, count
    return size


def answers(source: Source) -> int:
    """Answers of every dialect in any pieces, read by any format, and perhaps ended early."""
    data = mutate_bytes(source, seeds.ANSWERS)
    kind, status = pick(source, _CONTENT_TYPES), pick(source, (200, 200, 200, 500))
    fmt = pick(source, formats.FORMATS)
    call = Call(
        format=fmt.name, kind="generate", model="m", prompt=TextPrompt(()), stream=source.below(2) == 0,
        wants_usage=source.below(2) == 0
    )  # fmt: skip
    if source.below(6) == 0:
        reader: Any = unmatched.listener_for_unmatched("POST")(status, kind)
    else:
        reader = fmt.usage_reader(call, status=status, content_type=kind)
    end = fmt.early_end(call, content_type=kind)
    for piece in split(source, data):
        if reader is not None:
            reader.feed(piece)
        for event in end.split(piece) if end is not None else ():
            end.follow(event)  # type: ignore[union-attr]
    if reader is not None:
        reader.finish()
        usage = reader.usage
        assert usage is None or (usage.input_tokens >= 0 and usage.output_tokens >= 0), usage
        assert isinstance(reader.output_text, str)
        reader.output_since(0)
    if end is not None:
        for event in end.finish():
            end.follow(event)
        end.closing(Usage(1, 2))
    return len(data)


class _Nobody:
    def resume(self) -> None: ...

    def abandon(self, answer: Answer) -> None: ...


def http_answers(source: Source) -> int:
    """What an upstream may send as HTTP."""
    data = mutate_bytes(source, seeds.HTTP_ANSWERS)
    parser = AnswerParser("peer")
    answer = Answer(_Nobody(), loop=None)  # type: ignore[arg-type]
    parser.start(answer, is_head_request=source.below(4) == 0)
    try:
        for piece in split(source, data):
            parser.feed(piece)
            if parser.done:
                parser.start(answer, is_head_request=source.below(4) == 0)
    except BadAnswer:
        pass
    return len(data)


def configs(source: Source) -> int:
    """Configuration files."""
    data = mutate_bytes(source, seeds.CONFIGS)
    _scratch().write_bytes(data)
    try:
        load_settings(_scratch(), env={"A": "b"})
    except ConfigError as refused:
        str(refused)
    return len(data)


def access_lines(source: Source) -> int:
    """Lines of an access log."""
    line = mutate_json(source, seeds.LOG_LINES)
    with contextlib.suppress(access_logs.Malformed):
        access_logs.read_line(line)
    return len(line)


def files(source: Source) -> int:
    """Images and documents inside requests."""
    import base64

    data = mutate_bytes(source, seeds.FILES)
    text = base64.b64encode(data).decode()
    if source.below(5) == 0:
        text = mutate_bytes(source, [text.encode()]).decode("utf-8", "replace")
    measure(MediaPart("image", media_type="image/png", data=text))
    count_pages(Payload(text))
    read_text(Payload(text))
    return len(data)


_PACKED = (gzip.compress(b"data: {}\n\n" * 50), zlib.compress(b"x" * 5000), zlib.compress(b"x" * 5000)[2:-4])


def packed(source: Source) -> int:
    """Compressed answers."""
    data = mutate_bytes(source, _PACKED)
    decoder = decoder_for(pick(source, ("gzip", "deflate", "br", "zstd", "gzip, gzip", "identity", "\0")))
    if decoder is not None:
        for piece in split(source, data):
            for _ in decoder.feed(piece):
                pass
    return len(data)


def heads(source: Source) -> int:
    """The first bytes of a request that there is no room for, and paths."""
    head = mutate_bytes(source, seeds.HTTP_REQUESTS)
    refusing_connections.refusal(refusing_connections.FULL, head)
    path = mutate_bytes(source, seeds.PATHS)
    try:
        tidied = tidy(path.decode("utf-8", "replace"))
    except GatewayError:
        return len(head) + len(path)
    assert ".." not in tidied.split("/")
    formats.match("POST", tidied)
    return len(head) + len(path)


def log_lines(source: Source) -> int:
    """Whatever ends up in a log line: it stays one line of JSON."""
    value = mutate_bytes(source, (*seeds.PATHS, b"Bearer sk-secret", b"://user:pass@host", b"x://" + b"a:" * 200))
    line = render_json(None, "", {"event": "request", "path": value.decode("utf-8", "surrogateescape")})
    assert b"\n" not in line
    json.loads(line)
    return len(value)


TARGETS: dict[str, Target] = {
    each.__name__: each
    for each in (bodies, prompts, answers, http_answers, configs, access_lines, files, packed, heads, log_lines)
}


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="tollgate-fuzz-")) / "config.yaml"


@cache
def _counter() -> Any:
    from gateway.app import load_tokenizers
    from gateway.settings import Settings, TokenizerSettings
    from policies.policy import Policy

    return load_tokenizers(Settings(policy=Policy(), tokenizers=TokenizerSettings(dir=MODELS_DIR)))
