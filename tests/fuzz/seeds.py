"""Good inputs to begin with: requests, answers and files as they really look."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where", "enum": ["Rome", "Paris"]},
        "days": {"type": "integer", "minimum": 1, "default": 3},
        "at": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
    },
    "required": ["city"],
    "$defs": {"tag": {"type": "object", "properties": {"name": {"type": "string"}}}},
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}


def png(width: int = 64, height: int = 48) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 200)) + chunk(b"IEND", b"")
    )


JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffdb0004000affc0001108003000400301220002110103110100ffd9")
GIF = b"GIF89a\x40\x00\x30\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff;"
WEBP = b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x3f\xc0\x0b\x00\x07\x10\x11\x11\x88\x88\xfe\x07\x00"
BMP = b"BM" + b"\0" * 12 + struct.pack("<IiiHH", 40, 64, -48, 1, 24) + b"\0" * 24
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Count 2/Kids[3 0 R]>>endobj\n"
    b"3 0 obj<</Type/Page/Contents 4 0 R>>endobj\n4 0 obj<</Length 99/Filter/FlateDecode>>stream\n"
    + zlib.compress(b"BT /F1 12 Tf (Hello) Tj [(W) -20 (orld)] TJ <0041> Tj ET")
    + b"\nendstream endobj\n5 0 obj<</Length 9>>stream\nbeginbfchar <0041> <0061> endbfchar\nendstream endobj\n%%EOF"
)
FILES = (png(), JPEG, GIF, WEBP, BMP, PDF, gzip.compress(b"text"))


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


_PICTURE = {"type": "image_url", "image_url": {"url": data_url("image/png", png()), "detail": "low"}}
_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}

CHAT = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, _PICTURE], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "out", "schema": SCHEMA, "strict": True}},
    "max_tokens": 50,
    "n": 2,
    "stream": True,
    "stream_options": {"include_usage": False},
    "chat_template_kwargs": {"enable_thinking": False},
}
RESPONSES = {
    "model": "gpt-5",
    "instructions": "Be brief.",
    "input": [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": "data:,"}],
        },
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "text": {"format": {"type": "json_schema", "name": "out", "schema": SCHEMA}},
    "reasoning": {"effort": "low"},
    "max_output_tokens": 50,
    "stream": True,
}
ANTHROPIC = {
    "model": "claude-sonnet-4-5",
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/gif", "data": base64.b64encode(GIF).decode()},
                },
                {
                    "type": "document",
                    "source": {
                        "type": "base64",
                        "media_type": "application/pdf",
                        "data": base64.b64encode(PDF).decode(),
                    },
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "so", "signature": "x"},
                {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Rome"}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "sunny"}]}],
        },
    ],
    "tools": [{"name": "weather", "description": "Tells.", "input_schema": SCHEMA}],
    "max_tokens": 50,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "stream": True,
}
GEMINI = {
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "Hi"},
                {"inlineData": {"mimeType": "image/jpeg", "data": base64.b64encode(JPEG).decode()}},
            ],
        },
        {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Rome"}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"sky": "blue"}}}]},
    ],
    "tools": [{"functionDeclarations": [FUNCTION]}],
    "generationConfig": {"maxOutputTokens": 50, "candidateCount": 2, "responseSchema": SCHEMA},
}
BEDROCK = {
    "system": [{"text": "Be brief."}],
    "messages": [
        {"role": "user", "content": [{"text": "Hi"}, {"toolUse": {"toolUseId": "t", "name": "w", "input": {}}}]}
    ],
    "inferenceConfig": {"maxTokens": 50},
    "toolConfig": {"tools": [{"toolSpec": {"name": "w", "description": "d", "inputSchema": {"json": SCHEMA}}}]},
}
TEXTS = {
    "model": "gpt-3.5-turbo-instruct",
    "prompt": ["Hi", "there"],
    "input": ["Hi", [1, 2, 3]],
    "suffix": "x",
    "best_of": 3,
}
COHERE = {
    "model": "command-r", "message": "Hi", "preamble": "Be brief.", "chat_history": [{"role": "USER",
    "message": "Hi"}],
    "messages": [{"role": "user", "content": "Hi"}], "documents": [{"data": {"text": "x"}}], "tools": [],
    "max_tokens": 5,
    "texts": ["a", "b"], "prompt": "Hi",
}  # fmt: skip
OLLAMA = {
    "model": "llama3.1", "prompt": "Hi", "system": "Be brief.", "messages": [{"role": "user", "content": "Hi",
    "images": ["AAAA"]}],
    "options": {"num_predict": 50}, "stream": False, "format": SCHEMA, "input": ["a"], "template": "{{ .Prompt }}",
}  # fmt: skip
BODIES: tuple[dict[str, Any], ...] = (CHAT, RESPONSES, ANTHROPIC, GEMINI, BEDROCK, TEXTS, COHERE, OLLAMA)


def events(*documents: Any, named: bool = False) -> bytes:
    lines = []
    for each in documents:
        name = f"event: {each['type']}\n" if named else ""
        lines.append(f"{name}data: {json.dumps(each)}\n\n")
    return "".join(lines).encode()


_USAGE = {
    "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}  # fmt: skip
_CHAT_ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}], "usage": _USAGE}
_GEMINI_ANSWER = {
    "candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 1, "totalTokenCount": 13},
}
_ANTHROPIC_EVENTS = (
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
)
_RESPONSES_EVENTS = (
    {"type": "response.created", "response": {"id": "r"}},
    {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "delta": "Hi"},
    {"type": "response.completed", "response": {"output": [], "usage": {"input_tokens": 9, "output_tokens": 3}}},
)


def frame(document: Any) -> bytes:
    """One message of AWS's binary event stream."""
    inner = json.dumps({"bytes": base64.b64encode(json.dumps(document).encode()).decode(), **document}).encode()
    prelude = struct.pack(">II", 16 + len(inner), 0)
    head = prelude + struct.pack(">I", zlib.crc32(prelude))
    return head + inner + struct.pack(">I", zlib.crc32(head + inner))


