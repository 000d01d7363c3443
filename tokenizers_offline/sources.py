"""The one way tokenizers arrive: fetched from where `encodings.yaml` says, checked, normalised, installed.

Only the command line imports this module; nothing the running gateway imports can fetch. Sources are tried in order.
A file must have its pinned SHA-256 and the normalised document its pinned revision; one family that fails is
reported at the end and loses nobody else.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenizers_offline.byte_ranks import from_byte_ranks, from_llama_tokenizer_js, from_sentencepiece
from tokenizers_offline.encodings import Encoding, Encodings, Form, Package, Source
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.registries import Downloads, SourceError, hub_file, members
from tokenizers_offline.store import DamagedStore
from tokenizers_offline.vocabulary import BadVocabulary, Vocabulary, from_tokenizer_json

_DOWNLOADS_AT_ONCE = 4
_INSTALLS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one encoding or template. `detail` is its source, or why it failed."""

    name: str
    state: Literal["installed", "present", "failed"]
    detail: str = ""
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Material:
    """The files of one source, and where they came from in words for people."""

    data: bytes
    config: bytes | None
    template: bytes | None
    origin: str


@dataclass(slots=True)
class Fetcher:
    """Fetches into one store. `hub_revisions` are commits the user chose for hub repositories;
    `on_outcome` hears of each encoding as it is done."""

    writer: StoreWriter
    known: Encodings
    downloads: Downloads
    hub_revisions: Mapping[str, str] = field(default_factory=dict)
    on_outcome: Callable[[Outcome], None] = lambda outcome: None

    def fetch(self, names: Sequence[str] = (), *, again: bool = False, keep_downloads: bool = False) -> list[Outcome]:
        """Install the named encodings and templates, or everything the registries have. `again` replaces what is there.

        Raises `SourceError` for a name nobody knows; every other failure is an outcome.
        """
        missing, outcomes = self._plan(names, again=again)
        if missing:
            with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as downloading:
                for package in dict.fromkeys(_first_package(each) for each in missing):
                    if package.registry != "hub":
                        downloading.submit(self._prefetch, package)
                with ThreadPoolExecutor(_INSTALLS_AT_ONCE) as installing:
                    outcomes += installing.map(self._install, missing)
            done = not any(outcome.state == "failed" for outcome in outcomes)
            if done and not keep_downloads:
                for source in (source for each in missing for source in _sources(each)):
                    self.downloads.remove(source.package)
            self.downloads.close()
        return sorted(outcomes, key=lambda outcome: outcome.name)

    def missing(self, names: Sequence[str] = (), *, again: bool = False) -> tuple[str, ...]:
        """What `fetch` would install: not there yet, or there in another revision than the pinned one."""
        wanted = [_name(each) for each in self._wanted(names)]
        return tuple(wanted) if again else tuple(name for name in wanted if not self._is_present(name))

    def _plan(self, names: Sequence[str], *, again: bool) -> tuple[list[_Wanted], list[Outcome]]:
        missing = set(self.missing(names, again=again))
        wanted = self._wanted(names)
        outcomes = [Outcome(_name(each), "present") for each in wanted if _name(each) not in missing]
        return [each for each in wanted if _name(each) in missing], outcomes

    def _wanted(self, names: Sequence[str]) -> list[_Wanted]:
        unknown = [name for name in names if name not in self.known.encodings and name not in self.known.templates]
        if unknown:
            raise SourceError(
                f"No tokenizer is called {', '.join(unknown)}. Known: {', '.join(sorted(self.known.encodings))}."
            )
        encodings = self.known.encodings.items()
        wanted: list[_Wanted] = [each for name, each in encodings if name in names or (not names and each.by_default)]
        return wanted + [(name, source) for name, source in self.known.templates.items() if name in names or not names]

    def _is_present(self, name: str) -> bool:
        store = self.writer.store
        encoding = self.known.encodings.get(name)
        if encoding is None:
            return name in store.templates()
        try:
            return name in store.installed() and encoding.revision in ("", store.revision(name))
        except DamagedStore:
            return False

    def _prefetch(self, package: Package) -> None:
        try:
            self.downloads.archive(package)
        except CountingError:
            return  # told with the encodings that need it, which ask again and try their other sources

    def _install(self, wanted: _Wanted) -> Outcome:
        reasons: list[str] = []
        for source in _sources(wanted):
            try:
                if isinstance(wanted, Encoding):
                    outcome = self._install_encoding(wanted, source)
                else:
                    outcome = self._install_template(wanted[0], source)
                self.on_outcome(outcome)
                return outcome
            except (CountingError, BadVocabulary, OSError) as error:
                reasons.append(f"{source.package.name}: {error}")
        outcome = Outcome(_name(wanted), "failed", "; ".join(reasons))
        self.on_outcome(outcome)
        return outcome

    def _install_encoding(self, encoding: Encoding, source: Source) -> Outcome:
        material = self._material(source)
        vocabulary = read_vocabulary(encoding, source, material)
        installed = self.writer.install(
            encoding.name, vocabulary, family=encoding.family, specials=encoding.specials, source=material.origin
        )
        return Outcome(encoding.name, "installed", material.origin, installed.engine)

    def _install_template(self, template_id: str, source: Source) -> Outcome:
        material = self._material(source)
        text = read_template(template_id, source, material)
        self.writer.install_template(template_id, text, source=material.origin)
        return Outcome(template_id, "installed", material.origin)

    def _material(self, source: Source) -> Material:
        package = source.package
        if package.registry == "hub":
            revision = self.hub_revisions.get(package.name, package.version)
            from_hub = _from_hub(source, revision, self.downloads.folder / "hub")
            if from_hub is None:
                raise SourceError(f"{package.name} on the hub holds no {source.path}.")
            return from_hub
        beside = {name: f"{source.folder}/{name}".lstrip("/") for name in _BESIDE}
        found = members(self.downloads.archive(package), [source.path, *beside.values()])
        data = found.get(source.path)
        if data is None and source.path not in (f"{source.folder}/chat_template", "chat_template"):
            raise SourceError(f"{package.name} {package.version} holds no {source.path}.")
        return Material(
            data=_unzipped(data or b"", source.path),
            config=found.get(beside["tokenizer_config.json"]),
            template=found.get(beside["chat_template.jinja"]),
            origin=f"{package.registry} {package.name} {package.version}",
        )


