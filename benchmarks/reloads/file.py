"""The configuration file of a drill, and every way in which files come to be other ones."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from gateway.config.document import VERSION_DIGITS

KEY, ADMIN = "sk-drill-alice", "sk-drill-admin"
FIRST_LIMIT = 10**9

BAD = (
    "",
    "budgets: [\n",
    "upstreams: 7\n",
    "server:\n\tport: 1\n",
    'upstreams: [{name: a, url: "nowhere"}]\n',
    "upstreams: [{name: a, url: ${NOBODY_EXPORTS_THIS}}]\n",
    'upstreams: [{name: echo, url: "echo:"}]\nbudgets: [{name: main, limits: [{tokens: many, per: day}]}]\n',
    'upstreams: [{name: echo, url: "echo:"}]\nkeys: [{id: alice, digest: "md5:1"}]\n',
)
"""Files that cannot be used, each for a reason of its own."""


def digest(secret: str) -> str:
    """A key's digest as it stands in a configuration."""
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


def numbered_key(number: int) -> str:
    """The key that the configuration of this number has besides."""
    return f"sk-drill-{number}"


def configuration(number: int, *, port: int, workers: int, upstream_url: str, folder: Path) -> str:
    """One that differs from every other number's: a limit, and a key."""
    config: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": port, "workers": workers, "log_format": "json"},
        "store": {"url": f"sqlite:///{folder}/budgets.db"},
        "tokenizers": {"dir": os.environ.get("MODELS_DIR", "models")},
        "upstreams": [{"name": "own", "url": upstream_url, "api_key": "sk-upstream"}],
        "keys": [
            {"id": "alice", "digest": digest(KEY)},
            {"id": f"extra-{number}", "digest": digest(numbered_key(number))},
        ],
        "budgets": [
            {"name": "main", "each": "key", "limits": [{"tokens": FIRST_LIMIT + number, "per": "total"}]},
        ],
        "admin": {"digest": digest(ADMIN)},
    }
    return yaml.safe_dump(config)


def version_of(text: str) -> str:
    """What /health calls the version of this text."""
    return hashlib.sha256(text.encode()).hexdigest()[:VERSION_DIGITS]


def renamed_over(path: Path, text: str) -> None:
    """As careful tools do it: written beside, then put in its place in one step."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def in_place(path: Path, text: str) -> None:
    """As an editor may do it."""
    path.write_text(text)


def in_two_halves(path: Path, text: str) -> None:
    """The first half can be seen for a moment."""
    half = len(text) // 2
    with path.open("w") as file:
        file.write(text[:half])
        file.flush()
        time.sleep(0.1)
        file.write(text[half:])


def deleted_and_made_again(path: Path, text: str) -> None:
    """For a moment there is no file."""
    path.unlink()
    time.sleep(0.1)
    path.write_text(text)


def swapped_behind_a_link(path: Path, text: str) -> None:
    """As Kubernetes does it with a ConfigMap: config.yaml -> ..data/config.yaml, and `..data` is swapped."""
    version = path.parent / f"..{version_of(text)}"
    version.mkdir(exist_ok=True)
    (version / path.name).write_text(text)
    data, new = path.parent / "..data", path.parent / "..data_tmp"
    new.symlink_to(version.name)
    new.replace(data)
    if not path.is_symlink():
        link = path.with_suffix(".link")
        link.symlink_to(f"..data/{path.name}")
        link.replace(path)


Way = Callable[[Path, str], None]
WAYS: tuple[Way, ...] = (
    swapped_behind_a_link,
    swapped_behind_a_link,
    in_place,
    renamed_over,
    in_two_halves,
    deleted_and_made_again,
)
"""One after the other; the second swap finds its link in place, as all but a pod's first do."""
