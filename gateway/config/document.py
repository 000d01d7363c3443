"""A YAML file as plain values that remember where they stood.

Scalars are read by the small YAML 1.2 core schema, so that ``no``, ``on`` and ``1:30`` stay the text they are.
``${NAME}`` and ``${NAME:-default}`` are expanded inside scalars, after parsing: a variable's value can never
become YAML structure. ``$${`` stands for a literal ``${``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gateway.config.problems import Problem
from gateway.config.syntax import broken, without_section

Step = str | int
Route = tuple[Step, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INT = re.compile(r"[-+]?\d[\d_]{0,30}")
_FLOAT = re.compile(r"[-+]?(\d[\d_]*)?\.\d+([eE][-+]?\d+)?|[-+]?\d[\d_]*[eE][-+]?\d+")
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-((?:[^}\\]|\\.)*))?\}|\$\{")
MAX_DEPTH = 500
MAX_VALUES = 200_000
"""Values that a file may hold once its aliases are followed: a few lines of aliases could stand for billions."""
VERSION_DIGITS = 12
"""So many are a number that metrics hold exactly, and enough to tell files apart."""
_BROKEN_SECTIONS_AT_MOST = 20
_BRACKET = re.compile(r"[\[\]{}]")
_INDENTED_TOO_DEEP = re.compile(rf"^[ ?-]{{{2 * MAX_DEPTH}}}", re.MULTILINE)
_CONSTANTS: Mapping[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}
_CORE_TAGS = "tag:yaml.org,2002:"
_STRING_TAG = _CORE_TAGS + "str"
_MERGE_TAG = _CORE_TAGS + "merge"


@dataclass(slots=True)
class Document:
    """One parsed file. `places` maps the route of a value to ``line:column`` of its key (list items: of
    themselves), `values` to that of the value; `written` keeps scalars as they stand in the file, before expansion.
    `version` is how the file's sha256 begins; `damaged` are sections that are not YAML and were left out."""

    name: str
    version: str = ""
    data: Any = None
    places: dict[Route, str] = field(default_factory=dict)
    values: dict[Route, str] = field(default_factory=dict)
    written: dict[Route, str] = field(default_factory=dict)
    origins: dict[Route, str] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def place(self, route: Route, *, of_value: bool = True) -> str:
        """Say where a route stands; a route that is not in the file stands where its nearest parent does."""
        for end in range(len(route), -1, -1):
            if (origin := self.origins.get(route[:end])) is not None:
                return origin
            marks = self.values if of_value and end == len(route) else self.places
            if (mark := marks.get(route[:end])) is not None:
                return f"{self.name}:{mark}"
        return f"{self.name}:1:1"

    def override(self, route: Route, value: Any, *, origin: str) -> None:
        """Put a value from outside the file (`origin` says from where) over what the file says."""
        if not isinstance(self.data, dict):
            self.data = {}
        parent = self.data
        for step in route[:-1]:
            if not isinstance(parent.get(step), dict):
                parent[step] = {}
            parent = parent[step]
        parent[route[-1]] = value
        self.origins[route] = origin
        self.written[route] = str(value)


def read_document(path: Path, *, env: Mapping[str, str]) -> Document:
    """Read and parse a file; what goes wrong is collected in `Document.problems`, never raised."""
    document = Document(name=str(path))
    try:
        content = path.read_bytes()
        document.version = hashlib.sha256(content).hexdigest()[:VERSION_DIGITS]
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        document.problems.append(
            Problem(str(path), "there is no such file", "write one or name another with --config or TOLLGATE_CONFIG")
        )
        return document
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        document.problems.append(Problem(f"{path}:{line}:1", "the file is not UTF-8", "save it as UTF-8"))
        return document
    except OSError as error:
        document.problems.append(
            Problem(str(path), f"cannot be read ({error.strerror})", "check that it is a file that may be read")
        )
        return document
    _Reader(document, env).read(text)
    return document


