"""Structured logs: JSON lines for machines, colours for a terminal, secrets and prompt text for nobody.

Loggers come from ``structlog.get_logger(name)``; the standard library's loggers (aiohttp, asyncio, gunicorn) end in
the same chain. Every line passes two guards: fields that carry prompts or credentials by name are blanked, and
the finished line is scrubbed of anything that looks like a key. The line of each request passes the same guards on a
shorter way (`log_access`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal, TextIO

import orjson
import structlog

EventDict = MutableMapping[str, Any]
REDACTED = "[redacted]"

SECRET_FIELDS = frozenset(
    {
        "api_key",
        "authorization",
        "body",
        "content",
        "cookie",
        "credential",
        "credentials",
        "headers",
        "input",
        "key",
        "messages",
        "password",
        "prompt",
        "secret",
        "text",
        "texts",
        "upstream_key",
        "x-api-key",
        "x-goog-api-key",
    }
)
"""Fields whose values are never written, whoever logs them. A caller is named by `key_id`."""

_SHAPES_TO_HIDE = (
    r"\bsk-[A-Za-z0-9_-]{3,}"  # OpenAI, Anthropic, OpenRouter, DeepSeek and Tollgate's own
    r"|\bAIza[A-Za-z0-9_-]{20,}"  # Google
    r"|\b(?:gsk_|xai-|hf_|r8_|tg-)[A-Za-z0-9_-]{16,}"  # Groq, xAI, Hugging Face, Replicate, Tollgate
    # In a finished line a quote inside a value is two bytes, \" : taken whole, or the rest would end the value there.
    r"|(?<=[Bb]earer )(?:[^\s\"',\\]|\\.)+"
    r"|(?<=[?&]key=)(?:[^\s&\"',\\]|\\.)+"
    r"|(?<=://)[^\s/@:\"'\\]*:(?:[^\s/@\"'\\]|\\.)+(?=@)"  # user:password in a store's URL
)
_SIGNS = (b"sk-", b"AIza", b"gsk_", b"xai-", b"hf_", b"r8_", b"tg-", b"earer ", b"key=", b"://")
"""One of these is in every shape: looking for them costs a hundredth of the search itself."""
_SECRET_TEXT = re.compile(_SHAPES_TO_HIDE)
_SECRET_BYTES = re.compile(_SHAPES_TO_HIDE.encode())
_OBEYED_BYTES = re.compile(b"\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]")
"""What JSON leaves as it is and a terminal obeys: C1 controls, line separators, marks that reorder or hide text."""
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]")


def configure_logging(
    *,
    level: str = "INFO",
    style: Literal["json", "console", "auto"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Set up structlog and the standard library's root logger, to `stream` (default: standard output).

    ``auto`` writes for people when the stream is a terminal and JSON otherwise.
    """
    global _access_lines
    stream = stream or sys.stdout
    threshold = logging.getLevelNamesMapping()[level.upper()]
    as_json = style == "json" or (style == "auto" and not stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        redact_fields,
    ]
    renderers: list[structlog.typing.Processor]
    factory: Any
    if as_json:
        in_bytes = hasattr(stream, "buffer")
        renderers = [render_json] if in_bytes else [render_json, _decode]
        factory = _BytesLoggers(stream.buffer) if in_bytes else _TextLoggers(stream)
        _access_lines = _Lines(stream.buffer) if in_bytes and threshold <= logging.INFO else None
    else:
        _access_lines = None
        console = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
        )
        renderers = [_make_plain, console, _scrub_text]
        factory = _TextLoggers(stream)
    structlog.configure(
        processors=[_name_logger, *shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    final: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers]
    if as_json and renderers[-1] is render_json:
        final.append(_decode)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared], processors=final
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.INFO))
    logging.captureWarnings(True)


def log_access(fields: dict[str, Any], *, at: float) -> None:
    """Write the line of a request, as ``get_logger("access").info("request", ...)`` would, for a fifth of the cost.

    `at` is Unix time. Lines of one turn of the event loop are written together, before the next turn.
    """
    if _access_lines is None:
        _access.info("request", **fields)
        return
    fields["event"], fields["logger"], fields["level"] = "request", "access", "info"
    fields["at"] = datetime.fromtimestamp(at, UTC)
    _access_lines.add(render_json(None, "info", redact_fields(None, "info", fields)))


def redact_fields(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Blank the fields that carry credentials or prompt text."""
    if not SECRET_FIELDS.isdisjoint(event):
        for name in SECRET_FIELDS & event.keys():
            event[name] = REDACTED
    return event


def render_json(_logger: Any, _method: str, event: EventDict) -> bytes:
    """One line of JSON (what a terminal would obey is escaped, so a value cannot forge a line), scrubbed of keys."""
    try:
        line = orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)
    except TypeError:  # a lone surrogate, or a number beyond 64 bits: the standard library escapes and writes both
        line = json.dumps(
            {str(name): _without_surrogates(value) for name, value in event.items()}, default=repr
        ).encode()
    if not line.isascii():
        line = _OBEYED_BYTES.sub(_escaped, line)
    for sign in _SIGNS:
        if sign in line:
            return _SECRET_BYTES.sub(REDACTED.encode(), line)
    return line


def _without_surrogates(value: Any) -> Any:
    """Strict readers refuse a line with a lone surrogate in it: nobody shall hide a line so."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())


def _scrub_text(_logger: Any, _method: str, line: Any) -> str:
    return _SECRET_TEXT.sub(REDACTED, line)


def _decode(_logger: Any, _method: str, line: Any) -> str:
    return str(line, "utf-8", "replace")


def _make_plain(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Show control characters instead of obeying them (a traceback keeps its line breaks), and scrub keys here too:
    between colour codes they would not stand out any more."""
    for name, value in event.items():
        if not isinstance(value, str):
            continue
        text = _SECRET_TEXT.sub(REDACTED, value)
        if name != "exception":
            text = _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
        event[name] = text
    return event


def _name_logger(logger: Any, _method: str, event: EventDict) -> EventDict:
    event["logger"] = logger.name
    return event


class _Lines:
    """Finished lines on their way to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting: list[bytes] = []

    def add(self, line: bytes) -> None:
        self._waiting.append(line)
        if len(self._waiting) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self._write)
        except RuntimeError:  # no loop: nobody else will come this turn
            self._write()

    def _write(self) -> None:
        self._waiting.append(b"")
        whole = b"\n".join(self._waiting)
        self._waiting.clear()
        self._file.write(whole)
        self._file.flush()


_access = structlog.get_logger("access")
_access_lines: _Lines | None = None
"""Where lines of requests go; None where they are made for people, or not at all."""


class _NamedBytesLogger(structlog.BytesLogger):
    name = "tollgate"


class _NamedTextLogger(structlog.PrintLogger):
    name = "tollgate"


class _BytesLoggers:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __call__(self, *names: str) -> _NamedBytesLogger:
        logger = _NamedBytesLogger(self._file)
        if names:
            logger.name = names[0]
        return logger


class _TextLoggers:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, *names: str) -> _NamedTextLogger:
        logger = _NamedTextLogger(self._file)
        if names:
            logger.name = names[0]
        return logger
