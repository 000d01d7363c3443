"""A store's URL says which it is; what cannot be read is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.stores import open_store
from policies.stores.sqlite import SqliteStore


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tollgate.db", "tollgate.db"),
        ("sqlite:////var/lib/toll%20gate.db", "/var/lib/toll gate.db"),
        ("sqlite:///data/tollgate.db", "data/tollgate.db"),
    ],
)
def test_sqlite_url_names_a_relative_or_an_absolute_file(url: str, path: str) -> None:
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert store.path == Path(path)


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_memory_url_opens_memory(url: str) -> None:
    assert open_store(url).name == "memory"


@pytest.mark.parametrize("url", ["", "memory", "sqlite:", "sqlite://", "sqlite:///", "mysql://h/db", "/tmp/file.db"])
def test_url_is_refused_when_it_names_no_store(url: str) -> None:
    with pytest.raises(ValueError, match=r"store\.url"):
        open_store(url)