class _Reader:
    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        self._document = document
        self._env = env
        self._open: set[int] = set()
        self._left = MAX_VALUES
        self._resolver: Any = yaml.resolver.Resolver()

    def read(self, text: str) -> None:
        if _too_deep(text):
            problem = Problem(f"{self._document.name}:1:1", "it is nested too deeply to be read", "flatten it")
            self._document.problems.append(problem)
            return
        node = self._node(text)
        if node is not None:
            data = self._value(node, ())
            self._document.data = data if self._left > 0 else None  # half a file is no file

    def _node(self, text: str) -> Any:
        """Parse; sections that are not YAML are told of and left out, so that the others' mistakes are found too."""
        for _ in range(_BROKEN_SECTIONS_AT_MOST):
            loader = _Loader(text)
            try:
                return loader.get_single_node()
            except yaml.MarkedYAMLError as error:
                found = broken(error, text, name=self._document.name)
                self._document.problems.append(found.problem)
                if (rest := without_section(text, found.line)) is None:
                    return None
                text, section = rest
                self._document.damaged.add(section)
            except yaml.YAMLError as error:
                sign = isinstance(error, yaml.reader.ReaderError)
                what = "a character that YAML does not allow" if sign else str(error)
                self._document.problems.append(Problem(f"{self._document.name}:1:1", what, "remove control characters"))
                return None
            finally:
                loader.dispose()
        return None

    def _value(self, node: Any, route: Route) -> Any:
        self._left -= 1
        if self._left <= 0:
            if self._left == 0:
                what = f"its aliases stand for more than {MAX_VALUES:,} values"
                self._document.problems.append(Problem(f"{self._document.name}:{_mark(node)}", what, "remove aliases"))
            return None
        if id(node) in self._open:
            place = self._document.place(route, of_value=False)
            self._document.problems.append(Problem(place, "this alias contains itself", "remove the alias"))
            return None
        self._document.values[route] = _mark(node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, route)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, route)
            return self._scalar(node, route)
        finally:
            self._open.discard(id(node))

    def _sequence(self, node: Any, route: Route) -> list[Any]:
        for index, item in enumerate(node.value):
            self._document.places[(*route, index)] = _mark(item)
        return [self._value(item, (*route, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: Any, route: Route) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in sources:
                    value = self._value(source, route)
                    if isinstance(value, dict):
                        merged = {**value, **merged}
                    else:
                        place = f"{self._document.name}:{_mark(source)}"
                        problem = Problem(place, "`<<` takes over fields, and this has none", "write `<<: *name`")
                        self._document.problems.append(problem)
                self._document.values[route] = _mark(node)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._document.problems.append(
                    Problem(f"{self._document.name}:{_mark(key_node)}", "a field's name must be text", "name the field")
                )
                continue
            name = str(key_node.value)
            inner = (*route, name)
            if name in own:
                first = self._document.places[inner]
                self._document.problems.append(
                    Problem(
                        f"{self._document.name}:{_mark(key_node)}",
                        f"`{name}` is written twice (first on line {first.split(':')[0]})",
                        "keep one of them",
                    )
                )
                continue
            self._document.places[inner] = _mark(key_node)
            own[name] = self._value(value_node, inner)
        return {**merged, **own}

    def _scalar(self, node: Any, route: Route) -> Any:
        self._document.written[route] = node.value
        text = self._expanded(node.value, route) if "${" in node.value else node.value
        if not node.tag.startswith(_CORE_TAGS):
            self._refuse(route, f"the tag `{node.tag}` means nothing here", "remove it")
        if node.style or self._said_to_be_text(node):
            return text
        if not text and node.value:
            return text  # an empty variable is no missing value: a required field must notice it
        return _resolved(text)

    def _said_to_be_text(self, node: Any) -> bool:
        """Whether ``!!str`` stands before a plain scalar: its tag is not the one its text would imply."""
        implied = self._resolver.resolve(yaml.ScalarNode, node.value, (True, False))
        return bool(node.tag == _STRING_TAG and implied != _STRING_TAG)

    def _expanded(self, text: str, route: Route) -> str:
        def replacement(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name = match[1]
            if name is None:
                self._refuse(
                    route,
                    "`${` starts no variable's name",
                    "write `${NAME}` or `${NAME:-default}`, or `$${` for a literal `${`",
                )
                return ""
            value = self._env.get(name, "")
            if match[2] is not None:
                return value or match[3].replace("\\}", "}")
            if name not in self._env:
                self._refuse(
                    route,
                    f"the environment has no {name}",
                    f"export {name}, or write a default: `${{{name}:-default}}`",
                )
            return value

        return _VARIABLE.sub(replacement, text)

    def _refuse(self, route: Route, what: str, remedy: str) -> None:
        self._document.problems.append(Problem(self._document.place(route), what, remedy))


def _too_deep(text: str) -> bool:
    """Whether brackets or indentation nest so deeply that the parser, which recurses, could overflow its stack."""
    depth = 0
    for bracket in _BRACKET.finditer(text):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return _INDENTED_TOO_DEEP.search(text) is not None


def _mark(node: Any) -> str:
    return f"{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _resolved(text: str) -> Any:
    if text.lower() in _CONSTANTS and text in (text.lower(), text.capitalize(), text.upper()):
        return _CONSTANTS[text.lower()]
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return text
