"""Writes the tokenizer store: install, forget, compare again. `bundles` carries it elsewhere.

Every file is finished under another name, flushed, then renamed into place, and an encoding's own file comes last:
whatever is interrupted, the store holds whole encodings only.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers_offline import verdicts
from tokenizers_offline.engine_check import first_difference, hostile_texts
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.segments import Splitter, splits_of
from tokenizers_offline.store import FORMAT, DamagedStore, InstalledEncoding, TokenizerStore, valid_name
from tokenizers_offline.vocabulary import Vocabulary

_COMPRESSION = 6
"""zlib's level: 9 takes four times as long to save one part in fifty (measured on o200k's core)."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation found out: the fastest engine that counts right, and why not another one."""

    name: str
    engine: str
    why: str


class StoreWriter:
    """Changes the store at `root`. Several writers may run at once; the last to install a name wins."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = TokenizerStore(root)

    def install(self, name: str, vocabulary: Vocabulary, *, family: str, specials: bool, source: str) -> Installed:
        """Check a vocabulary in all engines and install it under `name`, with its chat templates."""
        if not valid_name(name):
            raise CountingError(f"'{name}' cannot name an encoding: use letters, digits, dots, dashes, underscores.")
        record = InstalledEncoding(
            name=name,
            family=family,
            specials=specials,
            revision=vocabulary.revision,
            source=source,
            core=vocabulary.core_id,
            frame=vocabulary.frame,
        )
        verdict = self._known_verdict(record) or _judge(record, vocabulary.core)
        core = self.store.core_path(record.core)
        if not core.exists():
            write_whole(core, zlib.compress(vocabulary.core.encode(), _COMPRESSION))
        for extra, text in vocabulary.templates.items():
            self.install_template(f"{name}.{extra}" if extra else name, text, source=source)
        replaced = self._core_of(name)
        self._write_record(record, verdict)
        if replaced is not None and replaced not in {self._core_of(other) for other in self.store.installed()}:
            self.store.core_path(replaced).unlink(missing_ok=True)
        return Installed(name=name, engine=verdict.engine, why=verdict.why)

    def install_template(self, template_id: str, text: str, *, source: str) -> None:
        """Install a chat template."""
        if not valid_name(template_id):
            raise CountingError(f"'{template_id}' cannot name a chat template.")
        digest = hashlib.sha256(text.encode()).hexdigest()
        data = {"format": FORMAT, "id": template_id, "sha256": digest, "source": source, "text": text}
        _write_json(self.root / "templates" / f"{template_id}.json", data)

    def recheck(self, name: str, *, source: TokenizerStore | None = None) -> Installed:
        """Read an installed encoding anew, verify it and compare the engines again; `source` may have it where this
        writer does not write. The verdict is recorded if it is here."""
        here = TokenizerStore(self.root)
        store = source or here
        record = store.encoding(name)
        verdict = _judge(record, store.core(record.core))
        if name in here.installed():
            self._write_record(record, verdict)
        return Installed(name=name, engine=verdict.engine, why=verdict.why)

    def judge(self, name: str) -> bool:
        """Recheck an installed encoding, unless its engines were compared in the versions that are here; whether it
        had to be."""
        if verdicts.recorded(TokenizerStore(self.root).encoding(name).engines) is not None:
            return False
        self.recheck(name)
        return True

    def _known_verdict(self, record: InstalledEncoding) -> _Verdict | None:
        """The verdict on an installed encoding of the same revision, if all engines are still those."""
        for name in self.store.installed():
            try:
                other = self.store.encoding(name)
            except DamagedStore:
                continue
            known = verdicts.recorded(other.engines)
            if other.revision == record.revision and known is not None:
                return _Verdict(known, why="" if all(known.values()) else f"as for {name}", splits=other.splits)
        return None

    def _core_of(self, name: str) -> str | None:
        try:
            return self.store.encoding(name).core
        except CountingError:
            return None

    def _write_record(self, record: InstalledEncoding, verdict: _Verdict) -> None:
        data = {
            "format": FORMAT,
            "name": record.name,
            "family": record.family,
            "specials": record.specials,
            "revision": record.revision,
            "source": record.source,
            "core": record.core,
            "engines": verdicts.to_record(verdict.engines),
            "splits": list(verdict.splits),
            "frame": dict(record.frame),
        }
        _write_json(self.root / "encodings" / f"{record.name}.json", data)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Which engines count an encoding right (`why` not some), and where its texts may be split."""

    engines: Mapping[str, bool]
    why: str
    splits: tuple[str, ...]

    @property
    def engine(self) -> str:
        return verdicts.best(self.engines)


def _judge(record: InstalledEncoding, core: str) -> _Verdict:
    judged = verdicts.judge(record, core)
    splits = _proven_splits(record, core, judged.reference.count)
    return _Verdict(judged.verdicts, why="; ".join(judged.why_not.values()), splits=splits)


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


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is either there whole or not there, also after a power cut."""
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
