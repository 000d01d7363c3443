"""The installed tokenizers, as the running gateway sees them: read-only, and verified when read.

    ROOT/encodings/NAME.json    what the encoding is: frame, revision, source, which engines count it right
    ROOT/cores/ID.z             zlib of vocabulary and merges; one file for all encodings that share them
    ROOT/templates/ID.json      a chat template and its SHA-256

`tokenizers_offline.installing` writes these files, each by renaming a finished one into place. A second folder of the
same form may lie beneath: what the first has not is read there (see `tokenizers_offline.carried`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers_offline.prompt import CountingError, TokenizerUnavailable
from tokenizers_offline.vocabulary import assemble, revision_of

FORMAT = 1
"""Version of the files' form. A store of another form is refused, never guessed at."""

LARGEST_CORE_BYTES = 256 * 1024 * 1024
"""What a core may unfold to: seven times the largest there is. A file that promises more is not unfolded."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class DamagedStore(CountingError):
    """A stored file is not what was installed; the message names the file and how to mend it."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}. Install it again: tollgate tokenizers fetch --again {path.stem}")
        self.path = path
        self.why = why


@dataclass(frozen=True, slots=True)
class InstalledEncoding:
    """One installed tokenizer. `core` is the SHA-256 of its core; `engines` maps an engine check's id to whether
    the fast engine counted like the reference; `splits` names the places where splitting is known to be exact."""

    name: str
    family: str
    specials: bool
    revision: str
    source: str
    core: str
    frame: Mapping[str, Any] = field(repr=False)
    engines: Mapping[str, bool] = field(default_factory=dict)
    splits: tuple[str, ...] = ()


class TokenizerStore:
    """Reads one directory of installed tokenizers, and one beneath it. Safe to share between threads; never writes."""

    def __init__(self, root: Path, *, beneath: Path | None = None) -> None:
        self.root = root
        self.roots = (root,) if beneath is None else (root, beneath)
        self._template_folders = [f"{each}/templates" for each in self.roots]
        self._lock = threading.Lock()
        self._records: dict[str, tuple[int, InstalledEncoding]] = {}
        self._templates: dict[str, tuple[int, str]] = {}
        self._listed: tuple[tuple[int, ...], tuple[str, ...]] = ((), ())

    def installed(self) -> tuple[str, ...]:
        """The names of the installed encodings, sorted. A fetch while the gateway runs is seen at once."""
        changed = tuple(_changed(root / "encodings") for root in self.roots)
        if self._listed[0] != changed:
            self._listed = (changed, self._names("encodings"))
        return self._listed[1]

    def templates(self) -> tuple[str, ...]:
        """The ids of the installed chat templates, sorted."""
        return self._names("templates")

    def template(self, template_id: str) -> str:
        """An installed chat template; "" when there is none of that id."""
        if not _NAME.fullmatch(template_id):
            return ""
        for folder in self._template_folders:
            name = f"{folder}/{template_id}.json"  # asked for with every prompt: pathlib costs as much again
            try:
                changed = os.stat(name).st_mtime_ns
                break
            except FileNotFoundError:
                continue
        else:
            return ""
        known = self._templates.get(template_id)
        if known is not None and known[0] == changed:
            return known[1]
        path = Path(name)
        data = _read_json(path)
        text = str(data.get("text"))
        if hashlib.sha256(text.encode()).hexdigest() != data.get("sha256"):
            raise DamagedStore(path, "the template does not match its SHA-256")
        self._templates[template_id] = (changed, text)
        return text

    def revision(self, encoding: str) -> str:
        """The SHA-256 that says which vocabulary and rules an installed encoding counts by."""
        return self.encoding(encoding).revision

    def encoding(self, name: str) -> InstalledEncoding:
        """What is known about an installed encoding; raises `TokenizerUnavailable` when it is not installed."""
        if not _NAME.fullmatch(name):
            raise TokenizerUnavailable(name, name)
        path = self.path("encodings", f"{name}.json")
        try:
            changed = path.stat().st_mtime_ns
        except FileNotFoundError:
            raise TokenizerUnavailable(name, name) from None
        with self._lock:
            known = self._records.get(name)
            if known is not None and known[0] == changed:
                return known[1]
            record = _read_record(path)
            self._records[name] = (changed, record)
            return record

    def document(self, name: str) -> str:
        """The whole ``tokenizer.json`` text of an installed encoding, checked against its SHA-256."""
        record = self.encoding(name)
        return assemble(self.core(record.core), record.frame)

    def core(self, core_id: str) -> str:
        """A stored core's text, checked against its SHA-256."""
        path = self.core_path(core_id)
        try:
            unfolding = zlib.decompressobj()
            data = unfolding.decompress(path.read_bytes(), LARGEST_CORE_BYTES)
        except (OSError, zlib.error) as error:
            raise DamagedStore(path, f"the vocabulary cannot be read ({error})") from error
        if not unfolding.eof or hashlib.sha256(data).hexdigest() != core_id:
            raise DamagedStore(path, "the vocabulary does not match its SHA-256")
        return data.decode()

    def core_path(self, core_id: str) -> Path:
        """Where a core is kept."""
        return self.path("cores", f"{core_id[:32]}.z")

    def path(self, kind: str, file: str) -> Path:
        """Where a file is read: in the upper folder, or in the one beneath if only that has it."""
        for root in self.roots[1:]:
            if not (self.root / kind / file).exists() and (root / kind / file).exists():
                return root / kind / file
        return self.root / kind / file

    def _names(self, kind: str) -> tuple[str, ...]:
        return tuple(sorted({path.stem for root in self.roots for path in (root / kind).glob("*.json")}))


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return -1


def valid_name(name: str) -> bool:
    """Whether a name can be an encoding's or a template's: letters, digits, dot, dash, underscore."""
    return _NAME.fullmatch(name) is not None


def _read_record(path: Path) -> InstalledEncoding:
    data = _read_json(path)
    try:
        record = InstalledEncoding(
            name=data["name"],
            family=data["family"],
            specials=data["specials"],
            revision=data["revision"],
            source=data["source"],
            core=data["core"],
            frame=data["frame"],
            engines=data["engines"],
            splits=tuple(data["splits"]),
        )
    except KeyError as error:
        raise DamagedStore(path, f"the field {error} is missing") from error
    if revision_of(record.core, record.frame) != record.revision:
        raise DamagedStore(path, "the rules do not match the revision")
    return record


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedStore(path, f"the file cannot be read ({error})") from error
    if data.get("format") != FORMAT:
        raise DamagedStore(path, f"the form is {data.get('format')!r}, this version reads {FORMAT}")
    return data
