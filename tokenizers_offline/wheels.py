"""A Python wheel that carries chosen tokenizers: where only `pip install` is possible, they come with it.

The wheel holds a store and no code. Its version is Tollgate's with the contents' SHA-256 behind it, so that two choices
of tokenizers are two versions; the same store gives the same bytes. `tokenizers_offline.carried` finds it.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tokenizers_offline.bundles import OnFile, stored_files
from tokenizers_offline.carried import FOLDER, PACKAGE
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.store import TokenizerStore

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The earliest moment a zip file can name: when a wheel was made must not change its bytes."""

_ABOUT = """Metadata-Version: 2.1
Name: tollgate-tokenizers
Version: {version}
Summary: Tokenizers for Tollgate, to count without a network
Description-Content-Type: text/markdown

Made by `tollgate tokenizers wheel`. It holds these encodings: {names}.

Each vocabulary belongs to its model and carries that model's terms.
"""

_WHEEL = """Wheel-Version: 1.0
Generator: tollgate
Root-Is-Purelib: true
Tag: py3-none-any
"""


def write_wheel(
    store: TokenizerStore,
    folder: Path,
    names: Iterable[str],
    *,
    version: str,
    on_file: OnFile = lambda file: None,
) -> Path:
    """Write the named encodings and every chat template to a wheel in `folder`; returns its path."""
    wanted = sorted(set(names))
    members = {f"{PACKAGE}/{FOLDER}/{file}": path.read_bytes() for file, path in stored_files(store, wanted).items()}
    members[f"{PACKAGE}/__init__.py"] = b'"""Tokenizers for Tollgate: data, and nothing to run."""\n'
    digest = hashlib.sha256("".join(_record(name, data) for name, data in sorted(members.items())).encode())
    full = f"{version}+{digest.hexdigest()[:12]}"
    info = f"{PACKAGE}-{full}.dist-info"
    members[f"{info}/METADATA"] = _ABOUT.format(version=full, names=", ".join(wanted)).encode()
    members[f"{info}/WHEEL"] = _WHEEL.encode()
    record = "".join(_record(name, data) for name, data in members.items()) + f"{info}/RECORD,,\n"
    members[f"{info}/RECORD"] = record.encode()
    wheel = folder / f"{PACKAGE}-{full}-py3-none-any.whl"
    buffer = wheel.with_name(wheel.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in members.items():
                entry = zipfile.ZipInfo(name, date_time=_LONG_AGO)
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_STORED if name.endswith(".z") else zipfile.ZIP_DEFLATED
                archive.writestr(entry, data)
                on_file(name)
        buffer.replace(wheel)
    except OSError as error:
        raise CountingError(f"{wheel} cannot be written: {error.strerror}.") from error
    finally:
        buffer.unlink(missing_ok=True)
    return wheel


def _record(name: str, data: bytes) -> str:
    """A line of a wheel's RECORD: what pip holds an installed file against."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"
