"""How long a wrong key takes tells nothing: keys are looked up by digest, and digests compared in constant time.

The proof is by structure. A test that measures would measure the machine.
"""

from __future__ import annotations

import ast
import hmac
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from gateway.callers import require_admin
from gateway.endpoints import dashboard, dashboard_session
from policies.model import Key
from policies.policy import KeyRefused, Policy, digest

KEYS = ("sk-alice-0001", "sk-bob-0002")


def policy() -> Policy:
    return Policy(keys=tuple(Key(id=f"k{at}", digest=digest(key)) for at, key in enumerate(KEYS)))


def compares(function: Callable[..., Any]) -> list[ast.Compare]:
    """Every ``==`` and ``!=`` of a function, but with what is written in the code."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops)
        and not any(isinstance(each, ast.Constant) for each in node.comparators)
    ]


@pytest.mark.parametrize("function", [Policy.key, require_admin, dashboard.login, dashboard_session.Sessions.holds])
def test_whoever_checks_a_secret_uses_compare_digest_and_no_equals_sign(function: Callable[..., Any]) -> None:
    source = inspect.getsource(function)
    assert "hmac.compare_digest(" in source
    assert compares(function) == []


def test_a_known_key_is_compared_once_and_by_its_whole_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any]] = []
    true = hmac.compare_digest

    def watch(one: Any, other: Any) -> bool:
        seen.append((one, other))
        return true(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watch)
    assert policy().key(KEYS[1], now=0).id == "k1"
    assert seen == [(digest(KEYS[1]), digest(KEYS[1]))]
    assert all(len(value) == len("sha256:") + 64 for pair in seen for value in pair)


@pytest.mark.parametrize("near", [KEYS[0][:-1], KEYS[0] + "x", KEYS[0][:-1] + "9", KEYS[0].upper(), digest(KEYS[0])])
def test_a_key_near_a_true_one_is_as_unknown_as_any(near: str) -> None:
    """The lookup is by a digest that changes wholly with each letter: nearness is nothing that time could tell."""
    told = set()
    for key in (near, "x" * 500):
        with pytest.raises(KeyRefused) as refused:
            policy().key(key, now=0)
        told.add((refused.value.reason, str(refused.value)))
    assert len(told) == 1
    assert sum(a == b for a, b in zip(digest(near), digest(KEYS[0]), strict=True)) < 40
