from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.logging import REDACTED, configure_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def logged_as_json(event: str, **fields: object) -> dict[str, object]:
    structlog.reset_defaults()
    stream = io.StringIO()
    configure_logging(style="json", stream=stream)
    structlog.get_logger("access").info(event, **fields)
    (line, _) = stream.getvalue().split("\n")
    found: dict[str, object] = json.loads(line)
    return found


def test_line_is_json_with_level_logger_and_time() -> None:
    line = logged_as_json("request", key_id="alice", input_tokens=7, ratio=0.5)
    assert line.pop("at")
    expected = {"event": "request", "key_id": "alice", "input_tokens": 7, "ratio": 0.5}
    assert line == {**expected, "level": "info", "logger": "access"}


@pytest.mark.parametrize("field", ["prompt", "messages", "text", "authorization", "api_key", "key", "body", "headers"])
def test_field_is_blanked_when_it_may_carry_a_prompt_or_key(field: str) -> None:
    assert logged_as_json("request", **{field: ["something private"]})[field] == REDACTED


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("key sk-abcDEF123_-x was used", f"key {REDACTED} was used"),
        ("sk-ant-api03-AAAA", REDACTED),
        ("AIzaSyA1234567890abcdefghijklmno", REDACTED),
        ("Authorization: Bearer abc.def", f"Authorization: Bearer {REDACTED}"),
        ("GET /v1beta/models?alt=sse&key=abc123&x=1", f"GET /v1beta/models?alt=sse&key={REDACTED}&x=1"),
        ("redis://user:hunter2@host/0", f"redis://{REDACTED}@host/0"),
        ("task-force risk-free ask-me", "task-force risk-free ask-me"),
    ],
)
def test_text_is_scrubbed_of_what_looks_like_a_key(text: str, left: str) -> None:
    assert logged_as_json("event", note=text, nested={"deep": [text]})["note"] == left
    assert logged_as_json(text)["event"] == left


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(), st.text())
def test_no_value_can_forge_a_line(event: str, value: str) -> None:
    line = logged_as_json(event, model=value)
    assert set(line) == {"event", "model", "level", "logger", "at"}


def test_lone_surrogate_and_huge_number_are_logged_somehow() -> None:
    line = logged_as_json("odd", model="\ud800", big=2**80)
    assert "ud800" in str(line["model"])
    assert str(2**80) in str(line["big"])


def test_control_characters_are_shown_not_obeyed_when_on_a_terminal() -> None:
    stream = Terminal()
    configure_logging(style="auto", stream=stream)
    structlog.get_logger("access").info("a\nb", model="\x1b[2Jgone\r\u2028\u202e", note="sk-secret123")
    (line,) = stream.getvalue().splitlines()
    assert "\x1b[2J" not in line
    assert "\u202e" not in line
    assert "sk-secret123" not in line


def test_auto_is_json_when_not_on_a_terminal() -> None:
    stream = io.StringIO()
    configure_logging(style="auto", stream=stream)
    structlog.get_logger("x").warning("hello")
    assert json.loads(stream.getvalue())["level"] == "warning"


def test_level_silences_what_is_below() -> None:
    stream = io.StringIO()
    configure_logging(level="warning", style="json", stream=stream)
    structlog.get_logger("x").info("quiet")
    logging.getLogger("aiohttp").info("quiet")
    assert stream.getvalue() == ""


def test_library_messages_pass_the_same_guards() -> None:
    stream = io.StringIO()
    configure_logging(style="json", stream=stream)
    try:
        raise ValueError("sk-secret123\nforged")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("boom %s", "Bearer abc")
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["logger"], found["level"], found["event"]) == ("aiohttp.server", "error", f"boom Bearer {REDACTED}")
    assert "ValueError" in found["exception"]
    assert "secret123" not in line
