"""Recorded API calls through the gateway's own formats and counter: how often is the count the provider's own?

`count` and `bound` have the signature that a scorer of recorded cases calls. The cases themselves are not part of
this project; a case is a JSON object with ``request``, ``endpoint``, ``provider``, ``model``, ``path``, ``media``,
``features``, ``class`` and the ``prompt_tokens`` that the provider reported.

    python -m benchmarks.recorded CASES.jsonl.gz [--class A] [--by provider,endpoint,feature]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.formats import match
from gateway.formats.fields import write_object
from tokenizers_offline.catalog import Catalog
from tokenizers_offline.counter import TokenCounter
from tokenizers_offline.documents import MAX_TEXT_FILE_BYTES
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.overheads import Overheads
from tokenizers_offline.prompt import ChatPrompt, MediaPart, Part, Prompt, ThinkingPart, TokenCount, ToolResultPart
from tokenizers_offline.store import TokenizerStore

PATHS = {
    "chat.completions": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "responses.input_tokens": "/v1/responses/input_tokens",
    "anthropic.messages": "/v1/messages",
    "anthropic.count_tokens": "/v1/messages/count_tokens",
    "gemini.generateContent": "/v1beta/models/{model}:generateContent",
    "gemini.countTokens": "/v1beta/models/{model}:countTokens",
    "gemini.embedContent": "/v1beta/models/{model}:embedContent",
    "bedrock.converse": "/model/{model}/converse",
    "bedrock.invoke": "/model/{model}/invoke",
    "bedrock.countTokens": "/model/{model}/count-tokens",
    "cohere.chat": "/v2/chat",
    "cohere.embed": "/v2/embed",
    "cohere.generate": "/v1/generate",
    "ollama.chat": "/api/chat",
}
"""Where a body of each kind goes. Recorded paths are used for APIs whose version in the path changes the body."""
_KEEPS_ITS_PATH = ("cohere.", "gemini.", "bedrock.", "ollama.")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_MEASURES = {"width": "width", "height": "height", "seconds": "seconds", "pages": "pages"}


@lru_cache(maxsize=1)
def counter() -> TokenCounter:
    """The counter over the tokenizers installed in MODELS_DIR."""
    store = TokenizerStore(Path(os.environ.get("MODELS_DIR", "models")))
    catalog = Catalog.load(installed=store.installed())
    return TokenCounter(catalog, Encoders(store), store, unknown_model="estimate", overheads=Overheads.load())


def count(request: Mapping[str, Any], endpoint: str) -> int | None:
    """Input tokens of a recorded request; None when no format of the gateway reads its endpoint."""
    found = measure(request, endpoint)
    return found.input_tokens if found is not None else None


def bound(request: Mapping[str, Any], endpoint: str) -> int:
    """The figure a budget would hold for its input."""
    found = measure(request, endpoint)
    return found.upper if found is not None else len(write_object(request))


def measure(request: Mapping[str, Any], endpoint: str) -> TokenCount | None:
    """Parse and count a recorded request as the gateway would."""
    context = request.get("_ctx") or {}
    body = {name: value for name, value in request.items() if name != "_ctx"}
    model = str(context.get("model") or body.get("model") or "")
    found = match("POST", _path(endpoint, context, model))
    if found is None:
        return None
    fmt, route, groups = found
    call = fmt.parse(route, groups, write_object(body))
    prompt = _with_true_sizes(call.prompt, _facts(body, context.get("media") or ()))
    return counter().count(call.model, prompt, platform=context.get("provider") or "")


def _path(endpoint: str, context: Mapping[str, Any], model: str) -> str:
    recorded = str(context.get("path") or "")
    if endpoint.startswith(_KEEPS_ITS_PATH) and match("POST", recorded) is not None:
        return recorded
    return PATHS.get(endpoint, f"/{endpoint}").format(model=model)


def _facts(body: Mapping[str, Any], media: Any) -> dict[str, Mapping[str, Any]]:
    """The true sizes of media and cipher texts that were cut short in the recording, by the text that is left."""
    facts = {}
    for fact in media:
        value: Any = body
        for key, index in _STEP.findall(fact["path"]):
            value = value[key] if key else value[int(index)]
        if isinstance(value, str):
            facts[value.rpartition(",")[2] if value.startswith("data:") else value] = fact
    return facts


def _with_true_sizes(prompt: Prompt, facts: Mapping[str, Mapping[str, Any]]) -> Prompt:
    if not facts or not isinstance(prompt, ChatPrompt):
        return prompt
    messages = tuple(
        replace(message, parts=tuple(_sized(part, facts) for part in message.parts)) for message in prompt.messages
    )
    return replace(prompt, messages=messages)


def _sized(part: Part, facts: Mapping[str, Mapping[str, Any]]) -> Part:
    if isinstance(part, ToolResultPart):
        return replace(part, parts=tuple(_sized(inner, facts) for inner in part.parts))
    if isinstance(part, ThinkingPart) and part.opaque in facts:
        return replace(part, opaque="x" * int(facts[part.opaque].get("chars", len(part.opaque))))
    if isinstance(part, MediaPart) and part.data in facts:
        fact = facts[part.data]
        sizes = {field: fact[name] for name, field in _MEASURES.items() if fact.get(name)}
        text = part.text
        if isinstance(fact.get("text"), list) and fact.get("bytes", 0) <= MAX_TEXT_FILE_BYTES:
            text = "".join(fact["text"])  # what `measure` reads from a whole file
        return replace(part, text=text, **sizes)
    return part


def read_cases(path: Path) -> Iterator[dict[str, Any]]:
    """The cases of a file, one JSON object a line."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            yield json.loads(line)