_Wanted = Encoding | tuple[str, Source]

_BESIDE = ("tokenizer_config.json", "chat_template.jinja")


def read_vocabulary(encoding: Encoding, source: Source, material: Material) -> Vocabulary:
    """The vocabulary in a source's files, held against its pins."""
    digest = hashlib.sha256(material.data).hexdigest()
    if source.sha256 and digest != source.sha256:
        raise SourceError(f"{source.path} has SHA-256 {digest}, not the pinned {source.sha256}. Nothing was installed.")
    vocabulary = _parse(encoding, source, material)
    if encoding.revision and vocabulary.revision != encoding.revision:
        raise SourceError(
            f"{encoding.name} normalises to revision {vocabulary.revision}, not the pinned {encoding.revision}. "
            "Nothing was installed."
        )
    return vocabulary


def read_template(template_id: str, source: Source, material: Material) -> str:
    """The chat template in a source's files, held against its pin."""
    empty = b'{"model":{"type":"BPE","vocab":{},"merges":[]}}'
    beside = from_tokenizer_json(empty, config=material.config, template=material.template)
    text = beside.templates.get("")
    if text is None:
        raise SourceError(f"{source.package.name} holds no chat template in {source.folder}.")
    digest = hashlib.sha256(text.encode()).hexdigest()
    if source.sha256 and digest != source.sha256:
        raise SourceError(f"The chat template {template_id} has SHA-256 {digest}, not the pinned {source.sha256}.")
    return text


def read_local(path: Path) -> Vocabulary:
    """A vocabulary from the user's own file: tokenizer.json, a folder that holds one, or a SentencePiece ``.model``."""
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        data = file.read_bytes()
        config, template = (_if_there(file.with_name(name)) for name in _BESIDE)
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}.") from error
    if file.suffix == ".model":
        return from_sentencepiece(data)
    return from_tokenizer_json(data, config=config, template=template)


def read_hub(repository: str, commit: str, downloads: Downloads) -> tuple[Vocabulary, str]:
    """The vocabulary of any model hub repository (tokenizer.json, else tokenizer.model), and where it came from."""
    for path, form in _HUB_FILES:
        package = Package(name=repository, registry="hub", version=commit)
        source = Source(package=package, path=path, form=form)
        material = _from_hub(source, commit, downloads.folder / "hub")
        if material is not None:
            return _parse(Encoding(name=repository, family="", sources=(source,)), source, material), material.origin
    raise SourceError(f"{repository} on the hub holds neither tokenizer.json nor tokenizer.model.")


_HUB_FILES: tuple[tuple[str, Form], ...] = (("tokenizer.json", "json"), ("tokenizer.model", "sentencepiece"))


def _from_hub(source: Source, revision: str, folder: Path) -> Material | None:
    """A repository's files, all from one commit; None when it has no such file."""
    repository = source.package.name
    main = hub_file(repository, source.path, revision=revision, folder=folder)
    if main is None:
        return None
    data, commit = main
    beside: list[bytes | None] = [None, None]
    if source.form == "json":
        for index, name in enumerate(_BESIDE):
            found = hub_file(repository, f"{source.folder}/{name}".lstrip("/"), revision=commit, folder=folder)
            beside[index] = found[0] if found else None
    return Material(data=data, config=beside[0], template=beside[1], origin=f"hub {repository} @{commit}")


def _parse(encoding: Encoding, source: Source, material: Material) -> Vocabulary:
    if source.form == "ranks":
        return from_byte_ranks(
            material.data, pattern=source.pattern, added=encoding.added or (), normalizer=source.normalizer
        )
    if source.form == "sentencepiece":
        return from_sentencepiece(material.data, prepend=source.prepend)
    if source.form == "llama-js":
        return from_llama_tokenizer_js(material.data)
    return from_tokenizer_json(
        material.data,
        config=material.config,
        template=material.template,
        fixes=encoding.fixes,
        added=encoding.added,
    )


def _name(wanted: _Wanted) -> str:
    return wanted.name if isinstance(wanted, Encoding) else wanted[0]


def _sources(wanted: _Wanted) -> Iterable[Source]:
    return wanted.sources if isinstance(wanted, Encoding) else (wanted[1],)


def _first_package(wanted: _Wanted) -> Package:
    return next(iter(_sources(wanted))).package


def _unzipped(data: bytes, path: str) -> bytes:
    if not path.endswith(".zip"):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as inner:
        return inner.read(path.rpartition("/")[2].removesuffix(".zip"))


def _if_there(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
