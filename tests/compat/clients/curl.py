"""curl, as shell scripts use it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from reporting import CHAT_TOOL, HELLO, LONG, PIECES, SCHEMA, SEES, WEATHER, expect, run


def command(url: str, key: str, path: str, body: dict[str, Any], *options: str) -> list[str]:
    headers = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    return ["curl", "-sS", "--max-time", "20", *options, *headers, "-d", json.dumps(body), url + path]


def post(url: str, key: str, path: str, body: dict[str, Any], *options: str) -> str:
    done = subprocess.run(command(url, key, path, body, *options), check=True, capture_output=True, text=True)
    return done.stdout


def ask(content: Any, **options: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": content}], **options}


def complete(url: str, key: str, content: Any, **options: Any) -> Any:
    return json.loads(post(url, key, "/v1/chat/completions", ask(content, **options)))["choices"][0]["message"]


def deltas(lines: list[str]) -> list[str]:
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return [event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]]


def chat(url: str, key: str) -> None:
    expect(complete(url, key, HELLO)["content"] == HELLO)


def streaming(url: str, key: str) -> None:
    out = post(url, key, "/v1/chat/completions", ask(HELLO, stream=True), "-N")
    expect("".join(deltas(out.splitlines())) == HELLO, out)
    expect(out.endswith("data: [DONE]\n\n"), out)


def tools(url: str, key: str) -> None:
    call = complete(url, key, WEATHER, tools=[CHAT_TOOL])["tool_calls"][0]["function"]
    expect(set(json.loads(call["arguments"])) == set(SCHEMA["required"]), call)


def images(url: str, key: str) -> None:
    expect(complete(url, key, SEES)["content"] == HELLO)


def embeddings(url: str, key: str) -> None:
    out = post(
        url, key, "/v1/embeddings", {"model": "text-embedding-3-small", "input": [HELLO, "Other"]}, "--compressed"
    )
    expect(len(json.loads(out)["data"]) == 2)


def responses(url: str, key: str) -> None:
    answer = json.loads(post(url, key, "/v1/responses", {"model": "gpt-4o", "input": HELLO}))
    expect(answer["output"][0]["content"][0]["text"] == HELLO, answer)


def errors(url: str, key: str) -> None:
    # --retry heeds 429 and Retry-After: a spent month names none, and curl's own backoff is the caller's choice.
    out = post(url, key, "/v1/chat/completions", ask(HELLO), "-w", "\n%{http_code}")
    body, _, status = out.rpartition("\n")
    expect((status, json.loads(body)["error"]["code"]) == ("429", "insufficient_quota"), out)


def cancellation(url: str, key: str) -> dict[str, str]:
    asked = command(url, key, "/v1/chat/completions", ask(LONG, stream=True), "-N")
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pieces: list[str] = []
        for line in process.stdout:
            pieces += deltas([line])
            if len(pieces) == PIECES:
                break
        process.kill()
    return {"text": "".join(pieces)}


run(
    chat=chat,
    streaming=streaming,
    tools=tools,
    images=images,
    embeddings=embeddings,
    responses=responses,
    errors=errors,
    cancellation=cancellation,
)
