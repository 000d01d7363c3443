"""Keys are known by their digests alone."""

from __future__ import annotations

import hashlib

import pytest

from policies.model import Budget, Key, KeyRefused, Limit
from policies.policy import Policy, digest

ALICE = Key("alice", digest("sk-alice"))


def reason(policy: Policy, credential: str | None, now: float = 0.0) -> str:
    with pytest.raises(KeyRefused) as refused:
        policy.key(credential, now=now)
    if credential:
        assert credential not in str(refused.value)
    return refused.value.reason


def test_digest_is_sha256_of_the_credential() -> None:
    assert digest("sk-alice") == "sha256:" + hashlib.sha256(b"sk-alice").hexdigest()


def test_key_is_found_when_its_credential_is_presented() -> None:
    assert Policy(keys=(ALICE,)).key("sk-alice", now=0.0) is ALICE


def test_key_is_refused_when_nothing_or_something_else_is_presented() -> None:
    policy = Policy(keys=(ALICE,))
    assert reason(policy, None) == reason(policy, "") == "missing"
    assert reason(policy, "sk-alice ") == reason(policy, ALICE.digest) == reason(policy, "\udc80") == "unknown"


def test_key_is_refused_when_disabled() -> None:
    assert reason(Policy(keys=(Key("bob", digest("sk-bob"), disabled=True),)), "sk-bob") == "disabled"


def test_key_is_refused_from_the_moment_it_expires() -> None:
    policy = Policy(keys=(Key("bob", digest("sk-bob"), expires=100.0),))
    assert policy.key("sk-bob", now=99.9).id == "bob"
    assert reason(policy, "sk-bob", now=100.0) == "expired"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ((ALICE, Key("bob", ALICE.digest)), "digest"),
        ((ALICE, Key("alice", digest("other"))), "id"),
    ],
)
def test_policy_is_refused_when_keys_cannot_be_told_apart(keys: tuple[Key, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Policy(keys=keys)


def test_policy_is_refused_when_two_budgets_share_a_name() -> None:
    with pytest.raises(ValueError, match="'a'"):
        Policy(budgets=(Budget("a"), Budget("b"), Budget("a")))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Limit("tokens", -1, "day"), "negative"),
        (lambda: Limit("tokens", 2**60, "day"), "exactly"),
        (lambda: Limit("tokens", 1, "month", sliding=True), "slide"),
        (lambda: Budget(""), "name"),
        (lambda: Budget("a", warn_at=(80.0,)), "warn_at"),
        (lambda: Budget("a", (Limit("tokens", 1, "day"), Limit("tokens", 2, "day"))), "one counter"),
        (lambda: Budget("a", output_hold=-5), "output_hold"),
        (lambda: Policy(time_zone="Mars/Olympus"), "IANA"),
    ],
)
def test_impossible_figures_are_refused(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]
