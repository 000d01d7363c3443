"""The store on disk: shared cores, whole files only, bundles that travel and bundles that are refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.tokenizers_offline.vocabularies import config_bytes, document_bytes
from tokenizers_offline.encoders import Encoders, check_id
from tokenizers_offline.installing import BadBundle, StoreWriter
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.store import DamagedStore, TokenizerStore
from tokenizers_offline.vocabulary import from_tokenizer_json


def install(writer: StoreWriter, name: str, **options: tuple[str, ...]) -> None:
    vocabulary = from_tokenizer_json(document_bytes(**options), config=config_bytes())
    writer.install(name, vocabulary, family="Tiny", specials=True, source="test")


def files(writer: StoreWriter, kind: str) -> list[str]:
    return sorted(path.name for path in (writer.root / kind).iterdir())


def test_core_is_kept_once_when_two_encodings_share_it(writer: StoreWriter) -> None:
    install(writer, "one")
    install(writer, "two", added=("<|user|>",))
    assert files(writer, "encodings") == ["one.json", "two.json"]
    assert len(files(writer, "cores")) == 1


def test_nothing_half_written_is_left(writer: StoreWriter) -> None:
    install(writer, "one")
    assert not list(writer.root.rglob(".*"))


def test_verdict_on_the_engines_is_recorded(writer: StoreWriter) -> None:
    install(writer, "one")
    assert check_id() in writer.store.encoding("one").engines


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b"])
def test_name_is_refused_when_it_could_leave_the_store(writer: StoreWriter, name: str) -> None:
    with pytest.raises(CountingError, match="cannot name"):
        install(writer, name)


def test_bundle_carries_everything(writer: StoreWriter, tmp_path: Path) -> None:
    install(writer, "one")
    install(writer, "two", added=("<|user|>",))
    assert writer.export(tmp_path / "all.tar", ["one", "two"]) == 2
    other = StoreWriter(tmp_path / "elsewhere")
    assert other.import_bundle(tmp_path / "all.tar") == ("one", "two")
    assert other.store.revision("two") == writer.store.revision("two")
    assert other.store.template("one") == writer.store.template("one") != ""
    encoder = Encoders(TokenizerStore(other.root)).get("one")
    assert encoder.count("hello world", specials=True) == 3


def test_export_is_refused_when_the_store_is_damaged(writer: StoreWriter, tmp_path: Path) -> None:
    install(writer, "one")
    writer.store.core_path(writer.store.encoding("one").core).write_bytes(b"x")
    with pytest.raises(DamagedStore):
        writer.export(tmp_path / "all.tar", ["one"])
    assert not (tmp_path / "all.tar").exists()


def bundle(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "members",
    [{}, {"../evil.json": b"{}"}, {"/etc/passwd": b""}, {"encodings/../../x.json": b""}, {"encodings/a.json": b"{}"}],
)
def test_bundle_is_refused_when_it_is_not_one(writer: StoreWriter, tmp_path: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(CountingError):
        writer.import_bundle(bundle(tmp_path / "bad.tar", members))
    assert writer.store.installed() == ()
    assert not (tmp_path / "evil.json").exists()


def test_bundle_is_refused_when_it_is_no_tar_file(writer: StoreWriter, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"hello")
    with pytest.raises(BadBundle, match="cannot be read"):
        writer.import_bundle(tmp_path / "bad.tar")


def test_bundle_is_refused_whole_when_one_core_is_damaged(writer: StoreWriter, tmp_path: Path) -> None:
    install(writer, "one")
    writer.export(tmp_path / "all.tar", ["one"])
    with tarfile.open(tmp_path / "all.tar") as archive:
        members = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    core = next(name for name in members if name.startswith("cores/"))
    members[core] = members[core][:-4] + b"\0\0\0\0"
    other = StoreWriter(tmp_path / "elsewhere")
    with pytest.raises(DamagedStore):
        other.import_bundle(bundle(tmp_path / "bad.tar", members))
    assert other.store.installed() == ()


def test_recheck_restores_the_verdict(writer: StoreWriter) -> None:
    install(writer, "one")
    before = writer.store.encoding("one")
    found = writer.recheck("one")
    assert found.name == "one"
    assert TokenizerStore(writer.root).encoding("one") == before
