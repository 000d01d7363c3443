"""Where a setting may come from besides the file: the environment, and over it the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.config.document import Document, Route
from gateway.config.problems import Problem, did_you_mean

ENVIRONMENT: Mapping[str, Route] = {
    "HOST": ("server", "host"),
    "PORT": ("server", "port"),
    "TOLLGATE_WORKERS": ("server", "workers"),
    "LOG_LEVEL": ("server", "log_level"),
    "MODELS_DIR": ("tokenizers", "dir"),
    "TOLLGATE_STORE": ("store", "url"),
}
"""Variables that win over the file."""

OPTIONS: Mapping[str, Route] = {
    "host": ("server", "host"),
    "port": ("server", "port"),
    "workers": ("server", "workers"),
    "log_level": ("server", "log_level"),
    "log_format": ("server", "log_format"),
    "models_dir": ("tokenizers", "dir"),
    "store": ("store", "url"),
}
"""Command line options that win over both."""


def apply_sources(document: Document, *, env: Mapping[str, str], overrides: Mapping[str, Any]) -> None:
    """Write the environment and then the overrides (by option name; None: not given) into the document."""
    for variable, route in ENVIRONMENT.items():
        if env.get(variable):
            document.override(route, env[variable], origin=f"environment {variable}")
    for option, value in overrides.items():
        if value is None:
            continue
        origin = f"--{option.replace('_', '-')}"
        if option not in OPTIONS:
            document.problems.append(Problem(origin, "there is no such option", did_you_mean(option, OPTIONS)))
            continue
        document.override(OPTIONS[option], value, origin=origin)
