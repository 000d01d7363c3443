"""Fetching for an image: what a cache keeps, and what is handed out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tokenizers_offline.conftest import MODELS_DIR
from tokenizers_offline.__main__ import main
from tokenizers_offline.bundles import install_bundle, write_bundle
from tokenizers_offline.encodings import load_encodings
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.store import TokenizerStore


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that OpenAI's tokenizers and one more were fetched into, where nothing can be downloaded."""
    names = load_encodings().of_families(["openai"])
    write_bundle(TokenizerStore(MODELS_DIR), tmp_path / "few.bundle", [*names, "deepseek-coder"])
    install_bundle(tmp_path / "few.bundle", StoreWriter(tmp_path / "cache" / "tollgate" / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache" / "tollgate" / "models"


def test_fetch_hands_out_what_was_asked_for_when_the_cache_has_it(cache: Path, tmp_path: Path) -> None:
    assert main(["openai"]) == 0
    out = TokenizerStore(tmp_path / "out")
    assert out.installed() == ("cl100k_base", "o200k_base", "o200k_harmony")
    assert {len(out.document(name)) > 1_000_000 for name in out.installed()} == {True}


def test_fetch_fails_when_something_cannot_be_had(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["openai", "minimax"]) == 3
    assert "Could not be fetched: " in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_fetch_fails_when_the_family_is_unknown(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nobody"]) == 3
    assert "No family is called 'nobody'" in capsys.readouterr().err


def test_fetch_fails_when_the_cache_is_damaged(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for core in (cache / "cores").iterdir():
        core.write_bytes(b"damaged")
    assert main(["openai"]) == 3
    assert "cannot be read" in capsys.readouterr().err
