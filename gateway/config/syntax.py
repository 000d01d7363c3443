"""What is not YAML, in the words of people who write it: the very text, what is wrong with it, what to write instead.

The parser only knows where it stopped. The mistakes that are usual (a tab, a space that lacks after a colon, a line
that is indented by one too many, a bare ``*`` or ``${NAME}``, a quote that is never closed) are told from the lines
around.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

from gateway.config.problems import Problem

_SHOWN_AT_MOST = 60
_SECRET = re.compile(r"(?i)\b(?:api_key|upstream_key|digest|key|secret|headers|authorization|password)\b|@|\bsk-")
_NO_SPACE = re.compile(r"^(?P<indent>\s*(?:- +)?)(?P<name>[A-Za-z_][\w-]*):(?P<value>[^\s/:].*)$")
_FIELD = re.compile(r"^(?P<indent>\s*)(?P<dash>- +)?[\"']?[A-Za-z_<][\w<-]*[\"']?:(?P<value>.*)$")
_VARIABLE = re.compile(r"\$\{[^}\s]*\}?")
_SECTION = re.compile(r"[^\s#\-\]}]")
_BARE = re.compile(r"[^\s,\[\]{}]+")
_CLOSING = {"{": "}", "[": "]"}


@dataclass(frozen=True, slots=True)
class Broken:
    """A mistake, and the line (from 0) in whose section it stands."""

    problem: Problem
    line: int


def broken(error: yaml.MarkedYAMLError, text: str, *, name: str) -> Broken:
    """Say what a parser's error is about in a file of this name."""
    lines = text.split("\n")
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    opened = error.context_mark
    said, context = str(error.problem or error.context), str(error.context)
    told = (
        _tab(lines, line, column)
        or _bare(lines, line, column, said)
        or _unclosed(lines, said, context, (opened.line, opened.column) if opened else None, line, column)
        or _colon(lines, line, column, said, opened.line if opened else line)
        or _indentation(lines, line, column, said)
        or _other(lines, line, column, said, context, opened.line if opened else line)
    )
    at, what, remedy = told
    return Broken(Problem(f"{name}:{at[0] + 1}:{at[1] + 1}", what, remedy), at[0])


def without_section(text: str, line: int) -> tuple[str, str] | None:
    """Blank the top-level section around a line, so that the others can still be read: the text and the section's
    name. None where there is no such section."""
    lines = text.split("\n")
    start = next((at for at in range(min(line, len(lines) - 1), -1, -1) if _SECTION.match(lines[at])), None)
    if start is None or lines[start].startswith(("{", "[")):
        return None
    end = next((at for at in range(start + 1, len(lines)) if _SECTION.match(lines[at])), len(lines))
    name = re.split(r"[:\s]", lines[start].strip("\"'"))[0]
    return "\n".join([*lines[:start], *[""] * (end - start), *lines[end:]]), name.strip("\"'")


_Told = tuple[tuple[int, int], str, str] | None
"""Where (line and column from 0), what is wrong, what to write instead."""


def _tab(lines: list[str], line: int, column: int) -> _Told:
    text = _at(lines, line)
    tab = text.find("\t")
    if tab < 0 or tab > column or text[:tab].strip(" -"):
        return None
    return (line, tab), f"{_shown(text)} is indented with a tab", "indent with spaces"


def _unclosed(
    lines: list[str], said: str, context: str, opened: tuple[int, int] | None, line: int, column: int
) -> _Told:
    if opened is None or not ("quoted scalar" in context or "flow" in context):
        return None
    text = _at(lines, opened[0])
    sign = text[opened[1] : opened[1] + 1]
    if "quoted scalar" in context and "unexpected end" in said:
        return opened, f"the quote that opens {_shown(text[opened[1] :])} is never closed", f"add the closing `{sign}`"
    if sign in _CLOSING and line == opened[0] and text[opened[1] + 1 :].strip() and "expected ','" in said:
        if text[column : column + 1] in ("]", "}"):
            return (line, column), f"the `{text[column]}` in {_shown(text)} closes nothing", "remove it"
        return (
            (opened[0], opened[1]),
            f"a comma or a `{_CLOSING[sign]}` lacks in {_shown(text)}",
            "put commas between items",
        )
    if sign in _CLOSING and line != opened[0] and "did not find expected" in said:
        what = f"the `{sign}` in {_shown(text)} is not closed where line {line + 1} begins another field"
        if not any(each.strip() for each in lines[line:]):
            what = f"the `{sign}` in {_shown(text)} is never closed"
        return opened, what, f"add the closing `{_CLOSING[sign]}`, and a comma between its items"
    return None


