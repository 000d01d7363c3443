"""A mock upstream on uvloop: answers at once, in JSON, or in events when the body asks for a stream.

A streamed answer has `max_tokens` events, `seed` milliseconds apart. Runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import re
from typing import cast

import httptools
import uvloop

_USAGE = b'"usage":{"prompt_tokens":180,"completion_tokens":27,"total_tokens":207}'
_HEAD = b'{"id":"chatcmpl-mock","object":"chat.completion","created":1700000000,"model":"gpt-4o","choices":[{"index":0,'
_BODY = _HEAD + b'"message":{"role":"assistant","content":"' + b"The quick brown fox. " * 6
_BODY += b'"},"finish_reason":"stop"}],' + _USAGE + b"}"
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_DELTA = b"data: " + _HEAD + b'"delta":{"content":" token"},"finish_reason":null}]}\n\n'
_LAST = b"data: " + _HEAD + b'"delta":{},"finish_reason":"stop"}],' + _USAGE + b"}\n\ndata: [DONE]\n\n"
_NUMBER = {name: re.compile(rb'"%s":\s*(\d+)' % name) for name in (b"max_tokens", b"seed")}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class _Talk(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._left = 0
        self._every_s = 0.0

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        if b'"stream": true' not in body and b'"stream":true' not in body:
            self._transport.write(_JSON)
            return
        count, spacing = (_NUMBER[name].search(body) for name in (b"max_tokens", b"seed"))
        self._left = int(count[1]) if count else 20
        self._every_s = int(spacing[1]) / 1000 if spacing else 0.0
        self._transport.write(_EVENTS)
        self._next()

    def _next(self) -> None:
        if self._transport.is_closing():
            return
        if self._left:
            self._left -= 1
            self._transport.write(_chunk(_DELTA))
            asyncio.get_running_loop().call_later(self._every_s, self._next)
        else:
            self._transport.write(_chunk(_LAST) + b"0\r\n\r\n")


def serve(port: int) -> None:
    """Answer on a loopback port until the process is ended."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Talk, "127.0.0.1", port)
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
