"""Tokenizers in a Python wheel: built like any wheel, found beside the folder, and read beneath it."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from pathlib import Path

import pytest

from tests.tokenizers_offline.test_installing import install
from tokenizers_offline.carried import carried_folder, open_tokenizers
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.prompt import TokenizerUnavailable
from tokenizers_offline.wheels import write_wheel


@pytest.fixture
def wheel(writer: StoreWriter, tmp_path: Path) -> Path:
    install(writer, "one")
    install(writer, "two", added=("<|user|>",))
    return write_wheel(writer.store, tmp_path / "wheels", ["one", "two"], version="1.2.3")


@pytest.fixture
def carried(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel, unpacked where Python looks, as pip does."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    return site / "tollgate_tokenizers" / "models"


def test_wheel_lists_its_files_with_their_sha256(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        lines = [line.split(",") for line in archive.read(record).decode().splitlines()]
        for name, digest, size in lines:
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, size) == (("", "") if name == record else (f"sha256={expected}", str(len(data))))
    assert sorted(name for name, _, _ in lines) == sorted(names)


def test_wheel_has_the_same_bytes_when_it_is_made_again(writer: StoreWriter, wheel: Path, tmp_path: Path) -> None:
    again = write_wheel(writer.store, tmp_path / "again", ["two", "one"], version="1.2.3")
    assert (again.name, again.read_bytes()) == (wheel.name, wheel.read_bytes())
    other = write_wheel(writer.store, tmp_path / "again", ["one"], version="1.2.3")
    assert other.name != wheel.name


def test_folder_is_all_there_is_when_no_wheel_is_installed(tmp_path: Path) -> None:
    assert carried_folder() is None
    assert open_tokenizers(tmp_path / "models").roots == (tmp_path / "models",)


def test_carried_tokenizers_count_when_the_folder_has_none(carried: Path, tmp_path: Path) -> None:
    assert carried_folder() == carried
    store = open_tokenizers(tmp_path / "empty")
    assert store.installed() == ("one", "two")
    assert store.template("one") != ""
    assert Encoders(store).get("two").count("hello world", specials=True) == 3
    assert not (tmp_path / "empty").exists()
    assert "tollgate_tokenizers" not in sys.modules


def test_folder_comes_before_what_is_carried(carried: Path, tmp_path: Path) -> None:
    own = StoreWriter(tmp_path / "own")
    install(own, "one", added=("<|mine|>",))
    install(own, "three")
    store = open_tokenizers(own.root)
    assert store.installed() == ("one", "three", "two")
    assert store.revision("one") == own.store.revision("one")
    assert store.revision("two") == json.loads((carried / "encodings" / "two.json").read_text())["revision"]
    with pytest.raises(TokenizerUnavailable):
        store.encoding("four")


def test_tokenizer_added_later_is_seen_beside_those_carried(carried: Path, tmp_path: Path) -> None:
    store = open_tokenizers(tmp_path / "own")
    assert store.installed() == ("one", "two")
    install(StoreWriter(tmp_path / "own"), "added")
    assert store.installed() == ("added", "one", "two")
