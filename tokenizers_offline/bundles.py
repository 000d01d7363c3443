"""Bundles: chosen tokenizers in one file, carried to a machine that has no network.

A bundle is a tar file, not compressed (its cores are): ``bundle.json`` first, which names every other file with its
size and SHA-256, then those files as the store keeps them. The same store gives the same bytes. An import believes
nothing: what is not listed, not a plain file, not of its size, not of its SHA-256 or not a tokenizer ends it, and
nothing was installed.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers_offline.installing import StoreWriter, write_whole
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.store import DamagedStore, TokenizerStore

CONTENTS = "bundle.json"
_FORMAT = 1
_STORED = re.compile(r"(encodings|templates)/[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.json|cores/[0-9a-f]{32}\.z")
_MOST_FILES = 2_000
_LARGEST_FILE_BYTES = 64 * 1024 * 1024
_LARGEST_CONTENTS_BYTES = 1024 * 1024
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)

OnFile = Callable[[str], None]


class BadBundle(CountingError):
    """A bundle that is not one, or not whole; the message says what is wrong with it."""


def stored_files(store: TokenizerStore, names: Iterable[str]) -> dict[str, Path]:
    """The files of some encodings, verified, and of every chat template: name in a store -> where it is now."""
    wanted = sorted(set(names))
    cores = {store.encoding(name).core for name in wanted}
    for core in cores:
        store.core(core)  # a damaged store must not travel
    files = {f"encodings/{name}.json": store.path("encodings", f"{name}.json") for name in wanted}
    files |= {f"cores/{(path := store.core_path(core)).name}": path for core in cores}
    for template in store.templates():
        store.template(template)
        files[f"templates/{template}.json"] = store.path("templates", f"{template}.json")
    return dict(sorted(files.items()))


def write_bundle(
    store: TokenizerStore, bundle: Path, names: Iterable[str], *, on_file: OnFile = lambda file: None
) -> int:
    """Write the named encodings and every chat template to one file; returns how many encodings."""
    files = stored_files(store, names)
    encodings = [file.split("/")[1].removesuffix(".json") for file in files if file.startswith("encodings/")]
    listed = {file: _listing(path.read_bytes()) for file, path in files.items()}
    contents = json.dumps({"format": _FORMAT, "encodings": encodings, "files": listed}, indent=1).encode()
    buffer = bundle.with_name(bundle.name + ".part")
    try:
        with tarfile.open(buffer, "w", format=tarfile.USTAR_FORMAT) as archive:
            _append(archive, CONTENTS, contents)
            for file, path in files.items():
                _append(archive, file, path.read_bytes())
                on_file(file)
        buffer.replace(bundle)
    except OSError as error:
        raise CountingError(f"{bundle} cannot be written: {error.strerror}.") from error
    finally:
        buffer.unlink(missing_ok=True)
    return len(encodings)


def install_bundle(bundle: Path, writer: StoreWriter, *, on_file: OnFile = lambda file: None) -> tuple[str, ...]:
    """Verify a bundle whole, then install everything in it; returns the encodings' names.

    Encodings whose engines were compared in other versions than those here are compared again: seconds each.
    """
    try:
        writer.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=writer.root, prefix=".import-") as temporary:
            staged = Path(temporary)
            for file, data in _read(bundle):
                write_whole(staged / file, data)
                on_file(file)
            names = _verified(TokenizerStore(staged), bundle)
            for kind in ("cores", "templates", "encodings"):  # an encoding's own file last: see `installing`
                for arrived in sorted((staged / kind).glob("*")):
                    (writer.root / kind).mkdir(exist_ok=True)
                    arrived.replace(writer.root / kind / arrived.name)
    except OSError as error:
        raise CountingError(f"{bundle} cannot be installed in {writer.root}: {error}") from error
    for name in names:
        writer.judge(name)
    return names


def _read(bundle: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a bundle that its contents list, as they are listed."""
    try:
        with tarfile.open(bundle, "r:") as archive:
            listed = _contents(archive, bundle)
            for entry in archive:
                if entry.name == CONTENTS and entry.offset == 0:
                    continue
                expected = listed.pop(entry.name, None)
                if expected is None or entry.type not in _PLAIN or entry.size != expected["bytes"]:
                    raise BadBundle(f"{bundle} holds '{entry.name}', which it does not list so. Nothing was installed.")
                data = _data(archive, entry)
                if _listing(data) != expected:
                    raise BadBundle(f"{bundle}: '{entry.name}' does not match its SHA-256. Nothing was installed.")
                yield entry.name, data
    except (tarfile.TarError, EOFError) as error:
        raise BadBundle(f"{bundle} cannot be read as a bundle: {error}") from error
    if listed:
        raise BadBundle(f"{bundle} is cut short: {len(listed)} files are missing. Nothing was installed.")


def _contents(archive: tarfile.TarFile, bundle: Path) -> dict[str, dict[str, Any]]:
    first = archive.next()
    if first is None or first.name != CONTENTS or first.type not in _PLAIN or first.size > _LARGEST_CONTENTS_BYTES:
        raise BadBundle(f"{bundle} is no tokenizer bundle. Make one with: tollgate tokenizers export BUNDLE")
    try:
        contents = json.loads(_data(archive, first))
        if contents["format"] != _FORMAT:
            raise BadBundle(f"{bundle} has form {contents['format']!r}, this version reads {_FORMAT}.")
        files = contents["files"].items()
        listed = {str(name): {"bytes": each["bytes"], "sha256": each["sha256"]} for name, each in files}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadBundle(f"{bundle}: its list of contents cannot be read ({error}).") from error
    strange = [
        name
        for name, each in listed.items()
        if not (_STORED.fullmatch(name) and isinstance(each["bytes"], int) and each["bytes"] <= _LARGEST_FILE_BYTES)
    ]
    if strange or len(listed) > _MOST_FILES:
        what = f"'{strange[0]}'" if strange else f"{len(listed)} files"
        raise BadBundle(f"{bundle} lists {what}, which no tokenizer bundle has.")
    return listed


def _verified(arrived: TokenizerStore, bundle: Path) -> tuple[str, ...]:
    """The names of the encodings in a store that has just arrived, all of it read and checked."""
    names = arrived.installed()
    if not names:
        raise BadBundle(f"{bundle} holds no tokenizers. Make one with: tollgate tokenizers export BUNDLE")
    try:
        records = {name: arrived.encoding(name) for name in names}
        for core in {record.core for record in records.values()}:
            arrived.core(core)
        for template in arrived.templates():
            arrived.template(template)
    except DamagedStore as error:
        raise BadBundle(f"{bundle}: {error.path.name}: {error.why}. Nothing was installed.") from error
    renamed = [name for name, record in records.items() if record.name != name]
    if renamed:
        raise BadBundle(f"{bundle}: '{renamed[0]}' calls itself '{records[renamed[0]].name}'. Nothing was installed.")
    return names


def _data(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    return b"" if file is None else file.read()


def _listing(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _append(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """A file whose entry says nothing of when, where or by whom it was made."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
