"""The walls of the house, proven on the source itself: who imports whom, who may read the clock, how long files are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gateway", "policies", "tokenizers_offline")
MAX_LINES = 350
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "core", "misc", "auth"}
CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}
DURATIONS = {("time", "perf_counter"), ("time", "perf_counter_ns"), ("time", "monotonic"), ("time", "monotonic_ns")}


def source_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in source_files()}


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"), filename=str(MODULES[module]))


def imports_of(module: str) -> set[str]:
    """Every module that a module imports, anywhere in it, by absolute name."""
    found: set[str] = set()
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES)
    return found


def our_imports(module: str) -> set[str]:
    return {each for each in imports_of(module) if each.split(".")[0] in PACKAGES}


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def modules_inside(package: str) -> list[str]:
    return [module for module in MODULES if inside(module, package)]


def called_attributes(module: str) -> Iterator[tuple[str, str, int]]:
    """Attributes ``name.attribute`` that a module mentions, called or handed on, imported names resolved."""
    tree = tree_of(module)
    aliases: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime") and node.level == 0:
            for alias in node.names:
                aliases[alias.asname or alias.name] = (node.module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in ("time", "datetime"):
                    aliases[alias.asname or alias.name] = ("", alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            yield aliases.get(name, ("", name))[1], node.attr, node.lineno
        elif isinstance(node, ast.Name) and node.id in aliases and aliases[node.id][0] == "time":
            yield "time", aliases[node.id][1], node.lineno


def test_source_is_found() -> None:
    assert {"gateway.app", "policies.engine", "tokenizers_offline.counter"} <= MODULES.keys()


@pytest.mark.parametrize("package", ["policies", "tokenizers_offline"])
def test_budgets_and_counting_import_only_themselves_of_ours(package: str) -> None:
    strangers = {
        f"{module} imports {each}"
        for module in modules_inside(package)
        for each in our_imports(module)
        if not inside(each, package)
    }
    assert not strangers


@pytest.mark.parametrize("package", ["policies", "tokenizers_offline"])
def test_budgets_and_counting_know_no_http(package: str) -> None:
    strangers = {
        f"{module} imports {each}"
        for module in modules_inside(package)
        for each in imports_of(module)
        if each.split(".")[0] in {"aiohttp", "httptools", "httpx", "requests", "yarl", "multidict"}
    }
    assert not strangers


def test_formats_are_pure() -> None:
    allowed = ("gateway.formats", "gateway.errors", "tokenizers_offline.prompt", "policies.usage")
    strangers = set()
    for module in modules_inside("gateway.formats"):
        for each in our_imports(module):
            if not any(inside(each, package) for package in allowed) and each not in ("tokenizers_offline", "policies"):
                strangers.add(f"{module} imports {each}")
        for each in imports_of(module):
            if each.split(".")[0] in {"aiohttp", "asyncio", "socket", "ssl", "httptools"}:
                strangers.add(f"{module} imports {each}")
    assert not strangers


def test_engine_knows_stores_only_by_protocol() -> None:
    stores = {each for each in our_imports("policies.engine") if inside(each, "policies.stores")}
    assert stores <= {"policies.stores", "policies.stores.base"}, stores


def test_only_the_command_line_can_fetch() -> None:
    """Nothing that the running gateway imports can open a socket for a tokenizer."""
    fetching = {
        module
        for module in MODULES
        if "tokenizers_offline.sources" in our_imports(module) and not inside(module, "tokenizers_offline.sources")
    }
    assert fetching == {"gateway.commands.tokenizers", "tokenizers_offline.__main__"}
    reached = reachable("gateway.app")
    assert "tokenizers_offline.sources" not in reached
    assert not any(inside(module, "gateway.commands") for module in reached)
    clients = {"huggingface_hub", "requests", "httpx", "urllib.request", "ftplib"}
    strangers = {
        f"{module} imports {each}"
        for module in reached
        for each in imports_of(module)
        if any(inside(each, client) for client in clients)
    }
    assert not strangers


def reachable(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in seen or current not in MODULES:
            continue
        seen.add(current)
        parents = current.split(".")[:-1]
        waiting.extend(".".join(parents[: end + 1]) for end in range(len(parents)))
        waiting.extend(our_imports(current))
    return seen


def test_only_app_names_the_clock() -> None:
    readers = {
        f"{module}:{line} reads {owner}.{attribute}"
        for module in MODULES
        if module != "gateway.app"
        for owner, attribute, line in called_attributes(module)
        if (owner, attribute) in CLOCKS
    }
    assert not readers


def test_only_the_gateway_measures_durations() -> None:
    readers = {
        f"{module}:{line} reads {owner}.{attribute}"
        for package in ("policies", "tokenizers_offline", "gateway.formats")
        for module in modules_inside(package)
        for owner, attribute, line in called_attributes(module)
        if (owner, attribute) in DURATIONS
    }
    assert not readers


def test_a_file_is_short_enough_to_have_one_meaning() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in source_files()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {module for module in MODULES if set(module.split(".")) & FORBIDDEN_NAMES}
    assert not drawers


def test_every_module_says_what_it_is() -> None:
    silent = {
        module
        for module, path in MODULES.items()
        if path.stat().st_size and not (ast.get_docstring(tree_of(module)) or "").strip()
    }
    assert not silent


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import time\ntime.time()", ("time", "time")),
        ("import time as t\nx = t.time", ("time", "time")),
        ("from time import time as now\nnow()", ("time", "time")),
        ("from datetime import datetime\ndatetime.now()", ("datetime", "now")),
        ("import datetime\ndatetime.datetime.utcnow()", ("datetime", "utcnow")),
    ],
)
def test_the_clock_is_seen_when_it_is_renamed(
    code: str, expected: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "sample.py"
    source.write_text(code)
    monkeypatch.setitem(MODULES, "sample", source)
    assert expected in {(owner, attribute) for owner, attribute, _ in called_attributes("sample")}