def _bare(lines: list[str], line: int, column: int, said: str) -> _Told:
    """Signs that mean something to YAML unless they stand in quotes."""
    text = _at(lines, line)
    for found in _VARIABLE.finditer(text):
        if "did not find expected" in said and found.start() <= column <= found.end():
            what = f"`{found[0]}` inside `{{...}}` or `[...]` is cut at its brace"
            return (line, found.start()), what, f'put it in quotes: `"{found[0]}"`'
    token = _BARE.match(text, column)
    if "undefined alias" in said or "alphabetic or numeric" in said:
        start = text.rfind("*", 0, column + 1)
        alias = (_BARE.match(text, start) if start >= 0 else None) or token
        written = alias[0] if alias else "*"
        anchor = f"`&{written[1:]}`" if written[1:] else "an anchor"
        what = f"{_shown(written)} is read as a reference to {anchor}, and there is none"
        return (line, max(start, 0)), what, f'put it in quotes if it is a pattern: `"{written}"`'
    if "cannot start any token" in said and token:
        return (line, column), f"no value may begin with `{token[0][0]}`", f"put it in quotes: `{_quoted(token[0])}`"
    if "found unexpected ':'" in said:
        start = max(text.rfind(sign, 0, column) for sign in " ,[{") + 1
        written = text[start : column + 1]
        return (line, start), f"{_shown(written)} ends in a colon", f"put it in quotes: `{_quoted(written)}`"
    return None


def _colon(lines: list[str], line: int, column: int, said: str, opened: int) -> _Told:
    if "mapping values are not allowed" in said:
        before = _line_before(lines, line)
        if found := _NO_SPACE.match(_at(lines, before)):
            return _lacks_space(before, found)
        field = _FIELD.match(_at(lines, line))
        if field and ": " in field["value"] and len(field[0]) - len(field["value"]) <= column:
            value = field["value"].strip()
            what = f"the value in {_shown(_at(lines, line))} holds a colon and a space"
            return (line, column), what, f"put it in quotes: `{_quoted(value)}`"
    if "could not find expected ':'" in said:
        text = _at(lines, opened)
        if found := _NO_SPACE.match(text):
            return _lacks_space(opened, found)
        return (opened, _indent(text)), f"{_shown(text)} is no field: it has no colon", "write `field: value`"
    return None


def _lacks_space(line: int, found: re.Match[str]) -> _Told:
    name, value = found["name"], found["value"]
    what = f"{_shown(f'{name}:{value}')} has no space after its colon"
    return (line, len(found["indent"])), what, f"write {_shown(f'{name}: {value}')}"


def _indentation(lines: list[str], line: int, column: int, said: str) -> _Told:
    if not ("not allowed in this context" in said or "expected key" in said or "'-' indicator" in said):
        return None
    text, before = _at(lines, line), _line_before(lines, line)
    field, above = _FIELD.match(text), _FIELD.match(_at(lines, before))
    if field is None or above is None or column > len(field[0]) - len(field["value"]):
        return None
    depth = _indent(text)
    if "'-' indicator" in said:
        wanted = len(above["indent"]) + len(above["dash"] or "  ")
        what = f"{_shown(text)} is indented by {depth}, where the list's next `-` would stand"
        return (line, depth), what, f"indent it by {wanted}, below the first field of its item"
    wanted = len(above["indent"]) + len(above["dash"] or "")
    if depth == wanted:
        return None
    what = f"{_shown(text)} is indented by {depth}, and the field above it by {wanted}"
    return (line, depth), what, "indent fields of one section alike"


def _other(
    lines: list[str], line: int, column: int, said: str, context: str, opened: int
) -> tuple[tuple[int, int], str, str]:
    text = _at(lines, line)
    if "expected key" in said and text[column : column + 1] in ("]", "}"):
        return (line, column), f"the `{text[column]}` in {_shown(text)} closes nothing", "remove it"
    if "expected key" in said and ("'" in text[:column] or '"' in text[:column]):
        what = f"in {_shown(text)} something stands behind the closing quote"
        return (line, column), what, "put the whole value in quotes, of the kind that it does not hold itself"
    if ("expected key" in said or "'-' indicator" in said) and _FIELD.match(text):
        what = f"{_shown(text)} is indented by {_indent(text)}, like no field above it"
        return (line, column), what, "indent it like the fields of its section"
    what = f"this is not YAML: {said.removeprefix('but ')}"
    if context.startswith("while") and opened != line:
        what += f" {context} that begins on line {opened + 1}"
    remedy = "check indentation, quotes and brackets on this line and the one before"
    if "another document" in what:
        remedy = "remove the `---` between documents: one file holds one configuration"
    if text.strip() and "another document" not in what:
        what = f"{_shown(text)} is not YAML: {said.removeprefix('but ')}"
    return (line, column), what, remedy


def _at(lines: list[str], line: int) -> str:
    return lines[line].rstrip("\r") if line < len(lines) else ""


def _line_before(lines: list[str], line: int) -> int:
    """The nearest line above that says something."""
    return next((at for at in range(line - 1, -1, -1) if lines[at].strip() and lines[at].strip()[0] != "#"), 0)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _quoted(value: str) -> str:
    shown = value if len(value) <= _SHOWN_AT_MOST and not _SECRET.search(value) else "..."
    return f'"{shown}"'


def _shown(text: str) -> str:
    """A piece of the file for people, without what may be a key."""
    text = text.strip()
    if _SECRET.search(text):
        name = re.match(r"(?:- +)?[\w-]+(?=:)", text)
        return f"`{name[0]}: ...`" if name else "this line"
    return f"`{text}`" if len(text) <= _SHOWN_AT_MOST else f"`{text[: _SHOWN_AT_MOST - 3]}...`"
