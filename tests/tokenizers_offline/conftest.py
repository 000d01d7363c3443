"""The installed tokenizers for tests that count with the real ones, and an empty store for the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokenizers_offline.encoders import Encoders
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.store import TokenizerStore

MODELS_DIR = Path(os.environ.get("MODELS_DIR", Path(__file__).parents[2] / "models"))


@pytest.fixture(scope="session")
def installed_store() -> TokenizerStore:
    store = TokenizerStore(MODELS_DIR)
    assert store.installed(), f"no tokenizers in {MODELS_DIR}; run: tollgate tokenizers fetch"
    return store


@pytest.fixture(scope="session")
def encoders(installed_store: TokenizerStore) -> Encoders:
    """Shared by a whole session, so that each tokenizer is loaded once."""
    return Encoders(installed_store)


@pytest.fixture
def writer(tmp_path: Path) -> StoreWriter:
    return StoreWriter(tmp_path / "models")
