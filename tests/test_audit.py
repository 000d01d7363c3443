"""What `make check` says of known vulnerabilities, and that it does not fail for want of a network."""

from __future__ import annotations

from typing import Any

import pytest

from tests import audit


def test_the_audit_looks_at_what_runs_and_not_at_what_tests() -> None:
    packages = audit.run_time_packages()
    assert {"aiohttp", "yarl", "multidict", "jinja2", "markupsafe", "hiredis", "pydantic-core"} <= set(packages)
    assert not {"pytest", "hypothesis", "ruff", "openai", "pip-audit"} & set(packages)


def report(*names: str) -> dict[str, Any]:
    hole = {"id": "PYSEC-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
    return {
        "dependencies": [
            {"name": name, "version": "1.0", "vulns": [hole] if name in names else []} for name in ("a", "b", "django")
        ]
    }


def test_a_known_vulnerability_fails_the_audit_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ask", lambda _, **__: report("a", "django"))
    code, said = audit.audit({"a": "1.0"})
    assert code == 1
    assert "a 1.0: PYSEC-1, mended in 2.0" in said


def test_an_index_without_advisories_clears_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ask", lambda _, **__: report())
    code, said = audit.audit({"a": "1.0"})
    assert code == 0
    assert "SKIPPED" in said
    assert "none with" not in said


def test_an_audit_without_a_network_says_that_it_was_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    code, said = audit.audit({"aiohttp": "3.12.0"}, probe_s=3)
    assert code == 0
    assert "SKIPPED" in said
