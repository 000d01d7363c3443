"""config.yaml -> `Settings`: the file, the environment over it, the command line over both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.config.problems import ConfigError, Problem

if TYPE_CHECKING:
    from gateway.settings import Settings

DEFAULT_PATH = Path("config.yaml")


def config_path(given: str | Path | None, *, env: Mapping[str, str] = os.environ) -> Path:
    """Say which file to read: the one given, else TOLLGATE_CONFIG, else ./config.yaml."""
    return Path(given or env.get("TOLLGATE_CONFIG") or DEFAULT_PATH)


def load_settings(
    path: Path, *, env: Mapping[str, str] = os.environ, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Read a configuration file. Raises `ConfigError` with every mistake in it at once.

    `overrides` go by the names of `sources.OPTIONS` (``port``, ``store``, ...); None means not given.
    Relative paths in the file are relative to the working directory.
    """
    from gateway.config.loading import load  # late: `tollgate --help` needs no validation library

    return load(path, env=env, overrides=overrides or {})


__all__ = ["ConfigError", "Problem", "config_path", "load_settings"]
