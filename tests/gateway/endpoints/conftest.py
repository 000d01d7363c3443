"""Stores of every kind for gateways under test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policies.conftest import fresh_url, redis_server

__all__ = ["kept_url", "redis_server", "store_url"]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh_url(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", "redis"])
def kept_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that outlives its gateway."""
    return fresh_url(request.param, request, tmp_path)
