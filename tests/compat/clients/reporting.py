"""What every client does alike: run the cells it is told of, and print one JSON line for each.

The runner writes ``{cell: {"url": ..., "key": ...}}`` to standard input. A cell is a function of the URL and the key;
it raises where the client did not get what it should, and may return ``{"text": ...}``, what it has read.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

Cell = Callable[[str, str], dict[str, Any] | None]

HELLO = "Hello there, how are you?"
LONG = "Count with me: " + " ".join(f"number {n}," for n in range(1, 90))
WEATHER = "What is the weather in Paris?"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather", "parameters": SCHEMA},
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PIXEL_URL = f"data:image/png;base64,{PIXEL}"
SEES = [
    {"type": "text", "text": HELLO},
    {"type": "image_url", "image_url": {"url": PIXEL_URL}},
]
PIECES = 4
"""So many pieces of a stream are read before it is cancelled."""


def expect(condition: object, seen: object = "") -> None:
    """Raise where the client did not get what it should."""
    if not condition:
        raise AssertionError(f"not what was expected: {seen!r}")


def raises(wanted: type[BaseException], call: Callable[[], object]) -> BaseException:
    """Return the refusal as this client shows it."""
    try:
        answer = call()
    except wanted as error:
        return error
    raise AssertionError(f"no {wanted.__name__}, but {answer!r}")


def run(**cells: Cell) -> None:
    """Run the cells that standard input names."""
    for name, told in json.load(sys.stdin).items():
        result: dict[str, Any] = {"cell": name}
        try:
            result |= cells[name](told["url"], told["key"]) or {}
        except Exception:
            result["error"] = traceback.format_exc(limit=-4)
        print("@@" + json.dumps(result), flush=True)
