"""Bundles that travel, and bundles that are refused before anything of them is installed."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.tokenizers_offline.test_installing import install
from tokenizers_offline import store as stores
from tokenizers_offline.bundles import CONTENTS, BadBundle, install_bundle, write_bundle
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.store import DamagedStore, TokenizerStore
from tokenizers_offline.verdicts import recorded


@pytest.fixture
def other(tmp_path: Path) -> StoreWriter:
    return StoreWriter(tmp_path / "elsewhere")


@pytest.fixture
def full(writer: StoreWriter, tmp_path: Path) -> Path:
    """A bundle of two encodings that share a core."""
    install(writer, "one")
    install(writer, "two", added=("<|user|>",))
    assert write_bundle(writer.store, tmp_path / "all.bundle", ["one", "two"]) == 2
    return tmp_path / "all.bundle"


def contents(bundle: Path) -> dict[str, bytes]:
    with tarfile.open(bundle) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def packed(path: Path, members: dict[str, bytes], *, relist: bool = True, **entry_fields: Any) -> Path:
    """A bundle with these files, listed as they are; `entry_fields` are set on all but the list."""
    if relist:
        files = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in members.items()
            if name != CONTENTS
        }
        members = {CONTENTS: json.dumps({"format": 1, "files": files}).encode()} | {
            name: data for name, data in members.items() if name != CONTENTS
        }
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            if name != CONTENTS:
                for field, value in entry_fields.items():
                    setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(data) if entry.isreg() else None)
    return path


def refused(bundle: Path, other: StoreWriter) -> str:
    with pytest.raises(CountingError) as error:
        install_bundle(bundle, other)
    assert other.store.installed() == ()
    assert other.store.templates() == ()
    assert not list(other.root.glob("*")), "something is left"
    assert not list(other.root.glob(".*")), "something is left"
    return str(error.value)


def test_bundle_carries_everything(writer: StoreWriter, other: StoreWriter, full: Path) -> None:
    seen: list[str] = []
    assert install_bundle(full, other, on_file=seen.append) == ("one", "two")
    assert len(seen) == len(contents(full)) - 1
    assert other.store.revision("two") == writer.store.revision("two")
    assert other.store.template("one") == writer.store.template("one") != ""
    encoder = Encoders(TokenizerStore(other.root)).get("one")
    assert encoder.count("hello world", specials=True) == 3
    assert not list(other.root.glob(".*"))


def test_bundle_has_the_same_bytes_when_it_is_made_again(writer: StoreWriter, full: Path, tmp_path: Path) -> None:
    write_bundle(writer.store, tmp_path / "again.bundle", ["two", "one"])
    assert (tmp_path / "again.bundle").read_bytes() == full.read_bytes()


def test_bundle_holds_only_what_was_chosen(writer: StoreWriter, full: Path, tmp_path: Path) -> None:
    write_bundle(writer.store, tmp_path / "few.bundle", ["one"])
    names = [name for name in contents(tmp_path / "few.bundle") if name.startswith(("encodings/", "cores/"))]
    assert "encodings/one.json" in names
    assert len(names) == 2


def test_export_is_refused_when_the_store_is_damaged(writer: StoreWriter, tmp_path: Path) -> None:
    install(writer, "one")
    writer.store.core_path(writer.store.encoding("one").core).write_bytes(b"x")
    with pytest.raises(DamagedStore):
        write_bundle(writer.store, tmp_path / "all.bundle", ["one"])
    assert not list(tmp_path.glob("all.bundle*"))


def test_import_compares_engines_again_when_theirs_were_others(other: StoreWriter, full: Path, tmp_path: Path) -> None:
    members = contents(full)
    record = json.loads(members["encodings/one.json"])
    record["engines"] = {"fastokens 0.0.1 = tokenizers 0.0.1 on nothing": True}
    members["encodings/one.json"] = json.dumps(record).encode()
    install_bundle(packed(tmp_path / "old.bundle", members), other)
    assert recorded(other.store.encoding("one").engines) is not None


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/passwd", "encodings/../../x.json", "encodings/.hidden.json", "cores/x.z", "other/a.json"],
)
def test_bundle_is_refused_when_a_file_could_leave_the_store(
    other: StoreWriter, full: Path, tmp_path: Path, name: str
) -> None:
    bad = packed(tmp_path / "bad.bundle", {**contents(full), name: b"{}"})
    assert re.search(re.escape(name), refused(bad, other))
    assert not (tmp_path / "evil.json").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_bundle_is_refused_when_a_file_is_a_link_or_no_file(
    other: StoreWriter, full: Path, tmp_path: Path, kind: bytes
) -> None:
    bad = packed(tmp_path / "bad.bundle", contents(full), type=kind, linkname="/etc/passwd", size=0)
    assert "does not list so" in refused(bad, other)


def test_bundle_is_refused_when_a_file_is_not_listed(other: StoreWriter, full: Path, tmp_path: Path) -> None:
    members = {**contents(full), "templates/more.json": b"{}"}
    assert "templates/more.json" in refused(packed(tmp_path / "bad.bundle", members, relist=False), other)


def test_bundle_is_refused_when_a_file_comes_twice(other: StoreWriter, full: Path) -> None:
    with tarfile.open(full, "a") as archive:
        data = contents(full)["encodings/one.json"]
        entry = tarfile.TarInfo("encodings/one.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    assert "encodings/one.json" in refused(full, other)


def test_bundle_is_refused_when_one_byte_differs(other: StoreWriter, full: Path, tmp_path: Path) -> None:
    members = contents(full)
    core = next(name for name in members if name.startswith("cores/"))
    members[core] = members[core][:-1] + bytes([members[core][-1] ^ 1])
    bad = packed(tmp_path / "bad.bundle", members, relist=False)
    assert "does not match its SHA-256" in refused(bad, other)
    assert "vocabulary" in refused(packed(tmp_path / "relisted.bundle", members), other)


@pytest.mark.parametrize("left", [0.2, 0.6, 0.95])
def test_bundle_is_refused_when_it_is_cut_short(other: StoreWriter, full: Path, left: float) -> None:
    end = full.read_bytes().rstrip(b"\0")
    full.write_bytes(end[: int(len(end) * left)])
    refused(full, other)


def test_bundle_is_refused_when_an_encoding_calls_itself_otherwise(
    other: StoreWriter, full: Path, tmp_path: Path
) -> None:
    members = contents(full)
    members["encodings/three.json"] = members["encodings/one.json"]
    assert "'three' calls itself 'one'" in refused(packed(tmp_path / "bad.bundle", members), other)


def test_bundle_is_refused_when_a_core_unfolds_without_end(
    other: StoreWriter, full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = contents(full)
    core = next(name for name in members if name.startswith("cores/"))
    members[core] = zlib.compress(zlib.decompress(members[core]) + b" " * 10_000_000)
    assert len(members[core]) < 20_000
    monkeypatch.setattr(stores, "LARGEST_CORE_BYTES", 1_000_000)
    assert "vocabulary" in refused(packed(tmp_path / "bad.bundle", members), other)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"hello", "cannot be read as a bundle"),
        (b"", "cannot be read as a bundle"),
        (b"\x1f\x8b" + b"\0" * 600, "cannot be read as a bundle"),
    ],
)
def test_bundle_is_refused_when_it_is_no_tar_file(other: StoreWriter, tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "bad.bundle").write_bytes(data)
    assert why in refused(tmp_path / "bad.bundle", other)


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        (b"[]", "list of contents"),
        (b'{"format": 2, "files": {}}', "has form 2"),
        (b'{"format": 1, "files": {"cores/x": 1}}', "list of contents"),
        (b'{"format": 1, "files": {}}', "holds no tokenizers"),
        (
            b'{"format": 1, "files": {"encodings/a.json": {"bytes": 99999999999, "sha256": ""}}}',
            "'encodings/a.json', which no tokenizer bundle has",
        ),
    ],
)
def test_bundle_is_refused_when_its_list_is_wrong(other: StoreWriter, tmp_path: Path, listed: bytes, why: str) -> None:
    assert why in refused(packed(tmp_path / "bad.bundle", {CONTENTS: listed}, relist=False), other)


def test_bundle_is_refused_when_it_is_another_tar_file(other: StoreWriter, tmp_path: Path) -> None:
    bad = packed(tmp_path / "bad.bundle", {"readme.txt": b"hello"}, relist=False)
    with pytest.raises(BadBundle, match="no tokenizer bundle"):
        install_bundle(bad, other)
