"""What a Gemini answer says it used: one response, or a stream of responses with cumulative figures."""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.formats.listening import MAX_DOCUMENT_BYTES, AnswerReader, figure, objects
from policies.usage import Usage

_STRUCTURE = re.compile(rb'["{}]')
_IN_STRING = re.compile(rb'["\\]')


class GeminiReader(AnswerReader):
    """Reads one ``GenerateContentResponse`` or its server-sent events (``alt=sse``).

    A later `usageMetadata` replaces an earlier one but never lowers a figure: the first chunks of a stream leave the
    output out.
    """

    def __init__(self, *, events: bool, failed: bool = False) -> None:
        super().__init__(events=events, failed=failed)

    def _take_event(self, name: str, document: dict[str, Any]) -> bool:
        self._take_document(document)
        return False

    def _take_document(self, document: dict[str, Any]) -> None:
        usage = document.get("usageMetadata")
        if type(usage) is dict:
            self._take_usage(usage)
        for candidate in objects(document.get("candidates")):
            self._complete = self._complete or bool(candidate.get("finishReason"))
            content = candidate.get("content")
            for part in objects(content.get("parts")) if type(content) is dict else ():
                self._take_part(part)
        feedback = document.get("promptFeedback")
        blocked = type(feedback) is dict and feedback.get("blockReason")
        if blocked or "embedding" in document or "embeddings" in document:
            self._complete = True

    def _take_usage(self, usage: dict[str, Any]) -> None:
        before = self._usage or Usage(0, 0)
        read = (figure(usage, "promptTokenCount") or 0) + (figure(usage, "toolUsePromptTokenCount") or 0)
        thoughts = figure(usage, "thoughtsTokenCount") or 0
        written = (figure(usage, "candidatesTokenCount") or 0) + thoughts
        written = max(written, (figure(usage, "totalTokenCount") or 0) - read)
        self._usage = Usage(
            max(before.input_tokens, read),
            max(before.output_tokens, written),
            cached_tokens=max(before.cached_tokens, figure(usage, "cachedContentTokenCount") or 0),
            reasoning_tokens=max(before.reasoning_tokens, thoughts),
        )

    def _take_part(self, part: dict[str, Any]) -> None:
        self._add_text(part, "text")
        call = part.get("functionCall")
        if type(call) is dict:
            self._add_text(call, "name")
            self._texts.append(orjson.dumps(call.get("args") or {}).decode())
        code = part.get("executableCode")
        if type(code) is dict:
            self._add_text(code, "code")


class GeminiArrayReader(GeminiReader):
    """Reads the stream that comes as one JSON array, an element at a time (no ``alt=sse``)."""

    def __init__(self, *, failed: bool = False) -> None:
        super().__init__(events=False, failed=failed)
        self._element: list[bytes] = []
        self._element_size = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, chunk: bytes) -> bytes:
        if not self._failed:
            self._scan(chunk)
        return chunk

    def finish(self) -> bytes:
        return b""

    def _scan(self, chunk: bytes) -> None:
        start = at = 0
        while at < len(chunk):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            mark = (_IN_STRING if self._in_string else _STRUCTURE).search(chunk, at)
            if mark is None:
                break
            at = mark.end()
            match mark.group():
                case b"\\":
                    self._escaped = True
                case b'"':
                    self._in_string = not self._in_string
                case b"{":
                    start = start if self._depth else at - 1
                    self._depth += 1
                case _ if self._depth:
                    self._depth -= 1
                    if not self._depth:
                        self._take_element(chunk[start:at])
        if self._depth:
            self._element_size += len(chunk) - start
            if self._element_size <= MAX_DOCUMENT_BYTES:
                self._element.append(chunk[start:])

    def _take_element(self, end: bytes) -> None:
        if self._element_size <= MAX_DOCUMENT_BYTES:
            try:
                document = orjson.loads(b"".join((*self._element, end)))
            except orjson.JSONDecodeError:
                document = None
            if type(document) is dict:
                self._take_document(document)
        self._element.clear()
        self._element_size = 0
