"""Writes the tokenizer store: install, forget, export to a bundle, import one.

Every file is finished under another name, flushed, then renamed into place, and an encoding's own file comes last:
whatever is interrupted, the store holds whole encodings only.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokenizers_offline.encoders import check_engines, check_id
from tokenizers_offline.engine_check import first_difference, hostile_texts
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.segments import Splitter, splits_of
from tokenizers_offline.store import FORMAT, InstalledEncoding, TokenizerStore, valid_name
from tokenizers_offline.vocabulary import Vocabulary, assemble

_BUNDLED = re.compile(r"(encodings|templates)/[A-Za-z0-9][A-Za-z0-9._-]*\.json|cores/[0-9a-f]{32}\.z")
_LARGEST_FILE_BYTES = 256 * 1024 * 1024


class BadBundle(CountingError):
    """A bundle that is not one, or not whole; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation found out: the engine that will count, and why not the fast one when it is not."""

    name: str
    engine: str
    why: str
    stored_bytes: int


class StoreWriter:
    """Changes the store at `root`. Several writers may run at once; the last to install a name wins."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = TokenizerStore(root)

    def install(self, name: str, vocabulary: Vocabulary, *, family: str, specials: bool, source: str) -> Installed:
        """Check a vocabulary in both engines and install it under `name`, with its chat templates."""
        if not valid_name(name):
            raise CountingError(f"'{name}' cannot name an encoding: use letters, digits, dots, dashes, underscores.")
        core_id = vocabulary.core_id
        record = InstalledEncoding(
            name=name,
            family=family,
            specials=specials,
            revision=vocabulary.revision,
            source=source,
            core=core_id,
            frame=vocabulary.frame,
        )
        checked = check_engines(record, assemble(vocabulary.core, vocabulary.frame))
        splits = _proven_splits(record, vocabulary.core, checked.reference.count)
        core = self.store.core_path(core_id)
        if not core.exists():
            _write(core, zlib.compress(vocabulary.core.encode(), 9))
        for extra, text in vocabulary.templates.items():
            self.install_template(f"{name}.{extra}" if extra else name, text, source=source)
        self._write_record(record, engines={check_id(): checked.fast is not None}, splits=splits)
        engine = (checked.fast or checked.reference).engine
        return Installed(name=name, engine=engine, why=checked.why, stored_bytes=core.stat().st_size)

    def install_template(self, template_id: str, text: str, *, source: str) -> None:
        """Install a chat template."""
        if not valid_name(template_id):
            raise CountingError(f"'{template_id}' cannot name a chat template.")
        digest = hashlib.sha256(text.encode()).hexdigest()
        data = {"format": FORMAT, "id": template_id, "sha256": digest, "source": source, "text": text}
        _write_json(self.root / "templates" / f"{template_id}.json", data)

    def recheck(self, name: str) -> Installed:
        """Read an installed encoding anew, verify it, compare the engines again and record the verdict."""
        record = TokenizerStore(self.root).encoding(name)
        core = self.store.core(record.core)
        checked = check_engines(record, assemble(core, record.frame))
        splits = _proven_splits(record, core, checked.reference.count)
        self._write_record(record, engines={check_id(): checked.fast is not None}, splits=splits)
        engine = (checked.fast or checked.reference).engine
        size = self.store.core_path(record.core).stat().st_size
        return Installed(name=name, engine=engine, why=checked.why, stored_bytes=size)

    def export(self, bundle: Path, names: Iterable[str]) -> int:
        """Write the named encodings and every chat template to a tar file; returns how many encodings."""
        wanted = sorted(set(names))
        files = {f"encodings/{name}.json" for name in wanted}
        files |= {f"cores/{self.store.core_path(self.store.encoding(name).core).name}" for name in wanted}
        files |= {f"templates/{template}.json" for template in self.store.templates()}
        for name in wanted:
            self.store.document(name)  # a damaged store must not travel
        buffer = bundle.with_name(bundle.name + ".part")
        with tarfile.open(buffer, "w") as archive:
            for file in sorted(files):
                entry = tarfile.TarInfo(file)
                data = (self.root / file).read_bytes()
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        buffer.replace(bundle)
        return len(wanted)

    def import_bundle(self, bundle: Path) -> tuple[str, ...]:
        """Verify a bundle whole, then install everything in it; returns the encodings' names."""
        with tempfile.TemporaryDirectory(dir=_folder(self.root), prefix=".import-") as temporary:
            staged = Path(temporary)
            _unpack(bundle, staged)
            arrived = TokenizerStore(staged)
            names = arrived.installed()
            if not names:
                raise BadBundle(f"{bundle} holds no tokenizers. Make one with: tollgate tokenizers export BUNDLE")
            for name in names:
                arrived.document(name)
            for template in arrived.templates():
                arrived.template(template)
            for kind in ("cores", "templates", "encodings"):
                for file in sorted((staged / kind).glob("*")) if (staged / kind).exists() else ():
                    _folder(self.root / kind)
                    file.replace(self.root / kind / file.name)
            return names

    def _write_record(self, record: InstalledEncoding, *, engines: Mapping[str, bool], splits: tuple[str, ...]) -> None:
        data = {
            "format": FORMAT,
            "name": record.name,
            "family": record.family,
            "specials": record.specials,
            "revision": record.revision,
            "source": record.source,
            "core": record.core,
            "engines": dict(engines),
            "splits": list(splits),
            "frame": dict(record.frame),
        }
        _write_json(self.root / "encodings" / f"{record.name}.json", data)


def _proven_splits(record: InstalledEncoding, core: str, count: Any) -> tuple[str, ...]:
    """The kinds of places where this encoding may be split: possible by its rules, and found exact on hostile texts."""
    possible = splits_of(record.frame, core)
    tokens = [token["content"] for token in record.frame["added_tokens"]]
    texts = hostile_texts(tokens=tokens, seed=11, count=240)
    texts += ["\n".join(texts[at : at + 12]) for at in range(0, len(texts) - 12, 12)]
    for specials in (True, False):
        splitter = Splitter(record.frame, possible, specials=specials, longest=1)

        def whole(text: str, specials: bool = specials) -> int:
            return int(count(text, specials=specials))

        def by_segments(text: str, specials: bool = specials, splitter: Splitter = splitter) -> int:
            return sum(int(count(part, specials=specials)) for part in splitter.split(text))

        if possible and first_difference(texts, whole, by_segments) is not None:
            return ()
    return possible


def _unpack(bundle: Path, staged: Path) -> None:
    try:
        with tarfile.open(bundle) as archive:
            for entry in archive:
                name = PurePosixPath(entry.name).as_posix()
                if not entry.isfile() or not _BUNDLED.fullmatch(name) or entry.size > _LARGEST_FILE_BYTES:
                    raise BadBundle(f"{bundle} holds '{entry.name}', which no tokenizer bundle has.")
                data = archive.extractfile(entry)
                assert data is not None
                _folder((staged / name).parent)
                (staged / name).write_bytes(data.read())
    except (OSError, tarfile.TarError) as error:
        raise BadBundle(f"{bundle} cannot be read as a bundle: {error}") from error


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    _write(path, json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())


def _write(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=_folder(path.parent), prefix=".part-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
