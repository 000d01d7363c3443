"""An upstream that does what a case's metadata says, and keeps its own journal of what it served.

    python -m benchmarks.overspend.upstream PORT

It speaks OpenAI's chat completions, counts prompts itself, and tells its journal at GET /journal.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvloop

from benchmarks.overspend.cases import FRAME_TOKENS

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class LedgerUpstream:
    """The server. Each try of a case is a line of the journal: what it cost, as a provider would bill it."""

    def __init__(self) -> None:
        self.journal: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").rstrip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if first.startswith("GET /journal"):
                    _answer(writer, 200, self.journal)
                elif not await self._chat(json.loads(body), reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _chat(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may serve another request."""
        plan = body["metadata"]
        prompt = sum(len(message["content"].split()) + FRAME_TOKENS for message in body["messages"])
        line = {
            "case": int(plan["case"]),
            "input": prompt,
            "output": 0,
            "answered": False,
            "complete": False,
        }
        self.journal.append(line)
        fate, output = plan["fate"], int(plan["output"])
        pause_s, pieces = int(plan["pause_ms"]) / 1000, int(plan["pieces"])
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        if fate in ("error", "busy"):
            await asyncio.sleep(pause_s / 4)
            _answer(writer, 500 if fate == "error" else 429, {"error": {"message": "not now", "type": "server_error"}})
            return True
        if fate == "refuse":
            await asyncio.sleep(pause_s / 4)
            return False
        if fate in ("whole", "whole_silent"):
            await asyncio.sleep(pause_s)
            if reader.at_eof():
                return False
            line.update(answered=True, complete=True, output=output)
            message = {"role": "assistant", "content": " word" * output}
            answer = {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
            if fate == "whole":
                answer["usage"] = usage
            _answer(writer, 200, answer)
            return True
        line["answered"] = True
        writer.write(HEAD)
        asked_for_usage = (body.get("stream_options") or {}).get("include_usage")
        tells_usage = fate == "stream" and asked_for_usage
        for number in range(pieces):
            await asyncio.sleep(pause_s)
            if fate == "cut" and number == pieces - 1:
                return False
            if reader.at_eof() or writer.transport.is_closing():
                return False
            words = output // pieces + (number < output % pieces)
            _event(writer, {"choices": [{"index": 0, "delta": {"content": " word" * words}, "finish_reason": None}]})
            line["output"] += words
        _event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if tells_usage:
            _event(writer, {"choices": [], "usage": usage})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        line["complete"] = True
        await writer.drain()
        return True


def _event(writer: asyncio.StreamWriter, fields: dict[str, Any]) -> None:
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", **fields}
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def _answer(writer: asyncio.StreamWriter, status: int, body: Any) -> None:
    data = json.dumps(body).encode()
    writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(data)))
    writer.write(data)


async def _main(port: int) -> None:
    server = await asyncio.start_server(LedgerUpstream().serve, "127.0.0.1", port, limit=2**20, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