def name_feature(case: Mapping[str, Any]) -> str:
    """One word for what a case is mainly about."""
    features = set(case["features"])
    for rare in ("builtin_tools", "previous_response", "audio", "video", "file", "image", "reasoning_history"):
        if rare in features:
            return rare
    formats = [feature for feature in features if feature.startswith("response_format")]
    if "tools" in features:
        return "tools" + ("+calls" if "tool_calls" in features else "") + ("+schema" if formats else "")
    return formats[0].removeprefix("response_format:") if formats else "calls" if "tool_calls" in features else "text"


def _share(rows: list[tuple[int, int, int]], holds: Callable[[int, int, int], bool]) -> str:
    return f"{100 * sum(holds(*row) for row in rows) / len(rows):.1f}"


def count_cases(path: Path) -> Iterator[tuple[dict[str, Any], TokenCount | None]]:
    """Each case of a file and what the gateway counts for it; None where no format reads its endpoint."""
    for case in read_cases(path):
        context = {name: case.get(name) for name in ("provider", "host", "path", "model", "media")}
        request = {**case["request"], "_ctx": context}
        if not request.get("model") or not isinstance(request["model"], str):
            request["model"] = case["model"]
        yield case, measure(request, case["endpoint"])


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description="Counts beside the providers' own, for recorded calls.")
    options.add_argument("cases", type=Path)
    options.add_argument("--class", dest="kind", default="", help="A, B or C")
    options.add_argument("--by", default="provider,endpoint,feature")
    options.add_argument("--least", type=int, default=5, help="leave out groups smaller than this")
    chosen = options.parse_args()
    groups: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    unanswered = 0
    for case, found in count_cases(chosen.cases):
        if chosen.kind and case["class"] != chosen.kind:
            continue
        if found is None:
            unanswered += 1
            continue
        row = (found.input_tokens, found.upper, case["prompt_tokens"])
        groups["all"].append(row)
        keys = [name_feature(case) if key == "feature" else str(case.get(key)) for key in chosen.by.split(",")]
        groups[" ".join(keys)].append(row)
    table = Table("group", "n", "exact %", "within 5 %", "mean error %", "bound short %", "median slack %")
    for name, rows in sorted(groups.items(), key=lambda item: (item[0] != "all", item[0])):
        if len(rows) < chosen.least:
            continue
        errors = [100 * abs(counted - true) / max(true, 1) for counted, _, true in rows]
        slack = [100 * (upper - true) / max(true, 1) for _, upper, true in rows]
        table.add_row(
            name,
            str(len(rows)),
            _share(rows, lambda counted, _, true: counted == true),
            _share(rows, lambda counted, _, true: abs(counted - true) <= 0.05 * max(true, 1)),
            f"{statistics.fmean(errors):.2f}",
            _share(rows, lambda _, upper, true: upper < true),
            f"{statistics.median(slack):.1f}",
        )
    console = Console(width=140)
    console.print(table)
    if unanswered:
        console.print(f"{unanswered} cases of endpoints that no format reads are left out.")


if __name__ == "__main__":
    main()