ANSWERS: tuple[bytes, ...] = (
    json.dumps(_CHAT_ANSWER).encode(),
    events({"choices": [{"index": 0, "delta": {"content": "Hi"}}]}, {"choices": [], "usage": _USAGE})
    + b"data: [DONE]\n\n",
    events(*_ANTHROPIC_EVENTS, named=True),
    events(*_RESPONSES_EVENTS, named=True),
    events(_GEMINI_ANSWER, _GEMINI_ANSWER),
    json.dumps([_GEMINI_ANSWER, _GEMINI_ANSWER], indent=1).encode(),
    b'{"model":"llama3","message":{"content":"Hi"},"done":false}\n{"done":true,"prompt_eval_count":9,"eval_count":3}\n',
    frame({"contentBlockDelta": {"delta": {"text": "Hi"}}, "p": "ab"})
    + frame({"usage": {"inputTokens": 9, "outputTokens": 3}}),
    b'{"event_type":"text-generation","text":"Hi"}\n{"event_type":"stream-end","response":{"meta":{"tokens":{}}}}\n',
    json.dumps(
        {"usage": {"inputTokens": 9, "outputTokens": 3}, "output": {"message": {"content": [{"text": "x"}]}}}
    ).encode(),
)
HTTP_ANSWERS: tuple[bytes, ...] = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5;a=b\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
    ),
    b"HTTP/1.0 404 Not Found\r\nConnection: close\r\nX-A: b\r\n\r\nuntil the end",
    b'HTTP/1.1 204 No Content\r\nETag: "a"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
)
HTTP_REQUESTS: tuple[bytes, ...] = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /v1beta/models/g%2fx:generateContent?key=a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST http://evil/v1/messages HTTP/1.1\r\n\r\n",
)
PATHS: tuple[bytes, ...] = (
    b"/v1/chat/completions", b"/openai/deployments/d/chat/completions", b"/v1beta/models/g:generateContent",
    b"//v1/./messages/",
    b"/model/anthropic.claude-3/converse-stream", b"/v1/../v1/%2e%2e/api/chat",
    b"/v1/projects/p/models/claude@1:rawPredict",
)  # fmt: skip
LOG_LINES: tuple[dict[str, Any], ...] = (
    {
        "event": "request", "outcome": "ok", "total_ms": 12.5, "held": 60, "counted": 10, "request_id": "req_1",
        "at": "2026-11-23T10:00:00Z", "key_id": "a", "model": "gpt-4o", "upstream": "up", "used_input": 9,
        "used_output": 3,
        "source": "reported", "format": "openai_chat",
    },
)  # fmt: skip
CONFIGS: tuple[bytes, ...] = (
    (ROOT / "config.yaml").read_bytes(),
    *(path.read_bytes() for path in sorted((ROOT / "tests/data/bad_configs").glob("*.yaml"))),
)
MODELS: tuple[str, ...] = (
    "gpt-4o", "gpt-5", "o3", "gpt-3.5-turbo", "gpt-oss-120b", "claude-sonnet-4-5", "gemini-2.5-flash", "qwen3-8b",
    "qwen2.5-7b",
    "deepseek-v3", "deepseek-v3.2", "deepseek-r1", "llama-3.1-8b", "llama-2-7b", "mistral-7b", "mistral-nemo",
    "glm-4.5", "yi-34b",
    "gemma3", "command-r", "kimi-k2", "text-embedding-3-small", "chatglm3",
)  # fmt: skip
